"""Group commit: many calls' changes become durable in one transaction."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable
from typing import Final

from cosco.errors import ServiceUnavailable
from cosco.metadata.state.records.changes import Change
from cosco.metadata.state.state import MetadataState

log = logging.getLogger(__name__)

#: A batch of this many rows is followed by a pause in which the next one gathers, as long as it
#: took to write: such batches come of commits, which change the same rows again and again.
LARGE_BATCH: Final = 64
MAX_GATHER_S: Final = 0.02
#: Calls that need a database which fails are told so after this time. Their clients come again.
TELL_S: Final = 0.5
#: A write that takes longer hangs, which is told like a failure: well before a call's deadline.
HANGS_S: Final = 5.0
_FIRST_RETRY_S = 0.1
_LAST_RETRY_S = 1.0


class Journal:
    """Writes what the state changed, and says when it is durable.

    While one batch is being written the next one gathers. A batch that cannot be written is
    tried again for ever. Meanwhile the calls that need it are told, and no other call may change
    the state (`usable`), so that it is never further ahead of the database than by what was under
    way when that began to fail.
    """

    def __init__(
        self,
        state: MetadataState,
        write: Callable[[list[Change]], Awaitable[None]],
        clock: Callable[[], float] = time.monotonic,
        *,
        path: str = "",
    ) -> None:
        """`write` applies a batch in one transaction, or raises and applies nothing of it. People
        know the database by its `path`."""
        self._state = state
        self._write = write
        self._clock = clock
        self._path = path
        self._stall_s = 0.0  # see `pop_stall_s`
        self._failure = ""  # why the last try to write failed
        self._began: float | None = None  # when the first try to write this batch began
        self._written = asyncio.Event()  # a batch was, since somebody began to wait for that
        self._wake = asyncio.Event()
        #: Set when the batch that is gathering, or being written, is durable.
        self._gathering = asyncio.Event()
        self._writing: asyncio.Event | None = None

    async def durable(self) -> None:
        """Return once everything the state has applied until now is in the database."""
        batch = self._batch()
        if batch is not None:
            await batch.wait()

    async def durable_or_told(self) -> None:
        """Return the same as `durable`; raises ServiceUnavailable if the database fails."""
        batch = self._batch()
        while batch is not None and not await _is_set_within(batch, TELL_S):
            if why := self._why_not():
                raise self._unavailable(why)

    async def usable(self) -> None:
        """Return when the state may be changed; raises ServiceUnavailable if the database fails,
        and goes on doing so for TELL_S."""
        if self._why_not():
            self._written.clear()
            if not await _is_set_within(self._written, TELL_S) and (why := self._why_not()):
                raise self._unavailable(why)

    def pop_stall_s(self) -> float:
        """Return for how long nobody was answered since the last call: the longest write.

        For ever, if one has failed: calls were refused, so that nobody could renew a lease.
        """
        stall_s, self._stall_s = self._stall_s, 0.0
        return stall_s

    def _why_not(self) -> str:
        """Return why the database takes nothing now; empty if it does, for all that is known."""
        if self._failure:
            return self._failure
        took_s = 0.0 if self._began is None else self._clock() - self._began
        return f"a write has not ended for {took_s:.0f} s" if took_s >= HANGS_S else ""

    def _batch(self) -> asyncio.Event | None:
        """Return what is set once all is durable; None if it is."""
        if self._state.has_changes:
            self._wake.set()
            return self._gathering
        return self._writing

    def _unavailable(self, why: str) -> ServiceUnavailable:
        return ServiceUnavailable(
            f"the metadata service cannot write its database {self._path} ({why}): make room on "
            "its disk, or mend it; the service goes on by itself, and nothing is lost"
        )

    async def run(self) -> None:
        """Write batches until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            batch, self._gathering = self._gathering, asyncio.Event()
            self._writing = batch
            changes = self._state.pop_changes()
            began = self._began = self._clock()
            await self._write_until_done(changes)
            self._stall_s = max(self._stall_s, self._clock() - began)
            self._began = self._writing = None
            self._written.set()
            batch.set()
            if len(changes) >= LARGE_BATCH:
                await asyncio.sleep(min(self._clock() - began, MAX_GATHER_S))

    async def _write_until_done(self, changes: list[Change]) -> None:
        retry_s = _FIRST_RETRY_S
        while True:
            try:
                await self._write(changes)
            except Exception as error:  # noqa: BLE001  whatever it is, it is tried again
                self._failed(error)
                await asyncio.sleep(retry_s)
                retry_s = min(retry_s * 2, _LAST_RETRY_S)
            else:
                self._failure = ""
                return

    def _failed(self, error: Exception) -> None:
        """Note that a try has failed, of which operators are told where transactions are made."""
        self._stall_s = math.inf
        log.debug("a batch is not written yet", exc_info=error)
        self._failure = " ".join(f"{error}".split()) or type(error).__name__


async def _is_set_within(event: asyncio.Event, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        pass
    return event.is_set()
