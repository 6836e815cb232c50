"""What every store promises, as tests that authors of stores run on theirs with pytest.

    import pytest
    from cosco.dfs.testing import MakeStore, StoreConformance

    class TestMyStore(StoreConformance):
        @pytest.fixture
        def make_store(self, tmp_path) -> MakeStore:
            return lambda observer: MyStore(f"my://{tmp_path}", observer=observer)

`make_store` is a fixture that gives a call, which returns a store that is still to be opened, of
one and the same place within a test, and of an empty one at its beginning. Each promise is one
test, named after it. Say `pytest.register_assert_rewrite("cosco.dfs.testing")` in `conftest.py`
and pytest shows what was compared. One that a server cannot keep is marked in the class that
tests it: `test_… = pytest.mark.xfail(StoreConformance.test_…, reason=…)`.

This is the only module of Cosco that needs pytest (`pip install 'cosco[testing]'`).
"""

from __future__ import annotations

import asyncio
import builtins
import mmap
import random
import urllib.request
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from itertools import pairwise
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

import pytest

from cosco.dfs.paths import RESERVED
from cosco.dfs.protocol import GivesAccess, IOEvent, Observer, Store, StoredFile
from cosco.format.chunk import ALIGNMENT
from cosco.protocol.records import VOLATILE_STORE

#: Returns a store that is still to be opened, which tells the observer, if there is one.
MakeStore = Callable[[Observer | None], Store]
Scenario = Callable[[Store], Awaitable[None]]
Run = Callable[[Scenario], list[IOEvent]]

_REFUSED: Final = r"no path|keeps for itself"
_OUTSIDE: Final = ("/", "/etc/x", "a//b", "a/../b", "..", "./a", "a\0b", "cosco-store.json")
_ODD_NAMES: Final = (
    "a b/c", "%2e%2e/x", "%/100%25", "é/ü", "new\nline/x", "tab\there", ".hidden/..x", "*/?[", "~",
    "-rf/x", "a+b&c=d", "\U0001f600",
)  # fmt: skip
#: What a put that was given up may not have read any more.
_OVERWRITTEN: Final = b"\xdd"


def pages(text: str, count: int = 1) -> bytes:
    """Return `count` pages full of one character."""
    return text.encode() * (ALIGNMENT * count)


def cut(data: bytes, *cuts: int) -> list[memoryview]:
    """Return the data in parts, which end at `cuts`."""
    bounds = [0, *cuts, len(data)]
    view = memoryview(data)
    return [view[a:b] for a, b in pairwise(bounds)]


async def put_pages(store: Store, *paths: str) -> None:
    """Put a file of one page at each of the paths."""
    for path in paths:
        await store.put(path, cut(pages("x")))


async def paths_of(store: Store, prefix: str) -> list[str]:
    """Return the paths that a store lists."""
    return [file.path for file in await store.list(prefix)]


def _get_range(url: str, offset: int, length: int) -> bytes:
    """Return a part of a file that a store has given access to; raises OSError."""
    parts = urlsplit(url)
    assert parts.scheme in {"file", "http", "https"}
    if parts.scheme == "file":
        with Path(unquote(parts.path)).open("rb") as file:
            file.seek(offset)
            return file.read(length)
    last = offset + length - 1
    request = urllib.request.Request(url, headers={"Range": f"bytes={offset}-{last}"})  # noqa: S310
    with urllib.request.urlopen(request, timeout=60.0) as answer:  # noqa: S310
        assert answer.status == HTTPStatus.PARTIAL_CONTENT
        data: bytes = answer.read()
        return data


class AccessConformance:
    """What a store promises that gives readers access to files (`GivesAccess`)."""

    def test_access_is_to_one_file_if_there_is_any(self, run: Run) -> None:
        async def scenario(store: Store) -> None:
            if not isinstance(store, GivesAccess):
                return
            data = b"".join(pages(character) for character in "abc")
            await store.put("g/1/f", cut(data))
            await store.put("g/1/other", cut(pages("x")))
            url = await store.access("g/1/f", 60.0)
            if url is None:
                return
            ranged = await asyncio.to_thread(_get_range, url, ALIGNMENT, ALIGNMENT)
            assert ranged == data[ALIGNMENT : 2 * ALIGNMENT]
            assert await store.access("g/1/other", 60.0) != url
            missing = await store.access("g/1/missing", 60.0)
            assert missing is not None
            with pytest.raises(OSError):  # noqa: PT011  of whichever kind
                await asyncio.to_thread(_get_range, missing, 0, ALIGNMENT)
            with pytest.raises(ValueError, match=_REFUSED):
                await store.access("../f", 60.0)

        run(scenario)


