"""The open groups: exchanges that are made at once, placed alike and polled for together.

Each exchange of a group is an ordinary one; what is kept here is which they are. They come in
*blocks*, one of each call that made some: their numbers follow each other, and their first
epochs are the same assignments. A group has one lease for all of its exchanges; when it ends,
all end. While a group is open, all ids of the form of its exchanges' are its own; of a closed
one those that it used stay used (`used_groups` in `cosco.metadata.store.sql`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import Final

from pyroaring import BitMap

from cosco.errors import ExchangeExists, InvalidArgument
from cosco.metadata.state.daemons.lifecycle import Lifecycle
from cosco.metadata.state.daemons.members import Members
from cosco.metadata.state.exchange.directory import Directory
from cosco.metadata.state.exchange.exchange_state import ExchangeState
from cosco.metadata.state.exchange.losses import one_line
from cosco.metadata.state.groups.alike_exchanges import alike_in
from cosco.metadata.state.groups.group_checks import (
    check_driver,
    check_indexes,
    check_same,
    not_open,
)
from cosco.metadata.state.groups.group_rows import (
    Block,
    Group,
    block_row,
    group_row,
    restored_groups,
)
from cosco.metadata.state.records.changes import ChangeLog, Row
from cosco.metadata.state.records.leases import Leases
from cosco.protocol.api_limits import check_group_spec, check_owner, shown
from cosco.protocol.group_records import (
    FoundAssignment,
    GroupAnswer,
    GroupCall,
    GroupPart,
    group_of,
    member_name,
)
from cosco.protocol.records import Assignment, ExchangeInfo, ExchangeSpec, RowKind

#: A poll is told of so many losses at most; of the others once these are answered.
MAX_CALLS: Final = 1000
#: Mappers that were called back as they did not commit are so again after so many seconds.
RECALL_S: Final = 10.0


class Groups:
    """All open groups, and their leases.

    Where a method takes `used`, that is whether the database knows of a group of that id, which
    it is asked if this does not (`knows`). Unless said otherwise they raise ExchangeNotFound
    for a group that never was, and ExchangeClosed for one that is closed.
    """

    def __init__(
        self,
        tables: Mapping[str, list[Row]],
        directory: Directory,
        members: Members,
        lifecycle: Lifecycle,
        changes: ChangeLog,
        now: float,
    ) -> None:
        """Go on with the groups of `tables`, whose exchanges are in `directory`; every lease
        begins in full now."""
        self._directory = directory
        self._members = members
        self._lifecycle = lifecycle
        self._changes = changes
        self._leases: Leases[str] = Leases()
        self._groups = restored_groups(tables)
        #: By the number of each open exchange.
        self._of: dict[int, Group] = {}
        for group in self._groups.values():
            self._leases.renew(group.id, group.spec.lease_s, now)
            for block in group.blocks:
                for number in range(block.number, block.number + block.size):
                    exchange = directory.open.get(number)
                    if exchange is not None:
                        exchange.join_group(group.mappers)
                        self._joined(group, block.first + number - block.number, number)
                        self.told(exchange)

    # --- what there is ---------------------------------------------------------------------

    def knows(self, group_id: str) -> bool:
        """Whether a group of this id is open."""
        return group_id in self._groups

    def reserves(self, shuffle_id: str) -> bool:
        """Whether an id is, or may become, that of an exchange of an open group."""
        name = group_of(shuffle_id)
        return name is not None and name[0] in self._groups

    def check_single(self, exchange: ExchangeState) -> None:
        """Raise InvalidArgument for an exchange of a group, which its driver polls for."""
        group = self._of.get(exchange.number)
        if group is not None:
            raise InvalidArgument(
                f"exchange {shown(exchange.spec.shuffle_id)} is of group {shown(group.id)}, whose "
                "driver polls for all of it; it has none of its own",
                shuffle_id=exchange.spec.shuffle_id,
            )

    def id_of(self, number: int) -> str | None:
        """The group of an open exchange."""
        group = self._of.get(number)
        return None if group is None else group.id

    def lease_s(self, group_id: str) -> float:
        """The lease of an open group."""
        return self._open(group_id, used=True).spec.lease_s

    # --- time ------------------------------------------------------------------------------

    def expire(self, now: float) -> list[int]:
        """Close the groups whose leases ran out; returns the numbers of their exchanges."""
        return [number for group_id in self._leases.expire(now) for number in self._end(group_id)]

    def restart_leases(self, now: float) -> None:
        """Begin a full lease for every group."""
        self._leases.restart(now)

    # --- drivers ---------------------------------------------------------------------------

    def create(
        self,
        spec: ExchangeSpec,
        mappers: int,
        size: int,
        first: int,
        owner: bytes,
        now: float,
        *,
        callback: bool,
        used: bool = False,
        taken: str | None = None,
    ) -> GroupPart:
        """Make a group (`first` is 0) or extend it, or answer the repeated call that did.

        spec: its shuffle_id is the group's. The sizes are checked by the caller.
        taken: an id that the group would have for its own, and was used before.
        Raises InvalidArgument, ExchangeExists when one of the ids was ever used, and
        CapacityExceeded without daemons.
        """
        check_group_spec(spec)
        check_owner(owner)
        group = self._groups.get(spec.shuffle_id)
        if group is None and first:
            raise not_open(spec.shuffle_id, used=used)
        if group is None:
            self._check_unused(spec.shuffle_id, used, taken)
            group = Group(spec, mappers, owner, callback)
            block = self._extend(group, size)
            self._groups[group.id] = group
            self._changes.put("open_groups", (group.id,), partial(group_row, group))
        else:
            check_same(group, spec, mappers, first, owner)
            found = next((b for b in group.blocks if (b.first, b.size) == (first, size)), None)
            if found is None and first != group.exchanges:
                raise InvalidArgument(
                    f"group {shown(group.id)} has {group.exchanges} exchanges: extend it from "
                    f"index {group.exchanges}, not {first}, or repeat the last call as it was",
                    shuffle_id=group.id,
                )
            block = found or self._extend(group, size)
        self._leases.renew(group.id, group.spec.lease_s, now)
        return _made(group, block)

    def poll(
        self, group_id: str, owner: bytes, now: float, *, used: bool = False
    ) -> tuple[GroupCall, ...]:
        """Renew the lease of a group for its driver; the losses that it has not answered.

        Raises InvalidArgument for another driver.
        """
        group = self._open(group_id, used=used)
        check_driver(group, owner)
        self._leases.renew(group_id, group.spec.lease_s, now)
        calls: list[GroupCall] = []
        for index in sorted(group.asking):
            found = self._directory.open[group.number_of(index)].calls()
            if not found:
                group.asking.discard(index)
            calls += (GroupCall(index, call) for call in found)
            if len(calls) >= MAX_CALLS:
                break
        return tuple(calls)

    def answer(
        self, group_id: str, owner: bytes, answers: Iterable[GroupAnswer], *, used: bool = False
    ) -> list[int]:
        """How callbacks of a group's driver ended; returns the numbers of the exchanges of which
        readers are told other things now.

        Raises InvalidArgument for another driver, or an index outside of the group, and then
        takes none.
        """
        group = self._open(group_id, used=used)
        check_driver(group, owner)
        answers = tuple(answers)
        check_indexes(group, BitMap([answer.index for answer in answers]))
        changed = set()
        for answer in answers:
            if answer.index in group.open:
                exchange = self._directory.open[group.number_of(answer.index)]
                before = exchange.news
                if answer.failure:
                    exchange.answer_calls((), [(answer.loss_id, answer.failure)])
                else:
                    exchange.answer_calls([answer.loss_id], ())
                if exchange.news != before:
                    changed.add(exchange.number)
        return sorted(changed)

    def release(self, group_id: str, indexes: BitMap, *, used: bool = False) -> list[int]:
        """Close exchanges of a group; returns the numbers of those that were not yet.

        Raises InvalidArgument for an index outside of the group, and then closes none.
        """
        group = self._open(group_id, used=used)
        check_indexes(group, indexes)
        numbers = [group.number_of(index) for index in indexes & group.open]
        for number in numbers:
            self._close(number)
        return numbers

    def close(self, group_id: str, *, used: bool = False) -> list[int]:
        """Close a group and what is open of it; returns the numbers of that.

        Harmless if it is closed.
        """
        if not self.knows(group_id) and used:
            return []
        self._open(group_id, used=used)
        self._leases.forget(group_id)
        return self._end(group_id)

    # --- what becomes of its exchanges -----------------------------------------------------

    def told(self, exchange: ExchangeState) -> None:
        """An exchange may have other losses than before."""
        group = self._of.get(exchange.number)
        if group is not None and exchange.losses.unanswered:
            group.asking.add(group.index_of(exchange.number))

    def closed(self, number: int) -> None:
        """An exchange was closed; harmless if it is of no group."""
        group = self._of.pop(number, None)
        if group is None:
            return
        block, index = group.block_of(number), group.index_of(number)
        group.open.discard(index)
        group.asking.discard(index)
        group.called.pop(number, None)
        if block is not group.blocks[-1]:
            self._forget_if_closed(group, block)

    def report_uncommitted(self, number: int, mappers: BitMap, reason: str, now: float) -> None:
        """Have mappers run again that died before they committed; others are passed over, and
        those that were reported less than RECALL_S ago: their re-run may die as well.

        Raises ExchangeNotFound or ExchangeClosed of the exchange; InvalidArgument if it is of no
        group, or has no such mappers.
        """
        exchange = self._directory.get(number)
        shuffle_id = exchange.spec.shuffle_id
        if not exchange.mappers:
            raise InvalidArgument(
                f"exchange {shown(shuffle_id)} is of no group: its mappers commit themselves",
                shuffle_id=shuffle_id,
            )
        if mappers and mappers.max() >= exchange.mappers:
            raise InvalidArgument(
                f"mapper {mappers.max()} is reported, exchange {shown(shuffle_id)} has mappers 0 "
                f"to {exchange.mappers - 1}",
                shuffle_id=shuffle_id,
            )
        called = self._of[number].called.setdefault(number, {})
        due = mappers - exchange.attempts.committed_mappers
        due -= BitMap(
            mapper for mapper in due if mapper in called and now - called[mapper] < RECALL_S
        )
        called.update(dict.fromkeys(due, now))
        exchange.losses.call_back(due, one_line(reason) or "mappers did not commit")
        exchange.put_counters()
        self.told(exchange)

    def found(self, exchange: ExchangeState, assignment: Assignment) -> FoundAssignment:
        """What a daemon is told of an assignment of its own that is in force."""
        part = exchange.ranges[assignment.range_index]
        group = self._of.get(exchange.number)
        if group is None:
            return FoundAssignment(assignment, part)
        alike = None
        if assignment.epoch == 1:
            block = group.block_of(exchange.number)
            alike = alike_in(block, assignment, self._directory.open)
        return FoundAssignment(assignment, part, group.mappers, alike)

    # --- inside ----------------------------------------------------------------------------

    def _open(self, group_id: str, *, used: bool) -> Group:
        group = self._groups.get(group_id)
        if group is None:
            raise not_open(group_id, used=used)
        return group

    def _check_unused(self, group_id: str, used: bool, taken: str | None) -> None:
        if used:
            raise ExchangeExists(
                f"group {shown(group_id)} existed; ids are used once: take another",
                shuffle_id=group_id,
            )
        taken = taken or next(
            # The database may not have these yet.
            (name for name in self._directory.ids() if (group_of(name) or ("",))[0] == group_id),
            None,
        )
        if taken:
            raise ExchangeExists(
                f"exchange {shown(taken)} exists or existed, and group {shown(group_id)} would "
                "name its own so; ids are used once: take another for the group",
                shuffle_id=group_id,
            )

    def _extend(self, group: Group, size: int) -> Block:
        last = group.blocks[-1] if group.blocks else None
        first, number = group.exchanges, self._directory.next_number
        if last is not None and self._members.would_take(last.placed):
            ranges, placed = last.ranges, last.placed
        else:
            ranges, epochs = self._members.first_epochs(group.spec, number - 1, of_group=True)
            placed = tuple(epoch for [epoch] in epochs)
        block = Block(first, size, number, ranges, placed)
        group.blocks.append(block)
        alone = [(epoch,) for epoch in placed]
        for index in range(first, block.end):
            exchange = self._lifecycle.open(
                replace(group.spec, shuffle_id=member_name(group.id, index)),
                group.owner,
                ranges,
                alone,
                callback=group.callback,
                mappers=group.mappers,
            )
            self._joined(group, index, exchange.number)
        if last is not None:
            self._forget_if_closed(group, last)
        self._changes.put("blocks", (group.id, first), partial(block_row, block))
        used = block.end, number + size - 1
        self._changes.put("used_groups", (group.id,), lambda: used)
        return block

    def _joined(self, group: Group, index: int, number: int) -> None:
        group.open.add(index)
        self._of[number] = group

    def _forget_if_closed(self, group: Group, block: Block) -> None:
        if not group.open.range_cardinality(block.first, block.end):
            group.blocks.remove(block)
            self._changes.delete("blocks", (group.id, block.first))

    def _close(self, number: int) -> None:
        self._lifecycle.close(self._directory.open[number])
        self.closed(number)

    def _end(self, group_id: str) -> list[int]:
        group = self._groups.pop(group_id)
        numbers = [group.number_of(index) for index in group.open]
        for number in numbers:
            self._close(number)
        self._changes.delete("open_groups", (group_id,))
        self._changes.delete("blocks", (group_id,))
        return numbers


def _made(group: Group, block: Block) -> GroupPart:
    """What a driver is told of a block, whatever became of it since."""
    schema = group.spec.schema
    info = ExchangeInfo(
        number=block.number,
        spec=replace(group.spec, shuffle_id=member_name(group.id, block.first)),
        generation=1,
        kind=RowKind.ARROW if schema else RowKind.BYTES,
        schema=schema,
        ranges=block.ranges,
        assignments=tuple(placed.assignment for placed in block.placed),
    )
    return GroupPart(group.id, block.first, block.size, group.mappers, info)
