"""A shuffle whose daemons keep their segments in a bucket, and what goes wrong there."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from support.exchanges import until
from support.http_faults import HttpFaults
from support.processes import Services
from support.s3_servers import S3Server
from support.store_shuffles import MAPPERS, OPTIONS, ROWS, check, check_close_amid_reads, shuffle


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    """A metadata service, with a lease so short that a test can wait for it."""
    with Services(tmp_path, metadata_options=["--daemon-lease-s", "3"]) as services:
        yield services


def files_of(url: str, server: S3Server) -> dict[Path, int]:
    """Return what lies in the bucket below a store's prefix, its identity apart, with lengths."""
    prefix = url.partition("?")[0].removeprefix("s3://").partition("/")[2]
    found = {}
    for folder, _, names in os.walk(server.folder / prefix):  # which others change meanwhile
        for path in (Path(folder, name) for name in names if name != "cosco-store.json"):
            with suppress(FileNotFoundError):
                found[path] = path.stat().st_size
    return found


def test_rows_outlive_all_daemons_that_took_them(
    services: Services, versity_server: S3Server
) -> None:
    """Others of the same bucket serve them; after the close nothing is left."""
    url = versity_server.url()
    first = [services.daemon(*OPTIONS, store=url) for _ in range(2)]
    with shuffle(services, "outlive"):
        expected = MAPPERS * ROWS * 1000
        until(lambda: bool(files_of(url, versity_server)), 30, "a flush")
        for daemon in first:
            daemon.stop()
        services.daemon(*OPTIONS, store=url)
        check(services, "outlive")
        assert 0 < sum(files_of(url, versity_server).values()) < expected, (
            "rows are compressed, and in the bucket"
        )
    until(lambda: not files_of(url, versity_server), 30, "the end of all files")


def test_a_daemon_that_is_killed_amid_a_put_loses_nothing(
    services: Services, versity_server: S3Server
) -> None:
    url = versity_server.url()
    with ExitStack() as stack:
        proxies = [HttpFaults(versity_server.address) for _ in range(3)]
        for proxy in proxies:
            stack.callback(proxy.close)
            services.daemon(*OPTIONS, store=url.replace(versity_server.address, proxy.address))
            proxy.fault("half_body", "PUT", "/0-", times=1)

        def kill_one() -> None:
            held = [proxy.fault("hold", "PUT", "/0-") for proxy in proxies]
            until(lambda: any(fault.done for fault in held), 30, "a put")
            writing = next(n for n, fault in enumerate(held) if fault.done)
            services.daemons[writing].kill()
            for proxy in proxies:
                proxy.release()

        with shuffle(services, "amid-a-put", halfway=kill_one):
            check(services, "amid-a-put")
        until(lambda: not files_of(url, versity_server), 30, "the end of all files")


def test_a_bucket_that_is_overloaded_is_waited_for(
    services: Services, faults: HttpFaults, faulty_url: Callable[..., str], versity_server: S3Server
) -> None:
    url = faulty_url("&timeout_s=1&retry_s=0.3")
    for _ in range(2):
        services.daemon(*OPTIONS, store=url)
    fault = faults.fault("answer", "*", times=40)
    with shuffle(services, "overloaded"):
        until(lambda: fault.done == fault.times, 30, "the end of the overload")
        check(services, "overloaded")
    until(lambda: not files_of(url, versity_server), 30, "the end of all files")


def test_an_exchange_that_is_closed_amid_reads(
    services: Services, versity_server: S3Server
) -> None:
    url = versity_server.url()
    for _ in range(2):
        services.daemon(*OPTIONS, store=url)

    def is_empty() -> bool:
        return until(lambda: not files_of(url, versity_server), 30, "the end of all files") >= 0

    check_close_amid_reads(services, "amid-reads", is_empty)
