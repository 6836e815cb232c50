"""Small jobs over real services: rows that name themselves, written, read and compared."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

from support.raw_push import RawMetadata

from cosco import Commit, CoscoError, CoscoReader, CoscoWriter
from cosco.observe import fetch_status
from cosco.protocol.records import Assignment, DaemonState, DaemonStatus, ExchangeInfo
from cosco.protocol.wire import from_pb, mpb

Pairs = list[tuple[int, bytes]]
#: So long a client waits for services in these tests before it gives up.
SERVICE_TIMEOUT_S = 30.0


def numbered(mapper: int, rows: int, *, partitions: int = 1, size: int = 1000) -> Pairs:
    """Rows of about `size` bytes, each another one."""
    return [
        (i % partitions, b"%d.%d:" % (mapper, i) + bytes([i % 251]) * size) for i in range(rows)
    ]


def by_partition(pairs: Iterable[tuple[int, bytes]], partitions: int) -> list[Counter[bytes]]:
    """What readers of all partitions together must yield."""
    found: list[Counter[bytes]] = [Counter() for _ in range(partitions)]
    for partition, row in pairs:
        found[partition][row] += 1
    return found


def send(
    name: str,
    mapper: int,
    pairs: Pairs,
    metadata: str,
    *,
    buffer_bytes: int = 64 << 10,
    halfway: Callable[[], object] | None = None,
) -> Commit:
    """One attempt of a mapper; `halfway` is called when about half of it is collected."""
    with CoscoWriter(
        name,
        mapper,
        buffer_bytes=buffer_bytes,
        metadata=metadata,
        service_timeout_s=SERVICE_TIMEOUT_S,
    ) as writer:
        for i, (partition, row) in enumerate(pairs):
            if halfway is not None and i == len(pairs) // 2:
                halfway()
            writer.collect(partition, row)
        return writer.close()


def fetch(
    name: str,
    mappers: Iterable[int],
    partition: int,
    metadata: str,
    *,
    timeout_s: float = 30.0,
) -> Counter[bytes]:
    """The verified rows of a partition."""
    with CoscoReader(
        name,
        mappers,
        partition,
        timeout_s=timeout_s,
        metadata=metadata,
        service_timeout_s=SERVICE_TIMEOUT_S,
    ) as reader:
        return Counter(reader.read_table().column(0).to_pylist())


def fetch_all(
    name: str,
    mappers: Iterable[int],
    partitions: int,
    metadata: str,
    *,
    timeout_s: float = 30.0,
) -> list[Counter[bytes]]:
    """All partitions, by readers side by side."""
    wanted = list(mappers)
    with ThreadPoolExecutor(partitions) as readers:
        reads = [
            readers.submit(fetch, name, wanted, p, metadata, timeout_s=timeout_s)
            for p in range(partitions)
        ]
        return [each.result() for each in reads]


def never(mappers: list[int], reason: str) -> None:
    """The callback of an exchange that loses nothing."""
    raise AssertionError(f"{mappers} were called back: {reason}")


def until(condition: Callable[[], bool], timeout_s: float, what: str = "it") -> float:
    """Ask until a condition outside this process is true, less often as time goes by.

    Returns: the seconds that it took.
    """
    began = time.monotonic()
    while not condition():
        waited_s = time.monotonic() - began
        assert waited_s < timeout_s, f"{what} did not happen in {timeout_s} s"
        threading.Event().wait(min(max(0.02, waited_s / 10), 0.1))
    return time.monotonic() - began


def describe(name: str, metadata: str) -> ExchangeInfo:
    """The exchange as its clients see it."""
    raw = RawMetadata(metadata)
    try:
        reply = raw.call("DescribeExchange", mpb.DescribeExchangeRequest(shuffle_id=name))
    finally:
        raw.close()
    return from_pb(ExchangeInfo, reply)


def assignment(name: str, metadata: str, range_index: int = 0) -> Assignment:
    """The present assignment of a range."""
    return describe(name, metadata).assignments[range_index]


def serving(metadata: str) -> dict[str, DaemonStatus]:
    """Daemons that may be given new epochs, by address; none while the service is away."""
    try:
        daemons = fetch_status(metadata).daemons
    except CoscoError:
        return {}
    return {d.ref.address: d for d in daemons if d.state is DaemonState.SERVING}
