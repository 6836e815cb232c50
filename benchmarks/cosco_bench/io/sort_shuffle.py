"""A reference sort shuffle that writes real files, as Spark's does.

It follows `UnsafeShuffleWriter`, which Spark takes for `repartition` and for joins. A mapper
keeps rows until its sort memory is full, sorts them by partition and spills them: a file of
one compressed segment per partition. At its end it spills the rest, and joins all spills by
copying, for each partition, its segment of each spill (`mergeSpillsWithTransferTo`), to one
data file with an index of where each partition begins. A single spill becomes the data file
as it is. A reducer looks its partition up in the index of each mapper and reads one segment
of each data file, in random order, as Spark's fetcher does.

`merge_factor` is for systems that join no more than that many spills at a time, and so write
rows once more for each further pass; Spark joins all at once.

It is kind to the sort shuffle where that costs nothing: a file that is written from its
beginning to its end, or read so, counts as IOs of `SEQUENTIAL_BYTES`, which is what the page
cache makes of the many small calls of the original; an index is read once by each process of
reducers, and nothing is synced.
"""

from __future__ import annotations

import contextlib
import os
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

import lz4.block
import numpy as np
import numpy.typing as npt

from cosco.dfs import IOEvent

#: Bytes of one write, or one read, of a file that is written or read in order.
SEQUENTIAL_BYTES: Final = 1 << 20
#: The rows of a partition in a spill are compressed in pieces of at most this length.
_PIECE_BYTES: Final = 256 << 10
_LENGTH_BYTES: Final = 4

U8 = npt.NDArray[np.uint8]


@dataclass(slots=True)
class SortIo:
    """What a task of the sort shuffle did to its disk."""

    writes: list[IOEvent] = field(default_factory=list)
    reads: list[IOEvent] = field(default_factory=list)
    spill_writes: list[IOEvent] = field(default_factory=list)
    spill_reads: list[IOEvent] = field(default_factory=list)
    bytes_stored: int = 0

    def add(self, other: SortIo) -> None:
        """Add what another task did."""
        self.writes += other.writes
        self.reads += other.reads
        self.spill_writes += other.spill_writes
        self.spill_reads += other.spill_reads
        self.bytes_stored += other.bytes_stored


@dataclass(frozen=True, slots=True)
class _Sorted:
    """A file of segments, one after another: `ends[p]` is where that of partition p ends."""

    path: Path
    ends: npt.NDArray[np.int64]

    def segment(self, partition: int) -> tuple[int, int]:
        start = int(self.ends[partition - 1]) if partition else 0
        return start, int(self.ends[partition])


