"""Schemas of Arrow exchanges: their bytes, and which batches go into which exchange.

Types alone decide whether a batch may travel, never its values, and metadata does not count. What
lies in memory in another way but means the same is cast: the three kinds of text, of binary, and
of lists; decimals of another width. Columns without values (the type null, and dictionaries of
it) go with every type. A type that this process knows as an extension is not its storage; one
that it does not know is, with the extension's name in the field's metadata.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa

from cosco.client.content.array_parts import (
    DoesNotFit,
    Mask,
    both,
    check_indices,
    in_use,
    integers,
    null_array,
    nulls_of,
    rebuild,
    validity,
)
from cosco.client.content.arrow_types import (
    EXTENSION_METADATA,
    EXTENSION_NAME,
    all_fields,
    can_take,
    check_depth,
    children,
    family,
    first_line,
    is_alike,
    is_nested,
    is_valueless,
    map_types,
    with_children,
)
from cosco.errors import CapacityExceeded, DataCorrupted, InvalidRow, SchemaMismatch

_Convert = Callable[[Any], Any]
#: Raises InvalidRow for an array with nulls where there may be none, of its items that are in use.
_Check = Callable[[Any, Mask | None], None]

_SHOWN_NAMES: Final = 8


# --- bytes --------------------------------------------------------------------------------


def normalize_schema(schema: pa.Schema) -> pa.Schema:
    """Return `schema` without metadata at any level: its own, its fields', their children's.

    That a field is the storage of an extension type is part of its type.
    """
    return map_types(schema, lambda kind: kind, keep_extensions=True)


def schema_to_bytes(schema: pa.Schema) -> bytes:
    """Return the IPC schema message."""
    data: bytes = schema.serialize().to_pybytes()
    return data


def schema_from_bytes(data: bytes) -> pa.Schema:
    """Return the schema of an IPC schema message, with its metadata.

    Extension types that this process has registered by now are those types; others are their
    storage.

    Raises: DataCorrupted.
    """
    schema, has_extensions = _parsed(data)
    return _parse(data) if has_extensions else schema


@lru_cache(maxsize=64)
def _parsed(data: bytes) -> tuple[pa.Schema, bool]:
    """Return the schema, and whether it depends on which extension types are registered."""
    schema = _parse(data)
    return schema, _has_extensions(schema)


def _parse(data: bytes) -> pa.Schema:
    try:
        return pa.ipc.read_schema(pa.py_buffer(data))
    except (pa.ArrowException, OSError, EOFError) as error:
        raise DataCorrupted(
            f"{len(data)} bytes are no Arrow schema: {first_line(error)}"
        ) from error


# --- conversions --------------------------------------------------------------------------


class Conversion(NamedTuple):
    """How batches of one schema become batches of the exchange's.

    schema: what `apply` returns: the exchange's, but for the index types of dictionaries, which
    stay as they are.
    """

    schema: pa.Schema
    converts: tuple[_Convert | None, ...]
    checks: tuple[tuple[int, _Check], ...]

    def check(self, batch: pa.RecordBatch | pa.Table) -> None:
        """Raise InvalidRow if there are nulls in a column that may have none."""
        for index, check in self.checks:
            column = batch.column(index)
            for chunk in column.chunks if isinstance(column, pa.ChunkedArray) else (column,):
                check(chunk, None)

    def apply(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Return `batch` with the exchange's types. Only columns that differ are copied.

        Raises: InvalidRow for nulls where there may be none, and CapacityExceeded for more values
        than one array of the exchange's type holds.
        """
        self.check(batch)
        if batch.schema.equals(self.schema, check_metadata=True):
            return batch
        if not len(self.schema):
            return batch.replace_schema_metadata(self.schema.metadata)
        try:
            columns = [
                convert(column) if convert else column
                for convert, column in zip(self.converts, batch.columns, strict=True)
            ]
        except (pa.ArrowInvalid, pa.ArrowCapacityError, DoesNotFit) as error:
            raise CapacityExceeded(
                f"{batch.num_rows} rows do not fit the types of the exchange: {first_line(error)}; "
                "give smaller batches, or create it with types like large_string"
            ) from error
        return pa.RecordBatch.from_arrays(columns, schema=self.schema)


