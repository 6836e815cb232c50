"""When the old builds of ranges go: once the next one is complete, and a grace has passed.

docs/architecture/failures.md, "Old builds", has the rules. The grace of a range counts from when
its present build was first seen to make up for those before it; no restart knows how long that is,
so it begins anew then. What has gone is kept by each exchange (`DroppedBuilds`), and daemons are
answered from there, however often they ask: nothing is kept of them here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import Final, NamedTuple

from cosco.metadata.state.exchange.exchange_state import ExchangeState
from cosco.protocol.records import DaemonHeartbeat, DaemonOrders, EpochsDrop, EpochsDropped

#: Exchanges that are looked at in one tick; others have their turn in the next ones.
LOOKED_AT_PER_TICK: Final = 16
#: Orders in the answer to one sweep of a daemon.
MAX_DROPS: Final = 4096


class _Grace(NamedTuple):
    """Since when a range is complete in the build that begins with this epoch."""

    first_kept: int
    since: float


class OldBuilds:
    """The ranges of open exchanges whose old builds are still there."""

    def __init__(self, exchanges: Mapping[int, ExchangeState], grace_s: float) -> None:
        """`exchanges` are those that are open; the caller tells of those restored by `lost`."""
        self._exchanges = exchanges
        self._grace_s = grace_s
        #: By exchange with old builds: the graces of its ranges that are complete.
        self._graces: dict[int, dict[int, _Grace]] = {}
        self._turns: deque[int] = deque()
        self._answers = 0

    def __len__(self) -> int:
        """Return how many exchanges have old builds."""
        return len(self._graces)

    def lost(self, exchange: ExchangeState) -> None:
        """Note that builds of an exchange may have ended; harmless if none has."""
        if exchange.number not in self._graces and exchange.dropped.left():
            self._graces[exchange.number] = {}
            self._turns.append(exchange.number)

    def restart_graces(self, now: float, longest_s: float) -> None:
        """Begin every grace in full, if they are at most `longest_s`."""
        if self._grace_s <= longest_s:
            for graces in self._graces.values():
                for index, grace in graces.items():
                    graces[index] = grace._replace(since=now)

    def tick(self, now: float) -> None:
        """Have go what may; some exchanges at a time."""
        for _ in range(min(LOOKED_AT_PER_TICK, len(self._turns))):
            number = self._turns.popleft()
            exchange = self._exchanges.get(number)
            if exchange is not None and self._look(exchange, self._graces[number], now):
                self._turns.append(number)
            else:
                del self._graces[number]

    def _look(self, exchange: ExchangeState, graces: dict[int, _Grace], now: float) -> bool:
        """Look at the ranges of an exchange. Returns whether it still has old builds."""
        left = 0
        for index in exchange.dropped.left():
            left += 1
            first_kept = exchange.dropped.first_kept(index)
            grace = graces.get(index)
            if not first_kept:
                graces.pop(index, None)
            elif grace is None or grace.first_kept != first_kept:
                # The build that it was complete in, if in any, has ended since.
                grace = graces[index] = _Grace(first_kept, now)
            if first_kept and grace is not None and now - grace.since >= self._grace_s:
                exchange.dropped.drop(index)
                del graces[index]
                left -= 1
        return left > 0

    def answer(self, orders: DaemonOrders, heartbeat: DaemonHeartbeat) -> DaemonOrders:
        """Return the answer to a heartbeat, with the old epochs that must go."""
        if not orders.known:
            return orders
        drop = self._orders(heartbeat.exchanges, heartbeat.epochs_dropped)
        return replace(orders, epochs_drop=drop) if drop else orders

    def _orders(
        self, listed: Collection[int], dropped: Iterable[EpochsDropped]
    ) -> tuple[EpochsDrop, ...]:
        """Return what must go of exchanges that a daemon has something of, but for what has gone.

        When there is no room for all, another exchange is the first each time: so what cannot be
        deleted holds up nothing else.
        """
        self._answers += 1
        known = {one.number: one.sequence for one in dropped}
        behind = [
            exchange
            for number in listed
            if (exchange := self._exchanges.get(number)) is not None
            and exchange.dropped.highest > known.get(number, 0)
        ]
        start = self._answers % len(behind) if behind else 0
        found: list[EpochsDrop] = []
        for exchange in behind[start:] + behind[:start]:
            room = MAX_DROPS - len(found)
            found += exchange.dropped.after(known.get(exchange.number, 0), room)
            if len(found) >= MAX_DROPS:
                break
        return tuple(found)
