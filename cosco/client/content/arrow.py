"""The content of an Arrow exchange's block.

It is one IPC record batch message, without the schema, which the exchange carries; for a
schema that holds dictionaries at any depth it is a whole IPC stream of one batch. A row that
is too long for a block is cut into fragments of its message.

Types that share their values between slices are sent as types that do not (string_view as
large_string, binary_view as large_binary) and are turned back by the reader. A top-level
unordered dictionary with more values than a batch has rows is cut to the values in use.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final, NamedTuple

import pyarrow as pa

from cosco.client.content import Decoded
from cosco.errors import DataCorrupted, SchemaMismatch

_Map = Callable[[Any], Any]

#: Where batches under way are made. Arrow's own allocator gives what is freed back to the kernel
#: before long, and every page of it has to be touched for the first time again.
ARROW_POOL: Final = pa.system_memory_pool()

_VIEWS: Final = {pa.string_view(): pa.large_string(), pa.binary_view(): pa.large_binary()}

#: Lists whose slices share all their values, so that no cutting makes a message short.
_SHARED: Final = frozenset({pa.ListViewType, pa.LargeListViewType})


class _Transport(NamedTuple):
    """How batches of a schema travel."""

    schema: pa.Schema
    dictionaries: bool


def normalize_schema(schema: pa.Schema) -> pa.Schema:
    """Return `schema` without metadata at any level: its own, its fields', their children's."""
    return _map_types(schema, lambda kind: kind)


def schema_to_bytes(schema: pa.Schema) -> bytes:
    """Return the IPC schema message."""
    data: bytes = schema.serialize().to_pybytes()
    return data


@lru_cache(maxsize=64)
def schema_from_bytes(data: bytes) -> pa.Schema:
    """Return the normalized schema of an IPC schema message.

    Raises: DataCorrupted.
    """
    try:
        return normalize_schema(pa.ipc.read_schema(pa.py_buffer(data)))
    except (pa.ArrowException, OSError, EOFError) as error:
        raise DataCorrupted(f"{len(data)} bytes are no Arrow schema: {_line(error)}") from error


def check_schema(found: pa.Schema, expected: pa.Schema) -> None:
    """Raise SchemaMismatch with the first difference to `expected`, which is normalized."""
    if found.equals(expected) or (found := normalize_schema(found)).equals(expected):
        return
    difference = f"{len(found)} columns instead of {len(expected)}"
    for index, (one, other) in enumerate(zip(found, expected, strict=False)):
        if not one.equals(other):
            difference = f"column {index} is {_show(one)} instead of {_show(other)}"
            break
    raise SchemaMismatch(f"the batch does not have the schema of the exchange: {difference}")


@lru_cache(maxsize=64)
def transport(schema: pa.Schema) -> _Transport:
    """Return how batches of a normalized schema travel.

    Raises: SchemaMismatch for types that cannot be sorted by partition.
    """
    found: set[type] = set()

    def replace(kind: pa.DataType) -> pa.DataType:
        new = _VIEWS.get(kind, kind)
        found.add(type(new))
        if type(new) in _SHARED:
            raise SchemaMismatch(f"columns of {kind} cannot be shuffled: cast them to lists")
        if type(new) not in _REBUILD:
            try:
                pa.array([], new).take(pa.array([], pa.int64()))
            except pa.ArrowNotImplementedError as error:
                raise SchemaMismatch(
                    f"columns of {kind} cannot be shuffled: {_line(error)}"
                ) from error
        return new

    sent = _map_types(schema, replace)
    return _Transport(sent, pa.DictionaryType in found)


def to_transport(batch: pa.RecordBatch, sent: pa.Schema) -> pa.RecordBatch:
    """Return `batch` with the types it travels in. Columns that change their type are copied."""
    if batch.schema.equals(sent):
        return batch
    if not len(sent):
        return batch.replace_schema_metadata(None)
    return batch.cast(sent)


def encode_batch(batch: pa.RecordBatch, *, dictionaries: bool) -> pa.Buffer:
    """Return the content of a block with the rows of `batch`, which has the transport's types."""
    if not dictionaries:
        return batch.serialize(memory_pool=ARROW_POOL)
    columns = [_used_values(column, batch.num_rows) for column in batch.columns]
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as stream:
        stream.write_batch(pa.RecordBatch.from_arrays(columns, schema=batch.schema))
    return sink.getvalue()


