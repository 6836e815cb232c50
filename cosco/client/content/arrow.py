"""The content of an Arrow exchange's block.

It is IPC messages, one behind the other: of the values of each pool of the schema, in the order of
the pools, and at last of the plain columns (see `cosco.client.content.arrow_transport`). A schema
without dictionaries and runs has the last one only. References have the shortest type that reaches
all values of their pool in the block, so that the messages before say how to read a message.

The schema is that of the exchange. If that has columns of no type (null), which get one when a
mapper knows it, a message of the block's own schema comes first.

A row that is too long for a block is cut into fragments of its content.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa

from cosco.client.content import Decoded
from cosco.client.content.array_parts import (
    integer_array,
    integers,
    rebuild,
    validity,
)
from cosco.client.content.arrow_restore import (
    WHOLE_BYTES,
    WHOLE_FACTOR,
    Restorer,
    chosen_places,
    translated,
    used_values,
)
from cosco.client.content.arrow_schema import (
    conversion,
    schema_from_bytes,
    schema_to_bytes,
)
from cosco.client.content.arrow_transport import Node, Transport, transport
from cosco.client.content.arrow_types import children as child_fields
from cosco.client.content.arrow_types import first_line, is_nested, with_children
from cosco.client.content.message_check import read_messages
from cosco.client.content.value_pool import ValuePool
from cosco.errors import CapacityExceeded, CoscoError, DataCorrupted

#: Where batches under way are made. Arrow's own allocator gives what is freed back to the kernel
#: before long, and every page of it has to be touched for the first time again.
ARROW_POOL: Final = pa.system_memory_pool()

_TEXTS: Final = ((pa.string(), pa.binary()), (pa.large_string(), pa.large_binary()))
_REFERENCES: Final = ((1 << 7, pa.int8()), (1 << 15, pa.int16()), (1 << 31, pa.int32()))
#: A column of no type costs a block nothing, what it becomes may: convert this many rows at once.
_STEP_ROWS: Final = 1 << 16
#: How many combinations of types of references the schemas of messages are kept for.
_MAX_SCHEMAS: Final = 64


class ContentEncoder:
    """Makes the content of blocks of one transport's plain batches."""

    def __init__(self, way: Transport) -> None:
        """Begin. way: how the batches travel."""
        self._way = way
        self._schema = schema_to_bytes(way.schema) if way.carries_schema else b""

    def encode(self, plain: pa.RecordBatch, pools: Sequence[ValuePool]) -> Any:
        """Return the content of a block with the rows of a plain batch."""
        way = self._way
        if not way.values and not self._schema:
            return plain.serialize(memory_pool=ARROW_POOL)
        values: list[Any] = [None] * len(way.values)
        size = way.plain_bytes(plain)
        columns = [
            _narrow(node, column, pools, values, size)
            for node, column in zip(way.columns, plain.columns, strict=True)
        ]
        if columns:
            names = [str(index) for index in range(len(columns))]
            plain = pa.RecordBatch.from_arrays(columns, names)
        batches = [*(pa.record_batch([one], ["values"]) for one in values), plain]
        return b"".join([self._schema, *(memoryview(one.serialize()) for one in batches)])


def encode_plain(plain: pa.RecordBatch) -> pa.Buffer:
    """Return a plain batch as one message."""
    return plain.serialize(memory_pool=ARROW_POOL)


def decode_plain(content: Any, schema: pa.Schema) -> pa.RecordBatch:
    """Undo `encode_plain` without copying, so that the batch keeps `content` alive."""
    return pa.ipc.read_record_batch(pa.py_buffer(content), schema)


class ContentDecoder:
    """Makes batches of the blocks of an exchange. What blocks contain is not trusted."""

    def __init__(self, schema: pa.Schema) -> None:
        """Begin. schema: the exchange's.

        Raises: SchemaMismatch.
        """
        self.schema: Final = schema
        self.way: Final = transport(schema)
        self._layout = _Layout(self.way)
        self._last_schema = b""
        self._last_layout = self._layout

    def plain(self, decoded: Decoded, pools: Sequence[ValuePool]) -> pa.RecordBatch:
        """Return the rows of a block as a plain batch of the exchange's schema.

        Values go to `pools`, which are the exchange's.

        Raises: DataCorrupted when the content does not parse, is not what its layout needs, or has
        another number of rows. CapacityExceeded for more values than pools hold.
        """
        try:
            batch = self._plain(decoded, pools)
        except CapacityExceeded:  # of what came before as well
            raise
        except (pa.ArrowException, OSError, EOFError, ValueError, MemoryError, CoscoError) as error:
            # ValueError: names that are no text. MemoryError: no type, any length.
            raise DataCorrupted(
                f"a batch of {decoded.rows} rows of mapper {decoded.mapper} does not parse: "
                f"{first_line(error)}"
            ) from error
        if decoded.lengths or batch.num_rows != decoded.rows:
            raise DataCorrupted(
                f"a batch of mapper {decoded.mapper} has {batch.num_rows} rows, its block names "
                f"{decoded.rows}"
            )
        return batch

    def _plain(self, decoded: Decoded, pools: Sequence[ValuePool]) -> pa.RecordBatch:
        messages = list(read_messages(decoded.content))
        if not messages or messages[0].type != "schema":
            return self._layout.read(messages, pools, decoded.rows)
        layout = self._layout_of(messages[0].serialize().to_pybytes())
        found = layout.way
        if found.schema.equals(self.schema):
            return self._layout.read(messages[1:], pools, decoded.rows)
        change = conversion(found.schema, self.schema)
        own_pools = found.new_pools()
        plain = layout.read(messages[1:], own_pools, decoded.rows)
        if plain.num_rows != decoded.rows:  # which is what is wrong then
            return plain
        restorer = Restorer(found, own_pools)
        steps = [
            self.way.to_plain(change.apply(batch), pools)
            for start in range(0, plain.num_rows, _STEP_ROWS)
            for batch in restorer.batches(plain.slice(start, _STEP_ROWS))
        ]
        return join_plain(steps)

    def _layout_of(self, schema: bytes) -> _Layout:
        if schema != self._last_schema:
            self._last_layout = _Layout(transport(schema_from_bytes(schema)))
            self._last_schema = schema
        return self._last_layout


