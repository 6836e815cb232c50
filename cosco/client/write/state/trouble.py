"""What a writer does about a daemon that fails it: whom to ask, how long to wait, when to
give up. Decisions only; `cosco.client.write.pusher` makes the calls and tells the time.

A daemon fails its writer by being out of reach, or by refusing frames of an assignment. The
metadata service is asked for newer assignments either way, and is told of a daemon that is
out of reach. Nothing of this loses rows or doubles them: see `cosco.client.write.state.routes`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from cosco.client.write.state.routes import Routes
from cosco.errors import CapacityExceeded, CoscoError, ServiceUnavailable
from cosco.protocol.keys import RangeEpoch
from cosco.protocol.records import DaemonRef, RenewedAssignments

#: A daemon that is alive for the service and out of reach for this time is insisted on.
INSIST_AFTER_S: Final = 5.0
#: A stream that breaks sooner after the daemon was heard, without a frame taken, counts as no
#: answer: small messages may get through where frames do not.
STEADY_S: Final = 30.0
#: A daemon without room is borne for this time, unless it is known that another will come: a
#: few heartbeats, by which the service hears of it.
CAPACITY_WAIT_S: Final = 5.0
_FIRST_PAUSE_S: Final = 0.05
_MAX_PAUSE_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Question:
    """What to ask of `RenewAssignments`."""

    stale: tuple[RangeEpoch, ...]
    suspect: DaemonRef | None
    insist: bool


class LinkTrouble:
    """The failures of one daemon since it last did its work. Times are seconds of one clock."""

    def __init__(self, ref: DaemonRef, service_timeout_s: float) -> None:
        self._ref = ref
        self._service_timeout_s = service_timeout_s
        self._refused: set[RangeEpoch] = set()
        self._silent_since: float | None = None  # out of reach
        # The last silence and its end, if the daemon has taken no frame since.
        self._last_silence: tuple[float, float] | None = None
        self._refusing_since: float | None = None  # frames, without taking any
        self._is_replaced = False  # by another start, in the way of this one
        self._is_full = False
        self._is_alive = False  # for the service
        self._reason = ""
        self._waiting_for = ""
        self._service_is_away = ""
        self._pauses = 0

    # --- what happens ---------------------------------------------------------------------

    def out_of_reach(self, reason: str, now: float) -> None:
        """Note that a stream broke, or could not be begun."""
        self._reason = reason
        if self._silent_since is not None:
            return
        if self._last_silence is not None and now - self._last_silence[1] < STEADY_S:
            self._silent_since = self._last_silence[0]
        else:
            self._silent_since = now
            self._is_alive = False

    def replaced(self, reason: str, now: float) -> None:
        """Note that another start of the daemon answered."""
        self._reason = reason
        self._is_replaced = True
        self._begin_refusing(now)

    def refused(
        self, range_epoch: RangeEpoch, reason: str, now: float, *, full: bool = False
    ) -> None:
        """Note that frames of an assignment were not taken; `full`: as there was no room."""
        self._reason = reason
        self._refused.add(range_epoch)
        self._is_full = full
        self._begin_refusing(now)

    def heard(self, now: float) -> None:
        """Note that the daemon said something."""
        if self._silent_since is not None:
            self._last_silence = self._silent_since, now
            self._silent_since = None

    def acknowledged(self) -> None:
        """Note that the daemon took a frame."""
        self._refusing_since = self._last_silence = None
        self._pauses = 0

    def over(self) -> None:
        """Forget all of it: nothing is left that the daemon failed at."""
        self._refused.clear()
        self._silent_since = self._refusing_since = self._last_silence = None
        self._is_replaced = self._is_full = self._is_alive = False
        self._waiting_for = ""
        self._pauses = 0

    # --- what to do -----------------------------------------------------------------------

    @property
    def is_refused(self) -> bool:
        """Whether the present stream has come to its end by a refusal."""
        return bool(self._refused) or self._is_replaced

    def question(self, routes: Routes, now: float) -> Question | None:
        """Return what to ask now; None: nothing, as all that failed has moved meanwhile."""
        self._refused -= routes.stale(self._refused)
        stale, suspect, insist = set(self._refused), None, False
        if self._is_suspect:
            stale |= routes.routed_to(self._ref)
            suspect = self._ref
            silent_s = 0.0 if self._silent_since is None else now - self._silent_since
            insist = self._is_alive and silent_s > INSIST_AFTER_S
        if not stale:
            self.over()
            return None
        return Question(tuple(sorted(stale)), suspect, insist)

    def answered(self, answer: RenewedAssignments, *, moved: bool) -> bool:
        """Note the answer, after `routes.renew`; `moved`: something of it was new.

        Returns: whether to try the daemon again; if not, there may be another question.
        """
        self._service_is_away = ""
        self._waiting_for = answer.waiting_for
        self._is_alive = answer.alive
        if moved:
            return False
        again = answer.alive or not (self._is_suspect or answer.waiting_for)
        if again:  # it may have been behind: see whether it refuses still
            self._refused.clear()
            self._is_replaced = False
        return again

    def unanswered(self, reason: str) -> None:
        """Note that the metadata service is out of reach: the daemon may be back first."""
        self._service_is_away = reason
        self._refused.clear()
        self._is_replaced = False

    def pause_s(self) -> float:
        """Return how long to wait, at most, before the next try: longer each time."""
        self._pauses = min(self._pauses + 1, 10)
        return min(_FIRST_PAUSE_S * float(1 << self._pauses - 1), _MAX_PAUSE_S)

    def remaining_s(self, now: float) -> float:
        """Return how long this may go on; 0: the writer fails with `error`."""
        since = [s for s in (self._silent_since, self._refusing_since) if s is not None]
        limit_s = self._service_timeout_s
        if self._is_full and not self._waiting_for and not self._service_is_away:
            limit_s = min(limit_s, CAPACITY_WAIT_S)
        return max(0.0, limit_s - (now - min(since, default=now)))

    def error(self, shuffle_id: str) -> CoscoError:
        """Return what the writer fails with when no time remains."""
        if self._silent_since is not None:
            failure = "does not answer"
        elif self._is_replaced:
            failure = "was started again"
        else:
            failure = "has no room" if self._is_full else "refuses frames"
        kind: type[CoscoError] = CapacityExceeded if self._is_full else ServiceUnavailable
        outlook = "run the mapper again"
        if self._service_is_away:
            kind = ServiceUnavailable
            outlook = f"who takes over is unknown: {self._service_is_away}"
        elif self._waiting_for:
            kind = CapacityExceeded
            outlook = f"no other takes over: {self._waiting_for}"
        return kind(
            f"exchange {shuffle_id!r}: the shuffle daemon at {self._ref.address} {failure}; "
            f"{outlook} ({self._reason})",
            shuffle_id=shuffle_id,
        )

    @property
    def _is_suspect(self) -> bool:
        return self._silent_since is not None or self._is_replaced

    def _begin_refusing(self, now: float) -> None:
        if self._refusing_since is None:
            self._refusing_since = now
