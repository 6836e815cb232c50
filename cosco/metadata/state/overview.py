"""What people are shown of exchanges: lists by pages, and one with all there is to know of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from heapq import nsmallest
from itertools import chain
from typing import Final

import numpy as np

from cosco.errors import InvalidArgument
from cosco.metadata.state.applications.application_table import Applications
from cosco.metadata.state.daemons.members import Members
from cosco.metadata.state.exchange.closing import Closing, ClosingTable
from cosco.metadata.state.exchange.directory import Directory
from cosco.metadata.state.exchange.exchange_state import ExchangeState
from cosco.metadata.state.groups.group_table import Groups
from cosco.protocol.admin_records import (
    MAX_LARGEST,
    MAX_PAGE,
    MAX_SHOWN,
    DaemonShare,
    ExchangeDetail,
    ExchangePage,
    ExchangePhase,
    PartitionSize,
    RangeStatus,
)
from cosco.protocol.records import U64, ExchangeStatus

#: Exchanges that are looked at for one page, and partitions whose rows are added up: nobody else is
#: answered meanwhile.
MAX_LOOKED_AT: Final = 10_000
MAX_ADDED_UP: Final = 4 << 20


class Overview:
    """Reads what the rest of the state keeps, and changes nothing."""

    def __init__(
        self,
        directory: Directory,
        closing: ClosingTable,
        members: Members,
        groups: Groups,
        applications: Applications,
    ) -> None:
        self._directory = directory
        self._closing = closing
        self._members = members
        self._groups = groups
        self._applications = applications

    def page(self, phase: int, prefix: str, after: int, limit: int) -> ExchangePage:
        """Return exchanges with higher numbers than `after`, in their order; `phase` 0: any.

        A page may be short, or empty, though others follow it. Raises InvalidArgument.
        """
        if not 1 <= limit <= MAX_PAGE:
            raise InvalidArgument(f"limit is {limit}, it must be 1 to {MAX_PAGE}")
        numbers = nsmallest(MAX_LOOKED_AT + 1, (n for n in self._numbers(phase) if n > after))
        found: list[ExchangeStatus] = []
        last = added_up = 0
        for last in numbers[:MAX_LOOKED_AT]:
            exchange = self._directory.open.get(last)
            shuffle_id = exchange.spec.shuffle_id if exchange else self._closing.id_of(last)
            if not shuffle_id.startswith(prefix):
                continue
            found.append(exchange.status() if exchange else self._closing.status_of(last))
            added_up += found[-1].partitions
            if len(found) == limit or added_up >= MAX_ADDED_UP:
                break
        return ExchangePage(tuple(found), last if numbers and last != numbers[-1] else 0)

    def _numbers(self, phase: int) -> Iterator[int]:
        of_phase = {
            ExchangePhase.OPEN: self._directory.open.keys(),
            ExchangePhase.CLOSING: self._closing.numbers(),
        }
        return chain.from_iterable(
            numbers for one, numbers in of_phase.items() if phase in (0, one)
        )

    def detail(self, shuffle_id: str, now: float, *, used: bool) -> ExchangeDetail:
        """Return what there is to know of an exchange that is open or closing.

        Raises ExchangeNotFound or ExchangeClosed.
        """
        closing = self._closing.find(shuffle_id)
        if closing is not None:
            return self._of_closing(closing)
        return self._of_open(self._directory.of(shuffle_id, used=used), now)

    def _of_closing(self, closing: Closing) -> ExchangeDetail:
        waited_for = sorted(closing.pending, key=str)[:MAX_SHOWN]
        return ExchangeDetail(
            status=closing.status,
            waiting_for=tuple(
                f"store {party}"
                if isinstance(party, str)
                else f"daemon {self._members.address_of(party)}"
                for party in waited_for
            ),
        )

    def _of_open(self, exchange: ExchangeState, now: float) -> ExchangeDetail:
        spec, losses = exchange.spec, exchange.losses
        group_id = self._groups.id_of(exchange.number) or ""
        application_id = self._applications.id_of(exchange.number) or ""
        if group_id:
            age = self._groups.lease_age(group_id, now)
        elif application_id:
            age = self._applications.lease_age(exchange, now)
        else:
            age = self._directory.lease_age(exchange, now)
        copies = self._members.failover.replicas(exchange)
        progress = exchange.progress(copies)
        rows = progress.partition_rows
        return ExchangeDetail(
            status=exchange.status(),
            group_id=group_id,
            group_mappers=exchange.mappers,
            application_id=application_id,
            replicas=spec.replicas,
            min_replicas=spec.min_replicas,
            codec=spec.codec,
            deterministic=spec.deterministic,
            direct_reads=spec.direct_reads,
            kind=exchange.kind,
            generation=exchange.generation,
            callback=losses.callback,
            lease_s=spec.lease_s,
            heard_s=age.heard_s,
            lease_left_s=age.left_s,
            mappers_opened=len(exchange.attempts.opened),
            bytes_raw=progress.bytes_raw,
            bytes_stored=progress.bytes_stored,
            copies=copies,
            ranges=len(exchange.ranges),
            largest=_largest(rows, progress.partition_bytes),
            empty_partitions=len(rows) - int(np.count_nonzero(rows)),
            daemons=self._shares(exchange),
            unusual=tuple(self._unusual(exchange))[:MAX_SHOWN],
            losses=losses.shown(MAX_SHOWN),
            losses_count=len(losses),
            failures=losses.verdicts.shown(MAX_SHOWN),
            contradicted=exchange.attempts.contradicted.copy(),
        )

    def _shares(self, exchange: ExchangeState) -> tuple[DaemonShare, ...]:
        primary, replica, sealed = Counter[int](), Counter[int](), Counter[int]()
        for epochs in exchange.placed:
            for placed in epochs:
                assignment = placed.assignment
                first, *others = (ref.incarnation for ref in assignment.daemons)
                if assignment.sealed:
                    sealed.update((first, *others))
                else:
                    primary[first] += 1
                    replica.update(others)
        daemons = [self._members.daemon(i) for i in {**primary, **replica, **sealed}]
        daemons.sort(key=lambda daemon: (not daemon.live, daemon.ref.address))
        return tuple(
            DaemonShare(
                ref=daemon.ref,
                store_id=daemon.store_id,
                state=daemon.state,
                primary=primary[daemon.ref.incarnation],
                replica=replica[daemon.ref.incarnation],
                sealed=sealed[daemon.ref.incarnation],
            )
            for daemon in daemons[:MAX_PAGE]
        )

    def _unusual(self, exchange: ExchangeState) -> Iterator[RangeStatus]:
        for partition_range in exchange.ranges:
            index = partition_range.index
            current, build = exchange.current(index), exchange.build(index)
            copies = len(current.daemons)
            sealed, why = current.sealed, ""
            if sealed:
                why = self._members.failover.waiting_for(exchange, index)
            if sealed or build > 1 or copies < exchange.spec.replicas:
                yield RangeStatus(partition_range, current.epoch, build, sealed, copies, why)


def _largest(rows: U64, raw_bytes: U64) -> tuple[PartitionSize, ...]:
    """Return the partitions with most rows, of those that have any."""
    count = min(MAX_LARGEST, len(rows))
    top = np.argpartition(rows, len(rows) - count)[len(rows) - count :]
    ordered = sorted(top.tolist(), key=lambda partition: (-int(rows[partition]), partition))
    return tuple(PartitionSize(p, int(rows[p]), int(raw_bytes[p])) for p in ordered if rows[p])
