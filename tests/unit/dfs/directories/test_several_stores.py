"""One store over several directories, of which some err, hang or are full."""

from __future__ import annotations

import asyncio
import errno
import shutil
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from cosco.dfs import LocalStore, StoredFile, StoreFull
from cosco.dfs.directories.several_stores import SeveralStores, open_directories
from cosco.dfs.directories.state.directory_table import Change, Reserve
from cosco.dfs.protocol import Observer
from cosco.dfs.testing import MakeStore, StoreConformance, cut, pages
from cosco.errors import InvalidArgument, ServiceUnavailable
from cosco.format.chunk import ALIGNMENT

TIMEOUT_S = 1.0
#: Of so many files each directory has some: another one counts as eight times as fast at most.
MANY = 24


class TestDirectories(StoreConformance):
    """One with a reserve, and several."""

    @pytest.fixture(params=[1, 3])
    def make_store(self, request: pytest.FixtureRequest, tmp_path: Path) -> MakeStore:
        urls = [(tmp_path / f"d{n}").as_uri() for n in range(request.param)]

        def make(observer: Observer | None) -> SeveralStores:
            return open_directories(
                urls, threads=3, timeout_s=10, reserve=Reserve(share=0.001), observer=observer
            )

        return make


@dataclass
class Faults:
    """What goes wrong in directories, by their names."""

    errors: dict[str, OSError] = field(default_factory=dict)  # of writes, after half of the bytes
    free_bytes: dict[str, int] = field(default_factory=dict)
    gates: dict[str, threading.Event] = field(default_factory=dict)  # what hangs until it is set

    @contextmanager
    def hanging(self, name: str) -> Iterator[None]:
        self.gates[name] = threading.Event()
        try:
            yield
        finally:
            self.gates.pop(name).set()


