"""Random Arrow types, arrays of them built buffer by buffer, and what an array says.

Slices, values that no row uses, values that many rows share, and nulls at every level: what Arrow's
own constructors seldom make.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
from support.arrow_types import TAKES_VIEWS

TEXTS: Final = ("", "a", "b", "ż", "longer than a view holds inline", "x" * 40)
INDEXES: Final = (
    pa.int8(), pa.int16(), pa.int32(), pa.int64(),
    pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64(),
)  # fmt: skip
LEAVES: Final = (
    pa.null(), pa.bool_(), pa.int8(), pa.int32(), pa.int64(), pa.uint16(), pa.float16(),
    pa.float32(), pa.float64(), pa.date32(), pa.date64(), pa.time32("s"), pa.time64("ns"),
    pa.timestamp("us", "UTC"), pa.duration("s"), pa.month_day_nano_interval(),
    pa.decimal128(10, 2), pa.decimal256(50, 2), pa.binary(4), pa.binary(0), pa.string(),
    pa.large_string(), pa.binary(), pa.large_binary(),
    *((pa.string_view(), pa.binary_view()) if TAKES_VIEWS else ()),
    *(getattr(pa, name)(5, 2) for name in ("decimal32", "decimal64") if hasattr(pa, name)),
)  # fmt: skip
_VIEWS: Final = (pa.string_view(), pa.binary_view()) if TAKES_VIEWS else ()
#: Leaves that mean the same.
_SAME: Final = (
    (pa.string(), pa.large_string(), *_VIEWS[:1]),
    (pa.binary(), pa.large_binary(), *_VIEWS[1:]),
    (pa.decimal128(10, 2), pa.decimal256(10, 2)),
)
_BYTES: Final = (
    pa.string(), pa.large_string(), pa.binary(), pa.large_binary(), pa.string_view(),
    pa.binary_view(),
)  # fmt: skip


class Tagged(pa.ExtensionType):  # type: ignore[misc]
    """An extension of any storage, written as in Arrow's documentation: without `__hash__`."""

    def __init__(self, storage: pa.DataType) -> None:
        super().__init__(storage, "cosco.tests.tagged")

    def __arrow_ext_serialize__(self) -> bytes:
        return b""

    @classmethod
    def __arrow_ext_deserialize__(cls, storage: pa.DataType, serialized: bytes) -> Tagged:
        return cls(storage)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Tagged) and self.storage_type == other.storage_type

    __hash__ = None  # type: ignore[assignment]


def random_type(rng: random.Random, depth: int) -> Any:
    """Any type with at most `depth` levels above its leaves, of those that messages can tell."""
    if depth <= 0 or rng.random() < 0.25:
        return rng.choice(LEAVES)

    def field(name: str) -> pa.Field:
        return pa.field(name, random_type(rng, depth - 1))

    def value(*without: type) -> Any:
        while isinstance(kind := random_type(rng, depth - 1), without):
            pass
        return kind

    def fields(least: int) -> list[pa.Field]:
        return [field(f"f{i}") for i in range(rng.randrange(least, 4))]

    def dense_union() -> Any:
        members = fields(1)
        return pa.dense_union(members, rng.sample(range(100), len(members)))

    def dictionary() -> Any:
        values = value(pa.DictionaryType, pa.BaseExtensionType)
        return pa.dictionary(rng.choice(INDEXES), values, ordered=rng.random() < 0.4)

    makers: list[Callable[[], Any]] = [
        lambda: pa.struct(fields(0)),
        lambda: pa.list_(field("item")),
        lambda: pa.large_list(field("item")),
        lambda: pa.list_(field("item"), rng.randrange(4)),
        lambda: pa.list_view(field("item")),
        lambda: pa.large_list_view(field("item")),
        lambda: pa.map_(rng.choice([pa.string(), *_VIEWS[:1], pa.int8()]), value()),
        lambda: pa.map_(pa.dictionary(pa.int8(), pa.string()), value()),
        lambda: pa.sparse_union(fields(1)),
        dense_union,
        dictionary,
        dictionary,
        lambda: pa.run_end_encoded(rng.choice(INDEXES[1:4]), value()),
        lambda: Tagged(value(pa.BaseExtensionType)),
    ]
    return rng.choice(makers)()


