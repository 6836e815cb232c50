"""What every store promises, checked on each of them."""

from __future__ import annotations

import asyncio
import mmap
from collections.abc import Awaitable, Callable
from itertools import pairwise
from pathlib import Path

import pytest

from cosco.dfs import IOEvent, LocalStore, MemoryStore, Store, StoredFile
from cosco.format.chunk import ALIGNMENT

Scenario = Callable[[Store], Awaitable[None]]


class Bench:
    """One store of the kind under test, and what it told its observer."""

    def __init__(self, make: Callable[[Callable[[IOEvent], None]], Store]) -> None:
        self.events: list[IOEvent] = []
        self.store = make(self.events.append)

    def run(self, scenario: Scenario) -> None:
        async def main() -> None:
            await self.store.open()
            try:
                await scenario(self.store)
            finally:
                await self.store.close()
                await self.store.close()

        asyncio.run(main())


@pytest.fixture(params=["memory", "local", "local, no fsync"])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Bench:
    def make(observer: Callable[[IOEvent], None]) -> Store:
        if request.param == "memory":
            return MemoryStore(observer=observer)
        fsync = request.param == "local"
        return LocalStore(
            "file://", tmp_path / "made" / "store", fsync=fsync, threads=2, observer=observer
        )

    return Bench(make)


def pages(text: str, count: int = 1) -> bytes:
    """`count` pages full of one character."""
    return text.encode() * (ALIGNMENT * count)


def parts(data: bytes, *cuts: int) -> list[memoryview]:
    bounds = [0, *cuts, len(data)]
    view = memoryview(data)
    return [view[a:b] for a, b in pairwise(bounds)]


async def put(store: Store, *paths: str) -> None:
    for path in paths:
        await store.append(path, 0, parts(pages("x")))


async def paths(store: Store, prefix: str) -> list[str]:
    return [file.path for file in await store.list(prefix)]


def test_appended_parts_are_read_back(bench: Bench) -> None:
    first, second = pages("a", 3), pages("b", 2)

    async def scenario(store: Store) -> None:
        await store.append("c/1/f", 0, parts(first, ALIGNMENT, ALIGNMENT, 2 * ALIGNMENT))
        await store.append("c/1/f", len(first), parts(second))
        whole = first + second
        assert await store.read("c/1/f", 0, len(whole)) == whole
        assert await store.read("c/1/f", 5000, 10_000) == whole[5000:15_000]
        assert await store.read("c/1/f", len(whole) - 7, 100) == whole[-7:]
        assert await store.read("c/1/f", 0, 1 << 60) == whole
        assert await store.read("c/1/f", len(whole), 1) == b""
        assert await store.read("c/1/f", 1 << 40, 1) == b""
        assert await store.read("c/1/f", 3, 0) == b""
        assert await store.list("") == [StoredFile("c/1/f", len(whole))]

    bench.run(scenario)


def test_a_repeated_append_replaces_the_end_of_the_file(bench: Bench) -> None:
    async def scenario(store: Store) -> None:
        await store.append("f", 0, parts(pages("a", 2)))
        await store.append("f", 2 * ALIGNMENT, parts(pages("b", 3)))
        await store.append("f", 2 * ALIGNMENT, parts(pages("c", 1)))
        assert await store.read("f", 0, 1 << 20) == pages("a", 2) + pages("c", 1)
        await store.append("f", 0, parts(pages("d", 1)))
        assert await store.read("f", 0, 1 << 20) == pages("d", 1)

    bench.run(scenario)


def test_an_append_never_leaves_a_hole(bench: Bench) -> None:
    async def scenario(store: Store) -> None:
        with pytest.raises(FileNotFoundError):
            await store.append("f", ALIGNMENT, parts(pages("a")))
        await put(store, "f")
        with pytest.raises(ValueError, match=r"8192 to a file of 4096 bytes"):
            await store.append("f", 2 * ALIGNMENT, parts(pages("a")))
        assert await store.list("") == [StoredFile("f", ALIGNMENT)]

    bench.run(scenario)


