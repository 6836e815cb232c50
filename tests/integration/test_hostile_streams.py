"""The memory of services stays within its bound, whatever strangers begin and never end."""

from __future__ import annotations

import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

import grpc
import pytest
from pyroaring import BitMap
from support.raw_http2 import HEADERS, RawPeer, message
from support.raw_push import RawMetadata, RawPush, metric

from cosco import CoscoExchange, CoscoReader, CoscoWriter, LocalCluster
from cosco.local.workers import peak_rss_bytes
from cosco.mechanics import NATIVE
from cosco.protocol import wire
from cosco.protocol.api_limits import MAX_PARTITIONS
from cosco.protocol.wire import mpb

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


@pytest.mark.skipif(NATIVE is None, reason="gRPC's own server takes whole messages, however many")
@pytest.mark.parametrize("length", [13_000, 2 * MIB], ids=["short", "long"])
def test_messages_that_begin_and_never_end(length: int) -> None:
    """Of each comes as much as comes without being allowed; together it would be 240 MB."""
    part = message(bytes(12_000), length=length)
    with LocalCluster(1, memory="64MiB") as cluster, ExitStack() as peers:
        daemon = cluster.daemons[0]
        before = settled_bytes(daemon.pid)
        for _ in range(10):
            peer = peers.enter_context(RawPeer(daemon.address))
            peer.greet()
            for _ in range(2000):
                if not peer.data_within(peer.call(FETCH), part):
                    break  # h2 has ended it
        assert peak_rss_bytes(daemon.pid) - before < 48 * MIB

        with CoscoExchange("honest", 1, replicas=1, metadata=cluster.metadata):
            with CoscoWriter("honest", 0, metadata=cluster.metadata) as writer:
                writer.collect(0, b"row")
            with CoscoReader("honest", [0], 0, metadata=cluster.metadata) as reader:
                assert list(reader) == [b"row"]


def test_calls_that_wait_for_mappers_far_apart() -> None:
    """Each names mappers of all parts of the set of mappers, and a million partitions, of which it
    is told at the end that all are missing."""
    waiting, calls = 32 * MIB, 120
    partitions = BitMap(range(MAX_PARTITIONS)).serialize()
    options = ["--waiting-bytes", f"{waiting}"]
    with LocalCluster(1, memory="64MiB", metadata_options=options) as cluster, ExitStack() as ends:
        pid = cluster.metadata_service.pid
        address = cluster.metadata
        ends.enter_context(CoscoExchange("a", MAX_PARTITIONS, replicas=1, metadata=address))
        channel = ends.enter_context(grpc.insecure_channel(address))
        call = channel.unary_unary(
            f"/{wire.METADATA_SERVICE}/AwaitCommits",
            request_serializer=mpb.AwaitCommitsRequest.SerializeToString,
        )
        before = peak_rss_bytes(pid)
        asked = [
            call.future(
                mpb.AwaitCommitsRequest(
                    number=1,
                    mappers=BitMap(range(first, 1 << 31, 1 << 13)).serialize(),
                    partitions=partitions,
                    wait_s=3.0,
                ),
                timeout=60.0,
            )
            for first in range(1, calls + 1)
        ]
        codes = [one.code() for one in asked]
        assert grpc.StatusCode.OK in codes
        assert codes.count(grpc.StatusCode.UNAVAILABLE) > calls // 2
        # What is under way to be refused comes on top; were nothing refused, it would be 800 MiB.
        assert peak_rss_bytes(pid) - before < waiting + 256 * MIB

        with CoscoExchange("honest", 1, replicas=1, metadata=address):
            with CoscoWriter("honest", 0, metadata=address) as writer:
                writer.collect(0, b"row")
            with CoscoReader("honest", [0], 0, metadata=address) as reader:
                assert list(reader) == [b"row"]


STRANGER = "127.0.0.9"


