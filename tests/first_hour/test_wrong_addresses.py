"""Something else than the address of the metadata service is given, to clients and to commands."""

from __future__ import annotations

import http.server
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent import futures
from typing import Any

import pytest
from support.commands import command, environment

from cosco import (
    CoscoExchange,
    CoscoExchangeGroup,
    CoscoReader,
    CoscoWriter,
    InvalidArgument,
    LocalCluster,
    SchemaMismatch,
    ServiceUnavailable,
)
from cosco.client.rpc import metadata_client
from cosco.observe import fetch_status

import grpc  # isort: skip
import pyarrow as pa  # isort: skip

HOST = "127.0.0.1"
#: What is given → what is said to be wrong with it.
NO_ADDRESSES = {
    "http://127.0.0.1:7070": "URL",
    "https://cosco.example/": "URL",
    "grpc://127.0.0.1:7070": "URL",
    "dns:///cosco:7070": "URL",
    "127.0.0.1:7070/": "path",
    "cosco:7070/metadata": "path",
    "a:7070,b:7070": "list",
    "a:7070, b:7070": "list",
    " 127.0.0.1:7070": "white space",
    "127.0.0.1:7070\n": "white space",  # as it is read from a file
    "my host:7070": "white space",
    "::1:7070": "brackets",
    "fe80::1": "brackets",
    "[::1]": "port is missing",
    "127.0.0.1": "port is missing",
    "localhost": "port is missing",
    "7070": "port is missing",
    "cosco:": "port is missing",
    ":7070": "host is missing",
    "cosco:port": "its port is no number",
    "cosco:70700": "its port is no number",
    "cosco:-1": "its port is no number",
    "cosco:７０７０": "its port is no number",
    "me@cosco:7070": "user's name",
    " ": "empty",
    "127.0.0.1:0": "port 0",
}


@pytest.fixture(autouse=True)
def quick_first_contact(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata_client, "FIRST_CONTACT_S", 0.0)


