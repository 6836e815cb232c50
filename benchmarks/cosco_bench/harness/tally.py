"""What is compared of the rows that went in and those that came out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from cosco.protocol.records import MASK64


@dataclass(frozen=True, slots=True)
class RowTally:
    """Rows and the sum of their keys, modulo 2^64."""

    rows: int = 0
    keys: int = 0

    def plus(self, other: RowTally) -> RowTally:
        return RowTally(self.rows + other.rows, (self.keys + other.keys) & MASK64)


def total(tallies: Iterable[RowTally]) -> RowTally:
    """All of them together."""
    sum_ = RowTally()
    for tally in tallies:
        sum_ = sum_.plus(tally)
    return sum_
