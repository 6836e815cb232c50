"""The reference sort shuffle gives every row to its partition, and writes what it says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cosco_bench.io.sort_shuffle import SEQUENTIAL_BYTES, SortIo, SortReader, SortWriter

WIDTH, PARTITIONS = 12, 5


def rows_of(mapper: int, count: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    rng = np.random.default_rng(mapper)
    return rng.integers(0, PARTITIONS, count), rng.integers(0, 256, (count, WIDTH), np.uint8)


def shuffle(
    directory: Path, counts: list[int], *, sort_rows: int, codec: str = "lz4", merge_factor: int = 0
) -> tuple[list[SortIo], SortIo]:
    """Write and read `counts[m]` rows of each mapper; checks that they come out as they are."""
    writers = []
    expected: list[list[bytes]] = [[] for _ in range(PARTITIONS)]
    prefixes = [directory / f"shuffle-{mapper}" for mapper in range(len(counts))]
    for mapper, count in enumerate(counts):
        writer = SortWriter(
            prefixes[mapper],
            PARTITIONS,
            WIDTH,
            sort_memory=sort_rows * WIDTH,
            codec=codec,
            merge_factor=merge_factor,
        )
        numbers, rows = rows_of(mapper, count)
        for first in range(0, count, 7):  # batches that do not fit the sort's memory evenly
            writer.add(numbers[first : first + 7], rows[first : first + 7])
        writer.finish()
        writers.append(writer.io)
        for number, row in zip(numbers, rows, strict=True):
            expected[number].append(row.tobytes())
    reader = SortReader(prefixes, row_bytes=WIDTH, codec=codec, seed=1)
    for partition in range(PARTITIONS):
        found = [row.tobytes() for table in reader.read(partition) for row in table]
        assert sorted(found) == sorted(expected[partition])
    names = {f"shuffle-{m}.{kind}" for m in range(len(counts)) for kind in ("data", "index")}
    assert {path.name for path in directory.iterdir()} == names
    return writers, reader.io


def written(events: list[Any]) -> int:
    return sum(event.length for event in events)


@pytest.mark.parametrize("codec", ["lz4", "none"])
@pytest.mark.parametrize("sort_rows", [1, 10, 100, 1000])
def test_every_row_comes_out_once(tmp_path: Path, codec: str, sort_rows: int) -> None:
    shuffle(tmp_path, [100, 0, 1, 250], sort_rows=sort_rows, codec=codec)


def test_a_mapper_that_fits_its_memory_writes_its_rows_once(tmp_path: Path) -> None:
    (io,), _ = shuffle(tmp_path, [100], sort_rows=100)
    assert (io.spill_writes, io.spill_reads) == ([], [])
    index_bytes = 8 * (PARTITIONS + 1)
    assert written(io.writes) == io.bytes_stored + index_bytes
    assert {event.path for event in io.writes} == {"shuffle-0.data", "shuffle-0.index"}


def test_one_that_spills_writes_them_twice(tmp_path: Path) -> None:
    (io,), _ = shuffle(tmp_path, [100], sort_rows=30)
    assert len({event.path for event in io.spill_writes}) == 4
    assert written(io.spill_writes) == written(io.spill_reads) == io.bytes_stored


def test_joining_a_few_spills_at_a_time_writes_them_more_often(tmp_path: Path) -> None:
    (io,), _ = shuffle(tmp_path, [100], sort_rows=25, codec="none", merge_factor=2)
    # Four spills: two merges of two, and the last one.
    assert written(io.spill_writes) == 2 * io.bytes_stored
    assert written(io.spill_reads) == 2 * io.bytes_stored
    with pytest.raises(ValueError, match="one spill"):
        SortWriter(tmp_path / "x", 1, 1, sort_memory=1, codec="none", merge_factor=1)


def test_reducers_read_one_segment_of_each_mapper_and_each_index_once(tmp_path: Path) -> None:
    mappers = 4
    _, io = shuffle(tmp_path, [200] * mappers, sort_rows=50)
    data = [event for event in io.reads if event.path.endswith(".data")]
    assert len(data) == mappers * PARTITIONS
    assert len({(event.path, event.offset) for event in data}) == len(data)
    assert len(io.reads) - len(data) == mappers


def test_files_in_order_count_as_large_ios(tmp_path: Path) -> None:
    count = 3 * SEQUENTIAL_BYTES // WIDTH
    numbers, rows = rows_of(0, count)
    writer = SortWriter(
        tmp_path / "m", PARTITIONS, WIDTH, sort_memory=count * WIDTH // 2 + WIDTH, codec="none"
    )
    writer.add(numbers, rows)
    writer.finish()
    for events in (writer.io.writes, writer.io.spill_writes, writer.io.spill_reads):
        assert max(event.length for event in events) == SEQUENTIAL_BYTES
    offsets = [event.offset for event in writer.io.writes if event.path == "m.data"]
    assert offsets == [n * SEQUENTIAL_BYTES for n in range(len(offsets))]


def test_a_file_that_was_cut_is_noticed(tmp_path: Path) -> None:
    shuffle(tmp_path, [100], sort_rows=100)
    data = tmp_path / "shuffle-0.data"
    data.write_bytes(data.read_bytes()[:-1])
    reader = SortReader([tmp_path / "shuffle-0"], row_bytes=WIDTH, codec="lz4", seed=1)
    with pytest.raises(ValueError, match="ends before"):
        list(reader.read(PARTITIONS - 1))
