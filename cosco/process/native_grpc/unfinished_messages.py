"""How much may be kept of messages that have not come whole, and who goes if it is more."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable
from typing import Final, Generic, TypeVar

_C = TypeVar("_C", bound=Hashable)

#: Why a call is ended; the client tries again.
TOO_MUCH: Final = (
    "messages that have not come whole hold too much here (--unfinished-bytes), and most of it is "
    "of this peer; try again"
)


class UnfinishedMessages(Generic[_C]):
    """What each connection keeps. Whose peer keeps most is to give up some of it beyond a bound.

    A peer is a host: who has many connections has no more than who has one.
    """

    def __init__(self, budget_bytes: int) -> None:
        self._budget_bytes = budget_bytes
        #: What all connections keep.
        self.kept_bytes = 0
        self._of: dict[_C, tuple[str, int]] = {}
        self._by_peer: defaultdict[str, int] = defaultdict(int)

    def note(self, connection: _C, peer: str, kept_bytes: int) -> None:
        """Take what a connection keeps now; 0 forgets it."""
        _, before = self._of.pop(connection, (peer, 0))
        self.kept_bytes += kept_bytes - before
        self._by_peer[peer] += kept_bytes - before
        if kept_bytes:
            self._of[connection] = (peer, kept_bytes)
        elif not self._by_peer[peer]:
            del self._by_peer[peer]

    def heaviest(self) -> _C | None:
        """Return the connection that is to give something up; None if they keep within bounds."""
        if self.kept_bytes <= self._budget_bytes:
            return None
        peer = max(self._by_peer, key=self._by_peer.__getitem__)
        return max((c for c, of in self._of.items() if of[0] == peer), key=lambda c: self._of[c][1])
