"""What went wrong in HDFS, as an OSError of one line.

hdfs-native has no classes for most errors: it raises RuntimeError with the text of the Rust value,
`RPCError("java.class.Name", "message\\n\\tat stack…")`, and OSError with text alone.
"""

from __future__ import annotations

import errno
import re
from typing import Final

from cosco.dfs.protocol import StoreFull

#: `RPCError("class", "message")` and the like, as Rust prints them for programmers.
_RPC: Final = re.compile(r'^(?:Fatal)?RPCError\("([^"]*)", "(.*)"\)$', re.DOTALL)
_OTHER: Final = re.compile(r'^(\w+)\("?(.*?)"?\)$', re.DOTALL)
_OS_ERROR: Final = re.compile(r"\(os error (\d+)\)")
#: What a namenode says that has datanodes, of which none takes a block: they have no room, unless
#: it takes all of them for unwell, which it does not tell apart.
_NO_ROOM: Final = re.compile(
    r"could only be (?:written|replicated) to .*There are [1-9]\d* datanode\(s\) running"
)
_NOT_A_FOLDER: Final = "(is not a directory)"
_MAX_TEXT: Final = 300

_QUOTA: Final = frozenset(
    {
        "NSQuotaExceededException",
        "DSQuotaExceededException",
        "QuotaByStorageTypeExceededException",
        "QuotaExceededException",
    }
)
_ERRNOS: Final = {
    "AccessControlException": errno.EACCES,
    "AuthorizationException": errno.EACCES,
    "SecretManager$InvalidToken": errno.EACCES,
    "SaslException": errno.EACCES,
    "SASLError": errno.EACCES,
    "GSSAPIError": errno.EACCES,
    "NoSASLMechanism": errno.EACCES,
    "FileNotFoundException": errno.ENOENT,
    "ParentNotDirectoryException": errno.ENOTDIR,
    "SafeModeException": errno.EROFS,
    "RetriableException": errno.EAGAIN,
    "StandbyException": errno.EAGAIN,
}


def as_os_error(error: BaseException, path: str) -> OSError:
    """Return what hdfs-native raised in a call for a path as an OSError that says what happened.

    It has the subclass that fits: FileNotFoundError, FileExistsError, PermissionError,
    TimeoutError, StoreFull, or that of its errno.
    """
    if isinstance(error, OSError) and error.errno is not None:
        return error
    kind, text = _kind_and_text(error)
    if kind in _QUOTA:
        return StoreFull(errno.EDQUOT, f"the quota of HDFS is used up: {text}", path)
    if _NO_ROOM.search(text):
        return StoreFull(errno.ENOSPC, f"no datanode has room: {text}", path)
    return OSError(_errno(error, kind, text), f"HDFS: {text}", path)


def missing(path: str) -> FileNotFoundError:
    """Return the error of a file that is not there."""
    return FileNotFoundError(errno.ENOENT, "no such file in the store", path)


def _kind_and_text(error: BaseException) -> tuple[str, str]:
    """Return the last name of the class that failed, and its message in one line."""
    text = str(error)
    kind = type(error).__name__
    if found := _RPC.match(text):
        kind = re.split(r"[.]", found[1])[-1]
        text = found[2]
    elif (found := _OTHER.match(text)) and isinstance(error, RuntimeError):
        kind, text = found[1], found[2] or found[1]
    # The lines that follow are a stack trace, whose line ends Rust has written as \n.
    text = re.split(r"\\n|\n", text, maxsplit=1)[0].replace('\\"', '"').strip()
    return kind, text[:_MAX_TEXT] or kind


def _errno(error: BaseException, kind: str, text: str) -> int:
    if found := _OS_ERROR.search(text):
        number = int(found[1])
        return number if number in errno.errorcode else errno.EIO
    if isinstance(error, FileNotFoundError | IsADirectoryError) or _NOT_A_FOLDER in text:
        # A file in the place of a folder: there is nothing below it.
        return errno.ENOTDIR if kind == "ParentNotDirectoryException" else errno.ENOENT
    if isinstance(error, FileExistsError):
        return errno.EEXIST
    if "timed out" in text or "deadline" in text:
        return errno.ETIMEDOUT
    if "lookup address" in text:
        return errno.EHOSTUNREACH
    return _ERRNOS.get(kind, errno.EIO)


def without_answer(seconds: float, path: str) -> TimeoutError:
    """Return the error of a call that HDFS does not answer."""
    return TimeoutError(errno.ETIMEDOUT, f"HDFS has not answered for {seconds:g} s", path)
