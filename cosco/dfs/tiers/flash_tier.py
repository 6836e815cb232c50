"""The fast tier: puts that are passed by where it has no room or is not well, and reads.

How it is, is decided as for one of several directories (`cosco.dfs.directories`): one that errs,
hangs or is full is out, tried again with growing pauses, and told.
"""

from __future__ import annotations

import asyncio
import builtins
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, Protocol

from cosco.dfs.bounded import answered_in
from cosco.dfs.directories.put_copies import PutCopies, PutCopy
from cosco.dfs.directories.state.directory_table import DirectoryTable, Pick
from cosco.dfs.directories.watched_directories import (
    Tell,
    WatchedDirectories,
    look_at_result,
)
from cosco.dfs.local import LocalStore
from cosco.dfs.protocol import StoredFile
from cosco.dfs.tiers.state.tier_table import TierOptions, TierTable
from cosco.dfs.under_way import CallsUnderWay
from cosco.errors import DataCorrupted

#: The one directory there is, for `WatchedDirectories`.
_FLASH: Final = 0


class Check(Protocol):
    """Raises DataCorrupted if `data` is not the content of the file that a path names."""

    def __call__(self, path: str, data: memoryview) -> None: ...


class FlashTier:
    """A directory that a `TierTable` keeps account of; used from one event loop.

    puts_max: puts that may be under way. tell: told when it is out, or back. check: raises
    DataCorrupted if a file is not as it was written.
    """

    def __init__(
        self,
        store: LocalStore,
        table: TierTable,
        under_way: CallsUnderWay,
        options: TierOptions,
        *,
        puts_max: int,
        tell: Tell,
        check: Check,
    ) -> None:
        self._store = store
        self._table = table
        self._timeout_s = options.timeout_s
        self._health = DirectoryTable(1, puts_max=puts_max, reserve=options.reserve)
        self._watch = WatchedDirectories([store], self._health, under_way, options.timeout_s, tell)
        self._copies = PutCopies(puts_max)
        self._under_way = under_way
        self._check = check
        #: Called when a file has come.
        self.on_put: Callable[[], None] = lambda: None
        self._attempts: set[asyncio.Future[None]] = set()
        self._coming_bytes = 0

    @property
    def is_well(self) -> bool:
        """Whether it takes puts."""
        return self._health.takes_puts

    # --- opening and closing ---------------------------------------------------------------

    async def open(self) -> None:
        """Take the directory; raises InvalidArgument if it is not to be had."""
        await self._store.open()
        await self._measure()

    async def left(self) -> builtins.list[StoredFile]:
        """Return what an earlier start left; folders in which there is nothing go."""
        files = await self._store.list("")
        used = {"/".join(file.path.split("/")[:2]) + "/" for file in files}
        for cluster in await self._store.list_folders(""):
            for name in await self._store.list_folders(f"{cluster}/"):
                if f"{cluster}/{name}/" not in used:
                    await self._store.delete_prefix(f"{cluster}/{name}/")
        return files

    def stop(self) -> None:
        """Try no more whether it is well."""
        self._watch.stop_probes()

    async def close(self) -> None:
        """Let go of the directory, once what is under way has ended."""
        await self._watch.probes_ended()
        await self._store.close()

    async def abandon(self) -> None:
        """Let go of it although calls hang."""
        closing = asyncio.ensure_future(self._store.close())
        await asyncio.sleep(0)
        for abandoned in (closing, *self._attempts):
            abandoned.cancel()
        await asyncio.gather(closing, self._watch.probes_ended(), return_exceptions=True)

    # --- puts ------------------------------------------------------------------------------

    async def put(self, path: str, length: int, parts: Sequence[memoryview]) -> bool:
        """Write a file out of a copy. Returns False if it has to be put elsewhere."""
        if not self._table.takes(self._coming_bytes + length):
            return False
        self._coming_bytes += length
        try:
            return await self._has_room(length) and await self._put(path, length, parts)
        finally:
            self._coming_bytes -= length

    async def _put(self, path: str, length: int, parts: Sequence[memoryview]) -> bool:
        copy = await self._copies.make(parts, length)
        settled: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        settled.add_done_callback(look_at_result)
        attempt = asyncio.ensure_future(self._attempt(path, length, copy, settled))
        self._attempts.add(attempt)
        attempt.add_done_callback(self._attempts.discard)
        attempt.add_done_callback(look_at_result)
        self._under_way.add(attempt)
        try:
            await self._under_way.to_the_end(settled)
        except OSError:  # which has been told
            return False
        finally:
            self._copies.release(copy)
        return True

    async def _has_room(self, length: int) -> bool:
        pick = self._health.pick(length, time.monotonic())
        self._watch.note_changes()
        if isinstance(pick, Pick) and pick.is_stale:
            try:
                await self._measure()
            except OSError:  # which has taken it out
                return False
            pick = self._health.pick(length, time.monotonic())
            self._watch.note_changes()
        return isinstance(pick, Pick)

    async def _measure(self) -> None:
        async with answered_in(self._timeout_s, str(self._store.directory)):
            await self._watch.measure(_FLASH)
        self._table.measured(self._health.state(_FLASH).room_bytes)

    async def _attempt(
        self, path: str, length: int, copy: PutCopy, settled: asyncio.Future[None]
    ) -> None:
        """Put a file, and settle what that comes to, or that it hangs."""
        copy.users += 1

        def hangs(error: TimeoutError) -> None:
            if not settled.done():
                settled.set_exception(error)

        left = self._watch.left[_FLASH]  # what is deleted before there are puts again
        put = self._health.began(_FLASH, length, time.monotonic())
        is_durable = False
        try:
            async with self._watch.watched(_FLASH, "a write", put_bytes=length, on_hang=hangs):
                await self._store.put(path, [copy.view])
            is_durable = True
            if settled.done():  # it hung, and was put elsewhere, or will be
                left.add(path)
            else:
                left.discard(path)
                self._table.put(path, length, time.monotonic())
                settled.set_result(None)
                self.on_put()
        except OSError as error:
            if self._health.cause(_FLASH) is not None:  # else it could be deleted, and was
                left.add(path)
            if not settled.done():
                settled.set_exception(error)
        finally:
            if not settled.done():
                settled.cancel()
            self._health.ended(_FLASH, put, time.monotonic(), ok=is_durable)
            self._watch.note_changes()
            self._copies.release(copy)

    # --- reads -----------------------------------------------------------------------------

    @property
    def hangs(self) -> bool:
        """Whether a call of it is under way for too long."""
        return self._health.is_hanging(_FLASH)

    async def read(self, path: str, offset: int, length: int) -> bytes:
        """Return bytes of a file, as `Store.read`."""
        call = self._store.read(path, offset, length)
        return await self._watch.ask(_FLASH, "a read", call, of_file=True)

    async def read_into(self, path: str, offset: int, parts: Sequence[memoryview]) -> int:
        """Fill parts with bytes of a file, as `Store.read_into`."""
        self._watch.refuse_if_hanging(_FLASH)
        async with self._watch.watched(_FLASH, "a read", of_file=True):
            return await self._store.read_into(path, offset, parts)

    async def read_whole(self, path: str, view: memoryview) -> None:
        """Fill `view` with a whole file, and check that it is as it was written.

        Raises OSError, and DataCorrupted.
        """
        got = await self.read_into(path, 0, [view])
        if got < len(view):
            raise DataCorrupted(f"the file was cut short at {got}")

        def check(_folder: Path) -> None:
            self._check(path, view)

        await self._store.call(check)

    # --- deletions -------------------------------------------------------------------------

    async def remove(self, path: str) -> None:
        """Delete a file."""
        await self._watch.ask(_FLASH, "a deletion", self._store.remove(path))

    async def delete_prefix(self, prefix: str) -> None:
        """Delete what is below a folder; raises TimeoutError at once while it hangs."""
        self._watch.refuse_if_hanging(_FLASH)  # a large deletion may take its time
        await self._store.delete_prefix(prefix)
