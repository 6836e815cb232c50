"""When a daemon that was asked to end may: pure, told of answers and of time.

A draining daemon goes on serving. The metadata service seals its epochs, writers move by
that, and it stores what it has; then the service says that it may exit, or it serves on,
when its store is its own and open exchanges have files there.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

from cosco.protocol.records import DaemonOrders

#: Without an answer of the metadata service for this time, it need not be waited for, unless it
#: has said that readers need this daemon.
DRAIN_ALONE_S: Final = 5.0
#: What is stored and sealed for this time, and not let go, is needed until exchanges close.
SERVES_ON_AFTER_S: Final = 1.0
#: One that was let go has this time to delete what it was told to, and to confirm that: the answer
#: that lets it go is often the one that an exchange is closed, and nobody else may reach its files.
DROPS_S: Final = 10.0
#: Storing at the very end gets at least this time, whatever the drain took before.
_LAST_STORE_S: Final = 5.0
#: But this time if a write has hung for long by then.
_HANGING_STORE_S: Final = 1.0


class Step(Enum):
    """What a draining daemon does next."""

    WAIT = 1
    SERVE_ON = 2  # nothing more to do but to serve readers
    EXIT = 3  # store what there still is, and end


class Drain:
    """One drain, from `begin` to `Step.EXIT`. All times are of one clock, in seconds.

    store_s: the longest time that rows may stay in memory meanwhile.
    """

    def __init__(self, store_s: float) -> None:
        self._store_s = store_s
        self._answered_at = 0.0
        self._answers = 0
        self._may_exit = False
        self._let_go_at = 0.0
        self._empty_at = 0.0  # when there was nothing left to store, last
        self._unmoved_bytes = 0  # when it was asked last
        self._done_since: float | None = None
        self._needed = False  # the service has not let it go, though all is stored and sealed
        self.begun = False

    def begin(self, now: float) -> None:
        """Begin to drain; repeatable."""
        if not self.begun:
            self.begun = True
            self._answered_at = self._empty_at = now

    def cancel(self) -> None:
        """Drain no more, as if it had never begun."""
        self.begun = self._may_exit = self._needed = False
        self._answers = 0
        self._done_since = None

    def told(self, orders: DaemonOrders, now: float) -> None:
        """Take note of what the metadata service answered."""
        if self.begun:
            self._answered_at = now
            self._answers += 1
            if orders.may_exit and not self._may_exit:
                self._let_go_at = now
            self._may_exit = orders.may_exit

    def step(
        self,
        now: float,
        *,
        unstored_bytes: int,
        takes_in: bool,
        unmoved_bytes: int = 0,
        owes_drops: bool = False,
    ) -> Step:
        """To be asked often. `takes_in`: an assignment that is not sealed is held.

        owes_drops: it was told to drop an exchange, and has not confirmed that.
        unmoved_bytes: what is on the fast one of two tiers alone. It may be much, so it has time
        for as long as it becomes less.
        """
        if not unstored_bytes and (not unmoved_bytes or unmoved_bytes < self._unmoved_bytes):
            self._empty_at = now
        self._unmoved_bytes = unmoved_bytes
        unstored_bytes += unmoved_bytes
        # The answer before the last one may be to a heartbeat that told of no drain.
        if unstored_bytes or takes_in or self._answers < 2:
            self._done_since = None
        elif self._done_since is None:
            self._done_since = now
        is_let_go = self._may_exit and not unstored_bytes
        if is_let_go and owes_drops and now - self._let_go_at < DROPS_S:
            return Step.WAIT
        if is_let_go or now - self._empty_at >= self._store_s:
            return Step.EXIT
        # By the last answer: silence does not say that it is needed.
        since = self._done_since
        if since is not None and self._answered_at - since >= SERVES_ON_AFTER_S:
            self._needed = True
        if self._needed:  # and silence does not take it back, once that was said
            return Step.SERVE_ON
        return Step.EXIT if now - self._answered_at >= DRAIN_ALONE_S else Step.WAIT

    def store_left_s(self, now: float, *, store_hangs: bool = False) -> float:
        """Return how long storing what is in memory at the end may take.

        store_hangs: a write is under way for too long, and may never end.
        """
        if store_hangs:
            return _HANGING_STORE_S
        waited = now - self._empty_at if self.begun else 0.0
        return max(_LAST_STORE_S, self._store_s - waited)
