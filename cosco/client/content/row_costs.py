"""How many bytes each row of a batch takes once its columns are plain.

Rows of views may share their values, and runs are as long as you like: what they take as plain
columns is known before any is made.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cosco.client.content.array_parts import (
    Integers,
    check_indices,
    integers,
    item_buffer,
    list_bounds,
    validity,
)
from cosco.client.content.arrow_types import is_nested

#: One figure if all rows cost the same.
Costs = npt.NDArray[np.int64] | int
_REFERENCE_BYTES: Final = 4
_OFFSET_BYTES: Final = 8
#: The type of the offsets, of arrays that have some.
_OFFSETS: Final = {
    kind.id: dtype
    for dtype, kinds in (
        ("<i4", (pa.string(), pa.binary(), pa.list_(pa.int8()), pa.map_(pa.int8(), pa.int8()))),
        ("<i8", (pa.large_string(), pa.large_binary(), pa.large_list(pa.int8()))),
    )
    for kind in kinds
}


def batch_costs(batch: pa.RecordBatch) -> npt.NDArray[np.int64]:
    """Return what each row of a batch takes.

    Raises: InvalidRow for an index of a dictionary without a value.
    """
    total = np.zeros(batch.num_rows, np.int64)
    for column in batch.columns:
        total += _costs(column)
    return total


def batch_bytes(batch: pa.RecordBatch) -> int:
    """Return about how many bytes a batch takes.

    Not by its `nbytes`, for which Arrow uses its default memory pool, and which before version 20
    cannot tell of list views.
    """
    return sum(map(_bytes, batch.columns))


def array_bytes(array: Any) -> int:
    """Return about how many bytes a plain array takes: Arrow crashes when asked, for some."""
    costs = _costs(array)
    return costs * len(array) if isinstance(costs, int) else int(costs.sum())


def _bytes(array: Any) -> int:
    """Return about how many bytes an array takes, mostly without a look at its items."""
    kind, count = array.type, len(array)
    if isinstance(kind, pa.BaseExtensionType):
        return _bytes(array.storage)
    offset_type = _OFFSETS.get(kind.id)
    if offset_type is None and not isinstance(kind, pa.StructType):
        costs = _costs(array)
        return costs * count if isinstance(costs, int) else int(costs.sum())
    valid_bytes = 0 if array.buffers()[0] is None else (count + 7) // 8
    if offset_type is None:
        return valid_bytes + sum(_bytes(array.field(index)) for index in range(kind.num_fields))
    if not count:
        return 0
    offsets = item_buffer(array, 1, offset_type, count + 1)
    first, end = int(offsets[0]), int(offsets[-1])
    values = _bytes(array.values.slice(first, end - first)) if is_nested(kind) else end - first
    return valid_bytes + offsets.nbytes + values


def _costs(array: Any) -> Costs:
    """Return what each item of an array takes."""
    kind = array.type
    if isinstance(kind, pa.BaseExtensionType):
        return _costs(array.storage)
    if isinstance(kind, pa.DictionaryType):
        indices = array.indices
        check_indices(integers(indices), validity(indices), len(array.dictionary))
    if isinstance(kind, pa.DictionaryType | pa.RunEndEncodedType):
        return _REFERENCE_BYTES
    if is_nested(kind):
        return _nested_costs(array)
    lengths = _lengths(array)
    if lengths is not None:
        return _OFFSET_BYTES + lengths
    return 1 if pa.types.is_null(kind) else max(1, int(kind.bit_width) // 8)


def _lengths(array: Any) -> npt.NDArray[np.int64] | None:
    """Return the bytes of each text or binary value; None if the array has no such."""
    kind, count = array.type, len(array)
    if kind in (pa.string_view(), pa.binary_view()):
        views = item_buffer(array, 1, np.dtype("V16"), count).view("<i4")
        lengths: npt.NDArray[np.int64] = views[::4].astype(np.int64)
        valid = validity(array)
        return lengths if valid is None else np.where(valid, lengths, 0)
    for dtype, kinds in (
        ("<i4", (pa.string(), pa.binary())),
        ("<i8", (pa.large_string(), pa.large_binary())),
    ):
        if kind in kinds:
            offsets = item_buffer(array, 1, dtype, count + 1) if count else np.zeros(1, np.int64)
            return np.diff(offsets).astype(np.int64)
    return None


def _nested_costs(array: Any) -> Costs:
    kind, count = array.type, len(array)
    if isinstance(kind, pa.StructType | pa.SparseUnionType):
        total: Costs = 0 if kind.num_fields else 1
        for index in range(kind.num_fields):
            total = total + _costs(array.field(index))
        return total
    if isinstance(kind, pa.DenseUnionType):
        return _dense_union_costs(array)
    if isinstance(kind, pa.FixedSizeListType):
        sizes: Integers = np.full(count, kind.list_size, np.int64)
        starts: Integers = np.arange(array.offset, array.offset + count) * kind.list_size
    else:
        starts, sizes = list_bounds(array, validity(array))
    used = sizes > 0
    if not used.any():
        return _OFFSET_BYTES
    low, high = int(starts[used].min()), int((starts + sizes)[used].max())
    values = _costs(array.values.slice(low, high - low))
    if isinstance(values, int):
        return (_OFFSET_BYTES + sizes * values).astype(np.int64)
    sums = np.zeros(len(values) + 1, np.int64)
    np.cumsum(values, out=sums[1:])
    starts = np.where(used, starts - low, 0)
    costs: npt.NDArray[np.int64] = _OFFSET_BYTES + sums[starts + sizes] - sums[starts]
    return costs


def _dense_union_costs(array: Any) -> npt.NDArray[np.int64]:
    count = len(array)
    codes = item_buffer(array, 1, np.int8, count)
    offsets = item_buffer(array, 2, np.int32, count)
    costs = np.full(count, _OFFSET_BYTES, np.int64)
    for index, code in enumerate(array.type.type_codes):
        rows = codes == code
        child = _costs(array.field(index))
        costs[rows] += child if isinstance(child, int) else child[offsets[rows]]
    return costs
