"""No shuffle system at all: threads of one process that repartition Arrow tables in memory.

What a job costs that fits one machine, one process and its memory, and needs no row twice when
something fails: the bound for everyone else.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from harness import Job, Tally, Tasks, main

_BATCH_ROWS = 250_000


@contextmanager
def start(job: Job) -> Iterator[Tasks]:
    with ThreadPoolExecutor(job.threads) as pool:

        def scan() -> Tally:
            return _sum(pool.map(_scan_file, job.files))

        def shuffle() -> Tally:
            pieces = [
                piece
                for of_file in pool.map(_split_file, job.files, [job.partitions] * len(job.files))
                for piece in of_file
            ]
            return _sum(pool.map(_reduce, zip(*pieces, strict=True)))

        yield Tasks(
            scan,
            shuffle,
            versions={"pyarrow": pa.__version__, "numpy": np.__version__},
            settings={"threads": job.threads, "processes": 1},
        )


def _batches(path: str) -> Iterator[pa.RecordBatch]:
    with pq.ParquetFile(path) as file:
        yield from file.iter_batches(batch_size=_BATCH_ROWS, use_threads=False)


def _tally(batch: pa.RecordBatch) -> Tally:
    return Tally(
        batch.num_rows,
        pc.sum(batch.column("key")).as_py() or 0,
        pc.sum(pc.binary_length(batch.column("payload"))).as_py() or 0,
    )


def _sum(tallies: Iterator[Tally]) -> Tally:
    counted = [(tally.rows, tally.keys, tally.payload_bytes) for tally in tallies]
    return Tally(*(sum(figures) for figures in zip(*counted, strict=True)))


def _scan_file(path: str) -> Tally:
    return _sum(_tally(batch) for batch in _batches(path))


def _split_file(path: str, partitions: int) -> list[list[pa.RecordBatch]]:
    """Return, for each batch of a file, its rows of each partition."""
    return [_split(batch, partitions) for batch in _batches(path)]


def _split(batch: pa.RecordBatch, partitions: int) -> list[pa.RecordBatch]:
    keys = batch.column("key").to_numpy().view(np.uint64)
    mixed = (keys ^ (keys >> np.uint64(33))) * np.uint64(0xFF51AFD7ED558CCD)
    number = ((mixed >> np.uint64(32)) % np.uint64(partitions)).astype(np.uint32)
    bounds = np.concatenate(([0], np.cumsum(np.bincount(number, minlength=partitions))))
    ordered = batch.take(pa.array(np.argsort(number, kind="stable")))
    return [ordered.slice(low, high - low) for low, high in pairwise(bounds)]


def _reduce(pieces: tuple[pa.RecordBatch, ...]) -> Tally:
    return _sum(_tally(piece) for piece in pieces)


if __name__ == "__main__":
    main(start)
