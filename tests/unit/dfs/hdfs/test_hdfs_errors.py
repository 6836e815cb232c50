"""What hdfs-native says, as errors of the system. The texts are those of a real HDFS."""

from __future__ import annotations

import errno

import pytest

from cosco.dfs import StoreFull
from cosco.dfs.hdfs.hdfs_errors import as_os_error, missing, without_answer

STACK = (
    "\\n\\tat org.apache.hadoop.hdfs.server.namenode.FSNamesystem.startFile(FSNamesystem.java:1)"
)
HDFS = "org.apache.hadoop.hdfs"
NO_NODE = "File /x could only be written to 0 of the 1 minReplication nodes. "


def rpc(name: str, text: str) -> RuntimeError:
    """Return what hdfs-native raises for an exception of a namenode."""
    return RuntimeError(f'RPCError("{name}", "{text}{STACK}")')


class Panic(BaseException):
    """What a panic of Rust is."""


@pytest.mark.parametrize(
    ("error", "kind", "number", "text"),
    [
        (rpc(f"{HDFS}.protocol.DSQuotaExceededException", "The DiskSpace quota of /a is exceeded"),
         StoreFull, errno.EDQUOT, "the quota of HDFS is used up: The DiskSpace quota of /a is"),
        (rpc(f"{HDFS}.protocol.NSQuotaExceededException", "The NameSpace quota"),
         StoreFull, errno.EDQUOT, "used up: The NameSpace quota"),
        (rpc("java.io.IOException", NO_NODE + "There are 3 datanode(s) running and 3 node(s) are "
             "excluded in this operation."), StoreFull, errno.ENOSPC, "no datanode has room"),
        (rpc("java.io.IOException", NO_NODE + "There are 0 datanode(s) running and no node(s) are "
             "excluded in this operation."), OSError, errno.EIO, "There are 0 datanode(s)"),
        (rpc("org.apache.hadoop.security.AccessControlException", 'Permission denied: inode=\\"/p'),
         PermissionError, errno.EACCES, 'HDFS: Permission denied: inode="/p'),
        (rpc("org.apache.hadoop.security.AccessControlException", "/a/x (is not a directory)"),
         FileNotFoundError, errno.ENOENT, "is not a directory"),
        (rpc("org.apache.hadoop.fs.ParentNotDirectoryException", "/a/x (is not a directory)"),
         NotADirectoryError, errno.ENOTDIR, "is not a directory"),
        (rpc(f"{HDFS}.server.namenode.SafeModeException", "Name node is in safe mode.\\nIt was"),
         OSError, errno.EROFS, "HDFS: Name node is in safe mode."),
        (rpc("org.apache.hadoop.ipc.StandbyException", "Operation category WRITE"),
         BlockingIOError, errno.EAGAIN, "Operation category WRITE"),
        (FileNotFoundError("File does not exist: /x\n\tat org.apache"),
         FileNotFoundError, errno.ENOENT, "HDFS: File does not exist: /x"),
        (FileExistsError("/x for client 10.0.0.1 already exists\n\tat org.apache"),
         FileExistsError, errno.EEXIST, "HDFS: /x for client 10.0.0.1 already exists"),
        (OSError("Connection refused (os error 111)"),
         ConnectionRefusedError, errno.ECONNREFUSED, "HDFS: Connection refused"),
        (OSError("failed to lookup address information: Name or service not known"),
         OSError, errno.EHOSTUNREACH, "failed to lookup address"),
        (OSError("deadline has elapsed"), TimeoutError, errno.ETIMEDOUT, "deadline has elapsed"),
        (OSError("RPC listener disconnected"), OSError, errno.EIO, "RPC listener disconnected"),
        (RuntimeError('DataTransferError("All nodes failed for write")'),
         OSError, errno.EIO, "HDFS: All nodes failed for write"),
        (RuntimeError("ChecksumError"), OSError, errno.EIO, "HDFS: ChecksumError"),
        (Panic("Cannot read past end of the file"), OSError, errno.EIO, "Cannot read past"),
        (RuntimeError(""), OSError, errno.EIO, "HDFS: RuntimeError"),
    ],
)  # fmt: skip
def test_errors_say_what_happened_in_one_line(
    error: BaseException, kind: type[OSError], number: int, text: str
) -> None:
    told = as_os_error(error, "c/f")
    assert type(told) is kind
    assert told.errno == number
    assert told.filename == "c/f"
    assert text in str(told)
    assert "\n" not in str(told)
    assert "org.apache" not in str(told)


def test_long_texts_are_cut() -> None:
    assert len(str(as_os_error(RuntimeError("x" * 10_000), "c/f"))) < 400


def test_errors_that_are_clear_already_stay() -> None:
    for error in (missing("c/f"), without_answer(1, "c/f")):
        assert as_os_error(error, "c/f") is error
