"""A model of one spindle: how long a disk with one arm would need for reads and writes.

    service time = positionings × (seek + half a turn) + bytes ÷ transfer rate

`SPINDLE` has the figures of a 7,200 rpm disk: half a turn is 4.17 ms, and with 4.03 ms for
the seek and 180 MiB/s the model gives the table of the 2019 talk on Cosco (one GiB in IOs of
64 KiB: 140 s, 128 KiB: 73 s, 256 KiB: 39 s, 1 MiB: 14 s, 4 MiB: 8 s) within 0.3 s.

The coalescing rule, *queue*: an IO that begins where one of the last 32 IOs of its kind
ended, in the same file, within a page, pays no positioning. 32 is the depth of a drive's
queue (NCQ); it also stands for the kernel's read-ahead and write-back, which join what is
sequential. What comes later finds the arm elsewhere. The rule *none* has every IO pay.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from cosco.dfs.protocol import IOEvent

#: IOs that may be under way in a drive at a time.
QUEUE_DEPTH: Final = 32
#: Ends and beginnings nearer than this are in one page or in two that follow each other.
_PAGE_BYTES: Final = 4096


class Coalescing(StrEnum):
    """Which IOs pay no positioning; see the module."""

    QUEUE = "queue"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Spindle:
    """Seconds to move the arm, seconds of a half turn, bytes per second under the head."""

    seek_s: float
    half_turn_s: float
    bytes_per_s: float

    @property
    def positioning_s(self) -> float:
        """Seconds from one place to any other."""
        return self.seek_s + self.half_turn_s

    def service_s(self, positionings: int, transferred: int) -> float:
        """Return the seconds for this number of positionings and bytes."""
        return positionings * self.positioning_s + transferred / self.bytes_per_s


SPINDLE: Final = Spindle(seek_s=0.00403, half_turn_s=0.00417, bytes_per_s=180 * (1 << 20))


def positionings(events: Iterable[IOEvent], rule: Coalescing) -> int:
    """Count how often the arm moves for IOs of one kind, in the order of their beginnings."""
    recent: deque[tuple[str, int]] = deque(maxlen=QUEUE_DEPTH)
    moves = 0
    for event in sorted(events, key=lambda event: event.start):
        if rule is Coalescing.NONE or not any(
            path == event.path and abs(event.offset - end) < _PAGE_BYTES for path, end in recent
        ):
            moves += 1
        recent.append((event.path, event.offset + event.length))
    return moves


def service_s(
    events: Iterable[IOEvent],
    spindle: Spindle = SPINDLE,
    rule: Coalescing = Coalescing.QUEUE,
) -> float:
    """Return the seconds that one spindle needs for IOs of one kind."""
    events = list(events)
    return spindle.service_s(positionings(events, rule), sum(event.length for event in events))
