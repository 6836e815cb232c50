"""Records with fields of the same names as their messages."""

from __future__ import annotations

from dataclasses import dataclass, fields

import pytest

from cosco.protocol import wire
from cosco.protocol.records import (
    DaemonHeartbeat,
    DaemonOrders,
    DaemonRegistration,
    ExchangeSpec,
    ExchangeStatus,
)
from cosco.protocol.wire import mpb
from cosco.protocol.wire.plain import Plain

RECORDS = [
    (
        DaemonRegistration(7, "a:1", "host", "store", 100, 50, "a:2", (3, 4), True),
        wire.registration_to_pb,
        wire.registration_from_pb,
    ),
    (
        DaemonHeartbeat(7, 50, (1, 2), True, True, (3,), 9),
        wire.heartbeat_to_pb,
        wire.heartbeat_from_pb,
    ),
    (DaemonOrders(True, "cluster", 1.5, (8,), True, True), wire.orders_to_pb, wire.orders_from_pb),
    (
        ExchangeSpec("name", 16, 1, 3, "none", False, 2.5, b"schema"),
        wire.spec_to_pb,
        wire.spec_from_pb,
    ),
    (
        ExchangeStatus("name", 5, 16, 3, 1000, True),
        wire.exchange_status_to_pb,
        wire.exchange_status_from_pb,
    ),
]


@pytest.mark.parametrize(
    ("record", "to_pb", "from_pb"), RECORDS, ids=[type(row[0]).__name__ for row in RECORDS]
)
def test_every_field_crosses_the_wire(record, to_pb, from_pb) -> None:
    defaults = {f.name: f.default for f in fields(record)}
    assert all(getattr(record, name) != default for name, default in defaults.items())
    message = type(to_pb(record)).FromString(to_pb(record).SerializeToString())
    again = from_pb(message)
    assert again == record
    assert {name: type(getattr(again, name)) for name in defaults} == {
        name: type(getattr(record, name)) for name in defaults
    }


@dataclass(frozen=True, slots=True)
class Shorter:
    index: int
    first: int


@dataclass(frozen=True, slots=True)
class Longer(Shorter):
    count: int = 0
    more: int = 0


@pytest.mark.parametrize("record", [Shorter, Longer])
def test_a_field_that_one_side_lacks_is_an_error_at_once(record) -> None:
    with pytest.raises(TypeError, match="differ in their fields"):
        Plain(record, mpb.PartitionRange)
