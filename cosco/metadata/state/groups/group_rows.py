"""A group, its blocks, and both as rows of the database."""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field

from pyroaring import BitMap

from cosco.metadata.state.records.changes import Row, unsigned64
from cosco.metadata.state.records.table_rows import Placed, spec_from_row, spec_row
from cosco.protocol.records import Assignment, DaemonRef, ExchangeSpec, PartitionRange


@dataclass(frozen=True, slots=True)
class Block:
    """Exchanges that one call has made: `size`, with indexes from `first` and numbers from
    `number` on. placed: their first epochs, one of each range."""

    first: int
    size: int
    number: int
    ranges: tuple[PartitionRange, ...]
    placed: tuple[Placed, ...]

    @property
    def end(self) -> int:
        """The index after its last exchange."""
        return self.first + self.size


@dataclass(slots=True)
class Group:
    """An open group. spec: of each exchange, but that its shuffle_id is the group's id.

    blocks: ascending; those of which all is closed are left out, but for the last one.
    open: the indexes of the exchanges that are. asking: of those with losses that the driver
    may not have answered.
    """

    spec: ExchangeSpec
    mappers: int
    owner: bytes
    callback: bool
    blocks: list[Block] = field(default_factory=list)
    open: BitMap = field(default_factory=BitMap)
    asking: set[int] = field(default_factory=set)
    #: Number → its mappers that were called back as they did not commit, and when.
    called: dict[int, dict[int, float]] = field(default_factory=dict)

    @property
    def id(self) -> str:
        return self.spec.shuffle_id

    @property
    def exchanges(self) -> int:
        """How many it has had: the index that the next one will have."""
        return self.blocks[-1].end if self.blocks else 0

    def block_of(self, number: int) -> Block:
        """The block that has an exchange which is open."""
        return self.blocks[bisect_right(self.blocks, number, key=lambda b: b.number) - 1]

    def index_of(self, number: int) -> int:
        """The index of an exchange that is open."""
        block = self.block_of(number)
        return block.first + number - block.number

    def number_of(self, index: int) -> int:
        """The number of an exchange that is open."""
        block = self.blocks[bisect_right(self.blocks, index, key=lambda b: b.first) - 1]
        return block.number + index - block.first


def group_row(group: Group) -> Row:
    """The columns after the group's id."""
    return *spec_row(group.spec)[1:], group.owner, int(group.callback), group.mappers


def block_row(block: Block) -> Row:
    """The columns after (group, first)."""
    placed = [
        [
            part.first,
            part.count,
            epoch.store_id,
            [[ref.incarnation, ref.address] for ref in epoch.assignment.daemons],
        ]
        for part, epoch in zip(block.ranges, block.placed, strict=True)
    ]
    return block.number, block.size, json.dumps(placed)


def restored_groups(tables: Mapping[str, list[Row]]) -> dict[str, Group]:
    """The open groups by id, as their rows have them: none of their exchanges is open yet."""
    groups = {}
    for group_id, *columns in tables.get("open_groups", ()):
        *spec, owner, callback, mappers = columns
        assert isinstance(owner, bytes)
        groups[str(group_id)] = Group(
            spec_from_row((group_id, *spec)), unsigned64(mappers), owner, bool(callback)
        )
    for group_id, first, number, size, placed in tables.get("blocks", ()):
        block = _block(unsigned64(first), unsigned64(size), unsigned64(number), str(placed))
        groups[str(group_id)].blocks.append(block)
    return groups


def _block(first: int, size: int, number: int, rows: str) -> Block:
    ranges, placed = [], []
    for index, (partition, count, store_id, refs) in enumerate(json.loads(rows)):
        primary, *replicas = (DaemonRef(*ref) for ref in refs)
        ranges.append(PartitionRange(index, partition, count))
        placed.append(Placed(Assignment(index, 1, 1, primary, tuple(replicas)), store_id))
    return Block(first, size, number, tuple(ranges), tuple(placed))