class StoreConformance(AccessConformance):
    """Tests of one kind of store, for a class that gives the fixture `make_store`."""

    @pytest.fixture
    def make_store(self) -> MakeStore:
        """Give what makes a store of the kind under test; each of them overrides this."""
        pytest.fail("override the fixture `make_store`, as cosco.dfs.testing says")

    @pytest.fixture
    def run(self, make_store: MakeStore) -> Run:
        """Give what runs a scenario on an open store.

        It returns what the observer was told, but for the files that belong to the store itself.
        """

        def run(scenario: Scenario) -> list[IOEvent]:
            events: list[IOEvent] = []
            store = make_store(events.append)

            async def main() -> None:
                await store.open()
                try:
                    await scenario(store)
                finally:
                    await store.close()
                    await store.close()

            asyncio.run(main())
            return [event for event in events if not event.path.startswith(RESERVED)]

        return run

    # --- opening --------------------------------------------------------------------------

    def test_all_who_open_one_place_agree_on_its_id(self, make_store: MakeStore) -> None:
        async def main() -> None:
            stores = [make_store(None) for _ in range(4)]
            await asyncio.gather(*(store.open() for store in stores))
            ids = {store.store_id for store in stores}
            assert all(ids), "a store without an id"
            if not stores[0].durable:
                assert len(ids) == len(stores), "files of one process, and two stores of one id"
                assert all(name.startswith(VOLATILE_STORE) for name in ids)
            else:
                assert len(ids) == 1
                await stores[0].put("a/f", cut(pages("a")))
                assert await stores[1].read("a/f", 0, ALIGNMENT) == pages("a")
                assert await paths_of(stores[2], "") == ["a/f"], "the id is no file of the store"
                assert await stores[2].list_folders("") == ["a"]
            for store in stores:
                await store.close()

        asyncio.run(main())

    def test_the_id_and_files_stay(self, make_store: MakeStore) -> None:
        async def once(expected: builtins.list[StoredFile]) -> str:
            store = make_store(None)
            await store.open()
            assert await store.list("") == expected
            await store.put("f", cut(pages("a")))
            await store.close()
            return store.store_id

        durable = make_store(None).durable
        first = asyncio.run(once([]))
        second = asyncio.run(once([StoredFile("f", ALIGNMENT)] if durable else []))
        assert (first == second) == durable

    # --- putting --------------------------------------------------------------------------

    def test_what_was_put_is_read_back(self, run: Run) -> None:
        whole = pages("a", 3) + pages("b", 2)

        async def scenario(store: Store) -> None:
            await store.put("c/1/f", cut(whole, ALIGNMENT, ALIGNMENT, 2 * ALIGNMENT))
            assert await store.read("c/1/f", 0, len(whole)) == whole
            assert await store.list("") == [StoredFile("c/1/f", len(whole))]

        run(scenario)

    def test_parts_may_be_cut_anywhere(self, run: Run) -> None:
        whole = random.Random(1).randbytes(40 * ALIGNMENT)  # noqa: S311  any bytes

        async def scenario(store: Store) -> None:
            await store.put("f", cut(whole, 1, 1, 512, 4097, 70_000, 70_007))
            assert await store.read("f", 0, len(whole)) == whole
            await store.put("g", [memoryview(whole[i : i + 64]) for i in range(0, len(whole), 64)])
            assert await store.read("g", 0, len(whole)) == whole

        run(scenario)

    @pytest.mark.parametrize("before", [1, 2, 5])
    def test_a_put_that_is_repeated_leaves_exactly_its_bytes(self, run: Run, before: int) -> None:
        """The first one may have left any beginning, or the file as it should be."""
        whole = pages("a") + pages("b") + pages("c")

        async def scenario(store: Store) -> None:
            await store.put("d/f", cut((whole + pages("d", 2))[: before * ALIGNMENT]))
            await store.put("d/f", cut(whole, 5, ALIGNMENT))
            assert await store.read("d/f", 0, 1 << 20) == whole
            assert await store.list("d/") == [StoredFile("d/f", len(whole))]

        run(scenario)

    def test_a_large_file(self, run: Run) -> None:
        """So large that stores that put files in pieces do so."""
        piece = random.Random(2).randbytes(1 << 20)  # noqa: S311  any bytes
        count = 72

        async def scenario(store: Store) -> None:
            await store.put("f", [memoryview(piece)] * count + cut(pages("z")))
            assert await store.list("f") == [StoredFile("f", (count << 20) + ALIGNMENT)]
            for offset in (0, 7 << 20, (70 << 20) + 5):
                got = await store.read("f", offset, 1 << 20)
                start = offset % len(piece)
                assert got == piece[start:] + piece[:start]
            assert await store.read("f", (count << 20) - 3, 100) == piece[-3:] + b"z" * 97

        run(scenario)

    @pytest.mark.parametrize("length", [0, 1, 100, ALIGNMENT + 1])
    def test_files_come_in_whole_units(self, run: Run, length: int) -> None:
        async def scenario(store: Store) -> None:
            with pytest.raises(ValueError, match="not in units of 4096"):
                await store.put("f", [memoryview(bytes(length))])
            assert await store.list("") == []

        run(scenario)

    def test_many_files_at_a_time(self, run: Run) -> None:
        async def scenario(store: Store) -> None:
            async def fill(index: int) -> None:
                content = pages(chr(ord("a") + index % 26), 1 + index % 3)
                await store.put(f"c/{index % 3}/{index}", cut(content, 9))

            await asyncio.gather(*(fill(index) for index in range(24)))
            files = await store.list("c/")
            assert len(files) == 24
            for file in files:
                index = int(file.path.rpartition("/")[2])
                expected = pages(chr(ord("a") + index % 26), 1 + index % 3)
                assert file.size_bytes == len(expected)
                assert await store.read(file.path, 0, 1 << 20) == expected

        run(scenario)

    def test_a_put_that_is_cancelled_has_ended_once_it_raises(self, run: Run) -> None:
        """Its memory is used for something else then, which must never be in the file."""
        length = 2048 * ALIGNMENT
        content = random.Random(3).randbytes(length)  # noqa: S311  any bytes

        async def give_up(store: Store, path: str, turns: int) -> None:
            with mmap.mmap(-1, length) as memory, memoryview(memory) as view:
                view[:] = content
                putting = asyncio.create_task(store.put(path, [view]))
                for _ in range(turns):
                    await asyncio.sleep(0)
                for _ in range(2):  # a second cancel must not be quicker than the first
                    putting.cancel()
                    await asyncio.sleep(0)
                await asyncio.wait({putting})
                view[:] = _OVERWRITTEN * length
                if not putting.cancelled():
                    putting.result()

        async def scenario(store: Store) -> None:
            for turns in range(12):
                path = f"f{turns}"
                await give_up(store, path, turns)
                for file in await store.list(path):
                    got = await store.read(file.path, 0, length)
                    assert got == content[: len(got)], f"cancelled after {turns} turns"
                await store.put(path, cut(content))
                assert await store.read(path, 0, length) == content
                await store.delete_prefix("none/")  # something else goes on

        run(scenario)

    def test_closing_waits_for_what_is_under_way(self, make_store: MakeStore) -> None:
        content = pages("c", 256)

        async def main() -> None:
            store = make_store(None)
            await store.open()
            putting = asyncio.create_task(store.put("f", cut(content)))
            await asyncio.sleep(0)
            await store.close()
            await putting
            if store.durable:
                again = make_store(None)
                await again.open()
                assert await again.read("f", 0, len(content)) == content
                await again.close()

        asyncio.run(main())

    # --- reading --------------------------------------------------------------------------

    def test_reads_start_and_end_anywhere(self, run: Run) -> None:
        whole = pages("a", 3) + pages("b", 2)

        async def scenario(store: Store) -> None:
            await store.put("f", cut(whole))
            assert await store.read("f", 5000, 10_000) == whole[5000:15_000]
            assert await store.read("f", len(whole) - 7, 7) == whole[-7:]
            assert await store.read("f", 3, 0) == b""

        run(scenario)

    def test_reads_end_with_the_file(self, run: Run) -> None:
        whole = pages("a", 3) + pages("b", 2)

        async def scenario(store: Store) -> None:
            await store.put("f", cut(whole))
            assert await store.read("f", len(whole) - 7, 100) == whole[-7:]
            assert await store.read("f", 0, 1 << 60) == whole
            assert await store.read("f", len(whole), 1) == b""
            assert await store.read("f", 1 << 40, 1) == b""

        run(scenario)

    def test_reads_into_memory_fill_it_in_order(self, run: Run) -> None:
        data = pages("a", 2) + pages("b", 3)

        async def scenario(store: Store) -> None:
            await store.put("f", cut(data))
            with mmap.mmap(-1, 8 * ALIGNMENT) as memory, memoryview(memory) as view:
                for start in (0, ALIGNMENT, 4 * ALIGNMENT, 5 * ALIGNMENT, 9 * ALIGNMENT):
                    view[:] = bytes(len(view))
                    bounds = [(0, 1), (2, 5), (5, 7)]
                    pieces = [view[a * ALIGNMENT : b * ALIGNMENT] for a, b in bounds]
                    got = await store.read_into("f", start, pieces)
                    assert got == len(data[start:])
                    assert b"".join(pieces)[:got] == data[start:]
                    assert not any(view[ALIGNMENT : 2 * ALIGNMENT]), "filled what was not given"
                    for piece in pieces:
                        piece.release()
                odd = view[5:5000]
                assert await store.read_into("f", 4093, [odd]) == len(odd)
                assert odd == data[4093 : 4093 + len(odd)]
                odd.release()

        events = run(scenario)
        reads = [event.length for event in events if event.kind == "read"]
        assert reads == [n * ALIGNMENT for n in (5, 4, 1, 0, 0)] + [4995]

    def test_missing_files(self, run: Run) -> None:
        async def scenario(store: Store) -> None:
            await put_pages(store, "a/file")
            for path in ("b", "a", "a/other", "a/file/below"):
                with pytest.raises(FileNotFoundError):
                    await store.read(path, 0, 10)
                with pytest.raises(FileNotFoundError):
                    await store.read_into(path, 0, [memoryview(bytearray(ALIGNMENT))])
            assert await store.list("b/c/") == []
            assert await store.list("a/file/") == []
            assert await store.list_folders("b/c/") == []
            await store.delete_prefix("b/c/")
            await store.delete_prefix("a/file/")
            assert await paths_of(store, "") == ["a/file"]

        run(scenario)

    def test_reads_have_bounds(self, run: Run) -> None:
        async def scenario(store: Store) -> None:
            await put_pages(store, "f")
            with pytest.raises(ValueError, match="-1 bytes at 0"):
                await store.read("f", 0, -1)
            with pytest.raises(ValueError, match="1 bytes at -1"):
                await store.read("f", -1, 1)

        run(scenario)

    # --- names ----------------------------------------------------------------------------

    def test_prefixes_end_where_they_say(self, run: Run) -> None:
        async def scenario(store: Store) -> None:
            one = ["g/1/13-1/x", "g/1/3-1/x", "g/1/3-1/y", "g/1/3-10/x"]
            await put_pages(store, "g/10/3-1/x", *reversed(one), "h/1/z")
            assert await paths_of(store, "g/1/") == one
            assert await paths_of(store, "g/1") == [*one, "g/10/3-1/x"]
            assert await paths_of(store, "g/1/3-") == one[1:]
            assert await paths_of(store, "g/1/3-1/") == one[1:3]
            assert await paths_of(store, "g/1/3-1/x") == one[1:2]
            assert await paths_of(store, "g/1/3-10/x/") == []
            assert await paths_of(store, "") == [*one, "g/10/3-1/x", "h/1/z"]
            assert await store.list_folders("") == ["g", "h"]
            assert await store.list_folders("g/") == ["1", "10"]
            assert await store.list_folders("g/1/") == ["13-1", "3-1", "3-10"]
            assert await store.list_folders("g/1/3-1/") == []

        run(scenario)

    def test_deleting_a_prefix(self, run: Run) -> None:
        async def scenario(store: Store) -> None:
            await put_pages(store, "g/1/13-1/x", "g/1/3-1/x", "g/1/f", "g/10/3-1/x", "h/1/z")
            await store.delete_prefix("g/1/")
            await store.delete_prefix("g/1/")
            assert await paths_of(store, "") == ["g/10/3-1/x", "h/1/z"]
            with pytest.raises(FileNotFoundError):
                await store.read("g/1/f", 0, 1)
            assert set(await store.list_folders("g/")) <= {"1", "10"}
            await put_pages(store, "g/1/3-1/x")
            assert await paths_of(store, "g/1/") == ["g/1/3-1/x"]

        run(scenario)

    def test_a_prefix_is_deleted_by_two_at_a_time(self, run: Run) -> None:
        async def scenario(store: Store) -> None:
            await put_pages(store, *(f"d/{index}/f" for index in range(12)), "e/f")
            await asyncio.gather(*(store.delete_prefix("d/") for _ in range(3)))
            assert await paths_of(store, "") == ["e/f"]

        run(scenario)

    def test_listing_ascends_by_path_not_by_folder(self, run: Run) -> None:
        async def scenario(store: Store) -> None:
            await put_pages(store, "a/z", "a-b", "a.b", "a0")
            assert await paths_of(store, "a") == ["a-b", "a.b", "a/z", "a0"]

        run(scenario)

    def test_odd_names(self, run: Run) -> None:
        async def scenario(store: Store) -> None:
            await put_pages(store, *_ODD_NAMES)
            assert await paths_of(store, "") == sorted(_ODD_NAMES)
            folders = sorted(name.partition("/")[0] for name in _ODD_NAMES if "/" in name)
            assert await store.list_folders("") == folders
            for name in _ODD_NAMES:
                assert await store.read(name, 0, 1) == b"x"
                assert await paths_of(store, name) == [name]
            await store.delete_prefix("*/")
            assert await paths_of(store, "") == sorted(set(_ODD_NAMES) - {"*/?["})

        run(scenario)

    @pytest.mark.parametrize("path", ["", "a/", *_OUTSIDE])
    def test_paths_stay_in_the_store(self, run: Run, path: str) -> None:
        async def scenario(store: Store) -> None:
            with pytest.raises(ValueError, match=_REFUSED):
                await store.put(path, cut(pages("a")))
            with pytest.raises(ValueError, match=_REFUSED):
                await store.read(path, 0, 1)
            with pytest.raises(ValueError, match=_REFUSED):
                await store.read_into(path, 0, [memoryview(bytearray(ALIGNMENT))])

        run(scenario)

    @pytest.mark.parametrize("prefix", _OUTSIDE)
    def test_prefixes_stay_in_the_store(self, run: Run, prefix: str) -> None:
        folder = prefix + "/"

        async def scenario(store: Store) -> None:
            for call in (store.list, store.list_folders, store.delete_prefix):
                with pytest.raises(ValueError, match=_REFUSED):
                    await call(folder)
            with pytest.raises(ValueError, match=_REFUSED):
                await store.list(prefix)

        run(scenario)

    def test_folders_end_in_a_slash(self, run: Run) -> None:
        async def scenario(store: Store) -> None:
            await put_pages(store, "a/x")
            for prefix in ("", "a"):
                with pytest.raises(ValueError, match="does not end in '/'"):
                    await store.delete_prefix(prefix)
            with pytest.raises(ValueError, match="does not end in '/'"):
                await store.list_folders("a")
            assert await paths_of(store, "") == ["a/x"]

        run(scenario)

    # --- what is told ---------------------------------------------------------------------

    def test_the_observer_is_told_of_reads_and_writes(self, run: Run) -> None:
        async def scenario(store: Store) -> None:
            await store.put("f", cut(pages("a", 3), 5, ALIGNMENT))
            await store.put("g", cut(pages("a", 1)))
            assert await store.read("f", 10, ALIGNMENT) == pages("a")
            with pytest.raises(FileNotFoundError):
                await store.read("h", 0, 1)

        events = [event for event in run(scenario) if event.kind in {"read", "write"}]
        assert [(e.kind, e.path, e.offset, e.length) for e in events if e.length] == [
            ("write", "f", 0, 3 * ALIGNMENT),
            ("write", "g", 0, ALIGNMENT),
            ("read", "f", 10, ALIGNMENT),
        ]
        assert all(0 < event.seconds < 60 for event in events)
        assert all(earlier.start <= later.start for earlier, later in pairwise(events))
