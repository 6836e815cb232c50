"""Two daemons that others find at one address: who answers there keeps it."""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from support.exchanges import assignment, fetch, never, numbered, send, serving, until
from support.processes import Service, Services
from support.proxy import Proxy

from cosco import CoscoExchange

ROWS = numbered(0, 500)
LEASE_S = 2.0


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    directory = tmp_path_factory.mktemp("one-address-twice")
    with Services(directory, metadata_options=["--daemon-lease-s", f"{LEASE_S:g}"]) as started:
        yield started


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    """What stands before daemons: a service address, or a NAT."""
    with Proxy() as started:
        yield started


@contextmanager
def daemon(services: Services, label: str, *options: str) -> Iterator[Service]:
    """A daemon that is not started yet; its lines are its own."""
    given = ["--metadata", services.metadata, "--memory", "16MiB", "--heartbeat-s", "0.2"]
    store = f"file://{services.directory}/store"
    log = services.directory / f"{label}.log"
    service = Service("cosco.cli.shuffled", [*given, "--store", store, *options], log)
    try:
        yield service
    finally:
        service.close()


def incarnation_at(services: Services, address: str) -> int | None:
    found = serving(services.metadata).get(address)
    return None if found is None else found.ref.incarnation


def ends(service: Service, address: str) -> bool:
    """Whether it ends with one line that says why, and what to do."""
    assert service.wait(10) == 2
    [line] = [one for one in service.tail().splitlines() if one.startswith("cosco-shuffled: ")]
    assert "Traceback" not in service.tail()
    return f"another shuffle daemon answers at '{address}'" in line and "--advertise" in line


def test_a_second_daemon_is_started_with_the_address_of_the_first(
    services: Services, name: str
) -> None:
    metadata = services.metadata
    with daemon(services, name) as first:
        first.start()
        before = incarnation_at(services, first.address)
        with CoscoExchange(name, 1, never, replicas=1, codec="none", metadata=metadata):
            assert send(name, 0, ROWS, metadata).won
            with daemon(services, f"{name}-2", "--advertise", first.address) as second:
                with pytest.raises(AssertionError):  # it does not become ready
                    second.start()
                assert ends(second, first.address)
            assert incarnation_at(services, first.address) == before
            assert assignment(name, metadata).epoch == 1
            assert fetch(name, [0], 0, metadata) == Counter(row for _, row in ROWS)
        told = services.metadata_service.tail()
        assert f"registers at {first.address}, where another one is registered: {before}" in told


def test_a_daemon_is_killed_and_started_again_at_once(services: Services, name: str) -> None:
    """It answers itself, so it need not wait for the lease of its old self."""
    with daemon(services, name) as only:
        only.start()
        before = incarnation_at(services, only.address)
        took_s = []
        for _ in range(3):  # a busy machine may miss it
            began = time.monotonic()
            only.kill()
            only.start()
            took_s.append(time.monotonic() - began)
        assert min(took_s) < LEASE_S / 2
        assert incarnation_at(services, only.address) not in {None, before}


def test_a_service_address_turns_to_a_second_daemon(
    services: Services, proxy: Proxy, name: str
) -> None:
    """The one that is reached there stays, and the other ends: they do not take turns."""
    with (
        daemon(services, name, "--advertise", proxy.address) as first,
        daemon(services, f"{name}-2", "--advertise", proxy.address) as second,
    ):
        proxy.target = first.address
        first.start()
        before = incarnation_at(services, proxy.address)
        proxy.target = second.address
        proxy.cut()
        second.start()
        assert ends(first, proxy.address)
        after = incarnation_at(services, proxy.address)
        assert after not in {None, before}
        assert second.is_running()


def test_nobody_answers_at_an_address_that_two_daemons_have(
    services: Services, proxy: Proxy, name: str
) -> None:
    """The second is taken in once the first is sure to be gone, and is told of that."""
    with (
        daemon(services, name, "--advertise", proxy.address) as first,
        daemon(services, f"{name}-2", "--advertise", proxy.address) as second,
    ):
        proxy.target = first.address
        first.start()
        before = incarnation_at(services, proxy.address)
        first.signal(signal.SIGSTOP)
        second.start()  # returns when its registration was taken
        assert "taken in once the other is sure to be gone" in second.tail()
        assert incarnation_at(services, proxy.address) not in {None, before}
        proxy.target = second.address
        proxy.cut()
        first.signal(signal.SIGCONT)
        assert ends(first, proxy.address)


def test_a_daemon_goes_back_to_its_address_after_the_service_was_away(
    services: Services, name: str
) -> None:
    """The service remembers it, and knows it by its incarnation."""
    with daemon(services, name) as only:
        only.start()
        before = incarnation_at(services, only.address)
        services.metadata_service.kill()
        services.metadata_service.start()
        until(lambda: incarnation_at(services, only.address) == before, 10, "its return")
        only.kill()
        only.start()
        assert incarnation_at(services, only.address) not in {None, before}
