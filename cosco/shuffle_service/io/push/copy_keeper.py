"""Has copies absorbed: of sealed assignments, before reads, and when they press."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable
from typing import Final

from cosco.errors import CapacityExceeded, CoscoError
from cosco.protocol.keys import AssignmentKey
from cosco.shuffle_service.io.task_runner import TaskRunner
from cosco.shuffle_service.state.core import DaemonCore
from cosco.shuffle_service.state.intake import Intakes
from cosco.shuffle_service.state.page_queue import Turn
from cosco.shuffle_service.state.replication.copy_log import PRESSED_S, Copy

log = logging.getLogger(__name__)

_TICK_S: Final = 0.1
_RETRY_S: Final = 0.5


class CopyKeeper(TaskRunner):
    """The replica's half of the daemon; `start` to `stop` once."""

    def __init__(self, core: DaemonCore, intakes: Intakes) -> None:
        super().__init__()
        self._core = core
        self._intakes = intakes
        self._sealed: dict[AssignmentKey, None] = {}  # to be absorbed
        self._has_sealed = asyncio.Event()

    def start(self) -> None:
        """Begin to look after copies."""
        self.run("relieve-copies", self._relieve())
        self.run("absorb-copies", self._absorb_all())

    def sealed(self, keys: Iterable[AssignmentKey]) -> None:
        """Have the copies of sealed assignments absorbed soon, and tried again until they are."""
        self._sealed.update((key, None) for key in keys if self._core.copies.has(key))
        self._has_sealed.set()

    async def _absorb_all(self) -> None:
        """Absorb one sealed assignment after the other, again and again."""
        while True:
            await self._has_sealed.wait()
            self._has_sealed.clear()
            for key in list(self._sealed):
                try:
                    await self.absorb(key)
                except CapacityExceeded as error:
                    log.warning("copies of %s are not stored yet: %s", key, error)
                else:
                    del self._sealed[key]
            if self._sealed:
                await asyncio.sleep(_RETRY_S)
                self._has_sealed.set()

    async def absorb(self, key: AssignmentKey) -> None:
        """Put all copies of an assignment through the buffers, and so to a file of this daemon.

        Returns when those that are held now are in buffers; more may come meanwhile unless it
        is sealed. Raises CapacityExceeded when memory stays full, as the store takes nothing.
        """
        for copy in self._core.copies.of(key):
            if self._core.copies.holds(copy):
                await self._absorb(copy)

    async def _absorb(self, copy: Copy) -> None:
        core = self._core
        done: asyncio.Future[CoscoError | None] = asyncio.get_running_loop().create_future()

        def end(error: CoscoError | None, _: float) -> None:
            if not done.cancelled():
                done.set_result(error)

        held = core.assignment(copy.key)
        turn = Turn(
            "copies cannot be stored:",
            lambda _: core.absorb_copy(copy),
            end,
            copy.length,
            tenant=0 if held is None else held.tenant,
            is_copy=True,
        )
        core.page_queue.enter(turn, time.monotonic())
        try:
            core.kick()
            error = await done
        finally:
            core.page_queue.leave(turn)
            core.changed(time.monotonic())
        if error is not None:
            raise error
        await asyncio.sleep(0)  # there may be gigabytes of copies, and heartbeats to send

    async def _relieve(self) -> None:
        """Absorb the oldest copies when others have waited too long for them to go."""
        copies = self._core.copies
        while True:
            await asyncio.sleep(_TICK_S)
            if copies.is_over_goal:
                self._intakes.tell_primaries()
            # What is stored in memory is never released: there is nothing to wait for.
            patience_s = 0.0 if self._core.replication.volatile else PRESSED_S
            while copies.pressed(time.monotonic(), patience_s=patience_s):
                copy = copies.oldest(None)
                if copy is None:
                    break
                try:
                    await self._absorb(copy)
                except CapacityExceeded as error:
                    log.warning("%s", error)
                    break
