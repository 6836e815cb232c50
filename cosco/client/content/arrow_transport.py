"""How batches of any Arrow schema travel: as *plain* columns, and pools of values.

A plain column is of a type that Arrow can sort, join and cut, and none of whose values are shared
between rows. What is not plain is made so, at any depth:

- a dictionary, or runs, are references of 32 bits to values in a `ValuePool`. So each block gets
  the values that it uses, whatever the type of the codes and of the values;
- list views are large lists, views of text and bytes large text and bytes: of the values in use;
- an extension type is its storage.

The values of an ordered dictionary travel with their positions in it and its origin, which is a
digest of the whole dictionary: so parts of it that were cut for different blocks, and by different
mappers, come together in its order again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import numpy as np
import pyarrow as pa

from cosco.client.content.array_parts import (
    UNIONS,
    Integers,
    Mask,
    both,
    changed_items,
    check_indices,
    integer_array,
    integers,
    rebuild,
    runs,
    validity,
)
from cosco.client.content.arrow_types import (
    LIST_VIEWS,
    can_take,
    first_line,
    is_nested,
    with_children,
)
from cosco.client.content.arrow_types import children as child_fields
from cosco.client.content.row_costs import batch_bytes
from cosco.client.content.value_pool import ValuePool
from cosco.errors import SchemaMismatch

#: A dictionary with at most as many values is not cut before it is known how long they are.
_FEW_VALUES: Final = 64
#: Types, by their ids, that this version of Arrow was seen to have what it takes for.
_USED: Final[set[int]] = set()
#: Nested types that do not travel as they are. Arrow crashes when it measures some unions that it
#: has read; before version 21 it writes lists wrongly that do not begin with their first value.
_REBUILT: Final = (
    UNIONS
    if int(pa.__version__.partition(".")[0]) >= 21
    else (*UNIONS, pa.ListType, pa.LargeListType, pa.MapType)
)
_VIEWS: Final = ((pa.string_view(), pa.large_string()), (pa.binary_view(), pa.large_binary()))


@dataclass(frozen=True, slots=True, eq=False)
class Node:
    """How a type travels.

    plain: the type it travels as; children: of nested types their children's nodes, of an
    extension type its storage's, of a dictionary or runs their values'. pool: which pool those
    go to. has_references: whether any of those is in it. rigid: it lies in an extension type, so
    that its type may not be widened. has_positions: it is of the values of an ordered dictionary,
    with their positions and its origin.
    """

    kind: pa.DataType
    plain: pa.DataType
    children: tuple[Node, ...] = ()
    pool: int | None = None
    has_references: bool = False
    rigid: bool = False
    has_positions: bool = False

    @property
    def is_ordered(self) -> bool:
        return isinstance(self.kind, pa.DictionaryType) and bool(self.kind.ordered)

    @property
    def bare(self) -> Node:
        """The node of the storage, however deep, of an extension type; else the node."""
        return self.children[0].bare if isinstance(self.kind, pa.BaseExtensionType) else self

    @property
    def is_plain(self) -> bool:
        """Whether arrays of the type travel as they are."""
        return self.plain is self.kind


@dataclass(slots=True)
class Transport:
    """How batches of one schema travel."""

    schema: pa.Schema
    plain: pa.Schema
    columns: list[Node]
    #: The values of each pool; what is inside of them comes before.
    values: list[Node] = field(default_factory=list)
    #: Blocks carry the schema, as columns of no type may get one in the exchange.
    carries_schema: bool = False
    is_plain: bool = False

    def new_pools(self) -> list[ValuePool]:
        """Return empty pools."""
        return [ValuePool(node.plain) for node in self.values]

    def plain_bytes(self, plain: pa.RecordBatch) -> int:
        """Return about how many bytes the rows of a plain batch take."""
        return batch_bytes(plain)

    def to_plain(self, batch: pa.RecordBatch, pools: Sequence[ValuePool]) -> pa.RecordBatch:
        """Return a batch as it travels. Columns that are not plain already are copied.

        Raises: InvalidRow for a dictionary's index without a value.
        """
        if self.is_plain:
            if batch.schema.equals(self.plain, check_metadata=True):
                return batch
            return _with_schema(batch, self.plain)
        columns = [
            _to_plain(node, column, pools)
            for node, column in zip(self.columns, batch.columns, strict=True)
        ]
        return pa.RecordBatch.from_arrays(columns, schema=self.plain)


def transport(schema: pa.Schema) -> Transport:
    """Return how batches of a schema travel.

    Raises: SchemaMismatch for types that cannot be sorted by partition.
    """
    values: list[Node] = []
    columns = [_node(one.type, values) for one in schema]
    is_plain = all(node.is_plain for node in columns)
    plain = schema if is_plain else pa.schema([*map(_plain_field, schema, columns)])
    carries_schema = any(_has_null_type(one.type) for one in schema)
    return Transport(schema, plain, columns, values, carries_schema, is_plain)


def _with_schema(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """Return a batch with a schema that differs in names inside of types, or in metadata."""
    if not len(schema):
        return batch.replace_schema_metadata(schema.metadata)
    return pa.RecordBatch.from_arrays(batch.columns, schema=schema)


def _node(kind: pa.DataType, values: list[Node], *, rigid: bool = False) -> Node:
    _check_carried(kind)
    if isinstance(kind, pa.BaseExtensionType):
        storage = _node(kind.storage_type, values, rigid=True)
        return Node(kind, storage.plain, (storage,), None, storage.has_references, rigid)
    for view, plain in _VIEWS:
        if kind == view:
            _check_leaf(kind, partial(_cast_and_back, plain))
            return Node(kind, plain)
    if isinstance(kind, pa.DictionaryType | pa.RunEndEncodedType):
        inside = _node(kind.value_type, values, rigid=rigid)
        if isinstance(kind, pa.DictionaryType) and kind.ordered:
            inside = _ordered_values(inside)
        values.append(inside)
        return Node(kind, pa.int32(), (inside,), len(values) - 1, True, rigid)
    if not is_nested(kind):
        _check_leaf(kind, lambda one: one.take(integer_array(np.zeros(1, np.int64))))
        return Node(kind, kind, rigid=rigid)
    fields = child_fields(kind)
    children = tuple(_node(one.type, values, rigid=rigid) for one in fields)
    if isinstance(kind, LIST_VIEWS):
        plain = pa.large_list(_plain_field(fields[0], children[0]))
    elif all(child.is_plain for child in children) and not isinstance(kind, _REBUILT):
        plain = kind
    else:
        plain_fields = [*map(_plain_field, fields, children)]
        if isinstance(kind, pa.MapType):
            plain_fields[0] = plain_fields[0].with_nullable(False)
        plain = with_children(kind, plain_fields)
    refers = any(child.has_references for child in children)
    return Node(kind, plain, children, None, refers, rigid)


def _ordered_values(values: Node) -> Node:
    """Return how the values of an ordered dictionary travel."""
    plain = pa.struct(
        [
            pa.field("value", values.plain),
            pa.field("position", pa.int32()),
            pa.field("origin", pa.int64()),
        ]
    )
    rest = (Node(pa.int32(), pa.int32()), Node(pa.int64(), pa.int64()))
    children = (values, *rest)
    return Node(plain, plain, children, None, values.has_references, has_positions=True)


def _plain_field(one: pa.Field, node: Node) -> pa.Field:
    """Return the field of a plain column: metadata does not travel, and a value may be null."""
    key_of_map = not one.nullable and not node.has_references
    return pa.field(one.name, node.plain, nullable=not key_of_map)


def _check_carried(kind: pa.DataType) -> None:
    """Refuse types that Arrow's messages of schemas take for others."""
    inner: Any = None
    if isinstance(kind, pa.DictionaryType):
        inner = kind.value_type
        is_lost = isinstance(inner, pa.DictionaryType | pa.BaseExtensionType)
    elif isinstance(kind, pa.BaseExtensionType):
        inner = kind.storage_type
        is_lost = isinstance(inner, pa.BaseExtensionType)
    if inner is not None and is_lost:
        raise SchemaMismatch(
            f"columns of {kind} cannot be shuffled, as Arrow's messages do not tell it from "
            f"{inner}: cast it to that"
        )


