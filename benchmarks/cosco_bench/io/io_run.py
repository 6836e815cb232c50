"""`cosco-bench io`: the same rows through real daemons and through a sort shuffle.

What is looked at is the disk, not the clock: every read and write of the stores and of the
sort shuffle's files. So rows are made as they are needed, and nothing is warmed up. All rows
are in the store before the first one is read, so that the daemons' memory saves no IO.
"""

from __future__ import annotations

import tempfile
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from cosco import CoscoExchange, CoscoWriter
from cosco.dfs import IOEvent
from cosco.dfs.io_log import parse_io_log
from cosco.errors import InvalidArgument, ServiceUnavailable
from cosco.local.cluster import LocalCluster
from cosco.local.workers import Link, Workers, peak_rss_bytes
from cosco.observe import fetch_status, io_figures
from cosco.shuffle_service.state.buffers.limits import pool_bytes
from cosco_bench.harness.bench_rows import ROW_BYTES, key_sum, make_batches, partition_keys
from cosco_bench.harness.capacity import BUFFER_BYTES, PROCESS_BYTES, check_room
from cosco_bench.harness.flow import reduce_rows
from cosco_bench.harness.tally import RowTally, total
from cosco_bench.io.io_figures import ShuffleIo

#: The daemons' memory is halved so often.
LEVELS: Final = 3
#: Blocks and chunks add headers and padding to rows that do not compress; the sort shuffle
#: has the spills of those mappers that run beside its files.
_DISK_OVERHEAD: Final = 1.2
#: Longer than any mapper needs to make its rows.
_STORE_IDLE_S: Final = 3.0
_STORED_POLL_S: Final = 0.1
_STORED_TIMEOUT_S: Final = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class IoSettings:
    """What to run; sizes in bytes. `directory`: where files go, None for the default.

    `sort_memory`: of a mapper of the sort shuffle, 0 for a quarter of its rows.
    """

    bytes: int = 2_800_000_000
    mappers: int = 128
    partitions: int = 64
    daemons: int = 2
    memory: int = 256 << 20
    codec: str = "lz4"
    replicas: int = 1
    processes: int = 2
    sort_memory: int = 0
    merge_factor: int = 0
    directory: str | None = None

    @property
    def rows(self) -> int:
        return self.bytes // ROW_BYTES

    @property
    def sort_bytes(self) -> int:
        """The memory of a mapper's sort."""
        most_rows = -(-self.rows // self.mappers)
        return self.sort_memory or -(-most_rows // 4) * ROW_BYTES

    @property
    def memory_levels(self) -> list[int]:
        """The daemons' memory of each run, the largest first."""
        return [self.memory >> level for level in range(LEVELS)]

    @property
    def memory_needed(self) -> int:
        """Bytes of memory that the run may take."""
        mapper = 2 * (self.bytes // self.mappers) + 2 * BUFFER_BYTES + PROCESS_BYTES
        return self.daemons * (self.memory + PROCESS_BYTES) + self.processes * mapper

    @property
    def disk_needed(self) -> int:
        """Bytes of disk that the run may take at a time, if nothing compresses."""
        return int(self.bytes * _DISK_OVERHEAD)

    def mapper_rows(self, mapper: int) -> int:
        """Rows of one mapper."""
        first, end = (self.rows * m // self.mappers for m in (mapper, mapper + 1))
        return end - first


@dataclass(frozen=True, slots=True)
class CoscoRun:
    """The IO of one run through daemons with `memory` bytes each."""

    memory: int
    buffers_bytes: int
    peak_rss_bytes: int
    io: ShuffleIo
    problems: list[str] = field(default_factory=list)


def check_capacity(settings: IoSettings) -> None:
    """Raise what says that the workload makes no sense or does not fit, with the figures."""
    if settings.rows < settings.mappers:
        raise InvalidArgument(
            f"--bytes {settings.bytes} are {settings.rows} rows of {ROW_BYTES} bytes for "
            f"{settings.mappers} mappers: ask for more --bytes or fewer --mappers"
        )
    check_room(
        f"{settings.rows:,} rows",
        memory=settings.memory_needed,
        disk=settings.disk_needed,
        directory=settings.directory,
        less_memory="ask for less --memory or more --mappers",
        less_disk="ask for fewer --bytes or give a --directory",
    )


def shares(settings: IoSettings) -> list[list[tuple[int, int]]]:
    """(mapper, its rows) of the mappers of each process."""
    mappers = [(m, settings.mapper_rows(m)) for m in range(settings.mappers)]
    count = min(settings.processes, settings.mappers)
    return [mappers[process::count] for process in range(count)]


def partition_shares(settings: IoSettings) -> list[range]:
    """The partitions of each process of reducers, one behind the other."""
    count = min(settings.processes, settings.partitions)
    bounds = [settings.partitions * process // count for process in range(count + 1)]
    return [range(bounds[process], bounds[process + 1]) for process in range(count)]


def push_rows(
    link: Link, metadata: str, shuffle_id: str, mappers: list[tuple[int, int]], partitions: int
) -> RowTally:
    """Some mappers, one after another: make rows, push them, commit."""
    tally = RowTally()
    for mapper, rows in mappers:
        with CoscoWriter(
            shuffle_id, mapper, buffer_bytes=BUFFER_BYTES, metadata=metadata
        ) as writer:
            for keys, batch in make_batches(rows, seed=mapper):
                writer.collect_batch(partition_keys(keys, partitions), batch)
                tally = tally.plus(RowTally(len(keys), key_sum(keys)))
        link.progress(rows)
    return tally


def run_cosco(
    settings: IoSettings,
    memory: int,
    on_written: Callable[[int], None],
    on_read: Callable[[int], None],
) -> CoscoRun:
    """The rows through daemons with `memory` bytes each; leaves no process and no file."""
    shuffle_id = f"bench-{uuid.uuid4()}"
    with tempfile.TemporaryDirectory(prefix="cosco-io-", dir=settings.directory) as scratch:
        log = Path(scratch) / "io.log"
        options = ["--io-log", str(log), "--store-idle-s", str(_STORE_IDLE_S)]
        with (
            LocalCluster(
                settings.daemons, memory=str(memory), directory=scratch, daemon_options=options
            ) as cluster,
            CoscoExchange(
                shuffle_id,
                settings.partitions,
                replicas=settings.replicas,
                codec=settings.codec,
                metadata=cluster.metadata,
            ) as exchange,
        ):
            where = (cluster.metadata, shuffle_id)
            writes = [(*where, share, settings.partitions) for share in shares(settings)]
            with Workers("writer", push_rows, writes) as writers:
                sent = total(writer.value for writer in writers.results(on_written))
            progress = exchange.progress()
            _wait_until_stored(cluster.metadata, progress.bytes_stored)
            reads = [(*where, settings.mappers, share) for share in partition_shares(settings)]
            with Workers("reader", reduce_rows, reads) as readers:
                received = total(reader.value for reader in readers.results(on_read))
            exchange.close()
            peak = max(peak_rss_bytes(daemon.pid) for daemon in cluster.daemons)
            for daemon in cluster.daemons:
                daemon.stop()  # which writes its log to the end
        with log.open(errors="surrogateescape") as lines:
            events = list(parse_io_log(lines))
    return CoscoRun(
        memory=memory,
        buffers_bytes=settings.daemons * pool_bytes(memory),
        peak_rss_bytes=peak,
        io=ShuffleIo(
            writes=_of("write", events),
            reads=_of("read", events),
            bytes_raw=settings.rows * ROW_BYTES,
            bytes_stored=progress.bytes_stored,
        ),
        problems=problems(settings, sent, received),
    )


def problems(settings: IoSettings, sent: RowTally, received: RowTally) -> list[str]:
    """What does not match between the rows asked for, those written, and those read."""
    found = []
    if sent.rows != settings.rows:
        found.append(f"{settings.rows} rows asked for, {sent.rows} written")
    if received.rows != sent.rows:
        found.append(f"{sent.rows} rows written, {received.rows} read")
    if received.keys != sent.keys:
        found.append(f"sum of keys written {sent.keys:#x}, read {received.keys:#x}")
    return found


def _wait_until_stored(metadata: str, stored: int) -> None:
    deadline = time.monotonic() + _STORED_TIMEOUT_S
    while (now := io_figures(fetch_status(metadata).daemons).bytes_stored) < stored:
        if time.monotonic() > deadline:
            raise ServiceUnavailable(
                f"after {_STORED_TIMEOUT_S:g} s the daemons have stored {now} of {stored} bytes"
            )
        time.sleep(_STORED_POLL_S)


def _of(kind: str, events: list[IOEvent]) -> list[IOEvent]:
    return [event for event in events if event.kind == kind]
