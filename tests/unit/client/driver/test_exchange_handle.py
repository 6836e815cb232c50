"""What a handle says of its exchange without asking anybody."""

from __future__ import annotations

import copy
import dataclasses
import gc
import pickle

import pyarrow as pa
import pytest

import cosco
from cosco.client.content.arrow_binding import binding_schema
from cosco.client.driver.exchange_handle import ExchangeHandle, make_handle
from cosco.client.rpc.in_use import IN_USE
from cosco.client.rpc.known_services import SERVICES
from cosco.errors import AccessDenied, InvalidArgument, ServiceUnavailable
from cosco.protocol.api_limits import MAX_SHUFFLE_ID_BYTES
from cosco.protocol.capability import MAX_CHARACTERS, CapabilityKey, Permit, Rights, made
from cosco.protocol.records import ExchangeInfo, ExchangeSpec, RowKind

NOWHERE = "127.0.0.1:1"
BOTH = Rights.READ | Rights.WRITE
#: What a handle may take when it is shipped, whatever it is of.
MAX_PICKLED_BYTES = 4096


def info(
    name: str = "orders",
    number: int = 7,
    mappers: int = 3,
    schema: pa.Schema | None = None,
    capability: str = "",
) -> ExchangeInfo:
    message = b"" if schema is None else binding_schema(schema)
    spec = ExchangeSpec(shuffle_id=name, partitions=64, mappers=mappers, schema=message)
    kind = RowKind.BYTES if schema is None else RowKind.ARROW
    return ExchangeInfo(number, spec, 1, kind, message, (), (), capability=capability)


def handle(address: str = NOWHERE, service_timeout_s: float = 1.0, **of: object) -> ExchangeHandle:
    return make_handle(address, info(**of), service_timeout_s)  # type: ignore[arg-type]


def test_it_says_what_it_is_of() -> None:
    one = handle(schema=pa.schema({"key": pa.int64()}))
    assert (one.metadata, one.shuffle_id, one.partitions, one.mappers) == (
        NOWHERE, "orders", 64, 3,
    )  # fmt: skip
    assert one.schema == pa.schema({"key": pa.int64()})
    assert handle().schema is None
    assert handle(mappers=0).mappers is None
    assert cosco.ExchangeHandle is ExchangeHandle


def test_it_is_frozen() -> None:
    for name in ("shuffle_id", "mappers", "another"):
        with pytest.raises((dataclasses.FrozenInstanceError, TypeError)):
            setattr(handle(), name, 1)


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_it_pickles_and_copies(protocol: int) -> None:
    one = handle(schema=pa.schema({"key": pa.int64()}))
    for other in (pickle.loads(pickle.dumps(one, protocol)), copy.copy(one), copy.deepcopy(one)):
        assert other is not one
        assert other == one
        assert hash(other) == hash(one)
        assert (other.partitions, other.mappers, other.schema) == (64, 3, one.schema)


