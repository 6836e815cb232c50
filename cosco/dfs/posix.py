"""The blocking calls under `LocalStore`: folders that survive a power failure, and writes."""

from __future__ import annotations

import fcntl
import mmap
import os
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from errno import EDQUOT, EINVAL, EIO, ENOSPC, ENOTEMPTY
from pathlib import Path
from typing import Final

from cosco.format.chunk import ALIGNMENT, padded

#: What a file system without room says.
FULL: Final = frozenset({ENOSPC, EDQUOT})
#: Reads longer than this are made in parts.
_SCRATCH_BYTES: Final = (1 << 20) + ALIGNMENT
_IOV_MAX: Final = os.sysconf("SC_IOV_MAX")
#: Folders that are remembered to have a durable name.
_NAMED_FOLDERS: Final = 4096


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


class DurableNames:
    """Makes names of files below `root` durable, and those of their folders, whoever made them.

    A folder whose name was made durable is remembered by what it is, as another may come in its
    place: a thousand files in one folder are a thousand syncs, not four thousand.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._named: dict[Path, tuple[int, int]] = {}  # relative path → device, inode

    def sync(self, path: str) -> None:
        """Make the name of a file, relative to the root, durable; raises OSError."""
        folder = Path(path).parent
        sync_folder(self._root / folder)
        synced = {}
        while folder.name:
            info = (self._root / folder).stat()
            if self._named.get(folder) == (info.st_dev, info.st_ino):
                break
            sync_folder(self._root / folder.parent)
            synced[folder] = info.st_dev, info.st_ino
            folder = folder.parent
        if len(self._named) >= _NAMED_FOLDERS:
            self.forget()
        self._named |= synced  # not before all of them are: another thread relies on each

    def forget(self) -> None:
        """Forget all names: folders were deleted, what comes in their place is not named yet."""
        self._named.clear()


def make_root(folder: Path) -> None:
    """Make a folder and its missing parents, durably."""
    missing = []
    while not folder.is_dir():
        missing.append(folder)
        folder = folder.parent
    for made in reversed(missing):
        with suppress(FileExistsError):
            made.mkdir()
        sync_folder(made.parent)


def make_folders(root: Path, relative: Path) -> None:
    """Make the folders `relative` below `root`, which must exist; syncs nothing."""
    for name in relative.parts:
        root /= name
        with suppress(FileExistsError):
            root.mkdir()


def remove_tree(folder: Path) -> None:
    """Delete a folder and all that is in it; what others delete or create meanwhile is fine."""
    try:
        with os.scandir(folder) as scan:
            entries = list(scan)
    except (FileNotFoundError, NotADirectoryError):
        return
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            remove_tree(Path(entry.path))
        else:
            Path(entry.path).unlink(missing_ok=True)
    try:
        folder.rmdir()
    except FileNotFoundError:
        pass
    except OSError as error:
        if error.errno != ENOTEMPTY:  # someone created a file after the look above
            raise


def takes_direct_io(path: Path) -> bool:
    """Whether files beside `path` can be written with O_DIRECT.

    Tries it on a new file `path`, which is gone afterwards. Raises OSError if its folder
    cannot be written, but not because it is full.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    direct = True
    try:
        fd = os.open(path, flags | os.O_DIRECT, 0o600)
    except OSError as error:
        if error.errno in FULL:
            return False
        if error.errno != EINVAL:
            raise
        # The refused call may have created the file all the same.
        direct = False
        fd = os.open(path, flags & ~os.O_EXCL, 0o600)
    try:
        path.unlink()
        with mmap.mmap(-1, ALIGNMENT) as page:
            os.pwritev(fd, [page], 0)
    except OSError as error:
        if error.errno == EINVAL:
            return False
        if error.errno not in FULL:
            raise
    finally:
        os.close(fd)
    return direct


def try_page(path: Path) -> None:
    """Write a page to a new file, sync it, read it and delete it; raises OSError."""
    content = os.urandom(ALIGNMENT)
    try:
        with path.open("xb", buffering=0) as file:
            file.write(content)
            os.fsync(file.fileno())
        if path.read_bytes() != content:
            raise OSError(EIO, "what was written is not what is read", str(path))
    finally:
        with suppress(OSError):
            path.unlink()


def write_parts(fd: int, parts: Sequence[memoryview]) -> None:
    """Write the joined parts to a file from its beginning, in as few calls as the system allows.

    A file opened for direct IO falls back to the page cache from the first part on that is
    not aligned as the file system wants it.
    """
    _transfer(os.pwritev, fd, parts, 0)


def read_parts(fd: int, parts: Sequence[memoryview], offset: int) -> int:
    """Fill the parts from `offset` on; return the bytes read, less only at the end of the file.

    What is not aligned is read through the page cache, as in `write_parts`.
    """
    return _transfer(os.preadv, fd, parts, offset)


def _transfer(
    call: Callable[[int, list[memoryview], int], int],
    fd: int,
    parts: Sequence[memoryview],
    offset: int,
) -> int:
    # Little per part: a segment may be thousands of pages.
    left = list(parts)
    sizes = [part.nbytes for part in left]
    if not all(sizes):
        left = [part for part in left if part.nbytes]
        sizes = [part.nbytes for part in left]
    first = total = 0
    while first < len(left):
        end = first + _IOV_MAX
        try:
            done = call(fd, left[first:end], offset + total)
        except OSError as error:
            if error.errno != EINVAL or not _leave_direct_io(fd):
                raise
            continue
        if not done:  # the end of the file; a write never says so
            break
        total += done
        if done == sum(sizes[first:end]):
            first = end
            continue
        while done >= sizes[first]:
            done -= sizes[first]
            first += 1
        left[first] = left[first].cast("B")[done:]
        sizes[first] -= done
    return total


class Scratch(threading.local):
    """Page-aligned memory of one thread, kept for its next read: touching new memory costs
    more than the copy out of it."""

    def __init__(self) -> None:
        self._map = mmap.mmap(-1, _SCRATCH_BYTES)
        self.memory = memoryview(self._map)


def read_at(fd: int, offset: int, length: int, scratch: Scratch) -> bytes:
    """Return `length` bytes from `offset` on; less only at the end of the file."""
    pieces: list[bytes] = []
    while length:
        start = offset % ALIGNMENT
        wanted = min(_SCRATCH_BYTES, padded(start + length))
        try:
            got = os.preadv(fd, [scratch.memory[:wanted]], offset - start)
        except OSError as error:
            if error.errno != EINVAL or not _leave_direct_io(fd):
                raise
            continue
        piece = bytes(scratch.memory[start : min(got, start + length)])
        if not piece:
            break
        pieces.append(piece)
        offset += len(piece)
        length -= len(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _leave_direct_io(fd: int) -> bool:
    """Switch a file to the page cache; return False if it was there already."""
    flags = fcntl.fcntl(fd, fcntl.F_GETFL)
    fcntl.fcntl(fd, fcntl.F_SETFL, flags & ~os.O_DIRECT)
    return bool(flags & os.O_DIRECT)
