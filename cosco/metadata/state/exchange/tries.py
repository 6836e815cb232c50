"""How often mappers that were called back have begun since."""

from __future__ import annotations

from typing import NamedTuple

from pyroaring import BitMap

from cosco.metadata.state.records.changes import ChangeLog


class _Tries(NamedTuple):
    """Attempts of a mapper since it was called back, and the latest one it ever had."""

    attempts: int
    latest: int


class Tries:
    """The attempts of called-back mappers of an exchange; changed rows are named in `changes`.

    A writer that makes its attempt ids itself, as those of groups do, is not known to begin.
    """

    def __init__(self, number: int, changes: ChangeLog) -> None:
        self._number = number
        self._changes = changes
        self._by_mapper: dict[int, _Tries] = {}

    def begun(self) -> BitMap:
        """Return the mappers that have begun since they were called back."""
        return BitMap([m for m, tries in self._by_mapper.items() if tries.attempts])

    def is_latest(self, mapper: int, attempt: int) -> bool:
        """Whether no later attempt of a mapper is known."""
        return mapper not in self._by_mapper or self._by_mapper[mapper].latest == attempt

    def add(self, mapper: int, attempt: int, most: int) -> int:
        """Note that an attempt begins.

        Returns: how many there were before, if that was `most`, from which on counting begins
        anew; else 0.
        """
        known = self._by_mapper.get(mapper)
        count = 1 if known is None else known.attempts + 1
        self._put(mapper, _Tries(0 if count > most else count, attempt))
        return most if count > most else 0

    def called_back(self, mappers: BitMap) -> None:
        """Count from the beginning, as mappers are called back."""
        for mapper in mappers & BitMap(self._by_mapper):
            self._put(mapper, _Tries(0, self._by_mapper[mapper].latest))

    def forget(self, mapper: int) -> None:
        """Forget a mapper that need not run any more; harmless if it is not known."""
        if self._by_mapper.pop(mapper, None) is not None:
            self._changes.delete("tries", (self._number, mapper))

    def forget_all(self) -> None:
        """Forget every mapper."""
        for mapper in list(self._by_mapper):
            self.forget(mapper)

    def restore(self, mapper: int, tries: int, attempt: int) -> None:
        """Take a mapper back from the columns of its row."""
        self._by_mapper[mapper] = _Tries(tries, attempt)

    def _put(self, mapper: int, tries: _Tries) -> None:
        self._by_mapper[mapper] = tries
        self._changes.put("tries", (self._number, mapper), lambda: tries)
