"""What the plugin of Dask's scheduler knows of a shuffle, where there is no Dask."""

from __future__ import annotations

import pyarrow as pa
import pytest

from cosco.dask.state.shuffle_record import (
    MAX_VARIANTS,
    NOTHING,
    ShuffleRecord,
    barrier_key,
    merged,
    transfer_key,
)
from cosco.errors import CoscoError, InvalidArgument

NUMBERS = pa.schema([("key", pa.int64())], metadata={b"pandas": b"{}"})
FLOATS = pa.schema([("key", pa.float64())])
NOBODYS = pa.schema([("key", pa.null())])


def a_record(mappers: int = 3) -> ShuffleRecord:
    """A shuffle of some mappers to two partitions."""
    return ShuffleRecord("t", mappers, 2)


def test_keys_name_the_shuffle_and_the_mapper() -> None:
    assert barrier_key("t") == "cosco-barrier-t"
    assert transfer_key("t", 3) == ("cosco-transfer-t", 3)


@pytest.mark.parametrize("known", [NUMBERS, NOBODYS])
@pytest.mark.parametrize("new", [NUMBERS, NOBODYS])
def test_a_column_without_values_fits_any_type(known: pa.Schema, new: pa.Schema) -> None:
    expected = NOBODYS if known.equals(new) and known.equals(NOBODYS) else NUMBERS
    found = merged(known, new)
    assert found is not None
    assert found.equals(expected)


def test_schemas_that_differ_do_not_fit() -> None:
    assert merged(NUMBERS, FLOATS) is None
    assert merged(NUMBERS, pa.schema([("other", pa.int64())])) is None
    assert merged(NUMBERS, pa.schema([*NUMBERS, ("other", pa.int64())])) is None


def test_what_pandas_says_of_the_first_rows_stays() -> None:
    found = merged(NUMBERS, NOBODYS)
    assert found is not None
    assert found.metadata == NUMBERS.metadata


def test_rows_of_another_schema_are_elsewhere() -> None:
    record = a_record()
    assert [record.begin(0, NUMBERS), record.begin(1, FLOATS), record.begin(2, NUMBERS)] == [
        0,
        1,
        0,
    ]
    assert [variant.mappers for variant in record.variants] == [{0, 2}, {1}]
    record.check_results([0, 1, 0])
    with pytest.raises(CoscoError, match=r"mappers \[1, 2\]"):
        record.check_results([0, 0, 1])
    with pytest.raises(CoscoError, match="2 results"):
        record.check_results([0, 1])


def test_a_run_with_rows_of_another_schema_moves_its_mapper() -> None:
    record = a_record()
    record.begin(0, NUMBERS)
    assert record.begin(0, FLOATS) == 1
    assert [variant.mappers for variant in record.variants] == [set(), {0}]
    record.begin_empty(0)
    assert record.variant_of(0) == NOTHING
    assert not any(variant.mappers for variant in record.variants)


def test_a_frame_of_too_many_schemas_is_refused_and_what_is_there_stays() -> None:
    record = a_record(MAX_VARIANTS + 1)
    for mapper in range(MAX_VARIANTS):
        record.begin(mapper, pa.schema([(f"column {mapper}", pa.int64())]))
    with pytest.raises(InvalidArgument, match="astype"):
        record.begin(MAX_VARIANTS, NUMBERS)
    assert len(record.variants) == MAX_VARIANTS
    assert record.begin(MAX_VARIANTS, pa.schema([("column 3", pa.int64())])) == 3


def test_a_run_that_began_before_its_rows_were_lost_does_not_count() -> None:
    record = a_record()
    for mapper in range(3):
        record.begin(mapper, NUMBERS)
        assert record.finish(mapper)
    record.owe([1])
    assert record.done == {0, 2}
    assert not record.finish(1), "of a run that began before"
    assert record.owed == {1}
    record.begin(1, NUMBERS)
    assert record.owed == {1}, "until the run has ended"
    assert record.finish(1)
    assert record.done == {0, 1, 2}
    assert not record.owed


def test_rows_that_are_lost_again_during_the_run_are_owed_once_more() -> None:
    record = a_record()
    record.begin(1, NUMBERS)
    record.owe([1])
    record.begin(1, NUMBERS)
    record.owe([1, 2])
    assert not record.finish(1)
    assert record.owed == {1, 2}
    assert record.called_back == {1: 2, 2: 1}


def test_a_mapper_that_has_no_rows_any_more_is_owed_no_longer() -> None:
    record = a_record()
    record.begin(1, NUMBERS)
    record.owe([1])
    record.begin_empty(1)
    assert record.finish(1)
    assert not record.owed
    assert record.variant_of(1) == NOTHING
