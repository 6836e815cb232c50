"""Rows of every type, in the order and with the types that Dask's own shuffle gives."""

from __future__ import annotations

import datetime as dt
import decimal
import uuid
from collections.abc import Callable

import dask
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from distributed import Client

import cosco

ROWS = 60


def partitions_of(frame: dd.DataFrame, method: str, **options: object) -> list[pd.DataFrame]:
    """The partitions of a shuffled frame."""
    with dask.config.set({"dataframe.shuffle.method": method}):
        return dask.compute(*frame.shuffle("key", **options).to_delayed())


def check_alike(frame: dd.DataFrame, **options: object) -> list[pd.DataFrame]:
    """Compare each partition with that of Dask's own shuffle."""
    ours = partitions_of(frame, "cosco", **options)
    theirs = partitions_of(frame, "p2p", **options)
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        pd.testing.assert_frame_equal(one, other)
    return ours


def arrow(kind: pa.DataType) -> pd.ArrowDtype:
    return pd.ArrowDtype(kind)


WORDS = [f"word {i % 7}" for i in range(ROWS)]
HOLES = [None if i % 5 == 0 else i for i in range(ROWS)]
DAYS = pd.date_range("2024-03-01", periods=ROWS, freq="h")

COLUMNS: dict[str, Callable[[], object]] = {
    "int8": lambda: np.arange(ROWS, dtype="int8"),
    "uint64": lambda: np.arange(ROWS, dtype="uint64") + (1 << 63),
    "float32": lambda: np.linspace(0, 1, ROWS, dtype="float32"),
    "float64 with holes": lambda: pd.Series(HOLES, dtype="float64"),
    "bool": lambda: np.arange(ROWS) % 3 == 0,
    "Int64": lambda: pd.array(HOLES, dtype="Int64"),
    "Float32": lambda: pd.array(HOLES, dtype="Float32"),
    "boolean": lambda: pd.array([None, True, False] * (ROWS // 3), dtype="boolean"),
    "datetime": lambda: DAYS.as_unit("us"),
    "datetime in seconds": lambda: DAYS.as_unit("s"),
    "time zone": lambda: DAYS.tz_localize("Europe/Berlin"),
    "timedelta": lambda: pd.to_timedelta(np.arange(ROWS), unit="s"),
    "period": lambda: pd.period_range("2024-01", periods=ROWS, freq="M"),
    "interval": lambda: pd.interval_range(0, ROWS),
    "str": lambda: pd.array(WORDS, dtype="str"),
    "string[pyarrow]": lambda: pd.array(WORDS, dtype="string[pyarrow]"),
    "string[python]": lambda: pd.array(WORDS, dtype="string[python]"),
    "category": lambda: pd.Categorical(WORDS),
    "ordered category": lambda: pd.Categorical(
        WORDS, categories=sorted(set(WORDS), reverse=True), ordered=True
    ),
    "category of numbers": lambda: pd.Categorical([i % 4 for i in range(ROWS)]),
    "arrow decimal": lambda: pd.array(
        [decimal.Decimal(i) / 100 for i in range(ROWS)], dtype=arrow(pa.decimal128(9, 2))
    ),
    "arrow date": lambda: pd.array(
        [dt.date(2024, 1, 1 + i % 28) for i in range(ROWS)], dtype=arrow(pa.date32())
    ),
    "arrow time": lambda: pd.array(
        [dt.time(i % 24, i) for i in range(ROWS)], dtype=arrow(pa.time64("us"))
    ),
    "arrow list": lambda: pd.array(
        [[i] * (i % 3) for i in range(ROWS)], dtype=arrow(pa.list_(pa.int32()))
    ),
    "arrow struct": lambda: pd.array(
        [{"a": i, "b": str(i)} for i in range(ROWS)],
        dtype=arrow(pa.struct([("a", pa.int64()), ("b", pa.string())])),
    ),
    "arrow map": lambda: pd.array(
        [[("a", i)] for i in range(ROWS)], dtype=arrow(pa.map_(pa.string(), pa.int64()))
    ),
    "arrow binary": lambda: pd.array([b"%d" % i for i in range(ROWS)], dtype=arrow(pa.binary())),
    "arrow timestamp": lambda: pd.array(
        list(DAYS), dtype=arrow(pa.timestamp("us", tz="America/New_York"))
    ),
    "arrow dictionary": lambda: pd.array(WORDS, dtype=arrow(pa.dictionary(pa.int8(), pa.string()))),
    "decimal objects": lambda: pd.Series(
        [decimal.Decimal(i) / 100 for i in range(ROWS)], dtype=object
    ),
    "list objects": lambda: pd.Series([[i, i + 1] for i in range(ROWS)], dtype=object),
    "dict objects": lambda: pd.Series([{"a": i} for i in range(ROWS)], dtype=object),
    "bytes objects": lambda: pd.Series([b"%d" % i for i in range(ROWS)], dtype=object),
}


#: Types that Dask's own shuffle fails with, as pandas does not know them by their names.
UNREADABLE = {"arrow list", "arrow struct", "arrow map", "arrow dictionary"}


@pytest.mark.parametrize("name", COLUMNS)
def test_a_column_of_each_type(client: Client, name: str) -> None:
    frame = pd.DataFrame({"key": np.arange(ROWS) % 11})
    frame["value"] = COLUMNS[name]()
    if name != "interval":  # of which pandas makes objects
        frame["hole"] = frame["value"].where(frame.key != 3)
    with dask.config.set({"dataframe.convert-string": False}):
        whole = dd.from_pandas(frame, npartitions=3)
        if name in UNREADABLE:
            parts = partitions_of(whole, "cosco", npartitions=4)
            pd.testing.assert_frame_equal(pd.concat(parts).sort_index(), frame)
        else:
            parts = check_alike(whole, npartitions=4)
    assert sum(map(len, parts)) == ROWS


@pytest.mark.parametrize("kind", ["object", "str", "string[pyarrow]", "string[python]"])
def test_texts_as_dask_converts_them(client: Client, kind: str) -> None:
    frame = pd.DataFrame({"key": np.arange(ROWS) % 11, "text": pd.Series(WORDS, dtype=kind)})
    check_alike(dd.from_pandas(frame, npartitions=3))


INDEXES: dict[str, Callable[[], pd.Index]] = {
    "named": lambda: pd.Index(np.arange(ROWS) * 2, name="place"),
    "texts": lambda: pd.Index(WORDS, name="word"),
    "times": lambda: pd.DatetimeIndex(DAYS.tz_localize("UTC"), name="at"),
    "named as a column": lambda: pd.Index(np.arange(ROWS), name="value"),
    "categories": lambda: pd.CategoricalIndex(WORDS, name="kind"),
}


@pytest.mark.parametrize("name", INDEXES)
def test_an_index_of_each_kind(client: Client, name: str) -> None:
    index = INDEXES[name]()
    frame = pd.DataFrame({"key": np.arange(ROWS) % 11, "value": np.arange(ROWS)}, index=index)
    check_alike(dd.from_pandas(frame, npartitions=3, sort=False), npartitions=4)


def test_an_index_of_several_parts(client: Client) -> None:
    def part(i: int) -> pd.DataFrame:
        index = pd.MultiIndex.from_product([[i], list("abcde")], names=["part", "letter"])
        return pd.DataFrame({"key": np.arange(5), "value": np.arange(5.0)}, index=index)

    check_alike(dd.from_map(part, range(3), meta=part(0).iloc[:0]), npartitions=2)


def test_partitions_without_rows_and_frames_without_any(client: Client) -> None:
    frame = pd.DataFrame({"key": np.arange(ROWS) % 11, "kind": pd.Categorical(WORDS)})
    whole = dd.from_pandas(frame, npartitions=6)
    parts = check_alike(whole[whole.key < 2], npartitions=8)
    assert sum(not len(part) for part in parts) >= 6
    assert not sum(map(len, check_alike(whole[whole.key < 0], npartitions=3)))


def test_categories_that_partitions_do_not_share(client: Client) -> None:
    def part(i: int) -> pd.DataFrame:
        return pd.DataFrame(
            {"key": range(6), "kind": pd.Categorical([f"{i}.{j % 2}" for j in range(6)])}
        )

    frame = dd.from_map(part, range(4), meta={"key": "i8", "kind": "category"})
    for method in ("cosco", "p2p"):
        parts = partitions_of(frame, method, npartitions=3)
        assert all(one.kind.dtype == "category" for one in parts)
        values = sorted(value for one in parts for value in one.kind.astype(str))
        assert values == sorted(f"{i}.{j % 2}" for i in range(4) for j in range(6))


PARTS: dict[str, Callable[[int], object]] = {
    "floats where integers were expected": lambda i: [1, 2.5, None] if i == 1 else [1, 2, 3],
    "no value at all": lambda i: [None] * 3 if i % 2 else ["a", "b", "c"],
    "no value at first": lambda i: ["a", "b", "c"] if i == 3 else [None] * 3,
    "decimals of other precisions": lambda i: [decimal.Decimal(f"{i}.{'1' * (i + 1)}")] * 3,
    "structs of other fields": lambda i: [{"a": 1} if i % 2 else {"a": 1, "b": "x"}] * 3,
    "lists of nothing": lambda i: [[], [], []] if i % 2 else [[1], [2], [3]],
    "identifiers as bytes": lambda i: [uuid.UUID(int=i).bytes] * 3,
}


@pytest.mark.parametrize("name", PARTS)
def test_partitions_whose_types_differ(client: Client, name: str) -> None:
    """Each kind of rows has an exchange of its own, and an output has them by mapper again."""

    def part(i: int) -> pd.DataFrame:
        return pd.DataFrame({"key": np.arange(3), "value": PARTS[name](i)})

    meta = {"key": "i8", "value": "i8" if "integers" in name else "object"}
    with dask.config.set({"dataframe.convert-string": False}):
        check_alike(dd.from_map(part, range(5), meta=meta), npartitions=2)


def test_a_left_join_leaves_floats_where_dask_expects_integers(client: Client) -> None:
    left = pd.DataFrame({"key": np.arange(40) % 20, "x": np.arange(40)})
    right = pd.DataFrame({"key": np.arange(0, 20, 2), "y": np.arange(10)})
    joined = dd.from_pandas(left, npartitions=4).merge(
        dd.from_pandas(right, npartitions=4), on="key", how="left", shuffle_method="tasks"
    )
    assert joined._meta.y.dtype == "int64"
    parts = partitions_of(joined.rename(columns={"key": "other", "x": "key"}), "cosco")
    whole = pd.concat(parts).sort_values("key").reset_index(drop=True)
    assert whole.y.dtype == "float64"
    expected = left.merge(right, on="key", how="left").rename(columns={"key": "other", "x": "key"})
    pd.testing.assert_frame_equal(whole, expected.sort_values("key").reset_index(drop=True))


def test_names_that_are_no_texts_and_names_that_come_twice(client: Client) -> None:
    """Dask's own shuffle refuses both."""
    frame = pd.DataFrame({0: np.arange(ROWS) % 11, 1: np.arange(ROWS), "x": WORDS})
    whole = dd.from_pandas(frame, npartitions=3).shuffle(0, npartitions=4)
    got = whole.compute().sort_values(1)
    assert list(got.columns) == [0, 1, "x"]
    assert got[1].tolist() == list(range(ROWS))

    twice = pd.DataFrame(np.arange(ROWS * 3).reshape(ROWS, 3), columns=["a", "b", "b"])
    got = dd.from_pandas(twice, npartitions=3).shuffle("a").compute().sort_values("a")
    pd.testing.assert_frame_equal(got, twice)


def test_python_objects_are_refused_by_name(client: Client) -> None:
    frame = pd.DataFrame({"key": range(10), "thing": [{"a": 1}, [1]] * 5})
    with dask.config.set({"dataframe.convert-string": False}):
        with pytest.raises(cosco.InvalidRow, match="thing"):
            dd.from_pandas(frame, npartitions=2).shuffle("key").compute()


@pytest.mark.parametrize(
    "values", [np.arange(10) * 1j, pd.arrays.SparseArray(np.arange(10))], ids=["complex", "sparse"]
)
def test_types_that_arrow_has_not_are_refused_before_a_task_runs(
    client: Client, values: object
) -> None:
    frame = pd.DataFrame({"key": np.arange(10), "value": values})
    with pytest.raises(TypeError, match="value"):
        dd.from_pandas(frame, npartitions=2).shuffle("key").compute()


def test_a_wrong_meta_is_refused(client: Client) -> None:
    def part(i: int) -> pd.DataFrame:
        return pd.DataFrame({"key": [i], "other": [1]})

    frame = dd.from_map(part, range(3), meta={"key": "i8", "value": "i8"}, enforce_metadata=False)
    with pytest.raises(ValueError, match="meta"):
        frame.shuffle("key").compute()
