"""A store in a bucket: each file is one object, put whole, and read by ranges.

By obstore, which costs the least processor time of the libraries there are, and needs no other.
It carries out requests in threads of its own, repeats those that failed for a reason that may
pass, and reads the parts of a put where they lie, without a copy, until the put has ended.

What is put is one request up to 64 MiB, and pieces of 16 MiB above that, of which a put that is
broken off may leave some, invisible: a rule of the bucket should end uploads that are a day old.
"""

from __future__ import annotations

import asyncio
import builtins
import errno
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial
from typing import Any, Final, TypeVar
from urllib.parse import unquote

import obstore
from obstore.exceptions import BaseError

from cosco.dfs.bounded import answered_in, check_answers
from cosco.dfs.identity import IDENTITY_FILE, IDENTITY_FORMAT, new_identity, parse_identity
from cosco.dfs.objects.hedging import Hedging
from cosco.dfs.objects.object_errors import (
    PastTheEnd,
    RangeIgnored,
    Torn,
    explained,
)
from cosco.dfs.objects.object_urls import connect, parse_bucket
from cosco.dfs.paths import RESERVED, check_folder, check_prefix, check_put, check_read
from cosco.dfs.protocol import IOEvent, IOKind, Observer, StoredFile
from cosco.dfs.under_way import CallsUnderWay
from cosco.errors import InvalidArgument

T = TypeVar("T")

#: A put of more than this is made in pieces, some at a time.
MULTIPART_BYTES: Final = 64 << 20
_PIECE_BYTES: Final = 16 << 20
_PIECES_AT_A_TIME: Final = 4
#: What one request lists, and what one deletes. S3 and Google's store take no more.
_LISTED: Final = 1000
_DELETED: Final = {"s3": 1000, "az": 256, "gs": 1}
#: Reads at a time: a bucket is far away, and who asks has the memory for all of them already.
READS_AT_A_TIME: Final = 32
#: Reads of an answer that broke off, and rounds of a deletion that others were part of.
_ATTEMPTS: Final = 4
_ROUNDS: Final = 20
_FIRST_PAUSE_S: Final = 0.1
#: Between two looks whether obstore has let go of memory, at most.
_LET_GO_S: Final = 0.05
#: What names of obstore may not have, and the sign that stands for it.
_ESCAPED: Final = re.compile(r"[\x00-\x1f\x7f%]")


def open_object_store(url: str, *, threads: int, observer: Observer | None) -> ObjectStore:
    """Return the store of a URL of s3://, gs:// or az://, still to be opened.

    Raises InvalidArgument for a URL, or an environment, that makes no sense.
    """
    bucket = parse_bucket(url)
    return ObjectStore(
        url,
        connect(url, bucket, 2 * threads + READS_AT_A_TIME),
        threads=threads,
        observer=observer,
        timeout_s=bucket.timeout_s,
        retry_s=bucket.retry_s,
        exclusive=bucket.exclusive,
        deleted_at_once=_DELETED[bucket.scheme],
    )


