"""The segment: one write of a daemon, which is a file: chunks of some partitions, and an index.

It belongs to one (exchange, range, epoch, incarnation), and holds at most one chunk of each of
its partitions, ascending by partition. `cosco.format.chunk` says what a chunk is; `offset` in its
header is its place in the segment. Behind the last chunk, at a multiple of ALIGNMENT, is the index,
little-endian:

    for each chunk, in order, 24 bytes:
         0    4 partition
         4    4 blocks       their number
         8    8 offset       of the chunk in the segment
        16    8 body_bytes   length of its blocks
    zeros up to the last 64 bytes of a multiple of ALIGNMENT, which are the footer:
         0    4 magic        b"CSG1"
         4    4 crc          CRC-32 (zlib) of the entries and of bytes 8..63
         8    8 exchange     number of the exchange
        16    8 incarnation  of the daemon that wrote it
        24    8 serial       of the segment, among those of that incarnation
        32    4 range_index
        36    4 epoch
        40    4 chunks       their number
        44    4 zero
        48    8 index_offset where the entries begin
        56    8 zero

A torn segment has no index. Then, and if the index does not check, the chunks' headers are walked.
"""

from __future__ import annotations

import re
import struct
from array import array
from bisect import bisect_left
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from cosco.errors import DataCorrupted
from cosco.format.checksum import crc32
from cosco.format.chunk import ALIGNMENT, CHUNK_HEADER_BYTES, padded

MAGIC: Final = b"CSG1"
FOOTER_BYTES: Final = 64
ENTRY_BYTES: Final = 24

_ENTRY = struct.Struct("<IIQQ")
_FOOTER = struct.Struct("<4sIQQQIIIIQQ")
_AFTER_CRC = struct.Struct("<QQQIIIIQQ")
_NAME: Final = re.compile(
    r"(0|[1-9][0-9]{0,9})-(0|[1-9][0-9]{0,9})-([0-9a-f]{16})-(0|[1-9a-f][0-9a-f]{0,15})"
)
_PARTITION_MAX: Final = (1 << 32) - 1
#: What an index costs in memory beside its entries.
_INDEX_BYTES: Final = 400


@dataclass(frozen=True, slots=True)
class SegmentId:
    """Whose segment it is, and which."""

    exchange: int
    range_index: int
    epoch: int
    incarnation: int
    serial: int


class FoundChunk(NamedTuple):
    """Where a chunk is in its segment, and the length of its blocks."""

    offset: int
    body_bytes: int


class SegmentName(NamedTuple):
    """What the name of a segment says: its first and its last partition, and who wrote it."""

    first: int
    last: int
    incarnation: int
    serial: int


def segment_name(name: SegmentName) -> str:
    """Return the name of a segment within the folder of its assignment."""
    return f"{name.first}-{name.last}-{name.incarnation:016x}-{name.serial:x}"


def parse_segment_name(text: str) -> SegmentName | None:
    """Parse the name of a segment within its folder; None for what is nobody's."""
    found = _NAME.fullmatch(text)
    if found is None:
        return None
    name = SegmentName(int(found[1]), int(found[2]), int(found[3], 16), int(found[4], 16))
    return name if name.first <= name.last <= _PARTITION_MAX else None


@dataclass(slots=True)
class SegmentIndex:
    """The chunks of a segment, ascending by partition; built by `add`.

    damage: why chunks may be missing here that were in the segment; empty if none are.
    crc: as its footer has it, so that others can tell that they have the same; None: there is none.
    """

    damage: str = ""
    crc: int | None = None
    partitions: array[int] = field(default_factory=lambda: array("I"))
    blocks: array[int] = field(default_factory=lambda: array("I"))
    offsets: array[int] = field(default_factory=lambda: array("Q"))
    body_bytes: array[int] = field(default_factory=lambda: array("Q"))

    def __len__(self) -> int:
        return len(self.partitions)

    def add(self, partition: int, blocks: int, offset: int, body_bytes: int) -> None:
        """Add the next chunk.

        Raises: DataCorrupted if its partition or its place is not behind that of the last one.
        """
        if self.partitions:
            end = self.offsets[-1] + CHUNK_HEADER_BYTES + self.body_bytes[-1]
            if partition <= self.partitions[-1] or offset < end:
                raise DataCorrupted(f"a segment whose chunk of {partition} is out of order")
        self.partitions.append(partition)
        self.blocks.append(blocks)
        self.offsets.append(offset)
        self.body_bytes.append(body_bytes)

    def find(self, partition: int) -> FoundChunk | None:
        """Return where the chunk of a partition is, None if there is none."""
        at = bisect_left(self.partitions, partition)
        if at == len(self.partitions) or self.partitions[at] != partition:
            return None
        return FoundChunk(self.offsets[at], self.body_bytes[at])

    @property
    def cost_bytes(self) -> int:
        """Return what it takes up in memory."""
        return ENTRY_BYTES * len(self) + _INDEX_BYTES