def _check_leaf(kind: pa.DataType, use: Callable[[Any], Any]) -> None:
    """Refuse a type of which this version of Arrow cannot `use` an array."""
    if kind.id in _USED:
        return
    try:
        use(pa.nulls(1, kind))
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid, KeyError) as error:
        # KeyError: of intervals that Arrow has, and its Python has not.
        reason = first_line(error)
        raise SchemaMismatch(f"columns of {kind} cannot be shuffled: {reason}") from error
    _USED.add(kind.id)


def _cast_and_back(plain: pa.DataType, array: Any) -> Any:
    return array.cast(plain).cast(array.type)


def _has_null_type(kind: pa.DataType) -> bool:
    if isinstance(kind, pa.BaseExtensionType):
        return _has_null_type(kind.storage_type)
    if isinstance(kind, pa.DictionaryType | pa.RunEndEncodedType):
        return _has_null_type(kind.value_type)
    if is_nested(kind):
        return any(_has_null_type(one.type) for one in child_fields(kind))
    return bool(pa.types.is_null(kind))


def _to_plain(node: Node, array: Any, pools: Sequence[ValuePool]) -> Any:
    kind = node.kind
    if node.is_plain:
        return array
    if isinstance(kind, pa.BaseExtensionType):
        return _to_plain(node.children[0], array.storage, pools)
    if isinstance(kind, pa.DictionaryType):
        indices = array.indices
        return _references(node, integers(indices), validity(indices), array.dictionary, pools)
    if isinstance(kind, pa.RunEndEncodedType):
        places, values = runs(array)
        return _references(node, places, None, values, pools)
    if not node.children:
        return array.cast(node.plain)
    return rebuild(
        array,
        node.plain,
        lambda index, child: _to_plain(node.children[index], child, pools),
        takes=all(can_take(child.kind) for child in node.children),
    )


