"""What each command of `cosco-bench` can be told: one frozen dataclass each, as in `cosco.config`.

The options of the command line and the settings that a result's JSON names are made from these
fields, so that neither can say anything else than the code. A command that is only asked for
its help imports nothing but this.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, fields
from enum import Enum
from typing import Any, Final

import click

from cosco.cli.options import SIZE, SizeType
from cosco.config import TIERS, parse_tiers
from cosco.errors import InvalidArgument
from cosco_bench.harness.capacity import (
    BUFFER_BYTES,
    GB,
    PROCESS_BYTES,
    ROW_BYTES,
    STOCK_BYTES,
    STORE_OVERHEAD,
    Needs,
    check_room,
    even_parts,
)

#: A smaller page pool has no room for a frame of the largest size beside what else there must be.
MIN_MEMORY: Final = 16 << 20
#: Page pool of each daemon where latency is measured: nothing fills it.
LATENCY_MEMORY: Final = 64 << 20
WARM_UP_ROWS: Final = 1_000_000
MAX_PEER_ROWS: Final = 1 << 27


@dataclass(frozen=True, slots=True)
class PeerProgram:
    """A program below benchmarks/peers, and the environment of `make peers` that it runs in.

    replicas: what it is told, if it is an engine with Cosco. beside: that engine alone.
    """

    script: str
    environment: str
    replicas: int = 0
    beside: str = ""


#: Peers of the large job.
PEERS: Final = {
    "spark": PeerProgram("spark.py", "spark"),
    "dask": PeerProgram("dask_p2p.py", "dask"),
    "dask_cosco": PeerProgram("dask_cosco.py", "dask", 1, "dask"),
    "dask_cosco_replicas_2": PeerProgram("dask_cosco.py", "dask", 2, "dask"),
    "ray": PeerProgram("ray_data.py", "ray"),
    "ray_disk": PeerProgram("ray_disk.py", "ray"),
    "ray_cosco": PeerProgram("ray_cosco.py", "ray", 1, "ray_disk"),
    "arrow": PeerProgram("arrow_memory.py", "arrow"),
}
#: Peers of micro-batches.
MICRO_PEERS: Final = {
    "ray": PeerProgram("ray_tasks.py", "ray"),
    "ray_cosco": PeerProgram("ray_groups.py", "ray", 1, "ray"),
    "dask": PeerProgram("dask_futures.py", "dask"),
    "spark": PeerProgram("spark_stages.py", "spark"),
}

_COUNT: Final = click.IntRange(1, 256)
_MANY: Final = click.IntRange(1, 1_000_000)
_ROWS: Final = click.IntRange(min=1)
_PARTITIONS: Final = click.IntRange(1, 1 << 20)
_DIRECTORY: Final = click.Path(exists=True, file_okay=False, writable=True, resolve_path=True)


class ListType(click.ParamType):  # type: ignore[type-arg]  # generic in newer click only
    """Values with commas between them, in any order; nothing for none of them."""

    name = "list"

    def __init__(self, of: click.ParamType) -> None:  # type: ignore[type-arg]
        self._of = of

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, tuple):
            return value
        parts = [part.strip() for part in str(value).split(",")]
        return tuple(self._of.convert(part, param, ctx) for part in parts if part)


def option(default: Any, type: Any, help: str, *, shown: str = "", apart: bool = False) -> Any:
    """Make a field that is an option as well.

    shown: the default as the help shows it.
    apart: the result's JSON does not have it among the settings.
    """
    return field(
        default=default,
        metadata={"type": type, "help": help, "shown": shown, "apart": apart},
    )


def _daemons(least: int = 1) -> Any:
    return option(2, click.IntRange(least, 256), "shuffle daemons")


def _memory(help: str = "page pool of each daemon", least: int = MIN_MEMORY) -> Any:
    return option(256 << 20, SizeType(least), help, shown="256MiB")


def _codec(help: str = "how writers compress blocks") -> Any:
    return option("lz4", click.Choice(["lz4", "none"]), help)


def _replicas(help: str = "copies of a row in memory") -> Any:
    return option(1, click.IntRange(1, 2), help)


def _each_replicas(help: str) -> Any:
    return option((1, 2), ListType(click.IntRange(1, 2)), help)


def _peers(names: Iterable[str], help: str, *, apart: bool = False) -> Any:
    return option(tuple(names), ListType(click.Choice(list(names))), help, apart=apart)


def _store() -> Any:
    return option(
        "",
        str,
        "URL of a store that the daemons share, or flash=URL,then=URL; a directory without it",
        shown="none",
    )


def _timeout_s(*, apart: bool = False) -> Any:
    text = "a peer that has not ended after this many seconds has failed"
    return option(900.0, click.FloatRange(min=1), text, apart=apart)


def _environments(*, apart: bool = False) -> Any:
    text = "the directory with an environment for each peer; without it that of make peers"
    return option(None, click.Path(file_okay=False), text, apart=apart)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What all commands have in common."""

    directory: str | None = option(
        None, _DIRECTORY, "where all files go; a temporary directory without it"
    )

    def needs(self) -> Sequence[Needs]:
        """Return what the run may take of this machine at most."""
        raise NotImplementedError

    def check(self) -> None:
        """Raise what says, with figures, that the run makes no sense or does not fit."""
        for needs in self.needs():
            check_room(needs, self.directory)

    def to_json(self) -> dict[str, Any]:
        """Return the settings as the result's JSON names them."""
        apart = {one.name for one in fields(self) if one.metadata["apart"]}
        return {name: value for name, value in asdict(self).items() if name not in apart}


