"""A bare push stream and bare calls, for what the real client never sends."""

from __future__ import annotations

import queue
import urllib.request
from typing import Any, Self

import grpc
from support.frame_making import block, frame

from cosco import Connection
from cosco.process.tls.grpc_credentials import new_channel_of
from cosco.process.tls.tls_files import client_files
from cosco.protocol import wire
from cosco.protocol.push.messages import Hello, PushRequest
from cosco.protocol.records import ExchangeInfo, ExchangeSpec
from cosco.protocol.wire import mpb, spb


def channel_to(address: str) -> Any:
    """Return a channel as the environment says: with TLS or without."""
    files = client_files()
    return new_channel_of(grpc, address, None if files is None else files.current())


def request_bytes(request: PushRequest[bytes]) -> bytes:
    """Serialize a request whose frame is any bytes."""
    pb = spb.PushRequest(
        released=request.released,
        announce=request.announce,
        withdrawn=request.withdrawn,
        eager=request.eager,
        frame=request.frame or b"",
    )
    if request.hello is not None:
        pb.hello.CopyFrom(spb.Hello(**request.hello._asdict()))
    return pb.SerializeToString()


class RawMetadata:
    """Calls of the metadata service without any of the client's care."""

    def __init__(self, address: str) -> None:
        self._channel = channel_to(address)
        self._credential = Connection(address).credential()  # as the environment says

    def call(self, method: str, request: Any) -> Any:
        _, reply_type = wire.METADATA_METHODS[method]
        stub: Any = self._channel.unary_unary(
            f"/{wire.METADATA_SERVICE}/{method}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=reply_type.FromString,
        )
        shown = [("authorization", f"Bearer {self._credential()}")] if self._credential else None
        return stub(request, timeout=10, metadata=shown)

    def create(self, shuffle_id: str, partitions: int = 4, *, replicas: int = 1) -> ExchangeInfo:
        spec = ExchangeSpec(shuffle_id, partitions, replicas=replicas)
        request = mpb.CreateExchangeRequest(spec=wire.to_pb(spec), owner=b"o" * 16)
        return wire.from_pb(ExchangeInfo, self.call("CreateExchange", request))

    def close(self) -> None:
        self._channel.close()


class RawPush:
    """One push stream; `reply` gives the next reply of the daemon, or raises grpc.RpcError."""

    def __init__(self, address: str) -> None:
        self._channel = channel_to(address)
        self._requests: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        call: Any = self._channel.stream_stream(f"/{wire.SHUFFLE_SERVICE}/Push")
        self._call = call(iter(self._requests.get, None), timeout=20)

    @classmethod
    def to(cls, exchange: ExchangeInfo, *, mapper: int = 1, capability: str | None = None) -> Self:
        """A mapper's stream to the primary of the first range."""
        capability = exchange.capability if capability is None else capability
        primary = exchange.assignments[0].primary
        push = cls(primary.address)
        push.hello(exchange.number, primary.incarnation, mapper=mapper, capability=capability)
        return push

    def hello(
        self, number: int, incarnation: int, *, mapper: int = 1, capability: str = ""
    ) -> None:
        hello = Hello(number, mapper, 1, incarnation, capability=capability)
        self.say(PushRequest(hello=hello))

    def announce(self, *frame_bytes: int) -> None:
        self.say(PushRequest(announce=frame_bytes))

    def send(self, frame: bytes) -> None:
        self.say(PushRequest(frame=frame))

    def say(self, request: PushRequest[bytes]) -> None:
        self._requests.put(request_bytes(request))

    def reply(self) -> spb.PushReply:
        while True:
            reply = spb.PushReply.FromString(next(self._call))
            reply.ClearField("eager_bytes")  # said once, before anything else or with it
            if reply.ByteSize():
                return reply

    def exchange(self, frame: bytes, announced: int | None = None) -> spb.PushReply:
        """Announce, await the grant, send; the reply that answers the frame."""
        self.announce(announced or len(frame))
        while not self.reply().granted:
            pass
        self.send(frame)
        return self.reply()

    def close(self) -> None:
        self._requests.put(None)
        self._call.cancel()
        self._channel.close()


def make_block(
    exchange: ExchangeInfo, first_row: int = 0, content: bytes = b"row", **identity: int
) -> bytes:
    """A block of partition 0."""
    return block(0, first_row, content, exchange=exchange.number, **identity)


def make_frame(exchange: ExchangeInfo, *blocks: bytes, **header: int) -> bytes:
    """A frame that the primary of the first range takes, but for what `header` says."""
    primary = exchange.assignments[0].primary.incarnation
    return frame(blocks, **{"exchange": exchange.number, "incarnation": primary, **header})


def metric(address: str, name: str, **labels: str) -> float:
    """One sample of a Prometheus endpoint; 0 if it is not there."""
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=5) as answer:
        text = answer.read().decode()
    wanted = [f'{key}="{value}"' for key, value in labels.items()]
    for line in text.splitlines():
        sample, _, value = line.rpartition(" ")
        if sample.split("{")[0] == name and all(label in sample for label in wanted):
            return float(value)
    return 0.0
