"""ExchangeAccess: capabilities and their keys, and whether who shows one may make a call."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

from cosco.errors import ExchangeClosed
from cosco.metadata.state.access.rights import NEEDS, READING, TAKE_OVER, Caller, Subject
from cosco.metadata.state.applications.application_table import Applications
from cosco.metadata.state.daemons.members import Members
from cosco.metadata.state.exchange.directory import Directory
from cosco.metadata.state.groups.group_table import Groups
from cosco.metadata.state.records.capability_keys import CapabilityKeys
from cosco.protocol.api_limits import shown
from cosco.protocol.capability import CapabilityKey, Limits, Permit, tenant_tag
from cosco.protocol.records import DaemonOrders


class Named(NamedTuple):
    """What a call names, as far as it does. takes_over: it makes its caller the driver. reads: it
    asks for what is committed, beside what its method says."""

    numbers: tuple[int, ...] = ()
    shuffle_id: str = ""
    group_id: str = ""
    application_id: str = ""
    takes_over: bool = False
    reads: bool = False


class ExchangeAccess:
    """Whose is what, and who may what with it. Nobody needs a credential until `begin`."""

    def __init__(
        self,
        keys: CapabilityKeys,
        directory: Directory,
        members: Members,
        groups: Groups,
        applications: Applications,
    ) -> None:
        self._keys = keys
        self._directory = directory
        self._groups = groups
        self._applications = applications
        self._history = members.history

    @property
    def keys_of_daemons(self) -> tuple[CapabilityKey, ...]:
        """Return what daemons check capabilities by; none: nobody needs one."""
        return self._keys.of_daemons

    def with_keys(self, orders: DaemonOrders) -> DaemonOrders:
        """Return the answer to a daemon with what it checks capabilities by, and whose rows it is
        not to take in."""
        if not self.keys_of_daemons:
            return orders
        full = tuple(tenant_tag(name) for name in self._directory.full_tenants())
        return replace(orders, keys=self.keys_of_daemons, full_tenants=full)

    def proof(self, incarnation: int) -> str:
        """Return what shows a daemon that the metadata service calls; empty where nobody needs to
        show anything."""
        return self._keys.proof(incarnation)

    def begin(
        self,
        secret: bytes,
        unix_s: float,
        now: float,
        *,
        tenant_exchanges: int = 0,
        tenant_stored_bytes: int = 0,
    ) -> None:
        """Have capabilities made and needed from now on.

        secret: for the first key, if need be. tenant_exchanges, tenant_stored_bytes: how many open
        exchanges a tenant may have, and what may be stored of them; 0: any number.
        """
        self._directory.tenant_max = tenant_exchanges
        self._directory.tenant_stored_max_bytes = tenant_stored_bytes
        self._keys.begin(secret, unix_s, now)
        for number, exchange in self._directory.open.items():
            exchange.set_capability(self._keys.capability(number, tenant=exchange.tenant))

    def turn_keys(
        self, secret: bytes, unix_s: float, now: float, *, period_s: float, spread_s: float
    ) -> None:
        """Have one key follow another when it is time; see `CapabilityKeys.turn`."""
        next_number = self._directory.next_number
        self._keys.turn(
            secret,
            unix_s,
            now,
            period_s=period_s,
            spread_s=spread_s,
            last_number=next_number - 1,
            oldest_open=min(self._directory.open, default=next_number),
        )

    @property
    def keys_are_full(self) -> bool:
        """Whether there can be no further key before an old exchange is closed."""
        return self._keys.is_full

    def permit(self, capability: str, unix_s: float) -> Permit:
        """Return what a capability allows; raises AccessDenied."""
        return self._keys.permit(capability, unix_s)

    def capability(self, number: int, limits: Limits, unix_s: float) -> str:
        """Return a capability of an open exchange, within limits; empty where nobody needs one.

        unix_s: of the Unix clock.
        Raises: InvalidArgument for such limits, ExchangeNotFound, ExchangeClosed.
        """
        limits.check()
        tenant = self._directory.get(number).tenant
        return self._keys.capability(number, 1, limits, unix_s, tenant=tenant)

    def capability_of_part(
        self, group_id: str, first: int, limits: Limits, unix_s: float, *, used: bool
    ) -> str:
        """Return one of all exchanges of a part of a group, which begins with index `first`.

        used: whether the database knows the id of a group that is not open.
        Raises: InvalidArgument for such limits or where no part begins, ExchangeNotFound,
        ExchangeClosed.
        """
        limits.check()
        part = self._groups.part_from(group_id, first, used=used)
        tenant = self._groups.tenant_of(group_id) or ""
        return self._keys.capability(part.number, part.size, limits, unix_s, tenant=tenant)

    def check(self, caller: Caller, method: str, named: Named) -> None:
        """Raise AccessDenied unless the caller may make this call now.

        Raises ExchangeNotFound or ExchangeClosed for a number that is of no open exchange. An id
        that is of nothing yet is let through: who is asked for it next says so.
        """
        need = READING if named.reads else NEEDS[method]
        if named.takes_over:
            need = TAKE_OVER
        subjects = tuple(self._subjects(method, named))
        # A part of a group has many exchanges: they are looked at only where a call names none.
        if caller.permit is not None and not subjects and not self._covers_any(caller.permit):
            raise ExchangeClosed("the exchange of this handle was closed")
        caller.check(method, need, subjects)

    def _covers_any(self, permit: Permit) -> bool:
        numbers = range(permit.first, permit.first + permit.count)
        return any(number in self._directory.open for number in numbers)

    def _subjects(self, method: str, named: Named) -> Iterator[Subject]:
        for number in named.numbers:
            tenant = self._directory.get(number).tenant
            yield Subject(number, tenant, f"exchange number {number}")
        if named.shuffle_id:
            yield self._of_id(method, named.shuffle_id)
        if group_id := named.group_id:
            yield Subject(0, self._groups.tenant_of(group_id), f"group {shown(group_id)}")
        if application_id := named.application_id:
            whose = self._applications.tenant_of(application_id)
            yield Subject(0, whose, f"application {shown(application_id)}")

    def _of_id(self, method: str, shuffle_id: str) -> Subject:
        exchange = self._directory.opened(shuffle_id)
        if exchange is not None:
            return Subject(exchange.number, exchange.tenant, f"exchange {shown(shuffle_id)}")
        kept = self._history.find(shuffle_id) if method == "ShowExchange" else None
        if kept is not None:
            return Subject(0, kept.tenant, f"exchange {shown(shuffle_id)}")
        # What closes does not say whose it was, unless it is kept: only admins may look at it.
        is_shown = method == "ShowExchange" and self._directory.knows(shuffle_id)
        what = f"exchange {shown(shuffle_id)}, which is closing,"
        return Subject(0, "" if is_shown else None, what)