class _Step(NamedTuple):
    """How a column becomes one of `kind`; `convert` is None where it is one."""

    kind: pa.DataType
    convert: _Convert | None = None
    check: _Check | None = None


def conversion(found: pa.Schema, expected: pa.Schema, *, strict: bool = False) -> Conversion:
    """Return how batches of `found` become batches of `expected`, by their types alone.

    strict: an extension type that this process knows is not its storage. In a block it may be:
    the block's writer may not have known the type.

    Raises: SchemaMismatch if they may not.
    """
    check_depth(found)
    made, has_extensions = _conversion_of(schema_to_bytes(found), schema_to_bytes(expected), strict)
    return _make(found, expected, strict) if has_extensions else made


class Conversions:
    """The conversions to one schema. Most batches have the schema of the one before."""

    def __init__(self, expected: pa.Schema, *, strict: bool) -> None:
        """Begin. `strict` as for `conversion`."""
        self._expected = expected
        self._strict = strict
        self._found: pa.Schema | None = None
        self._last: Conversion | None = None

    def of(self, found: pa.Schema) -> Conversion:
        """Return how batches of `found` become batches of the schema; see `conversion`."""
        if self._last is None or not found.equals(self._found, check_metadata=True):
            self._last = conversion(found, self._expected, strict=self._strict)
            self._found = found
            if _has_extensions(found):  # which say themselves what they equal
                last, self._last = self._last, None
                return last
        return self._last


@lru_cache(maxsize=64)
def _conversion_of(found: bytes, expected: bytes, strict: bool) -> tuple[Conversion, bool]:
    """Return the conversion, and whether it depends on which extension types are registered."""
    one, other = _parse(found), _parse(expected)
    has_extensions = _has_extensions(one) or _has_extensions(other)
    return _make(one, other, strict), has_extensions


def _has_extensions(schema: pa.Schema) -> bool:
    return any(
        isinstance(field.type, pa.BaseExtensionType) or EXTENSION_NAME in (field.metadata or ())
        for field in all_fields(schema)
    )


def _make(found: pa.Schema, expected: pa.Schema, strict: bool) -> Conversion:
    _check_names(found, expected)
    steps = [
        _field(one, other, repr(one.name), strict)
        for one, other in zip(found, expected, strict=True)
    ]
    fields = [field.with_type(step.kind) for field, step in zip(expected, steps, strict=True)]
    return Conversion(
        pa.schema(fields, expected.metadata),
        tuple(step.convert for step in steps),
        tuple((i, step.check) for i, step in enumerate(steps) if step.check),
    )


def _check_names(found: pa.Schema, expected: pa.Schema) -> None:
    """Refuse other columns than the exchange's.

    Also in another order, though names might tell them apart: two columns of one type that were
    exchanged by mistake, and renamed, would not be noticed anywhere.
    """
    if found.names == expected.names:
        return
    missing = [name for name in expected.names if name not in set(found.names)]
    extra = [name for name in found.names if name not in set(expected.names)]
    if missing or extra:
        differences = [f"it has no {_names(missing)}"] * bool(missing)
        differences += [f"the exchange has no {_names(extra)}"] * bool(extra)
        if any(name.startswith("__index_level_") for name in (*missing, *extra)):
            differences.append(
                "pandas made a column of an index: convert all frames with "
                "preserve_index=False, or all with True"
            )
        raise _mismatch("; ".join(differences))
    if len(found) != len(expected):
        raise _mismatch(f"{len(found)} columns instead of {len(expected)}, of the same names")
    raise _mismatch(
        f"its columns are in another order, {_names(found.names)} instead of "
        f"{_names(expected.names)}: give batch.select(names) in that order"
    )


class _Differs(Exception):
    """Two types do not mean the same."""


def _names(names: list[str]) -> str:
    text = ", ".join(map(repr, names[:_SHOWN_NAMES]))
    return f"{text} and {len(names) - _SHOWN_NAMES} more" if len(names) > _SHOWN_NAMES else text


def _mismatch(difference: str) -> SchemaMismatch:
    return SchemaMismatch(f"the batch does not have the schema of the exchange: {difference}")


