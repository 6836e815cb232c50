"""Handles of exchanges: what tasks in this process and in others do with them."""

from __future__ import annotations

import gc
import pickle
import re
import threading
import time
from typing import Any

import pyarrow as pa
import pytest
from support.exchanges import until
from support.processes import python

from cosco import (
    ClientClosed,
    CommitTimeout,
    CoscoExchange,
    CoscoExchangeGroup,
    CoscoReader,
    CoscoWriter,
    ExchangeClosed,
    ExchangeHandle,
    InvalidArgument,
    LocalCluster,
    PartitionOutOfRange,
)
from cosco.client.rpc.known_services import SERVICES
from cosco.client.rpc.transport import Endpoint
from cosco.protocol.capability import MAX_LIVES_S

WAIT_S = 20.0
WIDE = pa.schema([(f"a rather long name of a column {i}", pa.int64()) for i in range(3000)])


def shipped(handle: ExchangeHandle) -> ExchangeHandle:
    made: ExchangeHandle = pickle.loads(pickle.dumps(handle))
    return made


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The methods of services that this process has called."""
    made: list[str] = []
    unary = Endpoint.unary

    def counting(self: Endpoint, method: str, *rest: object) -> bytes:
        made.append(method.rpartition("/")[2])
        return unary(self, method, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(Endpoint, "unary", counting)
    return made


def test_rows_go_and_come_by_a_handle(name: str, metadata: str) -> None:
    with CoscoExchange(name, 3, mappers=2, metadata=metadata) as exchange:
        assert exchange.mappers == 2
        handle = shipped(exchange.handle())
        for mapper in range(2):
            with handle.writer(mapper, buffer_bytes=1 << 20) as writer:
                writer.collect(1, b"%d" % mapper)
        with handle.reader(1, timeout_s=WAIT_S) as reader:
            assert sorted(reader) == [b"0", b"1"]
        with handle.reader(1, [1]) as reader:
            assert list(reader) == [b"1"]
        with handle.reader(2) as reader:
            assert list(reader) == []


def test_a_reader_of_all_mappers_waits_for_the_last(name: str, metadata: str) -> None:
    with CoscoExchange(name, 1, mappers=2, metadata=metadata) as exchange:
        handle = exchange.handle()
        handle.writer(0).close()
        with handle.reader(0, timeout_s=0.0) as reader:
            with pytest.raises(CommitTimeout, match="1 of 2"):
                next(reader)
        with handle.writer(None) as writer:
            assert writer.mapper == 1
        with handle.reader(0, timeout_s=0.0) as reader:
            assert list(reader) == []


def test_who_attaches_has_the_same_handle(name: str, metadata: str) -> None:
    schema = pa.schema({"key": pa.int64()})
    with CoscoExchange(name, 2, mappers=5, schema=schema, metadata=metadata) as exchange:
        with CoscoExchange.attach(name, metadata=metadata) as other:
            assert other.mappers == 5
            assert other.handle() == exchange.handle()
            assert other.handle().schema == schema
        with CoscoExchange(f"{name}-b", 2, metadata=metadata) as another:
            assert another.mappers is None
            assert another.handle() != exchange.handle()
    with pytest.raises(ClientClosed):
        exchange.handle()


@pytest.mark.parametrize("mappers", [0, -1, (1 << 31) + 1, 2.0, "2", True])
def test_a_number_of_mappers_that_cannot_be(name: str, metadata: str, mappers: object) -> None:
    with pytest.raises(InvalidArgument, match="mappers") as caught:
        CoscoExchange(name, 1, mappers=mappers, metadata=metadata)  # type: ignore[arg-type]
    assert caught.value.shuffle_id == name


def test_mappers_that_the_exchange_has_not_are_refused(name: str, metadata: str) -> None:
    with CoscoExchange(name, 1, mappers=2, metadata=metadata) as exchange:
        handle = exchange.handle()
        for write in (handle.writer, lambda mapper: CoscoWriter(name, mapper, metadata=metadata)):
            with pytest.raises(InvalidArgument, match="mapper is 2, it must be 0 to 1"):
                write(2)
        for read in (handle.reader, lambda p, of: CoscoReader(name, of, p, metadata=metadata)):
            with pytest.raises(InvalidArgument, match="mapper 2 is named"):
                read(0, [1, 2])
        with pytest.raises(PartitionOutOfRange):
            handle.reader(1)


def test_a_wide_schema_is_asked_for(name: str, metadata: str, calls: list[str]) -> None:
    with CoscoExchange(name, 1, mappers=1, schema=WIDE, metadata=metadata) as exchange:
        data = pickle.dumps(exchange.handle())
        assert len(data) <= 4096
        handle = pickle.loads(data)
        calls.clear()
        assert handle.schema == WIDE
        assert calls == ["DescribeExchange"]
        with handle.writer(0) as writer:
            writer.collect_batch([0], pa.RecordBatch.from_pylist([{}], WIDE))
        with handle.reader(0) as reader:
            assert reader.read_table().schema == WIDE
    with pytest.raises(ExchangeClosed):
        _ = handle.schema


def test_a_schema_that_the_first_rows_decide_is_asked_for(
    name: str, metadata: str, calls: list[str]
) -> None:
    untyped = pa.schema({"key": pa.int64(), "note": pa.null()})
    typed = pa.schema({"key": pa.int64(), "note": pa.string()})
    for number, schema in enumerate((None, untyped)):
        one = f"{name}-{number}"
        with CoscoExchange(one, 1, mappers=1, schema=schema, metadata=metadata) as exchange:
            handle = shipped(exchange.handle())
            assert handle.schema == schema
            with handle.writer(0) as writer:
                writer.collect_batch(0, pa.RecordBatch.from_pylist([{"note": "text"}], typed))
            assert handle.schema == exchange.handle().schema == typed
            with CoscoExchange.attach(one, metadata=metadata) as other:
                known = other.handle()
                calls.clear()
                assert known.schema == typed
                assert not calls


def test_a_handle_costs_no_more_calls_than_a_name(
    name: str, metadata: str, calls: list[str]
) -> None:
    with CoscoExchange(name, 1, mappers=2, metadata=metadata) as exchange:
        calls.clear()
        handle = exchange.handle()
        shipped(handle)
        assert not calls

        def made(use: object) -> list[str]:
            assert use
            found = [call for call in calls if call != "PollDriver"]
            calls.clear()
            return found

        handle.writer(0).close()
        by_handle = made(handle)
        CoscoWriter(name, 1, metadata=metadata).close()
        assert made(handle) == by_handle == ["OpenAttempt", "Commit"]
        handle.reader(0).close()
        by_handle = made(handle)
        CoscoReader(name, range(2), 0, metadata=metadata).close()
        assert made(handle) == by_handle


def test_another_process_works_by_a_handle(name: str, metadata: str) -> None:
    code = """
        import pickle, sys
        handle = pickle.loads(bytes.fromhex(sys.argv[1]))
        with handle.writer(0) as writer:
            writer.collect(0, b"from there")
        with handle.reader(0) as reader:
            print(list(reader), handle.mappers, flush=True)
        sys.stdin.readline()
    """
    with CoscoExchange(name, 1, mappers=1, metadata=metadata) as exchange:
        with python(code, pickle.dumps(exchange.handle()).hex()):
            pass
        with exchange.handle().reader(0) as reader:
            assert list(reader) == [b"from there"]


def test_a_handle_that_arrives_while_the_service_is_away_waits_for_it(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its name the first contact would fail sooner."""
    monkeypatch.setattr("cosco.client.rpc.metadata_client.FIRST_CONTACT_S", 0.2)
    with LocalCluster(1, memory="16MiB") as cluster:
        exchange = CoscoExchange(name, 1, mappers=1, replicas=1, metadata=cluster.metadata)
        handle = exchange.handle()
        cluster.metadata_service.kill()
        SERVICES._met.clear()  # as in a process that never met it
        back = threading.Timer(1.0, cluster.metadata_service.restart)
        back.start()
        with shipped(handle).writer(0) as writer:
            writer.collect(0, b"row")
        back.join()
        with handle.reader(0) as reader:
            assert list(reader) == [b"row"]
        exchange.close()