def random_array(rng: random.Random, kind: Any, length: int, *, nulls: bool = True) -> Any:
    """A slice of an array of `kind`."""
    before, after = rng.choice([0, 0, 1, 3, 9]), rng.choice([0, 0, 2])
    return _Maker(rng, nulls).make(kind, before + length + after).slice(before, length)


class _Maker:
    def __init__(self, rng: random.Random, nulls: bool) -> None:
        self._rng = rng
        self._nulls = nulls

    def make(self, kind: Any, length: int) -> Any:
        for kinds, maker in self._MAKERS:
            if isinstance(kind, kinds):
                return maker(self, kind, length)
        if pa.types.is_null(kind):
            return pa.nulls(length)
        if kind in _BYTES:
            values = [self._rng.choice((*TEXTS, None)) for _ in range(length)]
            if not self._nulls:
                values = [value or "key" for value in values]
            is_text = kind in (pa.string(), pa.large_string(), pa.string_view())
            return pa.array([v if is_text or v is None else v.encode() for v in values], kind)
        return self._fixed(kind, length)

    def _inside(self, kind: Any, length: int, *, nulls: bool | None = None) -> Any:
        return random_array(self._rng, kind, length, nulls=self._nulls if nulls is None else nulls)

    def _validity(self, length: int) -> pa.Buffer | None:
        share = self._rng.choice([0, 0.2, 0.2, 1]) if self._nulls else 0
        return self._bits(length, share) if share else None

    def _bits(self, length: int, share_of_zeros: float) -> pa.Buffer:
        bits = np.array([self._rng.random() > share_of_zeros for _ in range(length)], np.bool_)
        return pa.py_buffer(np.packbits(bits, bitorder="little"))

    def _fixed(self, kind: Any, length: int) -> Any:
        if pa.types.is_boolean(kind):
            data = self._bits(length, 0.5)
        else:
            width = kind.bit_width // 8
            unit = 86_400_000 if kind == pa.date64() else 1  # whole days
            items = (self._rng.randrange(50) * unit for _ in range(length))
            rows = [item.to_bytes(16, "little")[:width].ljust(width, b"\0") for item in items]
            data = pa.py_buffer(b"".join(rows))
        return pa.Array.from_buffers(kind, length, [self._validity(length), data])

    def _extension(self, kind: Any, length: int) -> Any:
        return kind.wrap_array(self._inside(kind.storage_type, length))

    def _dictionary(self, kind: Any, length: int) -> Any:
        count = self._rng.choice([0, 1, 5, 60, 127]) if self._nulls else 5
        values = self._inside(kind.value_type, count)
        codes = [self._rng.randrange(count) if count else 0 for _ in range(length)]
        data = pa.py_buffer(np.array(codes, kind.index_type.to_pandas_dtype()))
        validity = self._validity(length) if count else self._bits(length, 1)
        indices = pa.Array.from_buffers(kind.index_type, length, [validity, data])
        return pa.DictionaryArray.from_arrays(indices, values, ordered=kind.ordered, safe=False)

    def _runs(self, kind: Any, length: int) -> Any:
        ends: list[int] = []
        while length and (not ends or ends[-1] < length):
            ends.append((ends[-1] if ends else 0) + self._rng.choice([1, 1, 2, 5]))
        children = [pa.array(ends, kind.run_end_type), self._inside(kind.value_type, len(ends))]
        return pa.Array.from_buffers(kind, length, [None], children=children)

    def _struct(self, kind: Any, length: int) -> Any:
        children = [self._inside(one.type, length) for one in kind]
        return pa.Array.from_buffers(kind, length, [self._validity(length)], children=children)

    def _list(self, kind: Any, length: int) -> Any:
        lead = self._rng.choice([0, 3])
        sizes = [self._rng.choice([0, 1, 2, 5]) for _ in range(length)]
        ends = np.cumsum([lead, *sizes])
        count = int(ends[-1])
        if isinstance(kind, pa.MapType):
            keys = self._inside(kind.key_type, count, nulls=False)
            entries = pa.struct([kind.key_field, kind.item_field])
            children = [keys, self._inside(kind.item_type, count)]
            values = pa.Array.from_buffers(entries, count, [None], children=children)
        else:
            values = self._inside(kind.value_type, count)
        offsets = pa.py_buffer(ends.astype("i8" if isinstance(kind, pa.LargeListType) else "i4"))
        buffers = [self._validity(length), offsets]
        return pa.Array.from_buffers(kind, length, buffers, children=[values])

    def _list_view(self, kind: Any, length: int) -> Any:
        count = self._rng.choice([0, 5, 20])
        starts = [self._rng.randrange(count + 1) for _ in range(length)]
        sizes = [self._rng.randrange(min(4, count - start) + 1) for start in starts]
        dtype = "i4" if isinstance(kind, pa.ListViewType) else "i8"
        parts = [pa.py_buffer(np.array(part, dtype)) for part in (starts, sizes)]
        children = [self._inside(kind.value_type, count)]
        buffers = [self._validity(length), *parts]
        return pa.Array.from_buffers(kind, length, buffers, children=children)

    def _fixed_size_list(self, kind: Any, length: int) -> Any:
        children = [self._inside(kind.value_type, length * kind.list_size)]
        return pa.Array.from_buffers(kind, length, [self._validity(length)], children=children)

    def _sparse_union(self, kind: Any, length: int) -> Any:
        codes = np.array([self._rng.choice(kind.type_codes) for _ in range(length)], "i1")
        children = [self._inside(kind.field(i).type, length) for i in range(kind.num_fields)]
        return pa.Array.from_buffers(kind, length, [None, pa.py_buffer(codes)], children=children)

    def _dense_union(self, kind: Any, length: int) -> Any:
        counts = {code: self._rng.choice([1, 4, length + 1]) for code in kind.type_codes}
        codes = np.array([self._rng.choice(kind.type_codes) for _ in range(length)], "i1")
        offsets = np.array([self._rng.randrange(counts[code]) for code in codes.tolist()], "i4")
        children = [
            self._inside(kind.field(i).type, counts[code]) for i, code in enumerate(kind.type_codes)
        ]
        buffers = [None, pa.py_buffer(codes), pa.py_buffer(offsets)]
        return pa.Array.from_buffers(kind, length, buffers, children=children)

    _MAKERS: Final = (
        (pa.BaseExtensionType, _extension),
        (pa.DictionaryType, _dictionary),
        (pa.RunEndEncodedType, _runs),
        (pa.StructType, _struct),
        ((pa.ListType, pa.LargeListType, pa.MapType), _list),
        ((pa.ListViewType, pa.LargeListViewType), _list_view),
        (pa.FixedSizeListType, _fixed_size_list),
        (pa.SparseUnionType, _sparse_union),
        (pa.DenseUnionType, _dense_union),
    )


