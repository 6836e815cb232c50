"""Health and metrics of both services: where an operator looks for them, and what they say."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import grpc
import pytest
from google.protobuf.wrappers_pb2 import Int32Value, StringValue
from support.exchanges import numbered, send, serving, until
from support.log_lines import JSON, LogReader
from support.processes import Service, Services, end_of

from cosco import CoscoExchange
from cosco.mechanics import DESCRIPTION
from cosco.observe import read_metrics
from cosco.protocol.wire import METADATA_SERVICE, SHUFFLE_SERVICE

BOUND_S = 20.0
SERVING, NOT_SERVING = 1, 2


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    """Two daemons, whose lease is short."""
    options = (*JSON, "--daemon-lease-s", "1.5")
    with Services(tmp_path_factory.mktemp("health"), metadata_options=options) as started:
        for _ in range(2):
            started.daemon(*JSON, "--heartbeat-s", "0.2", "--memory", "16MiB")
        yield started


def metrics_address(service: Service) -> str:
    """Where a service has said that its metrics are, at its last start."""
    log = LogReader(service, from_start=True)
    log.wait("service_started", pid=service.pid)
    return str(log.events("service_started", pid=service.pid)[-1]["metrics"])


def get(service: Service, path: str, method: str = "GET") -> tuple[int, str]:
    request = Request(f"http://{metrics_address(service)}{path}", method=method)
    try:
        with urlopen(request, timeout=BOUND_S) as answer:
            return answer.status, answer.read().decode()
    except HTTPError as error:
        with error:
            return error.code, error.read().decode()


def check(address: str, name: str = "") -> int:
    """`grpc.health.v1.Health/Check`, as the tools of gRPC call it."""
    with grpc.insecure_channel(address) as channel:
        call = channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=StringValue.SerializeToString,
            response_deserializer=Int32Value.FromString,
        )
        return int(call(StringValue(value=name), timeout=BOUND_S).value)


def both(services: Services) -> tuple[tuple[Service, str], ...]:
    return (
        (services.metadata_service, METADATA_SERVICE),
        (services.daemons[0], SHUFFLE_SERVICE),
    )


def test_both_services_are_alive_and_ready(services: Services) -> None:
    for service, name in both(services):
        assert get(service, "/healthz") == (200, "alive\n")
        assert get(service, "/readyz") == (200, "ready\n")
        assert check(service.address) == check(service.address, name) == SERVING
        with pytest.raises(grpc.RpcError) as refused:
            check(service.address, "no.such.Service")
        assert refused.value.code() is grpc.StatusCode.NOT_FOUND


def test_nothing_else_is_there(services: Services) -> None:
    for service, _ in both(services):
        for path in ("/metrics/", "/anything", "/favicon.ico"):
            assert get(service, path)[0] == 404, path
        assert get(service, "/metrics", "POST")[0] == 405


def test_both_have_the_metrics_of_their_process_and_build(services: Services) -> None:
    for service, _ in both(services):
        samples = read_metrics(metrics_address(service))
        assert samples["cosco_build_info"] == 1
        assert samples["process_resident_memory_bytes"] > 1 << 20
        assert samples["process_cpu_seconds_total"] > 0
        assert "python_gc_collections_total" in samples


def sample(text: str, name: str) -> float:
    (line,) = [line for line in text.splitlines() if line.startswith(f"{name} ")]
    return float(line.split()[-1])


def test_what_the_metadata_service_counts(services: Services, name: str) -> None:
    service = services.metadata_service

    def value(of: str) -> float:
        return sample(get(service, "/metrics")[1], of)

    committed = value('cosco_commits_total{won="true"}')
    with CoscoExchange(name, 2, metadata=services.metadata):
        send(name, 0, numbered(0, 10, partitions=2), services.metadata)
        assert value('cosco_commits_total{won="true"}') == committed + 1
        until(lambda: value('cosco_exchanges{state="open"}') == 1, BOUND_S, "the count")
        assert value('cosco_daemons{state="serving"}') == 2
    assert value('cosco_events_total{event="exchange_closed"}') >= 1
    assert value("cosco_journal_write_seconds_count") > 0
    assert value("cosco_journal_rows_total") > 0
    for there in (
        *("cosco_journal_waiting_rows", "cosco_waiting_calls", "cosco_rebuilds_total"),
        *('cosco_losses_total{cause="gone"}', 'cosco_losses_total{cause="missing"}'),
        *('cosco_leases_expired_total{holder="daemon"}', "cosco_groups"),
        *('cosco_exchanges{state="closing"}', 'cosco_daemons{state="draining"}'),
    ):
        assert value(there) >= 0, there


def test_a_daemon_that_stands_still_is_not_alive(services: Services) -> None:
    """Nobody answers for a stopped process; the metadata service shows that it is gone."""
    daemon = services.daemons[1]
    address = metrics_address(daemon)
    daemon.signal(signal.SIGSTOP)
    try:
        with pytest.raises((URLError, TimeoutError)):
            urlopen(f"http://{address}/healthz", timeout=0.3)
        until(lambda: len(serving(services.metadata)) == 1, BOUND_S, "its death")
    finally:
        daemon.signal(signal.SIGCONT)
    until(lambda: len(serving(services.metadata)) == 2, BOUND_S, "its return")
    until(lambda: get(daemon, "/readyz")[0] == 200, BOUND_S, "its readiness")
    assert read_metrics(metrics_address(services.metadata_service))[
        "cosco_leases_expired_total"
    ] >= 1  # fmt: skip


def test_a_daemon_without_the_metadata_service_is_alive_and_not_ready(
    services: Services,
) -> None:
    daemon = services.daemons[0]
    services.metadata_service.kill()
    try:
        until(lambda: get(daemon, "/readyz")[0] == 503, BOUND_S, "the end of its lease")
        assert "lease" in get(daemon, "/readyz")[1]
        assert get(daemon, "/healthz")[0] == 200
        assert check(daemon.address) == NOT_SERVING
    finally:
        services.metadata_service.start()
    until(lambda: get(daemon, "/readyz")[0] == 200, BOUND_S, "its readiness")
    until(lambda: len(serving(services.metadata)) == 2, BOUND_S, "the return of both")


def test_a_daemon_that_drains_is_alive_and_not_ready(services: Services, name: str) -> None:
    """It has a store of its own, so it serves until its exchange closes."""
    options = (*JSON, "--heartbeat-s", "0.2", "--memory", "16MiB")
    daemon = services.daemon(*options, store=f"file://{services.directory}/own")
    try:
        with CoscoExchange(name, 12, replicas=1, metadata=services.metadata):
            send(name, 0, numbered(0, 120, partitions=12), services.metadata)
            daemon.signal(signal.SIGTERM)
            until(lambda: get(daemon, "/readyz")[0] == 503, BOUND_S, "the drain")
            assert "the daemon drains" in get(daemon, "/readyz")[1]
            LogReader(daemon, from_start=True).wait("drained", cause="serves on")
            assert get(daemon, "/healthz")[0] == 200
        assert daemon.wait() == 0
    finally:
        daemon.close()
        services.daemons.remove(daemon)


def test_status_shows_where_daemons_have_their_metrics(services: Services) -> None:
    shown = serving(services.metadata)
    for daemon in services.daemons:
        address = shown[daemon.address].metrics_address
        assert address == metrics_address(daemon)
        assert read_metrics(address)["cosco_pages_capacity_bytes"] > 0


def test_status_shows_what_does_the_mechanics_of_daemons(services: Services) -> None:
    for address in serving(services.metadata):
        until(
            lambda address=address: serving(services.metadata)[address].mechanics == DESCRIPTION,
            BOUND_S,
            "its first heartbeat",
        )


def test_a_daemon_on_all_addresses_has_its_metrics_where_it_says_that_it_is(
    services: Services,
) -> None:
    port, metrics = free_pair()
    address = f"127.0.0.1:{port}"
    options = (*JSON, "--listen", f"0.0.0.0:{port}", "--advertise", address, "--metrics", "auto")
    daemon = services.daemon(*options, "--insecure")
    try:
        status = serving(services.metadata)[address]
        assert status.metrics_address == f"127.0.0.1:{metrics}"
        assert read_metrics(status.metrics_address)["cosco_build_info"] == 1
    finally:
        daemon.stop()
        daemon.close()
        services.daemons.remove(daemon)


# --- ports -------------------------------------------------------------------------------------


def free_pair() -> tuple[int, int]:
    """A port that is free, and so is the one 1000 above."""
    for port in range(21_000, 25_000, 7):
        with socket.socket() as low, socket.socket() as high:
            try:
                low.bind(("127.0.0.1", port))
                high.bind(("127.0.0.1", port + 1000))
            except OSError:
                continue
            return port, port + 1000
    raise AssertionError("no two ports are free")


def test_metrics_are_on_the_own_port_and_1000_more(tmp_path: Path) -> None:
    port, metrics = free_pair()
    address = f"127.0.0.1:{port}"
    options = (*JSON, "--listen", address, "--http", "auto")
    with Services(tmp_path, metadata_options=options) as started:
        assert metrics_address(started.metadata_service) == f"127.0.0.1:{metrics}"
        with urlopen(f"http://127.0.0.1:{metrics}/readyz", timeout=10) as answer:
            assert answer.read() == b"ready\n"
        # Another service beside it: each port that is taken is said in one line.
        for more, said in (
            (("--listen", address), f"cannot listen on {address}"),
            (
                ("--listen", "127.0.0.1:0", "--http", f"127.0.0.1:{metrics}"),
                f"--http 127.0.0.1:{metrics}: cannot listen on 127.0.0.1:{metrics}",
            ),
        ):
            store = f"sqlite:///{tmp_path}/{len(more)}.db"
            arguments = ("--store", store, *more)
            code, lines = end_of("cosco.cli.metadata", *arguments, log=tmp_path / "log")
            # Above it gRPC may have said so in its own terms: it was imported with another level.
            assert (code, said in lines[-1]) == (2, True), lines


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--listen", "127.0.0.1:65000"), "go beyond 65535"),
        (("--metrics", "nowhere"), "nowhere"),
        (("--metrics", "127.0.0.1:65535", "--processes", "2"), "go beyond 65535"),
    ],
)
def test_metrics_that_cannot_be(options: tuple[str, ...], said: str, tmp_path: Path) -> None:
    code, lines = end_of("cosco.cli.shuffled", *options, log=tmp_path / "log")
    (line,) = lines
    assert (code, said in line) == (2, True), line


def test_no_metrics_if_none_are_wanted(tmp_path: Path) -> None:
    with Services(tmp_path, metadata_options=(*JSON, "--http", "")) as without:
        log = LogReader(without.metadata_service, from_start=True)
        assert "metrics" not in log.wait("service_started")
        assert check(without.metadata) == SERVING


def watch_once(address: str) -> Any:
    with grpc.insecure_channel(address) as channel:
        call = channel.unary_stream(
            "/grpc.health.v1.Health/Watch",
            request_serializer=StringValue.SerializeToString,
            response_deserializer=Int32Value.FromString,
        )(StringValue(), timeout=BOUND_S)
        return next(call).value


def test_watch(services: Services) -> None:
    for service, _ in both(services):
        assert watch_once(service.address) == SERVING
