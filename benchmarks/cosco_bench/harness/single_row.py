"""One row that is waited for: what the latency of rows is measured with, in groups or without."""

from __future__ import annotations

import time

from cosco import CoscoReader
from cosco.errors import DataCorrupted
from cosco.local.workers import Link
from cosco_bench.harness.bench_rows import ROW_BYTES


def numbered_row(index: int) -> bytes:
    """The row of a round."""
    return index.to_bytes(8, "little").ljust(ROW_BYTES, b"x")


def await_row(link: Link, reader: CoscoReader, index: int) -> int:
    """Wait for the one row of a round; when it was there, on the monotonic clock in ns.

    Raises DataCorrupted if it is none, or another than was written.
    """
    link.wait_for_start()
    if not reader.next():
        raise DataCorrupted(f"round {index} has no row")
    arrived = time.monotonic_ns()
    if reader.row() != numbered_row(index) or reader.next():
        raise DataCorrupted(f"round {index} has another row than was written")
    return arrived
