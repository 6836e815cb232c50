"""Who is let in, and who makes room."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from cosco.process.native_grpc.connection_table import (
    CONNECTIONS,
    FIRST_CALL_S,
    NEW_CONNECTIONS,
    PEER_CONNECTIONS,
    Admission,
    ConnectionTable,
    PeerLimits,
    peer_of_host,
)


class Rig:
    """A table of connections, which are named by their peer and a number: a1, a2, b1."""

    def __init__(self, connections: int, of_peer: int, new: int) -> None:
        self.busy: set[str] = set()
        self.table: ConnectionTable[str] = ConnectionTable(
            PeerLimits(connections, of_peer, new), is_idle=lambda one: one not in self.busy
        )
        self.there: dict[str, None] = {}
        self.now = 0.0

    def come(self, name: str, *, calls: bool = True) -> Admission[str]:
        """Want to come in; whoever makes room goes."""
        admission = self.table.admit(name[0])
        if admission.leaves is not None:
            self.go(admission.leaves)
        if admission.is_let_in:
            self.table.add(name, name[0], self.now)
            self.there[name] = None
            if calls:
                self.table.called(name)
        return admission

    def go(self, name: str) -> None:
        self.table.remove(name)
        del self.there[name]


def let_in(*names: str, connections: int = 100, of_peer: int = 100, new: int = 100) -> Rig:
    rig = Rig(connections, of_peer, new)
    for name in names:
        assert rig.come(name).bound == ""
    return rig


def test_who_has_as_many_as_a_peer_may_is_refused_and_others_come_in() -> None:
    rig = let_in("a1", "a2", of_peer=2)
    refused = rig.come("a3")
    assert refused == (PEER_CONNECTIONS, None)
    assert not refused.is_let_in
    assert rig.come("b1").bound == ""
    rig.go("a1")
    assert rig.come("a4").bound == ""


def test_new_ones_of_a_peer_go_before_it_is_refused() -> None:
    rig = let_in("a1", of_peer=3)
    rig.come("a2", calls=False)
    rig.come("a3", calls=False)
    assert rig.come("a4") == (PEER_CONNECTIONS, "a2")
    assert rig.come("a5") == (PEER_CONNECTIONS, "a3")
    assert rig.come("a6") == (PEER_CONNECTIONS, None)
    assert list(rig.there) == ["a1", "a4", "a5"]


def test_of_new_ones_the_oldest_goes_of_who_has_most() -> None:
    rig = let_in("c1", new=3)
    for name in ("b1", "a1", "a2"):
        assert rig.come(name, calls=False).bound == ""
    assert rig.come("b2", calls=False) == (NEW_CONNECTIONS, "a1")
    assert rig.come("c2", calls=False) == (NEW_CONNECTIONS, "b1")
    rig.table.called("b2")
    rig.table.called("b2")
    assert rig.come("a3", calls=False).bound == ""


def test_a_flood_of_new_ones_lets_honest_peers_make_their_first_call() -> None:
    rig = let_in(new=10)
    rig.come("b1", calls=False)
    for number in range(1000):
        rig.come(f"a{number}", calls=False)
    assert "b1" in rig.there
    assert len(rig.there) == 10


@pytest.mark.parametrize(
    ("busy", "leaves"), [((), "a1"), (("a1",), "a2"), (("a1", "a2", "a3"), "a3")]
)
def test_beyond_the_bound_of_all_who_has_most_gives_up_one(
    busy: tuple[str, ...], leaves: str
) -> None:
    rig = let_in("a1", "b1", "a2", "a3", connections=4)
    rig.busy.update(busy)
    assert rig.come("c1") == (CONNECTIONS, leaves)
    # Now a has two: nobody else has fewer by so much that it would help to take one.
    assert rig.come("b2") == (CONNECTIONS, None)
    assert rig.come("a4") == (CONNECTIONS, None)
    rig.busy.clear()
    oldest = next(one for one in rig.there if one[0] == "a")
    assert rig.come("d1") == (CONNECTIONS, oldest)
    assert rig.come("e1") == (CONNECTIONS, None)  # all have one


def test_few_peers_cannot_keep_out_many() -> None:
    rig = let_in(*(f"a{n}" for n in range(50)), *(f"b{n}" for n in range(50)), connections=100)
    rig.busy.update(rig.there)
    for name in "cdefghij":
        assert rig.come(f"{name}1").is_let_in
    assert Counter(one[0] for one in rig.there)["c"] == 1
    assert len(rig.there) == 100


def test_new_ones_are_overdue_in_their_turn() -> None:
    rig = let_in("a1")
    for number, name in enumerate(("a2", "b1", "a3")):
        rig.now = float(number)
        rig.come(name, calls=False)
    rig.table.called("b1")
    assert rig.table.overdue(FIRST_CALL_S - 0.1) == []
    assert rig.table.overdue(FIRST_CALL_S + 1.9) == ["a2"]
    assert rig.table.overdue(FIRST_CALL_S + 2) == ["a2", "a3"]
    rig.go("a2")
    assert rig.table.overdue(FIRST_CALL_S + 2) == ["a3"]


def test_bounds_hold_and_nothing_is_left_behind_whatever_comes_and_goes() -> None:
    for seed in range(30):
        chance = random.Random(seed)
        rig = Rig(chance.randint(3, 20), chance.randint(2, 8), chance.randint(1, 6))
        new: set[str] = set()
        for step in range(600):
            if rig.there and chance.random() < 0.3:
                name = chance.choice(list(rig.there))
                if name in new and chance.random() < 0.7:
                    rig.table.called(name)
                    new.discard(name)
                else:
                    rig.go(name)
            else:
                name, calls = f"{chance.choice('abcdef')}{step}", chance.random() < 0.5
                before = len(rig.there)
                admission = rig.come(name, calls=calls)
                if not calls and admission.is_let_in:
                    new.add(name)
                assert admission.bound or len(rig.there) == before + 1
            new &= set(rig.there)
            of_peer = Counter(one[0] for one in rig.there)
            limits = rig.table._limits
            assert len(rig.table) == len(rig.there) <= limits.connections
            assert len(new) == rig.table._new.count <= limits.new_connections
            assert rig.table._all.most == max(of_peer.values(), default=0)
            assert rig.table._all.most <= limits.peer_connections
        for name in list(rig.there):
            rig.go(name)
        assert not rig.table._all._of
        assert not rig.table._all._peers_with
        assert not rig.table._new._peers_with
        assert not rig.table._new_since


@pytest.mark.parametrize(
    ("host", "peer"),
    [
        ("10.1.2.3", "10.1.2.3"),
        ("::ffff:10.1.2.3", "10.1.2.3"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::9", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::9", "2001:db8:1:3::/64"),
        ("fe80::1%eth0", "fe80::1%eth0"),
        ("::1", "::1"),
        ("", ""),  # of a socket that has none
    ],
)
def test_a_host_with_many_addresses_is_one_peer(host: str, peer: str) -> None:
    assert peer_of_host(host) == peer
