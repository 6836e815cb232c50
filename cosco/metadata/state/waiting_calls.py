"""Which waiting calls an event concerns, without what they wait with."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field
from enum import Enum
from typing import Generic, NamedTuple, TypeVar

from pyroaring import BitMap

from cosco.errors import ServiceUnavailable

_W = TypeVar("_W", bound=Hashable)


class _What(Enum):
    """What a call waits for."""

    COMMITS = 1  # of mappers
    EPOCHS = 2  # of ranges
    ORDERS = 3  # to the driver
    PROBE = 4  # of the daemon whose incarnation stands for the exchange
    GROUP = 5  # orders to the driver of the group in `detail`; 0 stands for the exchange
    APPLICATION = 6  # orders to the driver of the application in `detail`, likewise


class _Key(NamedTuple):
    number: int  # of the exchange
    what: _What
    detail: tuple[bytes, int | bytes | None] | None = None


@dataclass(slots=True)
class _Entry(Generic[_W]):
    missing: BitMap
    waiters: dict[_W, None] = field(default_factory=dict)  # the longest waiting first


class Waiting(Generic[_W]):
    """Calls that wait for commits of mappers, for epochs, for orders, or for a probe.

    Readers that name the same mappers share one entry, so a commit touches as many entries
    as there are different sets. At most `max_calls` wait at a time. A waiter that a method
    returns no longer waits; it may have been woken too early, and then comes again.
    """

    def __init__(self, max_calls: int) -> None:
        self._max_calls = max_calls
        self._entries: dict[_Key, _Entry[_W]] = {}
        self._by_number: defaultdict[int, dict[_Key, None]] = defaultdict(dict)
        self._key_of: dict[_W, _Key] = {}

    def __len__(self) -> int:
        """Calls that wait."""
        return len(self._key_of)

    def add_reader(
        self,
        number: int,
        mappers: BitMap,
        missing: BitMap,
        waiter: _W,
        rebuilt: int | BitMap | None = None,
    ) -> None:
        """Wait for those of `mappers` that are `missing`; raises ServiceUnavailable.

        rebuilt: the partition that is read, or all of them, if mappers were called back for one.
        They are not missing elsewhere; without losses all partitions miss the same of the same
        mappers.
        """
        where = rebuilt.serialize() if isinstance(rebuilt, BitMap) else rebuilt
        self._add(_Key(number, _What.COMMITS, (mappers.serialize(), where)), missing, waiter)

    def add_writer(self, number: int, ranges: Iterable[int], waiter: _W) -> None:
        """Wait until `ranges`, whose epochs are sealed, have others; raises
        ServiceUnavailable."""
        missing = BitMap(ranges)
        self._add(_Key(number, _What.EPOCHS, (missing.serialize(), None)), missing, waiter)

    def add_driver(self, number: int, waiter: _W) -> None:
        """Wait for orders to the driver of an exchange; raises ServiceUnavailable."""
        self._add(_Key(number, _What.ORDERS), BitMap(), waiter)

    def add_group(self, group_id: str, waiter: _W) -> None:
        """Wait for orders to the driver of a group; raises ServiceUnavailable."""
        self._add(_group_key(group_id), BitMap(), waiter)

    def add_application(self, application_id: str, waiter: _W) -> None:
        """Wait for orders to the driver of an application; raises ServiceUnavailable."""
        self._add(_application_key(application_id), BitMap(), waiter)

    def add_report(self, incarnation: int, waiter: _W) -> None:
        """Wait until a daemon has been asked; raises ServiceUnavailable."""
        self._add(_Key(incarnation, _What.PROBE), BitMap(), waiter)

    def remove(self, waiter: _W) -> None:
        """Stop waiting; harmless for one that does not wait any more."""
        key = self._key_of.pop(waiter, None)
        if key is not None:
            entry = self._entries[key]
            entry.waiters.pop(waiter, None)
            if not entry.waiters:
                self._forget(key)

    def committed(self, number: int, mapper: int) -> list[_W]:
        """Return the readers for which a mapper that has committed was the last."""
        return self._arrived(number, _What.COMMITS, mapper)

    def begun(self, number: int, index: int) -> list[_W]:
        """Return the writers for which a range that has another epoch was the last."""
        return self._arrived(number, _What.EPOCHS, index)

    def probed(self, incarnation: int) -> list[_W]:
        """Return those who reported a daemon."""
        return self._pop(_Key(incarnation, _What.PROBE))

    def group(self, group_id: str) -> list[_W]:
        """Return those who wait for orders to the driver of a group."""
        return self._pop(_group_key(group_id))

    def application(self, application_id: str) -> list[_W]:
        """Return those who wait for orders to the driver of an application."""
        return self._pop(_application_key(application_id))

    def exchange(self, number: int) -> list[_W]:
        """Return every call about an exchange."""
        keys = [k for k in self._by_number.get(number, ()) if k.what is not _What.PROBE]
        return [waiter for key in keys for waiter in self._pop(key)]

    def everyone(self) -> list[_W]:
        """Return every call."""
        return [waiter for key in list(self._entries) for waiter in self._pop(key)]

    def _add(self, key: _Key, missing: BitMap, waiter: _W) -> None:
        if len(self._key_of) >= self._max_calls:
            raise ServiceUnavailable(
                f"{self._max_calls} calls wait at the metadata service already; try again later"
            )
        entry = self._entries.get(key)
        if entry is None:
            entry = self._entries[key] = _Entry(missing.copy())
            self._by_number[key.number][key] = None
        entry.waiters[waiter] = None
        self._key_of[waiter] = key

    def _arrived(self, number: int, what: _What, which: int) -> list[_W]:
        complete = []
        for key in self._by_number.get(number, ()):
            entry = self._entries[key]
            if key.what is what and which in entry.missing:
                entry.missing.discard(which)
                if not entry.missing:
                    complete.append(key)
        return [waiter for key in complete for waiter in self._pop(key)]

    def _pop(self, key: _Key) -> list[_W]:
        if key not in self._entries:
            return []
        waiters = list(self._entries[key].waiters)
        for waiter in waiters:
            del self._key_of[waiter]
        self._forget(key)
        return waiters

    def _forget(self, key: _Key) -> None:
        del self._entries[key]
        keys = self._by_number[key.number]
        keys.pop(key, None)
        if not keys:
            del self._by_number[key.number]


def _group_key(group_id: str) -> _Key:
    return _Key(0, _What.GROUP, (group_id.encode(), None))


def _application_key(application_id: str) -> _Key:
    return _Key(0, _What.APPLICATION, (application_id.encode(), None))