@pytest.fixture
def faults(monkeypatch: pytest.MonkeyPatch) -> Faults:
    found = Faults()
    originals: dict[str, Callable[..., Any]] = {
        name: getattr(LocalStore, name) for name in ("_put", "_read", "_check", "_room", "_list")
    }

    def gated(name: str) -> Callable[..., Any]:
        def call(store: LocalStore, *arguments: Any) -> Any:
            directory = store.directory.name
            if (gate := found.gates.get(directory)) is not None:
                assert gate.wait(20)
            if name in {"_put", "_check"} and (error := found.errors.get(directory)) is not None:
                if name == "_put":
                    (store.directory / arguments[0]).write_bytes(b"torn" * (ALIGNMENT // 4))
                raise type(error)(error.errno, error.strerror)
            if name == "_room" and directory in found.free_bytes:
                return found.free_bytes[directory], 1 << 30
            return originals[name](store, *arguments)

        return call

    for name in originals:
        monkeypatch.setattr(LocalStore, name, gated(name))
    return found


class Told(list[tuple[str, str, str]]):
    """The directories that were out and back: (name, "out" or "back", cause)."""

    def __init__(self) -> None:
        super().__init__()
        self.more = asyncio.Event()

    def __call__(self, url: str, change: Change) -> None:
        how = "out" if change.is_out else "back"
        self.append((url.rpartition("/")[2], how, change.cause))
        self.more.set()

    async def until(self, *expected: tuple[str, str, str]) -> None:
        async with asyncio.timeout(20):
            while not set(expected) <= set(self):
                self.more.clear()
                await self.more.wait()


@asynccontextmanager
async def opened(
    folder: Path, *names: str, told: Told | None = None, reserve: Reserve | None = None,
    may_miss: int = 0, timeout_s: float = 20.0,
) -> AsyncIterator[SeveralStores]:  # fmt: skip
    store = open_directories(
        [(folder / name).as_uri() for name in names],
        threads=2, timeout_s=timeout_s, reserve=reserve, may_miss=may_miss,
        tell=told if told is not None else Told(),
    )  # fmt: skip
    try:
        await store.open()
        yield store
    finally:
        await store.close()


async def fill(store: SeveralStores, *paths: str) -> None:
    for path in paths:
        await store.put(path, cut(pages(path[-1], 2)))


def where(folder: Path) -> dict[str, str]:
    """In which directory each file is."""
    return {
        str(path.relative_to(folder / path.relative_to(folder).parts[0])): path.relative_to(
            folder
        ).parts[0]
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith("cosco-store.")
    }


PATHS = [f"c/{n}" for n in range(8)]


def test_files_are_spread_and_found_by_whoever_opens_them(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path, "a", "b", "c") as store:
            assert all(state.free_bytes > 0 for state in store.states().values())
            await fill(store, *PATHS)
            first_id = store.store_id
        assert set(Counter(where(tmp_path).values())) == {"a", "b", "c"}
        (tmp_path / "b").rename(tmp_path / "elsewhere")
        async with opened(tmp_path, "c", "elsewhere", "a") as store:
            assert store.store_id == first_id
            assert await store.read(PATHS[3], 0, ALIGNMENT) == pages("3")  # not listed before
            assert [file.path for file in await store.list("c/")] == PATHS
            for path in PATHS:
                assert await store.read(path, 0, 1 << 20) == pages(path[-1], 2)

    asyncio.run(main())


def test_a_directory_that_errs_is_left_and_comes_back(tmp_path: Path, faults: Faults) -> None:
    told = Told()

    async def main() -> None:
        async with opened(tmp_path, "a", "b", told=told) as store:
            await fill(store, "w1", "w2")
            faults.errors["a"] = OSError(errno.EIO, "Input/output error")
            await fill(store, *(f"f{n}" for n in range(MANY)))
            assert told == [("a", "out", "errs")]
            [torn] = list((tmp_path / "a").glob("f*"))
            assert [f.size_bytes for f in await store.list("f")] == [2 * ALIGNMENT] * MANY
            assert await store.read(torn.name, 0, 1 << 20) == pages(torn.name[-1], 2)
            assert await store.read("w1", 0, 1) == b"1"  # what it has is read still
            assert await store.read("w2", 0, 1) == b"2"
            faults.errors.clear()
            await told.until(("a", "back", "errs"))
            assert not torn.exists(), "before a put could find it"
            await fill(store, *(f"g{n}" for n in range(MANY)))
            assert {where(tmp_path)[f"g{n}"] for n in range(MANY)} == {"a", "b"}

    asyncio.run(main())


def test_the_longer_one_counts_when_nobody_knows(tmp_path: Path, faults: Faults) -> None:
    async def main() -> None:
        async with opened(tmp_path, "a", "b") as store:
            faults.errors["a"] = OSError(errno.EIO, "Input/output error")
            await fill(store, "x", "y")
            assert list((tmp_path / "a").glob("[xy]"))
        faults.errors.clear()
        for order in (("a", "b"), ("b", "a")):
            async with opened(tmp_path, *order) as store:
                assert await store.read("x", 0, 1 << 20) == pages("x", 2)
            async with opened(tmp_path, *order) as store:
                files = [StoredFile(path, 2 * ALIGNMENT) for path in "xy"]
                assert await store.list("") == files
                assert await store.read("y", 0, 1 << 20) == pages("y", 2)

    asyncio.run(main())


def test_a_directory_that_hangs_holds_up_its_own_puts_alone(tmp_path: Path, faults: Faults) -> None:
    told = Told()

    async def main() -> None:
        async with opened(tmp_path, "a", "b", told=told, timeout_s=TIMEOUT_S) as store:
            await fill(store, "p0", "p1", "p2", "p3")
            at = where(tmp_path)
            [there, *_] = [path for path, name in at.items() if name == "a"]
            with faults.hanging("a"):
                memory = [bytearray(pages(str(n), 2)) for n in range(4)]
                await asyncio.gather(
                    *(store.put(f"h{n}", [memoryview(memory[n])]) for n in range(4))
                )
                assert told == [("a", "out", "hangs")]
                assert {where(tmp_path)[f"h{n}"] for n in range(4)} == {"b"}
                for one in memory:  # which is the caller's again
                    one[:] = pages("!", 2)
                await fill(store, *(f"q{n}" for n in range(MANY)))
                assert {where(tmp_path)[f"q{n}"] for n in range(MANY)} == {"b"}
                assert store.takes_puts
                # Nothing is missing: it may be there.
                for path in (there, "nowhere"):
                    with pytest.raises(TimeoutError):
                        await store.read(path, 0, 1)
                with pytest.raises(TimeoutError):
                    await store.list("")
                with pytest.raises(TimeoutError):
                    await store.delete_prefix("c/")
            await told.until(("a", "back", "hangs"))
            assert not list((tmp_path / "a").glob("h*")), "what landed late is deleted"
            for n in range(4):
                assert await store.read(f"h{n}", 0, 1 << 20) == pages(str(n), 2)
            assert await store.read(there, 0, 1) == there[-1].encode()
            with pytest.raises(FileNotFoundError):
                await store.read("nowhere", 0, 1)
            assert len(await store.list("h")) == 4
            await fill(store, *(f"r{n}" for n in range(MANY)))
            assert {where(tmp_path)[f"r{n}"] for n in range(MANY)} == {"a", "b"}

    asyncio.run(main())
    assert [one for one in told if one[0] == "b"] == []


def test_a_store_that_hangs_can_be_abandoned(tmp_path: Path, faults: Faults) -> None:
    async def main() -> None:
        store = open_directories(
            [(tmp_path / name).as_uri() for name in "ab"], threads=2, timeout_s=TIMEOUT_S
        )
        await store.open()
        with faults.hanging("a"), faults.hanging("b"):
            hung = [asyncio.create_task(fill(store, f"h{n}")) for n in range(MANY)]
            await asyncio.sleep(0)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2):
                    await store.close()
            for task in hung:
                task.cancel()
            async with asyncio.timeout(5):
                await asyncio.gather(*hung, return_exceptions=True)

    asyncio.run(main())


def test_a_full_directory_is_left_until_it_has_room(tmp_path: Path, faults: Faults) -> None:
    told = Told()
    kept = 1 << 20

    async def main() -> None:
        faults.free_bytes |= {"a": kept + ALIGNMENT, "b": 1 << 29}
        async with opened(tmp_path, "a", "b", told=told, reserve=Reserve(size_bytes=kept)) as store:
            await fill(store, *(f"f{n}" for n in range(4)))
            assert told == [("a", "out", "full")]
            assert set(where(tmp_path).values()) == {"b"}
            faults.free_bytes["a"] = 1 << 29
            await told.until(("a", "back", "full"))
            await fill(store, *(f"g{n}" for n in range(MANY)))
            assert {where(tmp_path)[f"g{n}"] for n in range(MANY)} == {"a", "b"}
            assert store.states()[str(tmp_path / "a")].room_bytes < (1 << 29) - kept

    asyncio.run(main())


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (errno.ENOSPC, errno.ENOSPC, errno.ENOSPC),
        (errno.ENOSPC, errno.EIO, errno.EIO),
        (errno.EIO, errno.EIO, errno.EIO),
    ],
)
def test_where_no_directory_takes_a_put(
    first: int, second: int, expected: int, tmp_path: Path, faults: Faults
) -> None:
    def error(code: int) -> OSError:
        kind = StoreFull if code == errno.ENOSPC else OSError
        return kind(code, f"error {code}")

    async def main() -> None:
        async with opened(tmp_path, "a", "b") as store:
            faults.errors |= {"a": error(first), "b": error(second)}
            for _ in range(2):  # each has refused it, then each is out
                with pytest.raises(OSError, match="no directory takes it") as caught:
                    await fill(store, "f")
                assert caught.value.errno == expected
                assert isinstance(caught.value, StoreFull) == (expected == errno.ENOSPC)
                assert str(tmp_path / "a") in str(caught.value)
                assert str(tmp_path / "b") in str(caught.value)
            assert not store.takes_puts

    asyncio.run(main())


