"""Segments as daemons write them, made and taken apart by hand."""

from __future__ import annotations

from collections.abc import Iterable

from cosco.format.chunk import (
    CHUNK_HEADER_BYTES,
    ChunkHeader,
    encode_chunk_header,
    padded,
    parse_chunk_header,
)
from cosco.format.segment import (
    FOOTER_BYTES,
    SegmentId,
    SegmentIndex,
    SegmentName,
    encode_index,
    segment_name,
)


def chunk(id: SegmentId, partition: int, offset: int, body: bytes) -> bytes:
    """A chunk, padded, as it lies at `offset` of a segment."""
    header = ChunkHeader(
        exchange=id.exchange,
        incarnation=id.incarnation,
        offset=offset,
        range_index=id.range_index,
        epoch=id.epoch,
        partition=partition,
        blocks=1,
        body_bytes=len(body),
    )
    data = encode_chunk_header(header) + body
    return data.ljust(padded(len(data)), b"\0")


def segment(id: SegmentId, bodies: Iterable[tuple[int, bytes]]) -> bytes:
    """A whole segment of some (partition, blocks), ascending."""
    data, index = bytearray(), SegmentIndex()
    for partition, body in bodies:
        index.add(partition, 1, len(data), len(body))
        data += chunk(id, partition, len(data), body)
    return bytes(data) + encode_index(id, index, len(data))


def path_of(id: SegmentId, first: int, last: int, cluster_id: str = "c") -> str:
    """Where a segment is, with the first and the last of its partitions."""
    name = segment_name(SegmentName(first, last, id.incarnation, id.serial))
    return f"{cluster_id}/{id.exchange}/{id.range_index}-{id.epoch}/{name}"


def chunks_of(file: bytes) -> dict[int, bytes]:
    """The blocks in a whole segment, by partition, found by its headers and not by its index."""
    found: dict[int, bytes] = {}
    offset = 0
    place = int.from_bytes(file[-FOOTER_BYTES:][48:56], "little")
    while offset < place:
        header = parse_chunk_header(file[offset : offset + CHUNK_HEADER_BYTES])
        assert header.offset == offset
        assert header.partition not in found
        start = offset + CHUNK_HEADER_BYTES
        found[header.partition] = file[start : start + header.body_bytes]
        offset += header.padded_bytes
    assert offset == place
    assert list(found) == sorted(found)
    return found
