"""A shuffle whose daemons keep their segments in a real HDFS, and what goes wrong there."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
from stores.hdfs.minicluster import MiniCluster
from support.exchanges import until
from support.processes import Services
from support.store_shuffles import (
    OPTIONS,
    check,
    check_close_amid_reads,
    files_of,
    shuffle,
)


@pytest.fixture
def url(hdfs: MiniCluster) -> str:
    return f"{hdfs.address}{hdfs.new_folder()}?replication=2"


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    """A metadata service, with a lease so short that a test can wait for it."""
    with Services(tmp_path, metadata_options=["--daemon-lease-s", "3"]) as services:
        yield services


def wait_until_empty(url: str) -> bool:
    return until(lambda: not files_of(url), 60, "the end of all files") >= 0


def test_rows_outlive_all_daemons_that_took_them(services: Services, url: str) -> None:
    """Others of the same folder serve them; after the close nothing is left."""
    first = [services.daemon(*OPTIONS, store=url) for _ in range(2)]
    with shuffle(services, "outlive"):
        until(lambda: bool(files_of(url)), 30, "a flush")
        first[0].stop()
        first[1].kill()
        services.daemon(*OPTIONS, store=url)
        check(services, "outlive")
    wait_until_empty(url)


def test_datanodes_go_and_come_amid_the_rows(
    services: Services, url: str, hdfs: MiniCluster
) -> None:
    """What could not be stored while there was none is put again."""
    daemons = [services.daemon(*OPTIONS, store=url) for _ in range(2)]

    def says(event: str) -> bool:
        return any(f"event={event}" in daemon.log.read_text() for daemon in daemons)

    def come() -> None:
        try:
            until(lambda: says("store_failing"), 30, "a put that fails")
        finally:
            hdfs.tell("start-datanodes")

    with ThreadPoolExecutor(1) as pool:

        def go() -> None:
            until(lambda: bool(files_of(url)), 30, "a flush")
            for datanode in (1, 0):
                hdfs.tell("stop-datanode", datanode)
            coming.append(pool.submit(come))

        coming: list[Future[None]] = []
        with shuffle(services, "datanodes", halfway=go):
            coming[0].result()
            check(services, "datanodes")
            until(lambda: says("store_recovered"), 60, "a put that succeeds")
    wait_until_empty(url)


def test_an_exchange_that_is_closed_amid_reads(services: Services, url: str) -> None:
    for _ in range(2):
        services.daemon(*OPTIONS, store=url)
    check_close_amid_reads(services, "amid-reads", lambda: wait_until_empty(url))
