"""Daemons with flash of their own before a bucket that they share."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest
from support.exchanges import by_partition, fetch_all, never, numbered, send, serving, until
from support.http_faults import HttpFaults
from support.processes import Service, Services
from support.s3_servers import S3Server

from cosco import CoscoExchange

PARTITIONS = 4
MAPPERS = 3
ROWS = 4000
OPTIONS = ("--memory", "16MiB", "--store-idle-s", "0.2", "--sweep-s", "1")
BOUND_S = 30


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    """A metadata service, with a lease so short that a test can wait for it."""
    with Services(tmp_path, metadata_options=["--daemon-lease-s", "3"]) as services:
        yield services


def segments(folder: Path) -> set[str]:
    """The names of the segments in a folder, also while they are being removed."""
    names = (name for _, _, names in os.walk(folder) for name in names)
    return {name for name in names if fnmatch(name, "*-*-????????????????-*")}


def objects(server: S3Server, url: str) -> set[str]:
    """The names of the segments that a store has in its bucket."""
    prefix = url.partition("?")[0].removeprefix("s3://").partition("/")[2]
    return segments(server.folder / prefix)


def daemon(services: Services, flash: Path, url: str, *options: str) -> Service:
    return services.daemon(*OPTIONS, *options, store=f"flash={flash.as_uri()},then={url}")


def written(services: Services, name: str, replicas: int) -> CoscoExchange:
    exchange = CoscoExchange(name, PARTITIONS, never, replicas=replicas, metadata=services.metadata)
    for mapper in range(MAPPERS):
        send(name, mapper, numbered(mapper, ROWS, partitions=PARTITIONS), services.metadata)
    return exchange


def check(services: Services, name: str) -> None:
    rows = [row for m in range(MAPPERS) for row in numbered(m, ROWS, partitions=PARTITIONS)]
    found = fetch_all(name, range(MAPPERS), PARTITIONS, services.metadata)
    assert found == by_partition(rows, PARTITIONS)


def test_rows_move_to_the_bucket_and_outlive_flash(
    services: Services, versity_server: S3Server
) -> None:
    """With two copies at once; a host that goes with its flash takes nothing with it."""
    url = versity_server.url()
    flashes = [services.directory / f"flash-{n}" for n in range(3)]
    first = [daemon(services, flash, url) for flash in flashes[:2]]
    with written(services, "moves", 2):
        until(lambda: bool(objects(versity_server, url)), BOUND_S, "a move")
        check(services, "moves")
        first[0].kill()
        shutil.rmtree(flashes[0])
        check(services, "moves")
        daemon(services, flashes[2], url)
        assert first[1].stop() == 0
        shutil.rmtree(flashes[1])
        check(services, "moves")
    until(lambda: not objects(versity_server, url), BOUND_S, "the end of all objects")
    assert not segments(flashes[2])


def test_a_bucket_that_is_away_is_waited_for_by_nobody_who_need_not(
    services: Services, faults: HttpFaults, versity_server: S3Server
) -> None:
    """With one copy rows are written and read while every put to the bucket fails."""
    url = versity_server.url(more="&timeout_s=1&retry_s=0.3")
    url = url.replace(versity_server.address, faults.address)
    flash = services.directory / "flash"
    alone = daemon(services, flash, url, "--tier-age-s", "0")
    fault = faults.fault("answer", "PUT", "-1/", times=1 << 30)  # of epoch 1
    with written(services, "away", 1):
        until(lambda: fault.done > 0, BOUND_S, "a put that fails")
        until(lambda: bool(segments(flash)), BOUND_S, "a flush")
        check(services, "away")
        assert not objects(versity_server, url)
        assert alone.address in serving(services.metadata)
        fault.times = 0
        until(lambda: bool(objects(versity_server, url)), BOUND_S, "a move")
        check(services, "away")
    until(lambda: not objects(versity_server, url), BOUND_S, "the end of all objects")
    until(lambda: not segments(flash), BOUND_S, "the end of all files")
