"""`cosco-bench growth`: what a GB costs as exchanges get larger and have more parts.

Every shape of an exchange goes through the same processes and the same daemons; the shapes
take turns, run by run, so that a machine that gets slower does so for all of them. Then the
metadata service alone: see `metadata_scale`.
"""

from __future__ import annotations

import statistics
import time
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

from rich.table import Table

from cosco import CoscoExchange
from cosco.errors import DataCorrupted
from cosco.local.cluster import LocalCluster
from cosco.local.workers import TaskPool
from cosco_bench.growth.metadata_scale import run_scale, scale_table
from cosco_bench.harness.bench_report import Bars, Report, table
from cosco_bench.harness.bench_rows import RowTally
from cosco_bench.harness.capacity import GB, ROW_BYTES, even_parts
from cosco_bench.harness.flow import make_stock, map_rows, reduce_rows
from cosco_bench.harness.measuring import CpuClock, wait_until_deleted
from cosco_bench.settings import WARM_UP_ROWS, Growing, GrowthSettings, Shape

#: Tasks that take all partitions, at most.
_REDUCE_TASKS: Final = 32
_AXES: Final = {
    Growing.SIZE: "GB of rows",
    Growing.PARTITIONS: "partitions",
    Growing.MAPPERS: "mappers",
}


@dataclass(slots=True)
class ShapeFigures:
    """Seconds of each run, those of writing, and CPU seconds of all processes."""

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
        """Return the figures of the shapes along one way to grow, smallest first."""
        return [self.figures[s].to_json(s) for s in self.settings.shapes()[growing]]

    def spread(self, growing: Growing) -> float | None:
        """Return the cost of the dearest GB ÷ that of the cheapest; None without a curve."""
        costs = [point["s_per_gb"] for point in self.curve(growing)]
        return max(costs) / min(costs) if costs else None

    def to_json(self) -> dict[str, Any]:
        return {
            "growth": {growing.label: self.curve(growing) for growing in Growing},
            "spread": {growing.label: self.spread(growing) for growing in Growing},
            "target": {growing.label: growing.value for growing in Growing},
        }


def measure(settings: GrowthSettings, bars: Bars) -> Report:
    """Run every shape `settings.runs` times, and the metadata service alone.

    Raises DataCorrupted if other rows come out, or the service counts wrong.
    """
    on_rows = bars.counter("rows", settings.rows)
    shapes = settings.distinct_shapes()
    result = GrowthResult(settings, {shape: ShapeFigures() for shape in shapes})
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
                    run.measure(shape, result.figures[shape], on_rows)
    figures = result.to_json()
    tables = [_table(result)] if shapes else []
    if settings.scale is not None:
        scaled = run_scale(settings.scale, bars.counter("attempts", 2 * settings.scale.mappers))
        figures["metadata"] = scaled.to_json()
        tables.append(scale_table(settings.scale, scaled))
    return Report(figures, tables, draw=partial(draw, result))


class _Run:
    """Runs shapes on a cluster and a pool that live on."""

    def __init__(self, settings: GrowthSettings, cluster: LocalCluster, pool: TaskPool) -> None:
        self._settings = settings
        self._metadata = cluster.metadata
        self._pool = pool
        self._services = CpuClock(cluster)

    def warm_up(self) -> None:
        """Have all processes touch what they will use."""
        self._pool.run(make_stock, [()] * self._settings.workers)
        base = self._settings
        shape = Shape(WARM_UP_ROWS * ROW_BYTES, base.base_partitions, base.base_mappers)
        self.measure(shape, ShapeFigures(), lambda _: None)

    def measure(self, shape: Shape, figures: ShapeFigures, on_rows: Callable[[int], None]) -> None:
        """Add a run of `shape` to `figures`."""
        shuffle_id = f"growth-{uuid.uuid4()}"
        place = self._metadata, shuffle_id
        maps = [
            (*place, mapper, len(rows), shape.partitions)
            for mapper, rows in enumerate(even_parts(shape.rows, shape.mappers))
        ]
        tasks = min(shape.partitions, _REDUCE_TASKS)
        reduces = [(*place, shape.mappers, part) for part in even_parts(shape.partitions, tasks)]
        cpu_s = -self._services.seconds()
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
            cpu_s += self._services.seconds()
        sent, received = (
            sum((w.value for w in workers), RowTally()) for workers in (written, read)
        )
        if sent != received or sent.rows != shape.rows:
            raise DataCorrupted(f"{shape}: {sent} were written and {received} were read")
        figures.seconds.append(seconds)
        figures.write_s.append(write_s)
        figures.cpu_s.append(cpu_s + sum(worker.cpu_s for worker in (*written, *read)))
        wait_until_deleted(self._metadata, shuffle_id)


# --- the report ---------------------------------------------------------------------------


def _table(result: GrowthResult) -> Table:
    headings = (
        "GB", "partitions", "mappers", "s/GB", "writing", "CPU s/GB", "spread", "target",
    )  # fmt: skip
    made = table(f"medians of {result.settings.runs} runs", *headings)
    for growing in Growing:
        curve, spread = result.curve(growing), result.spread(growing)
        for point in curve:
            is_last = point is curve[-1]
            made.add_row(
                f"{point['size'] / GB:g}",
                f"{point['partitions']:,}",
                f"{point['mappers']:,}",
                *(f"{point[key]:.2f}" for key in ("s_per_gb", "write_s_per_gb", "cpu_s_per_gb")),
                f"{spread:.2f}" if is_last else "",
                f"{growing.value:.2f}" if is_last else "",
                end_section=is_last,
            )
    return made


def draw(result: GrowthResult, path: Path) -> None:
    """Write the curves to `path`; the kind of file is that of its ending."""
    # Here and not above: only who plots waits for its import.
    from matplotlib.figure import Figure  # noqa: PLC0415

    drawn = [growing for growing in Growing if result.curve(growing)]
    figure = Figure(figsize=(4 * max(1, len(drawn)), 3.2), layout="constrained")
    panels = figure.subplots(1, max(1, len(drawn)), sharey=True, squeeze=False)[0]
    for panel, growing in zip(panels, drawn, strict=False):
        curve = result.curve(growing)
        if growing is Growing.SIZE:
            values = [point["size"] / GB for point in curve]
        else:
            values = [point[growing.label] for point in curve]
        parts = (("s_per_gb", "seconds"), ("cpu_s_per_gb", "CPU seconds of all processes"))
        for key, label in parts:
            panel.plot(values, [point[key] for point in curve], marker="o", label=label)
        panel.set_xscale("log", base=2)
        panel.set_xticks(values, [f"{value:g}" for value in values])
        panel.set_xlabel(_AXES[growing])
        panel.grid(visible=True, alpha=0.3)
    panels[0].set_ylim(bottom=0)  # of all: they share the axis
    panels[0].set_ylabel("per GB of rows")
    panels[0].legend()
    figure.savefig(path)
