"""Arrow arrays taken apart and made again, of every nested type, with numpy.

An array that was sliced is made again without what lies outside of the slice.

Nothing here goes through `pa.array` or `to_numpy`: those import pandas if it is there, which takes
a second, and hold a lock meanwhile that a forked child, or a signal handler, would wait for in
vain.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cosco.client.content.arrow_types import LIST_VIEWS, is_nested, with_children
from cosco.client.content.arrow_types import children as children_of
from cosco.errors import InvalidRow

Integers = npt.NDArray[np.integer[Any]]
Mask = npt.NDArray[np.bool_]
#: Makes another array of a child, given its index.
Change = Callable[[int, Any], Any]

_INTEGERS: Final = {
    np.dtype(name): kind
    for name, kind in (
        ("i1", pa.int8()),
        ("i2", pa.int16()),
        ("i4", pa.int32()),
        ("i8", pa.int64()),
        ("u1", pa.uint8()),
        ("u2", pa.uint16()),
        ("u4", pa.uint32()),
        ("u8", pa.uint64()),
    )
}
_DTYPES: Final = {kind.id: dtype for dtype, kind in _INTEGERS.items()}

UNIONS: Final = (pa.SparseUnionType, pa.DenseUnionType)
#: Types whose offsets have 32 bits.
_SHORT_OFFSETS: Final = (pa.ListType, pa.MapType, pa.ListViewType)
_MAX_SHORT: Final = (1 << 31) - 1


class DoesNotFit(Exception):
    """An array would be too long for its type: it must be made of fewer rows."""


def integers(array: Any) -> Integers:
    """Return the values of an array of integers where they lie; those of nulls are any."""
    return item_buffer(array, 1, _DTYPES[array.type.id], len(array))


def item_buffer(array: Any, index: int, dtype: npt.DTypeLike, count: int) -> npt.NDArray[Any]:
    """Return `count` items of a buffer of `array`, from where its slice begins."""
    dtype = np.dtype(dtype)
    if not count:
        return np.empty(0, dtype)
    return np.frombuffer(array.buffers()[index], dtype, count, array.offset * dtype.itemsize)


def integer_array(values: Integers, valid: Mask | None = None) -> Any:
    """Return an Arrow array of integers, null where not `valid`."""
    values = np.ascontiguousarray(values)
    buffers = [validity_buffer(valid), pa.py_buffer(values)]
    return pa.Array.from_buffers(_INTEGERS[values.dtype], len(values), buffers)


def validity_buffer(valid: Mask | None) -> pa.Buffer | None:
    """Return the bitmap of a mask; None if everything is valid."""
    if valid is None or valid.all():
        return None
    return pa.py_buffer(np.packbits(valid, bitorder="little"))


def validity(array: Any) -> Mask | None:
    """Return which items are valid, by the array's own bitmap; None if all are."""
    kind = array.type
    if pa.types.is_null(kind):
        return np.zeros(len(array), np.bool_)
    if isinstance(kind, UNIONS) or not array.null_count:
        return None
    first, length = array.offset, len(array)
    bitmap = np.frombuffer(array.buffers()[0], np.uint8)[first >> 3 : (first + length + 7) >> 3]
    start = first & 7
    return np.unpackbits(bitmap, bitorder="little")[start : start + length].view(np.bool_)


def check_indices(indices: Integers, valid: Mask | None, count: int) -> None:
    """Raise InvalidRow if an index that is valid is not one of `count` values."""
    chosen = indices if valid is None else indices[valid]
    if len(chosen) and not 0 <= int(chosen.min()) <= int(chosen.max()) < count:
        raise InvalidRow(f"an index of a dictionary lies beyond its {count} values")


def nulls_of(array: Any) -> Mask | None:
    """Return which items are null, also where an array only refers to a null; None if none is.

    Raises: InvalidRow for an index of a dictionary without a value.
    """
    kind = array.type
    if isinstance(kind, pa.BaseExtensionType):
        return nulls_of(array.storage)
    if isinstance(kind, pa.RunEndEncodedType):
        places, values = runs(array)
        inner = nulls_of(values)
        return None if inner is None else inner[places]
    if isinstance(kind, UNIONS):
        return _nulls_of_union(array)
    valid = validity(array)
    if isinstance(kind, pa.DictionaryType) and (inner := nulls_of(array.dictionary)) is not None:
        places = integers(array.indices)
        check_indices(places, valid, len(inner))
        if not len(inner):  # then all are null
            return np.ones(len(places), np.bool_)
        return inner[places] if valid is None else ~valid | inner[np.where(valid, places, 0)]
    return None if valid is None else ~valid


