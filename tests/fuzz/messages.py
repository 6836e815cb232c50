"""Messages as honest clients and daemons send them, for every method of both services.

A message is built from its descriptor: what goes into a field follows from the field's name. So a
method, or a field, that is new has messages without a word here; it has better ones with a line.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import numpy as np
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from pyroaring import BitMap

from cosco.format.block import CODEC_LZ4, CODEC_NONE, encode_block
from cosco.format.frame import FrameHeader, encode_frame_header
from cosco.protocol import wire
from cosco.protocol.application_records import application_name
from cosco.protocol.records import AttemptSums, CommitRequest, pairs_array
from cosco.protocol.wire import mpb, spb

from .names import FUZZED, NOBODYS_MAPPERS, Exchange, Names, is_repeated

#: Method → type of its requests, of the daemon's service.
SHUFFLE_METHODS: Final[dict[str, type[Message]]] = {
    name: GetMessageClass(method.input_type)
    for name, method in spb.DESCRIPTOR.services_by_name["Shuffle"].methods_by_name.items()
}
#: All methods, of both services.
METHODS: Final[dict[str, type[Message]]] = {
    **{name: request for name, (request, _) in wire.METADATA_METHODS.items()},
    **SHUFFLE_METHODS,
}
_MAX_DEPTH: Final = 4
#: Names that the fuzzer makes, of each kind.
_IDS: Final = 1_000_000

_Make = Callable[[Names, random.Random], Any]


def valid_message(method: str, names: Names, rng: random.Random) -> Message:
    """Return a message that an honest client might send as the first one of a call."""
    if method == "Commit":
        return _commit(names, rng)
    if method == "CommitBatch":
        commits = [_commit(names, rng) for _ in range(rng.randint(1, 4))]
        return mpb.CommitBatchRequest(commits=commits)
    message = METHODS[method]()
    _fill(message, names, rng, _MAX_DEPTH)
    _go_together(method, message, names, rng)
    return message


def _go_together(method: str, message: Any, names: Names, rng: random.Random) -> None:
    """Change what no honest client says with what else it says."""
    either = rng.random() < 0.5
    if method in {"CreateExchange", "CreateGroup"}:
        message.spec.shuffle_id = _new_id(names, rng)
    if method == "CreateExchange" and either:
        message.application_id = ""
    elif method == "CreateGroup":
        message.spec.deterministic, message.spec.direct_reads = True, False
        message.first = 0
    elif method == "AwaitCommits":
        message.ClearField("partition" if either else "partitions")
    elif method == "Fetch":
        for name in ("parts",) if either else ("range_index", "epoch", "partition", "files"):
            message.ClearField(name)
    elif method == "FixRowKind":
        message.kind = mpb.ROW_KIND_BYTES


def _fill(message: Message, names: Names, rng: random.Random, depth: int) -> None:
    """Give the fields of a message values that go together mostly: those of one exchange."""
    described: Any = message.DESCRIPTOR.fields
    for field in described:
        if field.type == FieldDescriptor.TYPE_MESSAGE:
            _fill_part(message, field, names, rng, depth)
            continue
        if rng.random() < 0.02:
            continue
        make = _FIELDS.get(field.name)
        value = make(names, rng) if make is not None else _small(field, rng)
        try:
            if is_repeated(message, field):
                getattr(message, field.name).append(value)
            else:
                setattr(message, field.name, value)
        except TypeError:  # a field of the same name, and of another type
            setattr(message, field.name, 1 + _small(field, rng))


def _fill_part(message: Message, field: Any, names: Names, rng: random.Random, depth: int) -> None:
    if not depth or rng.random() < 0.02:
        return
    part: Any = getattr(message, field.name)
    if is_repeated(message, field):
        for _ in range(rng.randint(1, 3)):
            _fill(part.add(), names, rng, depth - 1)
    else:
        part.SetInParent()
        _fill(part, names, rng, depth - 1)


def _small(field: Any, rng: random.Random) -> Any:
    """Return a value for a field of which nothing is known but its type."""
    if field.type == FieldDescriptor.TYPE_STRING:
        return f"{FUZZED}{rng.randrange(8)}"
    if field.type == FieldDescriptor.TYPE_BYTES:
        return BitMap(rng.sample(range(8), 2)).serialize()
    if field.type == FieldDescriptor.TYPE_BOOL:
        return rng.random() < 0.5
    return rng.randrange(3)


def own_exchange(names: Names, rng: random.Random) -> Exchange:
    """Choose an exchange of the fuzzer's own."""
    return names.own[rng.randrange(len(names.own))]


