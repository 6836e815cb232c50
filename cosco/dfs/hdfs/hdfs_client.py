"""The blocking calls under `HdfsStore`, each a few steps of hdfs-native, which has no time limits.

What is written appears whole: a file is created under a name of its own beside the path, written,
synced, closed, and then moved to the path in one step, over what may be there. So no reader ever
sees a part of it, and a call that was given up and whose request HDFS receives late, after its
connection has come back, moves a whole file to the path, with the bytes that belong there. To
create the file at its path at once would be one request less, but such a late request would then
empty a file that another call has made durable meanwhile.
"""

from __future__ import annotations

import builtins
import errno
import re
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import unquote

from hdfs_native import Client, WriteOptions

if TYPE_CHECKING:
    from hdfs_native._internal import RawFileWriter

from cosco.dfs.hdfs.hdfs_call import HdfsCall
from cosco.dfs.hdfs.hdfs_errors import as_os_error, missing
from cosco.dfs.identity import IDENTITY_FILE, IDENTITY_FORMAT, new_identity, parse_identity
from cosco.dfs.paths import RESERVED
from cosco.dfs.protocol import StoredFile, StoreFull
from cosco.format.chunk import ALIGNMENT

_IDENTITY_BYTES_MAX: Final = 4096
#: How the names of files end that are not complete yet; they are never listed.
UNFINISHED: Final = ".cosco-put"
#: A namenode refuses smaller blocks, unless it is told otherwise.
_BLOCK_BYTES_MIN: Final = 1 << 20
BLOCK_BYTES_MAX: Final = 128 << 20
#: Until a namenode has noticed that a datanode is dead it gives it out for new files, and
#: hdfs-native cannot ask it for others; another file is likely to get others.
_PUT_ATTEMPTS: Final = 4
_PUT_AGAIN_S: Final = 10.0
_FINAL: Final = (StoreFull, PermissionError, FileNotFoundError, NotADirectoryError)
#: What is copied out of the caller's memory at a time; blocks end where these do.
_PIECE_BYTES: Final = 1 << 20
_FOLDER_MODE: Final = 0o755
#: Instead of the 15 attempts of Hadoop, which take minutes where there is one namenode: whoever
#: calls a store asks again, and is to be told why. So these do not follow the site's files.
_CONFIG: Final = {
    "dfs.client.failover.max.attempts": "6",
    "dfs.client.failover.sleep.base.millis": "250",
    "dfs.client.failover.sleep.max.millis": "4000",
}
#: What HDFS does not take in a name, and what stands for it.
_NOT_IN_NAMES: Final = re.compile(r"[%:]|^\.snapshot$|^\.reserved$")


class Timed(NamedTuple):
    """What a call did: how many bytes it moved, when it began and how long it took."""

    length: int
    start: float
    seconds: float


