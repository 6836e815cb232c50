"""The open applications: each owns exchanges, which have one lease, one owner and one poll.

Every exchange of an application is an ordinary one; what is kept here is which they are. It leaves
its application when it is closed, or when another driver takes it over: then it has a lease of its
own. When an application ends, what is left of it ends too. One without exchanges stays until it is
closed or its lease ends, as the next exchange may come any time.

Its number is never given twice, so an id that no application has now is of one that is closed, or
of none that ever was; nothing is kept of those that are closed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from cosco.errors import ExchangeClosed, ExchangeNotFound, InvalidArgument
from cosco.metadata.state.daemons.members import Members
from cosco.metadata.state.exchange.directory import Directory
from cosco.metadata.state.exchange.exchange_state import ExchangeState
from cosco.metadata.state.records.changes import ChangeLog, Row
from cosco.metadata.state.records.leases import LeaseAge, Leases
from cosco.protocol.api_limits import check_application, check_owner, shown
from cosco.protocol.application_records import (
    ApplicationAnswer,
    ApplicationCall,
    application_name,
    application_number,
)
from cosco.protocol.events import Event, EventKind
from cosco.protocol.records import ExchangeSpec

#: Losses that a poll is told of, at most; of the others once these are answered.
MAX_CALLS: Final = 1000


@dataclass(slots=True)
class Application:
    """An open application. exchanges: the numbers of those that are open, in their order."""

    number: int
    label: str
    owner: bytes
    lease_s: float
    tenant: str = ""
    exchanges: dict[int, None] = field(default_factory=dict)

    @property
    def id(self) -> str:
        return application_name(self.label, self.number)

    def check_driver(self, owner: bytes) -> None:
        """Raise InvalidArgument unless `owner` is the driver."""
        if owner != self.owner:
            raise InvalidArgument(
                f"application {shown(self.id)} has another driver; only the one that made it polls "
                "for it, adds to it and closes it"
            )

    def row(self) -> Row:
        """Return the columns after the number."""
        return self.label, self.owner, self.lease_s, self.tenant


class Applications:
    """All open applications, and their leases.

    Unless said otherwise methods raise ExchangeNotFound for an application that never was,
    ExchangeClosed for one that is closed, and InvalidArgument for another driver than its own.
    """

    def __init__(
        self,
        tables: Mapping[str, list[Row]],
        directory: Directory,
        members: Members,
        changes: ChangeLog,
        now: float,
    ) -> None:
        """Go on with the applications of `tables`, whose exchanges are in `directory`; every lease
        begins in full now."""
        self._directory = directory
        self._members = members
        self._changes = changes
        self._leases: Leases[int] = Leases()
        self._open: dict[int, Application] = {}
        #: Number of an open exchange → its application.
        self._of: dict[int, Application] = {}
        self._last_number = max((last for _, last in tables.get("numbers_given", ())), default=0)
        for number, *columns in tables.get("applications", ()):
            application = self._open[number] = Application(number, *columns)
            self._leases.renew(number, application.lease_s, now)
        for number, exchange in tables.get("application_exchanges", ()):
            self._join(self._open[number], exchange)

    # --- what there is ---------------------------------------------------------------------

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._open)

    def id_of(self, number: int) -> str | None:
        """Return the application of an open exchange, if it is of one."""
        application = self._of.get(number)
        return None if application is None else application.id

    @property
    def open(self) -> Mapping[int, Application]:
        """Return all that there are, by number."""
        return self._open

    def age(self, number: int, now: float) -> LeaseAge:
        """Return how old the lease of an open application is."""
        return self._leases.age(number, now)

    def tenant_of(self, application_id: str) -> str | None:
        """Return whose an open application is; None if there is none."""
        application = self._open.get(application_number(application_id) or 0)
        is_there = application is not None and application.id == application_id
        return application.tenant if application is not None and is_there else None

    def check_single(self, exchange: ExchangeState) -> None:
        """Raise InvalidArgument for an exchange of an application, whose driver polls for it."""
        application_id = self.id_of(exchange.number)
        if application_id is not None:
            raise InvalidArgument(
                f"exchange {shown(exchange.spec.shuffle_id)} is of application "
                f"{shown(application_id)}, whose driver polls for all of it; take the exchange "
                "over to poll for it alone",
                shuffle_id=exchange.spec.shuffle_id,
            )

    def lease_age(self, exchange: ExchangeState, now: float) -> LeaseAge:
        """Return how old the lease of the application of an exchange is."""
        return self._leases.age(self._of[exchange.number].number, now)

    def lease_s(self, application_id: str) -> float:
        """Return the lease of an open application, whoever its driver is."""
        return self._get(application_id).lease_s

    # --- time ------------------------------------------------------------------------------

    def expire(self, now: float) -> list[int]:
        """Close the applications whose leases ran out.

        Returns: the numbers of their exchanges.
        """
        expired = self._leases.expire(now)
        return [exchange for number in expired for exchange in self._end(number, "lease")]

    def restart_leases(self, now: float, longest_s: float) -> None:
        """Begin a full lease for every application whose lease is at most `longest_s`."""
        self._leases.restart(now, longest_s)

    # --- drivers ---------------------------------------------------------------------------

    def create(
        self, label: str, owner: bytes, lease_s: float, now: float, *, tenant: str = ""
    ) -> str:
        """Make an application, or answer the repeated call that made it.

        Returns: its id.

        Raises InvalidArgument.
        """
        check_application(label, lease_s)
        check_owner(owner)
        made = (a for a in self._open.values() if a.owner == owner and a.label == label)
        application = next(made, None)
        if application is None:
            number = self._last_number = self._last_number + 1
            application = self._open[number] = Application(number, label, owner, lease_s, tenant)
            self._changes.put("numbers_given", ("applications",), lambda: (self._last_number,))
            self._changes.put("applications", (number,), application.row)
            self._tell(EventKind.APPLICATION_CREATED, application)
        self._leases.renew(application.number, application.lease_s, now)
        return application.id

    def renew(self, application_id: str, owner: bytes, now: float) -> Application:
        """Renew the lease of an application for its driver, and return it."""
        application = self._get(application_id)
        application.check_driver(owner)
        self._leases.renew(application.number, application.lease_s, now)
        return application

    def poll(self, application_id: str, owner: bytes, now: float) -> tuple[ApplicationCall, ...]:
        """Renew the lease of an application for its driver.

        Returns: the losses that the driver has not answered.
        """
        calls: list[ApplicationCall] = []
        for number in self.renew(application_id, owner, now).exchanges:
            losses = self._directory.open[number].losses
            if losses.unanswered:
                calls += (ApplicationCall(number, call) for call in losses.calls())
            if len(calls) >= MAX_CALLS:
                break
        return tuple(calls)

    def answer(
        self, application_id: str, owner: bytes, answers: Iterable[ApplicationAnswer]
    ) -> list[int]:
        """Take how callbacks ended.

        Those of exchanges that were closed, or taken over, meanwhile are passed over.

        Returns: the numbers of the exchanges of which readers are told other things now.
        """
        application = self._get(application_id)
        application.check_driver(owner)
        changed = set()
        for answer in answers:
            if answer.number in application.exchanges:
                losses = self._directory.open[answer.number].losses
                before = losses.news
                if answer.failure:
                    losses.answer((), [(answer.loss_id, answer.failure)])
                else:
                    losses.answer([answer.loss_id], ())
                if losses.news != before:
                    changed.add(answer.number)
        return sorted(changed)

    def close(self, application_id: str, owner: bytes) -> list[int] | None:
        """Close an application and what is open of it.

        Returns: the numbers of what was open, None if the application was closed before.
        """
        application = self._open.get(application_number(application_id) or 0)
        if application is None and self._was_given(application_id):
            return None
        application = self._get(application_id)
        application.check_driver(owner)
        self._leases.forget(application.number)
        return self._end(application.number, "asked")

    # --- its exchanges ---------------------------------------------------------------------

    def check_spec(self, application_id: str, owner: bytes, spec: ExchangeSpec) -> None:
        """Raise what an exchange is refused with that an application's driver wants to make."""
        application = self._get(application_id)
        application.check_driver(owner)
        if spec.lease_s != application.lease_s:
            raise InvalidArgument(
                f"lease_s of exchange {shown(spec.shuffle_id)} is {spec.lease_s:g}, and "
                f"{application.lease_s:g} of application {shown(application_id)}: they have one",
                shuffle_id=spec.shuffle_id,
            )

    def add(self, application_id: str, owner: bytes, exchange: ExchangeState, now: float) -> None:
        """Have an application own an exchange that its driver has made, if it does not yet."""
        application = self.renew(application_id, owner, now)
        if exchange.number not in application.exchanges:
            self._join(application, exchange.number)
            key = (application.number, exchange.number)
            self._changes.put("application_exchanges", key, lambda: ())

    def remove(self, number: int) -> bool:
        """Forget an exchange that was closed or taken over.

        Returns: whether it was of an application.
        """
        application = self._of.pop(number, None)
        if application is None:
            return False
        del application.exchanges[number]
        self._changes.delete("application_exchanges", (application.number, number))
        return True

    # --- inside ----------------------------------------------------------------------------

    def _join(self, application: Application, number: int) -> None:
        application.exchanges[number] = None
        self._of[number] = application

    def _was_given(self, application_id: str) -> bool:
        return 0 < (application_number(application_id) or 0) <= self._last_number

    def _get(self, application_id: str) -> Application:
        application = self._open.get(application_number(application_id) or 0)
        if application is not None and application.id == application_id:
            return application
        if self._was_given(application_id):
            raise ExchangeClosed(
                f"application {shown(application_id)} was closed, or its driver's lease ran out"
            )
        raise ExchangeNotFound(
            f"there is no application {shown(application_id)}; create it first, or correct the id"
        )

    def _end(self, number: int, cause: str) -> list[int]:
        application = self._open.pop(number)
        exchanges = list(application.exchanges)
        self._tell(EventKind.APPLICATION_CLOSED, application, cause)
        for exchange in exchanges:
            self._members.close_exchange(self._directory.open[exchange], "application")
            del self._of[exchange]
        self._changes.delete("applications", (number,))
        self._changes.delete("application_exchanges", (number,))
        return exchanges

    def _tell(self, kind: EventKind, application: Application, cause: str | None = None) -> None:
        self._changes.tell(
            Event(
                kind=kind,
                application=application.id,
                tenant=application.tenant or None,
                exchanges=len(application.exchanges),
                cause=cause,
            )
        )