def join_plain(batches: Sequence[pa.RecordBatch]) -> pa.RecordBatch:
    """Return plain batches as one.

    Raises: ArrowInvalid if offsets of 32 bits do not reach.
    """
    if len(batches) == 1:
        return batches[0]
    schema = batches[0].schema
    if not len(schema):
        rows = sum(batch.num_rows for batch in batches)
        structs = pa.Array.from_buffers(pa.struct([]), rows, [None])
        return pa.RecordBatch.from_struct_array(structs).replace_schema_metadata(schema.metadata)
    columns = [
        pa.concat_arrays([batch.column(index) for batch in batches], memory_pool=ARROW_POOL)
        for index in range(len(schema))
    ]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


class _Layout:
    """The types of a block's messages, and how to read those that are not trusted."""

    def __init__(self, way: Transport) -> None:
        self.way = way
        self._schemas: dict[tuple[int, ...], tuple[pa.Schema, pa.Schema]] = {}

    def read(
        self, messages: Sequence[Any], pools: Sequence[ValuePool], rows: int
    ) -> pa.RecordBatch:
        """Return the plain batch of a block's messages, after its values went to `pools`.

        Raises: DataCorrupted, ArrowInvalid.
        """
        way = self.way
        if len(messages) != len(way.values) + 1:
            raise DataCorrupted(f"{len(messages)} messages instead of {len(way.values) + 1}")
        firsts: list[int] = []
        sizes: list[int] = []
        for pool, node, message in zip(pools, way.values, messages, strict=False):
            column = self._batch(message, sizes).column(0)
            if node.has_positions and _has_nulls(column):
                raise DataCorrupted("values of an ordered dictionary have no position")
            firsts.append(pool.add(_widen(node, column, firsts, sizes)))
            sizes.append(len(column))
        batch = self._batch(messages[-1], sizes)
        if not way.values or batch.num_rows != rows:
            return batch
        columns = [
            _widen(node, column, firsts, sizes)
            for node, column in zip(way.columns, batch.columns, strict=True)
        ]
        return pa.RecordBatch.from_arrays(columns, schema=way.plain)

    def _batch(self, message: Any, sizes: list[int]) -> pa.RecordBatch:
        """Return the batch of the message behind those of as many pools as have `sizes`."""
        if message.type != "record batch":
            raise DataCorrupted(f"a message of type {message.type}")
        key = len(sizes), *(_reference_type(size).bit_width for size in sizes)
        schemas = self._schemas.get(key)
        if schemas is None:
            if len(self._schemas) >= _MAX_SCHEMAS:
                self._schemas.clear()
            schemas = self._schemas[key] = self._schemas_of(sizes)
        sent, checked = schemas
        batch = pa.ipc.read_record_batch(message, checked)
        batch.validate(full=True)
        if checked is not sent:
            for one, column in zip(sent, batch.columns, strict=True):
                if is_nested(one.type):
                    _check_keys(one.type, column)
        return batch if checked is sent else pa.ipc.read_record_batch(message, sent)

    def _schemas_of(self, sizes: list[int]) -> tuple[pa.Schema, pa.Schema]:
        way = self.way
        if len(sizes) < len(way.values):
            kind = _sent_type(way.values[len(sizes)], sizes)
            sent = pa.schema([pa.field("values", kind)])
        elif not way.values:
            sent = way.plain
        else:
            sent = pa.schema(
                [
                    one.with_type(_sent_type(node, sizes))
                    for one, node in zip(way.plain, way.columns, strict=True)
                ]
            )
        kinds = [_checked_type(one.type) for one in sent]
        if all(kind is one.type for one, kind in zip(sent, kinds, strict=True)):
            return sent, sent
        return sent, pa.schema([one.with_type(kind) for one, kind in zip(sent, kinds, strict=True)])


