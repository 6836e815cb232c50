from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import pyarrow as pa
import pytest
from support.committing import exchange

from cosco.client.content.arrow_binding import binding_schema
from cosco.client.content.arrow_schema import schema_from_bytes
from cosco.client.rpc.metadata_client import MetadataClient
from cosco.client.write.row_kind import RowKindBinding
from cosco.errors import InvalidArgument, InvalidRow, SchemaMismatch
from cosco.metadata.state.exchange.exchange_state import ExchangeState
from cosco.protocol.records import ExchangeInfo, RowKind


class Service:
    """The state of the real one, asked without a network; others may be faster."""

    def __init__(self, state: ExchangeState) -> None:
        self.state = state
        self.calls = 0
        self.before: list[Callable[[], object]] = []

    def fix_row_kind(
        self, number: int, kind: RowKind, schema: bytes, *, seen: bytes
    ) -> ExchangeInfo:
        self.calls += 1
        if self.before:
            self.before.pop(0)()
        self.state.fix_row_kind(kind, schema, seen)
        return self.state.info()

    def writer(self, *, may_refine: bool = True) -> RowKindBinding:
        client = cast("MetadataClient", self)
        return RowKindBinding(self.state.info(), client, may_refine=may_refine)

    @property
    def types(self) -> list[pa.DataType]:
        types: list[pa.DataType] = schema_from_bytes(self.state.schema).types
        return types


def part(**columns: Any) -> pa.Table:
    return pa.table({name: [value] for name, value in columns.items()})


@pytest.mark.parametrize("kind", [pa.int64(), pa.fixed_shape_tensor(pa.int8(), [2])], ids=str)
def test_a_schema_that_stays_is_one_object(kind: pa.DataType) -> None:
    """Whoever packs by it looks at no more than that."""
    writer = Service(exchange()).writer()
    rows = pa.table({"a": pa.nulls(1, kind), "b": pa.nulls(1)})
    assert writer.bind_schema(rows) is writer.bind_schema(rows)


def test_the_first_rows_bind_the_exchange() -> None:
    service = Service(exchange())
    assert service.writer().bind_schema(part(a=1)).types == [pa.int64()]
    assert service.types == [pa.int64()]
    assert service.writer().bind_schema(part(a=None)).types == [pa.int64()]
    assert service.calls == 1


def test_a_type_is_given_by_whoever_has_one() -> None:
    service = Service(exchange())
    writer = service.writer()
    assert writer.bind_schema(part(a=None, b=None)).types == [pa.null(), pa.null()]
    assert writer.bind_schema(part(a=None, b="x")).types == [pa.null(), pa.string()]
    assert service.writer().bind_schema(part(a=1, b=None)).types == [pa.int64(), pa.string()]
    assert writer.bind_schema(part(a=2, b=None)).types == [pa.int64(), pa.string()]
    assert service.types == [pa.int64(), pa.string()]


def test_a_slower_writer_adds_to_what_the_faster_one_bound() -> None:
    service = Service(exchange())
    slow, fast = service.writer(), service.writer()
    service.before = [lambda: fast.bind_schema(part(a=None, b="x"))]
    assert slow.bind_schema(part(a=1, b=None)).types == [pa.int64(), pa.string()]
    assert service.types == [pa.int64(), pa.string()]
    assert service.calls == 3


def test_a_slower_writer_may_have_another_type() -> None:
    service = Service(exchange(binding_schema(part(a=None).schema)))
    slow, fast = service.writer(), service.writer()
    service.before = [lambda: fast.bind_schema(part(a="x"))]
    with pytest.raises(SchemaMismatch, match="'a' is int64 instead of string") as raised:
        slow.bind_schema(part(a=1))
    assert raised.value.shuffle_id == "an id"
    assert slow.bind_schema(part(a="y")).types == service.types == [pa.string()]


def test_a_slower_writer_may_have_rows_of_another_kind() -> None:
    service = Service(exchange())
    slow, fast = service.writer(), service.writer()
    service.before = [fast.bind_bytes]
    with pytest.raises(SchemaMismatch, match=r"carries BYTES rows, not ARROW rows: give .* bytes"):
        slow.bind_schema(part(a=1))
    slow.bind_bytes()
    with pytest.raises(SchemaMismatch, match="carries ARROW rows, not BYTES rows"):
        Service(exchange(binding_schema(part(a=1).schema))).writer().bind_bytes()


def test_an_answer_that_was_lost_is_asked_for_again() -> None:
    """The call had been applied when its repetition arrives."""
    service = Service(exchange())
    writer = service.writer()
    writer.bind_schema(part(a=None))
    finer = binding_schema(part(a=1).schema)
    service.before = [
        lambda: service.state.fix_row_kind(RowKind.ARROW, finer, service.state.schema)
    ]
    assert writer.bind_schema(part(a=1)).types == [pa.int64()]


@pytest.mark.parametrize(
    ("rows", "error"),
    [
        (part(a=1, b=None), InvalidRow),  # b is not null
        (part(a=1, c="x"), SchemaMismatch),
        (part(a=1, b=2), SchemaMismatch),
        (pa.table({"a": pa.array([[1]], pa.list_(pa.int8()))}), SchemaMismatch),
        (part(a=1, b="x").replace_schema_metadata({"x": "y" * (9 << 20)}), None),
    ],
)
def test_rows_that_are_refused_bind_nothing(rows: pa.Table, error: type[Exception] | None) -> None:
    declared = pa.schema([pa.field("a", pa.null()), pa.field("b", pa.string(), nullable=False)])
    service = Service(exchange(binding_schema(declared)))
    if error is None:  # not its metadata is kept
        assert service.writer().bind_schema(rows).types == [pa.int64(), pa.string()]
        return
    with pytest.raises(error):
        service.writer().bind_schema(rows)
    assert service.calls == 0


def test_rows_that_are_not_what_they_say_bind_nothing() -> None:
    service = Service(exchange())
    tight = pa.schema([pa.field("a", pa.int64(), nullable=False)])
    with pytest.raises(InvalidRow, match="1 missing values"):
        service.writer().bind_schema(pa.table({"a": [None]}, tight))
    assert service.calls == 0


def test_a_schema_that_is_too_long_binds_nothing() -> None:
    service = Service(exchange())
    rows = part(a=1).replace_schema_metadata({"x": "y" * (9 << 20)})
    with pytest.raises(InvalidArgument, match="of it metadata"):
        service.writer().bind_schema(rows)
    assert service.calls == 0


def test_in_a_group_no_column_is_given_a_type() -> None:
    service = Service(exchange(binding_schema(part(a=None, b=1).schema)))
    writer = service.writer(may_refine=False)
    assert writer.bind_schema(part(a=None, b=None)).types == [pa.null(), pa.int64()]
    with pytest.raises(SchemaMismatch, match="'a' is int64 instead of null"):
        writer.bind_schema(part(a=1, b=1))
    assert service.calls == 0
