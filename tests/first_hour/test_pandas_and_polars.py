"""Frames that are shuffled as Arrow tables, and are to come back as they were."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from pandas.testing import assert_frame_equal
from support.arrow_parts import read, shuffled, write

from cosco import CoscoExchange, CoscoWriter, SchemaMismatch

FRAME = pd.DataFrame(
    {
        "number": [1, 2, 3],
        "Int64": pd.array([1, None, 3], "Int64"),
        "Float64": pd.array([1.5, None, 3], "Float64"),
        "boolean": pd.array([True, None, False], "boolean"),
        "string": pd.array(["x", None, ""], "string"),
        "text": pd.Series(["x", None, ""], dtype="str"),
        "zoned": pd.to_datetime(["2020-01-01", None, "2020-07-01"]).tz_localize("Europe/Berlin"),
        "delta": pd.to_timedelta([1, None, 3], unit="s"),
        "period": pd.period_range("2020-01", periods=3, freq="M"),
        "interval": pd.arrays.IntervalArray.from_breaks([0, 1, 2, 3]),
        "category": pd.Categorical(["u", None, "v"], ["v", "u"], ordered=True),
        "arrow": pd.array([1, None, 3], pd.ArrowDtype(pa.int16())),
    }
)


def came_back(name: str, metadata: str, frames: Sequence[pd.DataFrame]) -> pd.DataFrame:
    parts = [pa.Table.from_pandas(frame) for frame in frames]
    found: pd.DataFrame = shuffled(name, metadata, *parts).to_pandas()
    return found


@pytest.mark.parametrize("parts", [1, 3])
def test_a_frame_with_every_dtype(name: str, metadata: str, parts: int) -> None:
    frames = [FRAME] * parts
    assert_frame_equal(came_back(name, metadata, frames), pd.concat(frames, ignore_index=True))


@pytest.mark.parametrize(
    "index",
    [
        pd.Index(["k", "l", "m"], name="key"),
        pd.Index([7, 11, 13]),
        pd.DatetimeIndex(["2020-01-01", "2021-01-01", "2020-01-03"], tz="UTC"),
        pd.MultiIndex.from_tuples([("a", 1), ("a", 2), ("b", 1)], names=["x", None]),
        pd.CategoricalIndex(["u", "v", "u"], name="c"),
    ],
    ids=lambda index: type(index).__name__,
)
def test_a_frame_with_an_index(name: str, metadata: str, index: pd.Index) -> None:
    frame = FRAME[["number", "Int64"]].set_index(index)
    found = came_back(name, metadata, [frame, frame])
    assert_frame_equal(found, pd.concat([frame, frame]))


@pytest.mark.parametrize("index", [pd.RangeIndex(3), pd.RangeIndex(5, 11, 2, name="n")], ids=str)
def test_a_range_index_is_not_put_on_other_rows(
    name: str, metadata: str, index: pd.RangeIndex
) -> None:
    frame = FRAME[["number", "Int64"]].set_index(index)
    found = came_back(name, metadata, [frame, frame.iloc[:1], frame])
    expected = pd.concat([frame, frame.iloc[:1], frame], ignore_index=True)
    assert_frame_equal(found, expected)


def test_a_range_index_made_a_column(name: str, metadata: str) -> None:
    frame = FRAME[["number"]].set_index(pd.RangeIndex(5, 11, 2, name="n"))
    part = pa.Table.from_pandas(frame, preserve_index=True)
    found = shuffled(name, metadata, part).to_pandas()
    assert_frame_equal(found, frame, check_index_type=False)


def test_an_index_column_was_left_out(name: str, metadata: str) -> None:
    frame = FRAME[["number", "string", "text"]].set_index(["string", "text"])
    part = pa.Table.from_pandas(frame).select(["number", "text"])
    found = shuffled(name, metadata, part).to_pandas()
    assert found.index.names == ["text"]
    assert found["number"].tolist() == [1, 2, 3]


def test_one_frame_has_an_index_and_another_none(name: str, metadata: str) -> None:
    frame = FRAME[["number"]]
    with CoscoExchange(name, 1, metadata=metadata):
        write(name, metadata, 0, pa.Table.from_pandas(frame))
        with CoscoWriter(name, 1, metadata=metadata) as writer:
            with pytest.raises(SchemaMismatch, match=r"__index_level_0__.*preserve_index=False"):
                writer.collect_batch([0] * 3, pa.Table.from_pandas(frame.iloc[[2, 0, 1]]))


def test_a_partition_without_rows_has_the_dtypes_and_the_index(name: str, metadata: str) -> None:
    frame = FRAME.set_index(pd.Index(["k", "l", "m"], name="key"))
    with CoscoExchange(name, 2, metadata=metadata):
        write(name, metadata, 0, pa.Table.from_pandas(frame))
        found = read(name, metadata, 1, partition=1).to_pandas()
    assert_frame_equal(found, frame.iloc[:0], check_categorical=False)


def test_columns_of_two_levels(name: str, metadata: str) -> None:
    frame = FRAME[["number", "string"]].copy()
    frame.columns = pd.MultiIndex.from_tuples([("x", "y"), ("x", "z")], names=["p", "q"])
    assert_frame_equal(came_back(name, metadata, [frame]), frame)


def test_the_dtype_comes_of_the_frame_that_has_values(name: str, metadata: str) -> None:
    frames = [
        pd.DataFrame({"a": pd.Series([None, None], dtype=object)}),
        pd.DataFrame({"a": pd.array([1, None], "Int64")}),
    ]
    found = came_back(name, metadata, frames)
    assert found["a"].dtype == pd.Int64Dtype()
    assert sorted(map(str, found["a"])) == ["1", "<NA>", "<NA>", "<NA>"]


def test_integers_are_missing_in_one_frame_only(name: str, metadata: str) -> None:
    with CoscoExchange(name, 1, metadata=metadata):
        write(name, metadata, 0, pa.Table.from_pandas(pd.DataFrame({"a": [1, 2]})))
        with CoscoWriter(name, 1, metadata=metadata) as writer:
            frame = pd.DataFrame({"a": [3, None]})
            with pytest.raises(SchemaMismatch, match=r"is double instead of int64.*Int64"):
                writer.collect_batch([0, 0], pa.Table.from_pandas(frame))
            writer.collect_batch([0, 0], pa.Table.from_pandas(frame.astype("Int64")))
        assert read(name, metadata, 2)["a"].null_count == 1


POLARS = pl.DataFrame(
    {
        "enum": pl.Series(["b", None, "a"], dtype=pl.Enum(["c", "b", "a"])),
        "category": pl.Series(["x", None, "y"], dtype=pl.Categorical),
        "text": ["x", None, "longer than a view holds inline"],
        "list": [[1], [], None],
        "struct": [{"x": 1, "y": "u"}, {"x": None, "y": None}, {"x": 2, "y": "v"}],
        "array": pl.Series([[1, 2], None, [3, 4]], dtype=pl.Array(pl.Int8, 2)),
        "decimal": pl.Series([1, None, 3], dtype=pl.Decimal(10, 2)),
        "time": pl.Series([1, None, 3], dtype=pl.Datetime("us", "Asia/Tokyo")),
        "null": [None, None, None],
    }
)


@pytest.mark.parametrize("level", [pl.CompatLevel.oldest(), pl.CompatLevel.newest()])
def test_a_frame_of_polars(name: str, metadata: str, level: pl.CompatLevel) -> None:
    parts = [POLARS.to_arrow(compat_level=one) for one in (level, pl.CompatLevel.oldest())]
    found = pl.from_arrow(shuffled(name, metadata, *parts))
    assert isinstance(found, pl.DataFrame)
    assert found.schema == POLARS.schema
    assert found.equals(pl.concat([POLARS, POLARS]))
