"""Who looks at many partitions does so in a thread, and few at a time have copies."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

import numpy as np
import pytest

from cosco.metadata.http.size_turns import FEW, MAX_AT_ONCE, SizeTurns
from cosco.protocol.records import U64

MANY = FEW + 1
BOUND_S = 20.0


class Sizes:
    """Sizes that count how often they are taken."""

    def __init__(self, partitions: int) -> None:
        self.array: U64 = np.zeros(partitions, dtype=np.uint64)
        self.taken = 0

    def now(self) -> tuple[int, tuple[U64, ...]]:
        self.taken += 1
        return self.taken, (self.array,)


def test_few_are_looked_at_at_once_as_they_are() -> None:
    sizes = Sizes(FEW)

    def look(array: U64) -> bool:
        return array is sizes.array and threading.current_thread() is threading.main_thread()

    assert asyncio.run(SizeTurns().look(FEW, sizes.now, look)) == (1, True)


def test_of_many_few_copies_are_there_at_a_time() -> None:
    sizes, may_go_on, lock = Sizes(MANY), threading.Event(), threading.Lock()
    under_way, most = 0, 0

    async def main() -> None:
        loop, begun = asyncio.get_running_loop(), asyncio.Semaphore(0)

        def look(array: U64) -> int:
            nonlocal under_way, most
            assert threading.current_thread() is not threading.main_thread()
            assert not np.shares_memory(array, sizes.array)
            with lock:
                under_way += 1
                most = max(most, under_way)
            loop.call_soon_threadsafe(begun.release)
            assert may_go_on.wait(BOUND_S)
            with lock:
                under_way -= 1
            return int(array[0])

        turns = SizeTurns()
        asked = [asyncio.create_task(turns.look(MANY, sizes.now, look)) for _ in range(10)]
        async with asyncio.timeout(BOUND_S):
            for _ in range(MAX_AT_ONCE):
                await begun.acquire()
            for _ in range(100):  # the others have come as far as they can
                await asyncio.sleep(0)
            assert sizes.taken == MAX_AT_ONCE, "who waits has no copy"
            sizes.array[0] = 7
            may_go_on.set()
            found = await asyncio.gather(*asked)
        assert [value for _, value in found] == [0] * MAX_AT_ONCE + [7] * (10 - MAX_AT_ONCE)

    asyncio.run(main())
    assert most == MAX_AT_ONCE


@pytest.mark.parametrize("fails", ["now", "look"])
def test_who_fails_leaves_his_turn(fails: str) -> None:
    def failing(*_: object) -> None:
        raise ValueError(fails)

    async def main() -> None:
        turns, sizes = SizeTurns(), Sizes(MANY)
        now: Callable[[], tuple[int, tuple[U64, ...]]] = sizes.now
        for _ in range(MAX_AT_ONCE + 1):
            with pytest.raises(ValueError, match=fails):
                if fails == "now":
                    await turns.look(MANY, failing, len)  # type: ignore[arg-type]
                else:
                    await turns.look(MANY, now, failing)
        async with asyncio.timeout(BOUND_S):
            assert (await turns.look(MANY, now, len))[1] == MANY

    asyncio.run(main())
