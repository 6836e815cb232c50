"""Leases: who must be heard of again, and by when."""

from __future__ import annotations

import math
from collections.abc import Hashable
from typing import Generic, NamedTuple, TypeVar

_K = TypeVar("_K", bound=Hashable)


class LeaseAge(NamedTuple):
    """How long ago a holder was heard of, and what is left of its lease, in seconds."""

    heard_s: float
    left_s: float


class Leases(Generic[_K]):
    """Deadlines by holder. Times are seconds of one monotonic clock; nothing is stored."""

    def __init__(self) -> None:
        self._held: dict[_K, tuple[float, float]] = {}  # holder → (period, deadline)

    def __len__(self) -> int:
        """Holders whose leases did not run out."""
        return len(self._held)

    def renew(self, holder: _K, period_s: float, now: float) -> None:
        """Begin a full period, whether or not `holder` had a lease."""
        self._held[holder] = (period_s, now + period_s)

    def forget(self, holder: _K) -> None:
        """End a lease without its running out; unknown holders are ignored."""
        self._held.pop(holder, None)

    def expire(self, now: float) -> list[_K]:
        """End the leases that ran out and return their holders."""
        expired = [holder for holder, (_, deadline) in self._held.items() if deadline <= now]
        for holder in expired:
            del self._held[holder]
        return expired

    def age(self, holder: _K, now: float) -> LeaseAge:
        """Return how old a lease is; that of an unknown holder is over."""
        period_s, deadline = self._held.get(holder, (0.0, now))
        return LeaseAge(max(now - (deadline - period_s), 0.0), max(deadline - now, 0.0))

    def restart(self, now: float, longest_s: float = math.inf) -> None:
        """Begin a full period for every holder whose period is at most `longest_s`."""
        for holder, (period_s, _) in self._held.items():
            if period_s <= longest_s:
                self._held[holder] = (period_s, now + period_s)
