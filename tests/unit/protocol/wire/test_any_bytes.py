"""Whatever bytes come where a message should: they are read, or refused in the one way that the
services answer. Half of them are real messages that were damaged."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from random import Random, randrange
from typing import Any

import pytest
from fuzz.parsers.message_checks import RECORDS
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message_factory import GetMessageClass
from hypothesis import given, settings
from hypothesis import strategies as st
from pyroaring import BitMap

import cosco.errors as errors
import cosco.protocol.wire as wire
from cosco.errors import CoscoError, DataCorrupted, InvalidArgument, ServiceUnavailable
from cosco.protocol.fetch_records import FetchPart, FetchRequest
from cosco.protocol.pb import metadata_pb2 as mpb
from cosco.protocol.push.messages import Hello, PushReply, PushRequest, Refusal, RefusalCode
from cosco.protocol.wire.arrays import bitmap_bytes, bitmap_from_bytes, partitions_from_bytes

SET = bitmap_bytes(BitMap([1, 2, 70_000, *range(100, 5000, 2)]))
FETCH = FetchRequest(7, (FetchPart(0, 1, BitMap([1, 5]), 3),), BitMap([1, 2]))
REPLY = PushReply([1, 2], 3, [Refusal(4, RefusalCode.PROTOCOL, "why")], 5, 6)
LOST = DataCorrupted("it is lost", shuffle_id="a", mappers=(1, 2), partition=3)
PACKED = [wire.fetch_section(5, stored=True), wire.fetch_data([memoryview(b"abcde")])]

#: By name: what reads bytes, and some that it reads.
READERS: dict[str, tuple[Callable[[bytes], Any], bytes]] = {
    "push request": (
        wire.push_request_from_bytes,
        wire.push_request_to_bytes(PushRequest(Hello(7, 1, 2, 11), [1], [2, 3], True)),
    ),
    "push reply": (wire.push_reply_from_bytes, wire.push_reply_to_bytes(REPLY)),
    "fetch request": (wire.fetch_request_from_bytes, wire.fetch_request_to_bytes(FETCH)),
    "fetch replies": (lambda data: list(wire.fetch_replies(data)), wire.fetch_packed(PACKED)),
    "mappers": (lambda data: bitmap_from_bytes(data, "mappers"), SET),
    "partitions": (lambda data: partitions_from_bytes(data, "partitions"), SET),
}


def damaged(data: bytes) -> st.SearchStrategy[bytes]:
    """Bytes of any kind, and these, with some of them changed, cut off, or twice."""
    places = st.integers(0, len(data))

    def changed(changes: list[tuple[int, bytes]], end: int) -> bytes:
        out = bytearray(data)
        for at, other in changes:
            out[at : at + len(other)] = other
        return bytes(out[: end or None])

    changes = st.lists(st.tuples(places, st.binary(max_size=3)), max_size=4)
    return st.binary(max_size=60) | st.builds(changed, changes, places)


@pytest.mark.parametrize("name", READERS)
@settings(max_examples=50)
@given(st.data())
def test_it_is_read_or_refused(name: str, data: st.DataObject) -> None:
    read, message = READERS[name]
    read(message)
    with suppress(InvalidArgument):
        read(data.draw(damaged(message)))


NUMBERS = [0, 1, 2, 3, 70_000, 1 << 31, (1 << 32) - 1]
LONG = [*NUMBERS, (1 << 63) - 1, (1 << 64) - 1]
ARRAYS = [b"", b"\0", SET, SET[:9], bytes(8), bytes(range(16)), b"\xff" * 16, b"\1" * 24]


def value(chance: Random, field: FieldDescriptor, depth: int) -> Any:
    """Return a value of a field of a message that its type takes."""
    match field.type:
        case FieldDescriptor.TYPE_MESSAGE:
            return filled(chance, field.message_type, depth + 1)
        case FieldDescriptor.TYPE_BYTES:
            return chance.choice([*ARRAYS, chance.randbytes(chance.randrange(18))])
        case FieldDescriptor.TYPE_STRING:
            return chance.choice(["", "a", "127.0.0.1:1", "x" * 300])
        case FieldDescriptor.TYPE_BOOL:
            return chance.random() < 0.5
        case FieldDescriptor.TYPE_DOUBLE:
            return chance.choice([0.0, 1.5, -1.0, math.inf, math.nan])
        case FieldDescriptor.TYPE_ENUM:
            return chance.randrange(6)
        case FieldDescriptor.TYPE_UINT64 | FieldDescriptor.TYPE_FIXED64:
            return chance.choice(LONG)
    return chance.choice(NUMBERS)


def filled(chance: Random, described: Descriptor, depth: int = 0) -> dict[str, Any]:
    """Return fields of a message of any kind, for its class."""
    found: dict[str, Any] = {}
    empty = GetMessageClass(described)()
    for field in described.fields:
        if depth < 3 and chance.random() < 0.5:
            if hasattr(getattr(empty, field.name), "extend"):
                count = chance.randrange(3)
                found[field.name] = [value(chance, field, depth) for _ in range(count)]
            else:
                found[field.name] = value(chance, field, depth)
    return found


@pytest.mark.parametrize(("record", "message"), RECORDS, ids=lambda kind: kind.__name__)
def test_a_message_becomes_a_record_or_is_refused(record: type, message: type) -> None:
    seed = randrange(1 << 32)
    print(f"seed {seed}")
    chance = Random(seed)
    for _ in range(1000):
        pb = message(**filled(chance, message.DESCRIPTOR))
        with suppress(InvalidArgument):
            found = wire.from_pb(record, message.FromString(pb.SerializeToString()))
            assert isinstance(found, record)


@pytest.mark.parametrize("kind", [name for name in dir(errors) if not name.startswith("_")])
def test_whatever_kind_an_error_names_there_is_one(kind: str) -> None:
    detail = mpb.ErrorDetail(kind=kind, message="why", mappers=[1], partition=2, retriable=True)
    error = wire.error_from_bytes(detail.SerializeToString())
    assert isinstance(error, CoscoError)
    assert (str(error), error.mappers, error.partition) == ("why", (1,), 2)


@settings(max_examples=50)
@given(st.data())
def test_an_error_that_cannot_be_read_is_an_error_all_the_same(data: st.DataObject) -> None:
    error = wire.error_from_bytes(data.draw(damaged(wire.error_to_bytes(LOST))))
    assert isinstance(error, CoscoError)


def test_what_is_no_error_is_told() -> None:
    error = wire.error_from_bytes(b"\xff\xff")
    assert isinstance(error, ServiceUnavailable)
    assert "cannot be read" in str(error)
    assert not error.retriable
