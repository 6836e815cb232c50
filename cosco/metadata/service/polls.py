"""Calls that wait for something, in the event loop, and who wakes them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Final, TypeVar

from google.protobuf.message import Message

from cosco.metadata.state.state import MetadataState
from cosco.metadata.state.waiting_calls import Waiting

#: A long poll is answered after this time at the latest.
MAX_WAIT_S: Final = 30.0
#: Long polls under way, calls; more are told to try again.
MAX_WAITING_CALLS: Final = 20_000
#: Polls that a driver gets to send in a lease, as each renews it when it comes.
POLLS_PER_LEASE: Final = 3

#: Exchanges that are looked through for what a store had, after which other calls have their turn.
EXCHANGES_AT_ONCE: Final = 64

#: A number of one byte is eight in a message, and as many as 40 in a record.
_KEPT_TIMES: Final = 48

Waiter = asyncio.Future[None]
_T = TypeVar("_T")


class Polls:
    """The long polls of a service, which look at its state again when they are woken."""

    def __init__(self, state: MetadataState, waiting_bytes: int) -> None:
        """waiting_bytes: what calls that wait may hold, all together."""
        self._state = state
        self._stopping = False
        self.waiting: Waiting[Waiter] = Waiting(MAX_WAITING_CALLS, waiting_bytes)
        #: Set when the state has probes or fences to take.
        self.errands = asyncio.Event()
        #: Set when it has exchanges to look through for what they have lost with a store.
        self.losses = asyncio.Event()

    async def poll(
        self,
        look: Callable[[], _T],
        is_answer: Callable[[_T], bool],
        add: Callable[[_T, Waiter], None],
        wait_s: float,
        *,
        held_bytes: int,
    ) -> _T:
        """Look until it is an answer, or for `wait_s`; `add` has the waiter woken for another
        look.

        held_bytes: what the call keeps in memory while it waits, see `held_by`. Raises
        ServiceUnavailable if calls that wait hold too much, or are too many.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + wait_s
        while True:
            found = look()
            left_s = deadline - loop.time()
            if self._stopping or is_answer(found) or left_s <= 0:
                return found
            self.changed()
            waiter = loop.create_future()
            add(found, waiter)
            del found  # it may name millions, and is looked for anew
            try:
                self.waiting.hold(waiter, held_bytes)
                await asyncio.wait((waiter,), timeout=left_s)
            finally:
                self.waiting.remove(waiter)  # come what may

    def tick(self, now: float, stall_s: float = 0.0) -> None:
        """Let leases run out, and move what waits for daemons.

        stall_s: nobody was answered for this time, see `MetadataState.restart_periods`.
        """
        if stall_s:
            self._state.restart_periods(now, stall_s)
        self.told(self._state.tick(now))
        self.changed()

    def stop(self) -> None:
        """Answer every long poll now, and those that come from now on at once."""
        self._stopping = True
        self.wake(self.waiting.everyone())

    @contextmanager
    def telling(self, number: int) -> Iterator[None]:
        """Wake whoever waits for an exchange if what is done meanwhile is news to them."""
        before = self._state.news(number)
        try:
            yield
        finally:
            if self._state.news(number) != before:
                self.wake(self.waiting.exchange(number))
                group_id = self._state.groups.id_of(number)
                if group_id is not None:
                    self.wake(self.waiting.group(group_id))
                application_id = self._state.applications.id_of(number)
                if application_id is not None:
                    self.wake(self.waiting.application(application_id))

    def told(self, numbers: Iterable[int]) -> None:
        """Wake whoever waits for these exchanges."""
        for number in numbers:
            self.wake(self.waiting.exchange(number))

    def changed(self) -> None:
        """Wake those who wait for epochs that have begun, and the courier if it has errands."""
        for number, index in self._state.failover.pop_begun():
            self.wake(self.waiting.begun(number, index))
        if self._state.has_errands:
            self.errands.set()
        if self._state.lost_stores.has_more:
            self.losses.set()

    @staticmethod
    def wake(waiters: list[Waiter]) -> None:
        """Have them look again."""
        for waiter in waiters:
            waiter.set_result(None)


def held_by(request: Message) -> int:
    """Return what a call keeps in memory of its request, as a message and as records."""
    return _KEPT_TIMES * request.ByteSize()


def bounded_s(asked_s: float) -> float:
    """Return how long a call may wait that asks for `asked_s`."""
    return min(asked_s, MAX_WAIT_S) if asked_s > 0 else 0.0  # 0 also for a NaN
