"""`cosco-bench growth`: what a GB costs as exchanges get larger and have more parts.

Every shape of an exchange goes through the same processes and the same daemons; the shapes
take turns, run by run, so that a machine that gets slower does so for all of them.
"""

from __future__ import annotations

import statistics
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from enum import Enum
from typing import Any, Final

import psutil

from cosco import CoscoExchange
from cosco.errors import DataCorrupted
from cosco.local.cluster import LocalCluster
from cosco.local.workers import TaskPool
from cosco_bench.harness.bench_rows import ROW_BYTES
from cosco_bench.harness.capacity import BUFFER_BYTES, GB, PROCESS_BYTES, STORE_OVERHEAD, check_room
from cosco_bench.harness.deletion import wait_until_deleted
from cosco_bench.harness.flow import STOCK_BYTES, make_stock, map_rows, reduce_rows
from cosco_bench.harness.tally import total

#: So many reduce tasks take all partitions, at most.
_REDUCE_TASKS: Final = 32
_WARM_UP_ROWS: Final = 1_000_000


class Growing(Enum):
    """What grows; the value is the bound on dearest ÷ cheapest GB that we set ourselves."""

    SIZE = 1.15
    PARTITIONS = 2.0
    MAPPERS = 1.5

    @property
    def label(self) -> str:
        """As it is called in results."""
        return self.name.lower()


@dataclass(frozen=True, slots=True, order=True)
class Shape:
    """One exchange; `size` in bytes of rows."""

    size: int
    partitions: int
    mappers: int

    @property
    def rows(self) -> int:
        return self.size // ROW_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class GrowthSettings:
    """What to run: each of `sizes`, `partitions` and `mappers` with the others at the base."""

    sizes: tuple[int, ...] = (GB, 4 * GB, 16 * GB)
    partitions: tuple[int, ...] = (16, 256, 4096)
    mappers: tuple[int, ...] = (8, 128, 1024)
    base_size: int = GB
    base_partitions: int = 64
    base_mappers: int = 8
    runs: int = 3
    workers: int = 2
    daemons: int = 2
    memory: int = 256 << 20
    replicas: int = 1
    directory: str | None = None

    def shapes(self) -> dict[Growing, list[Shape]]:
        """The exchanges along each way to grow, smallest first."""
        size, partitions, mappers = self.base_size, self.base_partitions, self.base_mappers
        return {
            Growing.SIZE: [Shape(s, partitions, mappers) for s in sorted(self.sizes)],
            Growing.PARTITIONS: [Shape(size, p, mappers) for p in sorted(self.partitions)],
            Growing.MAPPERS: [Shape(size, partitions, m) for m in sorted(self.mappers)],
        }

    def distinct_shapes(self) -> list[Shape]:
        """Each exchange once, smallest first."""
        return sorted({shape for shapes in self.shapes().values() for shape in shapes})

    @property
    def rows(self) -> int:
        """Of all runs, each written and read."""
        return 2 * self.runs * sum(shape.rows for shape in self.distinct_shapes())

    def check_capacity(self) -> None:
        """Raise CapacityExceeded if it cannot fit this machine, with the figures."""
        largest = max((shape.size for shape in self.distinct_shapes()), default=0)
        processes = self.daemons + self.workers + 2
        check_room(
            f"exchanges of {largest / GB:g} GB",
            memory=self.daemons * self.memory
            + self.workers * (STOCK_BYTES + 2 * BUFFER_BYTES)
            + processes * PROCESS_BYTES,
            disk=int((largest + _WARM_UP_ROWS * ROW_BYTES) * STORE_OVERHEAD),
            directory=self.directory,
            less_memory="ask for fewer --workers or less --memory",
            less_disk="ask for smaller --sizes or give a --directory",
        )


@dataclass(slots=True)
class ShapeFigures:
    """Seconds of each run, in all, of it writing, and CPU seconds of all processes."""

    seconds: list[float] = field(default_factory=list)
    write_s: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)

    def to_json(self, shape: Shape) -> dict[str, Any]:
        gb = shape.size / GB
        return {
            **asdict(shape),
            "s_per_gb": statistics.median(self.seconds) / gb,
            "write_s_per_gb": statistics.median(self.write_s) / gb,
            "cpu_s_per_gb": statistics.median(self.cpu_s) / gb,
            "seconds": self.seconds,
        }