def index_bytes(chunks: int) -> int:
    """Return the length of an index of this number of chunks in its segment."""
    return padded(ENTRY_BYTES * chunks + FOOTER_BYTES)


def encode_index(id: SegmentId, index: SegmentIndex, index_offset: int) -> bytes:
    """Return the end of a segment, from `index_offset` on: entries, zeros, footer.

    The index, to which nothing is added any more, is told its checksum.
    """
    entries = b"".join(
        map(_ENTRY.pack, index.partitions, index.blocks, index.offsets, index.body_bytes)
    )
    tail = _AFTER_CRC.pack(
        id.exchange,
        id.incarnation,
        id.serial,
        id.range_index,
        id.epoch,
        len(index),
        0,
        index_offset,
        0,
    )
    crc = index.crc = crc32(tail, crc32(entries))
    footer = MAGIC + crc.to_bytes(4, "little") + tail
    return entries.ljust(index_bytes(len(index)) - FOOTER_BYTES, b"\0") + footer


def index_place(id: SegmentId, size_bytes: int, footer: bytes) -> int:
    """Check the last 64 bytes of a segment, but for the CRC, and return where its entries begin.

    Raises: DataCorrupted if they are no footer, or another segment's.
    """
    if len(footer) != FOOTER_BYTES or size_bytes % ALIGNMENT:
        raise DataCorrupted("a segment that is cut short")
    magic, _, exchange, incarnation, serial, range_index, epoch, chunks, zero, offset, last = (
        _FOOTER.unpack(footer)
    )
    if magic != MAGIC or zero or last:
        raise DataCorrupted("a segment without an index")
    if SegmentId(exchange, range_index, epoch, incarnation, serial) != id:
        raise DataCorrupted("the index of another segment")
    if offset + index_bytes(chunks) != size_bytes:
        raise DataCorrupted("an index that is not at the end of its segment")
    return int(offset)


def check_footer(id: SegmentId, size_bytes: int, footer: bytes, index_crc: int) -> None:
    """Check that the last 64 bytes of a segment are of the one that was meant, with this index.

    Raises: DataCorrupted if not.
    """
    index_place(id, size_bytes, footer)
    if int.from_bytes(footer[4:8], "little") != index_crc:
        raise DataCorrupted("a segment with another index than the one that was named")


def parse_index(tail: bytes, index_offset: int) -> SegmentIndex:
    """Parse the end of a segment, from `index_offset` on; `index_place` has seen the footer.

    Raises: DataCorrupted.
    """
    footer = tail[-FOOTER_BYTES:]
    chunks = _FOOTER.unpack(footer)[7]
    entries = memoryview(tail)[: ENTRY_BYTES * chunks]
    crc = int.from_bytes(footer[4:8], "little")
    if len(tail) != index_bytes(chunks) or crc32(footer[8:], crc32(entries)) != crc:
        raise DataCorrupted("the index of a segment fails its checksum")
    index = SegmentIndex(crc=crc)
    for partition, blocks, offset, body_bytes in _ENTRY.iter_unpack(entries):
        if offset % ALIGNMENT or offset + CHUNK_HEADER_BYTES + body_bytes > index_offset:
            raise DataCorrupted("an index that names a place outside of its segment")
        index.add(partition, blocks, offset, body_bytes)
    return index
