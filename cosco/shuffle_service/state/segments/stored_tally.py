"""How much a daemon has in stores of each exchange, and what of that is to be told. No IO.

Counted is what this start of the daemon wrote: what an earlier one wrote is its own account, which
the metadata service keeps until the exchange is closed. A daemon counts, as what writers say of
their rows is believed of nobody where a tenant may have no more.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import Final

from cosco.protocol.records import StoredBytes

#: Exchanges of which one heartbeat tells.
_TOLD_MAX: Final = 4096


class StoredTally:
    """The account of one start of a daemon."""

    def __init__(self) -> None:
        self._bytes: dict[int, int] = {}
        self._changed: dict[int, None] = {}

    def wrote(self, number: int, count: int) -> None:
        """Count bytes of an exchange that are in a store now; of what is gone, negative ones."""
        self._bytes[number] = self._bytes.get(number, 0) + count
        self._changed[number] = None

    def closed(self, number: int) -> None:
        """Forget an exchange that is closed."""
        self._bytes.pop(number, None)
        self._changed.pop(number, None)

    def repeat(self) -> None:
        """Have all told again: whoever is told may have lost what it knew."""
        self._changed.update(dict.fromkeys(self._bytes))

    def to_tell(self) -> tuple[StoredBytes, ...]:
        """Return what is to be told now: what changed first, first."""
        return tuple(
            StoredBytes(number, self._bytes[number]) for number in islice(self._changed, _TOLD_MAX)
        )

    def told(self, told: Iterable[StoredBytes]) -> None:
        """Note what has been heard: what has not changed since need not be told again."""
        for one in told:
            if self._bytes.get(one.number) == one.stored_bytes:
                self._changed.pop(one.number, None)
                if not one.stored_bytes:
                    del self._bytes[one.number]
