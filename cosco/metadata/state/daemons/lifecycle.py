"""How exchanges begin and end: whoever must hear of one does."""

from __future__ import annotations

from collections.abc import Iterable

from cosco.metadata.state.daemons.members import Members
from cosco.metadata.state.exchange.directory import Directory
from cosco.metadata.state.exchange.exchange_state import ExchangeState
from cosco.metadata.state.records.changes import ChangeLog
from cosco.metadata.state.records.table_rows import Placed
from cosco.protocol.records import ExchangeSpec, PartitionRange


class Lifecycle:
    """Opens and closes exchanges; what has leases of theirs is the caller's."""

    def __init__(self, directory: Directory, members: Members, changes: ChangeLog) -> None:
        self._directory = directory
        self._members = members
        self._changes = changes

    def open(
        self,
        spec: ExchangeSpec,
        owner: bytes,
        ranges: tuple[PartitionRange, ...],
        placed: Iterable[Iterable[Placed]],
        *,
        callback: bool,
        mappers: int = 0,
    ) -> ExchangeState:
        """A new exchange, of the next number. `mappers`, if not 0: of a group that has so many."""
        exchange = ExchangeState(
            self._directory.next_number,
            spec,
            owner,
            ranges,
            placed,
            self._changes,
            callback=callback,
        )
        if mappers:
            exchange.join_group(mappers)
        self._directory.add(exchange)
        self._members.failover.opened(exchange)
        exchange.put_all()
        return exchange

    def close(self, exchange: ExchangeState) -> None:
        """Nothing more is taken for an exchange, and all of it is to be dropped."""
        self._directory.remove(exchange)
        exchange.delete_all()
        self._members.exchange_closed(exchange)
