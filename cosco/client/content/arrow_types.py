"""What types of Arrow contain, and which of them mean the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

import pyarrow as pa

from cosco.errors import SchemaMismatch

_Map = Callable[[Any], Any]

#: Where a field says which extension type its storage is of.
EXTENSION_NAME: Final = b"ARROW:extension:name"
EXTENSION_METADATA: Final = b"ARROW:extension:metadata"
#: Messages of Arrow hold 64, and some of what travels is in one more than it seems.
_MAX_DEPTH: Final = 60
_EXTENSION: Final = (EXTENSION_NAME, EXTENSION_METADATA)

LISTS: Final = (pa.ListType, pa.LargeListType, pa.ListViewType, pa.LargeListViewType)
LIST_VIEWS: Final = (pa.ListViewType, pa.LargeListViewType)
LONG_LISTS: Final = (pa.LargeListType, pa.LargeListViewType)


def map_types(schema: pa.Schema, leaf: _Map, *, keep_extensions: bool = False) -> pa.Schema:
    """Return the schema without metadata, and with `leaf` of each type, of nested ones as well.

    keep_extensions: fields may go on to name the extension type of their storage.
    """

    def field(old: pa.Field) -> pa.Field:
        kept = None
        if keep_extensions and old.metadata:
            kept = {name: old.metadata[name] for name in _EXTENSION if name in old.metadata}
        return pa.field(old.name, kind(old.type), old.nullable, kept)

    def kind(old: pa.DataType) -> pa.DataType:
        new = leaf(old)
        if type(new) is pa.DictionaryType:
            return pa.dictionary(new.index_type, kind(new.value_type), new.ordered)
        rebuild = _REBUILD.get(type(new))
        return rebuild(new, field) if rebuild else new

    return pa.schema([field(old) for old in schema])


def is_nested(kind: pa.DataType) -> bool:
    """Return whether `map_types` goes into the fields of this type."""
    return type(kind) in _REBUILD


def can_take(kind: Any) -> bool:
    """Return whether every version of Arrow can take from arrays of this type."""
    if isinstance(kind, pa.BaseExtensionType):
        return can_take(kind.storage_type)
    if isinstance(kind, (pa.RunEndEncodedType, *LIST_VIEWS)):
        return False
    if is_nested(kind):
        return all(can_take(field.type) for field in children(kind))
    return kind not in (pa.string_view(), pa.binary_view())


def is_valueless(kind: pa.DataType) -> bool:
    """Return whether a column of this type can only be all missing.

    pandas makes a dictionary of null of a categorical column without values.
    """
    if isinstance(kind, pa.DictionaryType | pa.RunEndEncodedType):
        return is_valueless(kind.value_type)
    return bool(pa.types.is_null(kind))


def all_fields(schema: pa.Schema) -> Iterator[pa.Field]:
    """Yield the fields of every level."""
    for field in schema:
        yield field
        yield from _fields_in(field.type)


def _fields_in(kind: pa.DataType) -> Iterator[pa.Field]:
    if isinstance(kind, pa.DictionaryType):
        yield from _fields_in(kind.value_type)
    elif isinstance(kind, pa.BaseExtensionType):
        yield from _fields_in(kind.storage_type)
    elif is_nested(kind):
        for child in children(kind):
            yield child
            yield from _fields_in(child.type)


def check_depth(schema: pa.Schema) -> None:
    """Raise SchemaMismatch for types that are nested deeper than messages of Arrow hold."""
    level: list[Any] = list(schema.types)
    for _ in range(_MAX_DEPTH + 1):
        inner: list[Any] = []
        for kind in level:
            if isinstance(kind, pa.DictionaryType | pa.RunEndEncodedType):
                inner.append(kind.value_type)
            elif isinstance(kind, pa.BaseExtensionType):
                inner.append(kind.storage_type)
            elif is_nested(kind):
                inner += (child.type for child in children(kind))
        if not inner:
            return
        level = inner
    raise SchemaMismatch(
        f"types nested in more than {_MAX_DEPTH} others cannot be shuffled: give flatter ones"
    )


def children(kind: pa.DataType) -> list[pa.Field]:
    """Return the fields of a nested type."""
    found: list[pa.Field] = []

    def remember(field: pa.Field) -> pa.Field:
        found.append(field)
        return field

    _REBUILD[type(kind)](kind, remember)
    return found


def with_children(kind: pa.DataType, fields: list[pa.Field]) -> pa.DataType:
    """Return a nested type with other fields."""
    rest = iter(fields)
    return _REBUILD[type(kind)](kind, lambda _: next(rest))


def _mapped(kind: pa.DataType, field: _Map) -> list[pa.Field]:
    return [field(kind.field(i)) for i in range(kind.num_fields)]


#: Nested types made again with `field` of each child.
_REBUILD: Final[dict[type, Callable[[Any, _Map], pa.DataType]]] = {
    pa.StructType: lambda kind, field: pa.struct(_mapped(kind, field)),
    pa.ListType: lambda kind, field: pa.list_(field(kind.value_field)),
    pa.LargeListType: lambda kind, field: pa.large_list(field(kind.value_field)),
    pa.FixedSizeListType: lambda kind, field: pa.list_(field(kind.value_field), kind.list_size),
    pa.ListViewType: lambda kind, field: pa.list_view(field(kind.value_field)),
    pa.LargeListViewType: lambda kind, field: pa.large_list_view(field(kind.value_field)),
    # Messages do not carry the names inside a map.
    pa.MapType: lambda kind, field: pa.map_(
        field(kind.key_field).with_name("key"),
        field(kind.item_field).with_name("value"),
        kind.keys_sorted,
    ),
    pa.SparseUnionType: lambda kind, field: pa.sparse_union(_mapped(kind, field), kind.type_codes),
    pa.DenseUnionType: lambda kind, field: pa.dense_union(_mapped(kind, field), kind.type_codes),
}


def family(kind: pa.DataType) -> object:
    """Return what types that differ only in how they lie in memory have in common."""
    if kind.num_fields == 0:
        if kind in (pa.string(), pa.large_string(), pa.string_view()):
            return "text"
        if kind in (pa.binary(), pa.large_binary(), pa.binary_view()):
            return "binary"
        if pa.types.is_decimal(kind):
            return "decimal", kind.precision, kind.scale
    return None


def is_alike(one: Any, other: Any) -> bool:
    """Return whether two nested types are so but for what they contain."""
    if isinstance(one, LISTS):
        return isinstance(other, LISTS)
    if type(one) is not type(other):
        return False
    if isinstance(one, pa.StructType):
        names = [[field.name for field in children(kind)] for kind in (one, other)]
        return names[0] == names[1]
    if isinstance(one, pa.FixedSizeListType):
        return bool(one.list_size == other.list_size)
    return bool(one.keys_sorted or not other.keys_sorted)


def first_line(error: Exception) -> str:
    """Return the first line of what an error says: Arrow adds where in its source it arose."""
    return str(error).partition("\n")[0]
