"""Rows that were collected one by one, by partition, until a packer takes them.

They stay pending as long as they are few: joined while they are in the cache, and their
objects given back for the caller to use again, rows cost a fraction of what they cost when a
whole buffer of them is joined.
"""

from __future__ import annotations

from typing import Final

#: Longer lists are not joined for less.
_MAX_ROWS: Final = 128
#: What a row takes beside its bytes: a bytes object and a pointer.
_OBJECT_OVERHEAD: Final = 48
#: What the list of a partition takes, empty.
_LIST_OVERHEAD: Final = 256


class PendingRows:
    """A few rows of each partition, to which any thread may add without a lock.

    Adding is one `append` to the partition's list, which stays the same for ever, and taking
    removes as many rows from its front as it has copied before: the interpreter makes each of
    the three whole, and appended rows are behind those that are removed, so no row is lost, nor
    taken twice. Those who make lists or take must take turns.

    A row counts as short up to a few times the mean length, and lists are taken when they have
    so many rows that all together, were every row just short, stay within an eighth of the
    buffer: that bound needs no counter, which threads would have to agree on.
    """

    def __init__(self, partitions: int, buffer_bytes: int) -> None:
        """For rows of `partitions`, of which a buffer of `buffer_bytes` is full."""
        #: By partition; one without a list has had no row yet.
        self.lists: Final[dict[int, list[bytes]]] = {}
        self._list_bytes = buffer_bytes // 8 // partitions
        self._buffer_bytes = buffer_bytes
        self.adapt(0)

    @property
    def reserved_bytes(self) -> int:
        """Memory that pending rows take at most, twice an eighth: after `adapt` there may be
        rows by the old rule and by the new one."""
        lists_bytes = _LIST_OVERHEAD * len(self.lists)
        return min(self._buffer_bytes // 4 + lists_bytes, self._buffer_bytes * 3 // 4)

    def adapt(self, mean_bytes: int) -> None:
        """From now on rows are expected to be so long."""
        #: Longer rows are to be taken at once.
        self.short_bytes = 64 + 4 * mean_bytes
        #: A list is to be taken when it has so many rows.
        self.due_rows = max(
            1, min(_MAX_ROWS, self._list_bytes // (self.short_bytes + _OBJECT_OVERHEAD))
        )

    def add(self, partition: int, row: bytes) -> bool:
        """Add a valid row; True when the rows of its partition are to be taken."""
        rows = self.lists.setdefault(partition, [])
        rows.append(row)
        return len(row) > self.short_bytes or len(rows) >= self.due_rows

    def take(self, partition: int) -> list[bytes]:
        """Remove the rows of a partition that has a list."""
        rows = self.lists[partition]
        taken = rows.copy()
        del rows[: len(taken)]
        return taken

    def take_back(self, partition: int, row: bytes) -> bool:
        """Remove a row that was added to a list; False if it was taken before.

        Of equal rows any will do: as many are taken back as were not taken.
        """
        try:
            self.lists[partition].remove(row)
        except ValueError:
            return False
        return True
