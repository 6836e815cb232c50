"""The reader of one file: large reads, the next one ahead, and what goes wrong."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import pytest

from cosco.dfs import MemoryStore
from cosco.errors import DataCorrupted
from cosco.shuffle_service.io.read.read_memory import ReadMemory
from cosco.shuffle_service.io.read.store_reader import StoreReader

MIB = 1 << 20
DATA = random.Random(1).randbytes(9 * MIB + 12_345)
END = len(DATA)


class Recorder(MemoryStore):
    """Notes reads; `fail`: offsets at which the next read fails."""

    def __init__(self) -> None:
        super().__init__()
        self._files["f"] = bytearray(DATA)
        self.reads: list[tuple[int, int]] = []
        self.fail: set[int] = set()

    async def read_into(self, path: str, offset: int, parts: Sequence[memoryview]) -> int:
        self.reads.append((offset, sum(map(len, parts))))
        await asyncio.sleep(0)
        if offset in self.fail:
            self.fail.remove(offset)
            raise OSError(5, "Input/output error")
        return await super().read_into(path, offset, parts)

    def cut(self, length: int) -> None:
        del self._files["f"][length:]


Scenario = Callable[[Recorder, ReadMemory, StoreReader], Coroutine[Any, Any, None]]


def run(scenario: Scenario) -> None:
    async def main() -> None:
        store, memory = Recorder(), ReadMemory(memoryview(bytearray(4 * MIB)))
        reader = StoreReader(store, memory, "f")
        try:
            await scenario(store, memory, reader)
        finally:
            reader.close()
        await steps()  # the read ahead has to end
        assert memory.used_bytes == 0
        assert memory.readers == 0

    asyncio.run(main())


async def steps() -> None:
    """Let what can go on without waiting."""
    for _ in range(10):
        await asyncio.sleep(0)


async def read(reader: StoreReader, start: int, end: int, step: int = 300_000) -> bytes:
    found = b""
    while start + len(found) < end:
        position = start + len(found)
        found += b"".join(await reader.at(position, min(step, end - position), end, end))
    return found


@pytest.mark.parametrize("start", [0, 64, 4096, 5_000_001])
@pytest.mark.parametrize("end", [5_000_100, END])
def test_a_file_is_read_in_large_aligned_pieces(start: int, end: int) -> None:
    async def scenario(store: Recorder, memory: ReadMemory, reader: StoreReader) -> None:
        assert await read(reader, start, end) == DATA[start:end]
        at = start - start % 4096
        for offset, length in store.reads:
            assert offset == at
            assert length == 2 * MIB or at + length >= end
            at += length
        assert at - end < 4096

    run(scenario)


def test_the_next_piece_is_read_while_one_is_used() -> None:
    async def scenario(store: Recorder, memory: ReadMemory, reader: StoreReader) -> None:
        await reader.at(0, 10, END, END)
        await asyncio.sleep(0)
        assert store.reads == [(0, 2 * MIB), (2 * MIB, 2 * MIB)]
        assert memory.used_bytes == 4 * MIB
        await reader.at(1, 10, END, END)
        assert len(store.reads) == 2  # and no more than that

    run(scenario)


def test_one_may_skip_and_go_back() -> None:
    async def scenario(store: Recorder, memory: ReadMemory, reader: StoreReader) -> None:
        for position in (7 * MIB, 10, 3 * MIB, 3 * MIB + 5, MIB):
            (part, *_) = await reader.at(position, 100, END, END)
            assert bytes(part) == DATA[position : position + 100]

    run(scenario)


def test_a_failed_read_ahead_is_made_again() -> None:
    async def scenario(store: Recorder, memory: ReadMemory, reader: StoreReader) -> None:
        store.fail = {2 * MIB}
        assert await read(reader, 0, END) == DATA
        assert [offset for offset, _ in store.reads].count(2 * MIB) == 2
        store.fail = {0}
        with pytest.raises(OSError, match="Input/output"):
            await reader.at(0, 1, END, END)
        assert await read(reader, 0, END) == DATA

    run(scenario)


def test_a_file_that_ends_too_soon_gives_what_is_whole() -> None:
    async def scenario(store: Recorder, memory: ReadMemory, reader: StoreReader) -> None:
        store.cut(MIB)
        (part, *_) = await reader.at(0, 100, MIB, END)  # all that is needed of it is there
        assert bytes(part) == DATA[:100]
        for position in (0, MIB - 1, MIB, 5 * MIB):
            with pytest.raises(DataCorrupted, match="cut short"):
                await reader.at(position, 100, END, END)

    run(scenario)


def test_a_piece_that_was_taken_back_is_read_again() -> None:
    async def scenario(store: Recorder, memory: ReadMemory, reader: StoreReader) -> None:
        async def take_everything_back() -> None:
            await steps()
            for borrowed in list(memory._lent):
                assert not borrowed.is_filling
                memory.give_back(borrowed)

        found = b""
        while len(found) < END:
            found += b"".join(await reader.at(len(found), MIB, END, END))
            await take_everything_back()
        assert found == DATA

    run(scenario)


def test_closing_gives_memory_back_when_the_read_has_ended() -> None:
    async def scenario(store: Recorder, memory: ReadMemory, reader: StoreReader) -> None:
        other = StoreReader(store, memory, "f")
        await other.at(0, 1, END, END)
        other.close()
        assert memory.used_bytes > 0  # a thread may still write to it
        await steps()
        assert memory.used_bytes == 0

    run(scenario)


def test_a_reader_that_is_cancelled_holds_nothing() -> None:
    async def scenario(store: Recorder, memory: ReadMemory, reader: StoreReader) -> None:
        task = asyncio.create_task(reader.at(0, 1, END, END))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait({task})
        assert task.cancelled()
        assert memory.used_bytes == 0

    run(scenario)


class Hanging(Recorder):
    """Reads end when `go` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.go = asyncio.Event()

    async def read_into(self, path: str, offset: int, parts: Sequence[memoryview]) -> int:
        await self.go.wait()
        return await super().read_into(path, offset, parts)


@pytest.mark.parametrize("begun", [False, True])
def test_a_read_that_hangs_is_given_up_and_keeps_its_memory_until_it_has_ended(
    begun: bool,
) -> None:
    async def main() -> None:
        store, memory = Hanging(), ReadMemory(memoryview(bytearray(4 * MIB)))
        reader = StoreReader(store, memory, "f", 0.05)
        position = 0
        if begun:  # then it is the piece ahead that hangs
            store.go.set()
            await reader.at(0, 1, END, END)
            store.go.clear()
            position = 2 * MIB
        with pytest.raises(TimeoutError, match=r"the store, asked for f, has not answered"):
            await reader.at(position, 1, END, END)
        reader.close()
        assert memory.used_bytes == 2 * MIB
        store.go.set()
        await steps()
        assert memory.used_bytes == 0

    asyncio.run(main())


def test_who_waits_for_memory_that_hanging_reads_have_gives_up() -> None:
    async def main() -> None:
        store, memory = Hanging(), ReadMemory(memoryview(bytearray(4 * MIB)))
        readers = [StoreReader(store, memory, "f", 0.05) for _ in range(6)]
        found = await asyncio.gather(
            *(reader.at(0, 1, END, END) for reader in readers), return_exceptions=True
        )
        assert [type(one) for one in found] == [TimeoutError] * 6
        for reader in readers:
            reader.close()
        store.go.set()
        await steps()
        assert memory.used_bytes == 0

    asyncio.run(main())
