"""Values that rows refer to: those of dictionaries and of runs, each distinct one once."""

from __future__ import annotations

import hashlib
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cosco.client.content.array_parts import (
    Integers,
    integer_array,
    integers,
    item_buffer,
    list_bounds,
    validity,
    validity_buffer,
)
from cosco.client.content.arrow_types import is_nested
from cosco.client.content.row_costs import array_bytes
from cosco.errors import CapacityExceeded

Ids = npt.NDArray[np.int64]

#: A pool that grew by this and has doubled drops what it holds twice.
_SLACK_VALUES: Final = 1 << 16
_SLACK_BYTES: Final = 256 << 20
#: References have 32 bits.
_MAX_VALUES: Final = (1 << 31) - 1
_DIGEST_BYTES: Final = 16


class ValuePool:
    """Values of one dictionary of a schema, of all its dictionaries that are met.

    References count values as they come. What is equal, to the bit, in several arrays becomes one
    when the pool settles: `canonical` says which of the `values` each reference means.
    """

    def __init__(self, kind: pa.DataType) -> None:
        """Begin empty. kind: the type of the values, of which Arrow can take."""
        self._values = pa.nulls(0, kind)
        self._canonical: npt.NDArray[np.int32] = np.empty(0, np.int32)
        self._pending: list[Any] = []
        self._pending_values = self._pending_bytes = 0
        self._firsts: dict[bytes, int] = {}
        self._count = 0
        self._values_bytes = 0
        #: How many bytes were added since this was last set to 0.
        self.added_bytes = 0

    def add(self, values: Any) -> int:
        """Copy values to the pool, unless these very ones were added before.

        Returns: the reference to the first of them.
        Raises: CapacityExceeded for more values than references tell, or one array holds.
        """
        message = pa.record_batch([values], ["v"]).serialize()
        digest = hashlib.blake2b(message, digest_size=_DIGEST_BYTES).digest()
        first = self._firsts.get(digest)
        if first is not None:
            return first
        if self._count + len(values) > _MAX_VALUES:
            raise _too_much(f"{self._count + len(values)} values of dictionaries or runs")
        first = self._firsts[digest] = self._count
        schema = pa.schema([("v", values.type)])
        self._pending.append(pa.ipc.read_record_batch(message, schema).column(0))
        self._pending_values += len(values)
        self._count += len(values)
        self.added_bytes += message.size
        self._pending_bytes += message.size
        if (
            self._pending_values > _SLACK_VALUES + 2 * len(self._values)
            or self._pending_bytes > _SLACK_BYTES + self._values_bytes
        ):
            self._settle()
        return first

    def values(self) -> Any:
        """Return each distinct value, in the order in which they came first."""
        self._settle()
        return self._values

    def values_bytes(self) -> int:
        """Return about how many bytes `values` take."""
        self._settle()
        return self._values_bytes

    def canonical(self) -> npt.NDArray[np.int32]:
        """Return which of `values` each reference means."""
        self._settle()
        return self._canonical

    def _settle(self) -> None:
        if self._pending:
            self._join_pending()
            self._values_bytes = array_bytes(self._values)

    def _join_pending(self) -> None:
        known = len(self._values)
        if not known and len(self._pending) == 1:  # as one dictionary had them
            (self._values,) = self._pending
            self._canonical = np.arange(len(self._values), dtype=np.int32)
            self._pending, self._pending_values, self._pending_bytes = [], 0, 0
            return
        try:
            every = pa.concat_arrays([self._values, *self._pending])
        except pa.ArrowInvalid as error:  # offsets of 32 bits
            raise _too_much("2 GiB of values of dictionaries or runs") from error
        self._pending, self._pending_values, self._pending_bytes = [], 0, 0
        firsts, places = _distinct(value_ids(every))
        self._values = every if len(firsts) == len(every) else every.take(integer_array(firsts))
        old = places[:known][self._canonical]
        self._canonical = np.concatenate([old, places[known:]]).astype(np.int32)


