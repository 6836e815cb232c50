"""`cosco-bench latency --group`: micro-batches of two stages, in groups of several sizes.

Drizzle's micro-benchmark (Venkataraman et al., SOSP 2017, section 5): each mapper sums 10,000
numbers by key, each reducer adds the mappers' sums of its keys up. See `micro_work` for the
tasks, `micro_cosco` for what is on the clock, `micro_peers` for the same on other systems, and
`micro_row` for a single row.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from cosco.errors import CoscoError
from cosco.local.cluster import LocalCluster
from cosco.local.workers import TaskPool
from cosco_bench.harness.capacity import PROCESS_BYTES, check_room
from cosco_bench.harness.quantiles import Quantiles
from cosco_bench.micro.micro_cosco import MicroFigures, run_cosco
from cosco_bench.micro.micro_peers import MICRO_PROGRAMS, PeerFigures, run_micro_peer
from cosco_bench.micro.micro_row import push_to_readable
from cosco_bench.peers.peer_process import PeerMissing

MEMORY: Final = 64 << 20
#: Of a peer: interpreters, a JVM with its heap.
_PEER_BYTES: Final = 2 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class MicroSettings:
    """What to run: `iterations`, or a few more that fill whole groups, for each of the `groups`
    (sizes), of `tasks` (mappers, and as many reducers) and of `replicas`, after `warm_ups`; and
    `rounds` single rows. workers: processes of ours, and processors of each peer. environments:
    as of PeersSettings."""

    groups: tuple[int, ...]
    tasks: tuple[int, ...] = (4, 16)
    iterations: int = 100
    warm_ups: int = 20
    rounds: int = 300
    workers: int = 2
    daemons: int = 2
    replicas: tuple[int, ...] = (1, 2)
    peers: tuple[str, ...] = tuple(MICRO_PROGRAMS)
    timeout_s: float = 900.0
    environments: str | None = None
    directory: str | None = None

    @property
    def steps(self) -> int:
        """Iterations and rows of ours."""
        one_shape = sum(
            -(-self.iterations // size) * size + (-(-self.warm_ups // warm) * warm if warm else 0)
            for size in self.groups
            for warm in [min(size, self.warm_ups)]
        )
        with_copies = len(self.tasks) * one_shape + self.rounds + self.warm_ups
        return len(self.replicas) * with_copies

    def check_capacity(self) -> None:
        """Raise CapacityExceeded if it cannot fit this machine, with the figures."""
        ours = self.daemons * MEMORY + (self.daemons + self.workers + 3) * PROCESS_BYTES
        check_room(
            "micro-batches",
            memory=max(ours, _PEER_BYTES if self.peers else 0),
            disk=self.daemons * MEMORY,
            directory=self.directory,
            less_memory="ask for fewer --daemons, --group-workers or --peers",
            less_disk="give a --directory",
        )


@dataclass(frozen=True, slots=True)
class CopiesResult:
    """Ours, with so many copies of a row: of single rows, and by tasks and by size of the group."""

    row: Quantiles
    groups: dict[int, dict[int, MicroFigures]] = field(default_factory=dict)

    def groups_json(self, tasks: int) -> dict[str, Any]:
        return {str(size): asdict(found) for size, found in self.groups[tasks].items()}

    def to_json(self) -> dict[str, Any]:
        return {
            "push_to_readable": asdict(self.row),
            "shapes": {shape_name(n): {"groups": self.groups_json(n)} for n in self.groups},
        }


@dataclass(slots=True)
class MicroResult:
    """By copies of a row, fewest first, and of peers by number of tasks. problems: why a peer has
    no figures, by its name and number of tasks; `missing`, those that are not installed."""

    copies: dict[int, CopiesResult] = field(default_factory=dict)
    peers: dict[int, dict[str, PeerFigures]] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)

    @property
    def fewest(self) -> CopiesResult:
        """Ours with the fewest copies: peers keep one."""
        return next(iter(self.copies.values()))

    def speedup(self, tasks: int) -> dict[str, float]:
        """How many times as long as ours, in the largest groups and with the fewest copies, each
        peer takes: medians."""
        groups = self.fewest.groups[tasks]
        ours = groups[max(groups)].p50_ms
        return {name: found.took.p50_ms / ours for name, found in self.peers[tasks].items()}

    def to_json(self) -> dict[str, Any]:
        """The figures of the first shape with the fewest copies, and those of all."""
        shapes = {shape_name(tasks): self._shape_json(tasks) for tasks in self.peers}
        return {
            "push_to_readable": asdict(self.fewest.row),
            **next(iter(shapes.values())),
            "shapes": shapes,
            "replicas": {str(number): found.to_json() for number, found in self.copies.items()},
            "problems": self.problems,
            "missing": self.missing,
        }

    def _shape_json(self, tasks: int) -> dict[str, Any]:
        return {
            "groups": self.fewest.groups_json(tasks),
            "peers": {name: found.to_json() for name, found in self.peers[tasks].items()},
            "speedup": self.speedup(tasks),
        }


def shape_name(tasks: int) -> str:
    """Mappers × reducers."""
    return f"{tasks}x{tasks}"


def run_micro(
    settings: MicroSettings,
    *,
    on_step: Callable[[int], None] = lambda _: None,
    on_peer: Callable[[], None] = lambda: None,
) -> MicroResult:
    """Run it all; `on_step` is told 1 for each of `settings.steps`, `on_peer` of each run of one.

    A peer that fails or is missing is in the result, with its reason. Raises CapacityExceeded
    before anything starts; DataCorrupted if a sum of ours is not the exact one.
    """
    settings.check_capacity()
    result = MicroResult(peers={tasks: {} for tasks in settings.tasks})
    with (
        LocalCluster(settings.daemons, memory=str(MEMORY), directory=settings.directory) as cluster,
        TaskPool("worker", settings.workers) as pool,
    ):
        for replicas in settings.replicas:
            result.copies[replicas] = _run_ours(settings, replicas, cluster.metadata, pool, on_step)
    for name in settings.peers:
        for tasks in settings.tasks:
            try:
                result.peers[tasks][name] = run_micro_peer(
                    name,
                    tasks=tasks,
                    threads=settings.workers,
                    iterations=settings.iterations,
                    warm_ups=settings.warm_ups,
                    environments=settings.environments,
                    directory=settings.directory,
                    timeout_s=settings.timeout_s,
                    on_done=on_peer,
                )
            except PeerMissing as error:
                result.problems[name] = str(error)
                result.missing.append(name)
                break
            except CoscoError as error:
                reason = f"{type(error).__name__}: {error}"
                result.problems[f"{name} {shape_name(tasks)}"] = reason
    return result


def _run_ours(
    settings: MicroSettings,
    replicas: int,
    metadata: str,
    pool: TaskPool,
    on_step: Callable[[int], None],
) -> CopiesResult:
    row = push_to_readable(
        metadata,
        rounds=settings.rounds,
        warm_ups=settings.warm_ups,
        replicas=replicas,
        on_step=on_step,
    )
    found = CopiesResult(row)
    for tasks in settings.tasks:
        found.groups[tasks] = {
            size: run_cosco(
                metadata,
                pool,
                size=size,
                tasks=tasks,
                workers=settings.workers,
                iterations=settings.iterations,
                warm_ups=settings.warm_ups,
                replicas=replicas,
                on_step=on_step,
            )
            for size in settings.groups
        }
    return found
