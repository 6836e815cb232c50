"""Real daemons that have keys: who shows nothing good writes and reads nothing, and harms none."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from queue import SimpleQueue
from typing import Any

import pytest
from support.key_relay import KeyedCluster
from support.raw_push import RawMetadata, RawPush, make_block, make_frame, metric

from cosco import CoscoExchange, CoscoReader, CoscoWriter
from cosco.errors import AccessDenied, ExchangeClosed, ServiceUnavailable
from cosco.protocol import wire
from cosco.protocol.capability import (
    CapabilityKey,
    Checker,
    Permit,
    Rights,
    made,
    service_capability,
)
from cosco.protocol.group_records import Follow, Followed, FollowOutcome
from cosco.protocol.push.messages import Hello, PushRequest, Refusal, RefusalCode
from cosco.protocol.records import DaemonRef, ExchangeInfo
from cosco.protocol.wire import mpb, spb

import grpc  # isort: skip  (after cosco, which turns its fork support on)

#: Interpreters that choose the transport anew.
OLD, NEW = CapabilityKey(1, b"o" * 32), CapabilityKey(2, b"n" * 32)
FOREIGN = CapabilityKey(1, b"f" * 32)
BOTH = Rights.READ | Rights.WRITE


@pytest.fixture(scope="module")
def cluster() -> Iterator[KeyedCluster]:
    """Two daemons, whose stores end with them: only another daemon's copy makes rows safe."""
    with KeyedCluster(2, OLD, daemon_options=["--store", "memory://"]) as started:
        yield started


@pytest.fixture
def metadata(cluster: KeyedCluster) -> Iterator[RawMetadata]:
    cluster.set_keys(OLD)
    service = RawMetadata(cluster.metadata)
    yield service
    service.close()


@pytest.fixture
def exchange(metadata: RawMetadata, name: str) -> ExchangeInfo:
    return metadata.create(name)


def shown(
    exchange: ExchangeInfo,
    rights: Rights = BOTH,
    *,
    number: int = 0,
    expires_s: int = 0,
    key: CapabilityKey = OLD,
) -> str:
    return made(key, Permit(number or exchange.number, 1, rights, expires_s))


#: What is good for nothing, by what it is.
BAD = {
    "none": lambda exchange: "",
    "nonsense": lambda exchange: "cosco1.",
    "forged": lambda exchange: shown(exchange, key=FOREIGN),
    "expired": lambda exchange: shown(exchange, expires_s=1),
    "another exchange's": lambda exchange: shown(exchange, number=exchange.number + 1),
    "an owner's alone": lambda exchange: shown(exchange, Rights.OWN),
}


def primary_of(exchange: ExchangeInfo) -> DaemonRef:
    return exchange.assignments[0].primary


@contextmanager
def calling(ref: DaemonRef) -> Iterator[Any]:
    with grpc.insecure_channel(ref.address) as channel:
        yield channel


def refused_by(metadata: RawMetadata, ref: DaemonRef) -> float:
    """How many the daemon has refused."""
    status = metadata.call("Status", mpb.StatusRequest())
    [address] = [
        one.metrics_address for one in status.daemons if one.ref.incarnation == ref.incarnation
    ]
    return metric(address, "cosco_refused_total", bound="capability")


def last_said(push: RawPush) -> list[Refusal]:
    """All refusals until the stream ends."""
    refusals = []
    with pytest.raises(StopIteration):
        while True:
            reply = wire.push_reply_from_bytes(push.reply().SerializeToString())
            assert not (reply.acknowledged or reply.granted)
            refusals += reply.refused
    return refusals


def fetch(exchange: ExchangeInfo, capability: str) -> list[bytes]:
    """What is fetched of partition 0; raises what the daemon means."""
    request = spb.FetchRequest(number=exchange.number, epoch=1, capability=capability)
    with calling(primary_of(exchange)) as channel:
        call = channel.unary_stream(f"/{wire.SHUFFLE_SERVICE}/Fetch")
        try:
            replies = list(call(request.SerializeToString(), timeout=10))
        except grpc.RpcError as error:
            failed: Any = error
            trailers = dict(failed.trailing_metadata())
            raise wire.error_from_bytes(trailers[wire.ERROR_KEY]) from None
    found = map(wire.fetch_reply, replies)
    return [bytes(one) for one in found if isinstance(one, memoryview)]