def _number(names: Names, rng: random.Random) -> int:
    chance = rng.random()
    if chance < 0.15:
        return names.honest_numbers[rng.randrange(len(names.honest_numbers))]
    if chance < 0.25:
        return rng.choice((0, 10**6, 2**63, 2**64 - 1))
    if chance < 0.5 and names.made:
        return names.made[rng.randrange(len(names.made))][0]
    return own_exchange(names, rng).number


def _shuffle_id(names: Names, rng: random.Random) -> str:
    chance = rng.random()
    if chance < 0.15:
        return names.honest_ids[rng.randrange(len(names.honest_ids))]
    if chance < 0.5:
        return _new_id(names, rng)
    if chance < 0.7 and names.made:
        return names.made[rng.randrange(len(names.made))][1]
    return own_exchange(names, rng).shuffle_id


def _new_id(_: Names, rng: random.Random) -> str:
    return f"{FUZZED}made-{rng.randrange(_IDS)}"


def _incarnation(names: Names, rng: random.Random) -> int:
    if rng.random() < 0.3:
        return rng.choice((1, 2, 3, 2**63 + 5, 2**64 - 1))
    return names.daemons[rng.randrange(len(names.daemons))].incarnation


def _address(names: Names, rng: random.Random) -> str:
    if rng.random() < 0.5:
        return rng.choice(("127.0.0.1:1", "127.0.0.1:9", "127.0.0.2:1"))
    return names.daemons[rng.randrange(len(names.daemons))].address


def _choice(*values: Any) -> _Make:
    return lambda _, rng: rng.choice(values)


def _bitmap(below: int) -> _Make:
    return lambda _, rng: BitMap(
        rng.sample(range(below), rng.randint(1, min(below, 6)))
    ).serialize()


def _owner(names: Names, rng: random.Random) -> bytes:
    return own_exchange(names, rng).owner if rng.random() < 0.8 else bytes(16)


def _group_id(names: Names, rng: random.Random) -> str:
    made = [shuffle_id.rpartition("/")[0] for _, shuffle_id in names.made]
    groups = sorted({name for name in made if name})
    return rng.choice(groups) if groups and rng.random() < 0.8 else _new_id(names, rng)


def _application_id(_: Names, rng: random.Random) -> str:
    return application_name(f"{FUZZED}{rng.randrange(4)}", rng.randrange(1, 20))


