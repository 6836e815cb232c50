"""Calls of the client, by gRPC and natively: forks amid calls, errors, channels that are shared."""

from __future__ import annotations

import gc
import os
import pickle
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from support.certificates import Authority
from support.children import run_code
from support.exchanges import until

from cosco.client.rpc import grpc_channel, transport
from cosco.client.rpc.channel import Manner, TimedCall
from cosco.client.rpc.grpc_channel import GrpcTransport
from cosco.client.rpc.native_channel import NativeTransport
from cosco.client.rpc.scope import Scope, Unreachable
from cosco.client.rpc.transport import Endpoint, _Channels, _Place
from cosco.errors import (
    ClientClosed,
    DataLost,
    InvalidArgument,
    NotPicklable,
    ServiceUnavailable,
)
from cosco.mechanics import NATIVE
from cosco.protocol.api_limits import MAX_MAPPER
from cosco.protocol.wire import ERROR_KEY, MAX_ERROR_MAPPERS, error_to_bytes

import grpc  # isort: skip  (after cosco, which turns its fork support on)

WAIT_S = 10.0
#: As many as a service tells, of the ids that take most bytes.
IMPLEMENTATIONS = ["grpc"] if NATIVE is None else ["grpc", "native", "native with TLS"]
MANNER: Manner[bytes] = Manner(b"".join, batch=1, idle_s=0.1, is_over=lambda: False)
MANY_MAPPERS = range(MAX_MAPPER + 1 - MAX_ERROR_MAPPERS, MAX_MAPPER + 1)


@pytest.fixture(scope="module")
def ca() -> Authority:
    return Authority()


@pytest.fixture(scope="module")
def addresses(ca: Authority) -> Iterator[tuple[str, str]]:
    """A server of bytes: Echo, Wait, Fail (as the request says), Stream; without and with TLS."""

    def fail(request: bytes, context: grpc.ServicerContext) -> bytes:
        if request == b"named":
            error = DataLost("gone", shuffle_id="x", mappers=(1, 2), partition=3)
            trailers = ((ERROR_KEY, error_to_bytes(error)),)
            context.set_trailing_metadata(trailers)
        elif request == b"many":
            error = DataLost("gone", mappers=MANY_MAPPERS)
            context.set_trailing_metadata(((ERROR_KEY, error_to_bytes(error)),))
        elif request == b"later":
            context.set_trailing_metadata(((ERROR_KEY, error_to_bytes(ServiceUnavailable("s"))),))
        elif request == b"garbled":
            context.set_trailing_metadata(((ERROR_KEY, b"\xff\xff"),))
        code = grpc.StatusCode.UNAVAILABLE if request == b"away" else grpc.StatusCode.INTERNAL
        context.abort(code, "two\nlines")
        raise AssertionError

    stopping = threading.Event()

    def wait(request: bytes, context: grpc.ServicerContext) -> bytes:
        gone = threading.Event()
        context.add_callback(gone.set)
        while not gone.wait(0.05) and not stopping.is_set():
            pass
        return b""

    handlers: dict[str, Any] = {
        "Echo": grpc.unary_unary_rpc_method_handler(lambda request, _: request),
        "Wait": grpc.unary_unary_rpc_method_handler(wait),
        "Fail": grpc.unary_unary_rpc_method_handler(fail),
        "Count": grpc.unary_stream_rpc_method_handler(lambda request, _: iter([b"1", b"2"])),
        "Stream": grpc.stream_stream_rpc_method_handler(lambda requests, _: requests),
    }
    server = grpc.server(ThreadPoolExecutor(8))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("t", handlers),))
    host = ca.issue("127.0.0.1")
    credentials = grpc.ssl_server_credentials(((host.key, host.cert),), ca.pem, True)
    ports = (
        server.add_insecure_port("127.0.0.1:0"),
        server.add_secure_port("127.0.0.1:0", credentials),
    )
    server.start()
    yield f"127.0.0.1:{ports[0]}", f"127.0.0.1:{ports[1]}"
    stopping.set()
    server.stop(0).wait()


