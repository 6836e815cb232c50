"""The stores that are gone: for good, as people say, or as nobody has served them for too long."""

from __future__ import annotations

from collections.abc import Iterable

from cosco.errors import InvalidArgument
from cosco.metadata.state.daemons.daemon_table import Daemon, DaemonTable
from cosco.metadata.state.exchange.closing import ClosingTable
from cosco.metadata.state.records.changes import ChangeLog, Row
from cosco.protocol.api_limits import shown
from cosco.protocol.events import Event, EventKind


class ForgottenStores:
    """Ids of stores that nobody is waited for; changed rows are named."""

    def __init__(
        self,
        rows: Iterable[Row],
        daemons: DaemonTable,
        closing: ClosingTable,
        changes: ChangeLog,
    ) -> None:
        self._ids = {store_id for (store_id,) in rows}
        self._daemons = daemons
        self._closing = closing
        self._changes = changes

    def __contains__(self, store_id: object) -> bool:
        return store_id in self._ids

    def add(self, store_id: str) -> int:
        """Wait no more for a store that nobody serves, and that is gone for good; repeatable.

        Returns: how many closing exchanges waited for nothing else.

        Raises InvalidArgument for a store that a live daemon serves, or nobody has heard of.
        """
        if serving := self._daemons.of_store(store_id):
            raise InvalidArgument(
                f"store {shown(store_id)} is served by the live shuffle daemon at "
                f"{shown(serving[0].address)}: end that first, then forget the store"
            )
        known = self._daemons.has_store(store_id) or self._closing.waits_for(store_id)
        if store_id not in self._ids and not known:
            raise InvalidArgument(
                f"no exchange has anything in a store {shown(store_id)}: name one that cosco "
                "status or cosco exchange shows"
            )
        if store_id not in self._ids:
            self._ids.add(store_id)
            self._changes.put("forgotten_stores", (store_id,), tuple)
            self._changes.tell(Event(kind=EventKind.STORE_FORGOTTEN, store=store_id))
        return self._closing.forget(store_id)

    def registered(self, daemon: Daemon) -> None:
        """Take note of a daemon, which has its store after all if that was forgotten."""
        if daemon.store_id in self._ids:
            self._ids.discard(daemon.store_id)
            self._changes.delete("forgotten_stores", (daemon.store_id,))
            self._daemons.came_back(daemon)

    def is_gone(self, incarnation: int, grace_s: float, now: float) -> bool:
        """Whether nothing of what a daemon had can be had of its store: nobody serves that, and
        nobody will within `grace_s` of the last one's death. Its memory is another matter.

        Where another daemon has come to its address, with another store, none is waited for.
        """
        daemon = self._daemons.get(incarnation)
        if daemon.live or self._daemons.of_store(daemon.store_id):
            return False
        return (
            daemon.store_id in self
            or not self._daemons.may_be_adopted(incarnation, grace_s, now)
            or bool(self._daemons.others_at(daemon.ref))
        )
