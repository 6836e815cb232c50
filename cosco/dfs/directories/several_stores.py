"""One store over several directories: docs/architecture/directories.md.

What is decided is in `cosco.dfs.directories.state`; here it is carried out.
"""

from __future__ import annotations

import asyncio
import builtins
import errno
import math
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Final, TypeVar

from cosco.dfs.bounded import answered_in
from cosco.dfs.directories.agreement import agree
from cosco.dfs.directories.put_copies import PutCopies, PutCopy
from cosco.dfs.directories.state.directory_table import (
    DirectoryState,
    DirectoryTable,
    NoPick,
    Pick,
    Reserve,
)
from cosco.dfs.directories.watched_directories import (
    Tell,
    WatchedDirectories,
    look_at_result,
)
from cosco.dfs.local import LocalStore
from cosco.dfs.paths import check_folder, check_prefix, check_put, check_read
from cosco.dfs.posix import FULL
from cosco.dfs.protocol import Observer, StoredFile, StoreFull
from cosco.dfs.registry import open_directory
from cosco.dfs.under_way import CallsUnderWay
from cosco.errors import InvalidArgument

T = TypeVar("T")

#: Paths of which it is remembered where they are, at about 300 bytes each.
_KNOWN_MAX: Final = 1 << 15
#: Threads of a directory beside those for its puts: for a probe, say.
_MORE_THREADS: Final = 2
#: What a put is told, by the cause for which a directory is out.
_CODES: Final = {"full": errno.ENOSPC, "hangs": errno.ETIMEDOUT}


