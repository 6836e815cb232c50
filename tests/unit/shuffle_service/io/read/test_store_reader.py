"""The reader of extents: large reads, the next one ahead, and what goes wrong."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cosco.dfs import MemoryStore
from cosco.errors import DataCorrupted
from cosco.format.chunk import padded
from cosco.shuffle_service.io.read.read_memory import ReadMemory
from cosco.shuffle_service.io.read.store_reader import Extent, StoreReader

MIB = 1 << 20
DATA = random.Random(1).randbytes(9 * MIB + 12_345)
END = len(DATA)


def whole() -> Extent:
    """All of the file, as if it were one chunk."""
    return Extent("f", 0, END)


class Recorder(MemoryStore):
    """Notes reads; `fail`: offsets at which the next read fails."""

    def __init__(self) -> None:
        super().__init__()
        self._files["f"] = DATA
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
        self._files["f"] = DATA[:length]


Scenario = Callable[[Recorder, ReadMemory, StoreReader], Coroutine[Any, Any, None]]


def run(scenario: Scenario, length: int = END) -> None:
    async def main() -> None:
        store, memory = Recorder(), ReadMemory(memoryview(bytearray(4 * MIB)))
        reader = StoreReader(store, memory, [Extent("f", 0, length)])
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
        found += b"".join(await reader.at(0, position, min(step, end - position)))
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

    run(scenario, end)


def test_a_piece_ends_with_an_extent_and_cuts_only_what_is_longer_than_a_piece() -> None:
    lengths = [900_000, 900_000, 900_000, 5 * MIB, 40_000]
    starts = [4096 + 2 * n * MIB for n in range(3)] + [0, 6 * MIB]
    extents = [Extent("f", at, length) for at, length in zip(starts, lengths, strict=True)]

    async def main() -> None:
        store, memory = Recorder(), ReadMemory(memoryview(bytearray(4 * MIB)))
        reader = StoreReader(store, memory, extents)
        for index, extent in enumerate(extents):
            found = b""
            while len(found) < extent.length:
                found += b"".join(await reader.at(index, len(found), extent.length))
            assert found == DATA[extent.offset : extent.offset + extent.length]
        reader.close()
        assert store.reads[:3] == [(at, padded(900_000)) for at in starts[:3]]
        assert store.reads[3:] == [
            *[(at * MIB, 2 * MIB) for at in (0, 2)],
            (4 * MIB, MIB),
            (6 * MIB, padded(40_000)),
        ]

    asyncio.run(main())


@pytest.mark.parametrize(
    ("mib", "reads_mib"),
    [
        (9, [9]),  # 8 and a rest
        (12, [12]),
        (13, [8, 5]),
        (20, [8, 12]),
    ],
)
def test_a_small_rest_of_an_extent_is_read_with_its_last_piece(
    mib: int, reads_mib: list[int]
) -> None:
    async def main() -> None:
        store, memory = Recorder(), ReadMemory(memoryview(bytearray(32 * MIB)))
        store._files["f"] = bytes(mib * MIB)
        reader = StoreReader(store, memory, [Extent("f", 0, mib * MIB)])
        for position in range(0, mib * MIB, MIB):
            await reader.at(0, position, MIB)
            await steps()
        reader.close()
        assert [length for _, length in store.reads] == [n * MIB for n in reads_mib]

    asyncio.run(main())


def test_the_next_piece_is_read_while_one_is_used() -> None:
    async def scenario(store: Recorder, memory: ReadMemory, reader: StoreReader) -> None:
        await reader.at(0, 0, 10)
        await asyncio.sleep(0)
        assert store.reads == [(0, 2 * MIB), (2 * MIB, 2 * MIB)]
        assert memory.used_bytes == 4 * MIB
        await reader.at(0, 1, 10)
        assert len(store.reads) == 2  # and no more than that

    run(scenario)


def test_one_may_skip_and_go_back() -> None:
    async def scenario(store: Recorder, memory: ReadMemory, reader: StoreReader) -> None:
        for position in (7 * MIB, 10, 3 * MIB, 3 * MIB + 5, MIB):
            (part, *_) = await reader.at(0, position, 100)
            assert bytes(part) == DATA[position : position + 100]

    run(scenario)


def test_a_failed_read_ahead_is_made_again() -> None:
    async def scenario(store: Recorder, memory: ReadMemory, reader: StoreReader) -> None:
        store.fail = {2 * MIB}
        assert await read(reader, 0, END) == DATA
        assert [offset for offset, _ in store.reads].count(2 * MIB) == 2

    run(scenario)


def test_what_fails_when_it_is_asked_for_is_told_at_once_and_may_be_well_later() -> None:
    async def scenario(store: Recorder, memory: ReadMemory, reader: StoreReader) -> None:
        store.fail = {0}
        for _ in range(2):  # it is not asked for again and again
            with pytest.raises(OSError, match="Input/output"):
                await reader.at(0, 0, 1)
        assert [offset for offset, _ in store.reads].count(0) == 1
        assert await read(reader, 3 * MIB, END) == DATA[3 * MIB :]
        assert await read(reader, 0, END) == DATA

    run(scenario)


def test_a_file_that_ends_too_soon_gives_the_pieces_that_are_whole() -> None:
    async def scenario(store: Recorder, memory: ReadMemory, reader: StoreReader) -> None:
        store.cut(3 * MIB)
        assert await read(reader, 0, 2 * MIB) == DATA[: 2 * MIB]
        for position in (2 * MIB, 3 * MIB - 1, 3 * MIB, 5 * MIB):
            with pytest.raises(DataCorrupted, match="cut short"):
                await reader.at(0, position, 100)

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
            found += b"".join(await reader.at(0, len(found), MIB))
            await take_everything_back()
        assert found == DATA

    run(scenario)


def test_closing_gives_memory_back_when_the_read_has_ended() -> None:
    async def scenario(store: Recorder, memory: ReadMemory, reader: StoreReader) -> None:
        other = StoreReader(store, memory, [whole()])
        await other.at(0, 0, 1)
        other.close()
        assert memory.used_bytes > 0  # a thread may still write to it
        await steps()
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
        reader = StoreReader(store, memory, [whole()], 0.05)
        position = 0
        if begun:  # then it is the piece ahead that hangs
            store.go.set()
            await reader.at(0, 0, 1)
            store.go.clear()
            position = 2 * MIB
        with pytest.raises(TimeoutError, match=r"the store, asked for f, has not answered"):
            await reader.at(0, position, 1)
        reader.close()
        assert memory.used_bytes == 2 * MIB
        store.go.set()
        await steps()
        assert memory.used_bytes == 0

    asyncio.run(main())


def test_who_waits_for_memory_that_hanging_reads_have_gives_up() -> None:
    async def main() -> None:
        store, memory = Hanging(), ReadMemory(memoryview(bytearray(4 * MIB)))
        readers = [StoreReader(store, memory, [whole()], 0.05) for _ in range(6)]
        found = await asyncio.gather(
            *(reader.at(0, 0, 1) for reader in readers), return_exceptions=True
        )
        assert [type(one) for one in found] == [TimeoutError] * 6
        for reader in readers:
            reader.close()
        store.go.set()
        await steps()
        assert memory.used_bytes == 0

    asyncio.run(main())


@pytest.mark.parametrize("how", ["asked for", "ahead"])
def test_reads_that_are_cancelled_give_their_memory_back_when_they_have_ended(how: str) -> None:
    async def main() -> None:
        store, memory = Hanging(), ReadMemory(memoryview(bytearray(4 * MIB)))
        reader = StoreReader(store, memory, [whole()])
        if how == "ahead":
            store.go.set()
            await reader.at(0, 0, 1)
            store.go.clear()
        task = asyncio.create_task(reader.at(0, 2 * MIB, 1))
        await steps()
        assert not task.done()
        task.cancel()
        await asyncio.wait({task})
        assert task.cancelled()
        reader.close()
        assert memory.used_bytes == 2 * MIB  # a thread may still write to it
        store.go.set()
        await steps()
        assert (memory.used_bytes, memory.readers) == (0, 0)

    asyncio.run(main())


# --- several extents ----------------------------------------------------------------------


class Segments(MemoryStore):
    """Files of a page each, and a large one; counts the reads that are under way at once.

    `gates`: paths whose reads wait. `errors`: what reads of a path raise, then.
    """

    def __init__(self) -> None:
        super().__init__()
        self._files = {f"s{n}": bytes([n % 251]) * 4096 for n in range(100)} | {"f": DATA}
        self.gates: dict[str, asyncio.Event] = {}
        self.errors: dict[str, Exception] = {}
        self.under_way: list[str] = []
        self.most = 0
        self.reads: list[tuple[str, int, int]] = []

    async def read_into(self, path: str, offset: int, parts: Sequence[memoryview]) -> int:
        self.reads.append((path, offset, sum(map(len, parts))))
        self.under_way.append(path)
        self.most = max(self.most, len(self.under_way))
        try:
            await asyncio.sleep(0)
            if (gate := self.gates.get(path)) is not None:
                await gate.wait()
            if (error := self.errors.get(path)) is not None:
                raise error
            return await super().read_into(path, offset, parts)
        finally:
            self.under_way.remove(path)

    def content(self, extent: Extent) -> bytes:
        return self._files[extent.path][extent.offset : extent.offset + extent.length]


Several = Callable[[Segments, ReadMemory, StoreReader], Coroutine[Any, Any, None]]


def run_several(extents: Sequence[Extent], scenario: Several) -> None:
    async def main() -> None:
        store, memory = Segments(), ReadMemory(memoryview(bytearray(4 * MIB)))
        reader = StoreReader(store, memory, extents)
        try:
            await scenario(store, memory, reader)
        finally:
            reader.close()
        await steps()
        assert (memory.used_bytes, memory.readers) == (0, 0)

    asyncio.run(main())


def pages(count: int) -> list[Extent]:
    """The first 100 bytes of some files of a page."""
    return [Extent(f"s{n}", 0, 100) for n in range(count)]


async def all_of(reader: StoreReader, index: int) -> bytes:
    found = b""
    length = reader.extents[index].length
    while len(found) < length:
        found += b"".join(await reader.at(index, len(found), length - len(found)))
    return found


def test_extents_of_a_piece_are_asked_for_at_once() -> None:
    """A store that is far away is waited for once for all of them."""

    async def scenario(store: Segments, memory: ReadMemory, reader: StoreReader) -> None:
        gate = asyncio.Event()
        store.gates = {f"s{n}": gate for n in range(20)}
        asked = asyncio.create_task(reader.at(0, 0, 100))
        await steps()
        assert sorted(store.under_way) == sorted(f"s{n}" for n in range(20))
        gate.set()
        await asked
        for index, extent in enumerate(reader.extents):
            assert reader.has(index, 0)
            assert await all_of(reader, index) == store.content(extent)
        assert len(store.reads) == 20

    run_several(pages(20), scenario)


def test_no_more_than_some_are_asked_for_at_once_and_the_next_are_read_ahead() -> None:
    async def scenario(store: Segments, memory: ReadMemory, reader: StoreReader) -> None:
        assert await all_of(reader, 0) == store.content(reader.extents[0])
        await steps()
        assert len(store.reads) == 64  # two pieces, and no more than that
        for index, extent in enumerate(reader.extents):
            assert await all_of(reader, index) == store.content(extent)
            await steps()
        assert store.most == 32
        assert len(store.reads) == 100

    run_several(pages(100), scenario)


def test_one_that_fails_leaves_the_others() -> None:
    async def scenario(store: Segments, memory: ReadMemory, reader: StoreReader) -> None:
        store.errors["s2"] = OSError(5, "Input/output error")
        del store._files["s5"]
        store._files["s7"] = store._files["s7"][:99]
        for index, extent in enumerate(reader.extents):
            expected = {2: "Input/output", 5: "no such file", 7: "cut short"}.get(index)
            if expected is None:
                assert await all_of(reader, index) == store.content(extent)
            else:
                with pytest.raises((OSError, DataCorrupted), match=expected):
                    await reader.at(index, 0, 100)
        assert len(store.reads) == 10

    run_several(pages(10), scenario)


def test_one_that_fails_ahead_leaves_the_others_and_is_asked_for_again() -> None:
    async def scenario(store: Segments, memory: ReadMemory, reader: StoreReader) -> None:
        store.errors["s40"] = OSError(5, "Input/output error")
        await all_of(reader, 0)
        await steps()
        assert ("s40", 0, 4096) in store.reads
        store.errors.clear()
        for index, extent in enumerate(reader.extents):
            assert await all_of(reader, index) == store.content(extent)

    run_several(pages(50), scenario)


def test_what_is_cut_behind_an_extent_is_not_missed() -> None:
    """A torn segment: the padding of its last whole chunk may be all that is gone."""

    async def scenario(store: Segments, memory: ReadMemory, reader: StoreReader) -> None:
        store._files["s0"] = store._files["s0"][:100]
        assert await all_of(reader, 0) == store.content(reader.extents[0])

    run_several(pages(1), scenario)


def test_an_error_that_nobody_expects_frees_no_memory_that_others_still_read_into() -> None:
    async def scenario(store: Segments, memory: ReadMemory, reader: StoreReader) -> None:
        store.errors["s0"] = RuntimeError("a bug")
        gate = store.gates["s1"] = asyncio.Event()
        asked = asyncio.create_task(reader.at(0, 0, 100))
        await steps()
        assert store.under_way == ["s1"]
        assert memory.used_bytes > 0
        assert not asked.done()
        gate.set()
        with pytest.raises(RuntimeError, match="a bug"):
            await asked
        assert await all_of(reader, 1) == store.content(reader.extents[1])

    run_several(pages(2), scenario)


@pytest.mark.parametrize("how", ["cancelled", "closed"])
def test_one_read_of_several_that_hangs_keeps_the_memory_of_all(how: str) -> None:
    async def main() -> None:
        store, memory = Segments(), ReadMemory(memoryview(bytearray(4 * MIB)))
        reader = StoreReader(store, memory, pages(40))
        hung = "s3" if how == "cancelled" else "s35"  # the latter is read ahead
        gate = store.gates[hung] = asyncio.Event()
        if how == "cancelled":
            asked = asyncio.create_task(reader.at(0, 0, 1))
            await steps()
            asked.cancel()
            await asyncio.wait({asked})
        else:
            await reader.at(0, 0, 1)
            await steps()
        reader.close()
        assert store.under_way == [hung]
        assert memory.used_bytes > 0
        gate.set()
        await steps()
        assert (memory.used_bytes, memory.readers) == (0, 0)

    asyncio.run(main())


@st.composite
def extents_of_all_sizes(draw: st.DrawFn) -> list[Extent]:
    found = []
    for _ in range(draw(st.integers(1, 50))):
        if draw(st.booleans()):
            found += [Extent(f"s{draw(st.integers(0, 99))}", 0, draw(st.integers(65, 4096)))]
            continue
        offset = 4096 * draw(st.integers(0, END // 4096 - 1))
        length = draw(st.sampled_from([100, 5000, 300_000, 1 << 20, END]))
        found += [Extent("f", offset, min(length, END - offset))]
    return found


@settings(max_examples=40, deadline=None)
@given(extents_of_all_sizes(), st.integers(1, 8), st.data())
def test_whatever_is_asked_for_is_what_is_in_the_files(
    extents: list[Extent], readers: int, data: st.DataObject
) -> None:
    """In order, as chunks are sent, and from places that are jumped to."""

    async def scenario(store: Segments, memory: ReadMemory, reader: StoreReader) -> None:
        memory.readers += readers - 1  # pieces are smaller then
        for index, extent in enumerate(extents):
            assert await all_of(reader, index) == store.content(extent)
        read = sum(length for *_, length in store.reads)
        assert read == sum(padded(extent.length) for extent in extents)  # each once
        for _ in range(5):
            index = data.draw(st.integers(0, len(extents) - 1))
            position = data.draw(st.integers(0, extents[index].length - 1))
            found = b"".join(await reader.at(index, position, 1000))
            content = store.content(extents[index])[position : position + 1000]
            assert found
            assert content.startswith(found)
        memory.readers -= readers - 1

    run_several(extents, scenario)
