"""Disks, and stores on them with the faults that disks have.

A disk outlives the daemons that use it. A put takes time and reads its parts at the end
of it, so that pages that are freed too early are noticed; when its process dies meanwhile,
any beginning of it may have been written.
"""

from __future__ import annotations

import asyncio
import builtins
import errno
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from zlib import crc32

from cosco.dfs.paths import check_folder, check_prefix, check_put, check_read
from cosco.dfs.protocol import Observer, StoredFile, StoreFull
from cosco.protocol.records import VOLATILE_STORE

from .loop import PROCESS, Process
from .world import current

_SECTOR_BYTES = 512


class Disk:
    """Files by path. `full`: nothing more can be written now."""

    def __init__(self, store_id: str) -> None:
        self.store_id = store_id
        self.files: dict[str, bytearray] = {}
        self.full = False
        self.failing = False
        self.slowness = 1.0
        #: Hosts whose calls hang, each with this share of them.
        self.hanging: dict[str, float] = {}
        #: Bytes that were said to be durable, by path.
        self.durable: dict[str, int] = {}
        #: Paths that were durable at some time, and those that had anything at some time.
        self.ever: set[str] = set()
        self.had: set[str] = set()
        #: CRC of what each path was first put with.
        self.given: dict[str, int] = {}

    def under(self, prefix: str) -> list[str]:
        return sorted(path for path in self.files if path.startswith(prefix))

    def delete(self, path: str) -> None:
        self.files.pop(path, None)
        self.durable.pop(path, None)


