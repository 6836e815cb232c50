"""What of a reference a reader believes: nothing but what it could name itself.

A daemon names a file, a place in it, and a URL. The file must be a segment of what was asked for,
by its name; the place must be within it; and what is read there must begin with the header of
exactly this chunk. Blocks are checked behind that as those that a daemon sends.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, NamedTuple

from cosco.errors import DataCorrupted
from cosco.format.chunk import ALIGNMENT, CHUNK_HEADER_BYTES, padded, parse_chunk_header
from cosco.format.segment import SegmentId, index_bytes, parse_segment_name
from cosco.protocol.fetch_records import Reference

#: Longer URLs are not used.
MAX_URL_CHARACTERS: Final = 8192
#: The folder of a cluster.
_CLUSTER: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")


class DirectFailed(Exception):
    """Something cannot be read from the store here: a daemon is to be asked for it.

    Never leaves this package, and says nothing about rows. `reason` has no URL, which may be as
    good as a password.
    """


class ChunkPlace(NamedTuple):
    """Whose chunk is expected."""

    number: int  # of the exchange
    range_index: int
    epoch: int
    partition: int


@dataclass(frozen=True, slots=True)
class DirectFile:
    """A segment that a daemon has named, and which one it is by its name."""

    reference: Reference
    segment: SegmentId


@dataclass(frozen=True, slots=True)
class DirectChunk:
    """A chunk to read: its place in a file, and the length of its blocks."""

    place: ChunkPlace
    file: DirectFile
    offset: int
    body_bytes: int

    @property
    def length(self) -> int:
        """Return the length of header and blocks."""
        return CHUNK_HEADER_BYTES + self.body_bytes

    @property
    def padded_bytes(self) -> int:
        """Return the length in its file."""
        return padded(self.length)

    def check_header(self, data: memoryview) -> None:
        """Check that what was read is this chunk; raises DirectFailed."""
        try:
            header = parse_chunk_header(data)
        except DataCorrupted as error:
            raise DirectFailed(f"{self.file.reference.path} at {self.offset}: {error}") from None
        place, segment = self.place, self.file.segment
        found = (
            header.exchange, header.range_index, header.epoch, header.partition,
            header.incarnation, header.offset, header.body_bytes,
        )  # fmt: skip
        if found != (*place, segment.incarnation, self.offset, self.body_bytes):
            raise DirectFailed(
                f"{self.file.reference.path} has another chunk at {self.offset} than was named"
            )


def direct_chunk(
    reference: Reference, offset: int, body_bytes: int, place: ChunkPlace
) -> DirectChunk:
    """Return the chunk that a reference means; raises DirectFailed if it cannot be."""
    folder, _, text = reference.path.rpartition("/")
    cluster, _, assignment = folder.partition("/")
    name = parse_segment_name(text)
    if (
        name is None
        or not _CLUSTER.fullmatch(cluster)
        or assignment != f"{place.number}/{place.range_index}-{place.epoch}"
        or not name.first <= place.partition <= name.last
    ):
        raise DirectFailed("a file was named that is no segment of what was asked for")
    size = reference.file_bytes
    chunk_end = offset + padded(CHUNK_HEADER_BYTES + body_bytes)
    if offset % ALIGNMENT or size % ALIGNMENT or body_bytes < 1:
        raise DirectFailed(f"{reference.path}: a chunk was named where none can be")
    if chunk_end + index_bytes(1) > size:
        raise DirectFailed(f"{reference.path}: a chunk was named that ends behind its segment")
    if not 0 < len(reference.url) <= MAX_URL_CHARACTERS:
        raise DirectFailed(f"{reference.path}: a URL of {len(reference.url)} characters was given")
    segment = SegmentId(place.number, place.range_index, place.epoch, name.incarnation, name.serial)
    return DirectChunk(place, DirectFile(reference, segment), offset, body_bytes)
