"""How many calls each peer has under way, over all its connections."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

#: The bound for which calls are refused, as metrics call it.
PEER_CALLS: Final = "peer_calls"


@dataclass(slots=True, eq=False)
class PeerTally:
    """What one peer, which is a host, has now. Its connections count their calls here."""

    peer: str
    connections: int = 0
    calls: int = 0


class PeerCalls:
    """The tallies of all peers, and whose calls are too many."""

    def __init__(self, calls_max: int) -> None:
        self._calls_max = calls_max
        self._tallies: dict[str, PeerTally] = {}

    def enter(self, peer: str) -> PeerTally:
        """Return where one more connection of a peer is to count its calls."""
        tally = self._tallies.setdefault(peer, PeerTally(peer))
        tally.connections += 1
        return tally

    def leave(self, tally: PeerTally) -> None:
        """Note that a connection has ended, which has counted its calls out."""
        tally.connections -= 1
        if not tally.connections:
            del self._tallies[tally.peer]

    def are_too_many(self, tally: PeerTally) -> bool:
        """Whether a peer has more calls under way than it may have."""
        return tally.calls > self._calls_max

    @property
    def refusal(self) -> str:
        """What is told to who has too many: the beginning is what gRPC's own servers say."""
        return (
            f"Concurrent RPC limit exceeded: this host has {self._calls_max} calls under way here "
            "(--peer-calls); try again"
        )