class Following:
    """A stream of readers."""

    def __init__(self, exchange: ExchangeInfo) -> None:
        self._exchange = exchange
        self._channel = grpc.insecure_channel(primary_of(exchange).address)
        self._requests: SimpleQueue[bytes | None] = SimpleQueue()
        stub: Any = self._channel.stream_stream(f"/{wire.SHUFFLE_SERVICE}/Follow")
        self._call = stub(iter(self._requests.get, None), timeout=20)

    def ask(self, capability: str, number: int = 0) -> Followed:
        """Ask, to be answered at once: of what is of no group it is ELSEWHERE."""
        ask = Follow(
            1, primary_of(self._exchange).incarnation, number or self._exchange.number, 0, 1, 0,
            now=True, capability=capability,
        )  # fmt: skip
        self._requests.put(wire.follows_to_bytes([ask]))
        [answer] = wire.followed_from_bytes(next(self._call))
        return answer

    def close(self) -> None:
        self._requests.put(None)
        self._call.cancel()
        self._channel.close()


@pytest.mark.parametrize("what", [*BAD, "a reader's"])
def test_who_may_not_write_pushes_nothing(
    metadata: RawMetadata, exchange: ExchangeInfo, what: str
) -> None:
    honest = RawPush.to(exchange, mapper=2, capability=shown(exchange, Rights.WRITE))
    first, second = (make_block(exchange, n, mapper=2) for n in range(2))
    assert list(honest.exchange(make_frame(exchange, first)).acknowledged) == [1]
    before = refused_by(metadata, primary_of(exchange))
    capability = BAD[what](exchange) if what in BAD else shown(exchange, Rights.READ)
    push = RawPush(primary_of(exchange).address)
    made_frame = make_frame(exchange, make_block(exchange))
    hello = Hello(exchange.number, 1, 1, primary_of(exchange).incarnation, capability=capability)
    push.say(PushRequest(hello=hello, eager=True, frame=made_frame))
    [refusal] = last_said(push)
    assert (refusal.sequence, refusal.code) == (0, RefusalCode.ACCESS_DENIED)
    assert not capability or capability not in refusal.reason
    push.close()
    assert refused_by(metadata, primary_of(exchange)) == before + 1
    assert list(honest.exchange(make_frame(exchange, second, sequence=2)).acknowledged) == [2]
    honest.close()
    assert b"".join(fetch(exchange, shown(exchange, Rights.READ))) == first + second


@pytest.mark.parametrize("what", [*BAD, "a writer's"])
def test_who_may_not_read_is_given_nothing(
    metadata: RawMetadata, exchange: ExchangeInfo, what: str
) -> None:
    push = RawPush.to(exchange, capability=shown(exchange))
    block = make_block(exchange)
    assert list(push.exchange(make_frame(exchange, block)).acknowledged) == [1]
    push.close()
    following = Following(exchange)
    assert following.ask(shown(exchange)).outcome is FollowOutcome.ELSEWHERE
    before = refused_by(metadata, primary_of(exchange))
    capability = BAD[what](exchange) if what in BAD else shown(exchange, Rights.WRITE)
    with pytest.raises(AccessDenied) as caught:
        fetch(exchange, capability)
    assert not capability or capability not in str(caught.value)
    stranger = Following(exchange)
    answer = stranger.ask(capability)
    stranger.close()
    assert (answer.outcome, answer.data, len(answer.done)) == (FollowOutcome.DENIED, b"", 0)
    assert following.ask(capability, exchange.number + 7).outcome is FollowOutcome.DENIED
    assert refused_by(metadata, primary_of(exchange)) == before + 3
    assert following.ask("").outcome is FollowOutcome.ELSEWHERE  # it was shown before
    following.close()
    assert fetch(exchange, shown(exchange)) == [block]


def test_one_who_may_not_write_ends_his_own_turn_on_a_stream(exchange: ExchangeInfo) -> None:
    push = RawPush.to(exchange, capability=shown(exchange))
    block = make_block(exchange)
    assert list(push.exchange(make_frame(exchange, block)).acknowledged) == [1]
    push.hello(exchange.number, primary_of(exchange).incarnation, mapper=2)
    [refusal] = last_said(push)
    assert refusal.code is RefusalCode.ACCESS_DENIED
    push.close()
    assert fetch(exchange, shown(exchange)) == [block]


