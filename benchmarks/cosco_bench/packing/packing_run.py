"""`cosco-bench packing`: what a GB of rows costs a writer until its frames are made.

Rows of bytes and Arrow batches of the same bytes go from `collect_batch` to frames that nobody
sends. Each way of packing that is installed, native and portable, runs in a process of its own; the
two take turns, so that their ratio holds on a machine that does other things, too. The clock is the
process's (`time.process_time`).
"""

from __future__ import annotations

import os
import statistics
import time
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
from rich.table import Table

from cosco.client.write.state.packing import ArrowPacker, RowPacker
from cosco.errors import DataCorrupted
from cosco.local.workers import Link, TaskPool
from cosco.mechanics import ENVIRONMENT, NATIVE
from cosco.process.allocator import keep_large_blocks
from cosco.protocol.records import (
    ExchangeInfo,
    ExchangeSpec,
    OpenedAttempt,
    PartitionRange,
    RowKind,
)
from cosco_bench.harness.bench_report import Bars, Report, table
from cosco_bench.harness.bench_rows import KEY_BYTES, U64, partition_keys
from cosco_bench.harness.capacity import BUFFER_BYTES, GB, ROW_BYTES
from cosco_bench.harness.flow import make_stock, rows_of
from cosco_bench.settings import PackingSettings

#: bytes: rows of 100 bytes; batches: an int64 and 92 bytes.
KINDS: Final = ("bytes", "batches")
_RANGES: Final = 2
_SCHEMA: Final = pa.schema([("key", pa.int64()), ("payload", pa.binary())])


@dataclass(frozen=True, slots=True)
class PackingResult:
    """CPU seconds per GB of each run that counts, by kind of rows, partitions and way."""

    runs: dict[str, dict[int, dict[str, list[float]]]]

    def median(self, kind: str, partitions: int, way: str) -> float:
        """Return the median of some runs."""
        return statistics.median(self.runs[kind][partitions][way])

    def to_json(self) -> dict[str, Any]:
        return {
            kind: {
                str(partitions): {
                    way: {"cpu_s_per_gb": self.median(kind, partitions, way), "runs": runs}
                    for way, runs in ways.items()
                }
                for partitions, ways in found.items()
            }
            for kind, found in self.runs.items()
        }


def measure(settings: PackingSettings, bars: Bars) -> Report:
    """Pack all rows in each way in turn, after a run of each that warms up.

    Raises: DataCorrupted if rows are missing from the frames.
    """
    ways = ["portable"] if NATIVE is None else ["portable", "native"]
    result = PackingResult({})
    on_step = bars.counter(
        "packings", len(KINDS) * len(settings.partitions) * len(ways) * (settings.runs + 1)
    )
    with ExitStack() as stack:
        pools = {way: stack.enter_context(_pool(way)) for way in ways}
        for pool in pools.values():
            pool.run(make_stock, [()])
        for kind in KINDS:
            for partitions in settings.partitions:
                found: dict[str, list[float]] = {way: [] for way in ways}
                result.runs.setdefault(kind, {})[partitions] = found
                for index in range(settings.runs + 1):
                    for way, pool in pools.items():
                        task = way, kind, settings.rows, partitions, settings.codec
                        (done,) = pool.run(pack_rows, [task])
                        if index:
                            found[way].append(done.value)
                        on_step(1)
    return Report(result.to_json(), [_table(settings, result, ways)])


@contextmanager
def _pool(way: str) -> Iterator[TaskPool]:
    """Have a process that packs in this way."""
    with ExitStack() as stack:
        before = os.environ.get(ENVIRONMENT)
        os.environ[ENVIRONMENT] = "off" if way == "portable" else ""
        try:
            pool = stack.enter_context(TaskPool(way, 1))  # its process starts here
        finally:
            del os.environ[ENVIRONMENT]
            if before is not None:
                os.environ[ENVIRONMENT] = before
        yield pool


def _table(settings: PackingSettings, result: PackingResult, ways: list[str]) -> Table:
    made = table(
        f"packing of {settings.rows:,} rows, CPU s per GB",
        "",
        *(f"{partitions:,} partitions" for partitions in settings.partitions),
    )
    for kind in KINDS:
        for way in ways:
            figures = (result.median(kind, one, way) for one in settings.partitions)
            made.add_row(f"{kind}, {way}", *(f"{one:.2f}" for one in figures))
    return made


# --- in the process that packs --------------------------------------------------------------


def pack_rows(_link: Link, way: str, kind: str, rows: int, partitions: int, codec: str) -> float:
    """Pack rows of the stock.

    Returns: CPU seconds per GB.
    """
    if (NATIVE is None) != (way == "portable"):
        raise RuntimeError(f"rows that are to be packed {way} would not be")
    keep_large_blocks()  # as all clients do
    opened = _attempt(partitions, codec)
    batches = [(keys, _batch(keys, batch, kind)) for keys, batch in rows_of(0, rows)]
    given = [(partition_keys(keys, partitions), batch) for keys, batch in batches]
    began = time.process_time()
    packer = (
        RowPacker(opened, BUFFER_BYTES)
        if kind == "bytes"
        else ArrowPacker(opened, BUFFER_BYTES, _SCHEMA)
    )
    for numbers, batch in given:
        deque(packer.collect_batch(numbers, batch), maxlen=0)
    deque(packer.drain(), maxlen=0)
    cpu_s = time.process_time() - began
    packed = int(packer.sums().rows.sum())
    packer.close()
    if packed != rows:
        raise DataCorrupted(f"{rows} rows were collected and {packed} packed")
    return cpu_s / (rows * ROW_BYTES / GB)


def _batch(keys: U64, rows: pa.BinaryArray, kind: str) -> Any:
    if kind == "bytes":
        return rows
    start = rows.offset * ROW_BYTES
    data = np.frombuffer(rows.buffers()[2], np.uint8)[start : start + len(rows) * ROW_BYTES]
    payload = np.ascontiguousarray(data.reshape(-1, ROW_BYTES)[:, KEY_BYTES:])
    offsets = np.arange(len(rows) + 1, dtype=np.int32) * (ROW_BYTES - KEY_BYTES)
    columns = [
        pa.Array.from_buffers(pa.int64(), len(rows), [None, pa.py_buffer(keys.copy())]),
        pa.Array.from_buffers(
            pa.binary(), len(rows), [None, pa.py_buffer(offsets), pa.py_buffer(payload)]
        ),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=_SCHEMA)


def _attempt(partitions: int, codec: str) -> OpenedAttempt:
    step = -(-partitions // _RANGES)
    firsts = range(0, partitions, step)
    info = ExchangeInfo(
        number=1,
        spec=ExchangeSpec("packing", partitions, codec=codec),
        generation=1,
        kind=RowKind.UNDECIDED,
        schema=b"",
        ranges=tuple(
            PartitionRange(index, first, min(step, partitions - first))
            for index, first in enumerate(firsts)
        ),
        assignments=(),
    )
    return OpenedAttempt(info, 0, 1)
