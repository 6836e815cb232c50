"""What only a store on a disk has to do."""

from __future__ import annotations

import asyncio
import errno
import mmap
import os
import random
import resource
import subprocess
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import pytest

from cosco.dfs import LocalStore, StoreFull, posix
from cosco.errors import InvalidArgument
from cosco.format.chunk import ALIGNMENT


def run(directory: Path, scenario: Callable[[LocalStore], Awaitable[None]]) -> LocalStore:
    """Run a scenario on a store in a directory, and return the closed store."""

    async def main() -> LocalStore:
        store = LocalStore(directory.as_uri(), directory)
        try:
            await store.open()
            await scenario(store)
        finally:
            await store.close()
        return store

    return asyncio.run(main())


async def nothing(store: LocalStore) -> None:
    """A scenario without steps."""


def random_pages(count: int) -> mmap.mmap:
    """Page-aligned memory with random content."""
    memory = mmap.mmap(-1, count * ALIGNMENT)
    memory.write(os.urandom(count * ALIGNMENT))
    return memory


# --- writing ------------------------------------------------------------------------------


def test_more_parts_than_one_call_takes(tmp_path: Path) -> None:
    count = 3000
    assert count > 2 * os.sysconf("SC_IOV_MAX")
    data = memoryview(random_pages(count))
    parts = [data[i * ALIGNMENT : (i + 1) * ALIGNMENT] for i in range(count)]

    async def scenario(store: LocalStore) -> None:
        await store.put("c/f", parts)
        assert await store.read("c/f", 0, len(data) + 1) == data

    run(tmp_path, scenario)


@pytest.mark.parametrize("skew", [1, 7, 512])
def test_parts_need_not_be_aligned(tmp_path: Path, skew: int) -> None:
    memory = memoryview(random_pages(12))
    # The first part suits direct IO, those after it do not, and the last lies unaligned.
    cuts = [0, 2 * ALIGNMENT, 2 * ALIGNMENT + skew, 5 * ALIGNMENT, 9 * ALIGNMENT - skew]
    parts = [memory[a:b] for a, b in pairwise(cuts)]
    parts.append(memory[10 * ALIGNMENT + 3 : 10 * ALIGNMENT + 3 + skew])
    whole = b"".join(parts)

    async def scenario(store: LocalStore) -> None:
        await store.put("f", parts)
        assert await store.read("f", 0, 1 << 20) == whole

    run(tmp_path, scenario)


def test_aligned_parts_bypass_the_page_cache(tmp_path: Path) -> None:
    if not posix.takes_direct_io(tmp_path / "probe"):
        pytest.skip("the file system of the temporary directory has no direct IO")
    assert list(tmp_path.iterdir()) == []
    fd = os.open(tmp_path / "f", os.O_WRONLY | os.O_CREAT | os.O_DIRECT)
    try:
        posix.write_parts(fd, [memoryview(random_pages(4))])
        assert posix._leave_direct_io(fd), "aligned parts must not leave direct IO"
        assert not posix._leave_direct_io(fd)
    finally:
        os.close(fd)


@pytest.mark.parametrize("most", [1, 7, 4096, 1 << 20])
def test_parts_of_any_number_and_format_are_transferred_whole(most: int) -> None:
    whole = random.Random(most).randbytes(3 * 8 * posix._IOV_MAX + 4096)
    views = [memoryview(whole[8 * n : 8 * n + 8]) for n in range(2 * posix._IOV_MAX)]
    views[5::7] = [view.cast("Q") for view in views[5::7]]
    views.insert(3, memoryview(b""))
    views.append(memoryview(whole[16 * posix._IOV_MAX :]))
    written = bytearray()

    def short(fd: int, buffers: list[memoryview], offset: int) -> int:
        assert len(buffers) <= posix._IOV_MAX
        assert (fd, offset) == (9, 1000 + len(written))
        taken = b"".join(buffers)[:most]
        written.extend(taken)
        return len(taken)

    if most == 1:
        views, whole = views[:20], b"".join(views[:20])
    assert posix._transfer(short, 9, views, 1000) == len(whole)
    assert written == whole


