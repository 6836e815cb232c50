"""What is a frame, what is a column, and what becomes of objects."""

from __future__ import annotations

import subprocess
import sys
from decimal import Decimal
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from cosco.client.content.frames import as_array, as_arrow_rows
from cosco.errors import InvalidRow, SchemaMismatch

FRAME = pd.DataFrame({"a": [1, 2], "o": [Decimal("1.5"), None]})


@pytest.mark.parametrize("module", ["pandas", "polars"])
def test_another_thread_may_be_about_to_import_what_makes_frames(
    module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, ModuleType(module))
    assert as_arrow_rows([b"row"], None) is None
    assert as_array([1]) == [1]
    assert as_arrow_rows(pa.table({"a": [1]}), None) is not None


class Stream:
    """Gives Arrow what it has, or fails at it."""

    def __init__(self, rows: Any) -> None:
        self.rows = rows

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        if isinstance(self.rows, Exception):
            raise self.rows
        return self.rows.__arrow_c_stream__(requested_schema)


class Column:
    """Gives numpy what it has."""

    def __init__(self, values: Any) -> None:
        self.values = values

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        return np.array(self.values)


def test_arrow_rows_are_given_back_as_they_are() -> None:
    table = pa.table({"a": [1]})
    assert as_arrow_rows(table) is table
    batch = table.to_batches()[0]
    assert as_arrow_rows(batch, pa.schema([("b", pa.string())])) is batch


@pytest.mark.parametrize(
    "rows",
    [
        None, 1, b"row", "text", [b"row"], {"a": [1]}, pa.array([b"x"]), pa.chunked_array([[1]]),
        pa.array([{"a": 1}]), np.array([b"x"], object), np.rec.array([(1,)], [("a", "i8")]),
        pd.Series([1]), pd.Index([1]), Stream(pa.chunked_array([[1]])), pa.scalar(b"x"),
    ],
    ids=lambda rows: type(rows).__name__,
)  # fmt: skip
def test_what_is_no_frame(rows: Any) -> None:
    assert as_arrow_rows(rows) is None


def test_frames() -> None:
    assert as_arrow_rows(FRAME).equals(pa.Table.from_pandas(FRAME))
    assert as_arrow_rows(FRAME, columns=["a"]).schema.names == ["a"]
    table = pa.table({"a": [1]})
    assert as_arrow_rows(Stream(table)).equals(table)


@pytest.mark.parametrize(
    "error",
    [ValueError("no"), TypeError("no"), KeyError("no"), OverflowError("no"), RecursionError("no"),
     AttributeError("no"), pa.ArrowInvalid("no"), pa.ArrowNotImplementedError("no")],
    ids=lambda error: type(error).__name__,
)  # fmt: skip
def test_frames_and_columns_that_arrow_does_not_take(error: Exception) -> None:
    for convert in (as_arrow_rows, as_array):
        with pytest.raises(InvalidRow, match=r"Arrow does not take this Stream: '?no'?$"):
            convert(Stream(error))


def test_a_reader_of_batches_is_no_frame() -> None:
    with pytest.raises(InvalidRow, match="only once"):
        as_arrow_rows(pa.table({"a": [1]}).to_reader())


def test_only_decimals_and_nested_objects_follow_the_expected_schema() -> None:
    frame = pd.DataFrame(
        {
            "i": [1], "o": pd.Series([1], dtype=object), "d": [Decimal("1.5")], "l": [[1]],
            "new": [Decimal("1.5")],
        }
    )  # fmt: skip
    expected = pa.schema(
        [
            ("l", pa.large_list(pa.int8())), ("d", pa.decimal256(40, 3)), ("i", pa.int8()),
            ("o", pa.int8()),
        ]
    )  # fmt: skip
    table = as_arrow_rows(frame, expected)
    assert [str(kind) for kind in table.schema.types] == [
        "int64", "int64", "decimal256(40, 3)", "large_list<item: int8>", "decimal128(2, 1)",
    ]  # fmt: skip
    assert table.schema.metadata == pa.Table.from_pandas(frame).schema.metadata
    assert table.to_pylist() == frame.to_dict("records")


def test_objects_follow_no_type_that_is_not_known_yet() -> None:
    frame = pd.DataFrame({"l": [[1]]})
    for kind in (pa.null(), pa.list_(pa.null())):
        assert as_arrow_rows(frame, pa.schema([("l", kind)])).equals(pa.Table.from_pandas(frame))


def test_objects_that_are_not_as_expected() -> None:
    with pytest.raises(
        SchemaMismatch, match=r"objects of column 'o' are not all decimal128\(3, 0\)"
    ):
        as_arrow_rows(FRAME, pa.schema([("a", pa.int64()), ("o", pa.decimal128(3, 0))]))


def test_columns() -> None:
    for same in (pa.array([1]), pa.chunked_array([[1]]), np.array([1]), [1], range(3), None, "x"):
        assert as_array(same) is same
    assert as_array(Column([1, 2])).tolist() == [1, 2]
    assert as_array(Stream(pa.chunked_array([[1], [2]]))).to_pylist() == [1, 2]
    assert as_array(pd.Index([3])).tolist() == [3]


def test_neither_pandas_nor_polars_is_imported() -> None:
    code = "import cosco.client.content.frames, sys; print({'pandas', 'polars'} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert found.stdout == "set()\n"
