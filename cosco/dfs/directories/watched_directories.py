"""Directories of one store, of which those that hang or fail are taken out, and tried again.

docs/architecture/directories.md has the rules; `DirectoryTable` decides.
"""

from __future__ import annotations

import asyncio
import builtins
import errno
import math
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, TypeVar

from cosco.dfs.directories.set_files import look_at
from cosco.dfs.directories.state.directory_table import Change, DirectoryTable
from cosco.dfs.local import LocalStore
from cosco.dfs.protocol import StoreFull
from cosco.dfs.under_way import CallsUnderWay
from cosco.errors import CoscoError, InvalidArgument

T = TypeVar("T")

#: Errors of one file, or of this process: they say nothing of the directory.
_NOT_OF_DIRECTORY: Final = frozenset(
    {errno.EFBIG, errno.ENAMETOOLONG, errno.EMFILE, errno.ENFILE, errno.ENOMEM}
)

#: Told of each directory, by its URL, that is out or back.
Tell = Callable[[str, Change], None]


class WatchedDirectories:
    """Makes calls of the stores of directories, by their index, and notes how they go.

    timeout_s: a call that is under way for longer hangs.
    """

    def __init__(
        self,
        stores: Sequence[LocalStore],
        table: DirectoryTable,
        under_way: CallsUnderWay,
        timeout_s: float,
        tell: Tell,
    ) -> None:
        self.stores = stores
        self.names = [str(store.directory) for store in stores]
        self.table = table
        #: The id that all of them have together, once they are open.
        self.store_id = ""
        #: By directory, what puts have left that failed.
        self.left: list[set[str]] = [set() for _ in stores]
        self.timeout_s = timeout_s
        self._tell = tell
        self._under_way = under_way
        self._changed = asyncio.Event()
        self._probes: set[asyncio.Task[None]] = set()
        self._is_closed = False

    async def changed(self) -> None:
        """Wait until a put has ended, or a directory is out or back."""
        await self._changed.wait()

    def stop_probes(self) -> None:
        """Bring no directory back any more."""
        self._is_closed = True
        for probe in self._probes:
            probe.cancel()

    async def probes_ended(self) -> None:
        """Wait for the probes that were stopped."""
        await asyncio.gather(*self._probes, return_exceptions=True)

    async def measure(self, index: int) -> None:
        free_bytes, total_bytes = await self.ask(
            index, "a look at free bytes", self.stores[index].room()
        )
        self.table.measured(index, free_bytes, total_bytes, time.monotonic())

    # --- calls of directories -------------------------------------------------------------

    def present(self) -> builtins.list[int]:
        """Return the directories that are not missing since the start."""
        return [i for i in range(len(self.stores)) if self.table.cause(i) != "missing"]

    async def ask_all(
        self, what: str, call: Callable[[LocalStore], Coroutine[Any, Any, T]]
    ) -> dict[int, T | OSError]:
        """Return what each directory says; the error of one that cannot."""

        async def ask(index: int) -> T | OSError:
            try:
                return await self.ask(index, what, call(self.stores[index]))
            except OSError as error:
                return error

        indexes = self.present()
        found = await asyncio.gather(*map(ask, indexes))
        return dict(zip(indexes, found, strict=True))

    async def ask(
        self, index: int, what: str, call: Coroutine[Any, Any, T], *, of_file: bool = False
    ) -> T:
        """Make a call that uses no memory of the caller: it goes on if the caller does not wait."""
        try:
            self.refuse_if_hanging(index)
        except OSError:
            call.close()
            raise

        async def ask() -> T:
            async with self.watched(index, what, of_file=of_file):
                return await call

        asking = self._under_way.add(asyncio.ensure_future(ask()))
        asking.add_done_callback(look_at_result)
        return await asyncio.shield(asking)

    def refuse_if_hanging(self, index: int) -> None:
        if self.table.is_hanging(index):
            raise TimeoutError(
                errno.ETIMEDOUT, f"{self.names[index]} hangs: {self.table.reason(index)}"
            )

    @asynccontextmanager
    async def watched(
        self,
        index: int,
        what: str,
        *,
        put_bytes: int = 0,
        of_file: bool = False,
        on_hang: Callable[[TimeoutError], None] = lambda _error: None,
    ) -> AsyncIterator[None]:
        """Take a directory out whose call, in this block, hangs or fails.

        of_file: it may find that there is no such file.
        """
        hung = asyncio.Event()

        def hangs() -> None:
            hung.set()
            reason = f"{what} has been under way for {self.timeout_s:g} s"
            self.table.hangs(index, reason, time.monotonic())
            self.note_changes()
            on_hang(TimeoutError(errno.ETIMEDOUT, reason))

        loop = asyncio.get_running_loop()
        timer = loop.call_later(self.timeout_s, hangs) if self.timeout_s < math.inf else None
        try:
            yield
        except StoreFull as error:
            reason = error.strerror or str(error)
            self.table.filled(index, put_bytes, reason, time.monotonic())
            raise
        except OSError as error:
            is_missing = of_file and isinstance(error, FileNotFoundError)
            if error.errno not in _NOT_OF_DIRECTORY and not is_missing:
                reason = f"{what} failed: {error.strerror or error}"
                self.table.failed(index, reason, time.monotonic())
            raise
        finally:
            if timer is not None:
                timer.cancel()
            if hung.is_set():
                self.table.answered(index)
            self.note_changes()

    # --- out and back ---------------------------------------------------------------------

    def note_changes(self) -> None:
        """Tell what was taken out or is back, and wake the puts that wait."""
        for change in self.table.pop_changes():
            self._tell(self.stores[change.index].url, change)
            if change.is_out and not self._is_closed:
                probe = asyncio.create_task(self._bring_back(change.index), name="probe")
                self._probes.add(probe)
                probe.add_done_callback(self._probes.discard)
        self._changed.set()
        self._changed = asyncio.Event()

    async def _bring_back(self, index: int) -> None:
        """Try a directory that is out until it is back."""
        while (wait_s := self.table.probe_in(index)) is not None:
            await asyncio.sleep(wait_s)
            if not self.table.may_probe(index):
                continue
            try:
                await self._probe(index)
            except (CoscoError, OSError) as error:
                self.table.probe_failed(index, getattr(error, "strerror", None) or str(error))
            else:
                self.table.probed_well(index, time.monotonic())
            self.note_changes()

    async def _probe(self, index: int) -> None:
        """Raise OSError, or InvalidArgument, if a directory is not well."""
        store, cause = self.stores[index], self.table.cause(index)
        if cause != "full":
            await self.ask(index, "a probe", self._open_again(store))
        for path in list(self.left[index]):
            await self.ask(index, "a deletion", store.remove(path))
            self.left[index].discard(path)
        await self.measure(index)
        if cause == "full" and not self.table.has_room_again(index):
            raise StoreFull(errno.ENOSPC, self.table.reason(index))

    async def _open_again(self, store: LocalStore) -> None:
        """Try a directory; one of several that was mounted anew is opened, if it is a member."""
        if len(self.stores) > 1:
            seen = await store.call(look_at)
            if seen.membership is None or seen.membership.store_id != self.store_id:
                raise InvalidArgument(f"{store.directory} has no identity of this store")
            await store.open()
        await store.check()


def look_at_result(call: asyncio.Future[Any]) -> None:
    """Have an error be no surprise where nobody waits for the call any more."""
    if not call.cancelled():
        call.exception()
