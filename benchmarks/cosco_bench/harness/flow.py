"""Map and reduce tasks of any size on few processes: rows out of a small stock, used again.

A process makes its stock of rows once, before any clock starts, so that neither making rows
nor holding them limits how much can be moved.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator

import pyarrow as pa

from cosco import CoscoReader, CoscoWriter
from cosco.local.workers import Link
from cosco_bench.harness.bench_rows import (
    U64,
    RowTally,
    keys_of,
    make_batches,
    partition_keys,
    tally_of,
)
from cosco_bench.harness.capacity import BATCH_ROWS, STOCK_ROWS


@functools.cache
def _stock() -> list[tuple[U64, pa.BinaryArray]]:
    return make_batches(STOCK_ROWS, seed=0)


def rows_of(mapper: int, rows: int) -> Iterator[tuple[U64, pa.BinaryArray]]:
    """Yield `rows` rows and their keys from the stock, beginning at a place of the mapper's own."""
    at = mapper * rows % STOCK_ROWS
    while rows:
        keys, batch = _stock()[at // BATCH_ROWS]
        start = at % BATCH_ROWS
        piece = slice(start, start + min(rows, BATCH_ROWS - start))
        yield keys[piece], batch[piece]
        rows -= piece.stop - start
        at = (at + piece.stop - start) % STOCK_ROWS


def make_stock(_link: Link) -> None:
    """Have this process make its stock now."""
    _stock()


def map_rows(
    link: Link, metadata: str, shuffle_id: str, mapper: int, rows: int, partitions: int
) -> RowTally:
    """Push `rows` rows and commit: a map task."""
    tally = RowTally()
    with CoscoWriter(shuffle_id, mapper, metadata=metadata) as writer:
        for keys, batch in rows_of(mapper, rows):
            writer.collect_batch(partition_keys(keys, partitions), batch)
            tally += tally_of(keys)
            link.progress(len(keys))
    return tally


def reduce_rows(
    link: Link, metadata: str, shuffle_id: str, mappers: int, partitions: range
) -> RowTally:
    """Read partitions, count their rows and add up keys: a reduce task."""
    tally = RowTally()
    for partition in partitions:
        with CoscoReader(shuffle_id, range(mappers), partition, metadata=metadata) as reader:
            for batch in reader.read_batches():
                keys = keys_of(batch.column(0))
                tally += tally_of(keys)
                link.progress(len(keys))
    return tally
