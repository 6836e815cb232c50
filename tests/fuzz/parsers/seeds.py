"""What targets begin with: inputs made by the code that writes the formats."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import numpy as np
import pyarrow as pa
from google.protobuf.message_factory import GetMessageClass
from pyroaring import BitMap

import cosco.protocol.wire as wire
from cosco.client.content.arrow import ContentEncoder
from cosco.client.content.arrow_transport import transport
from cosco.errors import DataCorrupted
from cosco.format.block import CODEC_NONE, encode_block
from cosco.format.chunk import ChunkHeader, encode_chunk_header, padded
from cosco.format.frame import FRAME_HEADER_BYTES, parse_frame_header
from cosco.format.segment import (
    FOOTER_BYTES,
    SegmentId,
    SegmentIndex,
    SegmentName,
    encode_index,
    segment_name,
)
from cosco.protocol.capability import Permit, Rights, made
from cosco.protocol.fetch_records import FetchPart, FetchRequest, Reference
from cosco.protocol.group_records import Follow, Followed, FollowOutcome
from cosco.protocol.mark import Mark, encode_mark
from cosco.protocol.push.messages import Hello, PushReply, PushRequest, Refusal, RefusalCode
from cosco.protocol.push.sender import OutFrame
from cosco.protocol.records import (
    AttemptSums,
    CommitRequest,
    CommitWait,
    DaemonRef,
    PartitionRange,
    RangeSnapshot,
    RangesWait,
    ReadSnapshot,
    Source,
)
from cosco.protocol.wire.arrays import bitmap_bytes, gaps_bytes, narrow_bytes
from tools import fuzz_corpus

from .access_checks import KEY
from .content_checks import SCHEMAS
from .format_checks import NAMED, PLACED, REPAIRED
from .message_checks import RECORDS

_ID: Final = SegmentId(exchange=9, range_index=0, epoch=1, incarnation=11, serial=3)
_SET: Final = BitMap([1, 2, 70_000, *range(100, 900, 3)])
_MARK_COUNT: Final = 2


def u32(*numbers: int) -> Any:
    """Return an array of numbers of 32 bits."""
    return np.array(numbers, np.uint32)


def u64(*numbers: int) -> Any:
    """Return an array of numbers of 64 bits."""
    return np.array(numbers, np.uint64)


def _controlled(*inputs: bytes) -> list[bytes]:
    """Return inputs, each as it is, and with its checksums made right."""
    return [bytes([control]) + one for one in inputs for control in (0, REPAIRED)]


# --- formats ------------------------------------------------------------------------------


def mark_seeds() -> list[bytes]:
    mark = Mark(2, 1, np.arange(3 * _MARK_COUNT, dtype=np.uint64).reshape(3, _MARK_COUNT))
    block = b"".join(encode_mark(mark, 9, PartitionRange(3, 5, _MARK_COUNT)))
    return _controlled(struct.pack("<IH", 5, _MARK_COUNT) + block)


def _chunk(partition: int, offset: int, blocks: bytes) -> bytes:
    header = ChunkHeader(
        exchange=_ID.exchange, incarnation=_ID.incarnation, offset=offset,
        range_index=_ID.range_index, epoch=_ID.epoch, partition=partition, blocks=1,
        body_bytes=len(blocks),
    )  # fmt: skip
    return encode_chunk_header(header) + blocks


def chunk_seeds() -> list[bytes]:
    return _controlled(_chunk(5, 8192, b"")[:64])


def segment_seeds() -> list[bytes]:
    index, offset, chunks = SegmentIndex(), 0, []
    for partition in (1, 2):
        header, stored, _ = encode_block(
            exchange=9, partition=partition, mapper=0, attempt=1, first_row=0, rows=1,
            content=b"a row", codec=CODEC_NONE,
        )  # fmt: skip
        chunks.append(_chunk(partition, offset, header + stored))
        index.add(partition, 1, offset, len(header + stored))
        offset += padded(len(chunks[-1]))
    end = encode_index(_ID, index, offset)
    pieces = [*chunks, end[: 24 * len(index)], end[-FOOTER_BYTES:]]
    whole = b"".join(struct.pack("<H", len(piece)) + piece for piece in pieces)
    return [bytes([control]) + whole for control in (0, NAMED, REPAIRED | PLACED | NAMED)]


def segment_name_seeds() -> list[bytes]:
    name = segment_name(SegmentName(4, 70, 0xAB, 0x1F))
    return [name.encode(), f"c/7/0-1/{name}".encode()]


# --- contents -----------------------------------------------------------------------------


def rows_seeds() -> list[bytes]:
    rows = [b"abc", b"", b"a longer row"]
    table = struct.pack("<3I", *map(len, rows)) + b"".join(rows)
    many = struct.pack("<200I", *[1] * 200) + bytes(200)
    return [
        struct.pack("<IB", 3, 1) + table,
        struct.pack("<IB", 200, 1) + many,
        struct.pack("<IB", 1, 0) + b"a row",
        struct.pack("<IB", 1, 1) + struct.pack("<I", 5) + b"a row",
    ]


def arrow_seeds() -> list[bytes]:
    values: list[list[dict[str, Any]]] = [
        [{"a": 1, "b": "x"}, {"a": None, "b": "yes"}, {"a": 3, "b": None}],
        [{"a": "k", "b": [1, 2]}, {"a": None, "b": None}, {"a": "l", "b": []}],
        [{"a": None, "b": {"x": True, "y": b"1"}}, {"a": None, "b": None}],
    ]
    found = []
    for index, (schema, rows) in enumerate(zip(SCHEMAS, values, strict=True)):
        batch = pa.RecordBatch.from_pylist(rows, schema=schema)
        way = transport(schema)
        pools = way.new_pools()
        content = bytes(ContentEncoder(way).encode(way.to_plain(batch, pools), pools))
        head = struct.pack("<BH", index, len(rows))
        found += [head + content, head + schema.serialize().to_pybytes() + content]
    narrow = pa.schema([("a", pa.int32()), ("b", pa.string())])
    other = pa.RecordBatch.from_pylist([{"a": 1, "b": "x"}], schema=narrow)
    message = narrow.serialize().to_pybytes() + other.serialize().to_pybytes()
    return [*found, struct.pack("<BH", 0, 1) + message]


# --- messages -----------------------------------------------------------------------------


def array_seeds() -> list[bytes]:
    numbers = (u64(1, 2, 3), u64(1, 300, 70_000), u64(1 << 40, 2))
    found = [struct.pack("<H", len(one)) + narrow_bytes(one) for one in numbers]
    return [*found, struct.pack("<H", 3) + gaps_bytes(u32(1, 5, 70_000)), struct.pack("<H", 9)]


def bitmap_seeds() -> list[bytes]:
    runs = BitMap(range(5, 90_000))
    runs.run_optimize()
    sets = (_SET, runs, BitMap(range(0, 60_000, 2)), BitMap([(1 << 31) - 1]))
    return [bitmap_bytes(one) for one in sets]


def push_request_seeds() -> list[bytes]:
    frame = fuzz_corpus.seeds("frame")[0][1:]
    out = OutFrame(parse_frame_header(memoryview(frame)), (frame[FRAME_HEADER_BYTES:],))
    hello = Hello(7, 1, 2, 11, capability="cosco1.abc")
    requests: list[PushRequest[OutFrame]] = [
        PushRequest(hello, [1], [2, 3], True),
        PushRequest(frame=out),
        PushRequest(eager=True, frame=out),
        PushRequest(announce=[len(frame)], frame=out),
    ]
    return [wire.push_request_to_bytes(one) for one in requests]


def push_reply_seeds() -> list[bytes]:
    reply = PushReply([1, 2], 3, [Refusal(4, RefusalCode.PROTOCOL, "why")], 5, 6)
    return [wire.push_reply_to_bytes(reply), wire.push_reply_to_bytes(PushReply([1 << 40]))]


def fetch_request_seeds() -> list[bytes]:
    part, one = FetchPart(0, 1, BitMap([1, 5]), True), FetchPart(1, 2, BitMap([7]))
    requests = [
        FetchRequest(7, (part, one), _SET, direct=True, capability="cosco1.abc"),
        FetchRequest(7, (one,), BitMap([1, 2]), several=False),
    ]
    return [wire.fetch_request_to_bytes(one) for one in requests]


def fetch_reply_seeds() -> list[bytes]:
    reference = Reference("file:///x", "c/7/0-1/1-2-ab-1", 8192, 77)
    replies = [
        wire.fetch_section(5, stored=True),
        wire.fetch_data([memoryview(b"abcde")]),
        wire.fetch_reference(9, 4096, reference),
        wire.fetch_end(0, 3),
        wire.fetch_failure("it is lost"),
    ]
    return [wire.fetch_packed(replies), *replies]


def follow_seeds() -> list[bytes]:
    follows = [Follow(1, 11, 7, 0, 1, 5, 1 << 20), Follow(2, 11, 7, 0, 1, 6, now=True)]
    answers = [
        Followed(1, FollowOutcome.READY, u64(1, 2), 3, 30, 77, data=b"blocks"),
        Followed(2, FollowOutcome.WAITING, u64(), done=BitMap([1, 3]), reason="it waits"),
    ]
    return [wire.follows_to_bytes(follows), wire.followed_to_bytes(answers)]


def error_seeds() -> list[bytes]:
    lost = DataCorrupted("it is lost", shuffle_id="a", mappers=(1, 2), partition=3)
    return [wire.error_to_bytes(lost)]


def commit_seeds() -> list[bytes]:
    sums = AttemptSums(u32(1, 4), u64(3, 5), u64(30, 500), u64(20, 300), u64(7, 1 << 60))
    commit = CommitRequest(
        number=7, mapper=2, attempt=9, generation=1, acknowledged=u32(0, 1, 1, 2).reshape(2, 2),
        sums=sums, partial=True, ranges=(0, 1),
    )  # fmt: skip
    snapshot = ReadSnapshot(
        version=3, generation=1, build=1, mappers=u32(0, 2), attempts=u64(1, 9), rows=8,
        raw_bytes=530, digest=77, sources=(Source(0, 1, (DaemonRef(11, "127.0.0.1:1"),)),),
    )  # fmt: skip
    mappers = wire.snapshot_mappers(snapshot.mappers, snapshot.attempts)
    part = RangeSnapshot(snapshot, u32(1, 4), u64(3, 5), u64(30, 500), u64(7, 8))
    later = RangeSnapshot(snapshot, u32(9), u64(1), u64(2), u64(3))
    first = replace(snapshot, mappers=u32(0, 1, 2), attempts=u64(1, 1, 1))  # without gaps
    waits = RangesWait((part, later), BitMap([6]), BitMap([3]), recompute=True)
    return [
        b"\0" + wire.to_pb(commit).SerializeToString(),
        b"\1" + wire.wait_reply(CommitWait(snapshot, BitMap([3]), recompute=False), mappers),
        b"\1"
        + wire.wait_reply(
            CommitWait(first, BitMap(), recompute=False),
            wire.snapshot_mappers(first.mappers, first.attempts),
        ),
        b"\2" + wire.ranges_reply(waits, lambda _: mappers),
    ]


def record_seeds() -> list[bytes]:
    """One of each kind, whose fields say a little of everything."""
    return [
        bytes([index]) + _filled(message).SerializeToString()
        for index, (_, message) in enumerate(RECORDS[3:])
    ]


def _filled(message: type[Any], depth: int = 0) -> Any:
    filled: Any = message()
    for one in filled.DESCRIPTOR.fields:
        value: Any = 1
        if one.message_type is not None:
            if depth > 2:
                continue
            value = _filled(GetMessageClass(one.message_type), depth + 1)
        elif one.cpp_type == one.CPPTYPE_STRING:
            value = bitmap_bytes(BitMap([1, 2])) if one.type == one.TYPE_BYTES else "127.0.0.1:1"
        if hasattr(getattr(filled, one.name), "extend"):
            getattr(filled, one.name).extend([value])
        elif one.message_type is not None:
            getattr(filled, one.name).CopyFrom(value)
        else:
            setattr(filled, one.name, value)
    return filled


# --- strangers ----------------------------------------------------------------------------


def capability_seeds() -> list[bytes]:
    grant = Permit(7, 3, Rights.READ | Rights.WRITE, 1 << 40)
    content = struct.pack(">IQIBQ", KEY.id, 7, 3, 3, 0)
    return [b"\0" + made(KEY, grant).encode(), b"\1" + content]


def http_seeds() -> list[bytes]:
    return [
        b"GET /hello?a=1 HTTP/1.1\r\nHost: a\r\nX-Who: me\r\n\r\n",
        b"HEAD http://a:1/hello HTTP/1.0\r\n\r\n",
        b"POST /nothing HTTP/1.1\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\nabc",
        b"GET /hello\r\n",
        b"GET //[::1]/ HTTP/1.1\r\n\r\n",
        b"GET http://[::1]/hello HTTP/1.1\r\n\r\n",
    ]


SEEDS: Final[dict[str, Callable[[], list[bytes]]]] = {
    "array": array_seeds,
    "arrow": arrow_seeds,
    "bitmap": bitmap_seeds,
    "block": lambda: fuzz_corpus.seeds("block"),
    "capability": capability_seeds,
    "chunk": chunk_seeds,
    "commit": commit_seeds,
    "error": error_seeds,
    "fetch_reply": fetch_reply_seeds,
    "fetch_request": fetch_request_seeds,
    "follow": follow_seeds,
    "frame": lambda: fuzz_corpus.seeds("frame"),
    "http": http_seeds,
    "mark": mark_seeds,
    "push_reply": push_reply_seeds,
    "push_request": push_request_seeds,
    "reading": lambda: fuzz_corpus.seeds("merge"),
    "record": record_seeds,
    "rows": rows_seeds,
    "segment": segment_seeds,
    "segment_name": segment_name_seeds,
}
