"""A store in a directory of a local disk, or of any file system that is mounted.

All IO runs in a few threads of the store's own. A library such as aiofiles would do the
same one call at a time from its own pool, without `pwritev`, direct IO or the syncs.

Reads and writes bypass the page cache where the file system allows it, at a third of the
CPU: a chunk is written once and mostly read once, so a cache would only be filled by it.
"""

from __future__ import annotations

import asyncio
import builtins
import errno
import os
import stat
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, ParamSpec, TypeVar

from cosco.dfs import posix
from cosco.dfs.identity import read_or_create_identity
from cosco.dfs.paths import RESERVED, check_folder, check_prefix, check_put, check_read
from cosco.dfs.protocol import IOEvent, Observer, StoredFile, StoreFull
from cosco.dfs.store_threads import StoreThreads
from cosco.errors import InvalidArgument

P = ParamSpec("P")
T = TypeVar("T")

#: How often a put makes folders anew that others delete before it gives up.
_CREATE_ATTEMPTS: Final = 20


class LocalStore:
    """`cosco.dfs.protocol.Store` in one directory, made if it is missing.

    With `fsync=False` nothing is synced: files survive the process, not a power failure.
    `identify` gives the store id of a directory that can be written.
    """

    durable = True

    def __init__(
        self,
        url: str,
        directory: str | Path,
        *,
        fsync: bool = True,
        threads: int = 4,
        observer: Observer | None = None,
        identify: Callable[[Path], str] = read_or_create_identity,
    ) -> None:
        self.url = url
        self.store_id = ""
        self._identify = identify
        self._root = Path(directory).absolute()
        self._fsync = fsync
        self._observer = observer
        self._direct = False
        self._device = -1  # of its file system
        self._scratch = posix.Scratch()
        self._named = posix.DurableNames(self._root)
        # Reads that hang must not keep writes from a thread, nor writes reads.
        self._writing = StoreThreads(threads)
        self._others = StoreThreads(threads)

    @property
    def directory(self) -> Path:
        """The directory, as an absolute path."""
        return self._root

    async def open(self) -> None:
        await self._run(self._open)

    async def put(self, path: str, parts: Sequence[memoryview]) -> None:
        length = check_put(path, parts)
        writing = self._writing.run(lambda: self._put(path, length, parts))
        start, seconds = await self._writing.to_the_end(writing)
        self._observe(IOEvent("write", path, 0, length, start, seconds))

    async def read(self, path: str, offset: int, length: int) -> bytes:
        check_read(path, offset, length)
        data, start, seconds = await self._run(self._read, path, offset, length)
        self._observe(IOEvent("read", path, offset, len(data), start, seconds))
        return data

    async def read_into(self, path: str, offset: int, parts: Sequence[memoryview]) -> int:
        check_read(path, offset, sum(map(len, parts)))
        reading = self._run(self._read_into, path, offset, parts)
        length, start, seconds = await self._others.to_the_end(reading)
        self._observe(IOEvent("read", path, offset, length, start, seconds))
        return length

    async def list(self, prefix: str) -> builtins.list[StoredFile]:
        check_prefix(prefix)
        folder, slash, start = prefix.rpartition("/")
        return await self._run(self._list, folder + slash, start)

    async def list_folders(self, prefix: str) -> builtins.list[str]:
        if prefix:
            check_folder(prefix)
        return await self._run(self._list_folders, prefix)

    async def delete_prefix(self, prefix: str) -> None:
        check_folder(prefix)
        await self._run(self._delete, prefix)

    async def access(self, path: str, expires_s: float) -> str | None:
        """See `cosco.dfs.protocol.GivesAccess`; it never expires."""
        check_read(path, 0, 0)
        return (self._root / path).as_uri()

    # --- for a store over several of these -------------------------------------------------

    async def call(self, function: Callable[[Path], T]) -> T:
        """Call a function, which may block, with the directory; before `open`, too."""
        return await self._run(self._call, function)

    async def size_of(self, path: str) -> int | None:
        """Return the length of a file in bytes; None if there is none."""
        check_read(path, 0, 0)
        return await self._run(self._size, path)

    async def room(self) -> tuple[int, int]:
        """Return the bytes of the file system that its user may still write, and all it has.

        Raises OSError, also if it is not the file system that was there when it was opened.
        """
        return await self._run(self._room)

    async def remove(self, path: str) -> None:
        """Delete a file, which may be gone; what a put has left that failed."""
        check_read(path, 0, 0)
        await self._run(self._remove, path)

    async def check(self) -> None:
        """Try that the directory can be written and read; raises OSError."""
        await self._writing.run(self._check)

    async def close(self) -> None:
        await asyncio.gather(self._writing.close(), self._others.close())

    def _run(
        self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> asyncio.Future[T]:
        return self._others.run(lambda: function(*args, **kwargs))

    def _observe(self, event: IOEvent) -> None:
        if self._observer is not None:
            self._observer(event)

    # --- in the threads -------------------------------------------------------------------

    def _open(self) -> None:
        try:
            posix.make_root(self._root)
            self._direct = posix.takes_direct_io(self._root / (RESERVED + uuid.uuid4().hex))
            self._device = self._root.stat().st_dev
            self.store_id = self._identify(self._root)
        except OSError as error:
            raise InvalidArgument(
                f"store {self.url!r} cannot be written: {error.strerror}: "
                f"give its user a directory to write to"
            ) from error

    def _call(self, function: Callable[[Path], T]) -> T:
        return function(self._root)

    def _size(self, path: str) -> int | None:
        try:
            info = (self._root / path).lstat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        return info.st_size if stat.S_ISREG(info.st_mode) else None

    def _room(self) -> tuple[int, int]:
        if self._root.stat().st_dev != self._device:
            raise OSError(errno.ENODEV, "its file system is not mounted any more", str(self._root))
        found = os.statvfs(self._root)
        return found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize

    def _remove(self, path: str) -> None:
        with suppress(FileNotFoundError, NotADirectoryError):
            (self._root / path).unlink()

    def _check(self) -> None:
        posix.try_page(self._root / (RESERVED + uuid.uuid4().hex))

    def _put(self, path: str, length: int, parts: Sequence[memoryview]) -> tuple[float, float]:
        """Write and sync the parts; return when that began, and the seconds it took."""
        started = time.perf_counter()
        try:
            fd = self._create(path)
            try:
                self._write(fd, path, length, parts)
            finally:
                os.close(fd)
            if self._fsync:
                self._named.sync(path)
        except OSError as error:
            if error.errno in posix.FULL:
                raise StoreFull(error.errno, error.strerror, path) from error
            raise
        return started, time.perf_counter() - started

    def _create(self, path: str) -> int:
        """Return a descriptor, to be closed, of a file that may be there already."""
        full = self._root / path
        flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | (os.O_DIRECT if self._direct else 0)
        for _ in range(_CREATE_ATTEMPTS):
            with suppress(FileNotFoundError):
                return os.open(full, flags, 0o666)
            # Someone who deletes a prefix may take a folder away at any of these steps.
            self._named.forget()
            with suppress(FileNotFoundError):
                posix.make_folders(self._root, Path(path).parent)
        return os.open(full, flags, 0o666)

    def _write(self, fd: int, path: str, length: int, parts: Sequence[memoryview]) -> None:
        try:
            posix.write_parts(fd, parts)
            if os.fstat(fd).st_size > length:  # of a file that was damaged
                os.ftruncate(fd, length)
            if self._fsync:
                os.fdatasync(fd)
        except OSError:
            with suppress(OSError):
                (self._root / path).unlink()
            raise

    def _read(self, path: str, offset: int, length: int) -> tuple[bytes, float, float]:
        started = time.perf_counter()
        fd, size = self._open_for_read(path)
        try:
            # Not more than there is: memory is allocated for all that is asked for.
            length = max(0, min(length, size - offset))
            data = posix.read_at(fd, offset, length, self._scratch)
        finally:
            os.close(fd)
        return data, started, time.perf_counter() - started

    def _read_into(
        self, path: str, offset: int, parts: Sequence[memoryview]
    ) -> tuple[int, float, float]:
        started = time.perf_counter()
        fd, _ = self._open_for_read(path)
        try:
            length = posix.read_parts(fd, parts, offset)
        finally:
            os.close(fd)
        return length, started, time.perf_counter() - started

    def _open_for_read(self, path: str) -> tuple[int, int]:
        """Return a descriptor, to be closed, and the length of the file."""
        flags = os.O_RDONLY | os.O_CLOEXEC | (os.O_DIRECT if self._direct else 0)
        try:
            fd = os.open(self._root / path, flags)
        except OSError as error:
            if isinstance(error, NotADirectoryError) or (self._root / path).is_dir():
                raise _missing(path) from None
            raise
        try:
            info = os.fstat(fd)
            if not stat.S_ISREG(info.st_mode):  # a folder, without direct IO
                raise _missing(path)
        except BaseException:
            os.close(fd)
            raise
        return fd, info.st_size

    def _list(self, folder: str, start: str) -> builtins.list[StoredFile]:
        found: list[StoredFile] = []
        for entry in self._entries(folder):
            if not entry.name.startswith(start):
                continue
            if entry.is_dir(follow_symlinks=False):
                found += self._list(f"{folder}{entry.name}/", "")
            else:
                with suppress(FileNotFoundError):
                    size = entry.stat(follow_symlinks=False).st_size
                    found.append(StoredFile(folder + entry.name, size))
        return sorted(found, key=lambda file: file.path)

    def _list_folders(self, folder: str) -> builtins.list[str]:
        entries = self._entries(folder)
        return sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))

    def _entries(self, folder: str) -> builtins.list[os.DirEntry[str]]:
        """Return what is in a folder, if there is one, but for the store's own files."""
        try:
            with os.scandir(self._root / folder) as scan:
                entries = list(scan)
        except (FileNotFoundError, NotADirectoryError):
            return []
        if folder:
            return entries
        return [entry for entry in entries if not entry.name.startswith(RESERVED)]

    def _delete(self, prefix: str) -> None:
        folder = self._root / prefix
        posix.remove_tree(folder)
        self._named.forget()
        if self._fsync:
            with suppress(FileNotFoundError, NotADirectoryError):
                posix.sync_folder(folder.parent)


def _missing(path: str) -> FileNotFoundError:
    return FileNotFoundError(errno.ENOENT, "no such file in the store", path)
