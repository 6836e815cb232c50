"""The rows of `cosco-bench io` through the reference sort shuffle of `benchmarks/`."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa

from cosco.local.workers import Link, Workers
from cosco_bench.harness.bench_rows import (
    KEY_BYTES,
    ROW_BYTES,
    key_sum,
    make_batches,
    partition_keys,
)
from cosco_bench.harness.tally import RowTally, total
from cosco_bench.io.io_figures import ShuffleIo
from cosco_bench.io.io_run import (
    IoSettings,
    partition_shares,
    problems,
    shares,
)
from cosco_bench.io.sort_shuffle import U8, SortIo, SortReader, SortWriter

#: Of the order in which reducers ask mappers.
_SEED: Final = 2019


def write_sorted(
    link: Link, directory: str, settings: IoSettings, mappers: list[tuple[int, int]]
) -> tuple[RowTally, SortIo]:
    """Some mappers, one after another."""
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
            tally = tally.plus(RowTally(len(keys), key_sum(keys)))
        writer.finish()
        io.add(writer.io)
        link.progress(rows)
    return tally, io


def read_sorted(
    link: Link, directory: str, settings: IoSettings, partitions: range
) -> tuple[RowTally, SortIo]:
    """Some reducers, one after another."""
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
            tally = tally.plus(RowTally(len(keys), key_sum(keys)))
            link.progress(len(keys))
    return tally, reader.io


def run_sort(
    settings: IoSettings, on_written: Callable[[int], None], on_read: Callable[[int], None]
) -> tuple[ShuffleIo, list[str]]:
    """The rows through the sort shuffle, and what is wrong with what came out."""
    io = SortIo()
    with tempfile.TemporaryDirectory(prefix="cosco-io-", dir=settings.directory) as directory:
        writes = [(directory, settings, share) for share in shares(settings)]
        with Workers("mapper", write_sorted, writes) as writers:
            written = [worker.value for worker in writers.results(on_written)]
        reads = [(directory, settings, share) for share in partition_shares(settings)]
        with Workers("reducer", read_sorted, reads) as readers:
            read = [worker.value for worker in readers.results(on_read)]
    for _, done in [*written, *read]:
        io.add(done)
    found = problems(
        settings, total(tally for tally, _ in written), total(tally for tally, _ in read)
    )
    figures = ShuffleIo(
        writes=io.writes,
        reads=io.reads,
        bytes_raw=settings.rows * ROW_BYTES,
        bytes_stored=io.bytes_stored,
        spill_writes=io.spill_writes,
        spill_reads=io.spill_reads,
    )
    return figures, found


def _prefix(directory: str, mapper: int) -> Path:
    return Path(directory) / f"shuffle-{mapper}"


def _table(rows: pa.BinaryArray) -> U8:
    """Rows of ROW_BYTES each as lines of a table, without a copy."""
    data = np.frombuffer(rows.buffers()[2], np.uint8)
    first = rows.offset * ROW_BYTES
    return data[first : first + len(rows) * ROW_BYTES].reshape(-1, ROW_BYTES)
