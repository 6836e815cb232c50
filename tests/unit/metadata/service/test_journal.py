from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

import cosco.metadata.service.journal
from cosco.metadata.service.journal import LARGE_BATCH, Journal
from cosco.metadata.state.records.changes import Change, Stored
from cosco.metadata.state.state import MetadataState
from cosco.protocol.records import DaemonRegistration


def new_state() -> MetadataState:
    return MetadataState(Stored("c"), daemon_lease_s=10.0, ranges_per_daemon=1, now=0.0)


def change(state: MetadataState, incarnation: int) -> None:
    registration = DaemonRegistration(incarnation, f"h:{incarnation}", "host", "store", 1, 1)
    state.register(registration, 0.0)


class Disk:
    """Takes as many batches as it is let."""

    def __init__(self) -> None:
        self.batches: list[list[Change]] = []
        self.failures = 0
        self.begun = asyncio.Event()
        self.permits = asyncio.Semaphore(0)

    async def write(self, changes: list[Change]) -> None:
        self.begun.set()
        await self.permits.acquire()
        if self.failures:
            self.failures -= 1
            raise OSError("disk full")
        self.batches.append(changes)


@asynccontextmanager
async def running(journal: Journal) -> AsyncIterator[None]:
    task = asyncio.create_task(journal.run())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


@pytest.mark.parametrize(("rows", "written"), [(LARGE_BATCH, [LARGE_BATCH]), (5, [5, 1])])
def test_after_many_rows_the_next_batch_gathers(
    monkeypatch: pytest.MonkeyPatch, rows: int, written: list[int]
) -> None:
    monkeypatch.setattr(cosco.metadata.service.journal, "MAX_GATHER_S", 3600.0)

    async def run() -> None:
        state, disk = new_state(), Disk()
        disk.permits = asyncio.Semaphore(2)
        times = iter((0.0, 3600.0, 3600.0, 3600.0))  # the first batch took an hour
        journal = Journal(state, disk.write, lambda: next(times))
        async with running(journal):
            for incarnation in range(1, rows + 1):
                change(state, incarnation)
            await journal.durable()
            change(state, rows + 1)
            late = asyncio.create_task(journal.durable())
            await settle()
            assert late.done() == (len(written) == 2)
            late.cancel()
        assert [len(batch) for batch in disk.batches] == written

    asyncio.run(run())


def test_one_batch_gathers_while_another_is_written() -> None:
    async def run() -> None:
        state, disk = new_state(), Disk()
        journal = Journal(state, disk.write)
        async with running(journal):
            await journal.durable()  # nothing changed: at once
            change(state, 1)
            first = asyncio.create_task(journal.durable())
            await disk.begun.wait()
            reader = asyncio.create_task(journal.durable())  # saw change 1
            change(state, 2)
            second = asyncio.create_task(journal.durable())
            change(state, 3)
            third = asyncio.create_task(journal.durable())
            await settle()
            assert not any(task.done() for task in (first, reader, second, third))
            disk.permits.release()
            disk.permits.release()
            await asyncio.gather(first, reader, second, third)
        assert [len(batch) for batch in disk.batches] == [1, 2]

    asyncio.run(run())


def test_a_batch_waits_for_its_own_write() -> None:
    async def run() -> None:
        state, disk = new_state(), Disk()
        journal = Journal(state, disk.write)
        async with running(journal):
            change(state, 1)
            first = asyncio.create_task(journal.durable())
            await disk.begun.wait()
            change(state, 2)
            second = asyncio.create_task(journal.durable())
            await settle()
            disk.permits.release()
            await first
            await settle()
            assert not second.done()
            disk.permits.release()
            await second

    asyncio.run(run())


def test_a_failed_batch_is_written_later() -> None:
    async def run() -> None:
        state, disk = new_state(), Disk()
        disk.failures = 1
        disk.permits = asyncio.Semaphore(2)
        journal = Journal(state, disk.write)
        async with running(journal):
            change(state, 1)
            await journal.durable()
        assert [len(batch) for batch in disk.batches] == [1]

    asyncio.run(run())


def test_a_caller_that_goes_away_disturbs_nobody() -> None:
    async def run() -> None:
        state, disk = new_state(), Disk()
        journal = Journal(state, disk.write)
        async with running(journal):
            change(state, 1)
            gone = asyncio.create_task(journal.durable())
            stays = asyncio.create_task(journal.durable())
            await disk.begun.wait()
            gone.cancel()
            await settle()
            assert gone.cancelled()
            disk.permits.release()
            await stays

    asyncio.run(run())
