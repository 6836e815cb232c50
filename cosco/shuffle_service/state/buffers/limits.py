"""How a daemon's memory is shared out: bookkeeping, pages of buffers, pages of copies.

Copies may use five eighths of the pool. Once there are copies the buffers leave a quarter to
them, so that neither side can keep the other from its next frame for ever.
"""

from __future__ import annotations

from typing import Final

from cosco.shuffle_service.state.buffers.dedupe import ENTRY_BYTES
from cosco.shuffle_service.state.buffers.frame_append import Room
from cosco.shuffle_service.state.buffers.pool import MAX_PAGE_BYTES, MIN_PAGE_BYTES, PagePool

#: This part of the memory is for bookkeeping rather than for pages.
_BOOKKEEPING_SHARE: Final = 1 / 16
#: The shares of that for forwarded frames, for boards of marks and for indexes of segments;
#: deduplication may use the rest.
_FORWARDS_SHARE: Final = 1 / 4
_BOARDS_SHARE: Final = 1 / 4
_INDEXES_SHARE: Final = 1 / 8
#: What indexes may cost in any case, beside the memory: readers who go through all partitions of
#: segments whose indexes do not fit read each index again for each partition.
_INDEXES_MIN_BYTES: Final = 2 << 20
#: What one forwarded frame costs: its record, its places in dicts, one entry a partition.
_FORWARD_BYTES: Final = 2048
#: Once no more than this share of the pool is left to buffers, the largest are flushed, whatever
#: their size. The fuller the pool may be, the larger the chunks are; writers go on in the rest.
_LOW_WATER_SHARE: Final = 1 / 8
#: Pages are taken ahead of need only while more than this share is free.
_ROOMY_SHARE: Final = 1 / 2
#: More than half, as a copy stays until the last of its frame's chunks is durable, and so
#: longer than most rows stay in buffers.
_COPIES_SHARE: Final = 5 / 8
#: Primaries are asked to release copies when this share of those there may be is in use: the
#: rest is for what comes until they do.
_COPIES_GOAL_SHARE: Final = 7 / 8
_BUFFERS_SHARE: Final = 3 / 4


def pool_bytes(memory_bytes: int) -> int:
    """Return how much of `--memory` becomes pages."""
    pages = int(memory_bytes * (1 - _BOOKKEEPING_SHARE))
    return pages // MAX_PAGE_BYTES * MAX_PAGE_BYTES


def _bookkeeping_bytes(capacity_bytes: int) -> float:
    return capacity_bytes / (1 - _BOOKKEEPING_SHARE) * _BOOKKEEPING_SHARE


def dedupe_entries_max(capacity_bytes: int) -> int:
    """Return how many intervals a daemon with a pool of `capacity_bytes` may remember."""
    share = 1 - _FORWARDS_SHARE - _BOARDS_SHARE - _INDEXES_SHARE
    return int(_bookkeeping_bytes(capacity_bytes) * share / ENTRY_BYTES)


def boards_bytes_max(capacity_bytes: int) -> int:
    """Return what boards of marks, and who waits at them, may cost with such a pool."""
    return int(_bookkeeping_bytes(capacity_bytes) * _BOARDS_SHARE)


def indexes_bytes_max(capacity_bytes: int) -> int:
    """Return what the indexes of segments that are kept may cost with such a pool."""
    return max(int(_bookkeeping_bytes(capacity_bytes) * _INDEXES_SHARE), _INDEXES_MIN_BYTES)


def forwards_max(capacity_bytes: int) -> int:
    """Return how many forwarded frames a daemon with such a pool may keep account of."""
    return max(16, int(_bookkeeping_bytes(capacity_bytes) * _FORWARDS_SHARE / _FORWARD_BYTES))


class PoolShares:
    """Who uses how much of a pool. All figures are bytes."""

    def __init__(self, pool: PagePool) -> None:
        self._pool = pool
        self.copies = 0
        self.flushing = 0  # of the buffers' pages, those being written
        self.has_copies = False  # whether this daemon was ever anybody's replica

    @property
    def copies_max(self) -> int:
        return int(self._pool.capacity_bytes * _COPIES_SHARE)

    @property
    def copies_goal(self) -> int:
        """Return what copies should not have more than."""
        return int(self.copies_max * _COPIES_GOAL_SHARE)

    @property
    def copies_room(self) -> int:
        """Return what copies may have beside what they have."""
        return min(self._pool.free_bytes, self.copies_max - self.copies)

    @property
    def buffers_room(self) -> int:
        """Return what buffers may have beside what they have."""
        free = self._pool.free_bytes
        if not self.has_copies:
            return free
        buffers = self._pool.capacity_bytes - free - self.copies
        return min(free, int(self._pool.capacity_bytes * _BUFFERS_SHARE) - buffers)

    @property
    def room(self) -> Room:
        """Return that, and what they may have beyond their need: pages there are plenty of.

        Each page that is taken lessens both by its size.
        """
        room = self.buffers_room
        roomy = self._pool.free_bytes - int(self._pool.capacity_bytes * _ROOMY_SHARE)
        return Room(room, min(roomy, room))

    def is_low(self, waiting_bytes: int, *, hanging_bytes: int) -> bool:
        """Whether buffers' memory is short, counting what is being written as free.

        hanging_bytes: of what is being written, that whose write hangs.
        """
        soon_free = self.buffers_room + self.flushing - hanging_bytes
        # What waits may need a page more than its length: its chunk begins with a header.
        wanted = waiting_bytes + MIN_PAGE_BYTES if waiting_bytes else 0
        return soon_free < self._pool.capacity_bytes * _LOW_WATER_SHARE + wanted