def test_an_error_of_one_file_says_nothing_of_its_directory(tmp_path: Path, faults: Faults) -> None:
    told = Told()

    async def main() -> None:
        async with opened(tmp_path, "a", "b", told=told) as store:
            faults.errors |= {n: OSError(errno.EFBIG, "File too large") for n in "ab"}
            with pytest.raises(OSError, match="File too large"):
                await fill(store, "f")
            assert not told
            faults.errors.clear()
            await fill(store, "f")

    asyncio.run(main())


def test_nothing_is_deleted_by_half_without_a_word(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path, "a", "b") as store:
            await fill(store, *PATHS)
            (tmp_path / "a").rename(tmp_path / "away")
            (tmp_path / "a").write_text("no folder")  # ENOTDIR, which is "nothing there"
            (tmp_path / "a").unlink()
            (tmp_path / "a").symlink_to(tmp_path / "a")  # ELOOP
            with pytest.raises(OSError, match="symbolic"):
                await store.delete_prefix("c/")
            (tmp_path / "a").unlink()
            (tmp_path / "away").rename(tmp_path / "a")
            assert set(where(tmp_path).values()) == {"a"}  # the other is done
            await store.delete_prefix("c/")
            assert await store.list("") == []

    asyncio.run(main())


def test_a_directory_may_be_missing_if_that_is_said(tmp_path: Path) -> None:
    told = Told()

    async def main() -> None:
        async with opened(tmp_path, "a", "b") as store:
            await fill(store, *PATHS)
        at = where(tmp_path)
        (tmp_path / "b").rename(tmp_path / "away")
        with pytest.raises(InvalidArgument, match=r"1 of the 2.*/b'.*--store-missing 1"):
            async with opened(tmp_path, "a", "b"):
                raise AssertionError
        assert not (tmp_path / "b").exists(), "a disk that is not mounted is left alone"
        async with opened(tmp_path, "a", "b", may_miss=1, told=told) as store:
            assert told == [("b", "out", "missing")]
            left = [path for path in PATHS if at[path] == "a"]
            assert [file.path for file in await store.list("c/")] == left
            gone = next(path for path in PATHS if at[path] == "b")
            with pytest.raises(FileNotFoundError):
                await store.read(gone, 0, 1)
            await fill(store, "new")
            await store.delete_prefix("d/")
        (tmp_path / "b").symlink_to(tmp_path / "b")  # every call there fails
        async with opened(tmp_path, "a", "b", may_miss=1) as store:
            assert [file.path for file in await store.list("c/")] == left
            assert set(await store.list_folders("")) == {"c"}
            with pytest.raises(FileNotFoundError):
                await store.read(gone, 0, 1)
            await store.delete_prefix("d/")
        (tmp_path / "b").unlink()
        told.clear()
        async with opened(tmp_path, "a", "b", may_miss=1, told=told) as store:
            (tmp_path / "away").rename(tmp_path / "b")
            await told.until(("b", "back", "missing"))
            assert [file.path for file in await store.list("c/")] == PATHS
            assert await store.read(gone, 0, 1) == gone[-1].encode()

    asyncio.run(main())


