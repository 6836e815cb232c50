"""As whom clients call: tokens in their calls, capabilities in handles, and never elsewhere."""

from __future__ import annotations

import logging
import pickle
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.children import fork, join, run_code
from support.exchanges import until
from support.metadata_proxy import MetadataProxy, metadata_proxy

import cosco
from cosco import (
    AccessDenied,
    Connection,
    CoscoApplication,
    CoscoExchange,
    CoscoExchangeGroup,
    CoscoReader,
    CoscoWriter,
    InvalidArgument,
)
from cosco.admin import list_exchanges
from cosco.client.access import credentials
from cosco.client.groups import following, mark_watch
from cosco.client.groups.commit_outbox import COMMIT_OUTBOXES
from cosco.client.read import fetch_call
from cosco.client.rpc import transport
from cosco.client.rpc.channel import Transport
from cosco.client.rpc.native_channel import NativeTransport
from cosco.client.rpc.transport import _Channels
from cosco.client.write import push_streams, pusher
from cosco.engine_exchanges import EngineExchanges
from cosco.mechanics import NATIVE
from cosco.observe import fetch_status
from cosco.process.tls.tls_files import CLIENT_VARIABLES
from cosco.protocol import wire

from cosco.client.rpc.grpc_channel import GrpcTransport  # isort: skip  (turns fork support on)

WAIT_S = 20.0
TOKEN = "cosco-token-of-a-test"
CAPABILITY = "cosco1.of-a-test"


