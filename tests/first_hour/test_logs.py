"""Logs: a line for whatever docs/reliability.md says that there is one for."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.request import urlopen

import pytest
from support.exchanges import assignment, fetch, numbered, send, serving, until
from support.log_lines import JSON, LogReader
from support.processes import Service, Services, end_of, python
from support.raw_push import RawMetadata

from cosco import CoscoExchange, DataLost
from cosco.mechanics import DESCRIPTION
from cosco.process.event_writer import LINES_AT_ONCE, LINES_PER_S
from cosco.protocol.records import ExchangeSpec
from cosco.protocol.wire import mpb, to_pb

LEASE_S = 2.0
BOUND_S = 20.0
OPTIONS = (*JSON, "--heartbeat-s", "0.2", "--memory", "16MiB")


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    """Three daemons, whose lease is short."""
    graces = ("--adoption-grace-s", "0", "--old-build-grace-s", "0")
    options = (*JSON, "--daemon-lease-s", f"{LEASE_S:g}", *graces)
    with Services(tmp_path_factory.mktemp("logs"), metadata_options=options) as started:
        for _ in range(3):
            started.daemon(*OPTIONS)
        yield started


@pytest.fixture
def cluster(services: Services) -> Iterator[Services]:
    """The module's, whose daemons all run again before the next test."""
    yield services
    for daemon in services.daemons:
        if not daemon.is_running():
            daemon.start()
    until(lambda: len(serving(services.metadata)) == 3, BOUND_S, "the return of all daemons")


@pytest.fixture
def log(cluster: Services) -> LogReader:
    """What the metadata service logs in this test."""
    return LogReader(cluster.metadata_service)


def primary(cluster: Services, name: str) -> Service:
    """The daemon that takes the rows of partition 0."""
    address = assignment(name, cluster.metadata).primary.address
    return next(daemon for daemon in cluster.daemons if daemon.address == address)


# --- services and daemons ----------------------------------------------------------------------


def test_a_service_says_when_it_starts_and_stops(cluster: Services, tmp_path: Path) -> None:
    started = LogReader(cluster.metadata_service, from_start=True)
    line = started.wait("service_started")
    assert line["level"] == "info"
    assert line["service"] == "cosco-metadata"
    assert line["address"] == cluster.metadata
    assert {"version", "mechanics", "metrics", "cluster", "pid", "time", "logger"} <= line.keys()
    with Services(tmp_path, metadata_options=JSON) as other:
        log = LogReader(other.metadata_service)
        assert other.metadata_service.stop() == 0
        assert log.events("service_stopping") and log.events("service_stopped")


def test_a_daemon_that_comes(cluster: Services, log: LogReader) -> None:
    daemon = cluster.daemons[2]
    own = LogReader(daemon)
    daemon.kill()
    daemon.start()
    line = log.wait("daemon_registered", daemon=daemon.address)
    assert (line["level"], line["host_id"]) == ("info", "host-2")
    about = own.wait("service_started", daemon=daemon.address)
    assert about["version"] and about["mechanics"] == DESCRIPTION
    assert own.wait("registered")["cluster"]


def test_a_daemon_that_is_killed(cluster: Services, log: LogReader, name: str) -> None:
    with CoscoExchange(name, 4, metadata=cluster.metadata):
        send(name, 0, numbered(0, 20, partitions=4), cluster.metadata)
        gone = primary(cluster, name)
        gone.kill()
        send(name, 1, numbered(1, 20, partitions=4), cluster.metadata)
        line = log.wait("daemon_died", daemon=gone.address)
        assert (line["level"], line["cause"]) == ("warning", "gone")
        assert line["ranges"] >= 1
        sealed = log.wait("ranges_sealed", exchange=name, daemon=gone.address)
        assert sealed["cause"] == "daemon died"
        assert "0" in sealed["range"].replace("-", ",").split(",")
        moved = log.wait("ranges_moved", exchange=name)
        assert moved["daemon"] != gone.address
        assert log.wait("exchange_created", exchange=name)["replicas"] == 2


def test_a_daemon_that_is_silent_loses_its_lease(cluster: Services, log: LogReader) -> None:
    daemon = cluster.daemons[1]
    own = LogReader(daemon)
    daemon.signal(signal.SIGSTOP)
    try:
        line = log.wait("daemon_died", daemon=daemon.address)
        assert (line["level"], line["cause"]) == ("warning", "lease")
    finally:
        daemon.signal(signal.SIGCONT)
    assert own.wait("lease_lost", cause="not known")["level"] == "warning"
    own.wait("registered")
    # Nothing named it, so that it was forgotten.
    log.wait("daemon_registered", daemon=daemon.address)


