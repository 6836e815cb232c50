"""The metadata service is away for a while, in a process that has used it before or has not."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
from support.exchanges import until

from cosco import (
    CoscoExchange,
    CoscoExchangeGroup,
    CoscoReader,
    CoscoWriter,
    LocalCluster,
    ServiceUnavailable,
)
from cosco.client.rpc import metadata_client
from cosco.client.rpc.transport import Endpoint

WAIT_S = 30.0
#: No try of a call takes longer in these tests.
TRY_S = 0.5


@pytest.fixture
def pool() -> Iterator[Executor]:
    with ThreadPoolExecutor() as pool:
        yield pool


@pytest.fixture(autouse=True)
def tries(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was called, once for each try. A first contact is given up when it has failed once."""
    monkeypatch.setattr(metadata_client, "FIRST_CONTACT_S", 0.0)
    found: list[str] = []
    call = Endpoint.unary

    def unary(self: Endpoint, method: str, request: bytes, timeout_s: float, *others: Any) -> bytes:
        found.append(method.rpartition("/")[2])
        return call(self, method, request, min(timeout_s, TRY_S), *others)

    monkeypatch.setattr(Endpoint, "unary", unary)
    return found


@contextmanager
def away(cluster: LocalCluster, how: str) -> Iterator[None]:
    """The service is away within, and serves again after that."""
    service = cluster.metadata_service
    match how:
        case "stopped":
            service.stop()
        case "killed":
            service.kill()
        case _:
            os.kill(service.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        if how == "paused":
            os.kill(service.pid, signal.SIGCONT)
        else:
            service.restart()


def make(what: str, name: str, metadata: str) -> None:
    """Make one of the public objects, and end it."""
    match what:
        case "OpenAttempt":
            CoscoWriter(name, 0, metadata=metadata).abort()
        case "DescribeExchange":
            CoscoReader(name, [], 0, metadata=metadata).close()
        case "CreateExchange":
            CoscoExchange(f"{name}-other", 1, metadata=metadata).close()
        case "CreateGroup":
            CoscoExchangeGroup(f"{name}-group", 1, 1, 1, metadata=metadata).close()


def check_waited(
    what: str, how: str, name: str, cluster: LocalCluster, tries: list[str], pool: Executor
) -> None:
    with CoscoExchange(name, 1, metadata=cluster.metadata):
        with away(cluster, how):
            tries.clear()
            making = pool.submit(make, what, name, cluster.metadata)
            until(lambda: making.done() or tries.count(what) > 1, WAIT_S)
            assert not making.done(), making.exception()
        making.result(WAIT_S)


@pytest.mark.parametrize(
    "what", ["OpenAttempt", "DescribeExchange", "CreateExchange", "CreateGroup"]
)
def test_made_while_the_service_was_killed(
    what: str, name: str, cluster: LocalCluster, tries: list[str], pool: Executor
) -> None:
    check_waited(what, "killed", name, cluster, tries, pool)


@pytest.mark.parametrize("how", ["stopped", "paused"])
def test_a_writer_made_while_the_service_was(
    how: str, name: str, cluster: LocalCluster, tries: list[str], pool: Executor
) -> None:
    check_waited("OpenAttempt", how, name, cluster, tries, pool)


def test_attached_while_the_service_was_killed(
    name: str, cluster: LocalCluster, tries: list[str], pool: Executor
) -> None:
    with CoscoExchange(name, 1, metadata=cluster.metadata):
        with away(cluster, "killed"):
            tries.clear()
            attaching = pool.submit(CoscoExchange.attach, name, metadata=cluster.metadata)
            until(lambda: attaching.done() or tries.count("DescribeExchange") > 1, WAIT_S)
        assert attaching.result(WAIT_S).shuffle_id == name


def test_a_writer_waits_no_longer_than_it_was_told(name: str, cluster: LocalCluster) -> None:
    with CoscoExchange(name, 1, metadata=cluster.metadata):
        with away(cluster, "killed"):
            began = time.monotonic()
            with pytest.raises(ServiceUnavailable, match="it stopped answering") as caught:
                CoscoWriter(name, 0, service_timeout_s=0.2, metadata=cluster.metadata)
            assert 0.2 <= time.monotonic() - began < WAIT_S
            assert caught.value.retriable


#: A process of its own, since forking is about all that a process has, other tests' calls as well.
FORKING = """
    import sys
    from concurrent.futures import ThreadPoolExecutor
    from cosco import CoscoExchange, CoscoWriter
    from cosco.client.rpc import metadata_client
    from cosco.client.rpc.transport import Endpoint
    from support.children import fork, join
    from support.exchanges import until

    name, metadata, wait_s = sys.argv[1], sys.argv[2], float(sys.argv[3])
    metadata_client.FIRST_CONTACT_S = 0.0  # a first contact is given up when it has failed once
    tries, call = [], Endpoint.unary

    def unary(self, method, request, timeout_s, *others):
        tries.append(method.rpartition("/")[2])
        return call(self, method, request, min(timeout_s, 0.5), *others)

    def write():
        with ThreadPoolExecutor() as pool:
            making = pool.submit(CoscoWriter, name, 0, metadata=metadata)
            until(lambda: making.done() or tries.count("OpenAttempt") > 1, wait_s)
            assert not making.done(), making.exception()
            print("waits", flush=True)
            making.result(wait_s).abort()

    with CoscoExchange(name, 1, metadata=metadata):
        Endpoint.unary = unary
        print("met", flush=True)
        sys.stdin.readline()
        join(fork(write))
    print("done", flush=True)
"""


def test_a_forked_child_of_a_process_that_had_met_it(name: str, cluster: LocalCluster) -> None:
    arguments = [name, cluster.metadata, str(WAIT_S)]
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(FORKING), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "met\n"
        with away(cluster, "killed"):
            process.stdin.write("\n")
            process.stdin.flush()
            assert process.stdout.readline() == "waits\n"
        assert process.stdout.readline() == "done\n"
        assert process.wait(WAIT_S) == 0


def test_a_process_that_never_met_it_is_told_in_seconds(name: str, cluster: LocalCluster) -> None:
    code = f"""
        import cosco
        try:
            cosco.CoscoWriter({name!r}, 0, metadata={cluster.metadata!r})
        except cosco.ServiceUnavailable as error:
            assert "is cosco-metadata running there?" in str(error), error
    """
    with away(cluster, "killed"):
        command = [sys.executable, "-c", textwrap.dedent(code)]
        began = time.monotonic()
        subprocess.run(command, check=True, timeout=60)
        assert time.monotonic() - began < 20


def test_an_address_where_nobody_ever_was(name: str) -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.2", 0))  # where no cluster of this process was, by any chance
        with pytest.raises(ServiceUnavailable, match="is cosco-metadata running there"):
            CoscoWriter(name, 0, metadata=f"127.0.0.2:{reserved.getsockname()[1]}")
