"""Which waiting calls an event concerns, without what they wait with."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from pyroaring import BitMap

from cosco.errors import ServiceUnavailable

_W = TypeVar("_W", bound=Hashable)
#: (exchange, serialized set of mappers; None for drivers, who wait for no mapper)
_Key = tuple[int, bytes | None]


@dataclass(slots=True)
class _Entry(Generic[_W]):
    missing: BitMap
    waiters: set[_W] = field(default_factory=set)


class Waiting(Generic[_W]):
    """Calls that wait for commits of mappers, or for orders to a driver.

    Readers that name the same mappers share one entry, so a commit touches as many entries
    as there are different sets. At most `max_calls` wait at a time. A waiter that a method
    returns no longer waits.
    """

    def __init__(self, max_calls: int) -> None:
        self._max_calls = max_calls
        self._entries: dict[_Key, _Entry[_W]] = {}
        self._by_number: defaultdict[int, set[_Key]] = defaultdict(set)
        self._key_of: dict[_W, _Key] = {}

    def __len__(self) -> int:
        """Calls that wait."""
        return len(self._key_of)

    def add_reader(self, number: int, mappers: BitMap, missing: BitMap, waiter: _W) -> None:
        """Wait for those of `mappers` that are `missing`; raises ServiceUnavailable."""
        self._add((number, mappers.serialize()), missing, waiter)

    def add_driver(self, number: int, waiter: _W) -> None:
        """Wait for orders to the driver of an exchange; raises ServiceUnavailable."""
        self._add((number, None), BitMap(), waiter)

    def remove(self, waiter: _W) -> None:
        """Stop waiting; harmless for one that does not wait any more."""
        key = self._key_of.pop(waiter, None)
        if key is not None:
            entry = self._entries[key]
            entry.waiters.discard(waiter)
            if not entry.waiters:
                self._forget(key)

    def committed(self, number: int, mapper: int) -> list[_W]:
        """A mapper has committed: the readers for which it was the last."""
        complete = []
        for key in self._by_number.get(number, ()):
            entry = self._entries[key]
            if mapper in entry.missing:
                entry.missing.discard(mapper)
                if not entry.missing:
                    complete.append(key)
        return [waiter for key in complete for waiter in self._pop(key)]

    def driver(self, number: int) -> list[_W]:
        """The drivers' calls of an exchange."""
        key = (number, None)
        return self._pop(key) if key in self._entries else []

    def closed(self, number: int) -> list[_W]:
        """Every call about an exchange."""
        keys = list(self._by_number.get(number, ()))
        return [waiter for key in keys for waiter in self._pop(key)]

    def everyone(self) -> list[_W]:
        """Every call."""
        return [waiter for key in list(self._entries) for waiter in self._pop(key)]

    def _add(self, key: _Key, missing: BitMap, waiter: _W) -> None:
        if len(self._key_of) >= self._max_calls:
            raise ServiceUnavailable(
                f"{self._max_calls} calls wait at the metadata service already; try again later"
            )
        entry = self._entries.get(key)
        if entry is None:
            entry = self._entries[key] = _Entry(missing.copy())
            self._by_number[key[0]].add(key)
        entry.waiters.add(waiter)
        self._key_of[waiter] = key

    def _pop(self, key: _Key) -> list[_W]:
        waiters = list(self._entries[key].waiters)
        for waiter in waiters:
            del self._key_of[waiter]
        self._forget(key)
        return waiters

    def _forget(self, key: _Key) -> None:
        del self._entries[key]
        keys = self._by_number[key[0]]
        keys.discard(key)
        if not keys:
            del self._by_number[key[0]]