@pytest.mark.parametrize(
    ("offset", "length"), [(-ALIGNMENT, ALIGNMENT), (1, ALIGNMENT), (0, 100), (0, 0)]
)
def test_appends_come_in_whole_units(bench: Bench, offset: int, length: int) -> None:
    async def scenario(store: Store) -> None:
        with pytest.raises(ValueError, match="not in units of 4096"):
            await store.append("f", offset, [memoryview(bytes(length))])
        assert await store.list("") == []

    bench.run(scenario)


def test_missing_files(bench: Bench) -> None:
    async def scenario(store: Store) -> None:
        await put(store, "a/file")
        for path in ("b", "a", "a/other", "a/file/below"):
            with pytest.raises(FileNotFoundError):
                await store.read(path, 0, 10)
        assert await store.list("b/c/") == []
        assert await store.list("a/file/") == []
        assert await store.list_folders("b/c/") == []
        await store.delete_prefix("b/c/")
        await store.delete_prefix("a/file/")
        assert await paths(store, "") == ["a/file"]

    bench.run(scenario)


def test_prefixes_end_where_they_say(bench: Bench) -> None:
    async def scenario(store: Store) -> None:
        one = ["g/1/13-1/x", "g/1/3-1/x", "g/1/3-1/y", "g/1/3-10/x"]
        await put(store, "g/10/3-1/x", *reversed(one), "h/1/z")
        assert await paths(store, "g/1/") == one
        assert await paths(store, "g/1") == [*one, "g/10/3-1/x"]
        assert await paths(store, "g/1/3-") == one[1:]
        assert await paths(store, "g/1/3-1/") == one[1:3]
        assert await paths(store, "g/1/3-1/x") == one[1:2]
        assert await paths(store, "g/1/3-10/x/") == []
        assert await paths(store, "") == [*one, "g/10/3-1/x", "h/1/z"]
        assert await store.list_folders("") == ["g", "h"]
        assert await store.list_folders("g/") == ["1", "10"]
        assert await store.list_folders("g/1/") == ["13-1", "3-1", "3-10"]
        assert await store.list_folders("g/1/3-1/") == []

        await store.delete_prefix("g/1/")
        await store.delete_prefix("g/1/")
        assert await paths(store, "") == ["g/10/3-1/x", "h/1/z"]
        assert await store.list_folders("g/") == ["10"]
        await put(store, "g/1/3-1/x")
        assert await paths(store, "g/1/") == ["g/1/3-1/x"]

    bench.run(scenario)


def test_listing_ascends_by_path_not_by_folder(bench: Bench) -> None:
    async def scenario(store: Store) -> None:
        await put(store, "a/z", "a-b", "a.b", "a0")
        assert await paths(store, "a") == ["a-b", "a.b", "a/z", "a0"]

    bench.run(scenario)


def test_odd_names(bench: Bench) -> None:
    names = ["a b/c", "%2e%2e/x", "é/ü", "new\nline/x", ".hidden/..x", "*/?[", "~", "-rf/x"]

    async def scenario(store: Store) -> None:
        await put(store, *names)
        assert await paths(store, "") == sorted(names)
        for name in names:
            assert await store.read(name, 0, 1) == b"x"
            assert await paths(store, name) == [name]
        await store.delete_prefix("*/")
        assert await paths(store, "") == sorted(set(names) - {"*/?["})

    bench.run(scenario)


OUTSIDE = ["/", "/etc/x", "a//b", "a/../b", "..", "./a", "a\0b", "cosco-store.json"]


@pytest.mark.parametrize("path", ["", "a/", *OUTSIDE])
def test_paths_stay_in_the_store(bench: Bench, path: str) -> None:
    async def scenario(store: Store) -> None:
        with pytest.raises(ValueError, match=r"no path|keeps for itself"):
            await store.append(path, 0, parts(pages("a")))
        with pytest.raises(ValueError, match=r"no path|keeps for itself"):
            await store.read(path, 0, 1)

    bench.run(scenario)


