"""Seeded runs of real processes under faults, and what has to be true of each.

A run is a few exchanges at once: mappers in processes and in threads write rows that follow
from the seed, readers wait for them, a driver has mappers run again when it is told to, and
meanwhile daemons and the metadata service are killed, paused, drained and started again. At the
end the multiset of the rows read is the multiset of the rows written, or the run has failed.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain
from typing import Self, TypeVar

from support.exchanges import by_partition

from cosco import (
    CoscoError,
    CoscoExchange,
    CoscoReader,
    CoscoWriter,
    GenerationChanged,
    LocalCluster,
    ServiceUnavailable,
)
from cosco.local.cluster import ServiceProcess

#: Nothing of a run may take longer; a usual one takes a second or two.
RUN_TIMEOUT_S = 60.0
_SERVICE_TIMEOUT_S = 40.0
_FILLER = random.Random(0).randbytes(3 << 20)
_WORKER_PROCESSES = 2
_Client = TypeVar("_Client", CoscoReader, CoscoWriter)


# --- rows -------------------------------------------------------------------------------------


def rows_of(seed: int, mapper: int, partitions: int, rows: int) -> Iterator[tuple[int, bytes]]:
    """(partition, row) pairs of a mapper, the same at every call; each row names itself."""
    chance = random.Random(f"{seed}.{mapper}")
    longest = chance.choice([0, 200_000, 2_500_000])  # of the one long row it may have
    for i in range(rows):
        size = chance.choice([0, 10, 100, 1000, 4000])
        if i == rows // 2:
            size = chance.randrange(longest + 1)
        start = chance.randrange(len(_FILLER) - size)
        yield (
            chance.randrange(partitions),
            b"%d.%d.%d:" % (seed, mapper, i) + _FILLER[start : start + size],
        )


@dataclass(frozen=True)
class Task:
    """One mapper to run; sent to worker processes."""

    shuffle_id: str
    seed: int
    mapper: int
    partitions: int
    rows: int
    metadata: str
    pause_s: float
    tries: int


def run_mapper(task: Task) -> bool:
    """Write its rows and commit; whether this attempt won. Again while engines would as well."""
    for left in reversed(range(task.tries)):
        try:
            return _write(task)
        except CoscoError as error:
            if not left or not (error.retriable or isinstance(error, GenerationChanged)):
                raise
    raise AssertionError("a task of no tries")


def opened(make: Callable[[], _Client]) -> _Client:
    """A writer or a reader. A process that never met the service gives it up in `FIRST_CONTACT_S`,
    as promised, and a service that a fault has killed takes longer to start on a busy machine."""
    until = time.monotonic() + RUN_TIMEOUT_S
    while True:
        try:
            return make()
        except ServiceUnavailable:
            if time.monotonic() > until:
                raise


def _write(task: Task) -> bool:
    rows = list(rows_of(task.seed, task.mapper, task.partitions, task.rows))
    chance = random.Random()
    pace = threading.Event()
    buffer_bytes = chance.choice([64 << 10, 256 << 10, 4 << 20])
    writer = opened(
        lambda: CoscoWriter(
            task.shuffle_id,
            task.mapper,
            buffer_bytes=buffer_bytes,
            metadata=task.metadata,
            service_timeout_s=_SERVICE_TIMEOUT_S,
        )
    )
    with writer:
        first = 0
        while first < len(rows):
            some = rows[first : first + chance.randrange(1, 60)]
            if chance.random() < 0.5:
                for partition, row in some:
                    writer.collect(partition, row)
            else:
                writer.collect_batch([p for p, _ in some], [row for _, row in some])
            first += len(some)
            pace.wait(task.pause_s)  # so that faults find it at work
        return writer.close().won


# --- one exchange -----------------------------------------------------------------------------


@dataclass
class Job:
    """One exchange of a run, as an engine would use it."""

    name: str
    seed: int
    metadata: str
    replicas: int
    strict: bool
    deterministic: bool
    run: Callable[[Task], Future[bool]]
    losses: list[tuple[list[int], str]] = field(default_factory=list)
    reruns: list[Future[bool]] = field(default_factory=list)

    def __post_init__(self) -> None:
        chance = random.Random(self.seed)
        self.partitions = chance.choice([1, 2, 5, 12])
        self.mappers = sorted(chance.sample(range(1000), chance.randrange(2, 6)))
        self.rows = chance.choice([50, 200, 600])
        self.pause_s = chance.choice([0.0, 0.02, 0.06])
        self.twice = set(self.mappers[:1]) if chance.random() < 0.3 else set()
        self.chance = chance
        self.exchange = CoscoExchange(
            self.name,
            self.partitions,
            self._recompute,
            replicas=self.replicas,
            deterministic=self.deterministic,
            codec=chance.choice(["lz4", "none"]),
            lease_s=60,
            metadata=self.metadata,
            service_timeout_s=_SERVICE_TIMEOUT_S,
        )

    def _task(self, mapper: int, pause_s: float, tries: int) -> Task:
        return Task(
            self.name, self.seed, mapper, self.partitions, self.rows, self.metadata, pause_s, tries
        )

    def _recompute(self, mappers: list[int], reason: str) -> None:
        self.losses.append((mappers, reason))
        self.reruns += [self.run(self._task(mapper, 0.0, 4)) for mapper in mappers]

    def start(self, readers: ThreadPoolExecutor) -> None:
        """Begin to write, and to wait for it with readers."""
        tries = 1 if self.strict else 4
        self.attempts = [
            (mapper, self.run(self._task(mapper, self.pause_s, tries)))
            for mapper in [*self.mappers, *self.twice]
        ]
        self.reads = [readers.submit(self.read, partition) for partition in range(self.partitions)]

    def read(self, partition: int) -> Counter[bytes]:
        """The rows of a partition, from as many readers as it takes."""
        by_rows = bool(partition % 2)
        until = time.monotonic() + RUN_TIMEOUT_S
        while True:
            with opened(lambda: self._reader(partition)) as reader:
                try:
                    if by_rows:
                        return Counter(reader)
                    return Counter(reader.read_table().column(0).to_pylist())
                except CoscoError as error:
                    again = error.retriable or isinstance(error, GenerationChanged)
                    if self.strict or not again or time.monotonic() > until:
                        raise

    def _reader(self, partition: int) -> CoscoReader:
        return CoscoReader(
            self.name,
            self.mappers,
            partition,
            timeout_s=RUN_TIMEOUT_S,
            metadata=self.metadata,
            service_timeout_s=_SERVICE_TIMEOUT_S,
        )

    def written(self) -> list[Counter[bytes]]:
        """What must be read, by partition."""
        pairs = (rows_of(self.seed, m, self.partitions, self.rows) for m in self.mappers)
        return by_partition(chain.from_iterable(pairs), self.partitions)

    def check(self, deadline: float) -> None:
        """Wait for its end; every row must have come once, and no mapper have lost twice."""
        expected = self.written()
        for partition, read in enumerate(self.reads):
            differ(read.result(max(0.0, deadline - time.monotonic())), expected[partition])
        won: Counter[int] = Counter()
        for mapper, attempt in self.attempts:
            won[mapper] += attempt.result(max(0.0, deadline - time.monotonic()))
        for rerun in self.reruns:
            rerun.result(max(0.0, deadline - time.monotonic()))
        if self.strict:
            assert won == Counter(self.mappers), won
            assert not self.losses, self.losses
        # Once more, now that everything is over.
        partition = self.chance.randrange(self.partitions)
        differ(self.read(partition), expected[partition])
        progress = self.exchange.progress()
        assert progress.partition_rows.tolist() == [each.total() for each in expected]


def differ(found: Counter[bytes], expected: Counter[bytes]) -> None:
    """Raise, with what is told of a few rows, unless the two are the same."""
    if found != expected:
        missing, excess = expected - found, found - expected
        shown = [row[:24] for row in [*list(missing)[:3], *list(excess)[:3]]]
        raise AssertionError(
            f"{missing.total()} rows are missing, {excess.total()} too many: {shown}"
        )


# --- faults -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Fault:
    """Something that happens to one service, `at_s` after the run began, for `for_s`."""

    at_s: float
    kind: str  # kill, pause, drain, metadata
    daemon: int
    for_s: float

    @staticmethod
    def random(chance: random.Random, daemons: int, kinds: Iterable[str]) -> Fault:
        kind = chance.choice(list(kinds))
        long_s = {"pause": 3.0}.get(kind, 0.5)
        return Fault(
            at_s=chance.uniform(0.0, 1.2),
            kind=kind,
            daemon=chance.randrange(daemons),
            for_s=chance.uniform(0.0, long_s),
        )


class Runner:
    """A cluster and worker processes that many runs share."""

    def __init__(self, cluster: LocalCluster) -> None:
        self.cluster = cluster
        self._locks = [threading.Lock() for _ in range(len(cluster.daemons) + 1)]
        self._processes = multiprocessing.get_context("forkserver").Pool(_WORKER_PROCESSES)
        self._threads = ThreadPoolExecutor(64)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.cluster.close()
        self._processes.terminate()
        self._processes.join()
        self._threads.shutdown(wait=False, cancel_futures=True)

    def run(
        self,
        name: str,
        seed: int,
        *,
        replicas: int,
        strict: bool,
        kinds: Iterable[str],
    ) -> int:
        """One run; returns how many losses the drivers were told of.

        strict: one fault only, after which no mapper may be called back.
        """
        chance = random.Random(seed)
        daemons = len(self.cluster.daemons)
        faults = [
            Fault.random(chance, daemons, kinds)
            for _ in range(1 if strict else chance.randrange(2, 5))
        ]
        print(f"{name}: {faults}")
        jobs = [
            Job(
                f"{name}-{seed}-{number}",
                chance.getrandbits(32),
                self.cluster.metadata,
                replicas,
                strict,
                strict or chance.random() < 0.8,
                self._start_task,
            )
            for number in range(chance.choice([1, 1, 2, 3]))
        ]
        began = time.monotonic()
        failing = [self._threads.submit(self._inflict, began, fault) for fault in faults]
        try:
            for job in jobs:
                job.start(self._threads)
            for job in jobs:
                job.check(began + RUN_TIMEOUT_S)
        finally:
            for job in jobs:
                with suppress(CoscoError):  # said already, by what failed
                    job.exchange.close()
            self._heal(failing)
        return sum(len(job.losses) for job in jobs)

    def _start_task(self, task: Task) -> Future[bool]:
        """In a process or in a thread, by turns."""
        if task.mapper % 2:
            return self._threads.submit(run_mapper, task)
        pending = self._processes.apply_async(run_mapper, (task,))
        return self._threads.submit(pending.get, RUN_TIMEOUT_S)

    def _inflict(self, began: float, fault: Fault) -> None:
        threading.Event().wait(max(0.0, began + fault.at_s - time.monotonic()))
        if fault.kind == "metadata":
            with self._locks[-1]:
                self.cluster.metadata_service.kill()
                threading.Event().wait(fault.for_s)
                self.cluster.metadata_service.restart()
            return
        daemon = self.cluster.daemons[fault.daemon]
        with self._locks[fault.daemon]:
            if fault.kind == "kill":
                daemon.kill()
                threading.Event().wait(fault.for_s)
                restart(daemon, self._locks[-1])
            elif fault.kind == "pause":
                os.kill(daemon.pid, signal.SIGSTOP)
                try:
                    threading.Event().wait(fault.for_s)
                finally:
                    os.kill(daemon.pid, signal.SIGCONT)
            else:
                daemon.stop()
                restart(daemon, self._locks[-1])

    def _heal(self, failing: list[Future[None]]) -> None:
        """Everything serves again, whatever was done to it."""
        for fault in failing:
            fault.result(RUN_TIMEOUT_S)


def restart(daemon: ServiceProcess, metadata_lock: threading.Lock) -> None:
    """Start it once the metadata service is there: a daemon waits for one only so long."""
    with metadata_lock:
        daemon.restart()
