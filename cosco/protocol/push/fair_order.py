"""In which order those are served who wait for the same thing, so that it is fair to tenants.

Who waits stands in the line of his tenant; in a line, who came first is served first. Each line has
a *start*, in bytes: the one with the least start is served next, and its start goes on by what it
was served. A line that begins anew starts where the line that was served last did, or where it
ended itself, if that is later: whoever comes back often gains nothing by it, and whoever was away
has saved up nothing.

This is start-time fair queueing (Goyal, Vin, Cheng, SIGCOMM 1996). Between two lines that wait all
the time the bytes that they were served differ by one longest item of each at most, however fast
things go, and however many wait in a line. Deficit round robin (Shreedhar, Varghese, SIGCOMM 1995)
takes constant time where this takes O(log lines), and needs a quantum as long as the longest item
for that: one tenant would be served many short frames in a row before the next has his turn. Who is
next stays next until he is served: what needs little does not overtake what needs much.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush, heapreplace
from typing import Final, Generic, TypeVar

_Tenant = TypeVar("_Tenant", bound=Hashable)
_Item = TypeVar("_Item")
#: Ends of lines are looked through when there are this many more than twice those that are worth
#: keeping.
_SPARE: Final = 16


@dataclass(slots=True, eq=False)
class _Line(Generic[_Tenant, _Item]):
    """Those of one tenant. passed: some that were passed over, before those that wait.

    is_out: the whole line is passed over. is_listed: whether it is among the `_listed`.
    """

    tenant: _Tenant
    start: int
    waiting: deque[_Item] = field(default_factory=deque)
    passed: list[_Item] = field(default_factory=list)
    is_out: bool = False
    is_listed: bool = False


class FairOrder(Generic[_Tenant, _Item]):
    """Lines of items; each item stands in one line, once. A call takes O(log lines) at most, but
    for `remove`, which takes as long as the line is, and as there are lines."""

    def __init__(self) -> None:
        """Begin with nobody who waits."""
        self._lines: dict[_Tenant, _Line[_Tenant, _Item]] = {}
        #: Lines of which somebody may be next: (start, count of what was put here, line).
        self._heap: list[tuple[int, int, _Line[_Tenant, _Item]]] = []
        self._listed: list[_Line[_Tenant, _Item]] = []  # with something that was passed over
        #: Where lines ended that are no more, as far as that is later than `_now`.
        self._ends: dict[_Tenant, int] = {}
        self._ends_max = _SPARE
        self._now = 0  # the start of what was served last
        self._count = 0

    @property
    def is_empty(self) -> bool:
        """Whether nobody waits, nor was passed over."""
        return not self._lines

    @property
    def lines_out(self) -> Iterator[_Tenant]:
        """Yield the tenants whose lines are passed over."""
        return (line.tenant for line in self._listed if line.is_out)

    def is_out(self, tenant: _Tenant) -> bool:
        """Whether the line of a tenant is passed over."""
        line = self._lines.get(tenant)
        return line is not None and line.is_out

    def has_line(self, tenant: _Tenant) -> bool:
        """Whether anybody stands in the line of a tenant."""
        return tenant in self._lines

    def add(self, tenant: _Tenant, item: _Item) -> None:
        """Have an item stand at the end of its tenant's line."""
        line = self._lines.get(tenant)
        if line is None:
            start = max(self._now, self._ends.pop(tenant, 0))
            line = self._lines[tenant] = _Line(tenant, start)
        line.waiting.append(item)
        if len(line.waiting) == 1 and not line.is_out:
            self._push(line)

    def first(self) -> _Item | None:
        """Return who is served next; None if nobody waits who is not passed over."""
        return self._heap[0][2].waiting[0] if self._heap else None

    def served(self, cost: int, *, stays: bool = False) -> None:
        """Note that the first was served. cost: its bytes. stays: it goes to the end of its line;
        else it waits no more."""
        line = self._heap[0][2]
        item = line.waiting.popleft()
        if stays:
            line.waiting.append(item)
        self._now = line.start
        line.start += cost
        if line.waiting:
            self._count += 1
            heapreplace(self._heap, (line.start, self._count, line))
            return
        heappop(self._heap)
        if not line.passed:
            self._forget(line)

    def pass_over(self) -> None:
        """Pass over the first until `come_back`, and nobody else of its line."""
        line = self._heap[0][2]
        line.passed.append(line.waiting.popleft())
        self._list(line)
        if not line.waiting:
            heappop(self._heap)

    def pass_over_line(self) -> None:
        """Pass over the line of the first until `come_back`, with who comes to it meanwhile."""
        _, _, line = heappop(self._heap)
        line.is_out = True
        self._list(line)

    def come_back(self) -> None:
        """Pass over nobody any more. Who was has his place again, and has saved up nothing."""
        listed, self._listed = self._listed, []
        for line in listed:
            had_left = line.is_out or not line.waiting
            line.waiting.extendleft(reversed(line.passed))
            line.passed.clear()
            line.is_listed = line.is_out = False
            if had_left and line.waiting:
                line.start = max(line.start, self._now)
                self._push(line)

    def remove(self, tenant: _Tenant, item: _Item) -> None:
        """Have an item wait no more, which was not served. Raises ValueError if it does not."""
        line = self._lines[tenant]
        if item in line.passed:
            line.passed.remove(item)
        else:
            line.waiting.remove(item)
            if not line.waiting and not line.is_out:
                self._heap = [entry for entry in self._heap if entry[2] is not line]
                heapify(self._heap)
        if line.waiting or line.passed:
            return
        if line.is_listed:
            self._listed.remove(line)
        self._forget(line)

    def _push(self, line: _Line[_Tenant, _Item]) -> None:
        self._count += 1
        heappush(self._heap, (line.start, self._count, line))

    def _list(self, line: _Line[_Tenant, _Item]) -> None:
        if not line.is_listed:
            line.is_listed = True
            self._listed.append(line)

    def _forget(self, line: _Line[_Tenant, _Item]) -> None:
        """Let a line end, and keep where, as long as that is worth more than nothing."""
        del self._lines[line.tenant]
        if not self._lines:  # nobody has waited for anybody
            self._ends.clear()
        elif line.start > self._now:
            self._ends[line.tenant] = line.start
            if len(self._ends) > self._ends_max:
                self._ends = {one: end for one, end in self._ends.items() if end > self._now}
                self._ends_max = 2 * len(self._ends) + _SPARE