@pytest.mark.parametrize("prefix", OUTSIDE)
def test_prefixes_stay_in_the_store(bench: Bench, prefix: str) -> None:
    folder = prefix + "/"

    async def scenario(store: Store) -> None:
        for call in (store.list, store.list_folders, store.delete_prefix):
            with pytest.raises(ValueError, match=r"no path|keeps for itself"):
                await call(folder)
        with pytest.raises(ValueError, match=r"no path|keeps for itself"):
            await store.list(prefix)

    bench.run(scenario)


def test_folders_end_in_a_slash(bench: Bench) -> None:
    async def scenario(store: Store) -> None:
        await put(store, "a/x")
        for prefix in ("", "a"):
            with pytest.raises(ValueError, match="does not end in '/'"):
                await store.delete_prefix(prefix)
        with pytest.raises(ValueError, match="does not end in '/'"):
            await store.list_folders("a")
        assert await paths(store, "") == ["a/x"]

    bench.run(scenario)


def test_reads_have_bounds(bench: Bench) -> None:
    async def scenario(store: Store) -> None:
        await put(store, "f")
        with pytest.raises(ValueError, match="-1 bytes at 0"):
            await store.read("f", 0, -1)
        with pytest.raises(ValueError, match="1 bytes at -1"):
            await store.read("f", -1, 1)

    bench.run(scenario)


def test_the_observer_sees_each_read_and_write(bench: Bench) -> None:
    async def scenario(store: Store) -> None:
        await store.append("f", 0, parts(pages("a", 3), 5, ALIGNMENT))
        await store.append("f", 3 * ALIGNMENT, parts(pages("a", 1)))
        await store.read("f", 10, 1 << 20)
        with pytest.raises(FileNotFoundError):
            await store.read("g", 0, 1)

    bench.run(scenario)
    assert [(e.kind, e.path, e.offset, e.length) for e in bench.events] == [
        ("write", "f", 0, 3 * ALIGNMENT),
        ("write", "f", 3 * ALIGNMENT, ALIGNMENT),
        ("read", "f", 10, 4 * ALIGNMENT - 10),
    ]
    assert all(0 < event.seconds < 60 for event in bench.events)


def test_reads_into_memory_fill_it_in_order_up_to_the_end_of_the_file(bench: Bench) -> None:
    data = pages("a", 2) + pages("b", 3)

    async def scenario(store: Store) -> None:
        await store.append("f", 0, parts(data))
        with mmap.mmap(-1, 8 * ALIGNMENT) as memory, memoryview(memory) as view:
            sizes = (1, 3, 2)
            for start in (0, ALIGNMENT, 4 * ALIGNMENT, 5 * ALIGNMENT, 9 * ALIGNMENT):
                view[:] = bytes(len(view))
                pieces, at = [], 0
                for size in sizes:
                    pieces.append(view[at : at + size * ALIGNMENT])
                    at += (size + 1) * ALIGNMENT if size == 1 else size * ALIGNMENT
                got = await store.read_into("f", start, pieces)
                expected = data[start:]
                assert got == len(expected)
                assert b"".join(pieces)[:got] == expected
                for piece in pieces:
                    piece.release()
            odd = view[5:5000]
            assert await store.read_into("f", 4093, [odd]) == len(odd)
            assert odd == data[4093 : 4093 + len(odd)]
            odd.release()
            with pytest.raises(FileNotFoundError):
                await store.read_into("g", 0, [view])

    bench.run(scenario)
    reads = [e for e in bench.events if e.kind == "read"]
    assert [e.length for e in reads] == [n * ALIGNMENT for n in (5, 4, 1, 0, 0)] + [4995]
    assert all(earlier.start <= later.start for earlier, later in pairwise(bench.events))


def test_many_files_at_a_time(bench: Bench) -> None:
    async def scenario(store: Store) -> None:
        async def fill(index: int) -> None:
            for step in range(3):
                await store.append(
                    f"c/{index % 3}/{index}", step * ALIGNMENT, parts(pages(str(step)))
                )

        await asyncio.gather(*(fill(index) for index in range(12)))
        assert len(await store.list("c/")) == 12
        for file in await store.list("c/"):
            assert await store.read(file.path, 0, 1 << 20) == pages("0") + pages("1") + pages("2")

    bench.run(scenario)
