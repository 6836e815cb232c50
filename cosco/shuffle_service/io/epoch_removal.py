"""Has the epochs of old builds go, as the metadata service orders: from memory, then their files.

Beside the heartbeats, and beside the removal of closed exchanges, neither of which is to wait for a
large deletion. What a restart forgets is ordered again, as the service keeps no account of daemons:
it answers what this daemon says that it has done.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Final

from cosco.dfs import Store, answered_in
from cosco.protocol.events import Event, EventKind
from cosco.protocol.keys import AssignmentKey
from cosco.protocol.records import EpochsDrop, EpochsDropped
from cosco.shuffle_service.io.flusher import Flusher
from cosco.shuffle_service.state.buffers.old_epochs import Going
from cosco.shuffle_service.state.core import DaemonCore

log = logging.getLogger(__name__)

#: The folder of an assignment; what else lies in that of an exchange is left alone.
_FOLDER: Final = re.compile(r"(0|[1-9][0-9]{0,9})-([1-9][0-9]{0,9})")


@dataclass(slots=True)
class _Order:
    """What must go of an exchange: by range, the epochs before this one. `sequence`: of the last
    order that is part of it."""

    before: dict[int, int] = field(default_factory=dict)
    sequence: int = 0


class EpochRemoval:
    """Carries out what `order` was told, in `run`; for one daemon.

    timeout_s: how long writes under way of what must go are waited for.
    """

    def __init__(
        self, core: DaemonCore, flusher: Flusher, store: Store, *, timeout_s: float
    ) -> None:
        self._core = core
        self._flusher = flusher
        self._store = store
        self._timeout_s = timeout_s
        self._to_forget: dict[int, _Order] = {}
        self._to_remove: dict[int, _Order] = {}  # memory holds nothing of it
        self._has_orders = asyncio.Event()
        self._done: dict[int, int] = {}  # by exchange: the sequence of the last order

    def order(self, drops: Iterable[EpochsDrop]) -> None:
        """Have old epochs go; harmless if they went before."""
        for one in drops:
            order = self._to_forget.setdefault(one.number, _Order())
            order.before[one.range_index] = max(one.before, order.before.get(one.range_index, 0))
            order.sequence = max(one.sequence, order.sequence)
        if self._to_forget:
            self._has_orders.set()

    def dropped(self, listed: Collection[int]) -> tuple[EpochsDropped, ...]:
        """Return what has gone of the exchanges that a sweep found, and forget about others: of
        these nothing is held, and readers find nothing."""
        self._core.old_epochs.keep(frozenset(listed))
        self._done = {number: self._done[number] for number in listed if number in self._done}
        return tuple(EpochsDropped(number, done) for number, done in self._done.items())

    async def run(self) -> None:
        """Carry out orders, for ever."""
        while True:
            await self._has_orders.wait()
            self._has_orders.clear()
            await self._forget_all()
            for number in sorted(self._to_remove):
                order = self._to_remove.pop(number)
                try:
                    await self._remove(number, order)
                except OSError as error:  # it is not said to be done, so the order comes again
                    log.warning("old epochs of exchange %d are not removed yet: %s", number, error)
                else:
                    self._done[number] = max(order.sequence, self._done.get(number, 0))

    async def _forget_all(self) -> None:
        """Free memory first: a store that hangs must not hold it up."""
        for number in sorted(self._to_forget):
            order = self._to_forget.pop(number)
            if not self._core.is_dropped(number):
                self._core.drop_epochs(number, order.before)
                self._core.changed(time.monotonic())
                self._to_remove[number] = order
            await asyncio.sleep(0)  # there may be thousands

    async def _remove(self, number: int, order: _Order) -> None:
        """Delete the files of old epochs, whoever wrote them; raises OSError."""
        going = Going(number, order.before)
        async with answered_in(self._timeout_s, f"a write to {self._store.url}"):
            await self._flusher.ended(going)
        folder = f"{self._core.cluster_id}/{number}/"
        found: set[int] = set()
        for name in await self._store.list_folders(folder):
            match = _FOLDER.fullmatch(name)
            if match is None:
                continue
            key = AssignmentKey(number, int(match[1]), int(match[2]))
            if key in going:
                await self._store.delete_prefix(self._core.folder(key))
                found.add(key.range_index)
        if found:
            ranges = tuple(sorted(found))
            kind = EventKind.EPOCHS_DROPPED
            self._core.events.add(Event(kind=kind, number=number, range_indexes=ranges))