@dataclass(frozen=True, slots=True, kw_only=True)
class ThroughputSettings(Settings):
    """Rows through a local cluster, end to end; with the CPU that calls and stages take."""

    rows: int = option(
        10_000_000, _ROWS, "rows of 100 bytes: an int64 key and a payload that half compresses"
    )
    mappers: int = option(2, _COUNT, "writer processes")
    partitions: int = option(64, _PARTITIONS, "partitions of the exchange")
    daemons: int = _daemons()
    readers: int = option(2, _COUNT, "reader processes")
    memory: int = _memory()
    codec: str = _codec()
    replicas: int = _replicas()
    warm_up_rows: int = option(
        WARM_UP_ROWS,
        click.IntRange(min=0),
        "rows through an exchange of their own before the clock starts, at most all",
    )
    ledger_rows: int = option(
        1_000_000,
        click.IntRange(min=0),
        "rows each stage of the ledger, and each call, is measured on; 0 leaves both out",
        apart=True,
    )
    store: str = _store()
    direct_reads: bool = option(False, click.BOOL, "readers read from the store themselves")
    tls: bool = option(False, click.BOOL, "once more with TLS everywhere, beside the run without")

    def needs(self) -> Sequence[Needs]:
        size = self.rows * ROW_BYTES
        writers = size + self.mappers * (2 * BUFFER_BYTES + PROCESS_BYTES)
        daemons = self.daemons * (self.memory + PROCESS_BYTES)
        return [
            Needs(
                f"{self.rows:,} rows",
                memory=writers + daemons + self.readers * 2 * PROCESS_BYTES,
                disk=int((self.rows + self.warm_up_rows) * ROW_BYTES * STORE_OVERHEAD),
                less_memory="ask for fewer --rows or less --memory",
                less_disk="ask for fewer --rows or give a --directory",
            )
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class DaemonSettings(Settings):
    """What a GB costs one daemon, with frames that were packed beforehand."""

    rows: int = option(10_000_000, _ROWS, "rows of 100 bytes of each exchange")
    partitions: tuple[int, ...] = option(
        (64, 1000), ListType(_PARTITIONS), "of exchanges, one after another"
    )
    mappers: int = option(2, _COUNT, "streams at a time")
    memory: int = _memory("page pool of the daemon")
    codec: str = _codec("how blocks are compressed, before the clock starts")
    runs: int = option(3, _COUNT, "of each, after one that warms up; medians")

    def needs(self) -> Sequence[Needs]:
        stored = int(STORE_OVERHEAD * self.rows * ROW_BYTES)
        return [
            Needs(
                f"{self.rows:,} rows",
                memory=stored + self.memory + STOCK_BYTES + 4 * PROCESS_BYTES,
                disk=stored,
                less_memory="ask for fewer --rows or less --memory",
                less_disk="ask for fewer --rows or give a --directory",
            )
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class PackingSettings(Settings):
    """What a GB of rows costs a writer until its frames are made, natively and portably."""

    rows: int = option(2_000_000, _ROWS, "rows of 100 bytes of each packing")
    partitions: tuple[int, ...] = option(
        (64, 1000), ListType(_PARTITIONS), "of exchanges, one after another"
    )
    codec: str = _codec()
    runs: int = option(3, _COUNT, "of each, after one that warms up; medians")

    def needs(self) -> Sequence[Needs]:
        return [
            Needs(
                f"{self.rows:,} rows",
                memory=2 * (self.rows * ROW_BYTES + STOCK_BYTES + 3 * BUFFER_BYTES + PROCESS_BYTES),
                disk=0,
                less_memory="ask for fewer --rows",
                less_disk="",
            )
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class IoSettings(Settings):
    """The disk report: sizes, amplification and modelled time of IO, and a sort shuffle's."""

    bytes: int = option(
        2_800_000_000,
        SIZE,
        "rows of 100 bytes: an int64 key and a payload that half compresses",
        shown="2.8GB",
    )
    mappers: int = option(
        128,
        click.IntRange(1, 1 << 16),
        "map tasks; with the default bytes and partitions their segments are 200 KiB",
    )
    partitions: int = option(64, click.IntRange(1, 1 << 16), "partitions, each with a reducer")
    daemons: int = _daemons()
    # A quarter of it is measured as well.
    memory: int = _memory("page pool of each daemon; then half of it, then a quarter", 64 << 20)
    codec: str = _codec("how both shuffles compress")
    replicas: int = _replicas("copies of a row in memory; one is stored")
    processes: int = option(2, _COUNT, "tasks at a time, of mappers as of reducers")
    sort_memory: int = option(0, SIZE, "memory of a mapper's sort", shown="a quarter of its rows")
    merge_factor: int = option(
        0,
        click.IntRange(min=0),
        "spills the sort shuffle joins at a time; each further pass writes rows once more",
        shown="all, as Spark",
    )
    store: str = _store()
    tier_durable: str = option(
        "then",
        click.Choice(list(TIERS)),
        "of two tiers: where a segment is durable, so that copies may go",
        apart=True,
    )
    tier_flash_bytes: int = option(
        0,
        SIZE,
        "of two tiers: what flash of each daemon may have",
        shown="all of its disk",
        apart=True,
    )

    @property
    def rows(self) -> int:
        return self.bytes // ROW_BYTES

    @property
    def tier_options(self) -> list[str]:
        """Options of the daemons if there are two tiers."""
        if parse_tiers(self.store) is None:
            return []
        flash_bytes = str(self.tier_flash_bytes)
        return ["--tier-durable", self.tier_durable, "--tier-flash-bytes", flash_bytes]

    @property
    def mapper_rows(self) -> list[int]:
        """Rows of each mapper."""
        return [len(part) for part in even_parts(self.rows, self.mappers)]

    @property
    def sort_bytes(self) -> int:
        """The memory of a mapper's sort."""
        most_rows = -(-self.rows // self.mappers)
        return self.sort_memory or -(-most_rows // 4) * ROW_BYTES

    @property
    def memory_levels(self) -> list[int]:
        """The daemons' memory of each run, the largest first."""
        return [self.memory, self.memory >> 1, self.memory >> 2]

    def needs(self) -> Sequence[Needs]:
        mapper = 2 * (self.bytes // self.mappers) + 2 * BUFFER_BYTES + PROCESS_BYTES
        return [
            Needs(
                f"{self.rows:,} rows",
                memory=self.daemons * (self.memory + PROCESS_BYTES) + self.processes * mapper,
                # The sort shuffle has the spills of those mappers that run beside its files.
                disk=int(self.bytes * 1.2),
                less_memory="ask for less --memory or more --mappers",
                less_disk="ask for fewer --bytes or give a --directory",
            )
        ]

    def check(self) -> None:
        if self.merge_factor == 1:
            raise InvalidArgument("--merge-factor is 1: a merge joins at least 2 spills")
        if self.rows < self.mappers:
            raise InvalidArgument(
                f"--bytes {self.bytes} are {self.rows} rows of {ROW_BYTES} bytes for "
                f"{self.mappers} mappers: ask for more --bytes or fewer --mappers"
            )
        Settings.check(self)

    def to_json(self) -> dict[str, Any]:
        return {**Settings.to_json(self), "sort_memory": self.sort_bytes}


@dataclass(frozen=True, slots=True, kw_only=True)
class MicroSettings:
    """Micro-batches: `iterations`, or a few more that fill whole groups, for each of the `groups`
    (sizes), of `tasks` (mappers, and as many reducers) and of `replicas`, after `warm_ups`; and
    `rounds` single rows. workers: processes of ours, and processors of each peer."""

    groups: tuple[int, ...]
    tasks: tuple[int, ...]
    iterations: int
    warm_ups: int
    rounds: int
    workers: int
    daemons: int
    replicas: tuple[int, ...]
    peers: tuple[str, ...]
    timeout_s: float
    environments: str | None
    directory: str | None

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


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencySettings(Settings):
    """One row from collect to a waiting reader, small exchanges from end to end, and
    micro-batches in exchange groups."""

    rounds: int = option(300, _MANY, "single rows")
    exchanges: int = option(100, _MANY, "small exchanges")
    warm_ups: int = option(20, click.IntRange(0, 1_000_000), "of each, before those that count")
    mappers: int = option(4, _COUNT, "of a small exchange")
    partitions: int = option(4, _COUNT, "of a small exchange")
    rows: int = option(1_000, _MANY, "of 100 bytes, of each mapper")
    workers: int = option(4, _COUNT, "worker processes")
    daemons: int = _daemons(least=2)
    replicas: tuple[int, ...] = _each_replicas(
        "measure with each of these numbers of copies of a row in memory; peers are set beside "
        "the fewest"
    )
    group: tuple[int, ...] = option(
        (),
        ListType(click.IntRange(1, 10_000)),
        "also run micro-batches in exchange groups of these sizes, 1,10,50,100 say",
        apart=True,
    )
    tasks: tuple[int, ...] = option(
        (4, 16), ListType(_COUNT), "mappers, and as many reducers, of a micro-batch", apart=True
    )
    iterations: int = option(
        100, _MANY, "micro-batches of each kind, or some more to fill whole groups", apart=True
    )
    group_workers: int = option(
        2, _COUNT, "worker processes of micro-batches, and processors of each peer", apart=True
    )
    peers: tuple[str, ...] = _peers(
        MICRO_PEERS, "run micro-batches on these, too; empty for none", apart=True
    )
    timeout_s: float = _timeout_s(apart=True)
    environments: str | None = _environments(apart=True)

    @property
    def steps(self) -> int:
        """Rows and exchanges of a run, for all numbers of replicas."""
        return len(self.replicas) * (self.rounds + self.exchanges + 2 * self.warm_ups)

    @property
    def micro(self) -> MicroSettings | None:
        """What is run in groups, if anything is."""
        if not self.group:
            return None
        return MicroSettings(
            groups=self.group,
            tasks=self.tasks,
            iterations=self.iterations,
            warm_ups=self.warm_ups,
            rounds=self.rounds,
            workers=self.group_workers,
            daemons=self.daemons,
            replicas=tuple(sorted(self.replicas)),
            peers=self.peers,
            timeout_s=self.timeout_s,
            environments=self.environments,
            directory=self.directory,
        )

    def needs(self) -> Sequence[Needs]:
        size = self.mappers * self.rows * ROW_BYTES
        pools, processes = self.daemons * LATENCY_MEMORY, self.daemons + self.workers + 2
        small = Needs(
            f"{self.mappers} mappers of {self.rows:,} rows",
            memory=pools + processes * PROCESS_BYTES + 3 * size,
            # Exchanges are closed, and their files deleted soon after.
            disk=10 * size,
            less_memory="ask for fewer --rows, --workers or --daemons",
            less_disk="ask for fewer --rows or give a --directory",
        )
        ours = pools + (self.daemons + self.group_workers + 3) * PROCESS_BYTES
        micro = Needs(
            "micro-batches",
            # A peer: interpreters, a JVM with its heap.
            memory=max(ours, 2 << 30 if self.peers else 0),
            disk=pools,
            less_memory="ask for fewer --daemons, --group-workers or --peers",
            less_disk="give a --directory",
        )
        return [small, micro] if self.group else [small]


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
class ScaleSettings:
    """How much of everything the metadata service is given; `reads`: how often a reader asks."""

    mappers: int
    partitions: int
    daemons: int
    reads: int = 50
    directory: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GrowthSettings(Settings):
    """Time per GB of larger exchanges, and of more partitions and mappers; the state of them."""

    sizes: tuple[int, ...] = option(
        (GB, 4 * GB, 16 * GB),
        ListType(SIZE),
        "of exchanges, in bytes of rows; empty for none",
        shown="1GB,4GB,16GB",
    )
    partitions: tuple[int, ...] = option(
        (16, 256, 4096), ListType(_PARTITIONS), "of exchanges; empty for none"
    )
    mappers: tuple[int, ...] = option(
        (8, 128, 1024),
        ListType(_MANY),
        "of exchanges, which share the workers; empty for none",
    )
    base_size: int = option(GB, SIZE, "where others grow", shown="1GB")
    base_partitions: int = option(64, _PARTITIONS, "where others grow")
    base_mappers: int = option(8, _MANY, "where others grow")
    runs: int = option(3, _COUNT, "of each; medians")
    workers: int = option(2, _COUNT, "worker processes")
    daemons: int = _daemons(least=2)
    memory: int = _memory()
    replicas: int = _replicas()
    scale_mappers: int = option(
        100_000,
        click.IntRange(0, 10_000_000),
        "on the metadata service alone; 0 leaves it out",
        apart=True,
    )
    scale_partitions: int = option(10_000, _PARTITIONS, "on the metadata service alone", apart=True)
    scale_daemons: int = option(
        100, click.IntRange(1, 10_000), "on the metadata service alone", apart=True
    )

    def shapes(self) -> dict[Growing, list[Shape]]:
        """Return the exchanges along each way to grow, smallest first."""
        size, partitions, mappers = self.base_size, self.base_partitions, self.base_mappers
        return {
            Growing.SIZE: [Shape(s, partitions, mappers) for s in sorted(self.sizes)],
            Growing.PARTITIONS: [Shape(size, p, mappers) for p in sorted(self.partitions)],
            Growing.MAPPERS: [Shape(size, partitions, m) for m in sorted(self.mappers)],
        }

    def distinct_shapes(self) -> list[Shape]:
        """Return each exchange once, smallest first."""
        return sorted({shape for shapes in self.shapes().values() for shape in shapes})

    @property
    def rows(self) -> int:
        """Return the rows of all runs, each written and read."""
        return 2 * self.runs * sum(shape.rows for shape in self.distinct_shapes())

    @property
    def scale(self) -> ScaleSettings | None:
        """What is run on the metadata service alone, if anything is."""
        if not self.scale_mappers:
            return None
        return ScaleSettings(
            mappers=self.scale_mappers,
            partitions=self.scale_partitions,
            daemons=self.scale_daemons,
            directory=self.directory,
        )

    def needs(self) -> Sequence[Needs]:
        largest = max((shape.size for shape in self.distinct_shapes()), default=0)
        processes = self.daemons + self.workers + 2
        needed = [
            Needs(
                f"exchanges of {largest / GB:g} GB",
                memory=self.daemons * self.memory
                + self.workers * (STOCK_BYTES + 2 * BUFFER_BYTES)
                + processes * PROCESS_BYTES,
                disk=int((largest + WARM_UP_ROWS * ROW_BYTES) * STORE_OVERHEAD),
                less_memory="ask for fewer --workers or less --memory",
                less_disk="ask for smaller --sizes or give a --directory",
            )
        ]
        if self.scale_mappers:
            needed.append(
                Needs(
                    f"{self.scale_mappers:,} mappers × {self.scale_partitions:,} partitions",
                    memory=(2 << 30) + 5 * PROCESS_BYTES,
                    # A row a mapper, and a log of what was written since the last checkpoint.
                    disk=1_000 * (self.scale_mappers + self.scale_partitions) + (256 << 20),
                    less_memory="leave them out with --scale-mappers 0",
                    less_disk="ask for fewer --scale-mappers or give a --directory",
                )
            )
        return needed

    def check(self) -> None:
        if min((*self.sizes, self.base_size)) < ROW_BYTES:
            raise InvalidArgument("--sizes and --base-size are bytes of rows of 100 bytes each")
        Settings.check(self)

    def to_json(self) -> dict[str, Any]:
        scale = {"metadata": asdict(self.scale)} if self.scale else {}
        return {**Settings.to_json(self), **scale}


@dataclass(frozen=True, slots=True, kw_only=True)
class PeersSettings(Settings):
    """The same files repartitioned by cosco, Spark, Dask and Ray Data, which `make peers` installs
    in a checkout, and by Dask and Ray Data with cosco."""

    rows: int = option(
        10_000_000,
        click.IntRange(1, MAX_PEER_ROWS),
        "rows of 100 bytes: an int64 key and a text that half compresses",
    )
    files: int = option(8, _COUNT, "Parquet files")
    partitions: int = option(64, _PARTITIONS, "partitions to repartition to")
    threads: int = option(2, _COUNT, "of every side")
    # With one, sides with a JVM look a quarter to a third slower than they are.
    warm_ups: int = option(3, click.IntRange(0, 100), "whole jobs first")
    runs: int = option(3, _COUNT, "on the clock; medians")
    replicas: tuple[int, ...] = _each_replicas(
        "run cosco with each of these numbers of copies of a row in memory"
    )
    peers: tuple[str, ...] = _peers(PEERS, "run these; empty for none")
    timeout_s: float = _timeout_s()
    environments: str | None = _environments()

    @property
    def steps(self) -> int:
        """Scans and shuffles of one side."""
        return 2 * (self.warm_ups + self.runs)

    def needs(self) -> Sequence[Needs]:
        size = self.rows * ROW_BYTES
        return [
            Needs(
                f"{self.rows:,} rows",
                # The rows once more in pandas or Arrow, in more than one process; interpreters,
                # a JVM with its heap, pools.
                memory=3 * size + (3 << 30),
                # The files, and twice the rows for what a peer spills.
                disk=3 * size,
                less_memory="ask for fewer --rows",
                less_disk="ask for fewer --rows or give a --directory",
            )
        ]