class ObjectStore:
    """`cosco.dfs.protocol.Store` over a client of obstore, which is scoped to the prefix.

    `threads` puts at a time, READS_AT_A_TIME reads and `threads` other calls; beside these a read
    that is slow may be asked for twice. Reads hold their bytes twice for a moment: in memory of
    obstore, and where they are copied to.
    """

    durable = True

    def __init__(
        self,
        url: str,
        bucket: Any,
        *,
        threads: int = 4,
        observer: Observer | None = None,
        timeout_s: float,
        retry_s: float,
        exclusive: bool = True,
        deleted_at_once: int = 1000,
    ) -> None:
        self.url = url
        self.store_id = ""
        self._bucket = bucket
        self._observer = observer
        self._retry_s = retry_s
        self._call_s = timeout_s + retry_s
        self._exclusive = exclusive
        self._deleted_at_once = deleted_at_once
        self._hedging = Hedging()
        self._puts = asyncio.Semaphore(threads)
        self._reads = asyncio.Semaphore(READS_AT_A_TIME)
        self._others = asyncio.Semaphore(threads)
        self._under_way = CallsUnderWay()
        self._closed = False

    async def open(self) -> None:
        try:
            self.store_id = await self._identity()
        except OSError as error:
            check_answers(error, self.url)
            raise InvalidArgument(f"store {self.url!r} cannot be used: {error.strerror}") from None

    async def put(self, path: str, parts: Sequence[memoryview]) -> None:
        length = check_put(path, parts)
        requests = 1 if length <= MULTIPART_BYTES else -(-length // _PIECE_BYTES) + 2
        async with self._calling(self._puts):
            pieces = [part.cast("B") for part in parts if part.nbytes]
            putting = asyncio.ensure_future(self._put(path, pieces, length, requests))
            await self._under_way.to_the_end(putting)

    async def read(self, path: str, offset: int, length: int) -> bytes:
        check_read(path, offset, length)
        return bytes(await self._read(path, offset, length))

    async def read_into(self, path: str, offset: int, parts: Sequence[memoryview]) -> int:
        length = sum(part.nbytes for part in parts)
        check_read(path, offset, length)
        data = memoryview(await self._read(path, offset, length))
        at = 0
        for part in parts:
            piece = data[at : at + part.nbytes]
            part.cast("B")[: piece.nbytes] = piece
            at += piece.nbytes
        return at

    async def list(self, prefix: str) -> builtins.list[StoredFile]:
        check_prefix(prefix)
        async with self._calling(self._others):
            files = await self._list(prefix)
        return sorted(files, key=lambda file: file.path)

    async def list_folders(self, prefix: str) -> builtins.list[str]:
        if prefix:
            check_folder(prefix)
        async with self._calling(self._others):
            found = await self._counted(
                "list",
                prefix,
                lambda: obstore.list_with_delimiter_async(self._bucket, _key(prefix[:-1]) or None),
            )
        names = (folder.rstrip("/").rpartition("/")[2] for folder in found["common_prefixes"])
        return sorted(map(unquote, names))

    async def delete_prefix(self, prefix: str) -> None:
        check_folder(prefix)
        async with self._calling(self._others):
            for _ in range(_ROUNDS):
                files = await self._list(prefix)
                if await self._delete(prefix, [file.path for file in files]):
                    return
        raise OSError(errno.EAGAIN, "others go on deleting the same files", prefix)

    async def access(self, path: str, expires_s: float) -> str | None:
        """See `cosco.dfs.protocol.GivesAccess`: a signed URL, made here without a request.

        Only credentials that have to be renewed are asked for.
        """
        check_read(path, 0, 0)
        async with self._calling(self._others), answered_in(self._call_s, "who gives credentials"):
            try:
                expires = timedelta(seconds=expires_s)
                return str(await obstore.sign_async(self._bucket, "GET", _key(path), expires))
            except (BaseError, OSError) as error:
                raise explained(error, path) from None

    async def close(self) -> None:
        self._closed = True
        await self._under_way.wait()
        self._bucket = None  # and with it its connections

    # --- opening --------------------------------------------------------------------------

    async def _identity(self) -> str:
        """Return the store's id; whoever comes first makes it, all others agree."""
        try:
            content = await self._whole(IDENTITY_FILE)
        except FileNotFoundError:
            new = new_identity()
            await self._create(IDENTITY_FILE, new.encode())
            content = await self._whole(IDENTITY_FILE)
        store_id = parse_identity(content)
        if store_id is None:
            raise OSError(
                errno.EINVAL,
                f"its object {IDENTITY_FILE} is no store identity of format {IDENTITY_FORMAT}: "
                "restore it, or give the store a prefix of its own",
            )
        # The same bytes once more: shows that the store can be written, and that the server
        # would have refused an identity beside one that was there already.
        if await self._create(IDENTITY_FILE, content) and self._exclusive:
            raise OSError(
                errno.ENOTSUP,
                "its server ignores If-None-Match, so two that open it at once could disagree on "
                "its id: add exclusive=false to the URL, and open it once before it is used",
            )
        return store_id

    async def _create(self, path: str, content: bytes) -> bool:
        """Put an object unless there is one.

        Returns: whether there was none.
        """
        try:
            await self._counted(
                "write",
                path,
                lambda: obstore.put_async(self._bucket, path, content, mode="create"),
                moved=partial(_always, len(content)),
            )
        except FileExistsError:
            return False
        return True

    async def _whole(self, path: str) -> bytes:
        async def get() -> bytes:
            result = await obstore.get_async(self._bucket, path)
            return bytes(await result.bytes_async())

        return await self._counted("read", path, get, moved=len)

    # --- putting --------------------------------------------------------------------------

    async def _put(
        self, path: str, pieces: builtins.list[memoryview], length: int, requests: int
    ) -> None:
        """Put an object, and wait until nothing reads the pieces any more, however it ended."""
        try:
            await self._counted(
                "write",
                path,
                lambda: obstore.put_async(
                    self._bucket,
                    _key(path),
                    iter(pieces),
                    use_multipart=requests > 1,
                    chunk_size=_PIECE_BYTES,
                    max_concurrency=_PIECES_AT_A_TIME,
                ),
                moved=partial(_always, length),
                requests=partial(_always, requests),
            )
        finally:
            await _let_go(pieces)

    # --- reading --------------------------------------------------------------------------

    async def _read(self, path: str, offset: int, length: int) -> Any:
        """Return what holds `length` bytes, or those up to the end of the file.

        An answer that broke off is asked for again, for as long as obstore would do so.
        """
        async with self._calling(self._reads), answered_in(self._call_s, "the store's server"):
            give_up, pause_s = time.monotonic() + self._retry_s, _FIRST_PAUSE_S
            for attempt in range(_ATTEMPTS):
                try:
                    # A file of which nothing is wanted may still be missing.
                    data = await self._hedged(path, offset, length or 1)
                except PastTheEnd:
                    return b""
                except RangeIgnored as ignored:
                    return await self._all(path, offset, length, ignored)
                except Torn:
                    if attempt + 1 == _ATTEMPTS or time.monotonic() + pause_s > give_up:
                        raise
                else:
                    return data if length else b""
                await asyncio.sleep(pause_s)
                pause_s *= 2
        raise AssertionError("the last attempt returns or raises")

    async def _hedged(self, path: str, offset: int, length: int) -> Any:
        """Ask for a range, and once more if that takes long. The first answer counts."""
        started = time.perf_counter()
        asked = [asyncio.ensure_future(self._range(path, offset, length))]
        try:
            delay_s = self._hedging.delay_s(length)
            done, _ = await asyncio.wait(asked, timeout=delay_s)
            if not done and self._hedging.take():
                asked.append(asyncio.ensure_future(self._range(path, offset, length)))
            data = await _first_that_answers(asked)
        finally:
            for request in asked:
                request.cancel()
            await asyncio.gather(*asked, return_exceptions=True)
        self._hedging.read_took(length, time.perf_counter() - started)
        return data

    async def _range(self, path: str, offset: int, length: int) -> Any:
        async def get() -> Any:
            wanted = {"range": (offset, offset + length)}
            result = await obstore.get_async(self._bucket, _key(path), options=wanted)
            data = await result.bytes_async()
            end = min(offset + length, result.meta["size"])
            if result.range != (offset, end) or len(data) != end - offset:
                raise Torn(errno.EIO, "the store's server has answered a part", path)
            return data

        return await self._counted("read", path, get, offset=offset, moved=len)

    async def _all(self, path: str, offset: int, length: int, ignored: RangeIgnored) -> Any:
        """Read a whole object of a server that answers a range of all of it with the object."""
        head = await self._counted(
            "head", path, lambda: obstore.head_async(self._bucket, _key(path))
        )
        if offset or head["size"] > length:
            raise ignored
        return await self._whole(_key(path))

    # --- listing and deleting -------------------------------------------------------------

    async def _list(self, prefix: str) -> builtins.list[StoredFile]:
        folder, _, start = _key(prefix).rpartition("/")
        before = _just_before(folder, start)

        async def entries() -> builtins.list[StoredFile]:
            found = []
            async for page in obstore.list(
                self._bucket, folder or None, offset=before, chunk_size=_LISTED
            ):
                found += [StoredFile(unquote(entry["path"]), entry["size"]) for entry in page]
            return found

        found = await self._counted(
            "list", prefix, entries, requests=lambda found: -(-len(found) // _LISTED) or 1
        )
        return [
            file
            for file in found
            if file.path.startswith(prefix) and not file.path.startswith(RESERVED)
        ]

    async def _delete(self, prefix: str, paths: builtins.list[str]) -> bool:
        """Delete files; return False if some were gone, and others may not be."""
        for first in range(0, len(paths), _LISTED):
            batch = [_key(path) for path in paths[first : first + _LISTED]]
            requests = -(-len(batch) // self._deleted_at_once)
            try:
                await self._counted(
                    "delete",
                    prefix,
                    partial(obstore.delete_async, self._bucket, batch),
                    requests=partial(_always, requests),
                )
            except FileNotFoundError:
                return False
        return True

    # --- all of them ----------------------------------------------------------------------

    async def _counted(
        self,
        kind: IOKind,
        path: str,
        request: Callable[[], Awaitable[T]],
        *,
        offset: int = 0,
        moved: Callable[[T], int] = lambda _: 0,
        requests: Callable[[T], int] = lambda _: 1,
    ) -> T:
        """Carry out a request of obstore, tell the observer, and say what went wrong.

        One that failed or was given up is told, too, with no bytes: it costs as much.
        """
        started, length, count = time.perf_counter(), 0, 1
        try:
            result = await request()
            length, count = moved(result), requests(result)
        except Torn:
            raise
        except (BaseError, OSError) as error:
            raise explained(error, path) from None
        finally:
            if self._observer is not None:
                seconds = time.perf_counter() - started
                self._observer(IOEvent(kind, path, offset, length, started, seconds, count))
        return result

    @asynccontextmanager
    async def _calling(self, places: asyncio.Semaphore) -> AsyncIterator[None]:
        """Wait for a place among the calls that may be under way, and have `close` wait."""
        if self._closed:
            raise RuntimeError("a call of a store that is closed")
        ended = asyncio.get_running_loop().create_future()
        self._under_way.add(ended)
        try:
            async with places:
                yield
        finally:
            ended.set_result(None)


async def _first_that_answers(asked: Sequence[asyncio.Future[T]]) -> T:
    """Return what the first request gives that does not fail for itself alone.

    That an object is missing is an answer. Raises the first one's error if all fail.
    """
    pending = set(asked)
    while pending:
        done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        for request in done:
            error = request.exception()
            if error is None or isinstance(error, FileNotFoundError | PastTheEnd):
                return request.result()
    return asked[0].result()


async def _let_go(pieces: Sequence[memoryview]) -> None:
    """Wait until nobody has a hold on the pieces, as obstore's threads may for a moment."""
    pause_s = 0.0
    for piece in pieces:
        while True:
            try:
                piece.release()
                break
            except BufferError:
                await asyncio.sleep(pause_s)
                pause_s = min(_LET_GO_S, 2 * pause_s + 0.0005)


def _always(number: int, _: object) -> int:
    """Return the number, whatever a request has given."""
    return number


def _key(path: str) -> str:
    """Return the name of a file's object, below the store's prefix."""
    return _ESCAPED.sub(lambda found: f"%{ord(found[0]):02X}", path)


def _just_before(folder: str, start: str) -> str | None:
    """Return a name that is below all names of a folder that begin with `start`, if need be."""
    if not start:
        return None
    last = chr(ord(start[-1]) - 1)
    before = f"{start[:-1]}{last}~" if "!" <= last < "~" and last not in "%/" else start[:-1]
    return (f"{folder}/{before}" if folder else before) or None