def test_short_writes_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.pwritev

    def short(fd: int, buffers: list[memoryview], offset: int) -> int:
        """Write at most 5000 bytes, as a signal or a quota may have it."""
        return real(fd, [memoryview(b"".join(buffers))[:5000]], offset)

    monkeypatch.setattr(os, "pwritev", short)
    data = memoryview(random_pages(7))

    async def scenario(store: LocalStore) -> None:
        await store.put("f", [data[:100], data[100:20_000], data[20_000:]])
        assert await store.read("f", 0, 1 << 20) == data

    run(tmp_path, scenario)


def test_a_cancelled_put_ends_after_its_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, started, proceed = os.pwritev, threading.Event(), threading.Event()

    def held(fd: int, buffers: list[memoryview], offset: int) -> int:
        started.set()
        assert proceed.wait(10)
        return real(fd, buffers, offset)

    data = memoryview(random_pages(1))

    async def scenario(store: LocalStore) -> None:
        monkeypatch.setattr(os, "pwritev", held)
        put = asyncio.create_task(store.put("f", [data]))
        await asyncio.to_thread(started.wait, 10)
        for _ in range(2):
            put.cancel()
            await asyncio.wait({put}, timeout=0.05)
            assert not put.done(), "the thread still reads the caller's memory"
        proceed.set()
        with pytest.raises(asyncio.CancelledError):
            await put
        assert await store.read("f", 0, ALIGNMENT) == data

    run(tmp_path, scenario)


def test_names_and_folders_are_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    real = posix.sync_folder

    def record(folder: Path) -> None:
        synced.append(str(folder.relative_to(tmp_path)))
        real(folder)

    async def scenario(store: LocalStore) -> None:
        assert synced == [".", "a", "a/b"]
        synced.clear()
        page = memoryview(random_pages(1))
        await store.put("c/5/f", [page])
        assert synced == ["a/b/c/5", "a/b/c", "a/b"]
        synced.clear()
        await store.put("c/5/f", [page])  # again, as after one that failed
        assert synced == ["a/b/c/5"]
        synced.clear()
        await store.put("c/5/g", [page])  # its folders' names are durable already
        assert synced == ["a/b/c/5"]
        synced.clear()
        await store.put("c/6/f", [page])
        assert synced == ["a/b/c/6", "a/b/c", "a/b"]  # folders were made
        synced.clear()
        await store.delete_prefix("c/5/")
        assert synced == ["a/b/c"]
        synced.clear()
        await store.put("c/6/g", [page])
        assert synced == ["a/b/c/6", "a/b/c", "a/b"]  # what is there may be another one
        synced.clear()
        (tmp_path / "a/b/c/7").mkdir()  # of another daemon of the store, which moved it here
        (tmp_path / "a/b/c/6").rename(tmp_path / "a/b/c/8")
        (tmp_path / "a/b/c/7").rename(tmp_path / "a/b/c/6")
        await store.put("c/6/f", [page])
        assert synced == ["a/b/c/6", "a/b/c"]

    monkeypatch.setattr(posix, "sync_folder", record)
    monkeypatch.setattr("cosco.dfs.identity.sync_folder", record)
    run(tmp_path / "a" / "b", scenario)


# --- a full disk --------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one mebibyte."""
    mount = tmp_path / "disk"
    mount.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "cosco-test", str(mount)]
    with suppress(FileNotFoundError):
        if subprocess.run(command, capture_output=True, check=False).returncode == 0:
            try:
                yield mount
            finally:
                subprocess.run(["umount", str(mount)], check=True)
            return
    pytest.skip("needs the right to mount a file system")


def test_a_full_disk_keeps_what_was_durable(small_disk: Path) -> None:
    data = memoryview(random_pages(128))

    async def scenario(store: LocalStore) -> None:
        await store.put("c/1/f", [data])
        with pytest.raises(StoreFull) as caught:
            await store.put("c/1/g", [data])
        assert caught.value.errno == errno.ENOSPC
        assert "c/1/g" in str(caught.value)
        assert [file.path for file in await store.list("c/")] == ["c/1/f"]
        await store.put("c/1/h", [data[: 64 * ALIGNMENT]])  # its room is back
        with pytest.raises(StoreFull):
            await store.put("c/2/g", [data])
        await store.delete_prefix("c/1/")
        await store.put("c/2/g", [data])
        assert await store.read("c/2/g", 0, 1 << 20) == data
        (small_disk / "filler").write_bytes(bytes(os.statvfs(small_disk).f_bavail * ALIGNMENT))

    first = run(small_disk, scenario)
    assert run(small_disk, nothing).store_id == first.store_id  # full, yet it can be served


