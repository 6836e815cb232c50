"""What rows of several tables keep: what was asked for, and where it was placed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields, replace
from operator import attrgetter
from typing import Any, Final

from cosco.metadata.state.records.changes import Row
from cosco.protocol.records import Assignment, DaemonRef, ExchangeSpec

#: What is not among the first columns of both tables: what a group never has, and what was added.
_APART: Final = ("direct_reads", "trace")
_SPEC_FIELDS: Final = [field.name for field in fields(ExchangeSpec) if field.name not in _APART]
#: Columns that keep an ExchangeSpec, in the order of its fields.
SPEC_COLUMNS: Final = len(_SPEC_FIELDS)

#: What keeps a spec, and a daemon: a group makes thousands, and `astuple` takes its time.
spec_row: Final[Callable[[ExchangeSpec], Row]] = attrgetter(*_SPEC_FIELDS)
ref_row: Final[Callable[[DaemonRef], Row]] = attrgetter("incarnation", "address")


def spec_from_row(columns: Iterable[Any]) -> ExchangeSpec:
    """Return the spec that `spec_row` made columns of."""
    spec = ExchangeSpec(*columns)
    return replace(spec, deterministic=bool(spec.deterministic))


@dataclass(frozen=True, slots=True)
class Placed:
    """An assignment, and its primary's store: files in it outlive the primary.

    written: whether a commit that counts has rows in it.
    """

    assignment: Assignment
    store_id: str
    written: bool = False

    def row(self) -> Row:
        """Return the columns after (number, range, epoch)."""
        assignment = self.assignment
        replicas = json.dumps([ref_row(ref) for ref in assignment.replicas])
        return (
            assignment.build, *ref_row(assignment.primary), self.store_id, replicas,
            assignment.sealed, self.written,
        )  # fmt: skip

    @staticmethod
    def from_row(row: Row) -> Placed:
        """Return what a row keeps that begins with (range, epoch)."""
        range_index, epoch, build, incarnation, address, store_id, replicas, *rest = row
        sealed, written = map(bool, rest)
        primary = DaemonRef(incarnation, address)
        others = tuple(DaemonRef(*ref) for ref in json.loads(replicas))
        assignment = Assignment(range_index, epoch, build, primary, others, sealed)
        return Placed(assignment, store_id, written)
