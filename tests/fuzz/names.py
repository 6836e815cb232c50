"""What a cluster calls the things that messages are about, and what may be said of whose.

A message of the fuzzer may be about anything but for one thing: as the services do not know yet
who calls, whoever knows the name of a stranger's exchange may close it, commit to it or take it
over. So what would harm the honest job by being valid is not sent.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message

from cosco.errors import InvalidArgument
from cosco.protocol.wire import push_request_from_bytes

#: The first characters of all names of the honest job, and of what the fuzzer makes.
HONEST: Final = "honest-"
FUZZED: Final = "fuzz-"
#: Blocks of the fuzzer in an honest exchange are of mappers from here on: nobody reads them.
NOBODYS_MAPPERS: Final = 1_000_000
#: Fields that hold numbers of exchanges, and addresses.
NUMBER_FIELDS: Final = frozenset({"number", "exchanges", "dropped", "first_number"})
ADDRESS_FIELDS: Final = frozenset({"address", "metrics_address"})
#: Nothing is sent to other machines: not by those who are told an address either. A name with
#: one of the characters at the end is no name of a host, and nobody is asked for it.
_NEAR: Final = re.compile(r"127\.\d+\.\d+\.\d+:.*|localhost:.*|[^:]*[\x00-\x20\x7f/].*", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Daemon:
    """A daemon of the cluster."""

    address: str
    incarnation: int
    store_id: str


@dataclass(frozen=True, slots=True)
class Range:
    """A partition range of the fuzzer's own exchange. primary: index in `Names.daemons`."""

    index: int
    first: int
    count: int
    epoch: int
    primary: int


@dataclass(frozen=True, slots=True)
class Exchange:
    """An exchange of the fuzzer's own. attempts: of mappers 0, 1, …"""

    number: int
    shuffle_id: str
    owner: bytes
    partitions: int
    ranges: tuple[Range, ...]
    attempts: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Names:
    """All of a cluster that messages can name."""

    daemons: tuple[Daemon, ...]
    own: tuple[Exchange, ...]
    #: Others that messages have made and that are open: number and id; of groups `GROUP/INDEX`.
    made: tuple[tuple[int, str], ...]
    #: Of the honest job: numbers and ids of its exchanges, at least one.
    honest_numbers: tuple[int, ...]
    honest_ids: tuple[str, ...]


def _yes(_: Any) -> bool:
    return True


#: Method → whether a message of it may name exchanges of the honest job.
_MAY_NAME_HONEST: Final[dict[str, Callable[[Any], bool]]] = {
    "AwaitCommits": _yes,
    "CloseExchange": lambda message: bool(message.owner),  # which is of somebody else
    "CreateExchange": _yes,
    "CreateGroup": _yes,
    "DescribeExchange": lambda message: not message.owner,
    "Fetch": _yes,
    "Follow": _yes,
    "ListEvents": _yes,
    "ListExchanges": _yes,
    "LookupAssignment": _yes,
    "MakeCapability": _yes,
    "OpenAttempt": _yes,
    "PollDriver": _yes,
    "PollGroup": _yes,
    "Progress": _yes,
    "ShowExchange": _yes,
    "Status": _yes,
}
#: Method → whether a message of it may name daemons of the cluster.
_MAY_NAME_DAEMONS: Final[dict[str, Callable[[Any], bool]]] = {
    "Follow": _yes,
    "LookupAssignment": _yes,
    "ReportDaemon": lambda message: not message.insist,
    "RenewAssignments": lambda message: not message.insist,
    "Seal": _yes,
    "UndrainDaemon": _yes,
}


def is_harmless(method: str, kind: type[Message], data: bytes, names: Names) -> bool:
    """Return whether a message may be sent: what it does to others by being valid is nothing.

    kind: of the message, which it need not be: what does not parse does nothing.
    """
    if method == "Push":
        return _is_harmless_push(data, names)
    try:
        message: Any = kind.FromString(data)
    except DecodeError:
        return True
    found = Mentioned(names, message)
    if found.is_far:
        return False
    if found.honest and not _MAY_NAME_HONEST.get(method, _no)(message):
        return False
    if method == "RegisterDaemon":
        # One that nothing is placed at. It may have the address of another, which is asked.
        named = set(found.daemons) - {"address"}
        return bool(message.draining) and not named
    if method == "UndrainDaemon" and not found.daemons:
        return not message.daemon.startswith("127.")  # one that is nobody would be given work
    return not found.daemons or _MAY_NAME_DAEMONS.get(method, _no)(message)


def _no(_: Any) -> bool:
    return False


def _is_harmless_push(data: bytes, names: Names) -> bool:
    try:
        hello = push_request_from_bytes(data).hello
    except InvalidArgument:
        return True
    if hello is None:
        return True
    real = {daemon.incarnation for daemon in names.daemons}
    if hello.primary in real:  # the stream of that one would be taken over
        return False
    return hello.number not in names.honest_numbers or hello.mapper >= NOBODYS_MAPPERS


class Mentioned:
    """What a message names: the honest job, daemons by the fields that do, a far machine."""

    def __init__(self, names: Names, message: Message) -> None:
        self.honest = self.is_far = False
        self.daemons: list[str] = []
        real: set[object] = set()
        for daemon in names.daemons:
            real |= {daemon.address, daemon.incarnation, daemon.store_id}
        for field, value in fields(message):
            if value in real:
                self.daemons.append(field)
            if isinstance(value, str):
                self.honest |= value.startswith(HONEST)
                if field in ADDRESS_FIELDS:
                    self.is_far |= bool(value) and not _NEAR.fullmatch(value)
            elif field in NUMBER_FIELDS:
                self.honest |= value in names.honest_numbers


def fields(message: Message) -> Iterator[tuple[str, Any]]:
    """Yield the name and the value of each field that is set, at any depth."""
    listed: Any = message.ListFields()
    for field, value in listed:
        values = value if is_repeated(message, field) else (value,)
        for one in values:
            if field.type == FieldDescriptor.TYPE_MESSAGE:
                yield from fields(one)
            else:
                yield field.name, one


def is_repeated(message: Message, field: Any) -> bool:
    """Return whether a field of a message has many values: descriptors of some versions of
    protobuf say it in one way, and others in another."""
    return hasattr(getattr(message, field.name), "extend")
