"""Packed frames taken apart, and readers of them, for the tests of packing and merging."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from pyroaring import BitMap

from cosco.client.content import Decoded
from cosco.client.content.byte_rows import iter_rows
from cosco.client.read.state.batch_assembly import ArrowAssembly
from cosco.client.read.state.merge import PartitionMerge
from cosco.client.write.state.framing import PackedFrame
from cosco.client.write.state.packing import ArrowPacker, RowPacker
from cosco.format.block import CODEC_LZ4, encode_block, walk_blocks
from cosco.format.frame import FRAME_HEADER_BYTES, MAX_FRAME_BYTES
from cosco.protocol.records import (
    MASK64,
    AttemptSums,
    ExchangeInfo,
    ExchangeSpec,
    OpenedAttempt,
    PartitionRange,
    ReadSnapshot,
    RowKind,
)

EXCHANGE = 9


def cut_ranges(partitions: int, ranges: int = 3) -> tuple[PartitionRange, ...]:
    """`partitions` in at most so many ranges."""
    step = -(-partitions // ranges)
    firsts = range(0, partitions, step)
    return tuple(
        PartitionRange(index, first, min(step, partitions - first))
        for index, first in enumerate(firsts)
    )


def opened(
    partitions: int,
    *,
    mapper: int = 4,
    attempt: int = 1,
    ranges: tuple[PartitionRange, ...] = (),
    wanted: Iterable[int] | None = None,
    codec: str = "lz4",
) -> OpenedAttempt:
    """An attempt for a packer; `wanted`: indexes of the only ranges whose rows are."""
    info = ExchangeInfo(
        number=EXCHANGE,
        spec=ExchangeSpec("s", partitions, codec=codec),
        generation=1,
        kind=RowKind.UNDECIDED,
        schema=b"",
        ranges=ranges or cut_ranges(partitions),
        assignments=(),
    )
    return OpenedAttempt(info, mapper, attempt, wanted is not None, tuple(wanted or ()))


def row_packer(partitions: int, *, buffer_bytes: int = 1 << 20, **options: Any) -> RowPacker:
    return RowPacker(opened(partitions, **options), buffer_bytes)


def arrow_packer(
    schema: pa.Schema, partitions: int, *, buffer_bytes: int = 1 << 20, **options: Any
) -> ArrowPacker:
    return ArrowPacker(opened(partitions, **options), buffer_bytes, schema)


def blocks_of(frames: Iterable[PackedFrame], partitions: int) -> dict[int, list[bytes]]:
    """The blocks of each partition, in order; checks what every frame must keep to."""
    ranges = cut_ranges(partitions)
    found: dict[int, list[bytes]] = defaultdict(list)
    for frame in frames:
        body = b"".join(frame.parts)
        assert frame.body_bytes == len(body) <= MAX_FRAME_BYTES - FRAME_HEADER_BYTES
        blocks = list(walk_blocks(memoryview(body)))
        assert frame.blocks == len(blocks) > 0
        placed = ranges[frame.range_index]
        for offset, header in blocks:
            assert placed.first <= header.partition < placed.first + placed.count
            found[header.partition].append(body[offset : offset + header.block_bytes])
    return found


def one_block(**changes: Any) -> bytes:
    """A block of the row b"x", with other fields where they are given."""
    fields: dict[str, Any] = {
        "exchange": EXCHANGE, "partition": 0, "mapper": 4, "attempt": 1, "first_row": 0,
        "rows": 1, "content": b"\x01\0\0\0x", "codec": CODEC_LZ4, "lengths": True,
    }  # fmt: skip
    header, stored, _ = encode_block(**{**fields, **changes})
    return header + stored


def snapshot_of(partition: int, sums: Sequence[tuple[int, int, AttemptSums]]) -> ReadSnapshot:
    """What the metadata service says after (mapper, attempt, sums) committed."""
    rows = row_bytes = digest = 0
    for _, _, one in sums:
        for index in np.flatnonzero(one.partitions == partition).tolist():
            rows += int(one.rows[index])
            row_bytes += int(one.raw_bytes[index])
            digest = (digest + int(one.digests[index])) & MASK64
    return ReadSnapshot(
        version=1,
        generation=1,
        build=1,
        mappers=np.array([mapper for mapper, _, _ in sums], np.uint32),
        attempts=np.array([attempt for _, attempt, _ in sums], np.uint64),
        rows=rows,
        raw_bytes=row_bytes,
        digest=digest,
        sources=(),
    )


def merge_of(snapshot: ReadSnapshot, partition: int, named: Iterable[int]) -> PartitionMerge:
    return PartitionMerge(snapshot, exchange=EXCHANGE, partition=partition, named=BitMap(named))


def verify(merge: PartitionMerge) -> None:
    """Raise what a reader would if the rows are not all there."""
    if not merge.complete():
        raise merge.failure()


def rows_of(decoded: Iterable[Decoded]) -> list[bytes]:
    return [row for one in decoded for row in iter_rows(one)]


def table_of(decoded: Iterable[Decoded], schema: pa.Schema) -> pa.Table:
    """What `read_table` makes of blocks."""
    return ArrowAssembly(schema).table([one] for one in decoded)