def test_a_new_disk_joins_when_it_is_told_to(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path, "a", "b") as store:
            first_id = store.store_id
        shutil.rmtree(tmp_path / "b")
        (tmp_path / "b").mkdir()
        (tmp_path / "b" / "cosco-store.join").touch()
        for _ in range(2):
            async with opened(tmp_path, "a", "b") as store:
                assert store.store_id == first_id
                await fill(store, *PATHS)
        assert set(where(tmp_path).values()) == {"a", "b"}
        assert not (tmp_path / "b" / "cosco-store.join").exists()

    asyncio.run(main())


def test_what_is_no_set_is_refused(tmp_path: Path) -> None:
    async def refused(*names: str, match: str) -> None:
        with pytest.raises(InvalidArgument, match=match):
            async with opened(tmp_path, *names):
                raise AssertionError

    async def main() -> None:
        async with opened(tmp_path, "a", "b"):
            pass
        async with opened(tmp_path, "c", "d"):
            pass
        single = LocalStore("file://", tmp_path / "single")
        await single.open()
        await single.close()
        (tmp_path / "link").symlink_to(tmp_path / "a")
        await refused("a", "c", match="different stores")
        await refused("a", "single", match="is a store by itself")
        await refused("new", "single", match="is a store by itself")
        await refused("a", "a", match="twice")
        await refused("a", "link", match="twice")
        await refused("new", "new/inner", match="in another")
        await refused("a", match="one of 2 directories")
        assert not (tmp_path / "new").exists()

    asyncio.run(main())


def test_a_directory_that_hangs_at_the_start_is_named(tmp_path: Path, faults: Faults) -> None:
    gate = threading.Event()

    async def main() -> None:
        store = open_directories(
            [(tmp_path / name).as_uri() for name in "ab"], threads=2, timeout_s=TIMEOUT_S
        )
        hung = [
            asyncio.create_task(store._stores[1].call(lambda _root: gate.wait(20)))
            for _ in range(4)
        ]
        await asyncio.sleep(0)
        with pytest.raises(ServiceUnavailable, match="/b'"):
            await store.open()
        gate.set()
        await asyncio.gather(*hung)
        await store.close()

    asyncio.run(main())


def test_opened_by_many_at_once(tmp_path: Path) -> None:
    async def main() -> None:
        stores = [
            open_directories([(tmp_path / n).as_uri() for n in order], threads=2, timeout_s=10)
            for order in ("abc", "cba", "bac", "abc")
        ]
        await asyncio.gather(*(store.open() for store in stores))
        assert len({store.store_id for store in stores}) == 1
        for store in stores:
            await store.close()

    asyncio.run(main())
