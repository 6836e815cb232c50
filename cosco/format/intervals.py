"""A set of integers kept as disjoint half-open intervals.

Deduplication keeps one such set per (mapper, attempt, partition): rows come in order, so it is one
interval and its memory grows with gaps, not with rows.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right


class IntervalSet:
    """Disjoint, sorted, non-adjacent half-open intervals of non-negative integers."""

    __slots__ = ("_ends", "_starts")

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []

    def __len__(self) -> int:
        """Return the number of intervals, not of integers."""
        return len(self._starts)

    def covers(self, start: int, end: int) -> bool:
        """Whether every integer of [start, end) is in the set."""
        i = bisect_right(self._starts, start) - 1
        return i >= 0 and self._ends[i] >= end

    def overlaps(self, start: int, end: int) -> bool:
        """Whether any integer of [start, end) is in the set."""
        i = bisect_left(self._starts, end) - 1
        return i >= 0 and self._ends[i] > start

    def add(self, start: int, end: int) -> None:
        """Add [start, end), joining whatever it touches."""
        if start >= end:
            raise ValueError(f"empty interval [{start}, {end})")
        starts, ends = self._starts, self._ends
        if ends and start == ends[-1]:  # rows in order: the last interval grows
            ends[-1] = end
            return
        lo = bisect_left(ends, start)
        hi = bisect_right(starts, end)
        if lo < hi:
            start = min(start, starts[lo])
            end = max(end, ends[hi - 1])
        starts[lo:hi] = [start]
        ends[lo:hi] = [end]
