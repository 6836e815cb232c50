"""Frames that wait for pages: first come, first served, nobody forgotten."""

from __future__ import annotations

import asyncio

import pytest

from cosco.shuffle_service.io.page_waiters import PageWaiters


class Pages:
    """So many pages are free; taking more than there are fails."""

    def __init__(self, free: int) -> None:
        self.free = free
        self.taken: list[str] = []

    def attempt(self, who: str, need: int):
        def take() -> bool:
            if need > self.free:
                return False
            self.free -= need
            self.taken.append(who)
            return True

        return take


def no_reason() -> None:
    """Nothing speaks against waiting."""


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


def test_a_small_frame_does_not_overtake_a_large_one():
    async def main() -> None:
        pages, waiters = Pages(1), PageWaiters()
        tasks = []
        for who, need in (("large", 3), ("small", 1), ("other", 2)):
            wait = waiters.take_turns(need, pages.attempt(who, need), no_reason)
            tasks.append(asyncio.create_task(wait))
            await settle()
        assert pages.taken == []
        assert waiters.waiting_bytes == 6
        pages.free += 3
        waiters.wake()
        await settle()
        assert pages.taken == ["large", "small"]
        pages.free += 2
        waiters.wake()
        await asyncio.gather(*tasks)
        assert pages.taken == ["large", "small", "other"]
        assert waiters.waiting_bytes == 0

    asyncio.run(main())


def test_one_that_gives_up_or_is_cancelled_lets_the_next_go():
    async def main() -> None:
        pages, waiters = Pages(0), PageWaiters()
        hopeless = False

        def give_up() -> None:
            if hopeless:
                raise TimeoutError("store")

        first = asyncio.create_task(waiters.take_turns(9, pages.attempt("1", 9), give_up))
        await settle()
        second = asyncio.create_task(waiters.take_turns(9, pages.attempt("2", 9), no_reason))
        await settle()
        third = asyncio.create_task(waiters.take_turns(1, pages.attempt("3", 1), no_reason))
        await settle()
        second.cancel()
        pages.free, hopeless = 1, True
        waiters.wake()
        with pytest.raises(TimeoutError):
            await first
        await third
        assert pages.taken == ["3"]
        assert waiters.waiting_bytes == 0

    asyncio.run(main())


def test_what_was_attempted_in_part_keeps_its_turn():
    async def main() -> None:
        waiters, steps = PageWaiters(), []

        def three_steps() -> bool:
            steps.append(len(steps))
            return len(steps) == 3

        task = asyncio.create_task(waiters.take_turns(1, three_steps, no_reason))
        for _ in range(3):
            await settle()
            waiters.wake()
        await task
        assert steps == [0, 1, 2]

    asyncio.run(main())
