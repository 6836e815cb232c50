"""A cluster whose daemons are given keys: what the metadata service says to them is added to."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Self

import grpc

from cosco import LocalCluster
from cosco.local.cluster import ServiceProcess
from cosco.protocol import wire
from cosco.protocol.capability import CapabilityKey, Checker
from cosco.protocol.wire import mpb

_BOUND_S = 30.0
_REGISTER, _HEARTBEAT = (f"/{wire.METADATA_SERVICE}/{m}" for m in ("RegisterDaemon", "Heartbeat"))


class KeyRelay(grpc.GenericRpcHandler):
    """Hands daemons' calls on to the metadata service, and has `keys` in the answers."""

    def __init__(self, metadata: str, *keys: CapabilityKey) -> None:
        #: From which those of daemons derive.
        self.keys: Sequence[CapabilityKey] = keys
        #: Called before a registration is answered, with how many there were.
        self.on_register: Callable[[int], object] = lambda _: None
        self._heard = threading.Condition()
        self._heartbeats = Counter[int]()  # by incarnation
        self._registrations = 0
        self._channel = grpc.insecure_channel(metadata)
        self._server = grpc.server(ThreadPoolExecutor(16), handlers=[self])
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def service(self, handler_call_details: Any) -> Any:
        """Of grpc.GenericRpcHandler."""
        return grpc.unary_unary_rpc_method_handler(partial(self._call, handler_call_details.method))

    def spread(self) -> None:
        """Return when all daemons that have registered have the keys that are set now."""
        with self._heard:
            before = self._heartbeats.copy()
            # The first one may have been answered with others, and who sends a third one has
            # heard the answer to the second.
            assert self._heard.wait_for(
                lambda: all(self._heartbeats[one] >= times + 3 for one, times in before.items()),
                _BOUND_S,
            )

    def close(self) -> None:
        self._server.stop(0).wait()
        self._channel.close()

    def _call(self, method: str, request: bytes, context: Any) -> bytes:
        stub: Any = self._channel.unary_unary(method)
        try:
            reply: bytes = stub(request, timeout=10)
        except grpc.RpcError as error:
            failed: Any = error
            context.set_trailing_metadata(failed.trailing_metadata())
            context.abort(failed.code(), failed.details())
        if method not in {_REGISTER, _HEARTBEAT}:
            return reply
        orders = mpb.DaemonOrdersReply.FromString(reply)
        for key in self.keys:
            derived = key.derived(Checker.DAEMON)
            orders.keys.add(id=derived.id, secret=derived.secret)
        if method == _REGISTER:
            incarnation = mpb.RegisterDaemonRequest.FromString(request).incarnation
            with self._heard:
                self._heartbeats.setdefault(incarnation, 0)
            self._registrations += 1
            self.on_register(self._registrations)
        else:
            with self._heard:
                self._heartbeats[mpb.HeartbeatRequest.FromString(request).incarnation] += 1
                self._heard.notify_all()
        return orders.SerializeToString()


class KeyedCluster(LocalCluster):
    """A cluster whose daemons have keys, and whose metadata service knows nothing of that."""

    relay: KeyRelay | None = None

    def __init__(self, daemons: int, *keys: CapabilityKey, **options: Any) -> None:
        self._keys = keys
        options["daemon_options"] = [*options.get("daemon_options", ()), "--heartbeat-s", "0.1"]
        super().__init__(daemons, memory="32MiB", **options)

    def _start_daemon(self, index: int, store: str, options: list[str]) -> ServiceProcess:
        if self.relay is None:
            self.relay = KeyRelay(self.metadata, *self._keys)
        return super()._start_daemon(index, store, [*options, "--metadata", self.relay.address])

    def set_keys(self, *keys: CapabilityKey) -> None:
        """Have all daemons go by these keys, and return when they do."""
        assert self.relay is not None
        self.relay.keys = keys
        self.relay.spread()

    def close(self) -> None:
        super().close()
        if self.relay is not None:
            self.relay.close()

    def __enter__(self) -> Self:
        return self
