"""Frames of pandas as Arrow tables and back, as Dask's own shuffle has them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from cosco.dask.private_parts_of_dask import find_common_type, from_arrow, to_arrow
from cosco.errors import InvalidRow

#: What Arrow, pandas and numpy raise for values that Arrow does not have.
_REFUSALS = (pa.ArrowException, ValueError, TypeError, OverflowError, NotImplementedError)
#: Categories are counted by these in every partition, however many it has.
_INDEX_TYPE = pa.int32()
#: Where pandas says in a schema what is an index, and what its columns were.
_PANDAS = b"pandas"


def check_types(meta: pd.DataFrame) -> None:
    """Look whether Arrow has a type for each column of frames like this one.

    Raises: TypeError, as Dask's own shuffle does.
    """
    for name, dtype in zip(meta.columns, meta.dtypes, strict=True):
        if isinstance(dtype, pd.SparseDtype) or pd.api.types.is_complex_dtype(dtype):
            raise TypeError(
                f"shuffle_method='cosco' does not support data of type {str(dtype)!r}, which"
                f" column {name!r} has: convert it, or take shuffle_method='tasks'"
            )


def split(
    frame: pd.DataFrame, column: str, wanted: Sequence[int] | None, meta: pd.DataFrame
) -> tuple[np.ndarray, pa.Table]:
    """Return the partition of each row, and the rows without it.

    column: where the partitions are. wanted: drop rows of all other partitions, if given. meta:
    an empty frame of the same columns.

    Raises: ValueError for a frame of other columns than `meta`, InvalidRow for Python objects
    that Arrow does not take.
    """
    _check_columns(frame, meta)
    partitions = frame[column].to_numpy()
    if partitions.dtype.kind not in "iu":
        partitions = partitions.astype(np.int64)
    frame = frame.drop(columns=column)
    if wanted is not None:
        keep = np.isin(partitions, wanted)
        partitions, frame = partitions[keep], frame[keep]
    if not len(frame):
        return partitions, pa.table({})
    places = _places(meta.columns.drop(column))
    if places is not None:
        frame = frame.set_axis(places, axis="columns")
    try:
        table = to_arrow(frame, preserve_index=True, nthreads=1)
    except _REFUSALS as error:
        line = str(error).partition("\n")[0]
        raise InvalidRow(f"Arrow does not take this frame, so Cosco does not: {line}") from error
    return partitions, _with_one_index_type(table)


def joined(tables: Sequence[pa.Table], meta: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of tables that `split` made, with the types that Dask's own shuffle gives.

    That is the type of `meta`, or, where rows have another one, the type that both fit in.
    """
    tables = [table for table in tables if table.num_rows]
    if not tables:
        return meta.copy()
    table = pa.concat_tables(tables, promote_options="permissive")
    places = _places(meta.columns)
    expected = meta if places is None else meta.set_axis(places, axis="columns")
    frame = _as_frame(table, expected)
    types = {
        name: dtype if _are_texts(found, dtype) else find_common_type([found, dtype])
        for name, found, dtype in zip(frame.columns, frame.dtypes, expected.dtypes, strict=True)
        if found != dtype and not _are_categories(found, dtype)
    }
    frame = frame.astype(types)
    if places is not None:
        frame.columns = meta.columns
    return frame


def _as_frame(table: pa.Table, expected: pd.DataFrame) -> pd.DataFrame:
    """Convert a table; columns of Arrow's types as they are, as pandas cannot name them all."""
    metadata = json.loads(table.schema.metadata[_PANDAS])
    ours = [
        one for one in metadata["columns"]
        if one["numpy_type"].endswith("[pyarrow]") and one["numpy_type"] != "string[pyarrow]"
        and one["field_name"] in expected.columns
    ]  # fmt: skip
    if not ours:
        return from_arrow(expected, table, self_destruct=True)
    metadata["columns"] = [one for one in metadata["columns"] if one not in ours]
    names = [one["field_name"] for one in ours]
    others = table.drop_columns(names).replace_schema_metadata({_PANDAS: json.dumps(metadata)})
    frame = from_arrow(expected.drop(columns=names), others, self_destruct=True)
    for place, name in enumerate(expected.columns):
        if name in names:
            column = _with_index_type_of(table.column(name), expected.dtypes.iloc[place])
            frame.insert(place, name, pd.arrays.ArrowExtensionArray(column))
    return frame


def _with_index_type_of(column: pa.ChunkedArray, expected: Any) -> pa.ChunkedArray:
    """Count the values of a dictionary as expected, where there are not too many for that."""
    if not (isinstance(expected, pd.ArrowDtype) and pa.types.is_dictionary(column.type)):
        return column
    try:
        return column.cast(expected.pyarrow_dtype)
    except pa.ArrowInvalid:
        return column


def _check_columns(frame: pd.DataFrame, meta: pd.DataFrame) -> None:
    if not isinstance(frame, pd.DataFrame):
        raise TypeError(f"a partition is no DataFrame, but {type(frame).__name__}")
    if not frame.columns.equals(meta.columns):
        raise ValueError(
            f"the columns of a partition, {list(frame.columns)}, are not those of the frame,"
            f" {list(meta.columns)}: give the right meta"
        )


def _places(columns: pd.Index) -> list[str] | None:
    """Return names by place for columns that Arrow could not tell apart or give back."""
    if columns.is_unique and all(type(name) is str for name in columns):
        return None
    return [f"column {place}" for place in range(len(columns))]


def _with_one_index_type(table: pa.Table) -> pa.Table:
    fields = [
        one.with_type(pa.dictionary(_INDEX_TYPE, one.type.value_type, one.type.ordered))
        if pa.types.is_dictionary(one.type)
        else one
        for one in table.schema
    ]
    schema = pa.schema(fields, metadata=table.schema.metadata)
    return table if schema.equals(table.schema) else table.cast(schema)


def _are_texts(one: Any, other: Any) -> bool:
    return isinstance(one, pd.StringDtype) and isinstance(other, pd.StringDtype)


def _are_categories(one: Any, other: Any) -> bool:
    """Whether both are categories: of which ones `meta` may not know."""
    return isinstance(one, pd.CategoricalDtype) and isinstance(other, pd.CategoricalDtype)
