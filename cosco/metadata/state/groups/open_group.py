"""A group that is open, its parts, and both as rows of the database."""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from pyroaring import BitMap

from cosco.errors import ExchangeClosed, ExchangeExists, InvalidArgument
from cosco.metadata.state.records.changes import Row
from cosco.metadata.state.records.table_rows import Placed, ref_row, spec_from_row, spec_row
from cosco.protocol.api_limits import shown
from cosco.protocol.group_records import GroupPart, member_name
from cosco.protocol.records import (
    Assignment,
    DaemonRef,
    ExchangeInfo,
    ExchangeSpec,
    PartitionRange,
    RowKind,
)


@dataclass(frozen=True, slots=True)
class Part:
    """Exchanges that one call has made: `size`, with indexes from `first` and numbers from
    `number` on. placed: their first epochs, one of each range."""

    first: int
    size: int
    number: int
    ranges: tuple[PartitionRange, ...]
    placed: tuple[Placed, ...]

    @property
    def end(self) -> int:
        """Return the index after its last exchange."""
        return self.first + self.size

    def row(self) -> Row:
        """Return the columns after (group, first)."""
        placed = [
            [one.first, one.count, epoch.store_id, list(map(ref_row, epoch.assignment.daemons))]
            for one, epoch in zip(self.ranges, self.placed, strict=True)
        ]
        return self.number, self.size, json.dumps(placed)

    @staticmethod
    def from_row(first: int, number: int, size: int, rows: str) -> Part:
        """Return what the columns after the group keep."""
        ranges, placed = [], []
        for index, (partition, count, store_id, refs) in enumerate(json.loads(rows)):
            primary, *replicas = (DaemonRef(*ref) for ref in refs)
            ranges.append(PartitionRange(index, partition, count))
            placed.append(Placed(Assignment(index, 1, 1, primary, tuple(replicas)), store_id))
        return Part(first, size, number, tuple(ranges), tuple(placed))


@dataclass(slots=True)
class Group:
    """An open group. spec: of each exchange, but that its shuffle_id is the group's id.

    parts: ascending; those of which all is closed are left out, but for the last one.
    open: the indexes of the exchanges that are. asking: of those with losses that the driver
    may not have answered.
    """

    spec: ExchangeSpec
    mappers: int
    owner: bytes
    callback: bool
    tenant: str = ""
    parts: list[Part] = field(default_factory=list)
    open: BitMap = field(default_factory=BitMap)
    asking: set[int] = field(default_factory=set)
    #: Number → its mappers that were called back as they did not commit, and when.
    called: dict[int, dict[int, float]] = field(default_factory=dict)

    @property
    def id(self) -> str:
        return self.spec.shuffle_id

    @property
    def exchanges(self) -> int:
        """Return how many it has had: the index that the next one will have."""
        return self.parts[-1].end if self.parts else 0

    def part_of(self, number: int) -> Part:
        """Return the part that has an exchange which is open."""
        return self.parts[bisect_right(self.parts, number, key=lambda p: p.number) - 1]

    def part_from(self, first: int) -> Part:
        """Return the part whose first exchange has the index `first`.

        Raises: ExchangeClosed if all of it is closed; InvalidArgument if no part began there, for
        all that is known.
        """
        found = next((part for part in self.parts if part.first <= first < part.end), None)
        if found is not None and found.first == first:
            return found
        if found is None and first < self.exchanges:
            raise ExchangeClosed(
                f"the exchanges of group {shown(self.id)} from index {first} on are closed",
                shuffle_id=self.id,
            )
        raise self._invalid(f"has no part that begins with exchange {first}")

    def index_of(self, number: int) -> int:
        """Return the index of an exchange that is open."""
        part = self.part_of(number)
        return part.first + number - part.number

    def number_of(self, index: int) -> int:
        """Return the number of an exchange that is open."""
        part = self.parts[bisect_right(self.parts, index, key=lambda p: p.first) - 1]
        return part.number + index - part.first

    def told(self, part: Part, capability: str) -> GroupPart:
        """Return what the driver is told of a part, whatever became of it since."""
        schema = self.spec.schema
        info = ExchangeInfo(
            number=part.number,
            spec=replace(self.spec, shuffle_id=member_name(self.id, part.first)),
            generation=1,
            kind=RowKind.ARROW if schema else RowKind.BYTES,
            schema=schema,
            ranges=part.ranges,
            assignments=tuple(placed.assignment for placed in part.placed),
            capability=capability,
        )
        return GroupPart(self.id, part.first, part.size, self.mappers, info)

    # --- what calls ask for ----------------------------------------------------------------

    def check_driver(self, owner: bytes) -> None:
        """Raise InvalidArgument unless `owner` is the driver."""
        if owner != self.owner:
            raise self._invalid(
                "has another driver; only the one that made it polls for it and extends it"
            )

    def check_repeated(self, spec: ExchangeSpec, mappers: int, first: int, owner: bytes) -> None:
        """Raise what a call that makes or extends a group is told if this is another group."""
        if not first and owner != self.owner:
            raise ExchangeExists(
                f"group {shown(self.id)} exists; ids are used once: take another",
                shuffle_id=self.id,
            )
        self.check_driver(owner)
        # The trace is no option, and a service of before may not have kept it.
        if (replace(spec, trace=self.spec.trace), mappers) != (self.spec, self.mappers):
            raise self._invalid(
                "was made with other options or another number of mappers; extend it with those, "
                "or make another group"
            )

    def check_indexes(self, indexes: BitMap) -> None:
        """Raise InvalidArgument for an index that the group does not have."""
        if indexes and indexes.max() >= self.exchanges:
            raise InvalidArgument(
                f"exchange {indexes.max()} is outside of group {shown(self.id)}, which has "
                f"exchanges 0 to {self.exchanges - 1}",
                shuffle_id=self.id,
            )

    def made_from(self, first: int, size: int) -> Part | None:
        """Return what a call has made that comes again, None if none has.

        Whoever has not heard that an extension was made may ask for another number next time.
        """
        part = next((part for part in self.parts if part.first == first), None)
        return part if part is not None and (first or part.size == size) else None

    def check_extension(self, first: int) -> None:
        """Raise InvalidArgument unless the next exchange has the index `first`."""
        if first != self.exchanges:
            raise self._invalid(
                f"has {self.exchanges} exchanges: extend it from index {self.exchanges}, not "
                f"{first}, or repeat the last call as it was"
            )

    def _invalid(self, reason: str) -> InvalidArgument:
        return InvalidArgument(f"group {shown(self.id)} {reason}", shuffle_id=self.id)

    # --- the database ----------------------------------------------------------------------

    def row(self) -> Row:
        """Return the columns after the group's id."""
        given = self.owner, self.callback, self.mappers, self.tenant
        return *spec_row(self.spec)[1:], *given, self.spec.trace


def restored_groups(tables: Mapping[str, list[Row]]) -> dict[str, Group]:
    """Return the open groups by id, as their rows have them: none of their exchanges is open
    yet."""
    groups = {}
    for *columns, owner, callback, mappers, tenant, trace in tables.get("open_groups", ()):
        spec = replace(spec_from_row(columns), trace=trace)
        group = Group(spec, mappers, owner, bool(callback), tenant)
        groups[group.id] = group
    for group_id, *part in tables.get("blocks", ()):
        groups[group_id].parts.append(Part.from_row(*part))
    return groups