@pytest.mark.filterwarnings("ignore:unclosed <CoscoExchange:ResourceWarning")
def test_a_dropped_exchange_lives_while_a_handle_of_it_does(
    name: str, metadata: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cosco.client.driver.driver.LET_GO_S", 0.2)

    def is_closed() -> bool:
        try:
            CoscoExchange.attach(name, metadata=metadata)
        except ExchangeClosed:
            return True
        return False

    handle = CoscoExchange(name, 1, mappers=1, lease_s=2.0, metadata=metadata).handle()
    gc.collect()
    time.sleep(2.5)
    handle = shipped(handle)
    gc.collect()
    time.sleep(2.5)
    assert not is_closed()
    with handle.writer(0) as writer:
        writer.collect(0, b"row")
    del handle
    gc.collect()
    until(is_closed, WAIT_S, "the end of what nobody uses")


def test_a_group_has_handles_of_its_own(name: str, metadata: str) -> None:
    """Its exchanges can be attached to, and then have one as any other."""
    with CoscoExchangeGroup(name, 1, 1, 2, metadata=metadata) as group:
        assert group.handle().mappers == 2
        with CoscoExchange.attach(f"{name}/0", metadata=metadata) as exchange:
            with group.handle().writer(0, 0) as writer:
                writer.collect(0, b"row")
            with exchange.handle().reader(0, [0], timeout_s=WAIT_S) as reader:
                assert list(reader) == [b"row"]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"may": "own"}, "may is 'own', it must be 'read', 'write', or None"),
        ({"may": ["read"]}, "may is"),
        ({"lives_s": 0}, "lives_s is 0, it must be"),
        ({"lives_s": -1.0}, "lives_s is -1.0"),
        ({"lives_s": float("nan")}, "lives_s is nan"),
        ({"lives_s": float("inf")}, "lives_s is inf"),
        ({"lives_s": MAX_LIVES_S + 1}, "as long as its exchange"),
        ({"lives_s": "60"}, "lives_s is '60'"),
        ({"lives_s": True}, "lives_s is True"),
    ],
)
def test_what_a_handle_cannot_be_limited_to(
    metadata: str, name: str, options: dict[str, Any], says: str
) -> None:
    with (
        CoscoExchange(name, 1, metadata=metadata) as exchange,
        CoscoExchangeGroup(f"{name} group", 1, 1, 1, metadata=metadata) as group,
    ):
        for make in (exchange.handle, group.handle):
            with pytest.raises(InvalidArgument, match=re.escape(says)):
                make(**options)


def test_nobody_is_refused_where_there_are_no_tokens(metadata: str, name: str) -> None:
    with (
        CoscoExchange(name, 4, mappers=1, metadata=metadata) as exchange,
        CoscoExchangeGroup(f"{name} group", 4, 1, 1, metadata=metadata) as group,
    ):
        handle = shipped(exchange.handle(may="read", lives_s=1))
        of_group = group.handle(may="read", lives_s=1)
        assert (handle.metadata.capability, of_group.info(0).capability) == ("", "")
        for writer in (handle.writer(0), of_group.writer(0, 0)):
            with writer:
                writer.collect(1, b"a row")
        for reader in (exchange.handle(may="write").reader(1), group.handle().reader(0, 1)):
            with reader:
                assert list(reader) == [b"a row"]
