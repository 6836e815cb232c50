"""Leases: who must be heard of again, and by when."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

_K = TypeVar("_K", bound=Hashable)


class Leases(Generic[_K]):
    """Deadlines by holder. Times are seconds of one monotonic clock; nothing is stored."""

    def __init__(self) -> None:
        self._held: dict[_K, tuple[float, float]] = {}  # holder → (period, deadline)

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

    def restart(self, now: float) -> None:
        """Begin a full period for every holder."""
        for holder, (period_s, _) in self._held.items():
            self._held[holder] = (period_s, now + period_s)
