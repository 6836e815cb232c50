"""What is lost with a store that is gone: in every open exchange, and in each of them at once.

docs/architecture/failures.md, "A store that is gone", has the rules. An *event* is a set of stores
that are gone, as a reader has proven by its report, or as people say of one. Of an exchange the
builds that have lost rows by it end together, so that its driver is told once. The exchange that
a report is of comes first; the others follow one by one, as there may be many of them.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Set
from typing import NamedTuple

from cosco.metadata.state.daemons.members import Members
from cosco.metadata.state.exchange.directory import Directory
from cosco.metadata.state.exchange.exchange_state import ExchangeState
from cosco.metadata.state.exchange.losses import one_line
from cosco.metadata.state.old_builds import OldBuilds
from cosco.metadata.state.records.table_rows import Placed
from cosco.protocol.records import LossReport


class Found(NamedTuple):
    """What an exchange has lost with stores: ranges of which nothing else can have a copy, and
    how many others had rows there."""

    lost: list[int]
    doubtful: int


class LostStores:
    """Ends builds. What follows of an event is done by `pop_next` and `lose_with`, in turn."""

    def __init__(
        self,
        directory: Directory,
        members: Members,
        old_builds: OldBuilds,
        told: Callable[[ExchangeState], None],
    ) -> None:
        """`told` is called with an exchange that may have other losses than before."""
        self._directory = directory
        self._members = members
        self._old_builds = old_builds
        self._told = told
        #: The stores of events that not every exchange was looked through for, and those left.
        self._stores: set[str] = set()
        self._left: deque[int] = deque()

    def reported(self, report: LossReport, now: float) -> None:
        """Take that a reader has asked everybody and misses rows; stale reports change nothing.

        Where it is the store that is gone, and not a file or what was in memory, all else that
        was lost with it is lost now.
        """
        exchange = self._directory.get(report.number)
        index = exchange.reported(report)
        if index is None:
            return
        stores = self._gone_with(exchange.written(index), now)
        found = self._find(exchange, stores, self._members.grace_s, now)
        why, others = one_line(report.reason), [i for i in found.lost if i != index]
        if others:
            why = f"{_named(stores)} is gone ({why})"
        self._lose(exchange, sorted((index, *others)), why, report.cause.name.lower(), "rows lost")
        if not self._left:
            self._stores = set()
        if not stores <= self._stores:
            # It was looked through for these, and perhaps not for those of an earlier event yet.
            is_done = not self._stores
            self._stores |= stores
            self._left = deque(
                n for n in self._directory.open if not (is_done and n == exchange.number)
            )

    @property
    def has_more(self) -> bool:
        """Whether `pop_next` has something to give."""
        return bool(self._left)

    def pop_next(self) -> int | None:
        """Return an exchange that is to be looked through, with `judge`, for what was lost with
        stores that readers have reported. None: there is none."""
        while self._left:
            number = self._left.popleft()
            if number in self._directory.open:
                return number
        return None

    def judge(self, number: int, now: float) -> None:
        """Look through an exchange: a daemon may have come with such a store since its report."""
        exchange = self._directory.open.get(number)
        if exchange is not None:
            found = self._find(exchange, self._stores, self._members.grace_s, now)
            self._lose(exchange, found.lost, f"{_named(self._stores)} is gone", "gone", "rows lost")

    def lose_with(self, number: int, store_id: str, now: float) -> tuple[int, int]:
        """End the builds whose committed rows only a forgotten store had.

        Stores that people have not said so of may return, however long nobody has served them.

        Returns: how many ranges they are of, and how many others had rows there.
        """
        exchange = self._directory.open.get(number)
        if exchange is None:
            return 0, 0
        found = self._find(exchange, {store_id}, math.inf, now)
        why = f"store {one_line(store_id)} is gone for good"
        self._lose(exchange, found.lost, why, "store forgotten", None)
        return len(found.lost), found.doubtful

    def _lose(
        self, exchange: ExchangeState, indexes: list[int], why: str, cause: str, seal: str | None
    ) -> None:
        for index in exchange.lose(indexes, why, cause):
            self._members.failover.seal(exchange, index, seal)
        self._old_builds.lost(exchange)
        self._told(exchange)

    def _gone_with(self, epochs: list[Placed], now: float) -> set[str]:
        """Return the stores of those epochs of which nothing is left."""
        members = self._members
        return {
            members.daemon(ref.incarnation).store_id
            for placed in epochs
            if all(
                members.forgotten.is_gone(ref.incarnation, members.grace_s, now)
                for ref in placed.assignment.daemons
            )
            for ref in placed.assignment.daemons
        }

    def _find(self, exchange: ExchangeState, stores: Set[str], grace_s: float, now: float) -> Found:
        """Return what is lost of an exchange, where committed rows went to these stores."""
        if not stores:
            return Found([], 0)
        members = self._members
        had: dict[int, tuple[bool, bool]] = {}  # whether it had one of them, and is gone

        def of(incarnation: int) -> tuple[bool, bool]:
            if incarnation not in had:
                is_gone = members.forgotten.is_gone(incarnation, grace_s, now)
                had[incarnation] = members.daemon(incarnation).store_id in stores, is_gone
            return had[incarnation]

        lost, doubtful = [], 0
        for one in exchange.ranges:
            was_there = False
            for placed in exchange.written(one.index):
                daemons = [of(ref.incarnation) for ref in placed.assignment.daemons]
                if any(has_store for has_store, _ in daemons):
                    was_there = True
                    if all(is_gone for _, is_gone in daemons):
                        lost.append(one.index)
                        break
            else:
                doubtful += was_there
        return Found(lost, doubtful)


def _named(stores: Set[str]) -> str:
    """Return what a message calls stores."""
    return "store " + " or ".join(one_line(store) for store in sorted(stores)[:3])
