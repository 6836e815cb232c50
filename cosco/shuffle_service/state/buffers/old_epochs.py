"""What a daemon is to drop, and which epochs of ranges it knows to be over. No IO."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Container, Mapping
from dataclasses import dataclass
from typing import Final

from cosco.protocol.keys import AssignmentKey

#: Ranges of which it is remembered which epochs are over. What is forgotten costs a reader who asks
#: for such an epoch one more question: it finds nothing, and asks the metadata service as well.
MAX_RANGES: Final = 1 << 16


@dataclass(frozen=True, slots=True)
class Going:
    """Assignments that are to go: all of an exchange, or the epochs of its ranges `before` one.

    They are what it contains.
    """

    number: int
    before: Mapping[int, int] | None = None

    def __contains__(self, key: object) -> bool:
        if not isinstance(key, AssignmentKey) or key.number != self.number:
            return False
        return self.before is None or key.epoch < self.before.get(key.range_index, 0)


class OldEpochs:
    """The epochs that a daemon has dropped of exchanges which are open. They are what it contains.

    Exchanges of which it was told first are forgotten first, when there are too many ranges.
    """

    def __init__(self, max_ranges: int = MAX_RANGES) -> None:
        self._max_ranges = max_ranges
        self._before: OrderedDict[int, dict[int, int]] = OrderedDict()
        self._ranges = 0

    def __contains__(self, key: object) -> bool:
        if not isinstance(key, AssignmentKey) or not self._before:  # as nearly always
            return False
        return key.epoch < self._before.get(key.number, _NONE).get(key.range_index, 0)

    def __len__(self) -> int:
        """Return how many ranges are remembered."""
        return self._ranges

    def add(self, going: Going) -> None:
        """Remember what is dropped of an exchange. What was over before stays over."""
        known = self._before.setdefault(going.number, {})
        self._ranges -= len(known)
        for index, before in (going.before or {}).items():
            known[index] = max(before, known.get(index, 0))
        self._ranges += len(known)
        while self._ranges > self._max_ranges:
            self.forget(next(iter(self._before)))

    def keep(self, numbers: Container[int]) -> None:
        """Remember nothing of other exchanges than these."""
        for number in [number for number in self._before if number not in numbers]:
            self.forget(number)

    def forget(self, number: int) -> None:
        """Remember nothing of an exchange."""
        self._ranges -= len(self._before.pop(number, ()))


_NONE: Final[dict[int, int]] = {}