def _nulls_of_union(array: Any) -> Mask:
    codes = item_buffer(array, 1, np.int8, len(array))
    nulls = np.zeros(len(array), np.bool_)
    for index, code in enumerate(array.type.type_codes):
        inner, rows = nulls_of(array.field(index)), np.flatnonzero(codes == code)
        if inner is not None:
            places = rows
            if isinstance(array.type, pa.DenseUnionType):
                places = item_buffer(array, 2, np.int32, len(array))[rows]
            nulls[rows] = inner[places]
    return nulls


def null_array(count: int, kind: pa.DataType) -> Any:
    """Return an array of nulls: Arrow's own are malformed where runs or extensions are inside.

    Raises: DoesNotFit for more than runs can count.
    """
    if isinstance(kind, pa.BaseExtensionType):
        return kind.wrap_array(null_array(count, kind.storage_type))
    if isinstance(kind, pa.DictionaryType):
        codes, values = pa.nulls(count, kind.index_type), null_array(0, kind.value_type)
        return pa.DictionaryArray.from_arrays(codes, values, ordered=kind.ordered)
    if isinstance(kind, pa.RunEndEncodedType):
        dtype = kind.run_end_type.to_pandas_dtype()
        if count > np.iinfo(dtype).max:
            raise DoesNotFit(f"{count} items in runs that count by {kind.run_end_type}")
        ends = np.full(min(count, 1), count, dtype)
        children = [integer_array(ends), null_array(len(ends), kind.value_type)]
        return pa.Array.from_buffers(kind, count, [None], children=children)
    if not is_nested(kind):
        return pa.nulls(count, kind)
    counts, buffers = _null_parts(count, kind)
    fields = children_of(kind)
    children = [null_array(n, one.type) for n, one in zip(counts, fields, strict=True)]
    if isinstance(kind, pa.MapType):
        entries = pa.struct([kind.key_field, kind.item_field])
        children = [pa.Array.from_buffers(entries, 0, [None], children=children)]
    return pa.Array.from_buffers(kind, count, buffers, children=children)


def _null_parts(count: int, kind: pa.DataType) -> tuple[list[int], list[pa.Buffer | None]]:
    """Return how many items each child of nulls of a nested type has, and their own buffers."""
    bitmap = validity_buffer(np.zeros(count, np.bool_))
    if isinstance(kind, UNIONS):  # null is what its first member is
        codes = pa.py_buffer(np.full(count, kind.type_codes[0], np.int8))
        if isinstance(kind, pa.SparseUnionType):
            return [count] * kind.num_fields, [None, codes]
        places = pa.py_buffer(np.zeros(count, np.int32))
        return [min(count, 1), *[0] * (kind.num_fields - 1)], [None, codes, places]
    if isinstance(kind, pa.StructType):
        return [count] * kind.num_fields, [bitmap]
    if isinstance(kind, pa.FixedSizeListType):
        return [count * kind.list_size], [bitmap]
    zeros = pa.py_buffer(
        np.zeros(count + 1, np.int32 if isinstance(kind, _SHORT_OFFSETS) else np.int64)
    )
    if isinstance(kind, LIST_VIEWS):
        return [0], [bitmap, zeros, zeros]
    return [0] * (2 if isinstance(kind, pa.MapType) else 1), [bitmap, zeros]


