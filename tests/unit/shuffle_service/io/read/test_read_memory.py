"""Memory of reads: shares, turns, and what is taken back from readers that stall."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from cosco.shuffle_service.io.read import read_memory
from cosco.shuffle_service.io.read.read_memory import (
    PIECE_MAX_BYTES,
    PIECE_MIN_BYTES,
    PieceMemory,
    ReadMemory,
    read_arena_bytes,
)
from cosco.shuffle_service.state.buffers.pool import MIN_PAGE_BYTES

MIB = 1 << 20
Scenario = Callable[[ReadMemory], Coroutine[Any, Any, None]]


def run(scenario: Scenario, arena_bytes: int = 4 * MIB) -> None:
    async def main() -> None:
        memory = ReadMemory(memoryview(bytearray(arena_bytes)))
        await scenario(memory)
        assert memory.used_bytes == 0

    asyncio.run(main())


async def filled(memory: ReadMemory, length: int) -> PieceMemory:
    borrowed = await memory.borrow(length)
    memory.filled(borrowed)
    return borrowed


@pytest.mark.parametrize(
    ("memory_bytes", "arena_bytes"),
    [(16 * MIB, 4 * MIB), (100 * MIB, 12 * MIB), (256 * MIB, 32 * MIB), (64 << 30, 32 * MIB)],
)
def test_the_arena_follows_the_memory(memory_bytes: int, arena_bytes: int) -> None:
    assert read_arena_bytes(memory_bytes) == arena_bytes


def test_pieces_shrink_with_the_number_of_readers_down_to_a_limit() -> None:
    async def scenario(memory: ReadMemory) -> None:
        sizes = []
        for memory.readers in (0, 1, 2, 3, 16, 1000):
            sizes.append(memory.piece_bytes())
        assert sizes[:3] == [PIECE_MAX_BYTES] * 3
        assert PIECE_MIN_BYTES <= sizes[3] < PIECE_MAX_BYTES
        assert sizes[3] % MIN_PAGE_BYTES == 0
        assert sizes[4:] == [PIECE_MIN_BYTES] * 2

    run(scenario, 32 * MIB)


def test_a_piece_has_parts_over_its_pages() -> None:
    async def scenario(memory: ReadMemory) -> None:
        borrowed = await filled(memory, MIB + 1)
        assert sum(map(len, borrowed.views)) == MIB + MIN_PAGE_BYTES
        data = bytes(n % 251 for n in range(MIB + MIN_PAGE_BYTES))
        at = 0
        for view in borrowed.views:
            view[:] = data[at : at + len(view)]
            at += len(view)
        for start, end in ((0, 1), (5, 400_000), (256 << 10, 512 << 10), (1000, MIB + 1), (9, 9)):
            assert b"".join(borrowed.part(start, end)) == data[start:end]
        memory.give_back(borrowed)
        memory.give_back(borrowed)
        assert borrowed.is_gone

    run(scenario)


def test_nobody_reads_ahead_of_those_who_wait() -> None:
    async def scenario(memory: ReadMemory) -> None:
        first = await memory.borrow(3 * MIB)  # being filled: it is not taken back
        waiting = asyncio.create_task(memory.borrow(2 * MIB))
        behind = asyncio.create_task(memory.borrow(MIB))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert memory.borrow_ahead(MIN_PAGE_BYTES) is None
        assert not waiting.done() and not behind.done()
        memory.give_back(first)
        for borrowed in await asyncio.gather(waiting, behind):
            memory.give_back(borrowed)
        ahead = memory.borrow_ahead(MIB)
        assert ahead is not None
        assert memory.borrow_ahead(4 * MIB) is None
        memory.give_back(ahead)

    run(scenario)


def test_a_wait_that_is_cancelled_lets_the_next_one_go() -> None:
    async def scenario(memory: ReadMemory) -> None:
        first = await memory.borrow(3 * MIB)
        waiting = asyncio.create_task(memory.borrow(4 * MIB))
        behind = asyncio.create_task(memory.borrow(MIB))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        waiting.cancel()
        memory.give_back(await behind)
        memory.give_back(first)
        assert waiting.cancelled()

    run(scenario)


def test_what_stalls_is_taken_back_for_those_who_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read_memory, "STALLED_AFTER_S", 0.05)

    async def scenario(memory: ReadMemory) -> None:
        stalled = await filled(memory, 2 * MIB)
        filling = await memory.borrow(MIB)
        borrowed = await memory.borrow(3 * MIB)
        assert stalled.is_gone and not filling.is_gone
        assert stalled.part(0, 1) == []
        memory.give_back(stalled)
        memory.give_back(filling)
        memory.give_back(borrowed)

    run(scenario)


def test_what_is_used_is_not_taken_back(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0

    async def scenario(memory: ReadMemory) -> None:
        nonlocal now
        monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: now)
        used = await filled(memory, 4 * MIB)
        waiting = asyncio.create_task(memory.borrow(MIB))
        for _ in range(15):
            now += 0.8 * read_memory.STALLED_AFTER_S
            memory.touch(used)
            for _ in range(5):  # who waits looks again
                await asyncio.sleep(0)
        assert not waiting.done() and not used.is_gone
        now += read_memory.STALLED_AFTER_S
        memory.give_back(await waiting)
        assert used.is_gone

    run(scenario)
