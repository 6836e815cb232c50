"""Finds assignments: those this daemon has, else by asking the metadata service once."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field
from typing import Final

from cosco.errors import CoscoError, ExchangeClosed, ServiceUnavailable
from cosco.protocol.group_records import FoundAssignment
from cosco.shuffle_service.io.membership import MetadataLink
from cosco.shuffle_service.state.buffers.assignments import AssignmentBuffers, NotAssigned
from cosco.shuffle_service.state.buffers.partition_buffer import AssignmentKey
from cosco.shuffle_service.state.core import DaemonCore

log = logging.getLogger(__name__)

_RETRY_S: Final = 0.5


@dataclass(slots=True, eq=False)
class _LookUp:
    """One assignment that is asked for, and how many wait for it."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    users: int = 0


class Lookups:
    """The assignments of one daemon, also those it was not told of yet."""

    def __init__(self, core: DaemonCore, link: MetadataLink) -> None:
        self._core = core
        self._link = link
        self._under_way: dict[AssignmentKey, _LookUp] = {}

    async def find(self, key: AssignmentKey) -> AssignmentBuffers:
        """The assignment, once the metadata service answers.

        Raises NotAssigned if it is not this daemon's, ExchangeClosed.
        """
        number, range_index, epoch = key
        look_up = self._under_way.get(key)
        if look_up is None:
            look_up = self._under_way[key] = _LookUp()
            self._core.alike.begin_look_up(key)
        look_up.users += 1
        try:
            async with look_up.lock:  # once for all who wait
                while (held := self._core.find(key)) is None:
                    if self._core.is_dropped(number):
                        raise ExchangeClosed(f"exchange {number} is closed")
                    found = await self._ask(key)
                    if found is not None:
                        self._core.learn(key, found)
                    if found is None or not self._is_known(key):
                        raise NotAssigned(
                            f"range {range_index} of exchange {number} in epoch {epoch} is not "
                            "this daemon's; ask for the assignment again"
                        )
                return held
        finally:
            look_up.users -= 1
            if not look_up.users:
                del self._under_way[key]
                self._core.alike.end_look_up(key)

    def _is_known(self, key: AssignmentKey) -> bool:
        return self._core.assignment(key) is not None or self._core.is_dropped(key[0])

    async def _ask(self, key: AssignmentKey) -> FoundAssignment | None:
        """The service's answer, however long it is away; raises ExchangeClosed, NotAssigned."""
        while True:
            try:
                return await self._link.lookup(*key, self._core.incarnation)
            except ServiceUnavailable as error:
                log.warning("look-up of assignment %s: %s", key, error)
                await asyncio.sleep(_RETRY_S)
            except ExchangeClosed:
                raise
            except CoscoError as error:
                raise NotAssigned(str(error)) from None
