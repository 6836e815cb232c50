"""What is kept of an exchange that has ended, and the picture of its partitions' sizes."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from cosco.protocol.html_view import largest_of_runs
from cosco.protocol.records import ExchangeStatus

#: Sizes that a picture has at most: a screen shows no more bars than that side by side.
SIZES_MAX: Final = 256


@dataclass(frozen=True, slots=True)
class FinishedExchange:
    """An exchange that has ended. Seconds are of the Unix clock; created_s is 0 where nobody knows.

    cause: why it was closed, as the events say. kind: the number of its RowKind. losses: of rows of
    partition ranges. rebuilds: builds of ranges beyond their first ones. sizes: see `size_bars`.
    """

    number: int
    shuffle_id: str
    tenant: str = ""
    cause: str = ""
    created_s: float = 0.0
    closed_s: float = 0.0
    partitions: int = 0
    replicas: int = 0
    codec: str = ""
    kind: int = 0
    mappers_committed: int = 0
    rows: int = 0
    bytes_raw: int = 0
    bytes_stored: int = 0
    empty_partitions: int = 0
    losses: int = 0
    rebuilds: int = 0
    sizes: tuple[int, ...] = ()
    largest: tuple[tuple[int, int, int], ...] = ()

    def status(self) -> ExchangeStatus:
        """Return it as lists show it."""
        return ExchangeStatus(
            shuffle_id=self.shuffle_id,
            number=self.number,
            partitions=self.partitions,
            mappers_committed=self.mappers_committed,
            rows=self.rows,
            closing=False,
            finished=True,
        )

    def to_json(self) -> dict[str, Any]:
        """Return all but the number, which is the key of its row."""
        return {name: getattr(self, name) for name in _KEPT}

    @staticmethod
    def from_json(number: int, text: str) -> FinishedExchange:
        """Return what `to_json` gave; what a newer version has added is left out."""
        said = json.loads(text)
        known = {name: said[name] for name in FinishedExchange.__dataclass_fields__ if name in said}
        known["sizes"] = tuple(known.get("sizes", ()))
        known["largest"] = tuple(map(tuple, known.get("largest", ())))
        return FinishedExchange(number, **known)


_KEPT: Final = tuple(one.name for one in fields(FinishedExchange) if one.name != "number")


def size_bars(partition_bytes: npt.NDArray[np.uint64]) -> tuple[int, ...]:
    """Return what shows at a glance how partitions differ: bytes, by partition where they are few;
    of more than SIZES_MAX see `largest_of_runs`."""
    if not len(partition_bytes):
        return ()
    return tuple(largest_of_runs(partition_bytes, SIZES_MAX).tolist())