def _sent_type(node: Node, sizes: list[int]) -> pa.DataType:
    """Return the type that the plain arrays of `node` have in a block with pools of `sizes`."""
    node = node.bare
    if not node.has_references:
        return node.plain
    if node.pool is not None:
        return _reference_type(sizes[node.pool])
    return with_children(
        node.plain,
        [
            one.with_type(_sent_type(child, sizes))
            for one, child in zip(child_fields(node.plain), node.children, strict=True)
        ],
    )


def _reference_type(size: int) -> pa.DataType:
    """Return the type of references to `size` values."""
    for limit, kind in _REFERENCES:
        if size <= limit:
            return kind
    raise DataCorrupted(f"a dictionary of {size} values")


def _reference_dtype(size: int) -> Any:
    return _reference_type(size).to_pandas_dtype()


def _checked_type(kind: pa.DataType) -> pa.DataType:
    """Return the type as which to validate arrays of `kind`: itself if its layout is all there is.

    Arrow's full validation also looks at what values mean (text, digits of decimals, times of a
    day). That takes most of its time, and no value can make a reader read what is not there: they
    come back as they were given. A map is validated as the list it is, see `_check_keys`.
    """
    if isinstance(kind, pa.MapType):
        fields = [
            one.with_type(_checked_type(one.type)) for one in (kind.key_field, kind.item_field)
        ]
        return pa.list_(pa.field("entries", pa.struct(fields)))
    if is_nested(kind):
        fields = child_fields(kind)
        kinds = [_checked_type(one.type) for one in fields]
        if all(new is one.type for one, new in zip(fields, kinds, strict=True)):
            return kind
        return with_children(
            kind, [one.with_type(new) for one, new in zip(fields, kinds, strict=True)]
        )
    for text, binary in _TEXTS:
        if kind == text:
            return binary
    if pa.types.is_decimal(kind) or pa.types.is_time(kind) or pa.types.is_date(kind):
        return pa.binary(kind.bit_width // 8)
    return kind


def _check_keys(kind: pa.DataType, checked: Any) -> None:
    """Raise DataCorrupted for a map with an entry or a key that is null: Arrow ends the process
    when such a map is looked at.

    checked: an array of the checked type of `kind`, valid as such.
    """
    if isinstance(kind, pa.MapType):
        entries = checked.values
        if entries.null_count or entries.field(0).null_count:
            raise DataCorrupted("the key of a map is null")
        children = [entries.field(0), entries.field(1)]
    elif isinstance(kind, pa.StructType | pa.SparseUnionType | pa.DenseUnionType):
        children = [checked.field(index) for index in range(kind.num_fields)]
    elif is_nested(kind):
        children = [checked.values]
    else:
        return
    for one, child in zip(child_fields(kind), children, strict=True):
        _check_keys(one.type, child)


def _has_nulls(parts: Any) -> bool:
    """Whether anything but a value is null in parts of an ordered dictionary."""
    return bool(parts.null_count or parts.field(1).null_count or parts.field(2).null_count)


def _narrow(
    node: Node, array: Any, pools: Sequence[ValuePool], values: list[Any], batch_bytes: int
) -> Any:
    """Return a plain array with references to its own block's values, which go to `values`."""
    node = node.bare
    if not node.has_references:
        return array
    if node.pool is None:
        children = node.children
        return rebuild(
            array,
            array.type,
            lambda index, child: _narrow(children[index], child, pools, values, batch_bytes),
        )
    pool = pools[node.pool]
    every, canonical = pool.values(), pool.canonical()
    if pool.values_bytes() <= max(WHOLE_BYTES, batch_bytes // WHOLE_FACTOR):
        references = translated(array, canonical.astype(_reference_dtype(len(every))))
    else:
        places, valid = chosen_places(array, canonical)
        every, places = used_values(every, places, valid)
        references = integer_array(places.astype(_reference_dtype(len(every))), valid)
    values[node.pool] = _narrow(node.children[0], every, pools, values, batch_bytes)
    return references


def _widen(node: Node, array: Any, firsts: list[int], sizes: list[int]) -> Any:
    """Return a block's plain array with references to the pools.

    firsts: the reference there to the first value of each of the block's pools.
    """
    node = node.bare
    if not node.has_references:
        return array
    if node.pool is None:
        children = node.children
        return rebuild(
            array,
            array.type,
            lambda index, child: _widen(children[index], child, firsts, sizes),
        )
    places, valid, size = integers(array), validity(array), sizes[node.pool]
    if valid is not None:
        places = np.where(valid, places, 0)
    if len(places) and not 0 <= int(places.min()) <= int(places.max()) < max(1, size):
        raise DataCorrupted(f"it names a value beyond the {size} of its dictionary")
    if not size and (valid.any() if valid is not None else len(places)):
        raise DataCorrupted("it names a value of a dictionary without any")
    references = places.astype(np.int32)
    references += firsts[node.pool]
    return integer_array(references, valid)
