"""The metadata service's database: tables in memory, written one transaction at a time.

A transaction whose process dies is in the database whole, or not at all.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from typing import TypeVar

from cosco.metadata.state.records.changes import Change, Row, Stored
from cosco.metadata.store.sql import _NAMED, _TABLES, _UNLOADED  # the tables there are
from cosco.protocol.group_records import group_of

from .loop import PROCESS
from .world import OnPurpose, current

_T = TypeVar("_T")


class TableStore:
    """What is durable. `failing`: no transaction succeeds now."""

    def __init__(self) -> None:
        self.tables: dict[str, dict[Row, Row]] = {name: {} for name in _TABLES}
        self.failing = False

    def apply(self, changes: Iterable[Change]) -> None:
        for table, key, row in changes:
            rows = self.tables[table]
            if row is None:
                for old in [old for old in rows if old[: len(key)] == key]:
                    del rows[old]
            else:
                expected = len(_TABLES[table].key), len(_TABLES[table].columns)
                assert (len(key), len(row)) == expected, (table, key, row)
                rows[key] = row

    def load(self) -> Stored:
        tables = {
            name: [key + row for key, row in sorted(rows.items(), key=lambda item: item[0])]
            for name, rows in self.tables.items()
            if name not in _UNLOADED
        }
        numbers = [int(str(key[0])) for name in _NAMED for key in self.tables[name]]
        numbers += [int(str(last)) for _, last in self.tables["used_groups"].values()]
        return Stored("c0ffee", max(numbers, default=0) + 1, tables, b"simulated")

    def was_used(self, shuffle_id: str) -> bool:
        if shuffle_id in self._ids():
            return True
        member = group_of(shuffle_id)
        return member is not None and member[1] < self._group_size(member[0])

    def was_group(self, group_id: str) -> bool:
        return self._group_size(group_id) > 0

    def used_in_group(self, group_id: str) -> str | None:
        found = (i for i in self._ids() if (group_of(i) or ("", 0))[0] == group_id)
        return next(found, None)

    def _ids(self) -> Iterator[str]:
        for name in _NAMED:
            index = [c.split()[0] for c in _TABLES[name].columns].index("shuffle_id")
            for row in self.tables[name].values():
                yield str(row[index])

    def _group_size(self, group_id: str) -> int:
        row = self.tables["used_groups"].get((group_id,), (0,))
        return int(str(row[0]))


class DatabaseFailed(sqlite3.OperationalError, OnPurpose):
    """The disk of the database is full, say."""


class SimDatabase:
    """`cosco.metadata.store.database.Database` of one process."""

    def __init__(self, store: TableStore) -> None:
        self._store = store
        self._world = current()
        self._busy = asyncio.Lock()

    async def load(self, build: Callable[[Stored], _T]) -> _T:
        await self._takes()
        return build(self._store.load())

    async def write(self, changes: list[Change]) -> None:
        process = PROCESS.get()
        assert process is not None

        def interrupted() -> None:
            if self._world.rng.random() < 0.5:
                self._store.apply(changes)

        async with self._busy:
            process.on_death[interrupted] = None
            try:
                await self._takes()
            finally:
                process.on_death.pop(interrupted, None)
            if self._store.failing:
                raise DatabaseFailed("the simulated database takes nothing")
            self._store.apply(changes)

    async def was_used(self, shuffle_id: str) -> bool:
        return await self._look(lambda: self._store.was_used(shuffle_id))

    async def was_group(self, group_id: str) -> bool:
        return await self._look(lambda: self._store.was_group(group_id))

    async def used_in_group(self, group_id: str) -> str | None:
        return await self._look(lambda: self._store.used_in_group(group_id))

    async def _look(self, job: Callable[[], _T]) -> _T:
        async with self._busy:
            await self._takes()
            return job()

    async def _takes(self) -> None:
        rng = self._world.rng
        slow = rng.random() * 0.5 if rng.random() < 0.02 else 0.0
        await asyncio.sleep(0.0003 + 0.002 * rng.random() + slow)


@asynccontextmanager
async def open_database(path: str) -> AsyncIterator[SimDatabase]:
    yield SimDatabase(current().database)