@pytest.mark.parametrize("columns", [0, 1, 20, 5000])
def test_it_is_small_whatever_it_is_of(columns: int) -> None:
    wide = pa.schema(
        [(f"a column with a name that is long {i}", pa.int64()) for i in range(columns)]
    )
    one = handle("h" * 253 + ":65535", 1e9 / 3, name="é" * (MAX_SHUFFLE_ID_BYTES // 2),
                 number=2**63 - 1, mappers=2**31 - 1, schema=wide,
                 capability="c" * MAX_CHARACTERS)  # fmt: skip
    # Half of it is for what later versions carry.
    assert len(pickle.dumps(one)) <= MAX_PICKLED_BYTES * 3 // 4


def test_it_is_equal_by_exchange() -> None:
    one = handle()
    refined = handle(
        service_timeout_s=9.0, schema=pa.schema({"key": pa.int64()}), capability="cosco1.x"
    )
    assert one == refined
    assert one == make_handle(cosco.Connection(NOWHERE, ca="/ca"), info(), 1.0)
    assert hash(one) == hash(refined)
    assert len({one, refined}) == 1
    for other in (handle(number=8), handle(name="other"), handle("127.0.0.1:2")):
        assert other != one
    assert one != "orders"


def test_its_repr_is_short_and_names_the_exchange() -> None:
    assert repr(handle()) == f"<ExchangeHandle of 'orders', 64 partitions, 3 mappers, at {NOWHERE}>"
    wide = pa.schema([(f"column {i}", pa.int64()) for i in range(500)])
    assert len(repr(handle(name="x" * 1000, mappers=0, schema=wide))) < 200


@pytest.mark.parametrize("mapper", [-1, 3, "0", 0.0, True])
def test_a_mapper_outside_is_refused_at_once(mapper: object) -> None:
    with pytest.raises(InvalidArgument, match="mapper") as caught:
        handle().writer(mapper)  # type: ignore[arg-type]
    assert caught.value.shuffle_id == "orders"


def test_who_reads_without_mappers_is_told_that_nobody_has_said_them() -> None:
    with pytest.raises(InvalidArgument, match="created without mappers=") as caught:
        handle(mappers=0).reader(0)
    assert caught.value.shuffle_id == "orders"


@pytest.mark.parametrize("mappers", [[3], range(4), (0, 7), iter([5])])
def test_whoever_names_mappers_that_there_are_not_would_wait_for_ever(mappers: object) -> None:
    with pytest.raises(InvalidArgument, match="'orders' has mappers 0 to 2") as caught:
        handle().reader(0, mappers)  # type: ignore[arg-type]
    assert caught.value.shuffle_id == "orders"


def test_an_unknown_option_is_refused() -> None:
    for make in (handle().writer, handle().reader):
        with pytest.raises(TypeError, match="nonsense"):
            make(0, nonsense=1)


def test_the_service_of_a_handle_is_waited_for_as_one_that_was_met() -> None:
    """The first contact with an address fails after 3 s; that of a handle is right."""
    one = pickle.loads(pickle.dumps(handle("127.0.0.1:2", service_timeout_s=0.0)))
    assert not SERVICES.has_met("127.0.0.1:2")
    with pytest.raises(ServiceUnavailable, match="it stopped answering"):
        one.writer(0)
    assert SERVICES.has_met("127.0.0.1:2")


@pytest.mark.parametrize("use", ["reader", "schema"])
def test_other_uses_vouch_for_the_service_as_well(use: str) -> None:
    address = {"reader": "127.0.0.1:3", "schema": "127.0.0.1:4"}[use]
    wide = pa.schema([(f"column {i}", pa.int64()) for i in range(500)])
    one = handle(address, service_timeout_s=0.0, schema=wide)
    with pytest.raises(ServiceUnavailable, match="it stopped answering"):
        one.reader(0) if use == "reader" else one.schema


def test_the_service_that_this_process_has_ended_is_not_waited_for() -> None:
    address = "127.0.0.1:5"
    SERVICES.end(address)
    with pytest.raises(ServiceUnavailable, match="is gone"):
        handle(address, service_timeout_s=60.0).writer(0)


def test_its_exchange_is_used_while_there_is_one() -> None:
    name = "used by handles"
    one = handle(name=name)
    there = pickle.loads(pickle.dumps(one))
    del one
    gc.collect()
    assert IN_USE.is_used(name)
    del there
    gc.collect()
    assert not IN_USE.is_used(name)


@pytest.mark.parametrize(
    ("rights", "refused"), [(Rights.READ, "write"), (Rights.WRITE, "read"), (BOTH, None)]
)
def test_what_it_does_not_allow_is_told_before_anybody_is_asked(
    rights: Rights, refused: str | None
) -> None:
    capability = made(CapabilityKey(1, b"k" * 32), Permit(7, 1, rights))
    one = pickle.loads(pickle.dumps(handle(capability=capability, service_timeout_s=0.0)))
    makers = {"write": one.writer, "read": one.reader}
    for may, make in makers.items():
        with pytest.raises(AccessDenied if may == refused else ServiceUnavailable) as caught:
            make(0)
        assert caught.value.shuffle_id == "orders"
        assert capability not in str(caught.value)
        with pytest.raises(ServiceUnavailable):  # as whom another connection says
            make(0, metadata=NOWHERE)