@pytest.mark.parametrize("given", NO_ADDRESSES)
def test_what_is_no_address(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    why = NO_ADDRESSES[given]
    makers = (
        lambda metadata: CoscoExchange("orders", 1, metadata=metadata),
        lambda metadata: CoscoExchange.attach("orders", metadata=metadata),
        lambda metadata: CoscoExchangeGroup("batches", 1, 1, 1, metadata=metadata),
        lambda metadata: CoscoWriter("orders", 0, metadata=metadata),
        lambda metadata: CoscoReader("orders", [0], 0, metadata=metadata),
    )
    for make in makers:
        with pytest.raises(InvalidArgument, match=why) as caught:
            make(given)
        assert repr(given) in str(caught.value)
        assert str(caught.value).startswith("metadata=: ")
    with pytest.raises(InvalidArgument, match=why):
        fetch_status(given)
    monkeypatch.setenv("COSCO_METADATA", given)
    with pytest.raises(InvalidArgument, match=f"^the environment variable COSCO_METADATA: .*{why}"):
        CoscoWriter("orders", 0)


@pytest.mark.parametrize("given", ["[::1]:7070", "127.0.0.1:7070", "cosco_1.example:7070"])
def test_an_address_of_every_kind_is_taken(given: str) -> None:
    with pytest.raises(ServiceUnavailable):
        CoscoWriter("orders", 0, metadata=given.replace("7070", "1"), service_timeout_s=0.0)


@pytest.mark.parametrize(
    "arguments",
    [
        ("main", "status", "--metadata"),
        ("main", "drain", "127.0.0.1:1", "--metadata"),
        ("shuffled", "--listen", "127.0.0.1:0", "--metadata"),
    ],
)
def test_a_command_is_given_a_url(arguments: tuple[str, ...]) -> None:
    said = run(*arguments, "http://127.0.0.1:7070")
    assert "'http://127.0.0.1:7070' is no address: it is a URL" in said


def run(name: str, *arguments: str) -> str:
    """Run a command that must end with code 2, and return the one line that it says."""
    ended = subprocess.run(
        command(name, *arguments),
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 2, ended
    assert not ended.stdout
    [line] = ended.stderr.splitlines()
    return line


# --- the address of something else ----------------------------------------------------------------


class Quiet(http.server.BaseHTTPRequestHandler):
    """A web server without pages."""

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def web() -> Iterator[str]:
    with http.server.ThreadingHTTPServer((HOST, 0), Quiet) as server:
        threading.Thread(target=server.serve_forever).start()
        yield f"{HOST}:{server.server_port}"
        server.shutdown()


@pytest.fixture
def mute() -> Iterator[str]:
    """Connections are taken, and nothing is ever said."""
    with socket.create_server((HOST, 0)) as listening:
        yield f"{HOST}:{listening.getsockname()[1]}"


@pytest.fixture
def other_grpc() -> Iterator[str]:
    server = grpc.server(futures.ThreadPoolExecutor(1))
    port = server.add_insecure_port(f"{HOST}:0")
    server.start()
    yield f"{HOST}:{port}"
    server.stop(0).wait()


@pytest.fixture
def nobody() -> Iterator[str]:
    with socket.socket() as reserved:
        reserved.bind((HOST, 0))
        yield f"{HOST}:{reserved.getsockname()[1]}"


@pytest.mark.parametrize(
    ("where", "what"),
    [
        ("web", "no gRPC server"),
        ("mute", "says nothing"),
        ("other_grpc", "a gRPC server of something else"),
        ("nobody", "nothing listens there"),
    ],
)
def test_a_program_that_is_not_coscos(
    where: str, what: str, request: pytest.FixtureRequest
) -> None:
    address: str = request.getfixturevalue(where)
    began = time.monotonic()
    with pytest.raises(ServiceUnavailable, match=what) as caught:
        CoscoWriter("orders", 0, metadata=address)
    assert address in str(caught.value)
    assert time.monotonic() - began < 20
    if where == "mute":
        return  # it takes its time
    with pytest.raises(ServiceUnavailable, match=what) as caught:
        fetch_status(address)
    assert address in str(caught.value)


def test_a_host_that_nobody_knows() -> None:
    with pytest.raises(ServiceUnavailable, match="knows no host of that name"):
        CoscoWriter("orders", 0, metadata="no.such.host.invalid:7070")


def test_a_daemon_in_place_of_the_metadata_service(cluster: LocalCluster) -> None:
    daemon = cluster.daemons[0].address
    for use in (lambda: CoscoWriter("orders", 0, metadata=daemon), lambda: fetch_status(daemon)):
        with pytest.raises(InvalidArgument, match="the address of a shuffle daemon"):
            use()


def test_a_daemon_is_given_a_daemon(cluster: LocalCluster) -> None:
    said = run("shuffled", "--listen", f"{HOST}:0", "--metadata", cluster.daemons[0].address)
    assert "this is the address of a shuffle daemon" in said


def test_the_metadata_service_in_place_of_a_daemon(metadata: str) -> None:
    with grpc.insecure_channel(metadata) as channel:
        call = channel.stream_stream("/cosco.v1.Shuffle/Push")
        with pytest.raises(grpc.RpcError) as caught:
            list(call(iter([])))
    assert "this is the address of the metadata service" in str(caught.value)


# --- rows for a group -----------------------------------------------------------------------------


def test_batches_for_a_group_without_a_schema(name: str, metadata: str) -> None:
    batch = pa.record_batch({"key": [1]})
    with CoscoExchangeGroup(name, 1, 1, 1, metadata=metadata) as group:
        with group.handle().writer(0, 0) as writer:
            with pytest.raises(SchemaMismatch, match="made without schema=") as caught:
                writer.collect_batch([0], batch)
            assert f"{name}/0" in str(caught.value)
            writer.collect(0, b"row")
        with group.handle().reader(0, 0) as reader:
            assert list(reader) == [b"row"]


def test_bytes_for_a_group_with_a_schema(name: str, metadata: str) -> None:
    schema = pa.schema([("key", pa.int64())])
    with CoscoExchangeGroup(name, 1, 1, 1, schema=schema, metadata=metadata) as group:
        with group.handle().writer(0, 0) as writer:
            with pytest.raises(SchemaMismatch, match="a RecordBatch"):
                writer.collect(0, b"row")
