"""One store of two tiers: docs/architecture/tiers.md.

What is decided is in `cosco.dfs.tiers.state`; here, in `FlashTier` and in `Mover` it is carried
out.
"""

from __future__ import annotations

import asyncio
import builtins
import time
from collections.abc import Callable, Sequence
from typing import Final

from cosco.dfs.local import LocalStore
from cosco.dfs.paths import check_folder, check_prefix, check_put, check_read
from cosco.dfs.protocol import MoveTrouble, Observer, Store, StoredFile
from cosco.dfs.registry import open_flash, open_store
from cosco.dfs.tiers.flash_files import FlashClaim
from cosco.dfs.tiers.flash_tier import Check, FlashTier
from cosco.dfs.tiers.mover import Mover, TierNews
from cosco.dfs.tiers.state.tier_table import (
    MOVES_MAX,
    TierFigures,
    TierOptions,
    TierTable,
)
from cosco.dfs.under_way import CallsUnderWay
from cosco.errors import ServiceUnavailable
from cosco.format.segment_check import check_segment

#: Folders of exchanges that are looked at in the slow tier at once, when the store is opened.
_LISTS_AT_ONCE: Final = 16


class TieredStore:
    """`cosco.dfs.protocol.Store`, and `DurableLater`, over a flash of this daemon and a slow tier.

    Both are still to be opened, and only this opens them; `claim` is what `flash` is identified
    by. The id is that of `then`. Nothing moves unless `run` does.

    puts_max: puts of flash that may be under way. check: raises DataCorrupted if what is on flash
    is not as it was written.
    """

    durable = True

    def __init__(
        self,
        flash: LocalStore,
        then: Store,
        claim: FlashClaim,
        options: TierOptions,
        *,
        puts_max: int = 3,
        news: TierNews | None = None,
        check: Check = check_segment,
    ) -> None:
        self.url = f"flash={flash.url},then={then.url}"
        self.store_id = ""
        #: See `DurableLater`.
        self.on_durable: Callable[[str], None] = lambda _path: None
        self.on_lost: Callable[[str], None] = lambda _path: None
        self._then = then
        self._claim = claim
        self._flash_is_durable = options.flash_is_durable
        news = news or TierNews()
        self._count = news.count
        self._under_way = CallsUnderWay()
        self._table = table = TierTable(options)
        self._flash = FlashTier(
            flash,
            table,
            self._under_way,
            options,
            puts_max=puts_max,
            tell=news.tell_flash,
            check=check,
        )
        self._mover = Mover(self._flash, then, table, self._under_way, options.timeout_s, news)
        self._mover.on_durable, self._mover.on_lost = self._moved, self._lost
        self._flash.on_put = self._mover.wake

    # --- for the daemon, and its operators ---------------------------------------------------

    @property
    def figures(self) -> TierFigures:
        """What is on flash."""
        return self._table.figures

    @property
    def flash_is_well(self) -> bool:
        """Whether flash takes puts."""
        return self._flash.is_well

    async def run(self) -> None:
        """Move what is to be moved, for ever."""
        await self._mover.run()

    def move_all(self, on: bool) -> None:
        """Move all that there is, and what is put from now on; or no longer."""
        self._table.moves_all = on
        self._mover.wake()

    async def nothing_pending(self) -> None:
        """Wait until all that there is has moved."""
        await self._mover.nothing_pending()

    # --- DurableLater ------------------------------------------------------------------------

    def is_durable(self, path: str) -> bool:
        return self._flash_is_durable or not self._table.has(path) or self._table.has_moved(path)

    def hurry(self, prefix: str) -> None:
        if not self._flash_is_durable:
            self._table.hurry(prefix)
            self._mover.wake()

    @property
    def trouble(self) -> MoveTrouble | None:
        return self._table.trouble

    def _moved(self, path: str) -> None:
        self.on_durable(path)

    def _lost(self, path: str) -> None:
        self.on_lost(path)

    # --- the calls of a store ----------------------------------------------------------------

    async def open(self) -> None:
        await self._then.open()
        self.store_id = self._claim.then_id = self._then.store_id
        try:
            await self._flash.open()
            await self._find_left()
        except OSError as error:
            raise ServiceUnavailable(
                f"store {self.url!r} cannot be listed: {error.strerror or error}"
            ) from None

    async def _find_left(self) -> None:
        """Note what an earlier start left on flash.

        What is longer in the slow tier was put there in one piece, past a flash that had failed; an
        empty file is one of which nothing was written.
        """
        found = await self._flash.left()
        theirs: dict[str, int] = {}
        turns = asyncio.Semaphore(_LISTS_AT_ONCE)

        async def look(folder: str) -> None:
            async with turns:
                files = await self._then.list(folder)
            theirs.update((one.path, one.size_bytes) for one in files)

        folders = {"/".join(file.path.split("/")[:2]): None for file in found}
        await asyncio.gather(*map(look, folders))
        for file in found:
            if not file.size_bytes or theirs.get(file.path, 0) > file.size_bytes:
                await self._flash.remove(file.path)
            else:
                self._table.found(file.path, file.size_bytes, time.monotonic())

    async def put(self, path: str, parts: Sequence[memoryview]) -> None:
        length = check_put(path, parts)
        async with self._under_way.waited_for():
            if await self._flash.put(path, length, parts):
                self._count("put_bytes", length, "flash")
                return
        await self._then.put(path, parts)
        self._count("put_bytes", length, "then")

    async def read(self, path: str, offset: int, length: int) -> bytes:
        check_read(path, offset, length)
        if self._is_read_from_flash(path):
            try:
                return await self._flash.read(path, offset, length)
            except OSError as error:
                self._go_on(path, error)
        return await self._then.read(path, offset, length)

    async def read_into(self, path: str, offset: int, parts: Sequence[memoryview]) -> int:
        check_read(path, offset, sum(map(len, parts)))
        async with self._under_way.waited_for():
            if self._is_read_from_flash(path):
                try:
                    return await self._flash.read_into(path, offset, parts)
                except OSError as error:
                    self._go_on(path, error)
            return await self._then.read_into(path, offset, parts)

    def _is_read_from_flash(self, path: str) -> bool:
        return self._table.has(path) and not (self._flash.hangs and self._table.has_moved(path))

    def _go_on(self, path: str, error: OSError) -> None:
        """Go on with the slow tier, if that may have the file; else raise the error."""
        if isinstance(error, FileNotFoundError):
            if self._table.gone(path):
                self._mover.tell_lost(path)
        elif not self._table.has_moved(path):
            raise error

    async def list(self, prefix: str) -> builtins.list[StoredFile]:
        check_prefix(prefix)
        # In this order: what moves meanwhile is in one of both.
        own = list(self._table.under(prefix))
        found = {file.path: file for file in await self._then.list(prefix)}
        found |= {path: StoredFile(path, length) for path, length in own}
        return [found[path] for path in sorted(found)]

    async def list_folders(self, prefix: str) -> builtins.list[str]:
        if prefix:
            check_folder(prefix)
        own = self._table.folders(prefix)
        return sorted(own.union(await self._then.list_folders(prefix)))

    async def delete_prefix(self, prefix: str) -> None:
        check_folder(prefix)
        async with self._under_way.waited_for():
            await self._mover.ended(self._table.drop(prefix))
            await self._then.delete_prefix(prefix)
            await self._flash.delete_prefix(prefix)
        files, length = self._table.dropped(prefix)
        self._count("saved", files, "")
        self._count("saved_bytes", length, "")
        self._mover.wake()

    async def close(self) -> None:
        self._flash.stop()
        try:
            await self._under_way.wait()
            await self._flash.close()
            await self._then.close()
        except asyncio.CancelledError:  # what is under way in either is abandoned
            closing = asyncio.ensure_future(self._then.close())
            await self._flash.abandon()
            closing.cancel()
            await asyncio.gather(closing, return_exceptions=True)
            raise
        finally:
            self._claim.release()


def open_tiers(
    flash_url: str,
    then_url: str,
    options: TierOptions,
    *,
    threads: int,
    observer: Observer | None = None,
    flash_observer: Observer | None = None,
    news: TierNews | None = None,
) -> TieredStore:
    """Return the store of two tiers, still to be opened: this does no IO.

    `threads` is the number of writes that may be under way in each. Raises InvalidArgument for a
    URL that is refused.
    """
    claim = FlashClaim()
    then = open_store(then_url, threads=threads + MOVES_MAX + 2, observer=observer)
    flash = open_flash(flash_url, threads=threads + 2, observer=flash_observer, identify=claim.take)
    return TieredStore(flash, then, claim, options, puts_max=threads, news=news)
