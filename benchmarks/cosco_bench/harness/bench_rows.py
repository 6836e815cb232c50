"""The standard workload: 100-byte rows, an int64 key and a payload that half compresses."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cosco.partitioning import mix64

U64 = npt.NDArray[np.uint64]

KEY_BYTES: Final = 8
RANDOM_BYTES: Final = 46
FILLER_BYTES: Final = 46
ROW_BYTES: Final = KEY_BYTES + RANDOM_BYTES + FILLER_BYTES
#: Rows that are handed to `collect_batch` at a time.
#: About a writer's buffer: smaller batches are copied once more before they are sorted
#: (65,536 rows a batch: a tenth slower end to end).
BATCH_ROWS: Final = 250_000


def make_batch(rows: int, rng: np.random.Generator) -> tuple[U64, pa.BinaryArray]:
    """`rows` rows: their keys, and each as key (little-endian), random bytes, filler."""
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
    """`rows` rows in batches of BATCH_ROWS; the same for the same seed."""
    rng = np.random.default_rng(seed)
    return [make_batch(min(BATCH_ROWS, rows - first), rng) for first in range(0, rows, BATCH_ROWS)]


def partition_keys(keys: U64, partitions: int) -> npt.NDArray[np.int64]:
    """The partition of each key."""
    return (mix64(keys) % np.uint64(partitions)).astype(np.int64)


def key_sum(keys: U64) -> int:
    """The sum of keys modulo 2^64: the workload's checksum, whatever the order of rows."""
    return int(keys.sum(dtype=np.uint64))


def keys_of(rows: pa.BinaryArray) -> U64:
    """The keys of rows that were read; raises ValueError for a row of another length."""
    _, offsets, data = rows.buffers()
    bounds = np.frombuffer(offsets, dtype=np.int32)[rows.offset : rows.offset + len(rows) + 1]
    if len(rows) and not bool(np.all(np.diff(bounds) == ROW_BYTES)):
        raise ValueError(f"a row that is not {ROW_BYTES} bytes long")
    if not len(rows):
        return np.empty(0, dtype=np.uint64)
    table = np.frombuffer(data, dtype=np.uint8)[bounds[0] : bounds[-1]].reshape(-1, ROW_BYTES)
    return np.ascontiguousarray(table[:, :KEY_BYTES]).view("<u8").reshape(-1)
