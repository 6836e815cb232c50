from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

import cosco.metadata.service.journal
from cosco.errors import ServiceUnavailable
from cosco.metadata.service.journal import HANGS_S, LARGE_BATCH, Journal
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


def test_who_needs_a_database_that_fails_is_told_and_nobody_changes_the_state_meanwhile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cosco.metadata.service.journal, "TELL_S", 0.02)
    monkeypatch.setattr(cosco.metadata.service.journal, "_LAST_RETRY_S", 0.01)

    async def run() -> None:
        state, disk = new_state(), Disk()
        disk.failures = 10**6
        disk.permits = asyncio.Semaphore(10**6)
        journal = Journal(state, disk.write, path="/there/metadata.db")
        async with running(journal):
            await journal.usable()
            change(state, 1)
            with pytest.raises(ServiceUnavailable, match=r"/there/metadata.db \(disk full\)"):
                await journal.durable_or_told()
            with pytest.raises(ServiceUnavailable, match="disk full") as told:
                await journal.usable()
            assert told.value.retriable
            for_ever = asyncio.create_task(journal.durable())
            monkeypatch.setattr(cosco.metadata.service.journal, "TELL_S", 60.0)
            waiting = [asyncio.create_task(journal.usable()) for _ in range(3)]
            await settle()
            assert not for_ever.done()
            assert not any(task.done() for task in waiting)
            disk.failures = 0
            await asyncio.gather(for_ever, *waiting)
            await journal.usable()
            change(state, 2)
            await journal.durable_or_told()
        assert [len(batch) for batch in disk.batches] == [1, 1]

    asyncio.run(run())


def test_a_write_that_hangs_is_told_like_one_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cosco.metadata.service.journal, "TELL_S", 0.02)

    async def run() -> None:
        state, disk = new_state(), Disk()
        now = [0.0]
        journal = Journal(state, disk.write, lambda: now[0])
        async with running(journal):
            change(state, 1)
            call = asyncio.create_task(journal.durable_or_told())
            await disk.begun.wait()
            now[0] = HANGS_S - 0.1
            await journal.usable()  # it is slow, no more
            now[0] = HANGS_S
            with pytest.raises(ServiceUnavailable, match="a write has not ended for 5 s"):
                await journal.usable()
            with pytest.raises(ServiceUnavailable, match="not ended"):
                await call
            disk.permits.release()
            await journal.durable_or_told()
            await journal.usable()

    asyncio.run(run())


def test_how_long_nobody_was_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cosco.metadata.service.journal, "_FIRST_RETRY_S", 0.0)

    async def run() -> None:
        state, disk = new_state(), Disk()
        now = [0.0]
        journal = Journal(state, disk.write, lambda: now[0])
        async with running(journal):
            assert journal.pop_stall_s() == 0
            for incarnation, took_s in ((1, 0.7), (2, 0.2)):
                change(state, incarnation)
                written = asyncio.create_task(journal.durable())
                disk.begun.clear()
                await disk.begun.wait()
                now[0] += took_s
                disk.permits.release()
                await written
            assert journal.pop_stall_s() == pytest.approx(0.7)
            assert journal.pop_stall_s() == 0
            disk.failures = 1  # calls were refused, however short it was
            disk.permits.release()
            disk.permits.release()
            change(state, 3)
            await journal.durable()
            assert journal.pop_stall_s() == math.inf

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
