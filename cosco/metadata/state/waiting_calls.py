"""Which waiting calls an event concerns, without what they wait with."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field
from enum import Enum
from typing import Final, Generic, NamedTuple, TypeVar

from pyroaring import BitMap

from cosco.errors import ServiceUnavailable

_W = TypeVar("_W", bound=Hashable)

#: The bounds of calls that wait.
WAITING_CALLS: Final = "waiting_calls"
WAITING_BYTES: Final = "waiting_bytes"
#: What CRoaring has for each container of a set beside its members, with the allocator's share.
_CONTAINER_BYTES: Final = 96
#: What a set may grow by when it loses a member, as two runs may be left of one.
_SPLIT_BYTES: Final = 8
#: What a call costs that waits, beside what it names and what was sent.
_CALL_BYTES: Final = 2 << 10


class _What(Enum):
    """What a call waits for."""

    COMMITS = 1  # of mappers
    EPOCHS = 2  # of ranges
    ORDERS = 3  # to the driver
    PROBE = 4  # of the daemon whose incarnation stands for the exchange
    GROUP = 5  # orders to the driver of the group in `detail`; 0 stands for the exchange
    APPLICATION = 6  # orders to the driver of the application in `detail`, likewise
    NEXT_COMMIT = 7  # of any mapper


class _Key(NamedTuple):
    number: int  # of the exchange
    what: _What
    detail: tuple[bytes, int | bytes | None] | None = None


@dataclass(slots=True)
class _Entry(Generic[_W]):
    missing: BitMap
    bytes: int  # of the key and of what is missing
    waiters: dict[_W, int] = field(default_factory=dict)  # the longest waiting first, their bytes


class Waiting(Generic[_W]):
    """Calls that wait for commits of mappers, for epochs, for orders, or for a probe.

    Readers that name the same mappers share one entry, so a commit touches as many entries
    as there are different sets. At most `max_calls` wait at a time, and hold `max_bytes`. A waiter
    that a method returns no longer waits; it may have been woken too early, and then comes again.
    """

    def __init__(self, max_calls: int, max_bytes: int) -> None:
        self._max_calls = max_calls
        self._max_bytes = max_bytes
        #: What they hold, all together.
        self.held_bytes = 0
        #: How many were refused, by which bound.
        self.refused: Counter[str] = Counter()
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

    def add_watcher(self, number: int, waiter: _W) -> None:
        """Wait for the next commit of any mapper; raises ServiceUnavailable."""
        self._add(_Key(number, _What.NEXT_COMMIT), BitMap(), waiter)

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

    def hold(self, waiter: _W, held_bytes: int) -> None:
        """Count what a call that waits keeps in memory; raises ServiceUnavailable."""
        key = self._key_of[waiter]
        self._check_room(held_bytes)
        self._entries[key].waiters[waiter] += held_bytes
        self.held_bytes += held_bytes

    def remove(self, waiter: _W) -> None:
        """Stop waiting; harmless for one that does not wait any more."""
        key = self._key_of.pop(waiter, None)
        if key is not None:
            entry = self._entries[key]
            self.held_bytes -= entry.waiters.pop(waiter, 0)
            if not entry.waiters:
                self._forget(key)

    def committed(self, number: int, mapper: int) -> list[_W]:
        """Return the readers for which a mapper that has committed was the last, and those who
        wait for any."""
        watchers = self._pop(_Key(number, _What.NEXT_COMMIT))
        return watchers + self._arrived(number, _What.COMMITS, mapper)

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
            self.refused[WAITING_CALLS] += 1
            raise ServiceUnavailable(
                f"{self._max_calls} calls wait at the metadata service already; try again later"
            )
        entry = self._entries.get(key)
        entry_bytes = _entry_bytes(key, missing) if entry is None else 0
        self._check_room(entry_bytes + _CALL_BYTES)
        if entry is None:
            entry = self._entries[key] = _Entry(missing.copy(), entry_bytes)
            self._by_number[key.number][key] = None
        entry.waiters[waiter] = _CALL_BYTES
        self._key_of[waiter] = key
        self.held_bytes += entry_bytes + _CALL_BYTES

    def _check_room(self, more_bytes: int) -> None:
        if self.held_bytes + more_bytes > self._max_bytes:
            self.refused[WAITING_BYTES] += 1
            raise ServiceUnavailable(
                f"calls that wait at the metadata service hold {self.held_bytes} bytes, and this "
                f"needs {more_bytes}, of {self._max_bytes} (--waiting-bytes); try again later"
            )

    def _arrived(self, number: int, what: _What, which: int) -> list[_W]:
        complete = []
        for key in self._by_number.get(number, ()):
            entry = self._entries[key]
            if key.what is what and which in entry.missing:
                entry.missing.discard(which)
                entry.bytes += _SPLIT_BYTES
                self.held_bytes += _SPLIT_BYTES
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
        entry = self._entries.pop(key)
        self.held_bytes -= entry.bytes + sum(entry.waiters.values())
        keys = self._by_number[key.number]
        keys.pop(key, None)
        if not keys:
            del self._by_number[key.number]


def memory_bytes(members: BitMap) -> int:
    """Return what a set takes in memory."""
    figures = members.get_statistics()
    return (
        figures["n_bytes_array_containers"]
        + figures["n_bytes_run_containers"]
        + figures["n_bytes_bitset_containers"]
        + _CONTAINER_BYTES * figures["n_containers"]
    )


def _entry_bytes(key: _Key, missing: BitMap) -> int:
    named = sum(len(part) for part in key.detail or () if isinstance(part, bytes))
    return named + memory_bytes(missing)


def _group_key(group_id: str) -> _Key:
    return _Key(0, _What.GROUP, (group_id.encode(), None))


def _application_key(application_id: str) -> _Key:
    return _Key(0, _What.APPLICATION, (application_id.encode(), None))