def test_a_daemon_that_drains(cluster: Services, log: LogReader, name: str) -> None:
    with CoscoExchange(name, 4, metadata=cluster.metadata):
        send(name, 0, numbered(0, 20, partitions=4), cluster.metadata)
        leaving = primary(cluster, name)
        own = LogReader(leaving)
        assert leaving.stop() == 0
        assert log.wait("daemon_drains", daemon=leaving.address)["ranges"] >= 1
        assert log.wait("ranges_sealed", exchange=name)["cause"] == "daemon drains"
        assert log.wait("ranges_moved", exchange=name)
        log.wait("daemon_released", daemon=leaving.address)
        # An end in good order is no death.
        assert log.wait("daemon_left", daemon=leaving.address)["level"] == "info"
        assert not log.events("daemon_died")
        assert own.wait("drain_began")["bytes"] > 0
        assert own.wait("drained")["bytes"] == 0
        assert own.wait("epochs_fenced")["range"]
        own.wait("service_stopped")


def test_a_metadata_service_that_is_away(cluster: Services) -> None:
    own = LogReader(cluster.daemons[0])
    cluster.metadata_service.kill()
    try:
        assert own.wait("metadata_away")["reason"]
        lost = own.wait("lease_lost", cause="no answer")
        assert lost["seconds"] >= LEASE_S
    finally:
        cluster.metadata_service.start()
    own.wait("registered")


# --- rows --------------------------------------------------------------------------------------


def test_rows_that_are_lost_and_written_again(cluster: Services, log: LogReader, name: str) -> None:
    metadata = cluster.metadata
    with (
        CoscoExchange(name, 1, lambda *_: None, replicas=1, metadata=metadata),
        ThreadPoolExecutor(1) as threads,
    ):
        for mapper in (0, 1):
            send(name, mapper, numbered(mapper, 20), metadata)
        primary(cluster, name).kill()
        reading = threads.submit(fetch, name, [0, 1], 0, metadata)
        line = log.wait("rows_lost", exchange=name)
        assert (line["level"], line["range"], line["mappers"]) == ("warning", "0", 2)
        # Others serve its store, where nothing of them is.
        assert (line["build"], line["cause"]) == (1, "missing")
        assert "lost rows" in line["reason"]
        log.wait("recompute_arranged", exchange=name)
        for mapper in (0, 1):
            send(name, mapper, numbered(mapper, 20), metadata)
        assert log.wait("rebuilt", exchange=name)["build"] == 2
        assert reading.result().total() == 40
        line = log.wait("old_builds_dropped", exchange=name)
        assert (line["level"], line["range"], line["build"]) == ("info", "0", 2)


def test_a_reader_that_is_told_data_lost(cluster: Services, log: LogReader, name: str) -> None:
    with CoscoExchange(name, 1, replicas=1, metadata=cluster.metadata):
        send(name, 0, numbered(0, 20), cluster.metadata)
        primary(cluster, name).kill()
        with pytest.raises(DataLost):
            fetch(name, [0], 0, cluster.metadata)
        assert "no callback" in log.wait("recompute_failed", exchange=name)["reason"]
        line = log.wait("data_lost", exchange=name)
        assert (line["level"], line["cause"], line["range"]) == ("error", "DataLost", "0")


# --- exchanges ---------------------------------------------------------------------------------


def test_a_driver_that_takes_over(cluster: Services, log: LogReader, name: str) -> None:
    first = CoscoExchange(name, 2, metadata=cluster.metadata)
    with CoscoExchange.attach(name, own=True, metadata=cluster.metadata):
        assert log.wait("exchange_taken_over", exchange=name)["level"] == "info"
    first.close()


def test_an_exchange_that_is_closed(cluster: Services, log: LogReader, name: str) -> None:
    with CoscoExchange(name, 1, metadata=cluster.metadata):
        send(name, 0, numbered(0, 20), cluster.metadata)
        own = LogReader(primary(cluster, name))
    line = log.wait("exchange_closed", exchange=name)
    assert (line["cause"], line["mappers"], line["rows"]) == ("asked", 1, 20)
    own.wait("exchange_dropped", number=line["number"])


def test_an_exchange_whose_driver_is_gone(cluster: Services, log: LogReader, name: str) -> None:
    driver = """
        import sys, cosco
        x = cosco.CoscoExchange(sys.argv[1], 2, lease_s=1, metadata=sys.argv[2])
        print("made", flush=True); sys.stdin.readline()
    """
    with python(driver, name, cluster.metadata):
        pass
    assert log.wait("exchange_closed", exchange=name)["cause"] == "lease"


