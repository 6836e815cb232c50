"""Which epochs of an exchange's ended builds are gone for good.

Epochs of a range are consecutive, and those of a build are neighbours. So all that is kept of what
has gone is one epoch for each range: those before it are of builds that have ended, whose rows
were written anew. Each time that epoch grows the range has the next *sequence* of the exchange, so
that a daemon can say with one number what it has carried out.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import numpy as np

from cosco.metadata.state.exchange.builds import Builds
from cosco.metadata.state.exchange.epochs import Epochs
from cosco.metadata.state.exchange.losses import Losses
from cosco.metadata.state.records.changes import ChangeLog, Row
from cosco.protocol.events import Event, EventKind
from cosco.protocol.records import EpochsDrop


class _Gone(NamedTuple):
    """The epochs of a range before this one are gone, as said by this order."""

    before: int
    sequence: int


class DroppedBuilds:
    """What has gone of one exchange; changed rows are named in `changes`."""

    def __init__(
        self,
        number: int,
        shuffle_id: str,
        builds: Builds,
        losses: Losses,
        epochs: Epochs,
        changes: ChangeLog,
    ) -> None:
        """Begin with nothing gone. The parts of the exchange are only looked at."""
        self._number = number
        self._shuffle_id = shuffle_id
        self._builds = builds
        self._losses = losses
        self._epochs = epochs
        self._changes = changes
        #: The last sequence that was given.
        self.highest = 0
        self._gone: dict[int, _Gone] = {}

    def left(self) -> list[int]:
        """Return the ranges with builds that have ended, and of which something may be left."""
        rebuilt: list[int] = np.flatnonzero(self._builds.present > 1).tolist()
        return [index for index in rebuilt if self._before(index) < self._first(index, 2**32)]

    def first_kept(self, index: int) -> int:
        """Return the first epoch of a range's present build, if that makes up for those that ended.

        0: mappers are pending, so rows are missing in it; or it has no epoch yet, or the range has
        failed for good. All that counts in a build without pending mappers was acknowledged by
        its epochs, so every copy has it or it is durable.
        """
        return self._first(index, 0) if self._losses.is_whole(index) else 0

    def drop(self, index: int) -> None:
        """Have every epoch of a range go that is older than its present build.

        Only once `first_kept` says that this makes up for them.
        """
        before = self.first_kept(index)
        assert before > self._before(index)
        self.highest += 1
        self._gone[index] = _Gone(before, self.highest)
        key = self._number, index
        self._changes.put("dropped_builds", key, partial(self._row, index))
        self._changes.tell(
            Event(
                kind=EventKind.OLD_BUILDS_DROPPED,
                exchange=self._shuffle_id,
                number=self._number,
                range_indexes=(index,),
                build=int(self._builds.present[index]),
            )
        )

    def after(self, sequence: int, most: int) -> list[EpochsDrop]:
        """Return what a daemon is to be told that has carried out all up to `sequence`: the oldest
        orders first, at most `most`."""
        if sequence >= self.highest:
            return []
        found = sorted(
            (gone.sequence, index, gone.before)
            for index, gone in self._gone.items()
            if gone.sequence > sequence
        )
        return [EpochsDrop(self._number, i, before, at) for at, i, before in found[:most]]

    def _before(self, index: int) -> int:
        gone = self._gone.get(index)
        return 1 if gone is None else gone.before

    def _first(self, index: int, default: int) -> int:
        """Return the first epoch of a range's present build, `default` while it has none."""
        return self._epochs.first_of(index, int(self._builds.present[index])) or default

    def _row(self, index: int) -> Row:
        return tuple(self._gone[index])

    def restore(self, index: int, before: int, sequence: int) -> None:
        """Take back the columns of a row."""
        self._gone[index] = _Gone(before, sequence)
        self.highest = max(self.highest, sequence)