def logical(array: Any) -> list[Any]:
    """What the rows of an array say, whatever stores it; by no code of the product.

    Values that Python has no exact type for are their bytes.
    """
    kind, length = array.type, len(array)
    if isinstance(kind, pa.BaseExtensionType):
        return logical(array.storage)
    if isinstance(kind, pa.DictionaryType):
        values = logical(array.dictionary)
        return [None if code is None else values[code] for code in array.indices.to_pylist()]
    if isinstance(kind, pa.RunEndEncodedType):
        values = logical(array.values)
        numbers = np.arange(array.offset, array.offset + length)
        runs = np.searchsorted(np.array(array.run_ends.to_pylist()), numbers, "right")
        return [values[run] for run in runs.tolist()]
    if isinstance(kind, pa.SparseUnionType | pa.DenseUnionType):
        return _logical_union(array)
    if kind.num_fields:
        rows = _logical_nested(array)
        valid = array.is_valid().to_pylist()
        return [row if is_valid else None for row, is_valid in zip(rows, valid, strict=True)]
    if pa.types.is_decimal(kind) or pa.types.is_temporal(kind) or pa.types.is_floating(kind):
        width = kind.bit_width // 8
        data = array.buffers()[1]
        items = [bytes(data[(array.offset + i) * width :][:width]) for i in range(length)]
        valid = array.is_valid().to_pylist()
        return [item if is_valid else None for item, is_valid in zip(items, valid, strict=True)]
    return list(array.to_pylist())


