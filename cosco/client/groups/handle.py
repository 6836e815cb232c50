"""`GroupHandle`: what a task needs to write and to read exchanges of a group."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field, fields, replace
from functools import partial
from typing import Any, Final

from pyroaring import BitMap

from cosco.client.access.service_connection import Connection, connection_to
from cosco.client.argument_checks import whole_number
from cosco.client.groups.commit_outbox import COMMIT_OUTBOXES, OutgoingCommit
from cosco.client.groups.mark_watch import MarkWatch
from cosco.client.handle_pickle import shape_of, values_of
from cosco.client.handle_rights import check_may
from cosco.client.read.reader import CoscoReader
from cosco.client.rpc.in_use import IN_USE
from cosco.client.rpc.metadata_client import MetadataClient
from cosco.client.write.writer import Attempts, CoscoWriter
from cosco.errors import ExchangeClosed, InvalidArgument
from cosco.protocol.group_records import GroupPart, member_name
from cosco.protocol.records import (
    FIRST_OWN_ATTEMPT,
    Assignment,
    CommitRequest,
    DaemonRef,
    ExchangeInfo,
    ExchangeSpec,
    OpenedAttempt,
    PartitionRange,
)

#: The buffer of a writer of a group: micro-batches are small.
BUFFER_BYTES: Final = 4 << 20
#: How many exchanges a handle remembers the description of.
_MAX_INFOS: Final = 256


@dataclass(slots=True)
class GroupLife:
    """Which exchanges of a group its driver has ended, as far as is known here."""

    released: BitMap = field(default_factory=BitMap)
    is_closed: bool = False

    def __reduce__(self) -> Any:
        return GroupLife, (self.released, self.is_closed)


class GroupAttempts(Attempts):
    """Attempts of a group, which ask nobody.

    Rows end with marks, on which waiting readers are given them. When a writer's `close` returns
    every copy has them; the commit follows a moment later, with those of other writers of the
    process. So `won` is true as far as is known: it may turn out that another attempt of the
    mapper was first.
    """

    has_marks = True
    may_refine = False

    def __init__(self, info: ExchangeInfo, service_timeout_s: float) -> None:
        self._info = info
        self._service_timeout_s = service_timeout_s

    def open(self, metadata: MetadataClient, shuffle_id: str, mapper: int | None) -> OpenedAttempt:
        """See `Attempts`."""
        assert mapper is not None  # as the handle has checked
        metadata.set_met()  # whoever gave the handle has: an outage is waited for
        return OpenedAttempt(self._info, mapper, FIRST_OWN_ATTEMPT | secrets.randbits(63))

    def count(self, metadata: MetadataClient, commit: CommitRequest) -> bool:
        """See `Attempts`."""
        item = OutgoingCommit(metadata.connection, commit)
        COMMIT_OUTBOXES.of(metadata.connection, self._service_timeout_s).add(item)
        return True


@dataclass(frozen=True, slots=True, weakref_slot=True)
class GroupHandle:
    """A group's exchanges as `CoscoExchangeGroup.handle()` gives them out; pickles, and is small.

    Writers and readers that it makes ask nobody before rows move: it names the daemons of every
    exchange. It knows the exchanges there were when it was made; after `extend` take another.

    Where the cluster asks who calls, it lets whoever has it write to these exchanges and read from
    them, or do one of both, as its driver has said, without a token: it is a secret then, and a
    pickle of it as well.
    """

    metadata: Connection
    group_id: str
    mappers: int
    service_timeout_s: float
    parts: tuple[GroupPart, ...]
    life: GroupLife = field(default_factory=GroupLife, compare=False, repr=False)
    # Those exchanges that were asked for last, as this handle may use them: a process has several
    # tasks of each.
    _infos: dict[int, ExchangeInfo] = field(
        default_factory=dict, init=False, compare=False, repr=False
    )

    def __post_init__(self) -> None:
        object.__setattr__(self, "metadata", connection_to(self.metadata))
        IN_USE.add(self.group_id, self)

    def __getstate__(self) -> list[Any]:
        return [_SHAPE, *(getattr(self, one.name) for one in fields(self) if one.init)]

    def __setstate__(self, state: list[Any]) -> None:
        given = (one for one in fields(self) if one.init)
        for one, value in zip(given, values_of(state, _SHAPE), strict=True):
            object.__setattr__(self, one.name, value)
        object.__setattr__(self, "_infos", {})
        IN_USE.add(self.group_id, self)

    @property
    def size(self) -> int:
        """How many exchanges there are: 0 to `size` - 1."""
        last = self.parts[-1]
        return last.first + last.size

    @property
    def partitions(self) -> int:
        """How many partitions each exchange has."""
        return self.parts[0].info.spec.partitions

    def writer(self, i: int, mapper: int, *, buffer_bytes: int = BUFFER_BYTES) -> CoscoWriter:
        """Return a writer of `mapper` to exchange `i`.

        A commit of a handle whose time is over is refused, which the log tells: it follows after
        `close`.

        Raises: InvalidArgument for what is not of the group, ExchangeClosed, AccessDenied if the
        handle is for reading.
        """
        i = self._index(i)
        mapper = whole_number("mapper", mapper, 0, self.mappers - 1, self.group_id)
        info = self.info(i)
        check_may(info.capability, "write", self.group_id)
        return CoscoWriter(
            member_name(self.group_id, i),
            mapper,
            buffer_bytes=buffer_bytes,
            metadata=self.metadata.with_capability(info.capability),
            service_timeout_s=self.service_timeout_s,
            _attempts=GroupAttempts(info, self.service_timeout_s),
        )

    def reader(self, i: int, partition: int, *, timeout_s: float | None = None) -> CoscoReader:
        """Return a reader of all mappers' rows of one partition of exchange `i`.

        It may be made before any mapper begins, and is given its rows when the last is done.
        `timeout_s` as for `CoscoReader`.

        Raises: InvalidArgument for what is not of the group, PartitionOutOfRange, ExchangeClosed,
        AccessDenied if the handle is for writing.
        """
        i = self._index(i)
        partition = whole_number("partition", partition, None, None, self.group_id)
        info = self.info(i)
        check_may(info.capability, "read", self.group_id)
        return CoscoReader(
            member_name(self.group_id, i),
            range(self.mappers),
            partition,
            timeout_s=timeout_s,
            metadata=self.metadata.with_capability(info.capability),
            service_timeout_s=self.service_timeout_s,
            _watch=partial(MarkWatch, info),
        )

    def flush(self) -> None:
        """Wait until what writers of this process have closed is committed.

        Raises: ServiceUnavailable when the metadata service is away for `service_timeout_s`.
        """
        COMMIT_OUTBOXES.of(self.metadata, self.service_timeout_s).flush()

    def info(self, i: int) -> ExchangeInfo:
        """Return exchange `i` as its writers and readers see it at first."""
        infos = self._infos
        info = infos.get(i)
        if info is None:
            if len(infos) >= _MAX_INFOS:
                infos.clear()
            info = infos[i] = self._make_info(i)
        return info

    def _make_info(self, i: int) -> ExchangeInfo:
        for part in self.parts:
            offset = i - part.first
            if 0 <= offset < part.size:
                info = part.info
                spec = replace(info.spec, shuffle_id=member_name(self.group_id, i))
                return replace(info, number=info.number + offset, spec=spec)
        raise self._over(i)

    def _index(self, i: int) -> int:
        if self.life.is_closed:
            raise ExchangeClosed(f"the group {self.group_id!r} is closed", shuffle_id=self.group_id)
        try:
            i = whole_number("the exchange's index", i, 0, self.size - 1, self.group_id)
        except InvalidArgument as error:
            raise InvalidArgument(
                f"group {self.group_id!r}: {error}; after extend() take another handle",
                shuffle_id=self.group_id,
            ) from None
        if i in self.life.released:
            raise self._over(i)
        return i

    def _over(self, i: int) -> ExchangeClosed:
        name = member_name(self.group_id, i)
        return ExchangeClosed(f"exchange {name!r} was released", shuffle_id=name)


#: What a handle and what it has are made of.
_SHAPE: Final = shape_of(
    GroupHandle, Connection, GroupPart, ExchangeInfo, ExchangeSpec, PartitionRange, Assignment,
    DaemonRef,
)  # fmt: skip
