"""Record batches and tables, made of the blocks of one partition."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import pyarrow as pa

from cosco.client.content import Decoded
from cosco.client.content.arrow import ContentDecoder, join_plain
from cosco.client.content.arrow_restore import Restorer
from cosco.client.content.value_pool import ValuePool


class ArrowAssembly:
    """Makes the batches of an Arrow exchange's rows."""

    def __init__(self, schema: pa.Schema) -> None:
        """Begin. schema: the exchange's."""
        self._decoder: Final = ContentDecoder(schema)

    def batches(self, blocks: Sequence[Decoded], max_bytes: int) -> Iterator[pa.RecordBatch]:
        """Yield the rows of some blocks in batches of about `max_bytes`, of the exchange's schema.

        Raises: DataCorrupted.
        """
        pools = self._decoder.way.new_pools()
        restorer = Restorer(self._decoder.way, pools)
        for plain, content_bytes in self._plain(blocks, pools):
            for part in sliced(plain, content_bytes, max_bytes):
                yield from restorer.batches(part)

    def table(self, groups: Iterable[Sequence[Decoded]]) -> pa.Table:
        """Return all rows as one table, whose chunks have the same dictionaries if they can.

        Codes are as wide as the dictionaries of all rows need, beyond the exchange's schema.

        Raises: DataCorrupted.
        """
        pools = self._decoder.way.new_pools()
        plain = deque(one for group in groups for one, _ in self._plain(group, pools))
        restorer = Restorer(self._decoder.way, pools, whole=True)
        batches: list[pa.RecordBatch] = []
        while plain:  # and so none is kept beside what was made of it
            batches += restorer.batches(plain.popleft())
        return pa.Table.from_batches(
            batches, schema=batches[0].schema if batches else self._decoder.schema
        )

    def _plain(
        self, blocks: Sequence[Decoded], pools: Sequence[ValuePool]
    ) -> Iterator[tuple[pa.RecordBatch, int]]:
        """Yield the rows of blocks as one plain batch, and how many bytes they had.

        If their offsets do not reach everywhere in one, yield each by itself.
        """
        batches = [self._decoder.plain(one, pools) for one in blocks]
        sizes = [len(one.content) for one in blocks]
        try:
            joined = join_plain(batches)
        except pa.ArrowInvalid:
            yield from zip(batches, sizes, strict=True)
        else:
            yield joined, sum(sizes)


def grouped(rows: Iterable[Decoded], max_bytes: int) -> Iterator[list[Decoded]]:
    """Yield blocks in groups of at most `max_bytes`, or of one that is longer."""
    group: list[Decoded] = []
    group_bytes = 0
    for decoded in rows:
        if group and group_bytes + len(decoded.content) > max_bytes:
            yield group
            group, group_bytes = [], 0
        group.append(decoded)
        group_bytes += len(decoded.content)
    if group:
        yield group


def sliced(batch: pa.RecordBatch, batch_bytes: int, max_bytes: int) -> Iterator[pa.RecordBatch]:
    """Yield the batch in parts of about `max_bytes`, of one row at least."""
    parts = min(-(-batch_bytes // max_bytes), batch.num_rows)
    for part in range(parts):
        first = batch.num_rows * part // parts
        yield batch.slice(first, batch.num_rows * (part + 1) // parts - first)