def _field(found: pa.Field, expected: pa.Field, path: str, strict: bool) -> _Step:
    """Return how a column, or a field inside of one, becomes the exchange's."""
    try:
        step = _extended(found, expected, path, strict)
    except _Differs:
        one, other = _show(found), _show(expected)
        if one == other:
            one += " of other parameters"
        raise _mismatch(
            f"column {path} is {one} instead of {other}: cast it, or create the exchange with the "
            f"schema that all mappers are to have{_pandas_hint(found.type, expected.type)}"
        ) from None
    if not expected.nullable:  # whatever `found` says: Arrow itself does not hold batches to it
        return step._replace(check=partial(_check_nulls, path, step.check))
    return step


def _extended(found: pa.Field, expected: pa.Field, path: str, strict: bool) -> _Step:
    """Return the step of a field, whose type may be an extension."""
    one, other = _resolved(found), _resolved(expected)
    is_known = [isinstance(kind, pa.BaseExtensionType) for kind in (one, other)]
    marks = _extension(found, one), _extension(expected, other)
    if all(marks):
        if not _is_same_extension(*marks):
            raise _Differs
    elif strict and any(is_known) and not is_valueless(one):
        raise _Differs
    if not any(is_known) or is_valueless(one):
        return _type(one, other, path, strict)
    step = _type(_storage(one), _storage(other), path, strict)
    if step.check:
        step = step._replace(check=partial(_check_storage, step.check))
    if not is_known[1]:
        return step._replace(convert=partial(_to_extension, None, step.convert))
    if step.kind != _storage(other):  # an index type that the extension does not have
        raise _Differs
    is_kept = found.type is one and step.convert is None and is_known[0]
    return step._replace(
        kind=other, convert=None if is_kept else partial(_to_extension, other, step.convert)
    )


def _resolved(field: pa.Field) -> pa.DataType:
    """Return the type of a field: the extension that its metadata names, if that is registered."""
    if _named_extension(field):
        return _parse(schema_to_bytes(pa.schema([field]))).field(0).type
    return field.type


def _named_extension(field: pa.Field) -> tuple[bytes, bytes] | None:
    """Return the extension type that a field's metadata names, and its parameters."""
    metadata = field.metadata or {}
    if isinstance(field.type, pa.BaseExtensionType) or EXTENSION_NAME not in metadata:
        return None
    return metadata[EXTENSION_NAME], metadata.get(EXTENSION_METADATA, b"")


def _extension(field: pa.Field, kind: Any) -> object:
    """Return what an extension type is but for its storage; None if the type is none.

    Types of Python are not asked whether they are equal: what they inherit as `__eq__` ignores
    their parameters.
    """
    if isinstance(kind, pa.ExtensionType):
        return kind.extension_name.encode(), kind.__arrow_ext_serialize__()
    return kind if isinstance(kind, pa.BaseExtensionType) else _named_extension(field)


def _is_same_extension(one: Any, other: Any) -> bool:
    if isinstance(one, pa.BaseExtensionType) and isinstance(other, pa.BaseExtensionType):
        is_json = one.extension_name == other.extension_name == "arrow.json"
        return is_json or bool(one == other)  # it has no parameters, and any kind of text below
    return bool(one == other)


def _storage(kind: pa.DataType) -> pa.DataType:
    return kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind


def _type(one: pa.DataType, other: pa.DataType, path: str, strict: bool) -> _Step:
    """Return how arrays of one type become arrays of another.

    Raises: SchemaMismatch for what they contain, _Differs for themselves.
    """
    if is_valueless(one):
        same = one == other
        return _Step(other, None if same else lambda array: null_array(len(array), other))
    if isinstance(one, pa.DictionaryType) and isinstance(other, pa.DictionaryType):
        return _dictionary(one, other, path, strict)
    if is_nested(one) and not isinstance(one, pa.UnionType):
        if not is_alike(one, other):
            raise _Differs
        return _nested(one, other, path, strict)
    if one == other:
        return _Step(other)
    if (common := family(one)) and common == family(other):
        return _Step(other, partial(_cast, other))
    raise _Differs