def in_use(array: Any, used: Mask | None) -> list[tuple[Any, Mask | None]]:
    """Return the children of an array of structs or lists, and which of their items are in use.

    used: which items of the array are. None: all are.
    """
    kind, used = array.type, both(used, validity(array))
    if isinstance(kind, pa.StructType):
        return [(array.field(i), used) for i in range(kind.num_fields)]
    if isinstance(kind, pa.FixedSizeListType):
        size = kind.list_size
        values = array.values.slice(array.offset * size, len(array) * size)
        return [(values, None if used is None else np.repeat(used, size))]
    usable: Mask | None = None
    if used is None and not isinstance(kind, LIST_VIEWS):
        _, order = _list_order(array, None)
        low, high = (int(order[0]), int(order[-1]) + 1) if len(order) else (0, 0)
    else:
        starts, sizes = list_bounds(array, used)
        sizes = sizes if used is None else np.where(used, sizes, 0)
        starts, ends = starts[sizes > 0], (starts + sizes)[sizes > 0]
        low, high = (int(starts.min()), int(ends.max())) if len(starts) else (0, 0)
        counts = [np.bincount(places - low, minlength=high - low + 1) for places in (starts, ends)]
        usable = np.cumsum(counts[0] - counts[1])[:-1] > 0
    values = array.values.slice(low, high - low)
    if isinstance(kind, pa.MapType):
        return [(values.field(0), usable), (values.field(1), usable)]
    return [(values, usable)]


def runs(array: Any) -> tuple[Integers, Any]:
    """Return which run each row lies in, and the value of each run."""
    first, count = array.offset, len(array)
    ends = integers(array.run_ends).astype(np.int64)
    if not count:
        return np.empty(0, np.int64), array.values.slice(0, 0)
    low = int(np.searchsorted(ends, first, "right"))
    high = int(np.searchsorted(ends, first + count - 1, "right")) + 1
    bounds = np.concatenate([[first], ends[low:high].clip(max=first + count)])
    return np.repeat(np.arange(high - low), np.diff(bounds)), array.values.slice(low, high - low)


def both(one: Mask | None, other: Mask | None) -> Mask | None:
    """Return where both are valid."""
    if one is None or other is None:
        return one if other is None else other
    return one & other


def rebuild(array: Any, kind: pa.DataType, change: Change, *, takes: bool = True) -> Any:
    """Make a nested array of `kind` again, with `change` of each child.

    `kind` has the nesting of the array, but for kinds of lists, and any fields: those of the result
    are of the types that `change` gives. takes: children can be taken from by Arrow; if not, what
    lies between the first and the last item in use goes along.

    Raises: DoesNotFit if offsets of 32 bits do not reach, InvalidRow for a map with a key that
    became null.
    """
    found = array.type
    if isinstance(found, pa.StructType):
        children = [change(i, array.field(i)) for i in range(found.num_fields)]
        buffers = [validity_buffer(validity(array))]
    elif isinstance(found, pa.SparseUnionType):
        children = [change(i, array.field(i)) for i in range(found.num_fields)]
        codes = item_buffer(array, 1, np.int8, len(array))
        buffers = [None, pa.py_buffer(codes)]
    elif isinstance(found, pa.DenseUnionType):
        children, buffers = _dense_union_parts(array, change, takes=takes)
    elif isinstance(found, pa.FixedSizeListType):
        size = found.list_size
        values = array.values.slice(array.offset * size, len(array) * size)
        children = [change(0, values)]
        buffers = [validity_buffer(validity(array))]
    else:
        children, buffers = _list_parts(array, kind, change, takes=takes)
    return pa.Array.from_buffers(_typed(kind, children), len(array), buffers, children=children)


def _typed(kind: pa.DataType, children: Sequence[Any]) -> pa.DataType:
    """Return `kind` with the types of these children; itself if it has them."""
    fields = children_of(kind)
    if isinstance(kind, pa.MapType):
        entries = children[0].type
        types = [entries.field(0).type, entries.field(1).type]
    else:
        types = [child.type for child in children]
    if all(one.type == other for one, other in zip(fields, types, strict=True)):
        return kind
    return with_children(
        kind, [one.with_type(other) for one, other in zip(fields, types, strict=True)]
    )


def _list_parts(
    array: Any, kind: pa.DataType, change: Change, *, takes: bool
) -> tuple[list[Any], list[pa.Buffer | None]]:
    valid = validity(array)
    ends, order = _list_order(array, valid)
    values = array.values
    if isinstance(kind, pa.MapType):
        values = values.slice(int(order[0]), len(order)) if len(order) else values.slice(0, 0)
        # The fields are its own: with others, Arrow 19 ends the process that looks at an item.
        child = rebuild(values, pa.struct([kind.key_field, kind.item_field]), change)
        if child.field(0).null_count:  # for which Arrow would end the process
            raise InvalidRow("the key of a map is null")
    else:
        child = changed_items(values, order, partial(change, 0), takes=takes)
    if isinstance(kind, _SHORT_OFFSETS):
        if ends[-1] > _MAX_SHORT:
            raise DoesNotFit(f"lists of {ends[-1]} values in all")
        ends = ends.astype(np.int32)
    if isinstance(kind, LIST_VIEWS):
        sizes = np.ascontiguousarray(np.diff(ends))
        return [child], [validity_buffer(valid), pa.py_buffer(ends[:-1]), pa.py_buffer(sizes)]
    return [child], [validity_buffer(valid), pa.py_buffer(ends)]


