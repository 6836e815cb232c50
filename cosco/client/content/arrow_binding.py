"""What binds an Arrow exchange: the schema it is declared with, or that of the first batch.

A column without values binds nothing: the first batch that has a type for it does. So a schema
becomes finer, and only so, as long as there are such columns in it; every schema that the exchange
ever had converts to the last one.

The metadata of the declared or first schema belongs to the exchange, for the readers. pandas writes
into it where a frame's index is. A range index lies there alone, and is of that frame's rows.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import pyarrow as pa

from cosco.client.content.arrow_schema import schema_from_bytes, schema_to_bytes
from cosco.client.content.arrow_types import (
    EXTENSION_NAME,
    all_fields,
    check_depth,
    children,
    is_alike,
    is_nested,
    is_valueless,
    map_types,
    with_children,
)
from cosco.errors import InvalidArgument, SchemaMismatch
from cosco.protocol.api_limits import MAX_SCHEMA_BYTES
from cosco.protocol.records import ExchangeInfo, RowKind

_PANDAS = b"pandas"


def binding_schema(schema: pa.Schema) -> bytes:
    """Return what an exchange is bound to by `schema`: its message, without what is of one batch.

    Raises: SchemaMismatch for a type that messages do not carry, InvalidArgument for a schema that
    is too long.
    """
    check_depth(schema)
    map_types(schema, _check_carried)
    metadata = dict(schema.metadata or {})
    if _PANDAS in metadata:
        pandas = _pandas_metadata(metadata.pop(_PANDAS), schema.names)
        if pandas is not None:
            metadata[_PANDAS] = json.dumps(pandas).encode()
    return _message(schema.with_metadata(metadata or None))


def unbound_columns(schema: pa.Schema) -> int:
    """Return how many columns of `schema`, at any level, have no type yet."""
    return sum(is_valueless(field.type) for field in all_fields(schema))


def is_decided(info: ExchangeInfo) -> bool:
    """Whether no rows that come later change what an exchange is bound to."""
    if info.kind is RowKind.ARROW:
        return not unbound_columns(schema_from_bytes(info.schema))
    return info.kind is not RowKind.UNDECIDED


def refined(schema: pa.Schema, found: pa.Schema) -> bytes | None:
    """Return the message of `schema` with the types that `found` has where it has none.

    Returns: None where there is nothing to add. Other differences are left as they are.
    """
    if schema.names != found.names or not unbound_columns(schema):
        return None
    check_depth(found)
    map_types(found, _check_carried)
    old = list(schema)
    new = [_refined_field(one, other) for one, other in zip(old, found, strict=True)]
    names = [two.name for one, two in zip(old, new, strict=True) if two is not one]
    if not names:
        return None
    return _message(pa.schema(new, _refined_metadata(schema, found, names)))


def _refined_field(field: pa.Field, found: pa.Field) -> pa.Field:
    """Return `field` with the types that `found` adds, or itself."""
    if EXTENSION_NAME in (field.metadata or {}):
        return field
    if is_valueless(field.type):
        if is_valueless(found.type):
            return field
        # Nulls may have been written already, so it is nullable if it was.
        metadata = {**(found.metadata or {}), **(field.metadata or {})}
        return pa.field(field.name, found.type, field.nullable, metadata or None)
    kind = _refined_type(field.type, found.type)
    return field if kind is field.type else field.with_type(kind)


def _refined_type(kind: Any, found: Any) -> Any:
    if isinstance(kind, pa.DictionaryType) and isinstance(found, pa.DictionaryType):
        old_values = kind.value_type
        values = _refined_type(old_values, found.value_type)
        if values is old_values:
            return kind
        return pa.dictionary(kind.index_type, values, kind.ordered)
    if not is_nested(kind) or isinstance(kind, pa.UnionType) or not is_alike(found, kind):
        return kind
    old = children(kind)
    new = [_refined_field(one, two) for one, two in zip(old, children(found), strict=True)]
    if all(one is two for one, two in zip(old, new, strict=True)):
        return kind
    return with_children(kind, new)


def _check_carried(kind: Any) -> Any:
    if isinstance(kind, pa.DictionaryType) and isinstance(kind.value_type, pa.BaseExtensionType):
        raise SchemaMismatch(
            f"columns of {kind} cannot be shuffled, as Arrow's messages take the extension to be "
            "of the dictionary: send the values, or a dictionary of their storage"
        )
    return kind


def _message(schema: pa.Schema) -> bytes:
    message = schema_to_bytes(schema)
    if len(message) > MAX_SCHEMA_BYTES:
        plain = len(schema_to_bytes(map_types(schema, lambda kind: kind)))
        raise InvalidArgument(
            f"the schema is {len(message)} bytes long, {len(message) - plain} of it metadata; it "
            f"must be at most {MAX_SCHEMA_BYTES}: drop metadata, or send fewer columns"
        )
    # As others will read it, so that whoever binds an exchange sees what they see.
    return schema_to_bytes(schema_from_bytes(message))


def _pandas_metadata(data: bytes, names: Iterable[str]) -> dict[str, Any] | None:
    """Return what pandas says of its frame, without indexes that are no columns; None: nothing."""
    try:
        pandas = json.loads(data)
        indexes = pandas["index_columns"]
        known = set(names)
        pandas["index_columns"] = [one for one in indexes if isinstance(one, str) and one in known]
    except (ValueError, LookupError, TypeError, RecursionError):
        return None
    return dict(pandas)


def _refined_metadata(
    schema: pa.Schema, found: pa.Schema, names: list[str]
) -> dict[bytes, bytes] | None:
    """Return the metadata of `schema`, and what pandas says of these columns in `found`."""
    metadata = dict(schema.metadata or {})
    theirs = _pandas_metadata((found.metadata or {}).get(_PANDAS, b""), found.names) or {}
    ours = _pandas_metadata(metadata.get(_PANDAS, b""), schema.names)
    if ours is not None:
        try:
            columns = {one["field_name"]: one for one in theirs.get("columns", ())}
            ours["columns"] = [
                columns.get(one["field_name"], one) if one["field_name"] in names else one
                for one in ours["columns"]
            ]
        except (LookupError, TypeError):  # not as pandas makes it
            metadata.pop(_PANDAS)
        else:
            metadata[_PANDAS] = json.dumps(ours).encode()
    return metadata or None
