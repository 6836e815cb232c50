from __future__ import annotations

import random

from cosco.process.native_grpc.unfinished_messages import UnfinishedMessages


def test_within_the_bound_nobody_gives_anything_up() -> None:
    unfinished: UnfinishedMessages[str] = UnfinishedMessages(100)
    unfinished.note("a", "host", 60)
    unfinished.note("b", "other", 40)
    assert unfinished.heaviest() is None


def test_the_heaviest_connection_of_the_heaviest_peer_gives_up() -> None:
    """Many connections of one peer do not make it lighter than one of another that holds more."""
    unfinished: UnfinishedMessages[str] = UnfinishedMessages(100)
    unfinished.note("honest", "host", 40)
    for n in range(10):
        unfinished.note(f"hostile {n}", "other", 10 + n)
    assert unfinished.heaviest() == "hostile 9"
    unfinished.note("hostile 9", "other", 0)
    assert unfinished.heaviest() == "hostile 8"


def test_what_is_noted_takes_the_place_of_what_was() -> None:
    seed = random.randrange(1 << 32)
    print("seed", seed)
    chance = random.Random(seed)
    unfinished: UnfinishedMessages[int] = UnfinishedMessages(0)
    keeps: dict[int, int] = {}
    for _ in range(1000):
        connection = chance.randrange(20)
        keeps[connection] = chance.choice([0, 1, 10, 100])
        unfinished.note(connection, f"host {connection % 3}", keeps[connection])
        assert unfinished.kept_bytes == sum(keeps.values())
        hosts = [sum(n for c, n in keeps.items() if c % 3 == host) for host in range(3)]
        heaviest = unfinished.heaviest()
        if not any(hosts):
            assert heaviest is None
            continue
        assert heaviest is not None
        assert hosts[heaviest % 3] == max(hosts)
        of_peer = [n for c, n in keeps.items() if c % 3 == heaviest % 3]
        assert keeps[heaviest] == max(of_peer)
    for connection in keeps:
        unfinished.note(connection, f"host {connection % 3}", 0)
    assert not unfinished._of
    assert not unfinished._by_peer
