"""When a read that is slow is asked for a second time."""

from __future__ import annotations

from collections import deque
from typing import Final

#: Reads that are remembered, and those that must be known before anything is called slow.
_REMEMBERED: Final = 128
_KNOWN_ENOUGH: Final = 20
#: A read is slow once it takes longer than this share of those before it.
_SLOW_SHARE: Final = 0.95
#: Sooner than this a second request is not worth its price.
_MIN_DELAY_S: Final = 0.02
#: Reads that must have ended for each request that is added, and those that count at most: after
#: a quiet time eight may be added at once.
_READS_PER_EXTRA: Final = 20
_READS_SAVED_MAX: Final = 8 * _READS_PER_EXTRA


class Hedging:
    """Decides by the reads that were: how long to wait, and whether one more may be asked for.

    Reads are compared with those of about their length, each class of which is four times as
    long as the one before.
    """

    def __init__(self) -> None:
        self._seconds: dict[int, deque[float]] = {}
        self._saved = 0

    def read_took(self, length: int, seconds: float) -> None:
        """Remember a read that ended well."""
        of_length = self._seconds.setdefault(_class_of(length), deque(maxlen=_REMEMBERED))
        of_length.append(seconds)
        self._saved = min(_READS_SAVED_MAX, self._saved + 1)

    def delay_s(self, length: int) -> float | None:
        """Return how long to wait before a read is slow; None if too little is known."""
        of_length = self._seconds.get(_class_of(length), ())
        if len(of_length) < _KNOWN_ENOUGH:
            return None
        slow = sorted(of_length)[int(len(of_length) * _SLOW_SHARE)]
        return max(_MIN_DELAY_S, slow)

    def take(self) -> bool:
        """Whether one more request may be made; if so, it is counted."""
        if self._saved < _READS_PER_EXTRA:
            return False
        self._saved -= _READS_PER_EXTRA
        return True


def _class_of(length: int) -> int:
    return max(0, length - 1).bit_length() // 2
