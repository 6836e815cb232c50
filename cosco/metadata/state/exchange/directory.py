"""The open exchanges, by number and by id, their leases, and what is said of those that are not
open."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from itertools import chain

from cosco.errors import CapacityExceeded, ExchangeClosed, ExchangeNotFound
from cosco.metadata.state.exchange.closing import ClosingTable
from cosco.metadata.state.exchange.exchange_state import ExchangeState
from cosco.metadata.state.records.leases import LeaseAge, Leases
from cosco.metadata.state.records.stored_usage import StoredUsage
from cosco.protocol.api_limits import shown
from cosco.protocol.records import StoredBytes


class Directory:
    """Open exchanges. `open` has them by number; it is changed by `add` and `remove` alone.
    Who gives them adds a lease of each by `renew`, but of those that have one by their group.

    closing: the exchanges that are closing. Older ones are not known here: `used` tells
    whether the database has an id that this does not know.
    """

    def __init__(
        self, exchanges: dict[int, ExchangeState], next_number: int, closing: ClosingTable
    ) -> None:
        self.open = exchanges
        self.next_number = next_number
        self._closing = closing
        self._leases: Leases[int] = Leases()
        self._numbers = {e.spec.shuffle_id: number for number, e in exchanges.items()}
        #: How many open exchanges a tenant may have; 0: any number.
        self.tenant_max = 0
        #: How many bytes it may have in stores; 0: any number.
        self.tenant_stored_max_bytes = 0
        self._stored = StoredUsage()
        self._of_tenants = Counter(exchange.tenant for exchange in exchanges.values())

    def knows(self, shuffle_id: str) -> bool:
        """Whether an exchange of this id is open or closing."""
        return shuffle_id in self._numbers or shuffle_id in self._closing

    def ids(self) -> Iterator[str]:
        """Return all ids of exchanges that are open or closing."""
        return chain(self._numbers, self._closing)

    def add(self, exchange: ExchangeState) -> None:
        """Add an exchange that was created with `next_number`."""
        self.next_number = exchange.number + 1
        self.open[exchange.number] = exchange
        self._numbers[exchange.spec.shuffle_id] = exchange.number
        self._of_tenants[exchange.tenant] += 1

    def count_of(self, tenant: str) -> int:
        """Return how many open exchanges a tenant has."""
        return self._of_tenants[tenant]

    def check_room(self, tenant: str, count: int) -> None:
        """Raise CapacityExceeded unless a tenant may have `count` more exchanges, with rows."""
        self.check_stored(tenant)
        there = self._of_tenants[tenant]
        if self.tenant_max and there + count > self.tenant_max:
            raise CapacityExceeded(
                f"tenant {tenant} has {there} open exchanges and would have {there + count}: it "
                f"may have {self.tenant_max} (--tenant-exchanges); close some first"
            )

    def tell_stored(self, incarnation: int, stored: Iterable[StoredBytes]) -> None:
        """Take what a start of a daemon says that it has in stores."""
        for one in stored:
            exchange = self.open.get(one.number)
            if exchange is not None:
                self._stored.tell(one.number, exchange.tenant, incarnation, one.stored_bytes)

    def forget_stored(self, incarnations: Collection[int]) -> None:
        """Forget what starts of daemons had in a store that is gone for good."""
        self._stored.forget(incarnations, lambda number: self.open[number].tenant)

    def check_stored(self, tenant: str) -> None:
        """Raise CapacityExceeded if a tenant has as many bytes stored as it may."""
        most, there = self.tenant_stored_max_bytes, self._stored.of_tenant(tenant)
        if most and tenant and there >= most:
            raise CapacityExceeded(
                f"tenant {tenant} has {there} bytes stored, and may have {most} "
                "(--tenant-stored-bytes): close exchanges first"
            )

    def full_tenants(self) -> list[str]:
        """Return the tenants that have as many bytes stored as they may."""
        most = self.tenant_stored_max_bytes
        return [name for name in self._stored.beyond(most) if name] if most else []

    def remove(self, exchange: ExchangeState) -> None:
        """Forget an exchange that is not open any more."""
        self._stored.closed(exchange.number, exchange.tenant)
        del self.open[exchange.number]
        del self._numbers[exchange.spec.shuffle_id]
        self._leases.forget(exchange.number)
        self._of_tenants[exchange.tenant] -= 1
        if not self._of_tenants[exchange.tenant]:
            del self._of_tenants[exchange.tenant]

    def renew(self, exchange: ExchangeState, now: float) -> None:
        """Begin a full lease."""
        self._leases.renew(exchange.number, exchange.spec.lease_s, now)

    def lease_age(self, exchange: ExchangeState, now: float) -> LeaseAge:
        """Return how old the lease of an exchange is."""
        return self._leases.age(exchange.number, now)

    def expire(self, now: float) -> list[int]:
        """Return the numbers of exchanges whose leases ran out, and which must be closed."""
        return self._leases.expire(now)

    def restart_leases(self, now: float, longest_s: float) -> None:
        """Begin a full lease for every exchange whose lease is at most `longest_s`."""
        self._leases.restart(now, longest_s)

    def get(self, number: int) -> ExchangeState:
        """Return an open exchange by its number; raises ExchangeNotFound or ExchangeClosed."""
        exchange = self.open.get(number)
        if exchange is not None:
            return exchange
        if 0 < number < self.next_number:
            raise ExchangeClosed(
                f"exchange number {number} was closed, or its driver's lease ran out"
            )
        raise ExchangeNotFound(f"there is no exchange number {number}; create it first")

    def opened(self, shuffle_id: str) -> ExchangeState | None:
        """Return the open exchange of an id, if there is one."""
        number = self._numbers.get(shuffle_id)
        return None if number is None else self.open[number]

    def find(self, shuffle_id: str, *, used: bool) -> ExchangeState | None:
        """Return the exchange of an id, None if it is closed; raises ExchangeNotFound."""
        exchange = self.opened(shuffle_id)
        if exchange is None and not used and not self.knows(shuffle_id):
            raise ExchangeNotFound(
                f"there is no exchange {shown(shuffle_id)}; create it first, or correct the id",
                shuffle_id=shuffle_id,
            )
        return exchange

    def of(self, shuffle_id: str, *, used: bool) -> ExchangeState:
        """Return the exchange of an id; raises ExchangeNotFound or ExchangeClosed."""
        exchange = self.find(shuffle_id, used=used)
        if exchange is None:
            raise ExchangeClosed(
                f"exchange {shown(shuffle_id)} was closed, or its driver's lease ran out",
                shuffle_id=shuffle_id,
            )
        return exchange

    def to_write(self, shuffle_id: str, *, used: bool) -> ExchangeState:
        """Return the same; raises CapacityExceeded if no more of its tenant's rows are taken."""
        exchange = self.of(shuffle_id, used=used)
        self.check_stored(exchange.tenant)
        return exchange

    def over(self, numbers: Iterable[int]) -> list[int]:
        """Return those of a daemon's numbers whose exchange is closed.

        Numbers that this service never gave are not its to judge.
        """
        return [n for n in numbers if 0 < n < self.next_number and n not in self.open]
