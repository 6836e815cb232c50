"""Group commit: many calls' changes become durable in one transaction."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Final

from cosco.metadata.state.records.changes import Change
from cosco.metadata.state.state import MetadataState

log = logging.getLogger(__name__)

#: A batch of this many rows is followed by a pause in which the next one gathers, as long as it
#: took to write: such batches come of commits, which change the same rows again and again.
LARGE_BATCH: Final = 64
MAX_GATHER_S: Final = 0.02
_FIRST_RETRY_S = 0.1
_LAST_RETRY_S = 5.0


class Journal:
    """Writes what the state changed, and says when it is durable.

    While one batch is being written the next one gathers. A batch that cannot be written is
    tried again for ever; the calls that need it wait.
    """

    def __init__(
        self,
        state: MetadataState,
        write: Callable[[list[Change]], Awaitable[None]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`write` applies a batch in one transaction, or raises and applies nothing of it."""
        self._state = state
        self._write = write
        self._clock = clock
        self._wake = asyncio.Event()
        #: Set when the batch that is gathering, or being written, is durable.
        self._gathering = asyncio.Event()
        self._writing: asyncio.Event | None = None

    async def durable(self) -> None:
        """Return once everything the state has applied until now is in the database."""
        if self._state.has_changes:
            self._wake.set()
            await self._gathering.wait()
        elif self._writing is not None:
            await self._writing.wait()

    async def run(self) -> None:
        """Write batches until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            batch, self._gathering = self._gathering, asyncio.Event()
            self._writing = batch
            changes = self._state.pop_changes()
            began = self._clock()
            await self._write_until_done(changes)
            self._writing = None
            batch.set()
            if len(changes) >= LARGE_BATCH:
                await asyncio.sleep(min(self._clock() - began, MAX_GATHER_S))

    async def _write_until_done(self, changes: list[Change]) -> None:
        retry_s = _FIRST_RETRY_S
        while True:
            try:
                await self._write(changes)
            except Exception:
                log.exception(
                    "%d changes are not written yet, trying again in %g s; answers wait",
                    len(changes),
                    retry_s,
                )
                await asyncio.sleep(retry_s)
                retry_s = min(retry_s * 2, _LAST_RETRY_S)
            else:
                return
