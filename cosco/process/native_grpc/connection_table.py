"""Which connections a server has, who is let in, and who makes room for another one.

A peer is a host: who has many connections has no more rights than who has one. A connection is
*new* until its first call has come. A stranger without a certificate never gets beyond that.
"""

from __future__ import annotations

import ipaddress
from collections import defaultdict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Generic, NamedTuple, TypeVar

from cosco.config import (
    CONNECTIONS_MAX,
    IDLE_STREAM_S,
    NEW_CONNECTIONS_MAX,
    PEER_CALLS_MAX,
    PEER_CONNECTIONS_MAX,
)

_C = TypeVar("_C", bound=Hashable)

#: The bounds for which connections are refused or ended, as metrics call them.
CONNECTIONS: Final = "connections"
PEER_CONNECTIONS: Final = "peer_connections"
NEW_CONNECTIONS: Final = "new_connections"
#: A connection that has made no call after this time is ended, however much was said on it.
FIRST_CALL_S: Final = 10.0
#: A host has many addresses of IPv6: all that begin with as many bits.
_NETWORK_BITS: Final = 64


@dataclass(frozen=True, slots=True)
class PeerLimits:
    """What all peers may have together, and what one may have.

    connections: in all. peer_connections: of one peer. new_connections: on which no call has come
    yet. peer_calls: calls under way of one peer, over all its connections. idle_stream_s: after
    which a stream is ended that is no use.
    """

    connections: int = CONNECTIONS_MAX
    peer_connections: int = PEER_CONNECTIONS_MAX
    new_connections: int = NEW_CONNECTIONS_MAX
    peer_calls: int = PEER_CALLS_MAX
    idle_stream_s: float = IDLE_STREAM_S


#: What they may have unless it is said.
USUAL: Final = PeerLimits()


@lru_cache(maxsize=4096)
def peer_of_host(host: str) -> str:
    """Return by what name connections of a host are counted together, as it may have many."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv4Address):
        return host
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    if address.is_link_local or address.is_loopback:
        return host  # neighbours, which share all these bits
    return str(ipaddress.ip_network((int(address), _NETWORK_BITS), strict=False))


class Admission(NamedTuple, Generic[_C]):
    """What becomes of a connection that wants to be let in.

    bound: the one that is reached; empty: none. leaves: the connection that makes room, if one
    does; where a bound is reached and none does, the one that comes is refused.
    """

    bound: str = ""
    leaves: _C | None = None

    @property
    def is_let_in(self) -> bool:
        return not self.bound or self.leaves is not None


class _ByPeer(Generic[_C]):
    """Connections by their peers, each peer's in the order in which they came."""

    def __init__(self) -> None:
        self.count = 0
        #: How many the peer has that has most.
        self.most = 0
        self._of: dict[str, dict[_C, None]] = {}
        #: The peers that have as many.
        self._peers_with: defaultdict[int, dict[str, None]] = defaultdict(dict)

    def of(self, peer: str) -> dict[_C, None]:
        return self._of.get(peer, {})

    def add(self, peer: str, connection: _C) -> None:
        self._of.setdefault(peer, {})[connection] = None
        self.count += 1
        self._moved(peer, -1)
        self.most = max(self.most, len(self._of[peer]))

    def remove(self, peer: str, connection: _C) -> None:
        """Forget one; harmless if it is not there."""
        found = self._of.get(peer, {})
        if connection not in found:
            return
        del found[connection]
        self.count -= 1
        self._moved(peer, 1)
        if not found:
            del self._of[peer]
        if self.most not in self._peers_with:  # and this one has one less
            self.most -= 1

    def heaviest(self) -> dict[_C, None]:
        """Return those of the peer that has most; of several the one that came to it first."""
        return self.of(next(iter(self._peers_with[self.most]))) if self.count else {}

    def _moved(self, peer: str, before: int) -> None:
        """Note how many a peer has, who had as many and `before`."""
        now = len(self._of[peer])
        if with_before := self._peers_with.get(now + before):
            with_before.pop(peer, None)
            if not with_before:
                del self._peers_with[now + before]
        if now:
            self._peers_with[now][peer] = None


class ConnectionTable(Generic[_C]):
    """The connections that there are; decides by counting, and closes none itself.

    is_idle: whether a connection has no call under way.
    """

    def __init__(self, limits: PeerLimits, is_idle: Callable[[_C], bool]) -> None:
        self._limits = limits
        self._is_idle = is_idle
        self._peers: dict[_C, str] = {}
        self._all: _ByPeer[_C] = _ByPeer()
        self._new: _ByPeer[_C] = _ByPeer()
        #: Since when each new one is there, the oldest first.
        self._new_since: dict[_C, float] = {}

    def __len__(self) -> int:
        return len(self._peers)

    def admit(self, peer: str) -> Admission[_C]:
        """Return what becomes of one more connection of a peer, which is not there yet.

        Who is over its own bound is refused, so that nobody gives up calls for it, but new ones of
        the same peer go first: that a handshake never ends must not keep out who ends his. Beyond
        the bound of new ones the peer that has most of them loses its oldest. Beyond the bound of
        all the peer that has most loses one, if it has more than this one will have: then a few
        hosts cannot keep out others, however they hold what they have.
        """
        limits = self._limits
        new = self._new.of(peer)
        if len(self._all.of(peer)) >= limits.peer_connections:
            return Admission(PEER_CONNECTIONS, next(iter(new), None))
        if self._new.count >= limits.new_connections:
            return Admission(NEW_CONNECTIONS, next(iter(self._new.heaviest())))
        if self._all.count >= limits.connections:
            is_most = self._all.most <= len(self._all.of(peer)) + 1
            return Admission(CONNECTIONS, None if is_most else self._expendable())
        return Admission()

    def _expendable(self) -> _C:
        """Return the oldest idle connection of the peer that has most; if all are used the newest,
        which loses least."""
        found = self._all.heaviest()
        idle = next((one for one in found if self._is_idle(one)), None)
        return next(reversed(found)) if idle is None else idle

    def add(self, connection: _C, peer: str, now: float) -> None:
        """Note a connection that was let in; it is new."""
        self._peers[connection] = peer
        self._all.add(peer, connection)
        self._new.add(peer, connection)
        self._new_since[connection] = now

    def called(self, connection: _C) -> None:
        """Note the first call on a connection; repeatable."""
        if self._new_since.pop(connection, None) is not None:
            self._new.remove(self._peers[connection], connection)

    def remove(self, connection: _C) -> None:
        """Forget a connection; repeatable."""
        self.called(connection)
        peer = self._peers.pop(connection, None)
        if peer is not None:
            self._all.remove(peer, connection)

    def overdue(self, now: float) -> list[_C]:
        """Return the connections that should have made a call by now."""
        found = []
        for connection, since in self._new_since.items():
            if now - since < FIRST_CALL_S:
                break
            found.append(connection)
        return found
