"""Services with and without the native part in one cluster: who serves is called by either."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest
from support.exchanges import (
    assignment,
    by_partition,
    fetch_all,
    never,
    numbered,
    send,
    serving,
    until,
)

from cosco import CoscoExchange, LocalCluster
from cosco.local.cluster import ServiceProcess
from cosco.mechanics import NATIVE

pytestmark = [
    pytest.mark.skipif(NATIVE is None, reason="needs the native part"),
    pytest.mark.usefixtures("fresh_interpreters"),  # in which it is chosen anew
]
PARTITIONS = 8


@contextmanager
def mixed(portable: str) -> Iterator[LocalCluster]:
    """Two daemons with a store each, and one service without the native part."""
    with LocalCluster(2, memory="64MiB", shared_store=False) as cluster:
        services: dict[str, ServiceProcess] = {
            "metadata": cluster.metadata_service,
            "daemon-0": cluster.daemons[0],
            "daemon-1": cluster.daemons[1],
        }
        cluster._home._environment["COSCO_NATIVE"] = "off"
        services[portable].restart()
        del cluster._home._environment["COSCO_NATIVE"]
        log = cluster.directory / f"{portable}.log"
        until(lambda: "(COSCO_NATIVE is off)" in log.read_text(), 10.0)
        yield cluster


@pytest.mark.parametrize("victim", [0, 1])
@pytest.mark.parametrize("portable", ["metadata", "daemon-0"])
def test_copies_are_pushed_and_count_when_a_daemon_dies(portable: str, victim: int) -> None:
    """Each daemon has copies of the other one's rows, and the survivor is told to fence."""
    rows = numbered(1, 300, partitions=PARTITIONS)  # which stay in memory
    expected = by_partition(rows, PARTITIONS)
    with mixed(portable) as cluster, ExitStack() as exchanges:
        metadata = cluster.metadata
        until(lambda: len(serving(metadata)) == 2, 10.0)
        # Which of both is the primary is by chance, and by the memory that they last told of.
        names: list[str] = []
        primaries: set[str] = set()
        while len(names) < 20 or (len(primaries) < 2 and len(names) < 500):
            name = f"mixed-{len(names)}"
            exchange = CoscoExchange(name, PARTITIONS, never, metadata=metadata)
            exchanges.enter_context(exchange)
            assert send(name, 1, rows, metadata).won
            assert exchange.progress().replicas == 2
            names.append(name)
            primaries.add(assignment(name, metadata).primary.address)
        assert len(primaries) == 2
        cluster.daemons[victim].kill()
        for name in names:
            assert fetch_all(name, [1], PARTITIONS, metadata) == expected
