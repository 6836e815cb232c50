"""Which metadata services this process has met, and which of them it has ended itself.

Only the first contact with an address is quick to fail, as it may be a wrong one: what has answered
before is away, and waited for. What the process has ended itself is waited for by nobody. Forked
children know what their parent knew.
"""

from __future__ import annotations

from typing import Final

#: Addresses that are remembered of either kind, the last ones.
MAX_ADDRESSES: Final = 1024


class KnownServices:
    """Two bounded tables of addresses.

    Without a lock, as it may be used by a signal handler in the middle of its own use, and after a
    fork at any moment: each operation on a table is one that the interpreter makes atomic.
    """

    def __init__(self) -> None:
        self._met: dict[str, None] = {}  # the one met first is first
        self._ended: dict[str, None] = {}

    def meet(self, address: str) -> None:
        """Note that a service has answered there."""
        self.begin(address)
        _add(self._met, address)

    def vouch_for(self, address: str) -> None:
        """Count a service as met that others of its exchange have met, unless it was ended here."""
        if address not in self._ended:
            _add(self._met, address)

    def has_met(self, address: str) -> bool:
        """Whether a service has answered there before."""
        return address in self._met

    def begin(self, address: str) -> None:
        """Note that a service may be there again."""
        self._ended.pop(address, None)

    def end(self, address: str) -> None:
        """Note that this process has ended the service there for good; another one may follow."""
        self._met.pop(address, None)
        _add(self._ended, address)

    def has_ended(self, address: str) -> bool:
        """Whether this process has ended the service there, and met no other one since."""
        return address in self._ended


def _add(table: dict[str, None], address: str) -> None:
    if address in table:
        return
    table[address] = None
    if len(table) > MAX_ADDRESSES:
        table.pop(next(iter(list(table))), None)


SERVICES: Final = KnownServices()
