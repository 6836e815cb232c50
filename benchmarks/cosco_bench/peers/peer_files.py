"""The input of `cosco-bench peers`: Parquet files of a key and a text that half compresses.

The payload is text, not bytes, since that is what every peer has its best representation for.
Keys are below 2^36, so that their sum fits a signed 64-bit integer wherever it is made.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cosco.local.workers import Link

KEY_BITS: Final = 36
#: So that the sum of all keys stays below 2^63.
MAX_ROWS: Final = 1 << 27
ROW_BYTES: Final = 100
_RANDOM_CHARACTERS: Final = 46
_PAYLOAD_CHARACTERS: Final = ROW_BYTES - 8
_BATCH_ROWS: Final = 250_000
_ALPHABET: Final = np.frombuffer(
    b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/", dtype=np.uint8
)


@dataclass(frozen=True, slots=True)
class Tally:
    """What is compared: rows, the sum of their keys, bytes of their payloads."""

    rows: int = 0
    keys: int = 0
    payload_bytes: int = 0

    def plus(self, other: Tally) -> Tally:
        return Tally(
            self.rows + other.rows,
            self.keys + other.keys,
            self.payload_bytes + other.payload_bytes,
        )


def tally_of(batch: pa.RecordBatch) -> Tally:
    """Of a batch with the columns `key` and `payload`."""
    return Tally(
        batch.num_rows,
        pc.sum(batch.column("key")).as_py() or 0,
        pc.sum(pc.binary_length(batch.column("payload"))).as_py() or 0,
    )


def make_batch(rows: int, rng: np.random.Generator) -> pa.RecordBatch:
    """`rows` rows; the first half of the payload is random, the second half is filler."""
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


def write_file(link: Link, path: str, rows: int, seed: int) -> Tally:
    """Write one file; the same for the same seed. A worker's function."""
    rng = np.random.default_rng(seed)
    batches = [
        make_batch(min(_BATCH_ROWS, rows - first), rng) for first in range(0, rows, _BATCH_ROWS)
    ]
    table = pa.Table.from_batches(batches, schema=make_batch(0, rng).schema)
    # Random text has no use for a dictionary; else as pyarrow does by itself.
    pq.write_table(table, path, use_dictionary=False)
    tally = Tally()
    for batch in batches:
        tally = tally.plus(tally_of(batch))
    link.progress(1)
    return tally


def read_batches(path: str) -> Iterator[pa.RecordBatch]:
    """The rows of a file, by one thread."""
    with pq.ParquetFile(path) as file:
        yield from file.iter_batches(batch_size=_BATCH_ROWS, use_threads=False)


def file_tasks(directory: Path, rows: int, files: int) -> list[tuple[str, int, int]]:
    """Arguments of `write_file` for `rows` rows in `files` files, as even as can be."""
    share = [rows * i // files for i in range(files + 1)]
    return [
        (str(directory / f"part-{i}.parquet"), share[i + 1] - share[i], i) for i in range(files)
    ]
