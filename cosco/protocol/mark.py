"""The mark: one mapper's word to a partition range that all of its rows are there.

In exchanges of a group (docs/architecture/groups.md) an attempt ends with one mark for each range,
the last block of its last frame to it, and rows are read on its strength before the metadata
service has heard of the commit. A mark travels as a block (`cosco.format.block`) of
the range's first partition, with the flag for it: so it is checked, forwarded and sent again as
rows are. It is counted and not kept: what readers need of all marks are one attempt a mapper and
sums.

Its content, little-endian, for the partitions of the range in order:

    offset size          field
         0    8 × count  rows
         …    8 × count  bytes of rows before compression
         …    8 × count  sum of the blocks' digests, modulo 2^64

These are sums as of a commit, of the attempt and the partition alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from cosco.errors import DataCorrupted
from cosco.format.block import (
    CODEC_NONE,
    MAX_CONTENT_BYTES,
    BlockHeader,
    Buffer,
    decode_content,
    encode_block,
)
from cosco.protocol.records import U64, PartitionRange

#: How many sums a mark has of each partition.
MARK_FIELDS: Final = 3
#: The most partitions of a range that one mark can speak of.
MAX_MARK_PARTITIONS: Final = MAX_CONTENT_BYTES // (MARK_FIELDS * 8)


@dataclass(frozen=True, slots=True)
class Mark:
    """What an attempt has in the partitions of a range.

    sums: uint64 of 3 × partitions, in their order: rows, bytes before compression, digests.
    """

    mapper: int
    attempt: int
    sums: npt.NDArray[np.uint64]


def encode_mark(mark: Mark, exchange: int, partition_range: PartitionRange) -> tuple[bytes, bytes]:
    """Make the block of a mark for a range.

    Returns: its header and its content.
    """
    if mark.sums.shape != (MARK_FIELDS, partition_range.count):
        raise ValueError(f"sums of shape {mark.sums.shape} for {partition_range.count} partitions")
    header, stored, _ = encode_block(
        exchange=exchange,
        partition=partition_range.first,
        mapper=mark.mapper,
        attempt=mark.attempt,
        first_row=0,
        rows=0,
        content=np.ascontiguousarray(mark.sums, dtype="<u8").tobytes(),
        codec=CODEC_NONE,
        mark=True,
    )
    return header, stored


def decode_mark(header: BlockHeader, stored: Buffer, partition_range: PartitionRange) -> Mark:
    """Return the mark that a block is, whose CRC was checked. Nothing of `stored` is kept.

    Raises: DataCorrupted if it is none of this range.
    """
    if not header.is_mark or header.partition != partition_range.first:
        raise DataCorrupted(
            f"a block of partition {header.partition} is no mark of range {partition_range.index}"
        )
    content = decode_content(header, stored)
    count = partition_range.count
    if len(content) != MARK_FIELDS * 8 * count:
        raise DataCorrupted(f"a mark of {len(content)} bytes for {count} partitions")
    sums: U64 = np.frombuffer(content, dtype="<u8").reshape(MARK_FIELDS, count).copy()
    return Mark(header.mapper, header.attempt, sums)
