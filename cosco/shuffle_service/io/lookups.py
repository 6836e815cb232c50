"""Looks assignments up that this daemon was not told of, by asking the metadata service."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Final

from cosco.errors import CoscoError, ExchangeClosed, ServiceUnavailable
from cosco.protocol.keys import AssignmentKey
from cosco.protocol.push.answers import NotAssigned
from cosco.shuffle_service.io.membership import MetadataLink
from cosco.shuffle_service.state.buffers.assignments import AssignmentBuffers
from cosco.shuffle_service.state.core import DaemonCore
from cosco.shuffle_service.state.intake import Found

log = logging.getLogger(__name__)

#: Assignments that are asked for at a time; the answer for one may be that for the next.
MAX_LOOK_UPS: Final = 16
_RETRY_S: Final = 0.5


class Lookups:
    """The questions of one daemon: one about an assignment at a time, for all who wait for it."""

    def __init__(self, core: DaemonCore, link: MetadataLink) -> None:
        self._core = core
        self._link = link
        self._waiting: dict[AssignmentKey, dict[Found, None]] = {}
        self._to_ask: deque[AssignmentKey] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._running = 0  # of these tasks; one that has ended is in the set for a moment yet

    def look_up(self, key: AssignmentKey, found: Found) -> Callable[[], object]:
        """Call `found` with the assignment, or with NotAssigned or ExchangeClosed.

        However long the service is away. Returns: what ends that, so that it is not called.
        """
        waiting = self._waiting.get(key)
        if waiting is None:
            waiting = self._waiting[key] = {}
            self._core.alike.begin_look_up(key)
            self._to_ask.append(key)
            if self._running < MAX_LOOK_UPS:
                self._running += 1
                task = asyncio.create_task(self._run(), name="look-up")
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
        waiting[found] = None
        return partial(waiting.pop, found, None)

    async def _run(self) -> None:
        """Ask for one assignment after another while there are any."""
        try:
            while self._to_ask:
                await self._answer(self._to_ask.popleft())
        finally:
            self._running -= 1

    async def _answer(self, key: AssignmentKey) -> None:
        waiting = self._waiting[key]
        try:
            while waiting:
                asked = list(waiting)  # who comes later is refused by a later answer alone
                result = await self._find(key)
                for found in asked if isinstance(result, CoscoError) else list(waiting):
                    if found in waiting:
                        del waiting[found]
                        self._tell(found, result)
        finally:
            del self._waiting[key]
            self._core.alike.end_look_up(key)

    def _tell(self, found: Found, result: AssignmentBuffers | CoscoError) -> None:
        try:
            found(result, time.monotonic())
        except Exception:  # whatever it is, others wait for the same
            log.exception("what a look-up found could not be used")

    async def _find(self, key: AssignmentKey) -> AssignmentBuffers | CoscoError:
        core = self._core
        while (held := core.find(key)) is None and not core.is_dropped(key.number):
            try:
                answer = await self._link.lookup(*key, core.incarnation)
            except ServiceUnavailable as error:
                log.warning("look-up of %s: %s", key, error)
                if not self._waiting[key]:
                    return error
                await asyncio.sleep(_RETRY_S)
                continue
            except ExchangeClosed as error:
                return error
            except CoscoError as error:
                return NotAssigned(str(error))
            except Exception:
                log.exception("%s could not be looked up", key)
                return NotAssigned("the look-up failed; ask for the assignment again")
            if answer is not None:
                core.learn(key, answer)
            if core.assignment(key) is None and not core.is_dropped(key.number):
                return NotAssigned(f"{key} is not this daemon's; ask for the assignment again")
        return held or ExchangeClosed(f"exchange {key.number} is closed")
