"""A daemon's memory stays within its bound, whatever strangers begin and never end."""

from __future__ import annotations

import socket
import time
from contextlib import ExitStack, suppress

import pytest
from support.raw_http2 import RawPeer, message

from cosco import CoscoExchange, CoscoReader, CoscoWriter, LocalCluster
from cosco.local.workers import peak_rss_bytes
from cosco.mechanics import NATIVE

MIB = 1 << 20
CONNECTIONS, CALLS = 20, 50
PUSH, FETCH = "/cosco.v1.Shuffle/Push", "/cosco.v1.Shuffle/Fetch"


def settled_bytes(pid: int) -> int:
    """Return its memory once it does not grow by itself: its pages are made ready at the start."""
    now, before = peak_rss_bytes(pid), 0
    while now > before or now < 64 * MIB:
        before = now
        time.sleep(0.3)
        now = peak_rss_bytes(pid)
    return now


@pytest.mark.skipif(NATIVE is None, reason="gRPC's own server takes whole messages, however many")
@pytest.mark.parametrize("method", [PUSH, FETCH])
def test_a_thousand_messages_that_never_end(method: str) -> None:
    """Each says that it has 2 MiB, and sends as much of it as the daemon takes."""
    with LocalCluster(1, memory="64MiB") as cluster, ExitStack() as peers:
        daemon = cluster.daemons[0]
        before = settled_bytes(daemon.pid)
        sent = 0
        for _ in range(CONNECTIONS):
            peer = peers.enter_context(RawPeer(daemon.address, timeout_s=0.2))
            peer.greet()
            calls = [peer.call(method) for _ in range(CALLS)]
            with suppress(socket.timeout, OSError):  # it takes no more, or has ended it
                for call in calls:
                    peer.data(call, message(b"", length=2 * MIB))
                for _ in range(20):
                    for call in calls:
                        peer.data(call, bytes(100_000))
                        sent += 100_000
        assert peak_rss_bytes(daemon.pid) - before < 16 * MIB

        # Who keeps to the rules is served meanwhile.
        with CoscoExchange("honest", 4, replicas=1, metadata=cluster.metadata):
            with CoscoWriter("honest", 0, metadata=cluster.metadata) as writer:
                for row in range(1000):
                    writer.collect(row % 4, b"%d" % row * 100)
            with CoscoReader("honest", [0], 1, metadata=cluster.metadata) as reader:
                assert sum(1 for _ in reader) == 250
