"""How many bytes tenants have in stores, as daemons say."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection


class StoredUsage:
    """What each start of a daemon has said of open exchanges.

    What a daemon wrote before it died is in its store still, so its account stays until the
    exchange is closed, or that store is forgotten. Nothing of this is in the database: daemons that
    live tell all of it again.
    """

    def __init__(self) -> None:
        self._told: dict[int, dict[int, int]] = {}
        self._of_tenants: Counter[str] = Counter()

    def tell(self, number: int, tenant: str, incarnation: int, stored_bytes: int) -> None:
        """Take what a start of a daemon says of an open exchange now."""
        told = self._told.setdefault(number, {})
        self._of_tenants[tenant] += stored_bytes - told.pop(incarnation, 0)
        if stored_bytes:
            told[incarnation] = stored_bytes
        elif not told:
            del self._told[number]

    def forget(self, incarnations: Collection[int], tenant_of: Callable[[int], str]) -> None:
        """Forget what starts of daemons said whose store is gone for good."""
        for number in list(self._told):
            for incarnation in [one for one in self._told[number] if one in incarnations]:
                self.tell(number, tenant_of(number), incarnation, 0)
                if number not in self._told:
                    break

    def closed(self, number: int, tenant: str) -> None:
        """Forget an exchange."""
        self._of_tenants[tenant] -= self.of_exchange(number)
        self._told.pop(number, None)
        if not self._of_tenants[tenant]:
            del self._of_tenants[tenant]

    def of_exchange(self, number: int) -> int:
        """Return the bytes of an open exchange in stores."""
        return sum(self._told.get(number, {}).values())

    def of_tenant(self, tenant: str) -> int:
        """Return the bytes of all open exchanges of a tenant in stores."""
        return self._of_tenants[tenant]

    def beyond(self, most_bytes: int) -> list[str]:
        """Return the tenants that have at least as much, by name."""
        return sorted(name for name, count in self._of_tenants.items() if count >= most_bytes)
