"""What operators are told of an exchange."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from cosco.protocol.events import Event, EventKind
from cosco.protocol.records import ExchangeSpec, ExchangeStatus, PartitionRange

#: Ranges that a message names, of many.
_SHOWN_RANGES: Final = 8


def of_exchange(
    kind: EventKind, spec: ExchangeSpec, status: ExchangeStatus, generation: int, cause: str | None
) -> Event:
    """Return an event of the whole of it."""
    return Event(
        kind=kind,
        exchange=spec.shuffle_id,
        number=status.number,
        generation=generation,
        partitions=spec.partitions,
        replicas=spec.replicas,
        mappers=status.mappers_committed,
        rows=status.rows,
        cause=cause,
    )


class ExchangeEvents:
    """Tells what happens to ranges and mappers of one exchange."""

    def __init__(self, spec: ExchangeSpec, number: int, tell: Callable[[Event], None]) -> None:
        self._shuffle_id = spec.shuffle_id
        self._number = number
        self._tell = tell

    def lost(self, index: int, build: int, mappers: int, cause: str, why: str = "") -> None:
        """Tell that rows of a range are lost, and how many mappers wrote them."""
        self._tell(
            Event(
                kind=EventKind.ROWS_LOST,
                exchange=self._shuffle_id,
                number=self._number,
                range_indexes=(index,),
                build=build,
                mappers=mappers,
                cause=cause,
                reason=why or None,
            )
        )

    def rebuilt(self, index: int | None, build: int) -> None:
        """Tell that every mapper that was called back has committed; None: for all ranges."""
        self._tell(
            Event(
                kind=EventKind.REBUILT,
                exchange=self._shuffle_id,
                number=self._number,
                range_indexes=None if index is None else (index,),
                build=build if index is not None else None,
            )
        )

    def contradicted(self, mapper: int) -> None:
        """Tell that an attempt of a mapper which counts has said two different things."""
        self._tell(
            Event(
                kind=EventKind.COMMIT_CONTRADICTED,
                exchange=self._shuffle_id,
                number=self._number,
                reason=f"an attempt of mapper {mapper} committed twice, with different sums",
            )
        )


def shown_ranges(ranges: Sequence[PartitionRange]) -> str:
    """Return what a message calls one range or several."""
    if len(ranges) == 1:
        [one] = ranges
        return f"partition range {one.index} (partitions {one.first} to {one.end - 1})"
    first = ", ".join(str(one.index) for one in ranges[:_SHOWN_RANGES])
    more = len(ranges) - _SHOWN_RANGES
    return f"partition ranges {first}" + (f" and {more} more" if more > 0 else "")
