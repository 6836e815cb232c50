"""Gets bytes of segments out of stores, by the URLs that daemons give; blocks.

Nothing that a daemon says is believed. A `file:` URL is followed only below a directory with the
identity file of the store that the metadata service has named, and only through folders and to
files that are no links; `http:` and `https:` are asked for one range of one length, and redirects
are not followed. No other scheme is used. Of a file it is checked that it has the length and, where
it costs no request, the index that were named.
"""

from __future__ import annotations

import errno
import mmap
import os
import stat
from typing import Final
from urllib.parse import SplitResult, unquote, urlsplit

from cosco.client.read.http_ranges import HttpRanges
from cosco.client.read.state.direct_chunk import DirectFailed, DirectFile
from cosco.dfs.identity import IDENTITY_FILE, parse_identity
from cosco.dfs.posix import read_parts
from cosco.errors import DataCorrupted
from cosco.format.chunk import ALIGNMENT
from cosco.format.segment import FOOTER_BYTES, SegmentId, check_footer

#: Files that are remembered, of a few hundred bytes each.
_SEEN_FILES: Final = 8192
_IDENTITY_BYTES: Final = 4096
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


#: What was looked at: device, inode, time of the last change, segment, length, checksum.
_File = tuple[int, int, int, SegmentId, int, int]

#: Files whose index was seen to be the one that was named, by all readers of this process: it is
#: another seek. Used by single operations, which need no lock.
_SEEN: Final[dict[_File, None]] = {}


class StoreFiles:
    """Reads for one reader; from several threads."""

    def __init__(self) -> None:
        """Begin without connections."""
        self._http = HttpRanges()

    def read(self, store_id: str, file: DirectFile, offset: int, length: int) -> memoryview:
        """Return `length` bytes of a file; both numbers are multiples of ALIGNMENT.

        Raises: DirectFailed or OSError.
        """
        reference = file.reference
        try:
            parts = urlsplit(reference.url)
            path = _path(parts)
        except ValueError:
            raise DirectFailed(f"{reference.path}: a URL was given that is none") from None
        if not path.endswith(f"/{reference.path}"):
            raise DirectFailed(f"{reference.path}: the URL of another file was given")
        if parts.scheme in ("http", "https"):
            return self._http.read(parts, reference, offset, length)
        if parts.scheme != "file":
            raise DirectFailed(f"{reference.path}: the URL that was given cannot be used")
        return self._read_file(_root(parts, reference.path), store_id, file, offset, length)

    def close(self) -> None:
        """Give up the connections."""
        self._http.close()

    # --- files ----------------------------------------------------------------------------

    def _read_file(
        self, root: str, store_id: str, file: DirectFile, offset: int, length: int
    ) -> memoryview:
        folder = os.open(root, _FOLDER)
        try:
            _check_identity(folder, root, store_id)
            fd = _open_below(folder, file.reference.path)
        finally:
            os.close(folder)
        try:
            _check_file(fd, file)
            # Memory of its own, at pages, as direct IO wants it; it goes with the last view of it.
            # Shared with forks, of which there are none to write it: private pages would be copied
            # by a fork that comes while they are filled.
            memory = memoryview(mmap.mmap(-1, length))
            got = read_parts(fd, [memory], offset)
        finally:
            os.close(fd)
        return memory[:got]


def _check_file(fd: int, file: DirectFile) -> None:
    """Check that a file is the one that was named: a file, of its length, with its index."""
    reference, info = file.reference, os.fstat(fd)
    if not stat.S_ISREG(info.st_mode) or info.st_size != reference.file_bytes:
        raise DirectFailed(f"{reference.path} has another length than was named")
    seen = (
        info.st_dev, info.st_ino, info.st_mtime_ns, file.segment, info.st_size,
        reference.index_crc,
    )  # fmt: skip
    if seen in _SEEN:
        return
    with mmap.mmap(-1, ALIGNMENT) as end:
        got = read_parts(fd, [memoryview(end)], reference.file_bytes - ALIGNMENT)
        footer = end[got - FOOTER_BYTES : got]
    try:
        check_footer(file.segment, reference.file_bytes, footer, reference.index_crc)
    except DataCorrupted as error:
        raise DirectFailed(f"{reference.path}: {error}") from None
    _SEEN[seen] = None
    for oldest in list(_SEEN)[:-_SEEN_FILES] if len(_SEEN) > _SEEN_FILES else ():
        _SEEN.pop(oldest, None)


def _path(parts: SplitResult) -> str:
    """Return the path of a URL; that of a directory may have a name that is no UTF-8."""
    return unquote(parts.path, errors="surrogateescape")


def _root(parts: SplitResult, path: str) -> str:
    """Return the directory of a store that a file's URL is of."""
    root = _path(parts)[: -len(path) - 1]
    if (
        parts.netloc or parts.query or parts.fragment
        or not root.startswith("/") or os.path.normpath(root) != root or "\0" in root
    ):  # fmt: skip
        raise DirectFailed(f"{path}: a file: URL was given that names no directory")
    return root


def _check_identity(folder: int, root: str, store_id: str) -> None:
    """Check that a directory is that of a store; raises DirectFailed, or OSError if it is none."""
    fd = os.open(IDENTITY_FILE, _FILE, dir_fd=folder)
    try:
        is_file = stat.S_ISREG(os.fstat(fd).st_mode)
        found = parse_identity(os.read(fd, _IDENTITY_BYTES)) if is_file else None
    finally:
        os.close(fd)
    if found is None or found != store_id:
        raise DirectFailed(f"the directory {root} on this host is of another store")


def _open_below(folder: int, path: str) -> int:
    """Open a file below a folder, through nothing that is a link, for direct IO if that can be."""
    *folders, name = path.split("/")
    opened = os.dup(folder)
    try:
        for each in folders:
            below = os.open(each, _FOLDER | os.O_NOFOLLOW, dir_fd=opened)
            os.close(opened)
            opened = below
        try:
            return os.open(name, _FILE | os.O_DIRECT, dir_fd=opened)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            return os.open(name, _FILE, dir_fd=opened)
    finally:
        os.close(opened)
