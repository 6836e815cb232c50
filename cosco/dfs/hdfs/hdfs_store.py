"""A store in HDFS, by hdfs-native: no JVM, no Hadoop on the daemon's host.

All calls run in a few threads. hdfs-native has calls for asyncio too, but they copy and checksum
in the event loop while they hold the interpreter's lock; those of its other client let it go.

hdfs-native waits for ever for a namenode whose host is gone: until the kernel gives the
connection up, which takes 15 minutes. So a call that HDFS has not answered for `timeout_s` is
given up, and all later ones take another client, with threads and connections of its own. The
thread that hangs is left to the kernel.
"""

from __future__ import annotations

import asyncio
import builtins
import re
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final, Literal, TypeVar, cast
from urllib.parse import parse_qsl, unquote, urlsplit

from cosco.dfs.bounded import check_answers
from cosco.dfs.hdfs.hdfs_call import HdfsCall
from cosco.dfs.hdfs.hdfs_client import BLOCK_BYTES_MAX, UNFINISHED, HdfsClient, Timed
from cosco.dfs.hdfs.hdfs_errors import without_answer
from cosco.dfs.paths import check_folder, check_prefix, check_put, check_read
from cosco.dfs.protocol import IOEvent, Observer, StoredFile
from cosco.dfs.store_threads import StoreThreads
from cosco.errors import InvalidArgument

T = TypeVar("T")

#: Longer than the 60 s after which hdfs-native leaves a datanode that does not answer.
_TIMEOUT_S: Final = 120.0
_TIMEOUT_S_MAX: Final = 86_400
#: Clients that were left with threads that hang; while there are more, calls wait for the last.
_LEFT_CLIENTS_MAX: Final = 8
#: How often a call looks that waits for a thread: another client may have threads meanwhile.
_QUEUE_LOOK_S: Final = 1.0
_REPLICATION_MAX: Final = 512  # of Hadoop
_SHAPE: Final = "write hdfs://HOST:PORT/DIR or hdfs://NAMESERVICE/DIR"
_PARAMETERS: Final = "the parameters are replication=1 to 512, fsync=false and timeout_s="
_BOOLEANS: Final = {"true": True, "false": False}
_HOST: Final = re.compile(r"[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]")


def open_hdfs_store(url: str, *, threads: int = 4, observer: Observer | None = None) -> HdfsStore:
    """Return the store of a URL `hdfs://…`, still to be opened: this does no IO.

    Raises InvalidArgument for a URL that does not make sense.
    """
    parts = urlsplit(url)
    root = unquote(parts.path)
    try:
        port = parts.port
        parameters = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=True))
    except ValueError:
        raise InvalidArgument(f"store {url!r} is no URL: {_SHAPE}") from None
    host = parts.netloc if port is None else parts.netloc.removesuffix(f":{port}")
    if not _HOST.fullmatch(host) or port == 0:
        raise InvalidArgument(f"store {url!r} names no namenode: {_SHAPE}")
    components = root.strip("/").split("/")
    if any(c in ("", ".", "..") or re.search(r"[\x00-\x1f\x7f:]", c) for c in components):
        raise InvalidArgument(f"store {url!r} names no folder of HDFS: {_SHAPE}")
    replication = _number(parameters.pop("replication", None), _REPLICATION_MAX)
    timeout_s = _number(parameters.pop("timeout_s", str(int(_TIMEOUT_S))), _TIMEOUT_S_MAX)
    fsync = _BOOLEANS.get(parameters.pop("fsync", "true"))
    if parameters or parts.fragment or fsync is None or not timeout_s or replication == 0:
        raise InvalidArgument(f"store {url!r} has an unknown parameter: {_PARAMETERS}")
    return HdfsStore(
        url,
        f"hdfs://{parts.netloc}",
        "/" + "/".join(components),
        replication=replication,
        fsync=fsync,
        timeout_s=timeout_s,
        threads=threads,
        observer=observer,
    )


class _Line:
    """A way to HDFS: a client, made when it is first used, and its threads."""

    def __init__(self, make_client: Callable[[], HdfsClient], threads: int) -> None:
        self._make_client = make_client
        self._lock = threading.Lock()
        self._client: HdfsClient | None = None
        self._users = 0
        # Reads that hang must not keep writes from a thread, nor writes reads.
        self.writing = StoreThreads(threads)
        self.others = StoreThreads(threads)

    @property
    def is_used(self) -> bool:
        """Whether a thread uses the client, or hangs in it."""
        return self._users > 0

    def use(self, function: Callable[[HdfsClient], T]) -> T:
        """Make a call of the client in this thread."""
        with self._lock:
            self._users += 1
            try:
                client = self._client = self._client or self._make_client()
            except BaseException:
                self._users -= 1
                raise
        try:
            return function(client)
        finally:
            with self._lock:
                self._users -= 1

    async def close(self) -> None:
        """Wait for the calls under way; when this is cancelled they are abandoned."""
        await asyncio.gather(self.writing.close(), self.others.close())

    async def leave(self) -> None:
        """Take no more calls, and let those under way end by themselves."""
        with suppress(TimeoutError):
            async with asyncio.timeout(0):
                await self.close()


