"""The epochs of an exchange's ranges: which daemons took, and take, the rows of each."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Final

import numpy as np
import numpy.typing as npt

from cosco.errors import InvalidArgument
from cosco.metadata.state.records.changes import ChangeLog
from cosco.metadata.state.records.table_rows import Placed
from cosco.protocol.records import U32, Assignment

#: No more pairs than this are looked at one by one: each look by arrays costs as much as some of
#: them, and an exchange of a group has few ranges.
_FEW: Final = 4


class Epochs:
    """Every epoch of every range, consecutive, the current one last; changed rows are named."""

    def __init__(self, number: int, placed: Iterable[Iterable[Placed]], changes: ChangeLog) -> None:
        self.placed = [list(epochs) for epochs in placed]
        self._number = number
        self._changes = changes
        #: For each range its last epoch, the build of that epoch, and the first epoch of that
        #: build: arrays, as a commit names most ranges.
        self._last: U32 = np.zeros(len(self.placed), dtype=np.uint32)
        #: By range: whether counted commits have rows in its last epoch.
        self._last_written = np.zeros(len(self.placed), dtype=np.bool_)
        self._builds, self._firsts = self._last.copy(), self._last.copy()
        for epochs in self.placed:
            for epoch in epochs:
                self._enter(epoch)

    def current(self) -> tuple[Assignment, ...]:
        """Return the last epoch of each range, sealed or not."""
        return tuple(epochs[-1].assignment for epochs in self.placed)

    def of_build(self, index: int, build: int) -> list[Placed]:
        """Return the epochs of a range's build, ascending."""
        return [placed for placed in self.placed[index] if placed.assignment.build == build]

    def first_of(self, index: int, build: int) -> int:
        """Return the first epoch of a range's build, the last one there is; 0: it has none yet."""
        return int(self._firsts[index]) if self._builds[index] == build else 0

    def find(self, index: int, epoch: int) -> Placed | None:
        """Return the epoch of a range, if there is one."""
        if index >= len(self.placed):
            return None
        epochs = self.placed[index]
        at = epoch - epochs[0].assignment.epoch
        return epochs[at] if 0 <= at < len(epochs) else None

    def present(self, pairs: U32, builds: U32) -> npt.NDArray[np.bool_]:
        """Return, for each (range, epoch), whether it is of the range's present build, of `builds`.

        Raises InvalidArgument for an epoch that never was.
        """
        if len(pairs) <= _FEW:
            found = [self._is_present(index, epoch, builds) for index, epoch in pairs.tolist()]
            return np.array(found, dtype=np.bool_)
        ranges, epochs = pairs.T
        known = ranges < len(self.placed)
        if known.all():
            known = (epochs > 0) & (epochs <= self._last[ranges])
        if not known.all():
            raise _no_epoch(*pairs[int(np.argmin(known))].tolist())
        current = self._builds[ranges] == builds[ranges]
        present: npt.NDArray[np.bool_] = current & (epochs >= self._firsts[ranges])
        return present

    def _is_present(self, index: int, epoch: int, builds: U32) -> bool:
        if index >= len(self.placed) or not 0 < epoch <= self._last[index]:
            raise _no_epoch(index, epoch)
        return bool(self._builds[index] == builds[index] and epoch >= self._firsts[index])

    def seal(self, index: int) -> bool:
        """Mark the current epoch of a range as sealed.

        Returns: whether it was not sealed before.
        """
        placed = self.placed[index][-1]
        if placed.assignment.sealed:
            return False
        self.placed[index][-1] = replace(placed, assignment=replace(placed.assignment, sealed=True))
        self._put(self.placed[index][-1])
        return True

    def begin(self, placed: Placed) -> None:
        """Begin the next epoch of a range."""
        self.placed[placed.assignment.range_index].append(placed)
        self._enter(placed)
        self._put(placed)

    def note_written(self, pairs: U32, written: npt.NDArray[np.bool_]) -> None:
        """Note that a commit counts which has rows in the epochs `pairs` of (range, epoch).

        written: by range, whether it has any; a range that acknowledged a mark alone has not.
        """
        if len(pairs) > _FEW:  # nearly always none is left, as most mappers write to most
            ranges, epochs = pairs.T
            new = written & ~self._last_written
            fresh = new[ranges] | (epochs != self._last[ranges])
            pairs = pairs[fresh & written[ranges]]
        for index, epoch in pairs.tolist():
            is_known = self._last_written[index] and epoch == self._last[index]
            if written[index] and not is_known:
                self._note_written(index, epoch)

    def _note_written(self, index: int, epoch: int) -> None:
        placed = self.find(index, epoch)
        if placed is not None and not placed.written:
            placed = replace(placed, written=True)
            self.placed[index][epoch - self.placed[index][0].assignment.epoch] = placed
            self._last_written[index] |= epoch == self._last[index]
            self._put(placed)

    def put_all(self) -> None:
        """Name every row."""
        for epochs in self.placed:
            for placed in epochs:
                self._put(placed)

    def _enter(self, placed: Placed) -> None:
        assignment = placed.assignment
        index = assignment.range_index
        self._last[index] = assignment.epoch
        self._last_written[index] = placed.written
        if assignment.build != self._builds[index]:
            self._builds[index] = assignment.build
            self._firsts[index] = assignment.epoch

    def _put(self, placed: Placed) -> None:
        key = (self._number, placed.assignment.range_index, placed.assignment.epoch)
        self._changes.put("assignments", key, placed.row)


def _no_epoch(index: int, epoch: int) -> InvalidArgument:
    return InvalidArgument(f"there is no epoch {epoch} of partition range {index}")