def test_keys_are_replaced_under_open_streams(
    cluster: KeyedCluster, metadata: RawMetadata, exchange: ExchangeInfo
) -> None:
    def both(key: CapabilityKey) -> list[bool]:
        may = []
        push = RawPush.to(exchange, mapper=9, capability=shown(exchange, key=key))
        push.announce(100)
        may.append(not push.reply().refused)
        push.close()
        try:
            fetch(exchange, shown(exchange, key=key))
            may.append(True)
        except (AccessDenied, ExchangeClosed, ServiceUnavailable):
            may.append(False)
        return may

    push = RawPush.to(exchange, capability=shown(exchange))
    following = Following(exchange)
    blocks = [make_block(exchange, n) for n in range(3)]
    for n, keys in enumerate(((OLD,), (OLD, NEW), (NEW,)), 1):
        cluster.set_keys(*keys)
        assert both(OLD) == [OLD in keys] * 2
        assert both(NEW) == [NEW in keys] * 2
        reply = push.exchange(make_frame(exchange, blocks[n - 1], sequence=n))
        assert list(reply.acknowledged) == [n]
        assert following.ask(shown(exchange)).outcome is FollowOutcome.ELSEWHERE
    push.close()
    following.close()
    assert b"".join(fetch(exchange, shown(exchange, key=NEW))) == b"".join(blocks)
    cluster.set_keys()  # a service that has none any more
    assert b"".join(fetch(exchange, "")) == b"".join(blocks)


# --- services -------------------------------------------------------------------------------


def pushed_with_copies(metadata: RawMetadata, name: str) -> ExchangeInfo:
    """Push a frame that is acknowledged once both daemons have it."""
    exchange = metadata.create(name, replicas=2)
    push = RawPush.to(exchange, capability=shown(exchange))
    reply = push.exchange(make_frame(exchange, make_block(exchange)))
    assert list(reply.acknowledged) == [1]
    push.close()
    return exchange


def test_a_daemon_that_has_not_heard_of_a_key_sends_to_the_metadata_service(
    cluster: KeyedCluster, metadata: RawMetadata, name: str
) -> None:
    """It may have been out of its reach; who is refused for good would give up rows."""
    exchange = metadata.create(name)
    capability = shown(exchange, key=NEW)
    push = RawPush.to(exchange, capability=capability)
    assert last_said(push)[0].code is RefusalCode.NOT_ASSIGNED
    push.close()
    with pytest.raises(ServiceUnavailable):
        fetch(exchange, capability)
    following = Following(exchange)
    assert following.ask(capability).outcome is FollowOutcome.ELSEWHERE
    following.close()


def test_what_a_key_made_that_has_gone_is_of_closed_exchanges(
    cluster: KeyedCluster, metadata: RawMetadata, name: str
) -> None:
    exchange = metadata.create(name)
    cluster.set_keys(NEW)
    push = RawPush.to(exchange, capability=shown(exchange))
    assert last_said(push)[0].code is RefusalCode.EXCHANGE_CLOSED
    push.close()
    with pytest.raises(ExchangeClosed):
        fetch(exchange, shown(exchange))
    following = Following(exchange)
    assert following.ask(shown(exchange)).outcome is FollowOutcome.CLOSED
    following.close()
    cluster.set_keys(OLD)


def test_copies_go_between_daemons_while_keys_are_replaced(
    cluster: KeyedCluster, metadata: RawMetadata, name: str
) -> None:
    exchange = pushed_with_copies(metadata, name)
    push = RawPush.to(exchange, mapper=2, capability=shown(exchange))
    for n, keys in enumerate(((OLD, NEW), (NEW,)), 1):
        cluster.set_keys(*keys)
        block = make_block(exchange, n, mapper=2)
        reply = push.exchange(make_frame(exchange, block, sequence=n))
        assert list(reply.acknowledged) == [n]
    push.close()


def test_who_says_that_he_is_a_primary_must_show_it(
    cluster: KeyedCluster, metadata: RawMetadata, name: str
) -> None:
    exchange = pushed_with_copies(metadata, name)
    primary, [replica] = primary_of(exchange), exchange.assignments[0].replicas
    key = OLD.derived(Checker.DAEMON)
    for capability in (
        "",
        shown(exchange, BOTH | Rights.OWN),
        shown(exchange, BOTH | Rights.OWN, number=replica.incarnation),
        service_capability(key, primary.incarnation),  # as the primary itself was shown
        service_capability(NEW.derived(Checker.DAEMON), replica.incarnation),
    ):
        push = RawPush(replica.address)
        hello = Hello(0, 0, 0, replica.incarnation, primary.incarnation, capability=capability)
        push.say(PushRequest(hello=hello, released=(1, 2, 3)))
        [refusal] = last_said(push)
        assert refusal.code is RefusalCode.ACCESS_DENIED
        assert "is for daemons alone" in refusal.reason
        push.close()
    push = RawPush.to(exchange, mapper=2, capability=shown(exchange))
    made_frame = make_frame(exchange, make_block(exchange, mapper=2))
    assert list(push.exchange(made_frame).acknowledged) == [1]  # their stream was not cut off
    push.close()