def test_a_store_that_takes_nothing(cluster: Services, log: LogReader, name: str) -> None:
    store = f"file://{cluster.directory}/small"
    options = (*OPTIONS, "--store-idle-s", "0.1")
    daemon = cluster.daemon(*options, store=store, file_kib=64)
    own = LogReader(daemon)
    try:
        with CoscoExchange(name, 8, replicas=1, codec="none", metadata=cluster.metadata):
            send(name, 0, numbered(0, 2000, partitions=8), cluster.metadata)
            assert own.wait("store_failing")["reason"]
            line = log.wait("daemon_store_failing", daemon=daemon.address)
            assert line["level"] == "warning"
            assert log.wait("ranges_sealed", daemon=daemon.address)["cause"] == "store fails"
    finally:
        daemon.kill()
        cluster.daemons.remove(daemon)
        daemon.close()


# --- how many lines ----------------------------------------------------------------------------


def test_many_exchanges_that_end_at_once_are_a_bounded_number_of_lines(
    cluster: Services, log: LogReader, name: str
) -> None:
    count = LINES_AT_ONCE + 60
    began = time.monotonic()
    raw = RawMetadata(cluster.metadata)
    for n in range(count):  # whose driver is never heard of again
        spec = to_pb(ExchangeSpec(f"{name}/{n}", 1, lease_s=1.0))
        raw.call("CreateExchange", mpb.CreateExchangeRequest(spec=spec, owner=b"o" * 16))
    raw.close()

    def left_out() -> int:
        return sum(e["times"] for e in log.events("events_left_out", cause="exchange_closed"))

    def told() -> int:
        return len(log.events("exchange_closed"))

    until(lambda: told() + left_out() >= count, BOUND_S, "their ends")
    beyond = LINES_PER_S * (time.monotonic() - began)  # they end as far apart as they were made
    assert LINES_AT_ONCE <= told() <= LINES_AT_ONCE + beyond
    assert told() + left_out() == count


def test_a_daemon_of_many_ranges_is_a_line_for_each_exchange(
    cluster: Services, log: LogReader, name: str
) -> None:
    with CoscoExchange(name, 1000, metadata=cluster.metadata):
        send(name, 0, numbered(0, 1000, partitions=1000, size=10), cluster.metadata)
        gone = primary(cluster, name)
        gone.kill()
        send(name, 1, numbered(1, 1000, partitions=1000, size=10), cluster.metadata)
        log.wait("ranges_moved", exchange=name)
        # One for each daemon that was, or is, a primary of theirs.
        assert len(log.events("ranges_sealed", exchange=name, cause="daemon died")) <= 3


def test_a_daemon_in_a_pod_without_the_name_of_its_machine(
    cluster: Services, log: LogReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    daemon = cluster.daemon(*OPTIONS, "--host-id", "")
    try:
        own = LogReader(daemon, from_start=True)
        warnings = [line for line in own.lines() if line["level"] == "warning"]
        assert any("spec.nodeName" in line.get("message", "") for line in warnings)
        line = log.wait("daemon_registered", daemon=daemon.address)
        assert line["host_id"].startswith("boot-")
    finally:
        daemon.stop()
        daemon.close()
        cluster.daemons.remove(daemon)


# --- options -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("service", "options", "said"),
    [
        ("metadata", ("--log-level", "loud"), "loud"),
        ("shuffled", ("--log-level", "cosco.metadata=loud"), "cosco.metadata=loud"),
        ("shuffled", ("--log-format", "xml"), "xml"),
    ],
)
def test_an_option_that_is_no_level_or_format(
    service: str, options: tuple[str, ...], said: str, tmp_path: Path
) -> None:
    code, lines = end_of(f"cosco.cli.{service}", *options, log=tmp_path / "log")
    assert code == 2
    (line,) = lines
    assert said in line


def test_a_level_for_each_logger_and_nothing_of_grpc(cluster: Services) -> None:
    levels = "debug,cosco.shuffle_service.events=warning"
    daemon = cluster.daemon(*OPTIONS, "--log-level", levels)
    try:
        own = LogReader(daemon, from_start=True)
        status = serving(cluster.metadata)[daemon.address]
        with urlopen(f"http://{status.metrics_address}/healthz", timeout=10):
            pass
        daemon.stop()
        lines = [line for line in own.lines() if line["pid"] == daemon.pid]
        assert {line["logger"] for line in lines} == {"cosco.process.http_endpoint"}
        assert {line["level"] for line in lines} == {"debug"}
    finally:
        daemon.close()
        cluster.daemons.remove(daemon)