class HdfsStore:
    """`cosco.dfs.protocol.Store` in one folder of a HDFS, made if it is missing.

    What is durable when: a put returns after every datanode of the pipeline has synced the
    file's bytes to its disk (hsync), the file was closed, and the namenode has the file's name in
    its journal. So neither the loss of processes nor that of power loses it, with one exception:
    a datanode whose power fails just after a close may find the block in the folder of unfinished
    ones, unless `dfs.datanode.synconclose` is set there; all replicas must fail so at once. With
    `fsync=False` the sync is left out: datanodes write to their disks when they like.

    A file has the replication of the site, or `replication`; a put whose pipeline has lost
    datanodes returns with fewer, one at least, and HDFS makes the others by itself.
    """

    durable = True

    def __init__(
        self,
        url: str,
        address: str,
        root: str,
        *,
        replication: int | None = None,
        fsync: bool = True,
        timeout_s: float = _TIMEOUT_S,
        threads: int = 4,
        block_bytes_max: int = BLOCK_BYTES_MAX,
        observer: Observer | None = None,
    ) -> None:
        self.url = url
        self.store_id = ""
        self._timeout_s = timeout_s
        self._observer = observer
        self._make_client = partial(
            HdfsClient, address, root,
            replication=replication, fsync=fsync, block_bytes_max=block_bytes_max,
        )  # fmt: skip
        self._threads = threads
        self._line = _Line(self._make_client, threads)
        self._left: list[_Line] = []
        self._is_closed = False

    async def open(self) -> None:
        try:
            self.store_id = await self._call(self.url, HdfsClient.open)
        except OSError as error:
            check_answers(error, self.url)
            raise InvalidArgument(
                f"store {self.url!r} cannot be written: {error.strerror}: give its user a folder "
                "to write to (HADOOP_USER_NAME, HADOOP_CONF_DIR)"
            ) from error

    async def put(self, path: str, parts: Sequence[memoryview]) -> None:
        length = check_put(path, parts)
        if path.endswith(UNFINISHED):
            raise ValueError(f"{path!r} is no path within this store: it ends in {UNFINISHED}")
        timed = await self._call(path, HdfsClient.put, path, length, parts, writes=True)
        self._observe("write", path, 0, timed)

    async def read(self, path: str, offset: int, length: int) -> bytes:
        check_read(path, offset, length)
        data, timed = await self._call(path, HdfsClient.read, path, offset, length)
        self._observe("read", path, offset, timed)
        return data

    async def read_into(self, path: str, offset: int, parts: Sequence[memoryview]) -> int:
        check_read(path, offset, sum(part.nbytes for part in parts))
        timed = await self._call(path, HdfsClient.read_into, path, offset, parts)
        self._observe("read", path, offset, timed)
        return timed.length

    async def list(self, prefix: str) -> builtins.list[StoredFile]:
        check_prefix(prefix)
        found = await self._call(prefix, HdfsClient.list, prefix)
        return sorted(found, key=lambda file: file.path)

    async def list_folders(self, prefix: str) -> builtins.list[str]:
        if prefix:
            check_folder(prefix)
        return sorted(await self._call(prefix, HdfsClient.list_folders, prefix))

    async def delete_prefix(self, prefix: str) -> None:
        check_folder(prefix)
        await self._call(prefix, HdfsClient.delete, prefix)

    async def close(self) -> None:
        self._is_closed = True
        await self._line.close()
        for line in self._left:
            await line.leave()

    def _observe(
        self, kind: Literal["read", "write"], path: str, offset: int, timed: Timed
    ) -> None:
        if self._observer is not None:
            event = IOEvent(kind, path, offset, timed.length, timed.start, timed.seconds)
            self._observer(event)

    async def _call(
        self, path: str, function: Callable[..., T], *args: Any, writes: bool = False
    ) -> T:
        """Make one call of the client in a thread, and wait for it as long as HDFS answers.

        When this is cancelled the call ends after the step under way; memory of the caller is
        not used any more.
        """
        while True:
            line = self._line
            call = HdfsCall(path)

            def make(client: HdfsClient, call: HdfsCall = call) -> T:
                return function(client, call, *args)

            threads = line.writing if writes else line.others
            running = threads.run(partial(call.run, partial(line.use, make)))
            try:
                while not (await asyncio.wait({running}, timeout=self._left_s(call)))[0]:
                    if call.silent_s >= self._timeout_s:
                        await self._leave(line)
                        raise without_answer(self._timeout_s, path)
                    if line is not self._line and not call.began:
                        break  # it waits for threads that hang, and there are others now
                else:
                    return cast("T", running.result())  # None only where it was given up
            finally:
                call.give_up()
                running.cancel()

    def _left_s(self, call: HdfsCall) -> float:
        """Return after how many seconds to look at a call again."""
        return max(0.01, self._timeout_s - call.silent_s) if call.began else _QUEUE_LOOK_S

    async def _leave(self, line: _Line) -> None:
        """Have later calls take another client than this one, of which a call hangs."""
        self._left = [left for left in self._left if left.is_used]
        if line is self._line and not self._is_closed and len(self._left) < _LEFT_CLIENTS_MAX:
            self._line = _Line(self._make_client, self._threads)
            self._left.append(line)
            await line.leave()


def _number(text: str | None, most: int) -> int | None:
    """Return a whole number from 1 to `most`; 0 for what is none, and None for None."""
    if text is None:
        return None
    is_one = text.isascii() and text.isdigit() and len(text) < 9 and 0 < int(text) <= most
    return int(text) if is_one else 0
