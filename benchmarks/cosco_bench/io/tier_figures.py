"""What flash before a slow store saved: IOs, bytes and modelled time of the slow one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cosco.dfs.io_log import FLASH_PREFIX
from cosco.dfs.protocol import IOEvent
from cosco_bench.io.io_figures import requests_of, sizes
from cosco_bench.io.spindle import Coalescing, service_s


@dataclass(frozen=True, slots=True)
class TierIo:
    """All IO of one shuffle on two tiers.

    moved: reads of flash by moves, each of a whole segment.
    """

    flash_writes: Sequence[IOEvent]
    flash_reads: Sequence[IOEvent]
    moved: Sequence[IOEvent]
    slow: Sequence[IOEvent]

    @property
    def without_flash(self) -> list[IOEvent]:
        """What the slow tier would have been asked for alone: each segment once, and each read."""
        on_flash = {event.path for event in self.flash_writes}
        slow = [e for e in self.slow if not (e.kind == "write" and e.path in on_flash)]
        return [*self.flash_writes, *self.flash_reads, *slow]

    def to_json(self) -> dict[str, Any]:
        """Return all figures, sizes in bytes, times in seconds of one spindle."""
        without = self.without_flash
        slow_s, without_s = _seconds(self.slow), _seconds(without)
        requests, less = requests_of(without), requests_of(self.slow)
        return {
            "flash": {"writes": sizes(self.flash_writes), "reads": sizes(self.flash_reads)},
            "moved": sizes(self.moved),
            "slow": {kind: sizes(_of(self.slow, kind)) for kind in ("write", "read")},
            "without_flash": {kind: sizes(_of(without, kind)) for kind in ("write", "read")},
            "service_time_s": {"slow": slow_s, "without_flash": without_s},
            "saved": {
                "bytes": _bytes(without) - _bytes(self.slow),
                "written_bytes": _bytes(_of(without, "write")) - _bytes(_of(self.slow, "write")),
                "service_time_s": without_s - slow_s,
                "requests": {kind: n - less.get(kind, 0) for kind, n in requests.items()},
            },
        }


def tier_io(events: Sequence[IOEvent]) -> TierIo:
    """Return which of the events of an IO log belong to which tier."""
    flash = [
        IOEvent(e.kind, e.path.removeprefix(FLASH_PREFIX), e.offset, e.length, e.start, e.seconds)
        for e in events
        if e.path.startswith(FLASH_PREFIX)
    ]
    slow = [event for event in events if not event.path.startswith(FLASH_PREFIX)]
    lengths = {event.path: event.length for event in _of(slow, "write")}
    writes, reads = _of(flash, "write"), _of(flash, "read")
    # Readers do not read the index with the chunks before it.
    moved = [e for e in reads if not e.offset and lengths.get(e.path) == e.length]
    moves = set(moved)
    return TierIo(writes, [event for event in reads if event not in moves], moved, slow)


def _of(events: Sequence[IOEvent], kind: str) -> list[IOEvent]:
    return [event for event in events if event.kind == kind]


def _bytes(events: Sequence[IOEvent]) -> int:
    return sum(event.length for event in events)


def _seconds(events: Sequence[IOEvent]) -> float:
    kinds = ("write", "read")
    return sum(service_s(_of(events, kind), rule=Coalescing.QUEUE) for kind in kinds)
