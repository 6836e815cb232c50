"""What is still open when its LocalCluster is closed ends in a moment, and says why."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass

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
from cosco.client.rpc.known_services import SERVICES

#: Far below `service_timeout_s`, far above what closing takes.
SECONDS = 10.0
WAIT_S = 30.0


@dataclass
class Left:
    """Objects of a cluster that is about to be closed."""

    metadata: str
    exchange: CoscoExchange
    group: CoscoExchangeGroup
    writer: CoscoWriter
    reader: CoscoReader
    group_writer: CoscoWriter
    group_reader: CoscoReader


@pytest.fixture(scope="module")
def left() -> Iterator[Left]:
    with LocalCluster(2, memory="16MiB") as cluster:
        metadata = cluster.metadata
        exchange = CoscoExchange("orders", 4, metadata=metadata)
        group = CoscoExchangeGroup("batches", 4, 2, 2, metadata=metadata)
        handle = group.handle()
        writer = CoscoWriter("orders", 0, metadata=metadata)
        writer.collect(0, b"row")
        group_writer = handle.writer(0, 0)
        group_writer.collect(0, b"row")
        reader = CoscoReader("orders", [0], 0, metadata=metadata)
        objects = (exchange, group, writer, reader, group_writer, handle.reader(0, 0))
        with ThreadPoolExecutor() as pool:
            waiting = pool.submit(objects[3].next)
            until(lambda: bool(reader._scope._calls), WAIT_S)
            cluster.close()
            with pytest.raises(ServiceUnavailable, match="has closed the LocalCluster"):
                waiting.result(SECONDS)
    with ExitStack() as stack:
        stack.callback(reader.close)
        stack.callback(objects[5].close)
        yield Left(metadata, *objects)


def check_told(use: Callable[[], object]) -> None:
    began = time.monotonic()
    with pytest.raises(ServiceUnavailable, match="has closed the LocalCluster") as caught:
        use()
    assert time.monotonic() - began < SECONDS
    assert not caught.value.retriable


def test_a_writer_is_closed(left: Left) -> None:
    check_told(left.writer.close)


def test_a_writer_of_a_group_is_closed(left: Left) -> None:
    check_told(left.group_writer.close)


def test_a_reader_of_a_group_goes_on(left: Left) -> None:
    check_told(left.group_reader.next)


def test_progress_is_asked_for(left: Left) -> None:
    check_told(left.exchange.progress)


def test_another_writer_is_made(left: Left) -> None:
    check_told(lambda: CoscoWriter("orders", 1, metadata=left.metadata))


def test_an_exchange_and_a_group_are_closed(left: Left) -> None:
    began = time.monotonic()
    left.exchange.close()
    left.group.close()
    assert time.monotonic() - began < SECONDS


def test_another_cluster_serves_on_the_port_of_a_closed_one() -> None:
    with LocalCluster(1, memory="16MiB") as cluster:
        SERVICES.end(cluster.metadata)  # as if an earlier cluster had been there
        with CoscoExchange("orders", 1, replicas=1, metadata=cluster.metadata):
            assert SERVICES.has_met(cluster.metadata)
            cluster.metadata_service.kill()  # an outage, and no end
            assert not SERVICES.has_ended(cluster.metadata)
            cluster.metadata_service.restart()


def test_the_program_ends_with_everything_open() -> None:
    code = """
        from cosco import *
        cluster = LocalCluster(1, memory="16MiB")
        exchange = CoscoExchange("orders", 1, replicas=1, metadata=cluster.metadata)
        group = CoscoExchangeGroup("batches", 1, 1, 1, replicas=1, metadata=cluster.metadata)
        writer = CoscoWriter("orders", 0, metadata=cluster.metadata)
        writer.collect(0, b"row")
        of_group = group.handle().writer(0, 0)
        of_group.collect(0, b"row")
        of_group.close()  # its commit follows
        reader = CoscoReader("orders", [0], 0, metadata=cluster.metadata)
        cluster.close()
    """
    began = time.monotonic()
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True, timeout=60)
    assert time.monotonic() - began < 2 * SECONDS
