"""The standard workload: 100-byte rows, an int64 key and a payload that half compresses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cosco.partitioning import mix64
from cosco.protocol.records import MASK64
from cosco_bench.harness.capacity import BATCH_ROWS, ROW_BYTES

U64 = npt.NDArray[np.uint64]

KEY_BYTES: Final = 8
RANDOM_BYTES: Final = 46


def make_batch(rows: int, rng: np.random.Generator) -> tuple[U64, pa.BinaryArray]:
    """Return the keys of `rows` rows, and each row: key (little-endian), random bytes, filler."""
    table = np.empty((rows, ROW_BYTES), dtype=np.uint8)
    keys = rng.integers(0, 1 << 64, size=rows, dtype=np.uint64)
    table[:, :KEY_BYTES] = keys.astype("<u8").view(np.uint8).reshape(rows, KEY_BYTES)
    table[:, KEY_BYTES : KEY_BYTES + RANDOM_BYTES] = np.frombuffer(
        rng.bytes(rows * RANDOM_BYTES), dtype=np.uint8
    ).reshape(rows, RANDOM_BYTES)
    table[:, KEY_BYTES + RANDOM_BYTES :] = ord("x")
    offsets = np.arange(rows + 1, dtype=np.int32) * ROW_BYTES
    array = pa.Array.from_buffers(
        pa.binary(), rows, [None, pa.py_buffer(offsets), pa.py_buffer(table)]
    )
    return keys, array


def make_batches(rows: int, seed: int) -> list[tuple[U64, pa.BinaryArray]]:
    """Return `rows` rows in batches of BATCH_ROWS; the same for the same seed."""
    rng = np.random.default_rng(seed)
    return [make_batch(min(BATCH_ROWS, rows - first), rng) for first in range(0, rows, BATCH_ROWS)]


def partition_keys(keys: U64, partitions: int) -> npt.NDArray[np.int64]:
    """Return the partition of each key."""
    return (mix64(keys) % np.uint64(partitions)).astype(np.int64)


def key_sum(keys: U64) -> int:
    """Return the sum of keys modulo 2^64: a checksum, whatever the order of rows."""
    return int(keys.sum(dtype=np.uint64))


def keys_of(rows: pa.BinaryArray) -> U64:
    """Return the keys of rows that were read; raises ValueError for a row of another length."""
    _, offsets, data = rows.buffers()
    bounds = np.frombuffer(offsets, dtype=np.int32)[rows.offset : rows.offset + len(rows) + 1]
    if len(rows) and not bool(np.all(np.diff(bounds) == ROW_BYTES)):
        raise ValueError(f"a row that is not {ROW_BYTES} bytes long")
    if not len(rows):
        return np.empty(0, dtype=np.uint64)
    table = np.frombuffer(data, dtype=np.uint8)[bounds[0] : bounds[-1]].reshape(-1, ROW_BYTES)
    return np.ascontiguousarray(table[:, :KEY_BYTES]).view("<u8").reshape(-1)


@dataclass(frozen=True, slots=True)
class RowTally:
    """What is compared of the rows that went in and those that came out.

    Rows, the sum of their keys modulo 2^64, and where payloads are text its bytes.
    """

    rows: int = 0
    keys: int = 0
    payload_bytes: int = 0

    def __add__(self, other: RowTally) -> RowTally:
        return RowTally(
            self.rows + other.rows,
            (self.keys + other.keys) & MASK64,
            self.payload_bytes + other.payload_bytes,
        )


def tally_of(keys: U64) -> RowTally:
    """Return the tally of rows with these keys."""
    return RowTally(len(keys), key_sum(keys))


def mismatches(asked: int, sent: RowTally, received: RowTally, committed: int) -> list[str]:
    """Return what differs between the rows asked for, written, committed and read."""
    problems = []
    if sent.rows != asked or committed != asked:
        problems.append(f"{asked} rows asked for, {sent.rows} written, {committed} committed")
    if received.rows != sent.rows:
        problems.append(f"{sent.rows} rows written, {received.rows} read")
    if received.keys != sent.keys:
        problems.append(f"sum of keys written {sent.keys:#x}, read {received.keys:#x}")
    return problems
