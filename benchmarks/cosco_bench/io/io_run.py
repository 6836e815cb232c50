"""The same rows through real daemons and through a sort shuffle, for the disk report.

What is looked at is the disk, not the clock: every read and write of the stores and of the
sort shuffle's files. So rows are made as they are needed, and nothing is warmed up. All rows
are in the store before the first one is read, so that the daemons' memory saves no IO.
"""

from __future__ import annotations

import tempfile
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa

from cosco import CoscoExchange, CoscoWriter
from cosco.dfs.io_log import parse_io_log
from cosco.errors import ServiceUnavailable
from cosco.local.cluster import LocalCluster
from cosco.local.workers import Link, Workers, peak_rss_bytes
from cosco.observe import fetch_status, io_figures
from cosco.shuffle_service.state.buffers.limits import pool_bytes
from cosco_bench.harness.bench_rows import (
    KEY_BYTES,
    RowTally,
    make_batches,
    mismatches,
    partition_keys,
    tally_of,
)
from cosco_bench.harness.capacity import BUFFER_BYTES, ROW_BYTES, even_parts
from cosco_bench.harness.flow import reduce_rows
from cosco_bench.harness.measuring import wait_until_deleted
from cosco_bench.io.io_figures import ShuffleIo, requests_of
from cosco_bench.io.sort_shuffle import U8, SortIo, SortReader, SortWriter
from cosco_bench.io.tier_figures import TierIo, tier_io
from cosco_bench.settings import IoSettings

#: Longer than any mapper needs to make its rows.
_STORE_IDLE_S: Final = 3.0
_STORED_POLL_S: Final = 0.1
_STORED_TIMEOUT_S: Final = 60.0
#: Seeds the order in which reducers ask mappers.
_SEED: Final = 2019

