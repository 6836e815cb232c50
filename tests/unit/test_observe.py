from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from prometheus_client import CollectorRegistry, Counter, Histogram, start_http_server

from cosco.errors import InvalidArgument, ServiceUnavailable
from cosco.observe import IoFigures, fetch_status, io_figures, read_metrics
from cosco.protocol.records import DaemonRef, DaemonState, DaemonStatus


@contextmanager
def endpoint(blocks: int, writes: list[int]) -> Iterator[str]:
    registry = CollectorRegistry()
    received = Counter("cosco_blocks_received", "blocks", ["reason"], registry=registry)
    received.labels("a").inc(blocks)
    received.labels("b").inc(1)
    sizes = Histogram("cosco_store_write_bytes", "writes", buckets=[10, 100], registry=registry)
    for size in writes:
        sizes.observe(size)
    server, thread = start_http_server(0, "127.0.0.1", registry)
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def daemon(metrics_address: str, state: DaemonState = DaemonState.SERVING) -> DaemonStatus:
    return DaemonStatus(DaemonRef(1, "h:1"), "h", "s", state, 1, 1, metrics_address, 0)


def test_samples_are_added_up_over_labels() -> None:
    with endpoint(4, [5, 50]) as address:
        samples = read_metrics(address)
    assert samples["cosco_blocks_received_total"] == 5
    assert samples["cosco_store_write_bytes_count"] == 2
    assert samples["cosco_store_write_bytes_sum"] == 55


def test_figures_are_those_of_the_living() -> None:
    with endpoint(4, [5, 50]) as one, endpoint(7, [500]) as two:
        figures = io_figures(
            [daemon(one), daemon(two), daemon(""), daemon("127.0.0.1:1", DaemonState.DEAD)]
        )
    assert figures == IoFigures(blocks_received=13, writes=3, write_bytes=555)
    assert figures.mean_write_bytes == 185
    assert figures.mean_read_bytes == 0


def test_nobody_there() -> None:
    with endpoint(0, []) as address:
        pass
    with pytest.raises(ServiceUnavailable, match=address):
        read_metrics(address)
    with pytest.raises(ServiceUnavailable, match=f"{address} does not answer"):
        fetch_status(address, timeout_s=5)
    with pytest.raises(InvalidArgument, match="nonsense"):
        fetch_status("nonsense")