def _dictionary(one: Any, other: Any, path: str, strict: bool) -> _Step:
    if one.ordered != other.ordered:
        raise _Differs
    values = _type(one.value_type, other.value_type, path, strict)
    kind = pa.dictionary(one.index_type, values.kind, one.ordered)

    def convert(array: Any) -> Any:
        dictionary = values.convert(array.dictionary) if values.convert else array.dictionary
        return pa.DictionaryArray.from_arrays(array.indices, dictionary, ordered=one.ordered)

    def check(array: Any, used: Mask | None) -> None:
        assert values.check is not None
        places, chosen = integers(array.indices), both(used, validity(array))
        check_indices(places, chosen, len(array.dictionary))
        named = np.zeros(len(array.dictionary), np.bool_)
        named[places if chosen is None else places[chosen]] = True
        values.check(array.dictionary, named)

    return _Step(kind, convert if values.convert else None, check if values.check else None)


def _nested(one: pa.DataType, other: pa.DataType, path: str, strict: bool) -> _Step:
    fields = children(other)
    names = [f".{field.name}" for field in fields]
    if not isinstance(one, pa.StructType | pa.MapType):
        names = ["[]"]
    steps = [
        _field(found, expected, path + name, strict)
        for found, expected, name in zip(children(one), fields, names, strict=True)
    ]
    if isinstance(one, pa.MapType):  # in which Arrow has no null keys
        steps[0] = steps[0]._replace(check=None)
    made = [field.with_type(step.kind) for field, step in zip(fields, steps, strict=True)]
    kind = with_children(other, made)
    is_kept = not any(step.convert for step in steps) and one.equals(kind, check_metadata=True)
    has_checks = any(step.check for step in steps)
    return _Step(
        kind,
        None if is_kept else partial(_converted, kind, steps),
        partial(_check_inside, steps) if has_checks else None,
    )


def _pandas_hint(one: pa.DataType, other: pa.DataType) -> str:
    is_integer, is_float = pa.types.is_integer, pa.types.is_floating
    if (is_integer(one) and is_float(other)) or (is_float(one) and is_integer(other)):
        return "; pandas makes floats of integers with missing values, unless their dtype is Int64"
    return ""


def _show(field: pa.Field) -> str:
    kind = str(field.type)
    if extension := _named_extension(field):
        kind = f"extension<{extension[0].decode(errors='replace')}>"
    return f"{kind}{'' if field.nullable else ' not null'}"


# --- arrays -------------------------------------------------------------------------------


def _check_nulls(path: str, inner: _Check | None, array: Any, used: Mask | None) -> None:
    nulls = nulls_of(array)
    if nulls is not None and (count := int((nulls if used is None else nulls & used).sum())):
        raise InvalidRow(
            f"column {path} has {count} missing values, and the exchange's is not null: fill them, "
            "or create the exchange with a schema where it is nullable"
        )
    if inner:
        inner(array, used)


def _check_inside(steps: list[_Step], array: Any, used: Mask | None) -> None:
    """Check what an array of a nested type contains where it is in use, and not null itself."""
    for step, (child, inside) in zip(steps, in_use(array, used), strict=True):
        if step.check:
            step.check(child, inside)


def _cast(kind: pa.DataType, array: Any) -> Any:
    try:
        return array.cast(kind)
    except pa.ArrowNotImplementedError:  # of and to views, in early versions that have them
        return pa.array(array.to_pylist(), kind)


def _check_storage(check: _Check, array: Any, used: Mask | None) -> None:
    check(array.storage if isinstance(array, pa.ExtensionArray) else array, used)


def _to_extension(kind: pa.DataType | None, convert: _Convert | None, array: Any) -> Any:
    storage = array.storage if isinstance(array, pa.ExtensionArray) else array
    storage = convert(storage) if convert else storage
    return storage if kind is None else pa.ExtensionArray.from_storage(kind, storage)


def _converted(kind: pa.DataType, steps: list[_Step], array: Any) -> Any:
    def change(index: int, child: Any) -> Any:
        convert = steps[index].convert
        return convert(child) if convert else child

    takes = all(can_take(field.type) for field in children(array.type))
    return rebuild(array, kind, change, takes=takes)