class SeveralStores:
    """`cosco.dfs.protocol.Store` over directories, which keep a file each in one of them.

    stores: one for each directory, still to be opened.
    puts_max: puts that may be under way in one directory; its store has more threads than that.
    timeout_s: a call that is under way for longer hangs, and its directory is out; a put then goes
    to another one.
    may_miss: how many directories may be missing when the store is opened.
    """

    durable = True

    def __init__(
        self,
        stores: Sequence[LocalStore],
        *,
        puts_max: int,
        timeout_s: float = math.inf,
        reserve: Reserve | None = None,
        may_miss: int = 0,
        tell: Tell = lambda _url, _change: None,
    ) -> None:
        self.url = ",".join(store.url for store in stores)
        self.store_id = ""
        self._stores = list(stores)
        self._names = [str(store.directory) for store in stores]
        self._timeout_s = timeout_s
        self._may_miss = may_miss
        self._under_way = CallsUnderWay()
        self._table = DirectoryTable(len(stores), puts_max=puts_max, reserve=reserve)
        self._directories = WatchedDirectories(
            self._stores, self._table, self._under_way, timeout_s, tell
        )
        #: Path → where it is, and whether a put of this process has told.
        self._known: OrderedDict[str, tuple[int, bool]] = OrderedDict()
        self._left = self._directories.left
        self._copies = PutCopies(puts_max * len(stores))
        self._attempts: set[asyncio.Future[None]] = set()

    # --- for operators --------------------------------------------------------------------

    @property
    def takes_puts(self) -> bool:
        """Whether any directory is well."""
        return self._table.takes_puts

    def states(self) -> Mapping[str, DirectoryState]:
        """Return how each directory is, by its path."""
        return {name: self._table.state(index) for index, name in enumerate(self._names)}

    # --- opening --------------------------------------------------------------------------

    async def open(self) -> None:
        if len(self._stores) == 1:
            await self._stores[0].open()
            self.store_id = self._stores[0].store_id
        else:
            ready = await agree(self._stores, self._timeout_s, self._may_miss)
            self.store_id = self._directories.store_id = ready.store_id
            gone = ready.gone
            for index, name in enumerate(self._names):
                reason = ready.missing.get(name)
                if reason is None:
                    try:
                        await self._stores[index].open()
                        continue
                    except InvalidArgument as error:
                        gone, reason = gone + 1, str(error)
                        if gone > self._may_miss or gone == len(self._names):
                            raise
                self._table.failed(index, reason, time.monotonic(), cause="missing")
        for index in self._directories.present():
            with suppress(OSError):  # which has taken it out
                await self._directories.measure(index)
        self._directories.note_changes()

    # --- the calls of a store -------------------------------------------------------------

    async def put(self, path: str, parts: Sequence[memoryview]) -> None:
        length = check_put(path, parts)
        refused: dict[int, OSError] = {}
        copy: PutCopy | None = None
        async with self._under_way.waited_for():
            try:
                if len(self._stores) > 1:
                    copy = await self._copies.make(parts, length)
                while (index := await self._directory_for(length, refused)) is not None:
                    try:
                        await self._put_to(index, path, length, copy or parts)
                    except OSError as error:
                        refused[index] = error
                    else:
                        return
            finally:
                if copy is not None:
                    self._copies.release(copy)
        raise self._refusal(path, refused)

    async def read(self, path: str, offset: int, length: int) -> bytes:
        check_read(path, offset, length)

        async def read(index: int) -> bytes:
            call = self._stores[index].read(path, offset, length)
            return await self._directories.ask(index, "a read", call, of_file=True)

        return await self._from_holder(path, read)

    async def read_into(self, path: str, offset: int, parts: Sequence[memoryview]) -> int:
        check_read(path, offset, sum(map(len, parts)))

        async def read(index: int) -> int:
            self._directories.refuse_if_hanging(index)
            async with self._directories.watched(
                index, "a read", of_file=True
            ):  # here, as memory of the caller is in use
                return await self._stores[index].read_into(path, offset, parts)

        async with self._under_way.waited_for():
            return await self._from_holder(path, read)

    async def list(self, prefix: str) -> builtins.list[StoredFile]:
        check_prefix(prefix)
        found: dict[str, tuple[StoredFile, int]] = {}
        lists = await self._directories.ask_all("a list", lambda store: store.list(prefix))
        for index, files in _all_of(lists).items():
            for file in files:
                known = self._known.get(file.path)
                is_own = known == (index, True)
                before = found.get(file.path)
                if (
                    before is None
                    or is_own
                    or (before[0].size_bytes < file.size_bytes and known != (before[1], True))
                ):
                    found[file.path] = file, index
        for path, (_, index) in found.items():
            self._remember(path, index, is_own=self._known.get(path) == (index, True))
        return [found[path][0] for path in sorted(found)]

    async def list_folders(self, prefix: str) -> builtins.list[str]:
        if prefix:
            check_folder(prefix)
        lists = await self._directories.ask_all("a list", lambda store: store.list_folders(prefix))
        return sorted({name for names in _all_of(lists).values() for name in names})

    async def delete_prefix(self, prefix: str) -> None:
        check_folder(prefix)

        async def delete(index: int) -> None:
            self._directories.refuse_if_hanging(index)  # a large deletion may take its time
            await self._stores[index].delete_prefix(prefix)

        async with self._under_way.waited_for():
            deletions = [delete(index) for index in self._directories.present()]
            for result in await asyncio.gather(*deletions, return_exceptions=True):
                if isinstance(result, BaseException):
                    raise result

    async def close(self) -> None:
        self._directories.stop_probes()
        try:
            await self._under_way.wait()
            await asyncio.gather(*(store.close() for store in self._stores))
        except asyncio.CancelledError:  # abandoned, so is what is under way in each
            closings = [asyncio.ensure_future(store.close()) for store in self._stores]
            await asyncio.sleep(0)
            for abandoned in (*closings, *self._attempts):
                abandoned.cancel()
            await asyncio.gather(*closings, return_exceptions=True)
            raise
        finally:
            await self._directories.probes_ended()

    # --- puts -----------------------------------------------------------------------------

    async def _directory_for(self, length: int, refused: dict[int, OSError]) -> int | None:
        """Return where to put a file, once there is a directory that is not busy; or None."""
        while True:
            pick = self._table.pick(length, time.monotonic(), refused)
            self._directories.note_changes()
            match pick:
                case NoPick.NONE:
                    return None
                case NoPick.BUSY:
                    await self._directories.changed()
                case Pick(index, is_stale):
                    if not is_stale:
                        return index
                    try:
                        async with answered_in(self._timeout_s, self._names[index]):
                            await self._directories.measure(index)
                    except OSError as error:
                        refused[index] = error

    async def _put_to(
        self, index: int, path: str, length: int, content: PutCopy | Sequence[memoryview]
    ) -> None:
        """Put a file into a directory; raises OSError, for a copy also if the put hangs."""
        settled: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        settled.add_done_callback(look_at_result)
        put = self._table.began(index, length, time.monotonic())
        attempt = asyncio.ensure_future(self._attempt(index, put, path, length, content, settled))
        self._attempts.add(attempt)
        attempt.add_done_callback(self._attempts.discard)
        attempt.add_done_callback(look_at_result)
        self._under_way.add(attempt)
        await self._under_way.to_the_end(settled)

    async def _attempt(
        self,
        index: int,
        put: int,
        path: str,
        length: int,
        content: PutCopy | Sequence[memoryview],
        settled: asyncio.Future[None],
    ) -> None:
        """Put a file into a directory, and settle what that comes to, or that it hangs."""
        copy = content if isinstance(content, PutCopy) else None
        parts = [content.view] if isinstance(content, PutCopy) else content
        if copy is not None:
            copy.users += 1

        def hangs(error: TimeoutError) -> None:
            if copy is not None:  # else the caller's memory is in use
                settled.set_exception(error)

        is_durable = False
        try:
            async with self._directories.watched(index, "a write", put_bytes=length, on_hang=hangs):
                await self._stores[index].put(path, parts)
            is_durable = True
            if settled.done():  # it hung, and was put elsewhere, or will be
                self._left[index].add(path)
            else:
                self._left[index].discard(path)
                self._remember(path, index, is_own=True)
                settled.set_result(None)
        except OSError as error:
            if self._table.cause(index) is not None:  # else it could be deleted, and was
                self._left[index].add(path)
            if not settled.done():
                settled.set_exception(error)
        finally:
            if not settled.done():
                settled.cancel()
            self._table.ended(index, put, time.monotonic(), ok=is_durable)
            self._directories.note_changes()
            if copy is not None:
                self._copies.release(copy)

    def _refusal(self, path: str, refused: Mapping[int, OSError]) -> OSError:
        """Return why no directory has taken a put."""
        reasons: list[str] = []
        codes: list[int] = []
        for index, name in enumerate(self._names):
            if (error := refused.get(index)) is not None:
                reasons.append(f"{name}: {error.strerror or error}")
                codes.append(error.errno or errno.EIO)
            else:
                reasons.append(f"{name}: {self._table.reason(index)}")
                codes.append(_CODES.get(self._table.cause(index) or "errs", errno.EIO))
        text = f"no directory takes it: {'; '.join(reasons)}"
        if all(code in FULL for code in codes):
            return StoreFull(errno.ENOSPC, text, path)
        return OSError(next(code for code in codes if code not in FULL), text, path)

    # --- reads ----------------------------------------------------------------------------

    async def _from_holder(self, path: str, read: Callable[[int], Awaitable[T]]) -> T:
        """Read a file where it is; one that is not where it was is looked for once more."""
        if (known := self._known.get(path)) is not None:
            try:
                return await read(known[0])
            except FileNotFoundError:
                self._known.pop(path, None)
        return await read(await self._find(path))

    async def _find(self, path: str) -> int:
        """Return which directory has a file; raises FileNotFoundError if none has."""
        sizes = await self._directories.ask_all(
            "a look at a file", lambda store: store.size_of(path)
        )
        found = {i: size for i, size in sizes.items() if isinstance(size, int)}
        errors = [size for size in sizes.values() if isinstance(size, OSError)]
        if found:
            index = max(found, key=lambda i: found[i])
            if not errors:
                self._remember(path, index, is_own=False)
            return index
        if errors:
            raise _worst(errors)
        raise FileNotFoundError(errno.ENOENT, "no such file in the store", path)

    def _remember(self, path: str, index: int, *, is_own: bool) -> None:
        self._known[path] = index, is_own
        self._known.move_to_end(path)
        if len(self._known) > _KNOWN_MAX:
            self._known.popitem(last=False)


