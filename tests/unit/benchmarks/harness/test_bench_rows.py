from __future__ import annotations

import lz4.block
import numpy as np
import pyarrow as pa
import pytest
from cosco_bench.harness.bench_rows import (
    RowTally,
    key_sum,
    keys_of,
    make_batches,
    mismatches,
    partition_keys,
)
from cosco_bench.harness.capacity import BATCH_ROWS, ROW_BYTES


def test_rows_are_a_key_and_a_payload_that_half_compresses() -> None:
    ((keys, rows),) = make_batches(1000, seed=1)
    first = rows[3].as_py()
    assert len(first) == ROW_BYTES == 100
    assert int.from_bytes(first[:8], "little") == keys[3]
    data = b"".join(rows.to_pylist())
    assert 0.5 < len(lz4.block.compress(data)) / len(data) < 0.7


def test_batches_add_up_and_repeat() -> None:
    made = make_batches(BATCH_ROWS + 5, seed=2)
    assert [len(rows) for _, rows in made] == [BATCH_ROWS, 5]
    again = make_batches(BATCH_ROWS + 5, seed=2)
    assert all(a[1].equals(b[1]) for a, b in zip(made, again, strict=True))
    assert make_batches(0, seed=2) == []


def test_keys_are_found_again_in_any_slice() -> None:
    ((keys, rows),) = make_batches(50, seed=3)
    assert keys_of(rows).tolist() == keys.tolist()
    assert keys_of(rows.slice(7, 9)).tolist() == keys[7:16].tolist()
    assert keys_of(rows.slice(0, 0)).tolist() == []


def test_a_row_of_another_length_is_seen() -> None:
    with pytest.raises(ValueError, match="100 bytes"):
        keys_of(pa.array([b"x" * 99, b"x" * 101]))


def test_the_sum_is_modulo_2_to_64() -> None:
    assert key_sum(np.array([2**64 - 1, 3], np.uint64)) == 2


def test_partitions_are_in_range_and_even() -> None:
    ((keys, _),) = make_batches(10_000, seed=4)
    counts = np.bincount(partition_keys(keys, 10), minlength=10)
    assert len(counts) == 10
    assert counts.min() > 850


def test_tallies_add_up_modulo_2_to_64() -> None:
    tallies = [RowTally(1, 2**64 - 1, 5), RowTally(2, 3, 6)]
    assert sum(tallies, RowTally()) == RowTally(3, 2, 11)


def test_rows_that_differ_between_two_places_are_told() -> None:
    asked, sent = 5, RowTally(5, 9)
    assert mismatches(asked, sent, sent, committed=5) == []
    assert len(mismatches(6, sent, sent, committed=5)) == 1
    assert len(mismatches(asked, sent, sent, committed=4)) == 1
    assert len(mismatches(asked, sent, RowTally(4, 9), committed=5)) == 1
    assert len(mismatches(asked, sent, RowTally(4, 8), committed=5)) == 2
