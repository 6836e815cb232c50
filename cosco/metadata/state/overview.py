"""What people are shown of exchanges: lists by pages, and one with all there is to know of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from heapq import nsmallest
from itertools import chain
from typing import Final, NamedTuple

import numpy as np

from cosco.errors import InvalidArgument
from cosco.metadata.state.applications.application_table import Applications
from cosco.metadata.state.daemons.members import Members
from cosco.metadata.state.exchange.closing import Closing, ClosingTable
from cosco.metadata.state.exchange.directory import Directory
from cosco.metadata.state.exchange.exchange_state import ExchangeState
from cosco.metadata.state.groups.group_table import Groups
from cosco.metadata.state.history.ending import largest, rebuilds
from cosco.protocol.admin_records import (
    MAX_PAGE,
    MAX_SHOWN,
    DaemonShare,
    ExchangeDetail,
    ExchangePage,
    ExchangePhase,
    PartitionSize,
    RangeStatus,
)
from cosco.protocol.finished_exchange import FinishedExchange, size_bars
from cosco.protocol.records import DaemonStatus, ExchangeStatus, RowKind

#: Exchanges that are looked at for one page, and partitions whose rows are added up: nobody else is
#: answered meanwhile.
MAX_LOOKED_AT: Final = 10_000
MAX_ADDED_UP: Final = 4 << 20
#: Exchanges that `status` lists, the newest.
MAX_STATUS_EXCHANGES: Final = 1000
_KINDS: Final = frozenset(RowKind)


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
        self._history = members.history
        self._groups = groups
        self._applications = applications

    def page(
        self,
        phase: int,
        prefix: str,
        after: int,
        limit: int,
        tenant: str | None = None,
        *,
        looked_at: int = 0,
    ) -> ExchangePage:
        """Return exchanges with higher numbers than `after`, in their order; `phase` 0: any.

        looked_at: how many are looked at for what was asked for; 0: MAX_LOOKED_AT. A page may be
        short, or empty, though others follow it. With `tenant` it has its open exchanges, or its
        finished ones, alone: what is kept of one that closes does not say whose it was. Raises
        InvalidArgument.
        """
        if not 1 <= limit <= MAX_PAGE:
            raise InvalidArgument(f"limit is {limit}, it must be 1 to {MAX_PAGE}")
        most = looked_at or MAX_LOOKED_AT
        numbers = nsmallest(most + 1, (n for n in self._numbers(phase) if n > after))
        found: list[ExchangeStatus] = []
        last = added_up = 0
        for last in numbers[:most]:
            entry = self._entry(last, phase)
            if not entry.shuffle_id.startswith(prefix):
                continue
            if tenant is not None and entry.tenant != tenant:
                continue
            found.append(entry.status())
            added_up += found[-1].partitions
            if len(found) == limit or added_up >= MAX_ADDED_UP:
                break
        return ExchangePage(tuple(found), last if numbers and last != numbers[-1] else 0)

    def status(
        self, tenant: str | None = None, *, figures: bool = False
    ) -> tuple[tuple[DaemonStatus, ...], tuple[ExchangeStatus, ...]]:
        """Return all daemons, and the newest exchanges by number.

        tenant: whose open exchanges alone are wanted. figures: as daemons told them last, too.
        """
        return self._members.status(figures=figures), self.newest(MAX_STATUS_EXCHANGES, tenant)

    def count_of(self, tenant: str) -> int:
        """Return how many open exchanges a tenant has."""
        return self._directory.count_of(tenant)

    def newest(self, limit: int, tenant: str | None = None) -> tuple[ExchangeStatus, ...]:
        """Return the newest exchanges, by number; with `tenant` its open ones."""
        opened = self._directory.open
        closing: dict[int, ExchangeStatus] = {}
        if tenant is None:
            closing = {status.number: status for status in self._closing.status()}
        else:
            opened = {n: exchange for n, exchange in opened.items() if exchange.tenant == tenant}
        newest = sorted((*opened, *closing))[-limit:]
        return tuple(opened[n].status() if n in opened else closing[n] for n in newest)

    def _entry(self, number: int, phase: int) -> _Entry:
        """Return an exchange of a phase, by its number."""
        if phase == ExchangePhase.FINISHED:
            kept = self._history.get(number)
            return _Entry(kept.shuffle_id, kept.tenant, kept.status)
        exchange = self._directory.open.get(number)
        if exchange is not None:
            return _Entry(exchange.spec.shuffle_id, exchange.tenant, exchange.status)
        shuffle_id = self._closing.id_of(number)
        return _Entry(shuffle_id, None, lambda: self._closing.status_of(number))

    def _numbers(self, phase: int) -> Iterator[int]:
        if phase == ExchangePhase.FINISHED:
            return self._history.numbers()
        of_phase = {
            ExchangePhase.OPEN: self._directory.open.keys(),
            ExchangePhase.CLOSING: self._closing.numbers(),
        }
        return chain.from_iterable(
            numbers for one, numbers in of_phase.items() if phase in (0, one)
        )

    def detail(self, shuffle_id: str, now: float, *, used: bool) -> ExchangeDetail:
        """Return what there is to know of an exchange that is open, closing, or finished and kept.

        Raises ExchangeNotFound or ExchangeClosed.
        """
        closing, kept = self._closing.find(shuffle_id), self._history.find(shuffle_id)
        if closing is not None:
            return self._of_closing(closing, kept)
        if kept is not None:
            return _of_kept(kept, kept.status())
        return self._of_open(self._directory.of(shuffle_id, used=used), now)

    def _of_closing(self, closing: Closing, kept: FinishedExchange | None) -> ExchangeDetail:
        waited_for = sorted(closing.pending, key=str)[:MAX_SHOWN]
        return replace(
            _of_kept(kept, closing.status) if kept else ExchangeDetail(closing.status),
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
            largest=largest(rows, progress.partition_bytes),
            empty_partitions=len(rows) - int(np.count_nonzero(rows)),
            daemons=self._shares(exchange),
            unusual=tuple(self._unusual(exchange))[:MAX_SHOWN],
            losses=losses.shown(MAX_SHOWN),
            losses_count=len(losses),
            failures=losses.verdicts.shown(MAX_SHOWN),
            contradicted=exchange.attempts.contradicted.copy(),
            tenant=exchange.tenant,
            created_s=exchange.created_s,
            rebuilds=rebuilds(exchange),
            sizes=size_bars(progress.partition_bytes),
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


class _Entry(NamedTuple):
    """An exchange of a list. tenant: None where nobody knows any more whose it was."""

    shuffle_id: str
    tenant: str | None
    status: Callable[[], ExchangeStatus]


def _of_kept(kept: FinishedExchange, status: ExchangeStatus) -> ExchangeDetail:
    return ExchangeDetail(
        status=status,
        tenant=kept.tenant,
        replicas=kept.replicas,
        codec=kept.codec,
        kind=RowKind(kept.kind) if kept.kind in _KINDS else RowKind.UNDECIDED,
        bytes_raw=kept.bytes_raw,
        bytes_stored=kept.bytes_stored,
        largest=tuple(PartitionSize(*one) for one in kept.largest),
        empty_partitions=kept.empty_partitions,
        losses_count=kept.losses,
        created_s=kept.created_s,
        closed_s=kept.closed_s,
        cause=kept.cause,
        rebuilds=kept.rebuilds,
        sizes=kept.sizes,
    )
