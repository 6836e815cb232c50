"""What a reader asks a daemon for, and what it is sent.

Replies are made and read by hand where they come by the thousand, or carry rows: a message class
would copy the rows once more.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from pyroaring import BitMap

from cosco.errors import InvalidArgument
from cosco.protocol.api_limits import MAX_PARTITIONS
from cosco.protocol.fetch_records import FetchPart, FetchRequest, Reference
from cosco.protocol.pb import shuffle_pb2 as spb
from cosco.protocol.wire.arrays import bitmap_bytes, bitmap_from_bytes, partitions_from_bytes
from cosco.protocol.wire.fields import DELIMITED, field, last_body, parsed, prefix, varint

#: Parts of one request.
MAX_FETCH_PARTS: Final = 4096
#: Partitions of all its parts, each counted once for each part that names it.
MAX_FETCH_PARTITIONS: Final = MAX_PARTITIONS

_DATA_TAG: Final = 2 << 3 | DELIMITED  # FetchReply.data
_PACKED_TAG: Final = 4 << 3 | DELIMITED  # FetchReply.packed
_DATA_PREFIX: Final = bytes((_DATA_TAG,))
_PACKED_PREFIX: Final = bytes((_PACKED_TAG,))

_NO_PART: Final = FetchPart(0, 0, BitMap((0,)))
#: A piece of blocks, the section that the next pieces belong to, or the end of a part.
FetchReply = memoryview | spb.Section | spb.PartEnd


# --- what is asked for ----------------------------------------------------------------------


def fetch_request_to_bytes(request: FetchRequest) -> bytes:
    """Serialize a request of several partitions, or of one of one part."""
    pb = spb.FetchRequest(
        number=request.number,
        mappers=bitmap_bytes(request.mappers),
        direct=request.direct,
        capability=request.capability,
    )
    if request.several:
        for part in request.parts:
            pb.parts.add(
                range_index=part.range_index,
                epoch=part.epoch,
                partitions=bitmap_bytes(part.partitions),
                files=part.files,
            )
        return pb.SerializeToString()
    [part] = request.parts
    [pb.partition] = part.partitions
    pb.range_index, pb.epoch, pb.files = part.range_index, part.epoch, part.files
    return pb.SerializeToString()


def fetch_request_from_bytes(message: bytes) -> FetchRequest:
    """Return what a reader asks for; raises InvalidArgument."""
    pb = parsed(spb.FetchRequest, message)
    mappers = bitmap_from_bytes(pb.mappers, "mappers")
    one = FetchPart(pb.range_index, pb.epoch, BitMap((pb.partition,)), pb.files)
    if not pb.parts:
        return FetchRequest(
            pb.number, (one,), mappers, several=False, direct=pb.direct, capability=pb.capability
        )
    if one != _NO_PART:
        raise InvalidArgument("a request that names one partition, and parts")
    if len(pb.parts) > MAX_FETCH_PARTS:
        raise InvalidArgument(f"a request of {len(pb.parts)} parts, at most {MAX_FETCH_PARTS}")
    parts = tuple(_part(part) for part in pb.parts)
    count = sum(len(part.partitions) for part in parts)
    if count > MAX_FETCH_PARTITIONS:
        raise InvalidArgument(f"a request of {count} partitions, at most {MAX_FETCH_PARTITIONS}")
    return FetchRequest(pb.number, parts, mappers, direct=pb.direct, capability=pb.capability)


def _part(pb: spb.FetchPart) -> FetchPart:
    partitions = partitions_from_bytes(pb.partitions, "partitions")
    if not partitions:
        raise InvalidArgument(f"a part of range {pb.range_index} without partitions")
    return FetchPart(pb.range_index, pb.epoch, partitions, pb.files)


# --- what is sent ---------------------------------------------------------------------------


def fetch_section(
    body_bytes: int, offset: int = 0, *, stored: bool, headers: bool = False
) -> bytes:
    """Serialize the section that `body_bytes` of data follow."""
    section = spb.Section(body_bytes=body_bytes, offset=offset, stored=stored, headers=headers)
    return spb.FetchReply(section=section).SerializeToString()


def fetch_reference(body_bytes: int, offset: int, reference: Reference) -> bytes:
    """Serialize the section of a chunk that the reader is to read from the store itself."""
    named = spb.Reference(
        url=reference.url,
        path=reference.path,
        file_bytes=reference.file_bytes,
        index_crc=reference.index_crc,
    )
    section = spb.Section(body_bytes=body_bytes, offset=offset, stored=True, reference=named)
    return spb.FetchReply(section=section).SerializeToString()


def reference_of(section: spb.Section) -> Reference | None:
    """Return where a section's body is to be read; None if it follows."""
    if not section.HasField("reference"):
        return None
    pb = section.reference
    return Reference(pb.url, pb.path, pb.file_bytes, pb.index_crc)


def fetch_failure(reason: str) -> bytes:
    """Serialize the section of a chunk that cannot be read."""
    return spb.FetchReply(section=spb.Section(error=reason)).SerializeToString()


def fetch_data(parts: Sequence[memoryview]) -> bytes:
    """Serialize FetchReply(data=b"".join(parts)) with one copy."""
    return b"".join((prefix(_DATA_TAG, sum(map(len, parts))), *parts))


def fetch_end(part: int, partition: int) -> bytes:
    """Serialize the end of one partition of one part."""
    end = spb.PartEnd(part=part, partition=partition)
    return spb.FetchReply(end=end).SerializeToString()


def fetch_packed(replies: Sequence[bytes]) -> bytes:
    """Return one message of some replies, which are serialized already."""
    if len(replies) == 1:
        return replies[0]
    return b"".join(field(_PACKED_TAG, reply) for reply in replies)


def fetch_reply(message: bytes) -> FetchReply:
    """Return the reply of a message that has one; raises InvalidArgument."""
    if message[:1] == _DATA_PREFIX:
        return last_body(message, 1)
    pb = parsed(spb.FetchReply, message)
    if pb.packed:  # they would be dropped without a word
        raise InvalidArgument("a reply to a fetch with packed ones behind something else")
    match pb.WhichOneof("kind"):
        case "section":
            return pb.section
        case "end":
            return pb.end
    raise InvalidArgument("a reply to a fetch that is neither data nor a section nor an end")


def fetch_replies(message: bytes) -> Iterator[FetchReply]:
    """Yield the replies of a message, packed or not; raises InvalidArgument."""
    if message[:1] != _PACKED_PREFIX:
        yield fetch_reply(message)
        return
    whole, offset = memoryview(message), 0
    while offset < len(message):
        if message[offset] != _PACKED_TAG:
            raise InvalidArgument(f"a packed reply with a field of tag {message[offset]}")
        length, start = varint(whole, offset + 1)
        offset = start + length
        if offset > len(message):
            raise InvalidArgument(f"a packed reply names {length} bytes and was cut short")
        if message[start : start + 1] == _DATA_PREFIX:
            yield last_body(whole[:offset], start + 1)
        else:
            yield fetch_reply(message[start:offset])