def test_another_failure_leaves_nothing(tmp_path: Path) -> None:
    data = memoryview(random_pages(4))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    async def scenario(store: LocalStore) -> None:
        await store.put("f", [data])
        resource.setrlimit(resource.RLIMIT_FSIZE, (6 * ALIGNMENT, hard))
        try:
            with pytest.raises(OSError, match="File too large") as caught:
                await store.put("g", [data, data])
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert not isinstance(caught.value, StoreFull)
        assert [file.path for file in await store.list("")] == ["f"]
        await store.put("g", [data, data])
        assert await store.read("g", 0, 1 << 20) == bytes(data) * 2

    run(tmp_path, scenario)


# --- two processes in one directory -------------------------------------------------------


def test_opens_at_once_agree_on_the_identity(tmp_path: Path) -> None:
    async def main(directory: Path) -> None:
        stores = [LocalStore(directory.as_uri(), directory, threads=1) for _ in range(6)]
        await asyncio.gather(*(store.open() for store in stores))
        assert len({store.store_id for store in stores}) == 1
        for store in stores:
            await store.close()

    for attempt in range(10):
        directory = tmp_path / "new" / str(attempt)
        asyncio.run(main(directory))
        assert [path.name for path in directory.iterdir()] == ["cosco-store.json"]


def test_the_identity_stays_and_is_no_file_of_the_store(tmp_path: Path) -> None:
    async def scenario(store: LocalStore) -> None:
        assert await store.list("") == []
        assert await store.list_folders("") == []

    one, two = run(tmp_path / "one", scenario), run(tmp_path / "two", scenario)
    assert one.store_id != two.store_id
    assert run(tmp_path / "one", scenario).store_id == one.store_id


def test_puts_and_deletes_of_two_processes(tmp_path: Path) -> None:
    page = memoryview(random_pages(1))

    async def main() -> None:
        writer = LocalStore("file://", tmp_path, fsync=False)
        sweeper = LocalStore("file://", tmp_path, fsync=False)
        await writer.open()
        await sweeper.open()
        done = asyncio.Event()

        async def sweep() -> None:
            while not done.is_set():
                await sweeper.delete_prefix("c/1/")

        async def write(name: str) -> None:
            for step in range(100):
                await writer.put(f"c/1/{step}/{name}", [page])

        sweeps = [asyncio.create_task(sweep()) for _ in range(2)]
        await asyncio.gather(write("a"), write("b"))
        done.set()
        await asyncio.gather(*sweeps)
        await sweeper.delete_prefix("c/1/")
        assert await writer.list("") == []
        await writer.put("c/1/5/a", [page])
        assert await sweeper.read("c/1/5/a", 0, ALIGNMENT) == page
        await writer.close()
        await sweeper.close()

    asyncio.run(main())


def test_a_store_that_was_removed_is_not_made_again(tmp_path: Path) -> None:
    async def scenario(store: LocalStore) -> None:
        posix.remove_tree(tmp_path / "store")
        with pytest.raises(FileNotFoundError):
            await store.put("c/f", [memoryview(random_pages(1))])

    run(tmp_path / "store", scenario)
    assert not (tmp_path / "store").exists()


# --- what cannot be opened ----------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[]",
        b"{}",
        b'{"format": 2, "store_id": "0123456789abcdef0123456789abcdef"}',
        b'{"format": 1}',
        b'{"format": 1, "store_id": 7}',
        b'{"format": 1, "store_id": "../../x"}',
    ],
)
def test_a_broken_identity(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "cosco-store.json").write_bytes(content)
    with pytest.raises(InvalidArgument, match=r"no store identity.*restore the file") as caught:
        run(tmp_path, nothing)
    assert "\n" not in str(caught.value)
    assert (tmp_path / "cosco-store.json").read_bytes() == content


def test_a_directory_that_cannot_be_written(tmp_path: Path) -> None:
    file = tmp_path / "a-file"
    file.touch()
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    refused = [file, file / "below", Path("/proc/cosco-store"), Path("/proc")]
    if os.geteuid():  # the modes of a directory do not bind root
        refused.append(locked)
    for directory in refused:
        with pytest.raises(InvalidArgument, match=r"store 'file:.*cannot be written") as caught:
            run(directory, nothing)
        assert "\n" not in str(caught.value)
