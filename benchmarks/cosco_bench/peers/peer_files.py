"""The input of `cosco-bench peers`: Parquet files of a key and a text that half compresses.

The payload is text, not bytes, since that is what every peer has its best representation for.
Keys are below 2^36, so that their sum fits a signed 64-bit integer wherever it is made.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cosco.local.workers import Link
from cosco_bench.harness.bench_rows import RowTally
from cosco_bench.harness.capacity import BATCH_ROWS, ROW_BYTES, even_parts

#: The sum of the keys of MAX_PEER_ROWS rows stays below 2^63.
KEY_BITS: Final = 36
_RANDOM_CHARACTERS: Final = 46
_PAYLOAD_CHARACTERS: Final = ROW_BYTES - 8
_ALPHABET: Final = np.frombuffer(
    b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/", dtype=np.uint8
)


def tally_of(batch: pa.RecordBatch) -> RowTally:
    """Return the tally of a batch with the columns `key` and `payload`."""
    return RowTally(
        batch.num_rows,
        pc.sum(batch.column("key")).as_py() or 0,
        pc.sum(pc.binary_length(batch.column("payload"))).as_py() or 0,
    )


def make_batch(rows: int, rng: np.random.Generator) -> pa.RecordBatch:
    """Return `rows` rows; the first half of the payload is random, the second half is filler."""
    text = np.full((rows, _PAYLOAD_CHARACTERS), ord("x"), dtype=np.uint8)
    text[:, :_RANDOM_CHARACTERS] = _ALPHABET[
        rng.integers(0, len(_ALPHABET), size=(rows, _RANDOM_CHARACTERS), dtype=np.uint8)
    ]
    offsets = np.arange(rows + 1, dtype=np.int32) * _PAYLOAD_CHARACTERS
    payload = pa.Array.from_buffers(
        pa.string(), rows, [None, pa.py_buffer(offsets), pa.py_buffer(text)]
    )
    keys = rng.integers(0, 1 << KEY_BITS, size=rows, dtype=np.int64)
    return pa.record_batch({"key": keys, "payload": payload})


def write_file(link: Link, path: str, rows: int, seed: int) -> RowTally:
    """Write one file, the same for the same seed, and return its tally."""
    rng = np.random.default_rng(seed)
    batches = [
        make_batch(min(BATCH_ROWS, rows - first), rng) for first in range(0, rows, BATCH_ROWS)
    ]
    table = pa.Table.from_batches(batches, schema=make_batch(0, rng).schema)
    # Random text has no use for a dictionary; else as pyarrow does by itself.
    pq.write_table(table, path, use_dictionary=False)
    link.progress(1)
    return sum(map(tally_of, batches), RowTally())


def read_batches(path: str) -> Iterator[pa.RecordBatch]:
    """Read the rows of a file, by one thread."""
    with pq.ParquetFile(path) as file:
        yield from file.iter_batches(batch_size=BATCH_ROWS, use_threads=False)


def file_tasks(directory: Path, rows: int, files: int) -> list[tuple[str, int, int]]:
    """Return the arguments of `write_file` for `rows` rows in `files` files of equal size."""
    return [
        (str(directory / f"part-{i}.parquet"), len(part), i)
        for i, part in enumerate(even_parts(rows, files))
    ]
