"""Threads that may hang: what waits for them, what does not, and how they are left behind."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading

import pytest

from cosco.dfs.store_threads import StoreThreads


def test_as_many_calls_run_at_a_time_as_there_are_threads() -> None:
    async def main() -> None:
        threads, both = StoreThreads(2), threading.Barrier(2)
        found = await asyncio.gather(*(threads.run(lambda: both.wait(10)) for _ in range(4)))
        assert sorted(found) == [0, 0, 1, 1]
        await threads.close()

    asyncio.run(main())


def test_a_thread_that_hangs_is_not_counted_on() -> None:
    """Nor is one that nobody waits for any more."""

    async def main() -> None:
        threads, go = StoreThreads(2), threading.Event()
        given_up = threads.run(go.wait)
        given_up.cancel()
        assert await asyncio.wait_for(threads.run(lambda: 7), 10) == 7
        go.set()
        await threads.close()

    asyncio.run(main())


def test_what_was_cancelled_before_its_turn_is_not_run() -> None:
    async def main() -> None:
        threads, go, ran = StoreThreads(1), threading.Event(), []
        first = threads.run(go.wait)
        second = threads.run(lambda: ran.append(2))
        second.cancel()
        await asyncio.sleep(0)  # a turn of the loop carries it to where threads look
        go.set()
        await first
        await threads.run(lambda: ran.append(3))
        assert ran == [3]
        await threads.close()

    asyncio.run(main())


def test_errors_are_passed_on_and_the_thread_goes_on() -> None:
    async def main() -> None:
        threads = StoreThreads(1)
        with pytest.raises(ZeroDivisionError):
            await threads.run(lambda: 1 // 0)
        assert await threads.run(lambda: 1) == 1
        await threads.close()
        await threads.close()
        with pytest.raises(RuntimeError, match="closed"):
            threads.run(lambda: 1)

    asyncio.run(main())


def test_who_is_cancelled_waits_for_a_call_that_uses_its_memory() -> None:
    async def main() -> None:
        threads, go = StoreThreads(1), threading.Event()
        waiting = asyncio.ensure_future(threads.to_the_end(threads.run(go.wait)))
        for _ in range(3):
            await asyncio.sleep(0)
            waiting.cancel()
        await asyncio.sleep(0.01)
        assert not waiting.done()
        go.set()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await threads.close()

    asyncio.run(main())


def test_closing_waits_unless_it_is_cancelled() -> None:
    async def main() -> None:
        threads, go = StoreThreads(1), threading.Event()
        waiting = asyncio.ensure_future(threads.to_the_end(threads.run(go.wait)))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(threads.close(), 0.05)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting  # though its thread hangs still
        go.set()

    asyncio.run(main())


def test_a_process_ends_whose_threads_hang() -> None:
    code = """
import asyncio, threading
from cosco.dfs.store_threads import StoreThreads

async def main():
    threads = StoreThreads(1)
    task = asyncio.ensure_future(threads.to_the_end(threads.run(threading.Event().wait)))
    try:
        await asyncio.wait_for(threads.close(), 0.05)
    except TimeoutError:
        print("left")

asyncio.run(main())
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert (done.stdout, done.stderr) == ("left\n", "")
