"""What things are known by: each key a type of its own, so that mypy can tell them apart."""

from __future__ import annotations

from typing import NamedTuple


class RangeEpoch(NamedTuple):
    """One epoch of a partition range, where the exchange is known."""

    range_index: int
    epoch: int


class RangeKey(NamedTuple):
    """A partition range, by the number of its exchange."""

    number: int
    range_index: int


class AssignmentKey(NamedTuple):
    """One epoch of a partition range, by the number of its exchange."""

    number: int
    range_index: int
    epoch: int

    @property
    def range_key(self) -> RangeKey:
        """Return its range, whatever the epoch."""
        return RangeKey(self.number, self.range_index)

    @property
    def range_epoch(self) -> RangeEpoch:
        """Return the same without the exchange."""
        return RangeEpoch(self.range_index, self.epoch)

    def __str__(self) -> str:
        return f"range {self.range_index} of exchange {self.number} in epoch {self.epoch}"


class MapperAttempt(NamedTuple):
    """One run of a mapper: what blocks and the streams of writers name."""

    mapper: int
    attempt: int


class CopyId(NamedTuple):
    """A forwarded frame: the incarnation of its primary, and its sequence on their stream."""

    primary: int
    sequence: int


class LossKey(NamedTuple):
    """A loss, as drivers know it: its id in the exchange of this index in the group, or of 0."""

    exchange_index: int
    loss_id: int
