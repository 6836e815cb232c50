"""The database in a thread of its own, so that the event loop never waits for the disk; and how
it does."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Final, NamedTuple, TypeVar

from cosco.errors import ServiceUnavailable
from cosco.metadata.state.records.changes import Change, Stored
from cosco.metadata.store.sql import SqlStore
from cosco.protocol.events import Event, EventKind

#: A disk that takes longer for a transaction is said to hang.
SLOW_WRITE_S: Final = 5.0

_T = TypeVar("_T")


class Database:
    """A `SqlStore` for an event loop; its jobs run one at a time, in the order of the calls."""

    def __init__(self, store: SqlStore, executor: ThreadPoolExecutor) -> None:
        self._store = store
        self._executor = executor

    async def load(self, build: Callable[[Stored], _T]) -> _T:
        """Return what `build` makes of everything but what is closed.

        It is called in the thread, too: of many exchanges it takes longer than an event loop may
        stand still.
        """
        return await _run(self._executor, lambda: build(self._store.load()))

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


class Measures(NamedTuple):
    """Who is given the figures of transactions: their seconds, their rows, and each that failed."""

    seconds: Callable[[float], object]
    rows: Callable[[int], object]
    failure: Callable[[], object]


class DatabaseWatch:
    """Writes transactions, one at a time, and knows whether the database takes them.

    write: writes one transaction, or raises. store: names the database to operators.
    """

    def __init__(
        self, write: Callable[[list[Change]], Awaitable[None]], measures: Measures, store: str
    ) -> None:
        self._store = store
        self._failure = ""  # of the last one, if it failed
        self._began: float | None = None  # the one that is under way
        #: Has operators told of an event.
        self.tell: Callable[[Event], None] = lambda _: None
        self._since = 0.0
        self._write = write
        self._measures = measures

    async def write(self, changes: list[Change]) -> None:
        """Write one transaction; raises what that raises."""
        began = self._began = time.monotonic()
        try:
            await self._write(changes)
        except Exception as error:
            self._measures.failure()
            self._failed(" ".join(f"{error}".split()) or type(error).__name__, began)
            raise
        finally:
            self._began = None
        now = time.monotonic()
        self._measures.seconds(now - began)
        self._measures.rows(len(changes))
        if self._failure:
            self._failure = ""
            seconds = round(now - self._since, 1)
            kind = EventKind.DATABASE_RECOVERED
            self.tell(Event(kind=kind, store=self._store, seconds=seconds))

    def _failed(self, reason: str, began: float) -> None:
        if not self._failure:
            self._since = began
        if reason != self._failure:
            self.tell(Event(kind=EventKind.DATABASE_FAILING, store=self._store, reason=reason))
        self._failure = reason

    def look(self, now: float) -> None:
        """Have operators told of a write that hangs; to be called now and then."""
        if self._hangs(now) and not self._failure:
            assert self._began is not None
            self._failed(f"a write has been under way for {SLOW_WRITE_S:g} s", self._began)

    def _hangs(self, now: float) -> bool:
        return self._began is not None and now - self._began >= SLOW_WRITE_S

    def doubts(self, now: float) -> list[str]:
        """Return why the database may take no transaction."""
        if self._began is not None and self._hangs(now):
            return [f"a write of the database has been under way for {now - self._began:.1f} s"]
        if self._failure:
            return [f"the database takes no writes: {self._failure}"]
        return []


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
