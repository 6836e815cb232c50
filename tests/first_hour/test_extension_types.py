"""Columns of extension types: Arrow's own, and those that people make."""

from __future__ import annotations

import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from support.arrow_parts import read, shuffled, write
from support.arrow_types import needs_canonical

from cosco import CoscoExchange, CoscoWriter, SchemaMismatch

NAME = "cosco.first_hour.rational"


class RationalType(pa.ExtensionType):  # noqa: PLW1641 (it has no hash: that is what is tried)
    """As in the documentation of Arrow, with a parameter."""

    def __init__(self, data_type: pa.DataType, unit: str = "") -> None:
        self.unit = unit
        fields = [("numer", data_type), ("denom", data_type)]
        super().__init__(pa.struct(fields), NAME)

    def __arrow_ext_serialize__(self) -> bytes:
        return self.unit.encode()

    @classmethod
    def __arrow_ext_deserialize__(cls, storage_type: Any, serialized: bytes) -> RationalType:
        return cls(storage_type.field(0).type, serialized.decode())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RationalType) and self.storage_type == other.storage_type


@pytest.fixture
def registered() -> Iterator[None]:
    pa.register_extension_type(RationalType(pa.int8()))
    yield
    pa.unregister_extension_type(NAME)


def rationals(kind: RationalType, values: list[Any]) -> pa.Array:
    return pa.ExtensionArray.from_storage(kind, pa.array(values, kind.storage_type))


KIND = RationalType(pa.int32(), "m")
VALUES = [{"numer": 1, "denom": 2}, None, {"numer": None, "denom": 4}]
PART = pa.table({"a": rationals(KIND, VALUES)})
#: What a process that has not registered the type has.
STORAGE = pa.table({"a": pa.array(VALUES, KIND.storage_type)})


def rows(table: pa.Table) -> list[str]:
    return sorted(map(repr, table.to_pylist()))


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize("declared", [None, PART.schema])
def test_a_type_that_cannot_be_hashed(name: str, metadata: str, declared: Any) -> None:
    table = shuffled(name, metadata, PART, PART, schema=declared)
    [found] = table.schema.types
    assert isinstance(found, RationalType)
    assert (found.unit, found.storage_type) == ("m", KIND.storage_type)
    assert rows(table) == sorted(rows(PART) * 2)


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize("place", ["list", "struct", "dictionary of lists", "map", "fixed list"])
def test_a_type_inside_of_another(name: str, metadata: str, place: str) -> None:
    inner = rationals(KIND, VALUES)
    ends = pa.array([0, 2, 3], pa.int32())
    lists = pa.ListArray.from_arrays(ends, inner)
    array = {
        "list": lists,
        "struct": pa.StructArray.from_arrays([inner], fields=[pa.field("x", KIND)]),
        "dictionary of lists": pa.DictionaryArray.from_arrays(pa.array([1, 0, None]), lists),
        "map": pa.MapArray.from_arrays(ends, pa.array(["x", "y", "z"]), inner),
        "fixed list": pa.FixedSizeListArray.from_arrays(inner, 3),
    }[place]
    part = pa.table({"a": array})
    table = shuffled(name, metadata, part, part)
    assert rows(table) == sorted(rows(part) * 2)
    assert "RationalType" in str(table.schema)


@pytest.mark.usefixtures("registered")
def test_a_type_of_other_parameters(name: str, metadata: str) -> None:
    with CoscoExchange(name, 1, metadata=metadata):
        write(name, metadata, 0, PART)
        with CoscoWriter(name, 1, metadata=metadata) as writer:
            other = pa.table({"a": rationals(RationalType(pa.int32(), "cm"), VALUES)})
            with pytest.raises(SchemaMismatch, match="of other parameters instead of extension"):
                writer.collect_batch([0] * 3, other)
            with pytest.raises(SchemaMismatch, match=r"'a' is struct.* instead of extension"):
                writer.collect_batch([0] * 3, STORAGE)
            writer.collect_batch([0] * 3, PART)
        assert rows(read(name, metadata, 2)) == sorted(rows(PART) * 2)