def _too_much(what: str) -> CapacityExceeded:
    return CapacityExceeded(f"{what} are more than one table holds: read it by read_batches")


def value_ids(array: Any) -> Ids:
    """Return an id for each value: the same for those that are equal to the bit.

    All nulls are equal. The array is of any type but views, runs, dictionaries and extensions.
    """
    kind, count = array.type, len(array)
    if not count or pa.types.is_null(kind):
        return np.zeros(count, np.int64)
    valid = validity(array)
    if pa.types.is_boolean(kind):
        keys = array.cast(pa.uint8())
    elif is_nested(kind):
        keys = _nested_keys(array, valid)
    elif _has_offsets(kind):
        keys = array
    elif not kind.bit_width:
        return np.zeros(count, np.int64) - (0 if valid is None else ~valid)
    else:  # of one width: by their bytes
        keys = _keys(item_buffer(array, 1, f"V{kind.bit_width // 8}", count), valid)
    encoded = integers(keys.dictionary_encode().indices)
    return (encoded if valid is None else np.where(valid, encoded, -1)).astype(np.int64)


def _keys(items: npt.NDArray[Any], valid: npt.NDArray[np.bool_] | None) -> Any:
    """Return the rows of a numpy array as fixed-size binary."""
    width = items.nbytes // len(items)
    buffers = [validity_buffer(valid), pa.py_buffer(np.ascontiguousarray(items))]
    return pa.Array.from_buffers(pa.binary(width), len(items), buffers)


def _nested_keys(array: Any, valid: npt.NDArray[np.bool_] | None) -> Any:
    kind, count = array.type, len(array)
    if isinstance(kind, pa.StructType):
        columns = [value_ids(array.field(i)) for i in range(kind.num_fields)]
        return _keys(np.stack([np.zeros(count, np.int64), *columns], axis=1), valid)
    if isinstance(kind, pa.FixedSizeListType):
        size = kind.list_size
        ids = value_ids(array.values.slice(array.offset * size, count * size))
        first = np.zeros((count, 1), np.int64)
        return _keys(np.concatenate([first, ids.reshape(count, size)], axis=1), valid)
    if isinstance(kind, pa.SparseUnionType | pa.DenseUnionType):
        return _union_keys(array)
    starts, sizes = list_bounds(array, valid)
    low, high = int(starts.min()), int((starts + sizes).max())
    ids = np.ascontiguousarray(value_ids(array.values.slice(low, high - low)))
    offsets = np.append(starts - low, high - low) * ids.itemsize
    offsets = np.ascontiguousarray(offsets)
    buffers = [validity_buffer(valid), pa.py_buffer(offsets), pa.py_buffer(ids)]
    return pa.Array.from_buffers(pa.large_binary(), count, buffers)


def _union_keys(array: Any) -> Any:
    kind, count = array.type, len(array)
    codes = item_buffer(array, 1, np.int8, count)
    pairs = np.zeros((count, 2), np.int64)
    pairs[:, 0] = codes
    for index, code in enumerate(kind.type_codes):
        rows = np.flatnonzero(codes == code)
        places = rows
        if isinstance(kind, pa.DenseUnionType):
            places = item_buffer(array, 2, np.int32, count)[rows]
        pairs[rows, 1] = value_ids(array.field(index))[places]
    return _keys(pairs, None)


def _has_offsets(kind: pa.DataType) -> bool:
    return kind in (pa.string(), pa.binary(), pa.large_string(), pa.large_binary())


def _distinct(ids: Ids) -> tuple[Integers, Integers]:
    """Return where each distinct id comes first, in order, and which of those each id is."""
    _, firsts, inverse = np.unique(ids, return_index=True, return_inverse=True)
    order = np.argsort(firsts)
    ranks = np.empty(len(order), np.int64)
    ranks[order] = np.arange(len(order))
    return firsts[order], ranks[inverse]
