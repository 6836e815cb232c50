"""The open groups: exchanges that are made at once, placed alike and polled for together.

Each exchange of a group is an ordinary one; what is kept here is which they are. They come in
*parts*, one of each call that made some: their numbers follow each other, and their first
epochs are the same assignments. A group has one lease for all of its exchanges; when it ends,
all end. While a group is open, all ids of the form of its exchanges' are its own; of a closed
one those that it used stay used (`used_groups` in `cosco.metadata.store.sql`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Final

from pyroaring import BitMap

from cosco.errors import ExchangeClosed, ExchangeExists, ExchangeNotFound, InvalidArgument
from cosco.metadata.state.daemons.members import Members
from cosco.metadata.state.exchange.directory import Directory
from cosco.metadata.state.exchange.exchange_state import ExchangeState
from cosco.metadata.state.exchange.losses import one_line
from cosco.metadata.state.groups.open_group import Group, Part, restored_groups
from cosco.metadata.state.records.capability_keys import CapabilityKeys
from cosco.metadata.state.records.changes import ChangeLog, Row
from cosco.metadata.state.records.leases import LeaseAge, Leases
from cosco.protocol.api_limits import check_group_spec, check_owner, shown
from cosco.protocol.capability import tenant_tag
from cosco.protocol.events import Event, EventKind
from cosco.protocol.group_records import (
    Alike,
    FoundAssignment,
    GroupAnswer,
    GroupCall,
    GroupPart,
    group_of,
    member_name,
)
from cosco.protocol.records import Assignment, ExchangeSpec

#: Losses that a poll is told of, at most; of the others once these are answered.
MAX_CALLS: Final = 1000
#: Mappers that were called back as they did not commit are called back again after this time.
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
        keys: CapabilityKeys,
        changes: ChangeLog,
        now: float,
    ) -> None:
        """Go on with the groups of `tables`, whose exchanges are in `directory`; every lease
        begins in full now."""
        self._directory = directory
        self._members = members
        self._keys = keys
        self._changes = changes
        self._leases: Leases[str] = Leases()
        self._groups = restored_groups(tables)
        #: Number of an open exchange → its group.
        self._of: dict[int, Group] = {}
        for group in self._groups.values():
            self._leases.renew(group.id, group.spec.lease_s, now)
            for part in group.parts:
                for number in range(part.number, part.number + part.size):
                    exchange = directory.open.get(number)
                    if exchange is not None:
                        exchange.join_group(group.mappers)
                        self._joined(group, part.first + number - part.number, number)
                        self.told(exchange)

    # --- what there is ---------------------------------------------------------------------

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._groups)

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
        """Return the group of an open exchange, if it is of one."""
        group = self._of.get(number)
        return None if group is None else group.id

    @property
    def open(self) -> Mapping[str, Group]:
        """Return all that there are, by id."""
        return self._groups

    def tenant_of(self, group_id: str) -> str | None:
        """Return whose an open group is; None if there is none."""
        group = self._groups.get(group_id)
        return None if group is None else group.tenant

    def part_from(self, group_id: str, first: int, *, used: bool) -> Part:
        """Return a part of an open group; see `Group.part_from`. used: the database knows its id.

        Raises: ExchangeClosed, ExchangeNotFound, InvalidArgument.
        """
        return self._open(group_id, used=used).part_from(first)

    def lease_age(self, group_id: str, now: float) -> LeaseAge:
        """Return how old the lease of a group is."""
        return self._leases.age(group_id, now)

    def lease_s(self, group_id: str) -> float:
        """Return the lease of an open group."""
        return self._open(group_id, used=True).spec.lease_s

    # --- time ------------------------------------------------------------------------------

    def expire(self, now: float) -> list[int]:
        """Close the groups whose leases ran out.

        Returns: the numbers of their exchanges.
        """
        expired = self._leases.expire(now)
        return [number for group_id in expired for number in self._end(group_id, "lease")]

    def restart_leases(self, now: float, longest_s: float) -> None:
        """Begin a full lease for every group whose lease is at most `longest_s`."""
        self._leases.restart(now, longest_s)

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
        tenant: str = "",
        used: bool = False,
        taken: str | None = None,
    ) -> GroupPart:
        """Make a group (`first` is 0) or extend it, or answer the repeated call that did.

        An extension that was carried out, though its driver was told otherwise or nothing, is the
        answer to the next one from the same index, of whatever size.

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
            group = Group(spec, mappers, owner, callback, tenant)
            part = self._extend(group, size)
            self._groups[group.id] = group
            self._tell(EventKind.GROUP_CREATED, group, size)
            self._changes.put("open_groups", (group.id,), group.row)
        else:
            group.check_repeated(spec, mappers, first, owner)
            found = group.made_from(first, size)
            if found is None:
                group.check_extension(first)
            part = found or self._extend(group, size)
            if found is None:
                self._tell(EventKind.GROUP_EXTENDED, group, size)
        self._leases.renew(group.id, group.spec.lease_s, now)
        capability = self._keys.capability(part.number, part.size, tenant=group.tenant)
        return group.told(part, capability)

    def poll(
        self, group_id: str, owner: bytes, now: float, *, used: bool = False
    ) -> tuple[GroupCall, ...]:
        """Renew the lease of a group for its driver.

        Returns: the losses that the driver has not answered.

        Raises InvalidArgument for another driver.
        """
        group = self._open(group_id, used=used)
        group.check_driver(owner)
        self._leases.renew(group_id, group.spec.lease_s, now)
        calls: list[GroupCall] = []
        for index in sorted(group.asking):
            found = self._directory.open[group.number_of(index)].losses.calls()
            if not found:
                group.asking.discard(index)
            calls += (GroupCall(index, call) for call in found)
            if len(calls) >= MAX_CALLS:
                break
        return tuple(calls)

    def answer(
        self, group_id: str, owner: bytes, answers: Iterable[GroupAnswer], *, used: bool = False
    ) -> list[int]:
        """Take how callbacks of a group's driver ended.

        Returns: the numbers of the exchanges of which readers are told other things now.

        Raises InvalidArgument for another driver, or an index outside of the group, and then
        takes none.
        """
        group = self._open(group_id, used=used)
        group.check_driver(owner)
        answers = tuple(answers)
        group.check_indexes(BitMap([answer.index for answer in answers]))
        changed = set()
        for answer in answers:
            if answer.index in group.open:
                number = group.number_of(answer.index)
                losses = self._directory.open[number].losses
                before = losses.news
                if answer.failure:
                    losses.answer((), [(answer.loss_id, answer.failure)])
                else:
                    losses.answer([answer.loss_id], ())
                if losses.news != before:
                    changed.add(number)
        return sorted(changed)

    def release(self, group_id: str, indexes: BitMap, *, used: bool = False) -> list[int]:
        """Close exchanges of a group.

        Returns: the numbers of those that were open.

        Raises InvalidArgument for an index outside of the group, and then closes none.
        """
        group = self._open(group_id, used=used)
        group.check_indexes(indexes)
        numbers = [group.number_of(index) for index in indexes & group.open]
        for number in numbers:
            self._close(number)
        return numbers

    def close(self, group_id: str, *, used: bool = False) -> list[int]:
        """Close a group and what is open of it.

        Returns: the numbers of what was open.

        Harmless if it is closed.
        """
        if not self.knows(group_id) and used:
            return []
        self._open(group_id, used=used)
        self._leases.forget(group_id)
        return self._end(group_id, "asked")

    # --- what becomes of its exchanges -----------------------------------------------------

    def told(self, exchange: ExchangeState) -> None:
        """Note that an exchange may have other losses than before."""
        group = self._of.get(exchange.number)
        if group is not None and exchange.losses.unanswered:
            group.asking.add(group.index_of(exchange.number))

    def closed(self, number: int) -> None:
        """Forget an exchange that was closed; harmless if it is of no group."""
        group = self._of.pop(number, None)
        if group is None:
            return
        part, index = group.part_of(number), group.index_of(number)
        group.open.discard(index)
        group.asking.discard(index)
        group.called.pop(number, None)
        if part is not group.parts[-1]:
            self._forget_if_closed(group, part)

    def report_uncommitted(
        self,
        number: int,
        mappers: BitMap,
        reason: str,
        now: float,
        *,
        range_index: int = 0,
        build: int = 0,
    ) -> None:
        """Have mappers run again that died before they committed; others are passed over, and
        those that were reported less than RECALL_S ago: their re-run may die as well.

        build: 0 for mappers that never have, else that of a range that they were called back for,
        in which they have marked since.

        Raises ExchangeNotFound or ExchangeClosed of the exchange; InvalidArgument if it is of no
        group, or has no such mappers or range.
        """
        exchange = self._directory.get(number)
        _check_reported(exchange, mappers, range_index)
        if build not in {0, exchange.build(range_index)}:
            return
        losses = exchange.losses
        due = mappers - exchange.attempts.committed_mappers
        if build:
            due = losses.pending(range_index) & mappers
        called = self._of[number].called.setdefault(number, {})
        due -= BitMap(
            mapper for mapper in due if mapper in called and now - called[mapper] < RECALL_S
        )
        called.update(dict.fromkeys(due, now))
        reason = one_line(reason) or "mappers did not commit"
        if build:
            losses.call_again(range_index, due, reason)
        else:
            losses.call_back(due, reason)
        exchange.put_counters()
        self.told(exchange)

    def found(self, exchange: ExchangeState, assignment: Assignment) -> FoundAssignment:
        """Return what a daemon is told of an assignment of its own that is in force."""
        partition_range = exchange.ranges[assignment.range_index]
        tenant, trace = tenant_tag(exchange.tenant), exchange.spec.trace
        group = self._of.get(exchange.number)
        if group is None:
            return FoundAssignment(assignment, partition_range, tenant=tenant, trace=trace)
        alike = None
        if assignment.epoch == 1:
            part = group.part_of(exchange.number)
            alike = alike_in(part, assignment, self._directory.open)
        return FoundAssignment(assignment, partition_range, group.mappers, alike, tenant, trace)

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

    def _extend(self, group: Group, size: int) -> Part:
        self._directory.check_room(group.tenant, size)
        last = group.parts[-1] if group.parts else None
        first, number = group.exchanges, self._directory.next_number
        if last is not None and self._members.would_take(last.placed):
            ranges, placed = last.ranges, last.placed
        else:
            ranges, epochs = self._members.first_epochs(group.spec, number - 1, of_group=True)
            placed = tuple(epoch for [epoch] in epochs)
        part = Part(first, size, number, ranges, placed)
        group.parts.append(part)
        alone = [(epoch,) for epoch in placed]
        capability = self._keys.capability(number, size, tenant=group.tenant)
        for index in range(first, part.end):
            exchange = self._members.open_exchange(
                replace(group.spec, shuffle_id=member_name(group.id, index)),
                group.owner,
                ranges,
                alone,
                callback=group.callback,
                tenant=group.tenant,
                mappers=group.mappers,
                capability=capability,
            )
            self._joined(group, index, exchange.number)
        if last is not None:
            self._forget_if_closed(group, last)
        self._changes.put("blocks", (group.id, first), part.row)
        used = part.end, number + size - 1
        self._changes.put("used_groups", (group.id,), lambda: used)
        return part

    def _tell(
        self, kind: EventKind, group: Group, exchanges: int, cause: str | None = None
    ) -> None:
        self._changes.tell(
            Event(
                kind=kind, group=group.id, exchanges=exchanges, mappers=group.mappers, cause=cause,
                partitions=group.spec.partitions, replicas=group.spec.replicas,
                tenant=group.tenant or None,
            )
        )  # fmt: skip

    def _joined(self, group: Group, index: int, number: int) -> None:
        group.open.add(index)
        self._of[number] = group

    def _forget_if_closed(self, group: Group, part: Part) -> None:
        if not group.open.range_cardinality(part.first, part.end):
            group.parts.remove(part)
            self._changes.delete("blocks", (group.id, part.first))

    def _close(self, number: int) -> None:
        self._members.close_exchange(self._directory.open[number], None)
        self.closed(number)

    def _end(self, group_id: str, cause: str) -> list[int]:
        group = self._groups.pop(group_id)
        numbers = [group.number_of(index) for index in group.open]
        self._tell(EventKind.GROUP_CLOSED, group, len(numbers), cause)
        for number in numbers:
            self._close(number)
        self._changes.delete("open_groups", (group_id,))
        self._changes.delete("blocks", (group_id,))
        return numbers


