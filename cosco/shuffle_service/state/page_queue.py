"""Who waits for pages: within a tenant first come, first served, and tenants in turn. No IO.

What needs little does not overtake what needs much, so nobody starves. Who waits as his tenant has
all that may be his holds up nobody else. Nobody waits for pages that a failing store does not free,
either: after a while who waits is refused.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from cosco.errors import CapacityExceeded, CoscoError
from cosco.protocol.push.fair_order import FairOrder
from cosco.shuffle_service.state.flush_plan import FlushPlan
from cosco.shuffle_service.state.tenants.tenant_memory import TenantMemory


@dataclass(slots=True, eq=False)
class Turn:
    """Somebody's place in the queue; to be used again once it is done.

    why: how the error begins when it is given up. try_turn: takes what pages there are, and says
    whether that was enough; it may raise. done: called once, with the error that ended it.
    length: what is waited for, in bytes, which are flushed for it. tenant: whose rows; 0: nobody's.
    is_copy: whether they are a copy's, which waits for no writers of its tenant.
    """

    why: str
    try_turn: Callable[[float], bool]
    done: Callable[[CoscoError | None, float], None]
    length: int = 0
    tenant: int = 0
    is_copy: bool = False
    is_waiting: bool = False

    @property
    def line(self) -> tuple[int, bool]:
        """Where it waits."""
        return self.tenant, self.is_copy


class PageQueue:
    """The turns of one daemon. A store that takes nothing for `patience_s` ends them all.

    memory: what tenants have, and may have.
    """

    def __init__(self, flushes: FlushPlan, patience_s: float, memory: TenantMemory) -> None:
        """Begin with nobody who waits."""
        self._flushes = flushes
        self._patience_s = patience_s
        self._memory = memory
        self._order: FairOrder[tuple[int, bool], Turn] = FairOrder()
        self._bytes_of: Counter[int] = Counter()  # that wait, by tenant, but for copies
        self._is_serving = False
        self.waiting_bytes = 0

    @property
    def is_empty(self) -> bool:
        """Whether nobody waits."""
        return self._order.is_empty

    @property
    def held_up(self) -> Iterator[int]:
        """Yield the tenants who wait for no more than what is theirs to be flushed."""
        return (tenant for tenant, _ in self._order.lines_out)

    @property
    def wanted_bytes(self) -> int:
        """Return the bytes that wait for pages of the pool, whoever has them."""
        return self.waiting_bytes - sum(self._bytes_of[tenant] for tenant in self.held_up)

    def pressed_tenants(self) -> list[int]:
        """Return who has little left of what may be his, so that his buffers are to be flushed."""
        memory, flushes = self._memory, self._flushes
        if not memory.is_bounded:  # as mostly, and this is asked for each frame
            return []
        return [
            tenant
            for tenant in {*self.held_up, *memory.nearly_full}
            if memory.is_low(
                tenant, self._bytes_of[tenant], hanging_bytes=flushes.hanging_bytes_of(tenant)
            )
        ]

    def enter(self, turn: Turn, now: float) -> None:
        """Have it tried: now if nobody is before it, and when its turn comes."""
        order = self._order
        has_before = order.first() is not None or order.has_line(turn.line)
        if has_before or not self._try(turn, now):
            turn.is_waiting = True
            order.add(turn.line, turn)
            self._count(turn, turn.length)
            if order.first() is turn and self._is_held_up(turn):
                order.pass_over_line()

    def leave(self, turn: Turn) -> None:
        """Forget a turn; whoever comes next is to be served then."""
        if turn.is_waiting:
            turn.is_waiting = False
            self._order.remove(turn.line, turn)
            self._count(turn, -turn.length)

    def serve(self, now: float) -> None:
        """Let those in front try again: pages were freed, or something else changed."""
        if self._is_serving:
            return
        self._is_serving = True
        try:
            self._order.come_back()
            while (turn := self._order.first()) is not None:
                if self._try(turn, now):
                    continue
                if not self._is_held_up(turn):
                    break
                self._order.pass_over_line()
        finally:
            self._is_serving = False

    def _is_held_up(self, turn: Turn) -> bool:
        return not turn.is_copy and self._memory.holds_up(turn.tenant)

    def _count(self, turn: Turn, bytes_: int) -> None:
        self.waiting_bytes += bytes_
        if not turn.is_copy:
            self._bytes_of[turn.tenant] += bytes_
            if not self._bytes_of[turn.tenant]:
                del self._bytes_of[turn.tenant]

    def _try(self, turn: Turn, now: float) -> bool:
        """Whether it is done, well or not."""
        failure: CoscoError | None = None
        try:
            if not turn.try_turn(now):
                if not self._flushes.takes_nothing(now, self._patience_s):
                    return False
                failure = CapacityExceeded(
                    f"{turn.why} the store takes nothing ({self._flushes.failure}); free space "
                    "there or add daemons"
                )
        except CoscoError as error:
            failure = error
        if turn.is_waiting:
            turn.is_waiting = False
            self._order.served(turn.length)
            self._count(turn, -turn.length)
        turn.done(failure, now)
        return True