class SimStore:
    """`cosco.dfs.Store` of one process on one disk."""

    def __init__(self, url: str, disk: Disk, *, durable: bool, observer: Observer | None) -> None:
        self.url = url
        self.directory = Path(url.removeprefix("file://"))
        self.store_id = ""
        self.durable = durable
        self._disk = disk
        self._world = current()
        self._deleted: list[str] = []  # prefixes of which nothing was left

    async def open(self) -> None:
        await self._takes(0.001)
        self.store_id = self._disk.store_id

    async def put(self, path: str, parts: Sequence[memoryview]) -> None:
        length = check_put(path, parts)
        disk, process = self._disk, PROCESS.get()
        assert process is not None
        self._check_room()
        given = crc32(b"".join(parts))
        if self._world.given.setdefault(path, given) != given:
            self._world.problem(f"{path} is put with other bytes than before")

        def torn() -> None:
            if self.durable:
                self._world.count("writes torn")
                kept = self._world.rng.randrange(0, length + 1, _SECTOR_BYTES)
                disk.files[path] = bytearray(b"".join(parts)[:kept])
                disk.had.add(path)
                disk.durable.setdefault(path, 0)

        process.on_death[torn] = None
        await self._takes(0.002)
        if await self._hangs():
            self._world.count("writes that hung")
            await asyncio.sleep(2 * self._world.rng.random())  # and land late
        # If the process died meanwhile this never runs, and `torn` did.
        process.on_death.pop(torn, None)
        if disk.failing and self._world.rng.random() < 0.3:
            torn()
            raise OSError(errno.EIO, "the simulated disk fails")
        self._check_room()
        if path.startswith(tuple(self._deleted)):
            self._world.problem(f"{path} is put after what it belongs to was deleted")
        disk.files[path] = bytearray(b"".join(parts))
        disk.durable[path] = length
        disk.ever.add(path)
        disk.had.add(path)

    def _check_room(self) -> None:
        if self._disk.full:
            raise StoreFull(errno.ENOSPC, "the simulated disk is full")

    async def read(self, path: str, offset: int, length: int) -> bytes:
        check_read(path, offset, length)
        await self._takes(0.0005)
        await self._hangs()
        file = self._disk.files.get(path)
        if file is None:
            raise _missing(path)
        return bytes(file[offset : offset + length])

    async def read_into(self, path: str, offset: int, parts: Sequence[memoryview]) -> int:
        data = await self.read(path, offset, sum(map(len, parts)))
        got = 0
        for part in parts:
            piece = data[got : got + len(part)]
            part[: len(piece)] = piece
            got += len(piece)
        return got

    async def list(self, prefix: str) -> builtins.list[StoredFile]:
        check_prefix(prefix)
        await self._takes(0.0005)
        await self._hangs()
        return [StoredFile(path, len(self._disk.files[path])) for path in self._disk.under(prefix)]

    async def list_folders(self, prefix: str) -> builtins.list[str]:
        if prefix:
            check_folder(prefix)
        await self._takes(0.0005)
        await self._hangs()
        below = (path[len(prefix) :] for path in self._disk.under(prefix))
        return sorted({rest.partition("/")[0] for rest in below if "/" in rest})

    async def delete_prefix(self, prefix: str) -> None:
        check_folder(prefix)
        for path in self._disk.under(prefix):
            await self._takes(0.0005)
            await self._hangs()
            self._disk.delete(path)
        if prefix.count("/") > 1:  # an exchange, which never comes back
            self._deleted.append(prefix)

    # --- of a directory ----------------------------------------------------------------------

    async def call(self, function: Callable[[Path], Any]) -> Any:
        await self._takes(0.0005)
        return function(self.directory)

    async def room(self) -> tuple[int, int]:
        await self._takes(0.0002)
        await self._hangs()
        return 0 if self._disk.full else 1 << 40, 1 << 40

    async def remove(self, path: str) -> None:
        await self._takes(0.0005)
        await self._hangs()
        self._disk.delete(path)

    async def check(self) -> None:
        await self._takes(0.001)
        await self._hangs()
        if self._disk.failing and self._world.rng.random() < 0.3:
            raise OSError(errno.EIO, "the simulated disk fails")

    async def access(self, path: str, expires_s: float) -> str | None:
        """A URL, in which is how long it can be used; of volatile stores none."""
        check_read(path, 0, 0)
        if not self.durable:
            return None
        if path not in self._disk.had:
            self._world.problem(f"a reader is referred to {path}, which was never stored")
        until = self._world.loop.now + expires_s
        return f"{self.url}/{path}?{until}"

    async def close(self) -> None:
        await asyncio.sleep(0)
        if not self.durable:
            self._disk.files.clear()

    async def _hangs(self) -> bool:
        """Wait while the disk hangs for this host; whether it did."""
        process = PROCESS.get()
        assert process is not None
        share = self._disk.hanging.get(process.host, 0.0)
        if self._world.rng.random() >= share:
            return False
        while process.host in self._disk.hanging:  # noqa: ASYNC110 (the world has no event for it)
            await asyncio.sleep(0.1 + 0.2 * self._world.rng.random())
        return True

    async def _takes(self, seconds: float) -> None:
        rng = self._world.rng
        slow = rng.random() * 0.3 if rng.random() < 0.02 else 0.0
        await asyncio.sleep(seconds * self._disk.slowness * (0.5 + rng.random()) + slow)


def open_store(url: str, *, threads: int = 4, observer: Observer | None = None) -> SimStore:
    """`cosco.dfs.open_store`: `file:///NAME` is the disk of that name."""
    world = current()
    if url == "memory://":
        return SimStore(
            url,
            Disk(f"{VOLATILE_STORE}{world.rng.getrandbits(64):016x}"),
            durable=False,
            observer=observer,
        )
    disk = world.disks[url.removeprefix("file:///")]
    world.slow_disks[_process()] = disk
    return SimStore(url, disk, durable=True, observer=observer)


def open_flash(
    url: str, *, threads: int, observer: Observer | None, identify: Callable[[Path], str]
) -> SimStore:
    """`cosco.dfs.registry.open_flash`, for the one daemon that has the disk."""
    world = current()
    world.flashes[_process()] = disk = world.disks[url.removeprefix("file:///")]
    return SimStore(url, disk, durable=True, observer=observer)


def _process() -> Process:
    process = PROCESS.get()
    assert process is not None
    return process


def _missing(path: str) -> FileNotFoundError:
    return FileNotFoundError(errno.ENOENT, "no such file on the simulated disk", path)
