"""`GroupHandle`: what a task needs to write and to read exchanges of a group."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Final

from pyroaring import BitMap

from cosco.client.argument_checks import whole_number
from cosco.client.groups.committer import COMMITTERS
from cosco.client.groups.group_reader import GroupReader
from cosco.client.groups.group_writer import BUFFER_BYTES, GroupWriter
from cosco.errors import ExchangeClosed, InvalidArgument
from cosco.protocol.group_records import GroupPart, member_name
from cosco.protocol.records import ExchangeInfo

#: Exchanges that a handle remembers the description of.
_MAX_INFOS: Final = 256


@dataclass(slots=True)
class GroupLife:
    """Which exchanges of a group its driver has ended, as far as is known here.

    infos: of exchanges that were asked for last: a process has several tasks of each.
    """

    released: BitMap = field(default_factory=BitMap)
    is_closed: bool = False
    infos: dict[int, ExchangeInfo] = field(default_factory=dict)

    def copy(self) -> GroupLife:
        return GroupLife(BitMap(self.released), self.is_closed)


@dataclass(frozen=True, slots=True)
class GroupHandle:
    """A group's exchanges as `CoscoExchangeGroup.handle()` gives them out; pickles, and is small.

    Writers and readers that it makes ask nobody before rows move: it names the daemons of every
    exchange. It knows the exchanges there were when it was made; after `extend` take another.
    """

    metadata: str
    group_id: str
    mappers: int
    service_timeout_s: float
    blocks: tuple[GroupPart, ...]
    life: GroupLife = field(default_factory=GroupLife, compare=False, repr=False)

    @property
    def size(self) -> int:
        """Exchanges are 0 to `size` - 1."""
        last = self.blocks[-1]
        return last.first + last.size

    @property
    def partitions(self) -> int:
        """Of each exchange."""
        return self.blocks[0].info.spec.partitions

    def writer(self, i: int, mapper: int, *, buffer_bytes: int = BUFFER_BYTES) -> GroupWriter:
        """A writer of `mapper` to exchange `i`, a `CoscoWriter`.

        Raises InvalidArgument for what is not of the group, ExchangeClosed.
        """
        i = self._index(i)
        mapper = whole_number("mapper", mapper, 0, self.mappers - 1, self.group_id)
        return GroupWriter(self, i, mapper, buffer_bytes=buffer_bytes)

    def reader(self, i: int, partition: int, *, timeout_s: float | None = None) -> GroupReader:
        """A reader of all mappers' rows of one partition of exchange `i`, a `CoscoReader`.

        It may be made before any mapper begins, and is given its rows when the last is done.
        `timeout_s` as for `CoscoReader`. Raises InvalidArgument for what is not of the group,
        PartitionOutOfRange, ExchangeClosed.
        """
        return GroupReader(self, self._index(i), partition, timeout_s=timeout_s)

    def flush(self) -> None:
        """Return when what writers of this process have closed is committed.

        Raises ServiceUnavailable when the metadata service is away for `service_timeout_s`.
        """
        COMMITTERS.of(self.metadata, self.service_timeout_s).flush()

    def info(self, i: int) -> ExchangeInfo:
        """Exchange `i` as its writers and readers see it at first."""
        infos = self.life.infos
        info = infos.get(i)
        if info is None:
            if len(infos) >= _MAX_INFOS:
                infos.clear()
            info = infos[i] = self._make_info(i)
        return info

    def _make_info(self, i: int) -> ExchangeInfo:
        for block in self.blocks:
            offset = i - block.first
            if 0 <= offset < block.size:
                info = block.info
                spec = replace(info.spec, shuffle_id=member_name(self.group_id, i))
                return replace(info, number=info.number + offset, spec=spec)
        raise self._over(i)

    def __reduce__(self) -> Any:
        values = (self.metadata, self.group_id, self.mappers, self.service_timeout_s, self.blocks)
        return GroupHandle, (*values, self.life.copy())

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
