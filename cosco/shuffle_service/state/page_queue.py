"""Who waits for pages: first come, first served. No IO.

What needs little does not overtake what needs much, so nobody starves. Nobody waits for pages
that a failing store does not free, either: after a while who waits is refused.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from cosco.errors import CapacityExceeded, CoscoError
from cosco.shuffle_service.state.flush_plan import FlushPlan


@dataclass(slots=True, eq=False)
class Turn:
    """Somebody's place in the queue; to be used again once it is done.

    why: how the error begins when it is given up. try_turn: takes what pages there are, and says
    whether that was enough; it may raise. done: called once, with the error that ended it.
    length: what is waited for, in bytes, which are flushed for it.
    """

    why: str
    try_turn: Callable[[float], bool]
    done: Callable[[CoscoError | None, float], None]
    length: int = 0
    is_waiting: bool = False


class PageQueue:
    """The turns of one daemon. A store that takes nothing for `patience_s` ends them all."""

    def __init__(self, flushes: FlushPlan, patience_s: float) -> None:
        self._flushes = flushes
        self._patience_s = patience_s
        self._turns: deque[Turn] = deque()
        self._is_serving = False
        self.waiting_bytes = 0

    def enter(self, turn: Turn, now: float) -> None:
        """Have it tried: now if nobody is before it, and when its turn comes."""
        if self._turns or not self._try(turn, now):
            turn.is_waiting = True
            self._turns.append(turn)
            self.waiting_bytes += turn.length

    def leave(self, turn: Turn) -> None:
        """Forget a turn; whoever comes next is to be served then."""
        if turn.is_waiting:
            turn.is_waiting = False
            self._turns.remove(turn)
            self.waiting_bytes -= turn.length

    def serve(self, now: float) -> None:
        """Let those in front try again: pages were freed, or something else changed."""
        if self._is_serving:
            return
        self._is_serving = True
        try:
            while self._turns and self._try(self._turns[0], now):
                pass
        finally:
            self._is_serving = False

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
            self.leave(turn)
        turn.done(failure, now)
        return True