@pytest.mark.usefixtures("registered")
def test_a_dictionary_of_an_extension_type(name: str, metadata: str) -> None:
    array = pa.DictionaryArray.from_arrays(pa.array([0, 1]), rationals(KIND, VALUES))
    with pytest.raises(SchemaMismatch, match=r"cannot be shuffled.*: send the values"):
        shuffled(name, metadata, pa.table({"a": array}))


def test_nobody_has_registered_the_type(name: str, metadata: str) -> None:
    """Its storage comes back, and what it is of with it."""
    table = shuffled(name, metadata, PART, STORAGE, schema=PART.schema)
    assert table.schema.types == [KIND.storage_type]
    assert rows(table) == sorted(rows(STORAGE) * 2)
    field = table.schema.field("a")
    assert field.metadata[b"ARROW:extension:name"] == NAME.encode()
    assert field.metadata[b"ARROW:extension:metadata"] == b"m"


IN_ANOTHER_PROCESS = """
import sys
import pyarrow as pa
from cosco import CoscoReader, CoscoWriter
name, metadata = sys.argv[1:]
with CoscoReader(name, [0], 0, metadata=metadata) as reader:
    table = reader.read_table()
assert table.schema.types == [pa.struct([("numer", pa.int32()), ("denom", pa.int32())])], table
with CoscoWriter(name, 1, metadata=metadata) as writer:
    writer.collect_batch([0] * table.num_rows, table)
with CoscoWriter(name, 2, metadata=metadata) as writer:
    writer.collect_batch([0] * table.num_rows, pa.table({"a": table["a"]}))
"""


@pytest.mark.usefixtures("registered")
def test_a_mapper_and_a_reader_have_not_registered_the_type(name: str, metadata: str) -> None:
    with CoscoExchange(name, 1, metadata=metadata):
        write(name, metadata, 0, PART)
        subprocess.run(
            [sys.executable, "-W", "error", "-c", IN_ANOTHER_PROCESS, name, metadata],
            check=True,
            timeout=60,
            cwd=Path(__file__).parents[2],
        )
        table = read(name, metadata, 3)
        assert isinstance(table.schema.field("a").type, RationalType)
        assert rows(table) == sorted(rows(PART) * 3)


TENSORS = pa.FixedShapeTensorArray.from_numpy_ndarray(np.arange(12.0).reshape(3, 2, 2))


ARROWS: dict[str, Callable[[], pa.Array]] = {
    "uuid": lambda: pa.array([uuid.UUID(int=3).bytes, None], pa.uuid()),
    "json": lambda: pa.array(["{}", None], pa.json_()),
    "bool8": lambda: pa.array([1, None, 0], pa.int8()).cast(pa.bool8()),
    "opaque": lambda: pa.ExtensionArray.from_storage(
        pa.opaque(pa.int8(), "a", "b"), pa.array([1], pa.int8())
    ),
    "tensor": lambda: TENSORS,
}


@needs_canonical
@pytest.mark.parametrize("kind", ARROWS)
def test_types_of_arrows_own(name: str, metadata: str, kind: str) -> None:
    part = pa.table({"a": ARROWS[kind]()})
    missing = pa.table({"a": pa.nulls(2)})
    table = shuffled(name, metadata, missing, part)
    assert table.schema == part.schema
    assert rows(table) == sorted(rows(part) + rows(missing))


@needs_canonical
def test_texts_of_json_are_of_two_kinds(name: str, metadata: str) -> None:
    parts = [
        pa.table({"a": pa.array(["{}"], pa.json_(kind))})
        for kind in (pa.large_string(), pa.string())
    ]
    table = shuffled(name, metadata, *parts)
    assert table.schema == parts[0].schema
    assert table["a"].to_pylist() == ["{}", "{}"]
