"""`cosco events`: what has happened, and what happens, as lines and for programs."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator

import pytest
from support.exchanges import until

from cosco import CoscoExchange, LocalCluster

COMMAND = [sys.executable, "-m", "cosco.cli.main", "events"]


@pytest.fixture
def one() -> Iterator[LocalCluster]:
    options = ["--daemon-lease-s", "1"]
    with LocalCluster(1, memory="16MiB", metadata_options=options) as cluster:
        yield cluster


def test_events_are_listed_and_followed(one: LocalCluster) -> None:
    with CoscoExchange("a b", 2, replicas=1, metadata=one.metadata):
        pass
    listed = subprocess.run(
        [*COMMAND, "--metadata", one.metadata, "--limit", "1000"],
        capture_output=True, text=True, check=True, timeout=60,
    ).stdout.splitlines()  # fmt: skip
    created = next(line for line in listed if "exchange_created" in line)
    assert " info    exchange_created " in created
    assert 'exchange="a b"' in created
    told: list[dict[str, object]] = []
    with subprocess.Popen(
        [*COMMAND, "--metadata", one.metadata, "--follow", "--json", "--severity", "warning"],
        stdout=subprocess.PIPE, text=True, bufsize=1,
    ) as following:  # fmt: skip
        try:
            one.daemons[0].kill()
            assert following.stdout is not None
            for line in following.stdout:
                told.append(json.loads(line))
                if told[-1]["event"] == "daemon_died":
                    break
        finally:
            following.terminate()
    died = told[-1]
    assert (died["severity"], died["daemon"]) == ("warning", one.daemons[0].address)
    assert {"time", "sequence", "cause"} <= died.keys()
    assert following.wait(30) is not None


def test_who_follows_goes_on_once_the_service_is_back(one: LocalCluster) -> None:
    with subprocess.Popen(
        [*COMMAND, "--metadata", one.metadata, "--follow", "--json"],
        stdout=subprocess.PIPE, text=True, bufsize=1,
    ) as following:  # fmt: skip
        try:
            assert following.stdout is not None
            first = json.loads(following.stdout.readline())
            one.metadata_service.kill()
            one.metadata_service.restart()
            until(lambda: bool(one.metadata_service.address), 30, "the return of the service")
            CoscoExchange("later", 2, replicas=1, metadata=one.metadata).close()
            for line in following.stdout:
                event = json.loads(line)
                assert event["sequence"] > first["sequence"]
                if event.get("exchange") == "later":
                    break
        finally:
            following.terminate()