class HdfsClient:
    """One client of HDFS, with connections of its own, for the files below `root`.

    `root` begins with `/`. Used by several threads. Each call raises OSError, or GivenUp.
    """

    def __init__(
        self,
        address: str,
        root: str,
        *,
        replication: int | None = None,
        fsync: bool = True,
        block_bytes_max: int = BLOCK_BYTES_MAX,
    ) -> None:
        self._root = root.rstrip("/")
        self._replication = replication
        self._fsync = fsync
        self._block_bytes_max = block_bytes_max
        try:
            self._hdfs = Client(address, _CONFIG)
        except BaseException as error:  # a panic of Rust is no Exception
            raise as_os_error(error, address) from error

    def open(self, call: HdfsCall) -> str:
        """Return the store's id; whoever comes first makes it, all others agree.

        Shows that files can be written, synced, moved, read and deleted, if there is room.
        """
        call.step(self._hdfs.mkdirs, self._root, _FOLDER_MODE, True)
        trial = f"{self._root}/{RESERVED}{uuid.uuid4().hex}"
        new = new_identity()
        full: StoreFull | None = None
        try:
            self._write(call, trial, [memoryview(new.encode())], len(new))
            try:  # unlike that of a put, this move never replaces
                call.step(self._hdfs.rename, trial, f"{self._root}/{IDENTITY_FILE}", False)
            except FileExistsError:
                self._discard(trial)
        except StoreFull as error:  # one that has an identity can be read all the same
            full = error
        try:
            content = self._read(call, f"{self._root}/{IDENTITY_FILE}", 0, _IDENTITY_BYTES_MAX)
        except FileNotFoundError as error:
            raise full or error from None
        store_id = parse_identity(content)
        if store_id is None:
            raise OSError(
                errno.EINVAL,
                f"its file {IDENTITY_FILE} is no store identity of format {IDENTITY_FORMAT}: "
                "restore the file, or use a folder of its own for the store",
            )
        return store_id

    def put(self, call: HdfsCall, path: str, length: int, parts: Sequence[memoryview]) -> Timed:
        """Write a file of the joined parts, which are `length` bytes long."""
        started = time.perf_counter()
        target = self._place(path)
        for attempts_left in reversed(range(_PUT_ATTEMPTS)):
            unfinished = f"{target.rpartition('/')[0]}/{uuid.uuid4().hex}{UNFINISHED}"
            try:
                self._write(call, unfinished, parts, length)
                break
            except OSError as error:
                is_late = time.perf_counter() - started > _PUT_AGAIN_S
                if not attempts_left or is_late or isinstance(error, _FINAL):
                    raise
        try:
            call.step(self._hdfs.rename, unfinished, target, True)
        except BaseException:
            self._discard(unfinished)
            raise
        return Timed(length, started, time.perf_counter() - started)

    def read(self, call: HdfsCall, path: str, offset: int, length: int) -> tuple[bytes, Timed]:
        """Return `length` bytes at `offset`, or those up to the end of the file."""
        started = time.perf_counter()
        data = self._read(call, self._place(path), offset, length)
        return data, Timed(len(data), started, time.perf_counter() - started)

    def read_into(
        self, call: HdfsCall, path: str, offset: int, parts: Sequence[memoryview]
    ) -> Timed:
        """Fill the parts from `offset` on, as far as the file goes."""
        started = time.perf_counter()
        cursor = _Cursor(parts)
        for piece in self._stream(call, self._place(path), offset, cursor.left):
            with call.memory():
                cursor.fill(piece)
        return Timed(cursor.position, started, time.perf_counter() - started)

    def list(self, call: HdfsCall, prefix: str) -> builtins.list[StoredFile]:
        """Return the files whose path begins with the prefix, in any order."""
        folder, slash, start = prefix.rpartition("/")
        found: list[StoredFile] = []
        folders = [(folder + slash, start)]
        while folders:
            folder, start = folders.pop()
            for name, length in self._entries(call, folder):
                if not name.startswith(start):
                    continue
                if length is None:
                    folders.append((f"{folder}{name}/", ""))
                else:
                    found.append(StoredFile(folder + name, length))
        return found

    def list_folders(self, call: HdfsCall, folder: str) -> builtins.list[str]:
        """Return the names of the folders right below one, in any order."""
        return [name for name, length in self._entries(call, folder) if length is None]

    def delete(self, call: HdfsCall, prefix: str) -> None:
        """Delete a folder and all below it, if there is one."""
        folder = self._place(prefix)
        try:
            if not call.step(self._hdfs.get_file_info, folder).isdir:
                return
            call.step(self._hdfs.delete, folder, True)
        except FileNotFoundError:
            pass

    # --- steps ----------------------------------------------------------------------------

    def _place(self, path: str) -> str:
        """Return where in HDFS a path or a folder of the store is."""
        parts = path.rstrip("/").split("/") if path else []
        return "/".join([self._root, *map(_stored_name, parts)]) or "/"

    def _write(self, call: HdfsCall, place: str, parts: Sequence[memoryview], length: int) -> None:
        """Write a new file, or leave none.

        Without `fsync` it is left to the datanodes when it is on a disk.
        """
        # Not larger than the file: a namenode counts whole blocks where it compares with a quota.
        block_bytes = min(
            max(-(-length // ALIGNMENT) * ALIGNMENT, _BLOCK_BYTES_MIN), self._block_bytes_max
        )
        options = WriteOptions(block_size=block_bytes, replication=self._replication)
        file = call.step(self._hdfs.create, place, options)
        # What is returned closes the file when it is collected: it would ask HDFS, and wait for
        # it, in whichever thread lets go of an error that still holds it, the event loop's too.
        file.close = _nothing
        try:
            self._fill(call, file.inner, parts, block_bytes)
            call.step(file.inner.close)
        except BaseException:
            self._discard(place)
            raise

    def _fill(
        self, call: HdfsCall, file: RawFileWriter, parts: Sequence[memoryview], block_bytes: int
    ) -> None:
        cursor = _Cursor(parts)
        while cursor.left:
            with call.memory():
                piece = cursor.take(_PIECE_BYTES)
            call.step(file.write, piece)
            # It syncs the block that is written, no other: so each before the next begins.
            if self._fsync and (not cursor.left or cursor.position % block_bytes == 0):
                call.step(file.hsync)

    def _discard(self, place: str) -> None:
        """Delete a file that was not finished, unless that fails: then it goes with its folder."""
        with suppress(Exception):
            self._hdfs.delete(place, False)

    def _read(self, call: HdfsCall, place: str, offset: int, length: int) -> bytes:
        pieces = builtins.list(self._stream(call, place, offset, length))
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _stream(self, call: HdfsCall, place: str, offset: int, length: int) -> Iterator[bytes]:
        """Yield what a file has at `offset`, up to `length` bytes, in pieces of some 64 KiB."""
        try:
            file = call.step(self._hdfs.read, place)
        except FileNotFoundError:
            raise missing(call.path) from None
        left = max(0, min(length, file.size - offset))
        if not left:
            return
        stream = file.read_range_stream(offset, left)
        try:
            while left and (piece := call.step(next, stream, b"")):
                yield piece
                left -= len(piece)
        except OSError as error:
            raise self._why(call, place, error) from error
        if left:
            raise OSError(errno.EIO, "HDFS has sent less of a file than it has", call.path)

    def _why(self, call: HdfsCall, place: str, error: OSError) -> OSError:
        """Return the error of a read: what datanodes say of a deleted file is anything."""
        try:
            call.step(self._hdfs.get_file_info, place)
        except FileNotFoundError:
            return missing(call.path)
        except OSError:
            pass
        return error

    def _entries(self, call: HdfsCall, folder: str) -> Iterator[tuple[str, int | None]]:
        """Yield the name of each file in a folder and its length, and of each folder and None."""
        place = self._place(folder)
        start = len(place.rstrip("/")) + 1
        entries = self._hdfs.list_status(place, False)
        with suppress(FileNotFoundError):
            while (entry := call.step(next, entries, None)) is not None:
                stored = entry.path[start:]
                # Without a name it is the file itself that is in the place of the folder.
                if not stored or stored.endswith(UNFINISHED):
                    continue
                if not folder and stored.startswith(RESERVED):
                    continue
                yield unquote(stored), None if entry.isdir else entry.length


def _nothing() -> None:
    """Do nothing."""


class _Cursor:
    """Goes through memory in parts, of which it keeps no view between two calls."""

    def __init__(self, parts: Sequence[memoryview]) -> None:
        self._parts = parts
        self._index = 0
        self._offset = 0
        self.position = 0
        self.left = sum(part.nbytes for part in parts)

    def take(self, length: int) -> bytes:
        """Return a copy of the next bytes, as many as are left and not more than `length`."""
        pieces: list[bytes] = []
        left = min(length, self.left)
        while left:
            with self._view(left) as view:
                pieces.append(bytes(view))
            left -= len(pieces[-1])
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def fill(self, data: bytes) -> None:
        """Copy bytes, not more than are left, to where it stands."""
        done = 0
        while done < len(data):
            with self._view(len(data) - done) as view:
                view[:] = data[done : done + len(view)]
                done += len(view)

    def _view(self, length: int) -> memoryview:
        """Return a view of the next bytes in one part, to be released, and go behind it."""
        while self._offset == self._parts[self._index].nbytes:
            self._index, self._offset = self._index + 1, 0
        with self._parts[self._index].cast("B") as flat:
            view = flat[self._offset : self._offset + length]
        self._offset += len(view)
        self.position += len(view)
        self.left -= len(view)
        return view


def _stored_name(name: str) -> str:
    """Return how a component of a path is called in HDFS."""
    return _NOT_IN_NAMES.sub(lambda found: "".join(f"%{ord(c):02X}" for c in found[0]), name)
