"""The metadata service's database: tables in memory, written one transaction at a time.

A transaction whose process dies is in the database whole, or not at all.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

from cosco.metadata.changes import Change, Row, Stored
from cosco.metadata.sql import _NAMED, _TABLES, _UNLOADED  # the tables there are

from .loop import PROCESS
from .world import OnPurpose, current


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
            if name != _UNLOADED
        }
        numbers = [int(str(key[0])) for name in _NAMED for key in self.tables[name]]
        return Stored("c0ffee", max(numbers, default=0) + 1, tables)

    def was_used(self, shuffle_id: str) -> bool:
        for name in _NAMED:
            index = [c.split()[0] for c in _TABLES[name].columns].index("shuffle_id")
            if any(row[index] == shuffle_id for row in self.tables[name].values()):
                return True
        return False


class DatabaseFailed(sqlite3.OperationalError, OnPurpose):
    """The disk of the database is full, say."""


class SimDatabase:
    """`cosco.metadata.database.Database` of one process."""

    def __init__(self, store: TableStore) -> None:
        self._store = store
        self._world = current()
        self._busy = asyncio.Lock()

    async def load(self) -> Stored:
        await self._takes()
        return self._store.load()

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
        async with self._busy:
            await self._takes()
            return self._store.was_used(shuffle_id)

    async def _takes(self) -> None:
        rng = self._world.rng
        slow = rng.random() * 0.5 if rng.random() < 0.02 else 0.0
        await asyncio.sleep(0.0003 + 0.002 * rng.random() + slow)


@asynccontextmanager
async def open_database(path: str) -> AsyncIterator[SimDatabase]:
    yield SimDatabase(current().database)