@contextmanager
def honest_exchange(cluster: LocalCluster) -> Iterator[None]:
    """An exchange that is under way, and goes on afterwards: all its rows are read."""
    with CoscoExchange("honest", 4, replicas=1, metadata=cluster.metadata):
        with CoscoWriter("honest", 0, metadata=cluster.metadata) as writer:
            for row in range(500):
                writer.collect(row % 4, b"%d" % row * 100)
            yield
            for row in range(500, 1000):
                writer.collect(row % 4, b"%d" % row * 100)
        with CoscoReader("honest", [0], 1, metadata=cluster.metadata) as reader:
            assert sum(1 for _ in reader) == 250


def refused_by_daemon(cluster: LocalCluster, bound: str) -> float:
    metadata = RawMetadata(cluster.metadata)
    [daemon] = metadata.call("Status", mpb.StatusRequest()).daemons
    metadata.close()
    return metric(daemon.metrics_address, "cosco_refused_total", bound=bound)


def is_answered(peer: RawPeer, method: str) -> bool:
    """Whether a call is answered, with whatever."""
    try:
        peer.greet()
        peer.data(peer.call(method), message(b""), last=True)
        return peer.until(HEADERS) is not None
    except OSError:
        return False


@pytest.mark.skipif(NATIVE is None, reason="gRPC's own server takes all that the files allow")
def test_a_thousand_handshakes_that_never_end() -> None:
    """From the host of the honest ones, so that nothing but their silence tells them apart."""
    with LocalCluster(1, memory="64MiB") as cluster, ExitStack() as peers:
        daemon = cluster.daemons[0]
        with honest_exchange(cluster):
            before = settled_bytes(daemon.pid)
            for number in range(1000):
                peer = peers.enter_context(RawPeer(daemon.address))
                if number % 2:
                    peer.send(b"PRI * HT")
            # Who comes now is let in, too, in the place of one of them.
            late = peers.enter_context(RawPeer(daemon.address))
            assert is_answered(late, PUSH)
            assert peak_rss_bytes(daemon.pid) - before < 24 * MIB
        assert refused_by_daemon(cluster, "new_connections") >= 400


@pytest.mark.skipif(NATIVE is None, reason="gRPC's own server takes all that the files allow")
def test_a_flood_of_connections() -> None:
    options = ["--peer-connections", "100"]
    with LocalCluster(1, memory="64MiB", daemon_options=options) as cluster, ExitStack() as peers:
        daemon = cluster.daemons[0]
        with honest_exchange(cluster):
            before = settled_bytes(daemon.pid)
            let_in = 0
            for _ in range(600):
                peer = peers.enter_context(RawPeer(daemon.address, source=STRANGER))
                let_in += is_answered(peer, "/nothing")
            assert let_in == 100
            assert peak_rss_bytes(daemon.pid) - before < 16 * MIB
        assert refused_by_daemon(cluster, "peer_connections") == 500


@pytest.mark.skipif(NATIVE is None, reason="gRPC's own server has a bound for all together alone")
@pytest.mark.parametrize("method", [PUSH, FETCH])
def test_a_flood_of_calls(method: str) -> None:
    """On many connections, each call without an end; the peer is told to try again."""
    options = ["--peer-calls", "500"]
    with LocalCluster(1, memory="64MiB", daemon_options=options) as cluster, ExitStack() as peers:
        daemon = cluster.daemons[0]
        with honest_exchange(cluster):
            before = settled_bytes(daemon.pid)
            begun = ended = 0
            for _ in range(20):
                peer = peers.enter_context(RawPeer(daemon.address, source=STRANGER))
                peer.greet()
                for _ in range(200):
                    peer.call(method)
                    begun += 1
                # The next one's calls come after these: else it is anybody's who is refused.
                ended += sum(one.kind == HEADERS for one in peer.until_taken())
                while ended < begun - 500:
                    assert peer.until(HEADERS) is not None
                    ended += 1
            assert peak_rss_bytes(daemon.pid) - before < 16 * MIB
        assert refused_by_daemon(cluster, "peer_calls") == ended