@pytest.fixture(autouse=True)
def own_channels(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Channels and streams of the test's own."""
    made: Transport = GrpcTransport() if NATIVE is None else NativeTransport(NATIVE)
    channels = _Channels(made)
    monkeypatch.setattr(transport, "_channels", channels)
    streams = push_streams.Streams()
    monkeypatch.setattr(push_streams, "STREAMS", streams)
    monkeypatch.setattr(pusher, "STREAMS", streams)
    follows = following.Following()
    monkeypatch.setattr(mark_watch, "FOLLOWING", follows)
    yield
    streams.close()
    follows.close()
    while channels._idle:
        channels._idle.popitem()[1].channel.close()


@pytest.fixture
def proxy(metadata: str) -> Iterator[MetadataProxy]:
    with metadata_proxy(metadata, CAPABILITY) as started:
        yield started


@pytest.fixture
def said_to_daemons(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What this process has asked daemons, as it was sent."""
    said: list[Any] = []

    def note(module: Any, name: str, read: Callable[[bytes], Any]) -> None:
        encode = getattr(wire, name)

        def encoded(what: Any) -> bytes:
            message: bytes = encode(what)
            said.append(read(message))
            return message

        monkeypatch.setattr(module.wire, name, encoded)

    note(push_streams, "push_request_to_bytes", wire.push_request_from_bytes)
    note(fetch_call, "fetch_request_to_bytes", wire.fetch_request_from_bytes)
    note(following, "follows_to_bytes", wire.follows_from_bytes)
    return said


def capabilities(said: list[Any]) -> set[tuple[str, str]]:
    """What was shown to daemons, by the kind of message."""
    found: set[tuple[str, str]] = set()
    for one in said:
        for part in one if isinstance(one, list) else [getattr(one, "hello", one)]:
            if hasattr(part, "capability"):
                found.add((type(part).__name__, part.capability))
    return found


def test_a_token_is_shown_to_the_metadata_service_alone(
    proxy: MetadataProxy, name: str, said_to_daemons: list[Any]
) -> None:
    proxy.capability = ""
    connection = Connection(proxy.address, token=TOKEN)
    with CoscoExchange(name, 2, replicas=1, metadata=connection) as exchange:
        with CoscoWriter(name, 0, metadata=connection) as writer:
            writer.collect(1, b"a row")
        with CoscoReader(name, [0], [0, 1], metadata=connection) as reader:
            assert list(reader) == [b"a row"]
        with CoscoReader(name, [0], 1, metadata=connection) as reader:
            assert list(reader) == [b"a row"]
        assert exchange.handle().metadata == connection
    fetch_status(connection)
    list_exchanges(connection)
    assert proxy.all_shown() == {TOKEN}
    assert {"Status", "ListExchanges", "Commit", "PollDriver", "CloseExchange"} <= set(proxy.shown)
    assert capabilities(said_to_daemons) == {("Hello", ""), ("FetchRequest", "")}


def test_without_a_credential_no_call_has_one(proxy: MetadataProxy, name: str) -> None:
    proxy.capability = ""
    with CoscoExchange(name, 1, mappers=1, replicas=1, metadata=proxy.address) as exchange:
        handle = exchange.handle()
        assert handle.metadata == proxy.address
        with handle.writer(0) as writer:
            writer.collect(0, b"a row")
        with handle.reader(0) as reader:
            assert list(reader) == [b"a row"]
    fetch_status(proxy.address)
    assert proxy.all_shown() == {""}


def test_a_handle_lets_who_has_no_token_write_and_read(
    proxy: MetadataProxy, name: str, said_to_daemons: list[Any]
) -> None:
    connection = Connection(proxy.address, token=TOKEN)
    with CoscoExchange(name, 2, mappers=1, replicas=1, metadata=connection) as exchange:
        shipped = pickle.dumps(exchange.handle())
        assert TOKEN.encode() not in shipped
        handle = pickle.loads(shipped)
        assert handle == exchange.handle()
        assert CAPABILITY not in f"{handle!r} {handle.metadata!r} {handle.metadata}"
        proxy.shown.clear()
        with handle.writer(0) as writer:
            writer.collect(1, b"a row")
        with handle.reader([0, 1]) as reader:
            assert list(reader) == [b"a row"]
        with handle.reader(1) as reader:
            assert list(reader) == [b"a row"]
        for method in ("OpenAttempt", "Commit", "DescribeExchange"):
            assert set(proxy.shown[method]) == {CAPABILITY}, method
        assert set(proxy.shown.get("PollDriver", [TOKEN])) == {TOKEN}, "who owns it has the token"
    assert capabilities(said_to_daemons) == {("Hello", CAPABILITY), ("FetchRequest", CAPABILITY)}


def test_who_has_a_token_shows_daemons_what_the_first_answer_gave(
    proxy: MetadataProxy, name: str, said_to_daemons: list[Any]
) -> None:
    connection = Connection(proxy.address, token=TOKEN)
    with CoscoExchange(name, 1, replicas=1, metadata=connection):
        with CoscoWriter(name, 0, metadata=connection) as writer:
            writer.collect(0, b"a row")
        with CoscoReader(name, [0], 0, metadata=connection) as reader:
            assert list(reader) == [b"a row"]
    assert proxy.all_shown() == {TOKEN}
    assert capabilities(said_to_daemons) == {("Hello", CAPABILITY), ("FetchRequest", CAPABILITY)}


def test_handles_of_groups(proxy: MetadataProxy, name: str, said_to_daemons: list[Any]) -> None:
    connection = Connection(proxy.address, token=TOKEN)
    with CoscoExchangeGroup(name, 1, 2, 1, replicas=1, metadata=connection) as group:
        proxy.capability = other = CAPABILITY + "-of-the-second-part"
        group.extend(1)
        shipped = pickle.dumps(group.handle())
        assert TOKEN.encode() not in shipped
        handle = pickle.loads(shipped)
        assert CAPABILITY not in repr(handle)
        for i in range(3):
            with handle.writer(i, 0) as writer:
                writer.collect(0, b"%d" % i)
            with handle.reader(i, 0, timeout_s=WAIT_S) as reader:
                assert list(reader) == [b"%d" % i]
        handle.flush()
        assert set(proxy.shown["CommitBatch"]) == {CAPABILITY, other}
    assert {("Hello", CAPABILITY), ("Follow", CAPABILITY), ("Hello", other), ("Follow", other)} <= (
        capabilities(said_to_daemons)
    )


def test_a_commit_that_is_refused_for_good_holds_up_no_others(
    proxy: MetadataProxy, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    connection = Connection(proxy.address, token=TOKEN)
    with CoscoExchangeGroup(name, 1, 1, 1, replicas=1, metadata=connection) as group:
        proxy.capability = other = CAPABILITY + "-of-the-second-part"
        group.extend(1)
        handle = group.handle()
        proxy.refused.add(CAPABILITY)
        with caplog.at_level(logging.WARNING, "cosco"):
            for i in range(2):
                with handle.writer(i, 0) as writer:
                    writer.collect(0, b"x")
            handle.flush()
        assert set(proxy.shown["CommitBatch"]) == {CAPABILITY, other}
        assert "not committed" in caplog.text
        assert CAPABILITY not in caplog.text


def test_two_connections_of_a_process_do_not_mix(
    proxy: MetadataProxy, metadata: str, name: str, tmp_path: Path
) -> None:
    files = [tmp_path / "first", tmp_path / "second"]
    for number, file in enumerate(files):
        file.write_text(f"token-{number}\n")
    proxy.capability = ""
    with metadata_proxy(metadata) as second:
        places = [
            Connection(proxy.address, token_file=files[0]),
            Connection(proxy.address, token_file=files[1]),
            Connection(second.address, token="another"),
        ]
        exchanges = EngineExchanges(lambda: "x")
        made = [exchanges.make(place, 1, replicas=1) for place in places * 2]
        made += [exchanges.make(Connection(second.address, token="a-third"), 1, replicas=1)]
        applications = {one._application.application_id for one in made}
        assert len(applications) == 4
        exchanges.end_all()
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda i: fetch_status(places[i % 3]), range(30)))
    assert proxy.all_shown() == {"token-0", "token-1"}
    assert second.all_shown() == {"another", "a-third"}


def test_streams_to_a_daemon_are_shared_by_who_names_the_same_files(
    metadata: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in CLIENT_VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    plain = Connection(metadata, ca="", cert="", key="")  # as the environment has it, but said
    assert plain != Connection(metadata)
    with CoscoExchangeGroup(name, 1, 1, 4, replicas=1, metadata=metadata) as group:
        handle = group.handle()
        other = replace(handle, metadata=plain)
        for mapper, one in enumerate((handle, other, handle, other)):
            with one.writer(0, mapper) as writer:
                writer.collect(0, b"x")
        assert len(push_streams.STREAMS._idle) == 2
        for one in (handle, other, other, handle):
            with one.reader(0, 0, timeout_s=WAIT_S) as reader:
                assert list(reader) == [b"x"] * 4
        assert len(mark_watch.FOLLOWING._streams) == 2
        assert COMMIT_OUTBOXES.of(plain, 1.0) is not COMMIT_OUTBOXES.of(metadata, 1.0)
        handle.flush()
        other.flush()


def test_a_token_file_is_read_again_when_it_changes(
    proxy: MetadataProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(credentials, "LOOK_S", 0.0)
    file = tmp_path / "token"
    file.write_text(" first\n")
    monkeypatch.setenv("COSCO_TOKEN_FILE", str(file))
    with CoscoApplication(name, metadata=proxy.address):
        file.with_suffix(".new").write_text("second\n")
        file.with_suffix(".new").replace(file)
        until(lambda: "second" in proxy.all_shown(), WAIT_S, "the new token")
        file.unlink()
        fetch_status(proxy.address)
        assert proxy.shown["Status"] == ["second"]
    assert proxy.all_shown() == {"first", "second"}
    with pytest.raises(InvalidArgument, match="cannot be read"):
        CoscoApplication(name, metadata=Connection(proxy.address, token_file=tmp_path / "none"))


def test_who_is_refused_is_told_at_once(proxy: MetadataProxy, name: str) -> None:
    proxy.refused = {TOKEN}
    for use in (
        lambda place: CoscoExchange(name, 1, metadata=place),
        lambda place: CoscoWriter(name, 0, metadata=place),
        lambda place: CoscoReader(name, [0], 0, metadata=place),
        lambda place: CoscoExchangeGroup(name, 1, 1, 1, metadata=place),
        fetch_status,
    ):
        proxy.shown.clear()
        with pytest.raises(AccessDenied, match="may do nothing") as caught:
            use(Connection(proxy.address, token=TOKEN))
        assert sum(map(len, proxy.shown.values())) == 1, "nothing is tried again"
        assert TOKEN not in repr(caught.value)


def test_a_token_that_is_called_for_and_fails(proxy: MetadataProxy, name: str) -> None:
    callers: list[threading.Thread] = []

    def token() -> str:
        callers.append(threading.current_thread())
        raise OSError(f"no {TOKEN}")

    with pytest.raises(AccessDenied, match="token") as caught:
        CoscoExchange(name, 1, metadata=Connection(proxy.address, token=token))
    assert callers == [threading.current_thread()]
    assert isinstance(caught.value.__cause__, OSError)
    assert TOKEN not in str(caught.value)
    assert not proxy.shown


def test_a_lease_is_kept_over_a_refusal_that_passes(
    proxy: MetadataProxy, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    with CoscoExchange(
        name, 1, replicas=1, lease_s=30.0, metadata=Connection(proxy.address, token=TOKEN)
    ) as exchange:
        until(lambda: "PollDriver" in proxy.shown, WAIT_S, "the first poll")
        with caplog.at_level(logging.WARNING, "cosco"):
            proxy.refused = {TOKEN}
            until(lambda: "not renewed" in caplog.text, WAIT_S, "a poll that is refused")
            said = len(proxy.shown["PollDriver"])
            until(lambda: len(proxy.shown["PollDriver"]) > said + 1, WAIT_S, "two more")
            assert caplog.text.count("not renewed") == 1
        proxy.refused = set()
        polls = len(proxy.shown["PollDriver"])
        until(lambda: len(proxy.shown["PollDriver"]) > polls, WAIT_S, "another poll")
        exchange.progress()


def test_another_process_calls_as_its_own_environment_says(
    proxy: MetadataProxy, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy.capability = ""
    files = [tmp_path / "parent", tmp_path / "child"]
    for file in files:
        file.write_text(file.name)
    monkeypatch.setenv("COSCO_TOKEN_FILE", str(files[0]))
    with CoscoExchange(name, 1, mappers=2, replicas=1, metadata=proxy.address) as exchange:
        handle = exchange.handle()
        shipped = pickle.dumps(handle)
        monkeypatch.setenv("COSCO_TOKEN_FILE", str(files[1]))
        run_code(
            f"""
            import pickle
            with pickle.loads({shipped!r}).writer(0) as writer:
                writer.collect(0, b"x")
            """
        )
    assert set(proxy.shown["OpenAttempt"]) == {"child"}
    assert set(proxy.shown["CreateExchange"]) == {"parent"}


def test_a_fork_keeps_the_token(proxy: MetadataProxy) -> None:
    connection = Connection(proxy.address, token=lambda: TOKEN)
    fetch_status(connection)
    join(fork(lambda: CoscoApplication("x", metadata=connection).close()))
    assert proxy.all_shown() == {TOKEN}
    assert {"CreateApplication", "CloseApplication"} <= set(proxy.shown)


def test_it_is_public() -> None:
    assert cosco.Connection is Connection
    assert "Connection" in dir(cosco)
