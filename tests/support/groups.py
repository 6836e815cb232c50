"""Exchanges of groups, written and read by handles: rows that name themselves, and counted."""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from support.exchanges import SERVICE_TIMEOUT_S, Pairs

from cosco import (
    Commit,
    CommitTimeout,
    CoscoExchange,
    CoscoExchangeGroup,
    CoscoReader,
    GroupHandle,
    LocalCluster,
)
from cosco.client.groups.commit_outbox import COMMIT_OUTBOXES
from cosco.format.segment import parse_segment_name
from cosco.observe import fetch_status

#: What a reader waits for in these tests before it is a failure.
WAIT_S = 30.0


def never(index: int, mappers: list[int], reason: str) -> None:
    """The callback of a group that loses nothing."""
    raise AssertionError(f"{mappers} of exchange {index} were called back: {reason}")


def make(
    name: str,
    metadata: str,
    *,
    partitions: int = 4,
    size: int = 4,
    mappers: int = 3,
    callback: Callable[[int, list[int], str], None] | None = never,
    **options: Any,
) -> CoscoExchangeGroup:
    """A group that waits for services as long as these tests do."""
    options = {"service_timeout_s": SERVICE_TIMEOUT_S, **options}
    return CoscoExchangeGroup(
        name, partitions, size, mappers, callback, metadata=metadata, **options
    )


def put(handle: GroupHandle, i: int, mapper: int, pairs: Pairs) -> Commit:
    """One attempt of a mapper."""
    with handle.writer(i, mapper) as writer:
        for partition, row in pairs:
            writer.collect(partition, row)
    return writer.close()


def take(
    handle: GroupHandle, i: int, partition: int, timeout_s: float | None = WAIT_S
) -> Counter[bytes]:
    """The verified rows of a partition."""
    with handle.reader(i, partition, timeout_s=timeout_s) as reader:
        return Counter(reader.read_table().column(0).to_pylist())


def take_all(handle: GroupHandle, i: int) -> list[Counter[bytes]]:
    """Those of all partitions, by readers side by side."""
    with ThreadPoolExecutor(handle.partitions) as readers:
        return list(readers.map(lambda p: take(handle, i, p), range(handle.partitions)))


def open_readers(
    handle: GroupHandle, i: int, partitions: Iterable[int], timeout_s: float | None = WAIT_S
) -> list[CoscoReader]:
    """Readers that wait at their daemons when this returns."""
    readers = [handle.reader(i, p, timeout_s=timeout_s) for p in partitions]
    for reader in readers:
        hear(handle, i, reader)
    return readers


def hear(handle: GroupHandle, i: int, reader: CoscoReader) -> None:
    """Return when the daemon of a reader of exchange `i` knows of it, as it answers in order."""
    with handle.reader(i, reader.partition, timeout_s=0.0) as probe:
        with suppress(CommitTimeout):
            probe.read_table()


def flush(metadata: str) -> None:
    """Return when this process has no commits left: so nothing asks for a cluster that ends."""
    COMMIT_OUTBOXES.of(metadata, SERVICE_TIMEOUT_S).flush()


class InBackground:
    """A call on a thread of its own, whose result is asked for later."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self._future: Future[Any] = Future()
        self._thread = threading.Thread(target=self._run, args=(call,), daemon=True)
        self._thread.start()

    def _run(self, call: Callable[[], Any]) -> None:
        try:
            self._future.set_result(call())
        except BaseException as error:  # noqa: BLE001  whatever it is, who asks is told
            self._future.set_exception(error)

    def is_done(self, timeout_s: float = 0.0) -> bool:
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def result(self, timeout_s: float = 2 * WAIT_S) -> Any:
        return self._future.result(timeout_s)


def committed(handle: GroupHandle, i: int) -> int:
    """Mappers of an exchange that the metadata service has commits of."""
    name = f"{handle.group_id}/{i}"
    exchange = CoscoExchange.attach(name, metadata=handle.metadata)
    return exchange.progress().mappers_committed


def used_bytes(metadata: str) -> int:
    """Memory in which all daemons together hold rows, as of their last heartbeats."""
    return sum(d.memory_bytes - d.free_bytes for d in fetch_status(metadata).daemons)


def stored_files(cluster: LocalCluster) -> list[Path]:
    """Files of exchanges in the stores of a cluster, also while they are being removed."""
    stores = cluster.directory.glob("store*")
    files = [Path(root, n) for s in stores for root, _, names in os.walk(s) for n in names]
    return [
        path
        for path in files
        if parse_segment_name(path.name) and path.parent.parent.name.isdigit()
    ]