def _logical_nested(array: Any) -> list[Any]:
    kind, length = array.type, len(array)
    if isinstance(kind, pa.StructType):
        columns = [logical(array.field(i)) for i in range(kind.num_fields)]
        return [tuple(column[i] for column in columns) for i in range(length)]
    values = logical(array.values)
    if isinstance(kind, pa.FixedSizeListType):
        size = kind.list_size
        starts = [(array.offset + i) * size for i in range(length)]
        return [values[start : start + size] for start in starts]
    if isinstance(kind, pa.ListViewType | pa.LargeListViewType):
        pairs = zip(array.offsets.to_pylist(), array.sizes.to_pylist(), strict=True)
        return [values[start or 0 : (start or 0) + (size or 0)] for start, size in pairs]
    offsets = array.offsets.to_pylist() if length else []
    return [values[offsets[i] : offsets[i + 1]] for i in range(length)]


def _logical_union(array: Any) -> list[Any]:
    kind, length = array.type, len(array)
    if not length:
        return []
    buffers = array.buffers()
    codes = np.frombuffer(buffers[1], "i1", length, array.offset).tolist()
    places = list(range(length))
    if isinstance(kind, pa.DenseUnionType):
        places = np.frombuffer(buffers[2], "i4", length, 4 * array.offset).tolist()
    members = {code: logical(array.field(i)) for i, code in enumerate(kind.type_codes)}
    return [Member(code, members[code][place]) for code, place in zip(codes, places, strict=True)]


class Member(NamedTuple):
    """What a row of a union says."""

    code: int
    row: Any


def is_missing(row: Any) -> bool:
    """Whether a row of `logical` is null, or a member of a union that is."""
    return row is None or (isinstance(row, Member) and is_missing(row.row))


def says(found: Any, wanted: Any) -> bool:
    """Whether a row of `logical` says what another one says, of a type that it may be cast to.

    A null may have become a member of a union, and a number may be of another width.
    """
    if wanted is None:
        return is_missing(found)
    if isinstance(wanted, tuple | list):
        return (
            type(found) is type(wanted)
            and len(found) == len(wanted)
            and all(map(says, found, wanted))
        )
    if isinstance(wanted, bytes) and isinstance(found, bytes):
        return found.rstrip(b"\0") == wanted.rstrip(b"\0")
    return bool(found == wanted)


def related_type(rng: random.Random, kind: Any) -> Any:
    """A type that means what `kind` does, at some places without values."""
    if rng.random() < 0.15:
        return pa.null()
    if isinstance(kind, pa.DictionaryType):
        values = related_type(rng, kind.value_type)
        return pa.dictionary(rng.choice(INDEXES), values, kind.ordered)
    for kinds in _SAME:
        if kind in kinds:
            return rng.choice(kinds)
    if isinstance(kind, pa.StructType):
        return pa.struct([one.with_type(related_type(rng, one.type)) for one in kind])
    if isinstance(kind, pa.MapType):
        return pa.map_(kind.key_type, related_type(rng, kind.item_type))
    for lists in (pa.ListType, pa.LargeListType, pa.ListViewType, pa.LargeListViewType):
        if isinstance(kind, lists):
            make = rng.choice((pa.list_, pa.large_list, pa.list_view, pa.large_list_view))
            return make(related_type(rng, kind.value_type))
    if isinstance(kind, pa.FixedSizeListType):
        return pa.list_(related_type(rng, kind.value_type), kind.list_size)
    return kind
