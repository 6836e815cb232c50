"""The path to a daemon stalls or is cut, while the daemon itself goes on and sends heartbeats."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
from support.exchanges import assignment, fetch, never, numbered, send, serving, until
from support.processes import Services
from support.proxy import Proxy

from cosco import CoscoExchange, CoscoReader

#: Everything below is over long before.
BOUND_S = 45.0
ROWS = 3000

Break = Callable[[Proxy], object]

#: What may become of a path, and stays so. The metadata service is out of reach of the daemon
#: behind it as well, or is not.
FAULTS: dict[str, Break] = {
    "stalls": lambda proxy: proxy.stall("Push", "Fetch"),
    "stalls for all": lambda proxy: proxy.stall(),
    "is cut": lambda proxy: proxy.refuse("Push", "Fetch"),
    "is cut for all": lambda proxy: proxy.refuse(),
}


class Net:
    """Three daemons of one store, each behind a proxy."""

    def __init__(self, services: Services) -> None:
        self.metadata = services.metadata
        self.proxies: dict[str, Proxy] = {}
        for _ in range(3):
            proxy = Proxy()
            self.proxies[proxy.address] = proxy
            daemon = services.daemon("--advertise", proxy.address)
            proxy.target = daemon.address

    def primary(self, name: str) -> Proxy:
        """The path to the primary of an exchange of one range."""
        return self.proxies[assignment(name, self.metadata).primary.address]

    def replica(self, name: str) -> Proxy:
        return self.proxies[assignment(name, self.metadata).replicas[0].address]


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Net]:
    directory: Path = tmp_path_factory.mktemp("net")
    with Services(directory, metadata_options=["--daemon-lease-s", "3"]) as services:
        made = Net(services)
        try:
            yield made
        finally:
            for proxy in made.proxies.values():
                proxy.close()


@pytest.fixture
def net(started: Net) -> Iterator[Net]:
    yield started
    for proxy in started.proxies.values():
        proxy.resume()
    until(lambda: len(serving(started.metadata)) == 3, BOUND_S, "the return of all daemons")


def check(
    net: Net, name: str, break_path: Callable[[], object], *, replicas: int = 2
) -> list[tuple[list[int], str]]:
    """Two mappers write, the path breaks while they do, and every row is read; the losses."""
    losses: list[tuple[list[int], str]] = []
    with CoscoExchange(
        name, 1, lambda *loss: losses.append(loss), replicas=replicas, metadata=net.metadata
    ):
        began = time.monotonic()
        rows = {mapper: numbered(mapper, ROWS) for mapper in (1, 2)}
        with ThreadPoolExecutor() as pool:
            reading = pool.submit(fetch, name, [1, 2], 0, net.metadata)
            first = pool.submit(send, name, 1, rows[1], net.metadata, halfway=break_path)
            second = pool.submit(send, name, 2, rows[2], net.metadata)
            assert first.result(BOUND_S).won
            assert second.result(BOUND_S).won
            found = reading.result(BOUND_S)
        took_s = time.monotonic() - began
    print(f"{took_s:.1f} s")
    assert found == Counter(row for pairs in rows.values() for _, row in pairs)
    assert took_s < BOUND_S
    return losses


@pytest.mark.parametrize("fault", FAULTS)
def test_between_writer_and_primary(fault: str, net: Net, name: str) -> None:
    assert not check(net, name, lambda: FAULTS[fault](net.primary(name)))


@pytest.mark.parametrize("fault", FAULTS)
def test_between_primary_and_replica(fault: str, net: Net, name: str) -> None:
    assert not check(net, name, lambda: FAULTS[fault](net.replica(name)))


def test_cut_again_and_again(net: Net, name: str) -> None:
    """What was under way is sent again, and taken once."""

    def cut() -> None:
        proxy = net.primary(name)
        proxy.delay(0.02)  # so that there is something under way for long
        cuts = 0
        with suppress(AssertionError):  # no new stream: all that was under way is acknowledged
            while cuts < 10:
                until(lambda: proxy.cut("Push") > 0, 3, "a new stream")
                cuts += 1
        assert cuts
        proxy.resume()

    assert not check(net, name, cut)


def test_a_path_that_stalls_for_a_while_goes_on(net: Net, name: str) -> None:
    """There is one copy only, so nobody else could have taken over what was acknowledged."""

    def pause() -> None:
        proxy = net.primary(name)
        proxy.stall()
        time.sleep(1)
        proxy.resume()

    assert not check(net, name, pause, replicas=1)


def test_a_slow_path(net: Net, name: str) -> None:
    assert not check(net, name, lambda: net.primary(name).delay(0.02))


@pytest.mark.parametrize("fault", FAULTS)
def test_between_reader_and_primary(fault: str, net: Net, name: str) -> None:
    """It breaks amid a read, of rows some of which are in the memory of daemons only."""
    rows = numbered(1, 9 * ROWS)
    with CoscoExchange(name, 1, never, metadata=net.metadata):
        send(name, 1, rows, net.metadata)
        began = time.monotonic()
        with CoscoReader(name, [1], 0, timeout_s=BOUND_S, metadata=net.metadata) as reader:
            found: Counter[bytes] = Counter()
            for batch in reader.read_batches(max_bytes=64 << 10):
                if not found:
                    FAULTS[fault](net.primary(name))
                found.update(batch.column(0).to_pylist())
        took_s = time.monotonic() - began
    print(f"{took_s:.1f} s")
    assert found == Counter(row for _, row in rows)
    assert took_s < BOUND_S
