"""The database in a thread of its own, so that the event loop never waits for the disk."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import TypeVar

from cosco.errors import ServiceUnavailable
from cosco.metadata.state.records.changes import Change, Stored
from cosco.metadata.store.sql import SqlStore

_T = TypeVar("_T")


class Database:
    """A `SqlStore` for an event loop; its jobs run one at a time, in the order of the calls."""

    def __init__(self, store: SqlStore, executor: ThreadPoolExecutor) -> None:
        self._store = store
        self._executor = executor

    async def load(self) -> Stored:
        """Return everything but what is closed."""
        return await _run(self._executor, self._store.load)

    async def write(self, changes: list[Change]) -> None:
        """Write one durable transaction; raises sqlite3.Error, and then nothing is applied."""
        await _run(self._executor, lambda: self._store.write(changes))

    async def was_used(self, shuffle_id: str) -> bool:
        """Whether there ever was an exchange of this id; raises ServiceUnavailable."""
        return await self._look(lambda: self._store.was_used(shuffle_id))

    async def was_group(self, group_id: str) -> bool:
        """Whether there ever was a group of this id; raises ServiceUnavailable."""
        return await self._look(lambda: self._store.was_group(group_id))

    async def used_in_group(self, group_id: str) -> str | None:
        """Return an id ever used that such a group would take for its own; raises
        ServiceUnavailable."""
        return await self._look(lambda: self._store.used_in_group(group_id))

    async def _look(self, job: Callable[[], _T]) -> _T:
        try:
            return await _run(self._executor, job)
        except sqlite3.Error as error:
            raise ServiceUnavailable(
                f"the metadata service cannot read its store ({error}); try again later"
            ) from error


@asynccontextmanager
async def open_database(path: str) -> AsyncIterator[Database]:
    """Open the file for as long as the context lasts; raises InvalidArgument."""
    with ThreadPoolExecutor(1, thread_name_prefix="cosco-metadata-sql") as executor:
        store = await _run(executor, lambda: SqlStore(path))
        try:
            yield Database(store, executor)
        finally:
            await _run(executor, store.close)


async def _run(executor: ThreadPoolExecutor, job: Callable[[], _T]) -> _T:
    return await asyncio.get_running_loop().run_in_executor(executor, job)
