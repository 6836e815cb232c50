"""The ranges that have failed for good, as their rows cannot be told right from wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from cosco.errors import CoscoError, DataCorrupted, RecomputeMismatch
from cosco.metadata.state.records.changes import ChangeLog
from cosco.protocol.admin_records import RangeFailure
from cosco.protocol.api_limits import shown
from cosco.protocol.events import EventKind

_ERRORS: Final[dict[str, type[CoscoError]]] = {
    error.__name__: error for error in (DataCorrupted, RecomputeMismatch)
}


class Verdict(NamedTuple):
    """What readers of a range are told for good."""

    error: type[CoscoError]
    reason: str


class Verdicts:
    """The verdicts of an exchange, by range; changed rows are named in `changes`."""

    def __init__(self, number: int, changes: ChangeLog, tell: Callable[..., None]) -> None:
        """`tell` has operators told: of a kind of event, of ranges, with reason and cause."""
        self._number = number
        self._changes = changes
        self._tell = tell
        self._by_range: dict[int, Verdict] = {}

    def __contains__(self, index: object) -> bool:
        """Whether a range has failed for good."""
        return index in self._by_range

    def check(self, index: int, partition: int, shuffle_id: str) -> None:
        """Raise what a reader of `partition`, in range `index`, is told if that has failed."""
        verdict = self._by_range.get(index)
        if verdict is not None:
            cause = verdict.error.__name__
            self._tell(EventKind.DATA_LOST, [index], reason=verdict.reason, cause=cause)
            raise verdict.error(
                f"exchange {shown(shuffle_id)}: {verdict.reason}; run its stage again with a new "
                "exchange",
                shuffle_id=shuffle_id,
                partition=partition,
            )

    def add(self, index: int, error: type[CoscoError], reason: str) -> None:
        """Let a range fail for good."""
        verdict = self._by_range[index] = Verdict(error, reason)
        self._tell(EventKind.RANGE_CONDEMNED, [index], reason=reason, cause=error.__name__)
        row = verdict.error.__name__, verdict.reason
        self._changes.put("failures", (self._number, index), lambda: row)

    def shown(self, most: int) -> tuple[RangeFailure, ...]:
        """Return what has failed, at most `most`, for people."""
        return tuple(
            RangeFailure(index, verdict.error.__name__, verdict.reason)
            for index, verdict in sorted(self._by_range.items())[:most]
        )

    def restore(self, index: int, error: str, reason: str) -> None:
        """Take a verdict back from the columns of its row."""
        self._by_range[index] = Verdict(_ERRORS[error], reason)
