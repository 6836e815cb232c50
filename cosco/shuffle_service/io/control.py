"""What the metadata service asks of a daemon: who is there, and to end assignments."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from cosco.errors import CoscoError, ExchangeClosed, InvalidArgument
from cosco.protocol.wire import spb
from cosco.shuffle_service.io.flusher import Flusher
from cosco.shuffle_service.state.buffers.partition_buffer import AssignmentKey
from cosco.shuffle_service.state.core import DaemonCore

log = logging.getLogger(__name__)

#: Assignments one Seal may name; several calls seal more.
MAX_SEAL_KEYS: Final = 1 << 16
_RETRY_S: Final = 0.5


class ControlService:
    """Answers Probe and Seal. `settle` puts the copies of an assignment through the buffers."""

    def __init__(
        self,
        core: DaemonCore,
        flusher: Flusher,
        settle: Callable[[AssignmentKey], Awaitable[None]],
    ) -> None:
        self._core = core
        self._flusher = flusher
        self._settle = settle
        self._unsettled: dict[AssignmentKey, None] = {}
        self._work = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        self._tasks = [asyncio.create_task(self._settle_all(), name="settle")]

    def tasks(self) -> list[asyncio.Task[None]]:
        """For the server to watch: it never ends by itself."""
        return self._tasks

    def probe(self) -> spb.ProbeReply:
        """Who this is."""
        return spb.ProbeReply(incarnation=self._core.incarnation)

    def seal(self, request: spb.SealRequest) -> spb.SealReply:
        """Take nothing more for these assignments, and begin to store what is held of them.

        Changes nothing if another incarnation is meant. Raises InvalidArgument for too many.
        """
        if len(request.keys) > MAX_SEAL_KEYS:
            raise InvalidArgument(
                f"{len(request.keys)} assignments to seal at once, at most {MAX_SEAL_KEYS} are"
            )
        incarnation = self._core.incarnation
        if request.incarnation != incarnation:
            return spb.SealReply(incarnation=incarnation)
        keys = [(key.number, key.range_index, key.epoch) for key in request.keys]
        held_bytes = self._core.seal(keys)
        self._unsettled.update((key, None) for key in keys if self._core.copies.has(key))
        self._work.set()
        self._flusher.kick()
        return spb.SealReply(incarnation=incarnation, held_bytes=held_bytes)

    async def _settle_all(self) -> None:
        """One assignment after the other, again and again until each is settled."""
        while True:
            await self._work.wait()
            self._work.clear()
            for key in list(self._unsettled):
                try:
                    await self._settle(key)
                except ExchangeClosed:
                    del self._unsettled[key]
                except (CoscoError, OSError) as error:
                    log.warning("copies of assignment %s are not stored yet: %s", key, error)
                else:
                    del self._unsettled[key]
            if self._unsettled:
                await asyncio.sleep(_RETRY_S)
                self._work.set()

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