def decode_batch(content: Any, sent: pa.Schema, *, dictionaries: bool) -> pa.RecordBatch:
    """Undo `encode_batch` without copying, so that the batch keeps `content` alive."""
    buffer = pa.py_buffer(content)
    if not dictionaries:
        return pa.ipc.read_record_batch(buffer, sent)
    with pa.ipc.open_stream(buffer) as stream:
        return stream.read_next_batch()


def batch_from_content(decoded: Decoded, schema: pa.Schema) -> pa.RecordBatch:
    """Return the rows, with the exchange's (normalized) schema.

    Raises: DataCorrupted when the content does not parse or has another number of rows.
    """
    sent, dictionaries = transport(schema)
    try:
        batch = decode_batch(decoded.content, sent, dictionaries=dictionaries)
        batch.validate()
        if dictionaries:
            check_schema(batch.schema, sent)
        if batch.schema != schema and len(schema):
            batch = batch.cast(schema)
    except (pa.ArrowException, OSError, EOFError, SchemaMismatch, StopIteration) as error:
        raise DataCorrupted(
            f"a batch of {decoded.rows} rows of mapper {decoded.mapper} does not parse: "
            f"{_line(error)}"
        ) from error
    if decoded.lengths or batch.num_rows != decoded.rows:
        raise DataCorrupted(
            f"a batch of mapper {decoded.mapper} has {batch.num_rows} rows, its block names "
            f"{decoded.rows}"
        )
    return batch


def _used_values(column: Any, rows: int) -> Any:
    """Return a dictionary column without the values it does not use, if those must be many."""
    kind = column.type
    if not pa.types.is_dictionary(kind) or kind.ordered or len(column.dictionary) <= rows:
        return column
    try:
        encoded = column.dictionary_decode().dictionary_encode()
    except pa.ArrowNotImplementedError:  # values of a type that Arrow cannot hash
        return column
    return pa.DictionaryArray.from_arrays(encoded.indices.cast(kind.index_type), encoded.dictionary)


def _map_types(schema: pa.Schema, leaf: _Map) -> pa.Schema:
    """Return the schema without metadata, and with `leaf` of each type, of nested ones as well."""

    def field(old: pa.Field) -> pa.Field:
        return pa.field(old.name, kind(old.type), old.nullable)

    def kind(old: pa.DataType) -> pa.DataType:
        new = leaf(old)
        if type(new) is pa.DictionaryType:
            return pa.dictionary(new.index_type, kind(new.value_type), new.ordered)
        rebuild = _REBUILD.get(type(new))
        return rebuild(new, field) if rebuild else new

    return pa.schema([field(old) for old in schema])


def _children(kind: pa.DataType, field: _Map) -> list[pa.Field]:
    return [field(kind.field(i)) for i in range(kind.num_fields)]


#: Nested types made again with `field` of each child.
_REBUILD: Final[dict[type, Callable[[Any, _Map], pa.DataType]]] = {
    pa.StructType: lambda kind, field: pa.struct(_children(kind, field)),
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
    pa.SparseUnionType: lambda kind, field: pa.sparse_union(
        _children(kind, field), kind.type_codes
    ),
    pa.DenseUnionType: lambda kind, field: pa.dense_union(_children(kind, field), kind.type_codes),
}


def _show(field: pa.Field) -> str:
    return f"{field.name!r}: {field.type}{'' if field.nullable else ' not null'}"


def _line(error: Exception) -> str:
    return str(error).partition("\n")[0]