@pytest.fixture(scope="module", params=IMPLEMENTATIONS)
def implementation(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def address(implementation: str, addresses: tuple[str, str]) -> str:
    return addresses[implementation.endswith("TLS")]


@pytest.fixture(scope="module")
def made(implementation: str, ca: Authority) -> _Channels:
    if implementation == "grpc":
        return _Channels(GrpcTransport())
    assert NATIVE is not None
    if implementation == "native":
        return _Channels(NativeTransport(NATIVE))
    own = ca.issue("a.client")
    tls = NATIVE.TlsClient(ca.pem, own.cert, own.key)
    return _Channels(NativeTransport(NATIVE, lambda: tls))


@pytest.fixture
def channels(made: _Channels, monkeypatch: pytest.MonkeyPatch) -> _Channels:
    """The channels that endpoints of a test use."""
    monkeypatch.setattr(transport, "_channels", made)
    return made


@pytest.fixture
def environment(implementation: str) -> dict[str, str]:
    """What a process is started with that is to do as this one."""
    return os.environ | ({"COSCO_NATIVE": "off"} if implementation == "grpc" else {})


@pytest.fixture
def scope() -> Scope:
    return Scope("a test", "x")


@pytest.fixture
def endpoint(address: str, channels: _Channels) -> Iterator[Endpoint]:
    with Endpoint(address) as endpoint:
        yield endpoint


def test_a_process_may_fork_in_the_middle_of_calls(environment: dict[str, str]) -> None:
    script = Path(__file__).with_name("forking.py")
    command = [sys.executable, script, "30"]
    ended = subprocess.run(
        command, capture_output=True, text=True, timeout=90, check=False, env=environment
    )
    assert ended.stdout.startswith("ok"), ended.stdout + ended.stderr


def test_calls_of_all_shapes(endpoint: Endpoint, scope: Scope) -> None:
    assert endpoint.unary("/t/Echo", b"x", WAIT_S, scope) == b"x"
    assert list(endpoint.fetch_stream("/t/Count", b"", scope)) == [b"1", b"2"]
    call = endpoint.conversation("/t/Stream", MANNER, scope)
    call.say(b"a")
    call.say(b"b")
    call.end()
    assert list(call) == [b"a", b"b"]


def test_what_was_sent_is_let_go(endpoint: Endpoint, scope: Scope) -> None:
    """Threads of the transport do so, and have no right to touch objects of Python."""
    messages = [b"%d" % number * 100 for number in range(50)]
    before = list(map(sys.getrefcount, messages))
    for message in messages[:25]:
        assert endpoint.unary("/t/Echo", message, WAIT_S, scope) == message
    call = endpoint.conversation("/t/Stream", MANNER, scope)
    for message in messages[25:]:
        call.say(message)
    call.end()
    assert len(list(call)) == 25
    del message, call

    def are_let_go() -> bool:
        endpoint.unary("/t/Echo", b"x", WAIT_S, scope)
        return list(map(sys.getrefcount, messages)) == before

    until(are_let_go, WAIT_S, "letting go of messages")


def test_the_error_a_service_meant_is_raised(endpoint: Endpoint, scope: Scope) -> None:
    with pytest.raises(DataLost, match=r"^gone$") as caught:
        endpoint.unary("/t/Fail", b"named", WAIT_S, scope)
    assert (caught.value.shuffle_id, caught.value.mappers) == ("x", (1, 2))
    assert caught.value.partition == 3
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None  # gRPC's own error cannot be pickled
    assert str(pickle.loads(pickle.dumps(caught.value))) == "gone"


def test_an_error_may_name_a_hundred_thousand_mappers(endpoint: Endpoint, scope: Scope) -> None:
    with pytest.raises(DataLost) as caught:
        endpoint.unary("/t/Fail", b"many", WAIT_S, scope)
    assert len(MANY_MAPPERS) == 100_000
    assert caught.value.mappers == tuple(MANY_MAPPERS)


def test_what_passes_is_unreachable_and_what_stays_is_not(endpoint: Endpoint, scope: Scope) -> None:
    for request in (b"away", b"later"):
        with pytest.raises(Unreachable):
            endpoint.unary("/t/Fail", request, WAIT_S, scope)
    with pytest.raises(Unreachable, match="DEADLINE_EXCEEDED"):
        endpoint.unary("/t/Wait", b"", 0.05, scope)
    for request in (b"other", b"garbled"):
        with pytest.raises(ServiceUnavailable, match=r"Fail at 127.0.0.1") as caught:
            endpoint.unary("/t/Fail", request, WAIT_S, scope)
        assert "\n" not in str(caught.value)
        assert not caught.value.retriable
    with pytest.raises(ServiceUnavailable, match="UNIMPLEMENTED"):
        endpoint.unary("/t/None", b"", WAIT_S, scope)


def test_closing_the_scope_wakes_calls(endpoint: Endpoint, scope: Scope) -> None:
    results: list[BaseException] = []

    def call() -> None:
        try:
            endpoint.unary("/t/Wait", b"", WAIT_S, scope)
        except BaseException as error:  # noqa: BLE001  looked at below
            results.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    while not scope._calls:
        thread.join(0.005)
    scope.close()
    thread.join(WAIT_S)
    assert [type(error) for error in results] == [ClientClosed]
    with pytest.raises(ClientClosed):
        endpoint.unary("/t/Echo", b"", WAIT_S, scope)


def test_much_is_said_without_waiting(endpoint: Endpoint, scope: Scope) -> None:
    """More than a connection takes at a time, before anything is read."""
    said = [b"%d " % i * 200_000 for i in range(100)]
    call = endpoint.conversation("/t/Stream", MANNER, scope)
    for saying in said:
        call.say(saying)
    call.end()
    assert list(call) == said


def test_what_gathers_goes_out_as_one(endpoint: Endpoint, scope: Scope) -> None:
    said = [b"%d " % i for i in range(1000)]
    manner: Manner[bytes] = Manner(b"".join, batch=8, idle_s=0.1, is_over=lambda: False)
    call = endpoint.conversation("/t/Stream", manner, scope)
    for saying in said:
        call.say(saying)
    call.end()
    heard = list(call)
    assert b"".join(heard) == b"".join(said)
    assert max(len(message) for message in heard) <= 8 * len(said[-1])


def test_a_conversation_ends_once_nothing_is_said(endpoint: Endpoint, scope: Scope) -> None:
    asked = []

    def is_over() -> bool:
        asked.append(True)
        return len(asked) > 1

    manner: Manner[bytes] = Manner(b"".join, batch=1, idle_s=0.05, is_over=is_over)
    call = endpoint.conversation("/t/Stream", manner, scope)
    call.say(b"a")
    assert list(call) == [b"a"]
    assert len(asked) == 2


def test_cancelling_a_conversation_wakes_its_reader(endpoint: Endpoint, scope: Scope) -> None:
    call = endpoint.conversation("/t/Stream", MANNER, scope)
    call.say(b"a")
    replies = iter(call)
    assert next(replies) == b"a"
    canceller = threading.Timer(0.05, call.cancel)
    canceller.start()
    with pytest.raises(Unreachable, match="CANCELLED"):
        next(replies)
    canceller.join()
    call.say(b"b")  # to nobody


def test_a_call_may_be_waited_for_for_a_while(endpoint: Endpoint, scope: Scope) -> None:
    call = endpoint.fetch_stream("/t/Count", b"", scope)
    if not isinstance(call, TimedCall):
        assert list(call) == [b"1", b"2"]
        return
    assert [call.within(WAIT_S), call.within(WAIT_S)] == [b"1", b"2"]
    with pytest.raises(StopIteration):
        call.within(WAIT_S)
    call = endpoint.fetch_stream("/t/Wait", b"", scope)
    assert call.within(0.05) is None
    call.cancel()


def test_channels_are_shared_and_closed_with_their_last_user(
    address: str, channels: _Channels, scope: Scope
) -> None:
    first, second, idle = Endpoint(address), Endpoint(address), Endpoint(address)
    place = _Place(address, None)
    assert place not in channels._table  # before the first call
    for one in (first, second, first):
        assert one.unary("/t/Echo", b"x", WAIT_S, scope) == b"x"
    assert channels._table[place].users == 2
    idle.close()
    first.close()
    first.close()
    assert channels._table[place].users == 1
    second.close()
    assert place not in channels._table


def test_a_forgotten_endpoint_is_closed_by_the_next_one(
    address: str, channels: _Channels, scope: Scope
) -> None:
    with suppress(Unreachable):
        Endpoint("127.0.0.1:1").unary("/t/Echo", b"", WAIT_S, scope)
    assert _Place("127.0.0.1:1", None) in channels._table
    gc.collect()  # an error of gRPC's holds its traceback, which holds the endpoint
    with Endpoint(address) as endpoint:
        assert endpoint.unary("/t/Echo", b"x", WAIT_S, scope) == b"x"
        assert _Place("127.0.0.1:1", None) not in channels._table


@pytest.mark.parametrize("bad", ["", "nowhere", "host:", "host:99999", ":1"])
def test_bad_addresses_are_named(bad: str) -> None:
    with pytest.raises(InvalidArgument, match="host:port"):
        Endpoint(bad)


def test_not_picklable_is_what_pickle_expects() -> None:
    assert issubclass(NotPicklable, TypeError)
    assert issubclass(NotPicklable, ValueError)


def test_grpc_can_start_no_thread_for_a_call() -> None:
    """As there are too many, or as the process ends, from Python 3.12 on.

    In a process of its own: gRPC waits for the threads at every later fork, and its children hang.
    """
    told = run_code(
        """
        import os, threading
        os.environ["COSCO_NATIVE"] = "off"
        from cosco import ServiceUnavailable
        from cosco.client.rpc.channel import Manner
        from cosco.client.rpc.scope import Scope
        from cosco.client.rpc.transport import _Place, Endpoint

        def check(said, work):
            try:
                work()
            except ServiceUnavailable as error:
                assert said in str(error) and not error.retriable, error
            else:
                raise AssertionError("it worked")

        def refuse(thread):
            raise RuntimeError("can't create new thread at interpreter shutdown")

        start, threading.Thread.start = threading.Thread.start, refuse
        scope = Scope("a test", "x")
        one, two, three = [Endpoint(f"127.0.0.1:{port}") for port in (1, 2, 3)]
        refused = "cannot be called: can't create"
        check(refused, lambda: one.unary("/t/Echo", b"", 10.0, scope))
        check(refused, lambda: two.fetch_stream("/t/Count", b"", scope))
        manner = Manner(b"".join, batch=1, idle_s=1.0, is_over=lambda: True)
        check(refused, lambda: three.conversation("/t/Stream", manner, scope))
        threading.Thread.start = start

        parent, pid = os.getpid(), os.fork()
        if not pid:
            try:
                said = f"gRPC was refused a thread in process {parent}: raise its limit"
                again = Scope("a test", "x")
                check(said, lambda: Endpoint("127.0.0.1:1").unary("/t/Echo", b"", 10.0, again))
                os._exit(0)
            finally:
                os._exit(1)
        assert os.waitpid(pid, 0)[1] == 0
        os._exit(0)  # gRPC waits for the threads at its end, too
        """
    )
    warned = [line for line in told.splitlines() if line.startswith("a child that is forked now")]
    assert len(warned) == 1, told


def test_an_address_that_failed_is_not_knocked_on_for_ever(
    scope: Scope, monkeypatch: pytest.MonkeyPatch, channels: _Channels
) -> None:
    """What listens there may be another program, which would log each connection."""
    idle = "grpc.client_idle_timeout_ms"
    options = [(name, 1000 if name == idle else value) for name, value in grpc_channel._OPTIONS]
    monkeypatch.setattr(grpc_channel, "_OPTIONS", options)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        listener.settimeout(2.5)  # it is connected to about every second
        answering = threading.Thread(target=_hang_up, args=(listener,), daemon=True)
        answering.start()
        with Endpoint(address) as endpoint, pytest.raises(Unreachable):
            endpoint.unary("/t/Echo", b"", WAIT_S, scope)
        answering.join(WAIT_S)
        assert not answering.is_alive()
    channels._idle.pop(_Place(address, None)).channel.close()


def _hang_up(listener: socket.socket) -> None:
    """Close every connection, until none comes any more."""
    while True:
        try:
            listener.accept()[0].close()
        except TimeoutError:
            return