def _all_of(found: Mapping[int, T | OSError]) -> dict[int, T]:
    """Return what all directories have said; raises the error of one that did not."""
    errors = [one for one in found.values() if isinstance(one, OSError)]
    if errors:
        raise _worst(errors)
    return {index: one for index, one in found.items() if not isinstance(one, OSError)}


def _worst(errors: Sequence[OSError]) -> OSError:
    """Return the error to raise: a TimeoutError, if there is one, as then nothing is lost."""
    return next((error for error in errors if isinstance(error, TimeoutError)), errors[0])


def open_directories(
    urls: Sequence[str],
    *,
    threads: int,
    timeout_s: float,
    reserve: Reserve | None = None,
    may_miss: int = 0,
    observer: Observer | None = None,
    tell: Tell = lambda _url, _change: None,
) -> SeveralStores:
    """Return the store of directories, still to be opened: this does no IO.

    `threads` is the number of writes under way at a time in each of them. Raises InvalidArgument
    for a URL that is none of a directory.
    """
    return SeveralStores(
        [
            open_directory(
                url,
                threads=threads + _MORE_THREADS,
                observer=observer,
                is_member=len(urls) > 1,
            )
            for url in urls
        ],
        puts_max=threads,
        timeout_s=timeout_s,
        reserve=reserve,
        may_miss=may_miss,
        tell=tell,
    )
