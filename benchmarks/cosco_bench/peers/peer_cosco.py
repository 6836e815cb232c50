"""Cosco's side of `cosco-bench peers`: one job after another on processes that live on.

As Spark's `local[threads]` has threads for map and reduce tasks alike, so there are `threads`
processes here that take one task after another, map tasks first.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, Final, TypeVar

import psutil

from cosco import CoscoExchange, CoscoReader, CoscoWriter
from cosco.local.cluster import LocalCluster
from cosco.local.workers import Link, TaskPool, WorkerResult
from cosco.partitioning import hash_partitions
from cosco_bench.peers.peer_files import Tally, read_batches, tally_of
from cosco_bench.peers.peer_process import PeerFailed, PeerResult

_Result = TypeVar("_Result")

DAEMONS: Final = 2
#: Of each daemon's page pool: what LocalCluster gives them by itself.
MEMORY: Final = "256MiB"


def scan_file(_link: Link, path: str) -> Tally:
    """Read a file and touch everything in it."""
    tally = Tally()
    for batch in read_batches(path):
        tally = tally.plus(tally_of(batch))
    return tally


def map_file(
    _link: Link, metadata: str, shuffle_id: str, mapper: int, path: str, partitions: int
) -> None:
    """Push the rows of a file to their partitions."""
    with CoscoWriter(shuffle_id, mapper, metadata=metadata) as writer:
        for batch in read_batches(path):
            writer.collect_batch(hash_partitions(batch, ["key"], partitions), batch)


def reduce_partition(
    _link: Link, metadata: str, shuffle_id: str, mappers: int, partition: int
) -> Tally:
    """Read a partition and touch everything in it."""
    tally = Tally()
    with CoscoReader(shuffle_id, range(mappers), partition, metadata=metadata) as reader:
        for batch in reader.read_batches():
            tally = tally.plus(tally_of(batch))
    return tally


def _sum(results: list[WorkerResult]) -> Tally:
    tally = Tally()
    for result in results:
        tally = tally.plus(result.value)
    return tally


def run_cosco(
    files: list[str],
    *,
    partitions: int,
    threads: int,
    replicas: int,
    warm_ups: int,
    runs: int,
    directory: str,
    on_done: Callable[[int], None],
) -> PeerResult:
    """Scan and shuffle `files` so many times; `on_done` is told 1 for each.

    Raises CoscoError, and PeerFailed if other rows came out than went in.
    """
    times: dict[str, list[float]] = {"scan": [], "shuffle": []}
    cpu_times: dict[str, list[float]] = {"scan": [], "shuffle": []}
    with (
        LocalCluster(DAEMONS, memory=MEMORY, directory=directory) as cluster,
        TaskPool("executor", threads) as pool,
    ):
        services = [
            psutil.Process(service.pid) for service in (cluster.metadata_service, *cluster.daemons)
        ]

        def scan() -> list[WorkerResult]:
            return pool.run(scan_file, [(path,) for path in files])

        def shuffle() -> tuple[list[WorkerResult], list[WorkerResult]]:
            shuffle_id = f"peers-{uuid.uuid4()}"
            place: tuple[Any, ...] = cluster.metadata, shuffle_id
            maps = [(*place, m, path, partitions) for m, path in enumerate(files)]
            reduces = [(*place, len(files), p) for p in range(partitions)]
            with CoscoExchange(
                shuffle_id, partitions, replicas=replicas, metadata=cluster.metadata
            ):
                return pool.run(map_file, maps), pool.run(reduce_partition, reduces)

        def timed(task: Callable[[], _Result], name: str) -> _Result:
            cpu_s, before = _cpu_s(services), time.perf_counter()
            result = task()
            times[name].append(time.perf_counter() - before)
            cpu_times[name].append(_cpu_s(services) - cpu_s)
            on_done(1)
            return result

        for _ in range(warm_ups + runs):
            scanners = timed(scan, "scan")
            scanned = _sum(scanners)
            mappers, reducers = timed(shuffle, "shuffle")
            tally = _sum(reducers)
            if tally != scanned:
                raise PeerFailed(f"the files hold {scanned}, and {tally} came out")
            cpu_times["scan"][-1] += sum(worker.cpu_s for worker in scanners)
            cpu_times["shuffle"][-1] += sum(worker.cpu_s for worker in (*mappers, *reducers))
    return PeerResult(
        seconds=times["shuffle"][warm_ups:],
        scan_seconds=times["scan"][warm_ups:],
        cpu_seconds=cpu_times["shuffle"][warm_ups:],
        scan_cpu_seconds=cpu_times["scan"][warm_ups:],
        tally=asdict(tally),
        versions={},
        settings={
            "executors": threads,
            "daemons": DAEMONS,
            "daemon_memory": MEMORY,
            "replicas": replicas,
        },
    )


def _cpu_s(services: list[psutil.Process]) -> float:
    times = [service.cpu_times() for service in services]
    return float(sum(t.user + t.system for t in times))
