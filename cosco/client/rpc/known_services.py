"""Which metadata services this process has met, and which of them it has ended itself.

Only the first contact with an address is quick to fail, as it may be a wrong one: what has answered
before is away, and waited for. What the process has ended itself is waited for by nobody. Forked
children know what their parent knew.
"""

from __future__ import annotations

from typing import Final, TypeVar

from cosco.client.access.service_connection import Connection, Place
from cosco.process.tls.tls_files import BY_ENVIRONMENT

#: Addresses that are remembered of either kind, the last ones.
MAX_ADDRESSES: Final = 1024


_Key = TypeVar("_Key")


class KnownServices:
    """Two bounded tables of addresses.

    Without a lock, as it may be used by a signal handler in the middle of its own use, and after a
    fork at any moment: each operation on a table is one that the interpreter makes atomic.
    """

    def __init__(self) -> None:
        # The one met first is first. By how it is reached as well: whose files of TLS are wrong has
        # met nobody.
        self._met: dict[Place, None] = {}
        self._ended: dict[str, None] = {}

    def meet(self, metadata: Connection | str) -> None:
        """Note that a service has answered there."""
        place = _place(metadata)
        self.begin(place.address)
        _add(self._met, place)

    def vouch_for(self, metadata: Connection | str) -> None:
        """Count a service as met that others of its exchange have met, unless it was ended here."""
        place = _place(metadata)
        if place.address not in self._ended:
            _add(self._met, place)

    def has_met(self, metadata: Connection | str) -> bool:
        """Whether a service has answered there before."""
        return _place(metadata) in self._met

    def begin(self, address: str) -> None:
        """Note that a service may be there again."""
        self._ended.pop(address, None)

    def end(self, address: str) -> None:
        """Note that this process has ended the service there for good; another one may follow."""
        for place in list(self._met):
            if place.address == address:
                self._met.pop(place, None)
        _add(self._ended, address)

    def has_ended(self, address: str) -> bool:
        """Whether this process has ended the service there, and met no other one since."""
        return address in self._ended


def _place(metadata: Connection | str) -> Place:
    if isinstance(metadata, Connection):
        return metadata.place
    return Place(metadata, BY_ENVIRONMENT)


def _add(table: dict[_Key, None], key: _Key) -> None:
    if key in table:
        return
    table[key] = None
    if len(table) > MAX_ADDRESSES:
        table.pop(next(iter(list(table))), None)


SERVICES: Final = KnownServices()
