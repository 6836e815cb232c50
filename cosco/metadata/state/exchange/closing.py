"""Exchanges that are closed, until everything that may hold something of them has said that
it does not.

What is waited for is a *party*: an incarnation (its memory) or a store id (its files). A
daemon's confirmation speaks for both its own. The memory of a dead daemon needs none; but
its store may then have files from after another daemon's confirmation, and is asked again,
unless it was in the daemon's memory.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, KeysView
from dataclasses import dataclass

from cosco.metadata.state.records.changes import ChangeLog, Row
from cosco.protocol.events import Event, EventKind
from cosco.protocol.records import VOLATILE_STORE, ExchangeStatus

Party = int | str


@dataclass(slots=True)
class Closing:
    """What is left of an exchange. `holders`: incarnation → store id of all its daemons.

    of_group: its group keeps its id used (`cosco.metadata.state.groups.group_table`), so that no
    row of its own need do so for ever.
    """

    status: ExchangeStatus
    holders: dict[int, str]
    pending: set[Party]
    of_group: bool = False

    def row(self) -> Row:
        """Return the columns after the number."""
        status = self.status
        return (
            status.shuffle_id,
            status.partitions,
            status.mappers_committed,
            status.rows,
            json.dumps(sorted(self.holders.items())),
            json.dumps(sorted(self.pending, key=str)),
            self.of_group,
        )

    @staticmethod
    def from_row(row: Row) -> Closing:
        """Return what a row keeps that begins with the number."""
        number, shuffle_id, partitions, mappers, rows, holders, pending, of_group = row
        status = ExchangeStatus(shuffle_id, number, partitions, mappers, rows, True)
        return Closing(status, dict(json.loads(holders)), set(json.loads(pending)), bool(of_group))


class ClosingTable:
    """All closing exchanges. One that nobody is waited for leaves, and its id stays used.

    Their ids are what it contains.
    """

    def __init__(self, rows: Iterable[Row], changes: ChangeLog) -> None:
        self._changes = changes
        self._by_number: dict[int, Closing] = {}
        self._by_party: defaultdict[Party, set[int]] = defaultdict(set)
        self._ids: set[str] = set()
        for row in rows:
            self._add(Closing.from_row(row))

    def __contains__(self, shuffle_id: object) -> bool:
        return shuffle_id in self._ids

    def __len__(self) -> int:
        return len(self._by_number)

    def __iter__(self) -> Iterator[str]:
        return iter(self._ids)

    def begin(self, closing: Closing) -> None:
        """Wait for `closing.pending`."""
        self._add(closing)
        self._update(closing)

    def orders(self, incarnation: int, store_id: str) -> set[int]:
        """Return the numbers of exchanges that this daemon is waited for."""
        return self._by_party.get(incarnation, set()) | self._by_party.get(store_id, set())

    def confirm(self, numbers: Iterable[int], incarnation: int, store_id: str) -> None:
        """Note that a live daemon and its store hold nothing of these any more."""
        for number in numbers:
            closing = self._by_number.get(number)
            if closing is not None and not closing.pending.isdisjoint((incarnation, store_id)):
                self._drop_party(closing, incarnation)
                self._drop_party(closing, store_id)
                self._update(closing)

    def died(self, incarnation: int) -> None:
        """Wait for the store of a daemon rather than for the daemon."""
        for number in list(self._by_party.get(incarnation, ())):
            closing = self._by_number[number]
            self._drop_party(closing, incarnation)
            store_id = closing.holders[incarnation]
            if not store_id.startswith(VOLATILE_STORE):
                self._add_party(closing, store_id)
            self._update(closing)

    def returned(self, incarnation: int) -> None:
        """Wait again for a daemon that was thought dead: it may hold what it held before."""
        for closing in self._by_number.values():
            if incarnation in closing.holders:
                self._add_party(closing, incarnation)
                self._update(closing)

    def waits_for(self, party: Party) -> bool:
        """Whether an exchange waits for a daemon or a store."""
        return bool(self._by_party.get(party))

    def forget(self, store_id: str) -> int:
        """Wait for a store no more.

        Returns: how many exchanges waited for nothing else.
        """
        before = len(self)
        for number in list(self._by_party.get(store_id, ())):
            closing = self._by_number[number]
            self._drop_party(closing, store_id)
            self._update(closing)
        return before - len(self)

    def find(self, shuffle_id: str) -> Closing | None:
        """Return the closing exchange of an id, if there is one."""
        if shuffle_id not in self._ids:
            return None
        return next(c for c in self._by_number.values() if c.status.shuffle_id == shuffle_id)

    def numbers(self) -> KeysView[int]:
        """Return the numbers of all."""
        return self._by_number.keys()

    def id_of(self, number: int) -> str:
        """Return the id of one."""
        return self._by_number[number].status.shuffle_id

    def status_of(self, number: int) -> ExchangeStatus:
        """Return what is shown of one."""
        return self._by_number[number].status

    def status(self) -> list[ExchangeStatus]:
        return [closing.status for closing in self._by_number.values()]

    def _add(self, closing: Closing) -> None:
        self._by_number[closing.status.number] = closing
        self._ids.add(closing.status.shuffle_id)
        for party in closing.pending:
            self._by_party[party].add(closing.status.number)

    def _add_party(self, closing: Closing, party: Party) -> None:
        closing.pending.add(party)
        self._by_party[party].add(closing.status.number)

    def _drop_party(self, closing: Closing, party: Party) -> None:
        closing.pending.discard(party)
        numbers = self._by_party[party]
        numbers.discard(closing.status.number)
        if not numbers:
            del self._by_party[party]

    def _update(self, closing: Closing) -> None:
        status = closing.status
        key = (status.number,)
        if closing.pending:
            self._changes.put("closing", key, closing.row)
            return
        del self._by_number[status.number]
        self._ids.discard(status.shuffle_id)
        self._changes.delete("closing", key)
        if not closing.of_group:
            kind, name = EventKind.EXCHANGE_REMOVED, status.shuffle_id
            self._changes.tell(Event(kind=kind, exchange=name, number=status.number))
            self._changes.put("closed", key, lambda: (status.shuffle_id,))
