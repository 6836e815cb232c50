"""Frames and columns of other libraries, as Arrow has them.

Neither pandas nor polars is imported here: a frame of pandas can only be given where pandas is
loaded already, and others say themselves how Arrow takes them (the Arrow PyCapsule interface).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa

from cosco.client.content.arrow_binding import unbound_columns
from cosco.errors import InvalidRow, SchemaMismatch

#: What pyarrow, pandas and numpy raise for values that they do not convert.
_REFUSALS: Final = (
    ValueError, TypeError, KeyError, AttributeError, OverflowError, NotImplementedError,
    RecursionError, pa.ArrowException,
)  # fmt: skip


def as_arrow_rows(
    rows: Any, expected: pa.Schema | None = None, *, columns: Sequence[str] | None = None
) -> pa.RecordBatch | pa.Table | None:
    """Return the rows of a frame as Arrow has them, or None for what is no frame.

    expected: the schema that the rows are to have, if it is known. It decides what decimals and
    nested values become that are Python objects: Arrow would take the type from the values, and
    no two parts would have one type. Other columns have the type that they have. columns: those
    that are needed; others may be missing in what is returned.

    Raises: InvalidRow for a frame that Arrow does not take, SchemaMismatch for objects that have
    not the expected type.
    """
    if isinstance(rows, pa.RecordBatch | pa.Table):
        return rows
    if isinstance(rows, pa.Array | pa.ChunkedArray | np.ndarray):
        return None
    if isinstance(rows, pa.RecordBatchReader):
        raise InvalidRow(
            "a RecordBatchReader can be read only once: give each of its batches, or read_all()"
        )
    if isinstance(rows, _known_types("pandas", "DataFrame")):
        table = _converted(rows, lambda frame: pa.Table.from_pandas(frame, columns=columns))
        return table if expected is None else _guided(table, rows, expected)
    _refuse_addresses(rows)
    if hasattr(rows, "__arrow_c_stream__"):
        return _if_frame(rows, pa.table)
    if hasattr(rows, "__arrow_c_array__"):
        return _if_frame(rows, pa.record_batch)
    return None


def as_array(values: Any) -> Any:
    """Return a column of another library, such as a Series, as an array of Arrow or numpy.

    What is no column is returned as it is.

    Raises: InvalidRow for a column that neither takes.
    """
    if isinstance(values, pa.Array | pa.ChunkedArray | np.ndarray):
        return values
    _refuse_addresses(values)
    if hasattr(values, "__arrow_c_stream__"):
        return _converted(values, pa.chunked_array)
    if hasattr(values, "__arrow_c_array__"):
        return _converted(values, pa.array)
    if hasattr(values, "__array__"):
        return _converted(values, np.asarray)
    return values


def _known_types(module: str, *names: str) -> tuple[type, ...]:
    """Return types of a module, as far as there can be objects of them.

    None where it was not imported, or another thread is about to: it has no such names yet.
    """
    imported = sys.modules.get(module)
    found = (getattr(imported, name, None) for name in names)
    return tuple(one for one in found if isinstance(one, type))


def _refuse_addresses(rows: Any) -> None:
    """Raise InvalidRow for objects in polars, which gives their addresses to Arrow as binary."""
    if not isinstance(rows, _known_types("polars", "DataFrame", "Series")):
        return
    frame: Any = rows
    types = frame.dtypes if hasattr(frame, "dtypes") else [frame.dtype]
    if sys.modules["polars"].Object in types:
        raise InvalidRow("Arrow does not take polars' columns of Object: cast them to another type")


def _if_frame(rows: Any, convert: Callable[[Any], Any]) -> Any:
    try:
        return convert(rows)
    except pa.ArrowInvalid as error:
        if "non-struct" in str(error):  # a column
            return None
        raise _refused(rows, error) from error
    except _REFUSALS as error:
        raise _refused(rows, error) from error


def _converted(rows: Any, convert: Callable[[Any], Any]) -> Any:
    try:
        return convert(rows)
    except _REFUSALS as error:
        raise _refused(rows, error) from error


def _guided(table: pa.Table, frame: Any, expected: pa.Schema) -> pa.Table:
    """Convert columns of objects again that have not the expected type, where values decide it."""
    for name, kind in frame.dtypes.items():
        places = expected.get_all_field_indices(str(name))
        if kind.name != "object" or len(places) != 1:
            continue
        place = table.schema.get_field_index(str(name))
        found, wanted = table.field(place), expected.field(places[0]).type
        if found.type == wanted or not _depends_on_values(found.type, wanted):
            continue
        if unbound_columns(pa.schema([expected.field(places[0])])):  # it gets its type from these
            continue
        try:
            column = pa.array(frame[name], wanted, from_pandas=True)
        except _REFUSALS as error:
            raise SchemaMismatch(
                f"the objects of column {name!r} are not all {wanted}, as in the exchange: "
                f"{_line(error)}"
            ) from error
        table = table.set_column(place, found.with_type(wanted), column)
    return table


def _depends_on_values(found: pa.DataType, wanted: pa.DataType) -> bool:
    return any(
        is_kind(found) and is_kind(wanted) for is_kind in (pa.types.is_decimal, pa.types.is_nested)
    )


def _refused(rows: Any, error: Exception) -> InvalidRow:
    return InvalidRow(f"Arrow does not take this {type(rows).__name__}: {_line(error)}")


def _line(error: Exception) -> str:
    return str(error).partition("\n")[0]