def test_nobody_but_the_metadata_service_seals(exchange: ExchangeInfo) -> None:
    ref = primary_of(exchange)
    push = RawPush.to(exchange, capability=shown(exchange))
    assert push.exchange(make_frame(exchange, make_block(exchange))).acknowledged
    request = spb.SealRequest(
        incarnation=ref.incarnation,
        keys=[spb.AssignmentKey(number=exchange.number, range_index=0, epoch=1)],
    )
    with calling(ref) as channel:
        seal = channel.unary_unary(f"/{wire.SHUFFLE_SERVICE}/Seal")
        for capability in ("", shown(exchange, BOTH | Rights.OWN)):
            request.capability = capability
            with pytest.raises(grpc.RpcError) as caught:
                seal(request.SerializeToString(), timeout=10)
            error: Any = caught.value
            assert error.code() is grpc.StatusCode.PERMISSION_DENIED
            assert "is for the metadata service alone" in error.details()
        second = make_frame(exchange, make_block(exchange, 1), sequence=2)
        assert push.exchange(second).acknowledged
        request.capability = service_capability(OLD.derived(Checker.DAEMON), ref.incarnation)
        seal(request.SerializeToString(), timeout=10)
        third = make_frame(exchange, make_block(exchange, 2), sequence=3)
        [refusal] = push.exchange(third).refused
        assert refusal.code == RefusalCode.NOT_ASSIGNED
    push.close()


# --- clients --------------------------------------------------------------------------------


def test_clients_without_a_capability_are_told_so_at_once(
    cluster: KeyedCluster, metadata: RawMetadata, name: str
) -> None:
    """Nothing is repeated until a time-out, and nothing is reported as lost."""
    address = cluster.metadata
    with CoscoExchange(name, 2, metadata=address):
        began = time.monotonic()
        with pytest.raises(AccessDenied) as caught, CoscoWriter(name, 0, metadata=address) as one:
            one.collect(0, b"row")
        assert caught.value.shuffle_id == name
        cluster.set_keys()
        with CoscoWriter(name, 0, metadata=address) as writer:
            writer.collect(0, b"row")
            writer.collect(1, b"row")
        cluster.set_keys(OLD)
        for partitions in (0, [0, 1]):
            with (
                CoscoReader(name, [0], partitions, metadata=address) as reader,
                pytest.raises(AccessDenied) as caught,
            ):
                list(reader)
            assert caught.value.shuffle_id == name
        assert time.monotonic() - began < 30
        cluster.set_keys()
        with CoscoReader(name, [0], 0, metadata=address) as reader:
            assert list(reader) == [b"row"]


# --- daemons that come back ------------------------------------------------------------------


def test_a_daemon_that_comes_back_to_its_files_gives_nobody_any_before_it_has_keys(
    name: str,
) -> None:
    """It finds files, and so registers twice; between these it knows its cluster, and serves."""
    with KeyedCluster(1, OLD) as cluster:
        assert cluster.relay is not None
        metadata = RawMetadata(cluster.metadata)
        exchange = metadata.create(name)
        push = RawPush.to(exchange, capability=shown(exchange))
        block = make_block(exchange)
        assert push.exchange(make_frame(exchange, block)).acknowledged
        push.close()
        [daemon] = cluster.daemons
        cluster.set_keys()  # or the metadata service, which has none, could not seal
        daemon.stop()
        cluster.relay.keys = (OLD,)
        refusals: list[str] = []

        def look(_registrations: int) -> None:
            """Fetch in the time in which the daemon waits to be registered."""
            request = spb.FetchRequest(number=exchange.number, epoch=1, files=True)
            with grpc.insecure_channel(daemon.address) as channel:
                call: Any = channel.unary_stream(f"/{wire.SHUFFLE_SERVICE}/Fetch")
                with pytest.raises(grpc.RpcError) as caught:
                    list(call(request.SerializeToString(), timeout=10))
            error: Any = caught.value
            refusals.append(error.code().name)

        cluster.relay.on_register = look
        daemon.restart()
        assert refusals[:2] == ["UNAVAILABLE", "PERMISSION_DENIED"]
        cluster.relay.on_register = lambda _: None
        request = spb.FetchRequest(
            number=exchange.number, epoch=1, files=True, capability=shown(exchange)
        )
        with grpc.insecure_channel(daemon.address) as channel:
            call: Any = channel.unary_stream(f"/{wire.SHUFFLE_SERVICE}/Fetch")
            replies = list(map(wire.fetch_reply, call(request.SerializeToString(), timeout=10)))
        assert block in [bytes(one) for one in replies if isinstance(one, memoryview)]
        metadata.close()