def _references(
    node: Node, places: Integers, valid: Mask | None, values: Any, pools: Sequence[ValuePool]
) -> Any:
    """Put values to their pool.

    Returns: a reference to the value at each of `places`. The value null becomes no value.
    """
    assert node.pool is not None
    places = places.astype(np.int64)
    if valid is not None:
        places[~valid] = 0
    check_indices(places, valid, len(values))
    chosen = places if valid is None else places[valid]
    inside = node.children[0]
    used: range | Integers = range(len(values))
    if len(values) > max(len(places), _FEW_VALUES):
        used = np.unique(chosen)
        places = np.searchsorted(used, places).clip(0, max(0, len(used) - 1))
    elif not len(values):
        return pa.nulls(len(places), pa.int32())
    if node.is_ordered:
        plain = _with_positions(inside.plain, _to_plain(inside.children[0], values, pools))
        plain = changed_items(plain, used, lambda some: some, takes=True)
        usable = validity(plain.field(0))
    else:
        plain = changed_items(
            values, used, lambda some: _to_plain(inside, some, pools), takes=can_take(values.type)
        )
        usable = validity(plain)
    if usable is not None and len(plain):  # the value null is no value, as everywhere else
        plain = plain.take(integer_array(np.flatnonzero(usable)))
        valid = both(valid, usable[places])
        places = (np.cumsum(usable) - 1)[places].clip(0)
    if not len(plain):
        return pa.nulls(len(places), pa.int32())
    first = pools[node.pool].add(plain)
    return integer_array((places + first).astype(np.int32), valid)


def _with_positions(kind: pa.DataType, values: Any) -> Any:
    """Return the values of an ordered dictionary with their positions and its origin."""
    message = pa.record_batch([values], ["v"]).serialize()
    digest = hashlib.blake2b(message, digest_size=8).digest()
    origin = np.frombuffer(digest, np.int64).repeat(len(values))
    positions = np.arange(len(values), dtype=np.int32)
    children = [values, integer_array(positions), integer_array(origin)]
    return pa.Array.from_buffers(kind, len(values), [None], children=children)
