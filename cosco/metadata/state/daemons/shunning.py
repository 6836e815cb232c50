"""Ranges that were moved as somebody could not reach a daemon of theirs that lives."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass
from typing import Final

from cosco.metadata.state.daemons.placement import Avoid

#: (exchange number, range index)
RangeKey = tuple[int, int]

#: A range moves no more often than this from daemons that live.
INSIST_S: Final = 5.0
#: A daemon that was out of reach for somebody of a range is not tried again for so long.
AVOID_S: Final = 30.0

_NOTHING: Final = Avoid()


@dataclass(frozen=True, slots=True)
class _Move:
    avoid: Avoid
    at: float


class Shunning:
    """What such ranges avoid, for a while."""

    def __init__(self) -> None:
        self._moves: dict[RangeKey, _Move] = {}

    def may_move(self, key: RangeKey, now: float) -> bool:
        """Whether a range was not moved so a moment ago."""
        move = self._moves.get(key)
        return move is None or now - move.at >= INSIST_S

    def moved(self, key: RangeKey, avoid: Avoid, now: float) -> None:
        """A range moves, and is to avoid these."""
        self._moves[key] = _Move(avoid, now)

    def avoided(self, key: RangeKey) -> Avoid:
        """What a range is to avoid."""
        move = self._moves.get(key)
        return _NOTHING if move is None else move.avoid

    def forget(self, key: RangeKey) -> None:
        """There is no such range any more; harmless if it was not moved."""
        self._moves.pop(key, None)

    def expire(self, now: float, under_way: Container[RangeKey]) -> None:
        """Have ranges go anywhere again, once that was long ago, but those still moving."""
        for key, move in list(self._moves.items()):
            if now - move.at >= AVOID_S and key not in under_way:
                del self._moves[key]