def not_open(group_id: str, *, used: bool) -> ExchangeClosed | ExchangeNotFound:
    """Return what is raised for a group that is not open, `used` if it was."""
    if used:
        return ExchangeClosed(
            f"group {shown(group_id)} was closed, or its driver's lease ran out",
            shuffle_id=group_id,
        )
    return ExchangeNotFound(
        f"there is no group {shown(group_id)}; create it first, or correct the id",
        shuffle_id=group_id,
    )


def alike_in(part: Part, assignment: Assignment, exchanges: Mapping[int, ExchangeState]) -> Alike:
    """Return the exchanges of a part that have this assignment, and of which it is in force.

    The daemon keeps the answer and admits them all without another question. Why it never
    admits what is fenced:

    - What was sealed, or closed, before this look is left out: `seal` marks an epoch in the
      same step that decides it, before any daemon is told, and sealed never ends.
    - What is sealed after it is fenced at every daemon of the assignment that lives
      (`Failover.seal`), asked for it or not, and its next epoch begins only when they have
      confirmed. The answer and the fence may overtake each other on their way; so a daemon
      that confirms a fence remembers it against answers that it has, or waits for.
    - A daemon that is thought dead is not waited for, here as elsewhere: what it takes
      meanwhile is of an epoch that has ended, whether it had met the exchange or not. When
      it is heard of again it is fenced for all that is sealed and names it
      (`Failover.returned`).
    - After a restart of the service all that is sealed is fenced again
      (`Failover.resume`). A daemon's restart is another incarnation, which is in no
      assignment that was made before.
    - What is closed after it is dropped by the daemon's next heartbeats: everyone whom the
      assignment names is waited for (`Members.close_exchange`).

    exchanges: those that are open.
    """
    without = BitMap()
    for offset in range(part.size):
        other = exchanges.get(part.number + offset)
        if other is None or other.assignment(assignment.range_index, 1) != assignment:
            without.add(offset)
    return Alike(part.number, part.size, without)


def _check_reported(exchange: ExchangeState, mappers: BitMap, range_index: int) -> None:
    """Raise InvalidArgument for a report of what there is not."""
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
    if range_index >= len(exchange.ranges):
        raise InvalidArgument(
            f"mappers of range {range_index} are reported, exchange {shown(shuffle_id)} has "
            f"ranges 0 to {len(exchange.ranges) - 1}",
            shuffle_id=shuffle_id,
        )