@pytest.mark.skipif(NATIVE is None, reason="gRPC's own server has a bound for all together alone")
def test_a_client_that_is_refused_for_a_while_tries_again() -> None:
    """All calls that its host may have are another's; once these end it goes on."""
    options = ["--peer-calls", "8"]
    with LocalCluster(1, memory="64MiB", daemon_options=options) as cluster:
        daemon = cluster.daemons[0]
        with CoscoExchange("honest", 1, replicas=1, metadata=cluster.metadata):
            with RawPeer(daemon.address) as peer:
                peer.greet()
                for _ in range(8):
                    peer.call(FETCH)
                peer.until_taken()

                def leave_once_somebody_was_refused() -> None:
                    while not refused_by_daemon(cluster, "peer_calls"):
                        time.sleep(0.05)
                    peer.close()

                leaving = threading.Thread(target=leave_once_somebody_was_refused)
                leaving.start()
                with CoscoWriter("honest", 0, metadata=cluster.metadata) as writer:
                    writer.collect(0, b"row")
                leaving.join()
            with CoscoReader("honest", [0], 0, metadata=cluster.metadata) as reader:
                assert list(reader) == [b"row"]


@pytest.mark.skipif(NATIVE is None, reason="gRPC's own server lets streams be idle for ever")
def test_streams_that_are_kept_without_use() -> None:
    """They are ended, though their peer answers pings; a writer that is slow opens another one."""
    options = ["--idle-stream-s", "1"]
    with LocalCluster(1, memory="64MiB", daemon_options=options) as cluster, ExitStack() as ends:
        metadata = RawMetadata(cluster.metadata)
        ends.callback(metadata.close)
        pushes = [RawPush.to(metadata.create(f"{number}")) for number in range(20)]
        for push in pushes:
            ends.callback(push.close)
        with honest_exchange(cluster):
            for push in pushes:
                with pytest.raises(StopIteration):  # it ends well
                    push.reply()
        assert refused_by_daemon(cluster, "silent_calls") >= len(pushes)


def registration(incarnation: int, address: str) -> mpb.RegisterDaemonRequest:
    return mpb.RegisterDaemonRequest(
        incarnation=incarnation, address=address, host_id=f"host-{incarnation}",
        store_id=f"memory:{incarnation}", memory_bytes=1 << 40, free_bytes=1 << 40,
    )  # fmt: skip


def test_a_flood_of_registrations() -> None:
    """Of daemons that are nowhere, each said to have more room than all others, and of such as say
    that they are where an honest one is."""
    options = ["--daemons", "101"]
    with LocalCluster(1, memory="64MiB", metadata_options=options) as cluster, ExitStack() as ends:
        pid, address = cluster.metadata_service.pid, cluster.metadata
        taken = cluster.daemons[0].address
        channel = ends.enter_context(grpc.insecure_channel(address))
        register = channel.unary_unary(
            f"/{wire.METADATA_SERVICE}/RegisterDaemon",
            request_serializer=mpb.RegisterDaemonRequest.SerializeToString,
        )
        with honest_exchange(cluster):
            before = peak_rss_bytes(pid)
            asked = [
                register.future(registration(number, f"10.0.{number // 250}.9:{number}"))
                for number in range(1, 5001)
            ]
            codes = Counter(one.code() for one in asked)
            assert codes[grpc.StatusCode.OK] == 100
            # Both are tried again. gRPC's own server cancels some where it refuses many at once.
            refusals = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}
            assert set(codes) - {grpc.StatusCode.OK} <= refusals
            assert NATIVE is None or not codes[grpc.StatusCode.CANCELLED]
            claims = [register.future(registration(10_000 + n, taken)) for n in range(3000)]
            for one in claims[1000:]:
                one.cancel()  # what it asked for stays to be found out
            assert grpc.StatusCode.OK not in {one.code() for one in claims[:100]}
            # gRPC's own server keeps some KiB for each call of 8,000 that come at once.
            assert peak_rss_bytes(pid) - before < (128 if NATIVE is None else 32) * MIB