class SortWriter:
    """One map task: `add` rows, then `finish`. Files are `PREFIX.data` and `PREFIX.index`."""

    def __init__(
        self,
        prefix: Path,
        partitions: int,
        row_bytes: int,
        *,
        sort_memory: int,
        codec: str,
        merge_factor: int = 0,
    ) -> None:
        """Begin a task. `row_bytes`: the length of every row. `merge_factor` 0: all spills at once.

        Raises ValueError for a `merge_factor` of 1, which would never end.
        """
        if merge_factor == 1:
            raise ValueError("a merge of one spill at a time never ends")
        self._prefix = prefix
        self._partitions = partitions
        self._row_bytes = row_bytes
        self._rows_max = max(1, sort_memory // row_bytes)
        self._codec = codec
        self._merge_factor = merge_factor
        self._rows: list[U8] = []
        self._row_partitions: list[npt.NDArray[np.int64]] = []
        self._buffered = 0
        self._spills: list[_Sorted] = []
        self._files = 0
        self.io = SortIo()

    def add(self, row_partitions: npt.NDArray[np.int64], rows: U8) -> None:
        """Add rows, one in each line of a table, with the partition of each."""
        while len(rows):
            count = min(len(rows), self._rows_max - self._buffered)
            self._rows.append(rows[:count])
            self._row_partitions.append(row_partitions[:count])
            self._buffered += count
            rows, row_partitions = rows[count:], row_partitions[count:]
            if self._buffered == self._rows_max:
                self._spill()

    def finish(self) -> None:
        """Write the data file and its index, and delete the spills."""
        if self._buffered or not self._spills:
            self._spill()
        data = self._prefix.with_suffix(".data")
        spills = self._spills
        if len(spills) == 1:
            spills[0].path.rename(data)
            # What was written as a spill is the data file: nothing else was written.
            moved, self.io.spill_writes = self.io.spill_writes, []
            self.io.writes += [_renamed(event, data.name) for event in moved]
            ends = spills[0].ends
        else:
            while self._merge_factor and len(spills) > self._merge_factor:
                group, spills = spills[: self._merge_factor], spills[self._merge_factor :]
                spills.append(self._merge(group, self._next_file(), self.io.spill_writes))
            ends = self._merge(spills, data, self.io.writes).ends
        index = self._prefix.with_suffix(".index")
        with _Sequential(index, self.io.writes) as file:
            file.write(np.concatenate(([0], ends)).astype("<i8").tobytes())
        self.io.bytes_stored += int(ends[-1])

    def _next_file(self) -> Path:
        self._files += 1
        return self._prefix.with_suffix(f".spill-{self._files}")

    def _spill(self) -> None:
        """Sort what is in memory by partition and write it."""
        row_partitions = (
            np.concatenate(self._row_partitions) if self._row_partitions else np.empty(0, np.int64)
        )
        order = np.argsort(row_partitions, kind="stable")
        counts = np.bincount(row_partitions, minlength=self._partitions)
        bounds = np.concatenate(([0], np.cumsum(counts)))
        width = self._row_bytes
        rows = np.concatenate(self._rows)[order] if self._rows else np.empty((0, width), np.uint8)
        self._rows, self._row_partitions, self._buffered = [], [], 0
        path = self._next_file()
        ends = np.zeros(self._partitions, np.int64)
        with _Sequential(path, self.io.spill_writes) as file:
            for partition in range(self._partitions):
                for piece in self._pieces(rows[bounds[partition] : bounds[partition + 1]]):
                    file.write(piece)
                ends[partition] = file.position
        self._spills.append(_Sorted(path, ends))

    def _pieces(self, rows: U8) -> Iterator[bytes]:
        # Each row with its length before it, as `UnsafeRowSerializer` writes them.
        lengths = np.full((len(rows), 1), self._row_bytes, "<u4").view(np.uint8)
        step = max(1, _PIECE_BYTES // (self._row_bytes + _LENGTH_BYTES))
        for first in range(0, len(rows), step):
            piece = slice(first, first + step)
            content = np.hstack((lengths[piece], rows[piece])).tobytes()
            if self._codec == "lz4":
                content = lz4.block.compress(content, acceleration=8)
            yield len(content).to_bytes(_LENGTH_BYTES, "little") + content

    def _merge(self, spills: Sequence[_Sorted], path: Path, writes: list[IOEvent]) -> _Sorted:
        """Join sorted files to one by copying, and delete them."""
        ends = np.zeros(self._partitions, np.int64)
        with contextlib.ExitStack() as stack:
            target = stack.enter_context(_Sequential(path, writes))
            sources = [
                stack.enter_context(_Reads(spill.path, self.io.spill_reads)) for spill in spills
            ]
            for partition in range(self._partitions):
                for spill, source in zip(spills, sources, strict=True):
                    start, end = spill.segment(partition)
                    target.write(source.next(end - start))
                ends[partition] = target.position
        for spill in spills:
            spill.path.unlink()
        return _Sorted(path, ends)


class SortReader:
    """The reducers of one process: reads partitions, and each index once."""

    def __init__(self, prefixes: Sequence[Path], *, row_bytes: int, codec: str, seed: int) -> None:
        self._prefixes = list(prefixes)
        self._row_bytes = row_bytes
        self._codec = codec
        self._order = random.Random(seed)  # noqa: S311 - an order of reading
        self._ends: dict[Path, npt.NDArray[np.int64]] = {}
        self.io = SortIo()

    def read(self, partition: int) -> Iterator[U8]:
        """Yield the rows of a partition, mapper by mapper, as tables with one row in each line.

        Raises ValueError for a file that is not what a `SortWriter` wrote.
        """
        for prefix in self._order.sample(self._prefixes, len(self._prefixes)):
            ends = self._ends.get(prefix)
            if ends is None:
                data = self._read(prefix.with_suffix(".index"), 0, None)
                ends = self._ends[prefix] = np.frombuffer(data, "<i8")
            start, end = int(ends[partition]), int(ends[partition + 1])
            if start == end:
                continue
            segment = self._read(prefix.with_suffix(".data"), start, end - start)
            if len(segment) != end - start:
                raise ValueError(f"{prefix.name}.data ends before {end}")
            yield from self._rows(segment)

    def _rows(self, segment: bytes) -> Iterator[U8]:
        position = 0
        while position < len(segment):
            length = int.from_bytes(segment[position : position + _LENGTH_BYTES], "little")
            position += _LENGTH_BYTES
            content = segment[position : position + length]
            position += length
            if self._codec == "lz4":
                content = lz4.block.decompress(content)
            rows = np.frombuffer(content, np.uint8).reshape(-1, _LENGTH_BYTES + self._row_bytes)
            yield rows[:, _LENGTH_BYTES:]

    def _read(self, path: Path, offset: int, length: int | None) -> bytes:
        with path.open("rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size if length is None else length
            started = time.perf_counter()
            data = os.pread(file.fileno(), size, offset)
        self.io.reads.append(_event("read", path, offset, len(data), started))
        return data


class _Sequential:
    """A file written in order, in IOs of SEQUENTIAL_BYTES."""

    def __init__(self, path: Path, events: list[IOEvent]) -> None:
        self._path = path
        self._events = events
        self._buffer = bytearray()
        self._written = 0

    def __enter__(self) -> _Sequential:
        self._file = self._path.open("xb", buffering=0)
        return self

    def __exit__(self, *_: object) -> None:
        while self._buffer:
            self._flush(len(self._buffer))
        self._file.close()

    @property
    def position(self) -> int:
        """Bytes written so far."""
        return self._written + len(self._buffer)

    def write(self, data: bytes) -> None:
        self._buffer += data
        while len(self._buffer) >= SEQUENTIAL_BYTES:
            self._flush(SEQUENTIAL_BYTES)

    def _flush(self, length: int) -> None:
        started = time.perf_counter()
        with memoryview(self._buffer) as view:
            done = self._file.write(view[:length])
        self._events.append(_event("write", self._path, self._written, done, started))
        del self._buffer[:done]
        self._written += done


class _Reads:
    """A file read in order, in IOs of SEQUENTIAL_BYTES."""

    def __init__(self, path: Path, events: list[IOEvent]) -> None:
        self._path = path
        self._events = events
        self._buffer = b""
        self._offset = 0

    def __enter__(self) -> _Reads:
        self._file = self._path.open("rb", buffering=0)
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def next(self, length: int) -> bytes:
        """Return the next `length` bytes; raises ValueError at the end of the file."""
        while len(self._buffer) < length:
            started = time.perf_counter()
            data = self._file.read(SEQUENTIAL_BYTES)
            if not data:
                raise ValueError(f"{self._path.name} ends at {self._offset}")
            self._events.append(_event("read", self._path, self._offset, len(data), started))
            self._offset += len(data)
            self._buffer += data
        data, self._buffer = self._buffer[:length], self._buffer[length:]
        return data


def _event(
    kind: Literal["read", "write"], path: Path, offset: int, length: int, started: float
) -> IOEvent:
    return IOEvent(kind, path.name, offset, length, started, time.perf_counter() - started)


def _renamed(event: IOEvent, path: str) -> IOEvent:
    return IOEvent(event.kind, path, event.offset, event.length, event.start, event.seconds)