#: (mapper, its rows) of the mappers of a process.
MapperShare = list[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class CoscoRun:
    """One run through daemons with `memory` bytes each. `tiers`: None if there is one."""

    memory: int
    buffers_bytes: int
    peak_rss_bytes: int
    io: ShuffleIo
    tiers: TierIo | None
    problems: list[str]


def _shares(settings: IoSettings) -> tuple[list[MapperShare], list[range]]:
    """Return the mappers of each process, and the partitions of each process of reducers."""
    mappers = list(enumerate(settings.mapper_rows))
    count = min(settings.processes, settings.mappers)
    partitions = even_parts(settings.partitions, min(settings.processes, settings.partitions))
    return [mappers[process::count] for process in range(count)], partitions


# --- through daemons ----------------------------------------------------------------------


def push_rows(
    link: Link, metadata: str, shuffle_id: str, mappers: MapperShare, partitions: int
) -> RowTally:
    """Make rows, push them and commit, for one mapper after another."""
    tally = RowTally()
    for mapper, rows in mappers:
        with CoscoWriter(
            shuffle_id, mapper, buffer_bytes=BUFFER_BYTES, metadata=metadata
        ) as writer:
            for keys, batch in make_batches(rows, seed=mapper):
                writer.collect_batch(partition_keys(keys, partitions), batch)
                tally += tally_of(keys)
        link.progress(rows)
    return tally


def run_cosco(
    settings: IoSettings,
    memory: int,
    on_written: Callable[[int], None],
    on_read: Callable[[int], None],
) -> CoscoRun:
    """Move the rows through daemons with `memory` bytes each; no process and no file stays."""
    shuffle_id = f"bench-{uuid.uuid4()}"
    with tempfile.TemporaryDirectory(prefix="cosco-io-", dir=settings.directory) as scratch:
        log = Path(scratch) / "io.log"
        options = ["--io-log", str(log), "--store-idle-s", str(_STORE_IDLE_S)]
        options += settings.tier_options
        with (
            LocalCluster(
                settings.daemons,
                memory=str(memory),
                directory=scratch,
                store=settings.store or None,
                daemon_options=options,
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
            mappers, partitions = _shares(settings)
            writes = [(*where, share, settings.partitions) for share in mappers]
            with Workers("writer", push_rows, writes) as writers:
                sent = sum((done.value for done in writers.results(on_written)), RowTally())
            progress = exchange.progress()
            _wait_until_stored(cluster.metadata, progress.bytes_stored)
            reads = [(*where, settings.mappers, share) for share in partitions]
            with Workers("reader", reduce_rows, reads) as readers:
                received = sum((done.value for done in readers.results(on_read)), RowTally())
            exchange.close()
            wait_until_deleted(cluster.metadata, shuffle_id)
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
            writes=[event for event in events if event.kind == "write"],
            reads=[event for event in events if event.kind == "read"],
            bytes_raw=settings.rows * ROW_BYTES,
            bytes_stored=progress.bytes_stored,
            requests=requests_of(events),
        ),
        tiers=tier_io(events) if settings.tier_options else None,
        problems=mismatches(settings.rows, sent, received, progress.rows),
    )


def _wait_until_stored(metadata: str, stored: int) -> None:
    deadline = time.monotonic() + _STORED_TIMEOUT_S
    while (now := io_figures(fetch_status(metadata).daemons).bytes_stored) < stored:
        if time.monotonic() > deadline:
            raise ServiceUnavailable(
                f"after {_STORED_TIMEOUT_S:g} s the daemons have stored {now} of {stored} bytes"
            )
        time.sleep(_STORED_POLL_S)


# --- through the sort shuffle --------------------------------------------------------------


def write_sorted(
    link: Link, directory: str, settings: IoSettings, mappers: MapperShare
) -> tuple[RowTally, SortIo]:
    """Make rows and write them sorted, for one mapper after another."""
    tally, io = RowTally(), SortIo()
    for mapper, rows in mappers:
        writer = SortWriter(
            _prefix(directory, mapper),
            settings.partitions,
            ROW_BYTES,
            sort_memory=settings.sort_bytes,
            codec=settings.codec,
            merge_factor=settings.merge_factor,
        )
        for keys, batch in make_batches(rows, seed=mapper):
            writer.add(partition_keys(keys, settings.partitions), _table(batch))
            tally += tally_of(keys)
        writer.finish()
        io.add(writer.io)
        link.progress(rows)
    return tally, io


def read_sorted(
    link: Link, directory: str, settings: IoSettings, partitions: range
) -> tuple[RowTally, SortIo]:
    """Read one partition after another."""
    reader = SortReader(
        [_prefix(directory, mapper) for mapper in range(settings.mappers)],
        row_bytes=ROW_BYTES,
        codec=settings.codec,
        seed=_SEED + partitions.start,
    )
    tally = RowTally()
    for partition in partitions:
        for rows in reader.read(partition):
            keys = np.ascontiguousarray(rows[:, :KEY_BYTES]).view("<u8").reshape(-1)
            tally += tally_of(keys)
            link.progress(len(keys))
    return tally, reader.io


def run_sort(
    settings: IoSettings, on_written: Callable[[int], None], on_read: Callable[[int], None]
) -> tuple[ShuffleIo, list[str]]:
    """Move the rows through the sort shuffle.

    Returns: its IO, and what is wrong with the rows that came out.
    """
    io = SortIo()
    mappers, partitions = _shares(settings)
    with tempfile.TemporaryDirectory(prefix="cosco-io-", dir=settings.directory) as directory:
        writes = [(directory, settings, share) for share in mappers]
        with Workers("mapper", write_sorted, writes) as writers:
            written = [worker.value for worker in writers.results(on_written)]
        reads = [(directory, settings, share) for share in partitions]
        with Workers("reducer", read_sorted, reads) as readers:
            read = [worker.value for worker in readers.results(on_read)]
    for _, done in [*written, *read]:
        io.add(done)
    sent, received = (sum((tally for tally, _ in done), RowTally()) for done in (written, read))
    figures = ShuffleIo(
        writes=io.writes,
        reads=io.reads,
        bytes_raw=settings.rows * ROW_BYTES,
        bytes_stored=io.bytes_stored,
        spill_writes=io.spill_writes,
        spill_reads=io.spill_reads,
    )
    return figures, mismatches(settings.rows, sent, received, sent.rows)


def _prefix(directory: str, mapper: int) -> Path:
    return Path(directory) / f"shuffle-{mapper}"


def _table(rows: pa.BinaryArray) -> U8:
    """Return rows of ROW_BYTES each as lines of a table, without a copy."""
    data = np.frombuffer(rows.buffers()[2], np.uint8)
    first = rows.offset * ROW_BYTES
    return data[first : first + len(rows) * ROW_BYTES].reshape(-1, ROW_BYTES)