_text: Final[_Make] = lambda _, rng: f"{FUZZED}{rng.randrange(_IDS)}"  # noqa: E731
#: Name of a field → what an honest client has there.
_FIELDS: Final[dict[str, _Make]] = {
    "address": _address, "metrics_address": _address, "daemon": _address,
    "application_id": _application_id,
    "attempt": _choice(1, 2, 3, 2**63 + 1),
    "build": _choice(1, 1, 2), "generation": _choice(0, 1, 1, 2), "epoch": _choice(1, 1, 2),
    "codec": _choice("lz4", "none"),
    "id": lambda _, rng: rng.randrange(1, 1000),
    "dropped": _number, "exchanges": _number, "number": _number, "first_number": _number,
    "draining": _choice(True),
    "first": _choice(0, 0, 1, 4),
    "group_id": _group_id, "host_id": _text, "reason": _text, "failure": _text, "store_id": _text,
    "incarnation": _incarnation, "reporter": _incarnation, "primary": _choice(0, 0, 1, 2),
    "lease_s": _choice(1.0, 1.5, 3.0),
    "name": lambda _, rng: f"{FUZZED}{rng.randrange(4)}",
    "leave": _choice(False, False, False, True), "kind": _choice(1, 1, 2),
    "limit": _choice(1, 10, 1000),
    "mapper": _choice(0, 1, 2, 3),
    "mappers": _bitmap(8), "indexes": _bitmap(4), "partitions": _bitmap(8), "seen": _choice(b""),
    "memory_bytes": _choice(0, 64 << 20), "free_bytes": _choice(0, 64 << 20),
    "min_replicas": _choice(1), "replicas": _choice(1, 2),
    "owner": _owner,
    "partition": _choice(0, 1, 7), "range_index": _choice(0, 0, 1),
    "phase": _choice(0, 1, 2), "prefix": _choice("", FUZZED), "after": _choice(0, 3),
    "protocol": _choice(2),
    "schema": _choice(b""),
    "shuffle_id": _shuffle_id,
    "trace": _choice("", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
    "size": _choice(1, 2, 4),
    "wait_s": _choice(0.0, 0.0, 0.05, 0.3),
}  # fmt: skip


# --- commits --------------------------------------------------------------------------------


def _commit(names: Names, rng: random.Random) -> mpb.CommitRequest:
    """Return a commit to an exchange of the fuzzer's own whose sums go together."""
    exchange = own_exchange(names, rng)
    count = rng.randint(0, exchange.partitions)
    partitions = np.array(sorted(rng.sample(range(exchange.partitions), count)), np.uint32)

    def numbers(below: int) -> Any:
        return np.array([rng.randrange(1, below) for _ in range(count)], np.uint64)

    sums = AttemptSums(
        partitions, numbers(1000), numbers(10**6), numbers(10**6), numbers(2**64 - 1)
    )
    written = {r for r in exchange.ranges for p in partitions if r.first <= p < r.first + r.count}
    mapper = rng.randrange(len(exchange.attempts))
    request = CommitRequest(
        exchange.number, mapper, exchange.attempts[mapper], 1,
        pairs_array(sorted((r.index, r.epoch) for r in written)), sums,
    )  # fmt: skip
    found: mpb.CommitRequest = wire.to_pb(request)
    return found


# --- push streams ---------------------------------------------------------------------------


def push_messages(names: Names, rng: random.Random) -> tuple[int, list[Message]]:
    """Return what a writer, or a primary that forwards, says on one stream.

    Returns: which daemon it is for, and the messages.
    """
    exchange = own_exchange(names, rng)
    place = exchange.ranges[rng.randrange(len(exchange.ranges))]
    number, mapper = exchange.number, rng.randrange(len(exchange.attempts))
    attempt = exchange.attempts[mapper]
    if rng.random() < 0.1:
        number = names.honest_numbers[rng.randrange(len(names.honest_numbers))]
        mapper = NOBODYS_MAPPERS + rng.randrange(8)
    daemon = names.daemons[place.primary]
    hello = spb.Hello(
        protocol=2, number=number, mapper=mapper, attempt=attempt, incarnation=daemon.incarnation
    )
    if rng.random() < 0.2:  # as a primary
        hello = spb.Hello(protocol=2, incarnation=daemon.incarnation, primary=rng.randint(1, 9))
    made = partial(
        _frame, rng, number=number, incarnation=daemon.incarnation, mapper=mapper,
        attempt=attempt, place=(place.index, place.first, place.epoch),
    )  # fmt: skip
    frames = [made(sequence=at) for at in range(1, rng.randint(2, 5))]
    eager = rng.random() < 0.7
    first = spb.PushRequest(hello=hello)
    if not eager:
        first.announce.extend(map(len, frames))
    messages: list[Message] = [first]
    messages += [spb.PushRequest(eager=eager, frame=frame) for frame in frames]
    if rng.random() < 0.3:
        messages.append(spb.PushRequest(released=[1, 2]))
    if rng.random() < 0.2:
        messages.append(spb.PushRequest(withdrawn=True))
    return place.primary, messages


def _frame(
    rng: random.Random,
    *,
    number: int,
    incarnation: int,
    mapper: int,
    attempt: int,
    place: tuple[int, int, int],
    sequence: int,
) -> bytes:
    """Return a frame whose checksums are right, of blocks that need not be in order."""
    index, first, epoch = place
    blocks = []
    for at in range(rng.randint(1, 3)):
        content = rng.randbytes(rng.choice((1, 10, 1000, 5000)))
        is_mark = rng.random() < 0.05
        block = encode_block(
            exchange=number, partition=first, mapper=mapper, attempt=attempt,
            first_row=0 if is_mark else rng.choice((at, at * 10, 2**40)),
            rows=0 if is_mark else rng.choice((1, 1, 2, 2**32 - 1)),
            content=content, codec=rng.choice((CODEC_NONE, CODEC_LZ4)), mark=is_mark,
        )  # fmt: skip
        blocks.append(block[0] + block[1])
    body = b"".join(blocks)
    header = FrameHeader(
        number, incarnation, sequence, index, epoch, len(body),
        len(blocks) if rng.random() < 0.9 else rng.choice((0, 1, 2**32 - 1)),
    )  # fmt: skip
    return encode_frame_header(header) + body
