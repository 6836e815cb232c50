"""Cosco's side of `cosco-bench peers`: one job after another on processes that live on.

As Spark's `local[threads]` has threads for map and reduce tasks alike, so there are `threads`
processes here that take one task after another, map tasks first.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterable
from dataclasses import asdict
from typing import Final

from cosco import CoscoExchange, CoscoReader, CoscoWriter
from cosco.local.cluster import LocalCluster
from cosco.local.workers import Link, TaskPool, WorkerResult
from cosco.partitioning import hash_partitions
from cosco_bench.harness.bench_rows import RowTally
from cosco_bench.harness.measuring import CpuClock
from cosco_bench.peers.peer_files import read_batches, tally_of
from cosco_bench.peers.peer_process import PeerFailed, PeerResult
from cosco_bench.peers.scratch import Scratch
from cosco_bench.settings import PeersSettings

DAEMONS: Final = 2
#: Page pool of each daemon: what LocalCluster gives them by itself.
MEMORY: Final = "256MiB"


def scan_file(_link: Link, path: str) -> RowTally:
    """Read a file and touch everything in it."""
    return sum(map(tally_of, read_batches(path)), RowTally())


def map_file(
    _link: Link, metadata: str, shuffle_id: str, mapper: int, path: str, partitions: int
) -> None:
    """Push the rows of a file to their partitions."""
    with CoscoWriter(shuffle_id, mapper, metadata=metadata) as writer:
        for batch in read_batches(path):
            writer.collect_batch(hash_partitions(batch, ["key"], partitions), batch)


def reduce_partition(
    _link: Link, metadata: str, shuffle_id: str, mappers: int, partition: int
) -> RowTally:
    """Read a partition and touch everything in it."""
    with CoscoReader(shuffle_id, range(mappers), partition, metadata=metadata) as reader:
        return sum(map(tally_of, reader.read_batches()), RowTally())


def run_cosco(
    settings: PeersSettings,
    files: list[str],
    scratch: Scratch,
    on_done: Callable[[int], None],
    *,
    replicas: int,
) -> PeerResult:
    """Scan and shuffle `files`, again and again; `on_done` is told 1 for each.

    Raises CoscoError, and PeerFailed if other rows came out than went in.
    """
    result = PeerResult(
        settings={
            "executors": settings.threads,
            "daemons": DAEMONS,
            "daemon_memory": MEMORY,
            "replicas": replicas,
        }
    )
    with (
        LocalCluster(DAEMONS, memory=MEMORY, directory=scratch.directory) as cluster,
        TaskPool("executor", settings.threads) as pool,
    ):
        side = _Side(cluster, pool, files, settings.partitions, replicas)
        for index in range(settings.warm_ups + settings.runs):
            scanned, scan_s, scan_cpu_s = side.timed(side.scan)
            on_done(1)
            tally, shuffle_s, shuffle_cpu_s = side.timed(side.shuffle)
            on_done(1)
            if tally != scanned:
                raise PeerFailed(f"the files hold {scanned}, and {tally} came out")
            if index >= settings.warm_ups:
                result.seconds.append(shuffle_s)
                result.scan_seconds.append(scan_s)
                result.cpu_seconds.append(shuffle_cpu_s)
                result.scan_cpu_seconds.append(scan_cpu_s)
                result.tally.update(asdict(tally))
    return result


class _Side:
    """A cluster and executors that live on, and the two things that are timed on them."""

    def __init__(
        self,
        cluster: LocalCluster,
        pool: TaskPool,
        files: list[str],
        partitions: int,
        replicas: int,
    ) -> None:
        self._metadata = cluster.metadata
        self._pool = pool
        self._files = files
        self._partitions = partitions
        self._replicas = replicas
        self._services = CpuClock(cluster)
        self._tasks: list[WorkerResult] = []

    def timed(self, work: Callable[[], RowTally]) -> tuple[RowTally, float, float]:
        """Return the tally of what was read, and the seconds and CPU seconds that it took."""
        self._tasks.clear()
        cpu_s, before = self._services.seconds(), time.perf_counter()
        tally = work()
        seconds = time.perf_counter() - before
        cpu_s = self._services.seconds() - cpu_s
        return tally, seconds, cpu_s + sum(task.cpu_s for task in self._tasks)

    def scan(self) -> RowTally:
        return _sum(self._done(self._pool.run(scan_file, [(path,) for path in self._files])))

    def shuffle(self) -> RowTally:
        place = self._metadata, f"peers-{uuid.uuid4()}"
        maps = [(*place, m, path, self._partitions) for m, path in enumerate(self._files)]
        reduces = [(*place, len(self._files), p) for p in range(self._partitions)]
        with CoscoExchange(
            place[1], self._partitions, replicas=self._replicas, metadata=self._metadata
        ):
            self._done(self._pool.run(map_file, maps))
            return _sum(self._done(self._pool.run(reduce_partition, reduces)))

    def _done(self, tasks: list[WorkerResult]) -> list[WorkerResult]:
        self._tasks += tasks
        return tasks


def _sum(tasks: Iterable[WorkerResult]) -> RowTally:
    return sum((task.value for task in tasks), RowTally())