@dataclass(frozen=True, slots=True)
class GrowthResult:
    """Figures by shape."""

    settings: GrowthSettings
    figures: dict[Shape, ShapeFigures]

    def curve(self, growing: Growing) -> list[dict[str, Any]]:
        """Figures of the shapes along one way to grow, smallest first."""
        return [self.figures[s].to_json(s) for s in self.settings.shapes()[growing]]

    def spread(self, growing: Growing) -> float | None:
        """The dearest GB in terms of the cheapest one; None without a curve."""
        costs = [point["s_per_gb"] for point in self.curve(growing)]
        return max(costs) / min(costs) if costs else None

    def to_json(self) -> dict[str, Any]:
        return {
            "growth": {growing.label: self.curve(growing) for growing in Growing},
            "spread": {growing.label: self.spread(growing) for growing in Growing},
            "target": {growing.label: growing.value for growing in Growing},
        }


def run_growth(
    settings: GrowthSettings, *, on_rows: Callable[[int], None] = lambda _: None
) -> GrowthResult:
    """Run every shape `settings.runs` times; `on_rows` is told rows written and rows read.

    Raises CapacityExceeded before anything starts, DataCorrupted if other rows come out.
    """
    settings.check_capacity()
    shapes = settings.distinct_shapes()
    figures = {shape: ShapeFigures() for shape in shapes}
    if shapes:
        with (
            LocalCluster(
                settings.daemons, memory=str(settings.memory), directory=settings.directory
            ) as cluster,
            TaskPool("worker", settings.workers) as pool,
        ):
            run = _Run(settings, cluster, pool)
            run.warm_up()
            for _ in range(settings.runs):
                for shape in shapes:
                    run.measure(shape, figures[shape], on_rows)
    return GrowthResult(settings, figures)


class _Run:
    """Runs shapes on a cluster and a pool that live on."""

    def __init__(self, settings: GrowthSettings, cluster: LocalCluster, pool: TaskPool) -> None:
        self._settings = settings
        self._metadata = cluster.metadata
        self._pool = pool
        self._services = [
            psutil.Process(service.pid) for service in (cluster.metadata_service, *cluster.daemons)
        ]

    def warm_up(self) -> None:
        """Have all processes touch what they will use."""
        self._pool.run(make_stock, [()] * self._settings.workers)
        base = self._settings
        shape = Shape(_WARM_UP_ROWS * ROW_BYTES, base.base_partitions, base.base_mappers)
        self.measure(shape, ShapeFigures(), lambda _: None)

    def measure(self, shape: Shape, figures: ShapeFigures, on_rows: Callable[[int], None]) -> None:
        """Add a run of `shape` to `figures`."""
        shuffle_id = f"growth-{uuid.uuid4()}"
        place = self._metadata, shuffle_id
        share = [shape.rows * i // shape.mappers for i in range(shape.mappers + 1)]
        maps = [
            (*place, mapper, share[mapper + 1] - share[mapper], shape.partitions)
            for mapper in range(shape.mappers)
        ]
        reduces = [(*place, shape.mappers, part) for part in _parts(shape.partitions)]
        cpu_s = -self._cpu_s()
        started = time.perf_counter()
        with CoscoExchange(
            shuffle_id,
            shape.partitions,
            replicas=self._settings.replicas,
            metadata=self._metadata,
        ):
            written = self._pool.run(map_rows, maps, on_rows)
            write_s = time.perf_counter() - started
            read = self._pool.run(reduce_rows, reduces, on_rows)
            seconds = time.perf_counter() - started
            cpu_s += self._cpu_s()
        sent, received = (total(w.value for w in workers) for workers in (written, read))
        if sent != received or sent.rows != shape.rows:
            raise DataCorrupted(f"{shape}: {sent} were written and {received} were read")
        figures.seconds.append(seconds)
        figures.write_s.append(write_s)
        figures.cpu_s.append(cpu_s + sum(worker.cpu_s for worker in (*written, *read)))
        wait_until_deleted(self._metadata, shuffle_id)

    def _cpu_s(self) -> float:
        times = [process.cpu_times() for process in self._services]
        return float(sum(t.user + t.system for t in times))


def _parts(partitions: int) -> Iterator[range]:
    """All partitions in at most _REDUCE_TASKS tasks."""
    tasks = min(partitions, _REDUCE_TASKS)
    for task in range(tasks):
        yield range(partitions * task // tasks, partitions * (task + 1) // tasks)