def _dense_union_parts(
    array: Any, change: Change, *, takes: bool
) -> tuple[list[Any], list[pa.Buffer | None]]:
    count = len(array)
    codes = item_buffer(array, 1, np.int8, count)
    offsets = item_buffer(array, 2, np.int32, count)
    places = np.zeros(count, np.int32)
    children = []
    for index, code in enumerate(array.type.type_codes):
        rows = codes == code
        change_child = partial(change, index)
        child = changed_items(array.field(index), offsets[rows], change_child, takes=takes)
        children.append(child)
        places[rows] = np.arange(len(child), dtype=np.int32)
    return children, [None, pa.py_buffer(codes), pa.py_buffer(places)]


def list_bounds(array: Any, valid: Mask | None) -> tuple[Integers, Integers]:
    """Return where the values of each list begin, and how many they are, in int64."""
    kind, count = array.type, len(array)
    dtype = np.int32 if isinstance(kind, _SHORT_OFFSETS) else np.int64
    if isinstance(kind, LIST_VIEWS):
        starts = item_buffer(array, 1, dtype, count).astype(np.int64)
        sizes = item_buffer(array, 2, dtype, count).astype(np.int64)
        if valid is not None:
            sizes = np.where(valid, sizes, 0)
        return starts, sizes
    if not count:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    offsets = item_buffer(array, 1, dtype, count + 1).astype(np.int64)
    return offsets[:-1], np.diff(offsets)


def _list_order(array: Any, valid: Mask | None) -> tuple[Integers, range | Integers]:
    """Return where each list ends among the values in use, and where those lie, in order."""
    if len(array) and not isinstance(array.type, LIST_VIEWS):
        dtype = np.int32 if isinstance(array.type, _SHORT_OFFSETS) else np.int64
        offsets = item_buffer(array, 1, dtype, len(array) + 1).astype(np.int64)
        first, end = int(offsets[0]), int(offsets[-1])
        offsets -= first
        return offsets, range(first, end)
    starts, sizes = list_bounds(array, valid)
    ends = np.zeros(len(starts) + 1, np.int64)
    np.cumsum(sizes, out=ends[1:])
    total = int(ends[-1])
    used = sizes > 0
    if not total:
        return ends, range(0)
    first = int(starts[used][0])
    if np.array_equal(starts[used], ends[:-1][used] + first):
        return ends, range(first, first + total)
    return ends, np.repeat(starts - ends[:-1], sizes) + np.arange(total)


def changed_items(
    array: Any, order: range | Integers, change: Callable[[Any], Any], *, takes: bool
) -> Any:
    """Return `change` of the items of `array` in this order.

    takes: Arrow can take from the array; from what is changed it always can.
    """
    if not len(order):
        return change(array.slice(0, 0))
    runs = [(order[0], order[-1] + 1)] if isinstance(order, range) else _runs(order)
    if len(runs) == 1:
        ((first, end),) = runs
        return change(array.slice(first, end - first))
    if takes:
        return change(array.take(integer_array(np.asarray(order, np.int64))))
    try:
        items = pa.concat_arrays([array.slice(first, end - first) for first, end in runs])
    except pa.ArrowNotImplementedError:  # it joins, however, what is changed
        first = int(np.min(order))
        used = change(array.slice(first, int(np.max(order)) + 1 - first))
        return used.take(integer_array(np.asarray(order, np.int64) - first))
    return change(items)


def _runs(order: Integers) -> list[tuple[int, int]]:
    """Return the runs of consecutive places, each with its end."""
    order = order.astype(np.int64)
    breaks = np.flatnonzero(np.diff(order) != 1) + 1
    firsts = order[np.concatenate([[0], breaks])].tolist()
    lasts = order[np.concatenate([breaks - 1, [len(order) - 1]])].tolist()
    return [(first, last + 1) for first, last in zip(firsts, lasts, strict=True)]
