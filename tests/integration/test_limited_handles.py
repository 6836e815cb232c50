"""Handles that let tasks do one thing alone, or for a while: that they do it, and no more."""

from __future__ import annotations

import pickle
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pyarrow as pa
import pytest
from pyroaring import BitMap
from support.exchanges import until
from support.raw_push import RawPush, channel_to, make_block, make_frame
from support.tenant_cluster import Tenants, make_certificates, running

from cosco import (
    Connection,
    CoscoExchange,
    CoscoExchangeGroup,
    CoscoReader,
    CoscoWriter,
)
from cosco.admin import close_exchange
from cosco.client.groups.handle import GroupHandle
from cosco.errors import AccessDenied, CoscoError, ExchangeClosed
from cosco.protocol import wire
from cosco.protocol.capability import MAX_LIVES_S, Rights, said_by
from cosco.protocol.fetch_records import FetchPart, FetchRequest
from cosco.protocol.group_records import CommitResult
from cosco.protocol.push.messages import Hello, PushRequest, RefusalCode
from cosco.protocol.records import ExchangeInfo
from cosco.protocol.wire import mpb

BOUND_S = 30.0
ROWS = pa.table({"key": list(range(100)), "text": [f"row {i}" for i in range(100)]})


@pytest.fixture(scope="module")
def tenants(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tenants]:
    with pytest.MonkeyPatch.context() as environment:
        certs = make_certificates(tmp_path_factory.mktemp("rights") / "certs", environment)
        with running(certs) as started:
            yield started


def shipped(handle: Any) -> Any:
    """What a task has of it."""
    return pickle.loads(pickle.dumps(handle))


def write(handle: Any, mappers: int, rows: int = 400) -> None:
    for mapper in range(mappers):
        with handle.writer(mapper) as writer:
            for row in range(rows):
                writer.collect(row % 4, b"%d %d" % (mapper, row))


def written(mappers: int, rows: int = 400) -> Counter[bytes]:
    return Counter(b"%d %d" % (mapper, row) for mapper in range(mappers) for row in range(rows))


def fetch(info: ExchangeInfo, capability: str) -> None:
    """Ask a daemon for rows; raises what it means."""
    one = info.assignments[0]
    part = FetchPart(one.range_index, one.epoch, BitMap([0]))
    request = FetchRequest(info.number, (part,), capability=capability)
    with channel_to(one.primary.address) as channel:
        stream = channel.unary_stream(f"/{wire.SHUFFLE_SERVICE}/Fetch")
        try:
            list(stream(wire.fetch_request_to_bytes(request), timeout=10))
        except grpc.RpcError as error:
            failed: Any = error
            trailers = dict(failed.trailing_metadata())
            raise wire.error_from_bytes(trailers[wire.ERROR_KEY]) from None


def push_is_refused(info: ExchangeInfo, capability: str) -> bool:
    """Whether a daemon refuses who shows this, and ends his stream."""
    primary = info.assignments[0].primary
    push = RawPush(primary.address)
    hello = Hello(info.number, 99, 1, primary.incarnation, capability=capability)
    frame = make_frame(info, make_block(info, mapper=99))
    push.say(PushRequest(hello=hello, eager=True, frame=frame))
    reply = wire.push_reply_from_bytes(push.reply().SerializeToString())
    assert not (reply.acknowledged or reply.granted)
    with pytest.raises(StopIteration):
        push.reply()
    push.close()
    return [one.code for one in reply.refused] == [RefusalCode.ACCESS_DENIED]


def denied(attempt: Callable[[], object], says: str | None = None) -> None:
    with pytest.raises(AccessDenied, match=says):
        attempt()


# --- whole exchanges ------------------------------------------------------------------------


def test_an_exchange_by_handles_of_one_right_each(tenants: Tenants, name: str) -> None:
    with CoscoExchange(name, 4, mappers=3, metadata=tenants.ours) as exchange:
        writing, reading = (shipped(exchange.handle(may=may)) for may in ("write", "read"))
        assert writing == reading == exchange.handle()
        waiting = reading.reader(0, timeout_s=BOUND_S)  # before anybody has written
        write(writing, 3)
        with writing.writer(1) as writer:  # a re-run, which loses
            writer.collect(0, b"1 0")
        rows = Counter[bytes]()
        with waiting:
            rows.update(waiting)
        with reading.reader([1, 2], timeout_s=BOUND_S) as reader:
            rows.update(reader)
        with reading.reader(3, timeout_s=BOUND_S) as reader:
            rows.update(reader)
        assert rows == written(3)


def test_rows_of_arrow_whose_kind_a_writer_decides(tenants: Tenants, name: str) -> None:
    with CoscoExchange(name, 2, mappers=2, metadata=tenants.ours) as exchange:
        writing, reading = (shipped(exchange.handle(may=may)) for may in ("write", "read"))
        for mapper in range(2):
            with writing.writer(mapper) as writer:
                writer.collect_batch([i % 2 for i in range(100)], ROWS)
        assert writing.schema == reading.schema == ROWS.schema
        with reading.reader([0, 1], timeout_s=BOUND_S) as reader:
            table = reader.read_table()
        assert Counter(table["key"].to_pylist()) == Counter([*range(100), *range(100)])


def test_a_group_by_handles_of_one_right_each(tenants: Tenants, name: str) -> None:
    with CoscoExchangeGroup(name, 4, 2, 2, metadata=tenants.ours) as group:
        group.extend(2)
        both = group.handle()
        writing, reading = group.handle(may="write"), group.handle(may="read")
        for writer_of, reader_of in ((writing, reading), (shipped(writing), shipped(reading))):
            for i in (0, 3) if writer_of is writing else (1, 2):
                assert len(writer_of.info(i).assignments) == len(both.info(i).assignments)
                early = reader_of.reader(i, 0, timeout_s=BOUND_S)
                write(_Member(writer_of, i), 2)
                rows = Counter[bytes]()
                with early:
                    rows.update(early)
                for partition in (1, 2, 3):
                    with reader_of.reader(i, partition, timeout_s=BOUND_S) as reader:
                        rows.update(reader)
                assert rows == written(2)
            writer_of.flush()
        with CoscoReader(  # by commits, which are all there
            f"{name}/3", range(2), 1, timeout_s=BOUND_S, metadata=_of(reading, 3)
        ) as reader:
            assert len(list(reader)) == 200


class _Member:
    """One exchange of a group, as `write` takes it."""

    def __init__(self, handle: GroupHandle, i: int) -> None:
        self._handle, self._i = handle, i

    def writer(self, mapper: int) -> CoscoWriter:
        return self._handle.writer(self._i, mapper)


def _of(handle: GroupHandle, i: int) -> Connection:
    """As whom a task calls that has the handle of a group."""
    return handle.metadata.with_capability(handle.info(i).capability)


def test_rows_are_written_anew_by_who_may_only_write(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A daemon dies: its reader reports the loss, writers are called back, and one that is at work
    asks who takes over."""
    certs = make_certificates(tmp_path / "certs", monkeypatch)
    options = ("--daemon-lease-s", "2")
    with running(certs, *options, daemon_options=("--store", "memory://")) as tenants:
        called: list[list[int]] = []

        def recompute(mappers: list[int], _reason: str) -> None:
            called.append(mappers)
            for mapper in mappers:
                _write_one(writing, mapper)

        with CoscoExchange(
            "a", 4, recompute, mappers=3, replicas=1, metadata=tenants.ours
        ) as exchange:
            writing, reading = (shipped(exchange.handle(may=may)) for may in ("write", "read"))
            for mapper in range(2):
                _write_one(writing, mapper)
            at_work = writing.writer(2)
            for row in range(400):
                at_work.collect(row % 4, b"2 %d" % row)
            victim = tenants.info(tenants.ours, "a").assignments[0].primary.address
            next(one for one in tenants.cluster.daemons if one.address == victim).kill()
            at_work.close()
            with reading.reader(range(4), timeout_s=BOUND_S) as reader:
                assert Counter(reader) == written(3)
            assert called


def _write_one(handle: Any, mapper: int) -> None:
    with handle.writer(mapper) as writer:
        for row in range(400):
            writer.collect(row % 4, b"%d %d" % (mapper, row))


# --- what each is not good for ----------------------------------------------------------------


def test_who_may_read_does_nothing_else(tenants: Tenants, name: str) -> None:
    with CoscoExchange(name, 4, mappers=2, metadata=tenants.ours) as exchange:
        handle = shipped(exchange.handle(may="read"))
        me, number = handle.metadata, handle.number
        commit = mpb.CommitRequest(number=number, mapper=0, attempt=1, generation=1)
        denied(lambda: handle.writer(0), "does not let you write")
        denied(lambda: CoscoWriter(name, 0, metadata=me), "does not allow OpenAttempt")
        denied(lambda: CoscoExchange.attach(name, own=True, metadata=me))
        denied(lambda: close_exchange(me, name))
        denied(CoscoExchange.attach(name, metadata=me).close)
        for method, request in (
            ("FixRowKind", mpb.FixRowKindRequest(number=number, kind=mpb.ROW_KIND_BYTES)),
            ("RenewAssignments", mpb.RenewAssignmentsRequest(number=number, generation=1)),
            ("Commit", commit),
        ):
            assert f"does not allow {method}" in tenants.denied(me, method, request)
        reply = tenants.call(me, "CommitBatch", mpb.CommitBatchRequest(commits=[commit]))
        [result] = (wire.from_pb(CommitResult, one) for one in reply.results)
        assert isinstance(result.error, AccessDenied)
        assert push_is_refused(tenants.info(tenants.ours, name), me.capability)
        assert exchange.progress().mappers_committed == 0
        write(exchange.handle(), 2)
        with handle.reader(range(4), timeout_s=BOUND_S) as reader:
            assert Counter(reader) == written(2)


def test_who_may_write_reads_nothing(tenants: Tenants, name: str) -> None:
    with CoscoExchange(name, 4, mappers=2, metadata=tenants.ours) as exchange:
        write(exchange.handle(), 2)
        handle = shipped(exchange.handle(may="write"))
        me, number = handle.metadata, handle.number
        denied(lambda: handle.reader(0), "does not let you read")
        for partitions in (0, [0, 1]):
            denied(lambda p=partitions: CoscoReader(name, [0], p, metadata=me), "does not allow")
        denied(lambda: close_exchange(me, name))
        asked = mpb.AwaitCommitsRequest(mappers=BitMap([0]).serialize())
        for method, request in (
            ("AwaitCommits", mpb.AwaitCommitsRequest(number=number, mappers=asked.mappers)),
            ("DescribeExchange", mpb.DescribeExchangeRequest(shuffle_id=name, reading=asked)),
            ("Progress", mpb.ProgressRequest(number=number)),
            ("ReportLoss", mpb.ReportLossRequest(number=number, generation=1, build=1)),
            ("ReportUncommitted", mpb.ReportUncommittedRequest(number=number)),
        ):
            assert f"does not allow {method}" in tenants.denied(me, method, request)
        denied(lambda: fetch(tenants.info(me, name), me.capability), "not one to read from")


def test_one_right_in_a_group(tenants: Tenants, name: str) -> None:
    with CoscoExchangeGroup(name, 2, 2, 1, metadata=tenants.ours) as group:
        writing, reading = group.handle(may="write"), group.handle(may="read")
        for i in range(2):
            denied(lambda i=i: reading.writer(i, 0), "does not let you write")
            denied(lambda i=i: writing.reader(i, 0), "does not let you read")
        info = reading.info(1)
        forged = mpb.CommitRequest(number=info.number, attempt=1 << 63, generation=1)
        [result] = tenants.call(
            _of(reading, 1), "CommitBatch", mpb.CommitBatchRequest(commits=[forged])
        ).results
        assert result.error.kind == "AccessDenied"
        assert push_is_refused(info, info.capability)
        denied(lambda: fetch(writing.info(1), writing.info(1).capability))


def test_nobody_comes_to_more_by_asking(tenants: Tenants, name: str) -> None:
    with (
        CoscoExchange(name, 4, mappers=2, metadata=tenants.ours) as exchange,
        CoscoExchangeGroup(f"{name} group", 2, 2, 1, metadata=tenants.ours) as group,
    ):
        whole = tenants.info(tenants.ours, name).capability
        for may in ("read", "write"):
            mine = exchange.handle(may=may, lives_s=60.0).metadata
            assert mine.capability != whole
            assert tenants.info(mine, name).capability == mine.capability
            of_group = _of(group.handle(may=may), 1)
            assert tenants.info(of_group, f"{name} group/1").capability == of_group.capability
        opening = mpb.OpenAttemptRequest(shuffle_id=name)
        fixing = mpb.FixRowKindRequest(number=exchange.handle().number, kind=mpb.ROW_KIND_BYTES)
        for who, expected in ((mine, mine.capability), (tenants.ours, whole)):
            reply = tenants.call(who, "OpenAttempt", opening)
            assert reply.info.capability == expected
            assert (reply.info.spec.shuffle_id, reply.attempt > 0) == (name, True)
            assert tenants.call(who, "FixRowKind", fixing).capability == expected


# --- those whose time is over -----------------------------------------------------------------


def test_a_handle_whose_time_is_over(tenants: Tenants, name: str) -> None:
    """Whoever shows it, wherever he has it from, is refused; who was at work commits nothing."""
    with CoscoExchange(name, 4, mappers=2, metadata=tenants.ours) as exchange:
        handle = shipped(exchange.handle(lives_s=5.0))
        capability = handle.metadata.capability
        info = tenants.info(tenants.ours, name)
        with handle.writer(0) as writer:
            writer.collect(0, b"a row")
        with handle.reader(0, [0], timeout_s=BOUND_S) as reader:
            assert list(reader) == [b"a row"]
        late = handle.writer(1)
        late.collect(0, b"too late")
        until(lambda: _is_over(tenants, handle.metadata, name), BOUND_S, "the end of the handle")
        says = "has expired: take another handle from the driver"
        denied(late.close, says)
        denied(lambda: handle.writer(1), says)
        denied(lambda: handle.reader(0), says)
        replayed = Connection(tenants.cluster.metadata).with_capability(capability)
        denied(lambda: CoscoWriter(name, 1, metadata=replayed), says)
        until(lambda: _fetch_is_denied(info, capability), BOUND_S, "its end at daemons")
        assert push_is_refused(info, capability)
        assert exchange.progress().mappers_committed == 1
        with exchange.handle(may="write", lives_s=60).writer(1) as writer:
            writer.collect(0, b"in time")
        with exchange.handle(may="read").reader(0, timeout_s=BOUND_S) as reader:
            assert sorted(reader) == [b"a row", b"in time"]


def test_a_handle_of_a_group_whose_time_is_over(
    tenants: Tenants, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    with CoscoExchangeGroup(name, 1, 2, 2, metadata=tenants.ours) as group:
        handle = shipped(group.handle(lives_s=5.0))
        with handle.writer(0, 0) as writer:
            writer.collect(0, b"a row")
        handle.flush()
        until(lambda: _is_over(tenants, _of(handle, 0), f"{name}/0"), BOUND_S, "its end")

        def write_late() -> None:
            with handle.writer(0, 1) as writer:
                writer.collect(0, b"too late")

        denied(write_late, "has expired")
        with handle.reader(0, 0, timeout_s=BOUND_S) as reader:
            denied(lambda: list(reader), "has expired")
        with group.handle().writer(0, 1) as writer:
            writer.collect(0, b"in time")
        with group.handle(may="read").reader(0, 0, timeout_s=BOUND_S) as reader:
            assert sorted(reader) == [b"a row", b"in time"]


def _is_over(tenants: Tenants, who: Connection, name: str) -> bool:
    try:
        tenants.info(who, name)
    except grpc.RpcError as error:
        failed: Any = error
        assert failed.code() is grpc.StatusCode.PERMISSION_DENIED
        return True
    return False


def _fetch_is_denied(info: ExchangeInfo, capability: str) -> bool:
    try:
        fetch(info, capability)
    except AccessDenied as error:
        return "has expired" in str(error)
    except CoscoError:
        return False
    return False


def test_a_limited_handle_ends_with_its_exchange(tenants: Tenants, name: str) -> None:
    with CoscoExchange(name, 4, mappers=1, metadata=tenants.ours) as exchange:
        handles = [exchange.handle(may=may, lives_s=600.0) for may in ("write", "read")]
        write(handles[0], 1)
    for use in (lambda: handles[0].writer(0), lambda: handles[1].reader(0)):
        with pytest.raises(ExchangeClosed):
            use()


# --- who makes them ---------------------------------------------------------------------------


def test_who_may_have_one_made(tenants: Tenants, name: str) -> None:
    with (
        CoscoExchange(name, 4, metadata=tenants.ours) as exchange,
        CoscoExchangeGroup(f"{name} group", 2, 2, 1, metadata=tenants.ours) as group,
    ):
        handle = exchange.handle()
        requests = [
            mpb.MakeCapabilityRequest(number=handle.number, read=True),
            mpb.MakeCapabilityRequest(group_id=f"{name} group", read=True),
            mpb.MakeCapabilityRequest(number=group.handle().info(1).number, read=True),
        ]
        for request in requests:
            for who in (tenants.theirs, tenants.viewer, handle.metadata, _of(group.handle(), 0)):
                tenants.denied(who, "MakeCapability", request)
            for who in (tenants.ours, tenants.admin):
                made = said_by(tenants.call(who, "MakeCapability", request).capability)
                assert made is not None
                assert made.rights == Rights.READ
        both = mpb.MakeCapabilityRequest(number=handle.number, group_id=f"{name} group", read=True)
        attached = CoscoExchange.attach(name, metadata=handle.metadata)
        denied(lambda: attached.handle(may="read"), "MakeCapability needs a token")
        assert _refusal(tenants, both) == "INVALID_ARGUMENT"


@pytest.mark.parametrize(
    "limits",
    [
        {},
        {"read": True, "lives_s": -1.0},
        {"read": True, "lives_s": float("nan")},
        {"read": True, "lives_s": float("inf")},
        {"read": True, "lives_s": MAX_LIVES_S + 1.0},
    ],
)
def test_what_nobody_has_made(tenants: Tenants, name: str, limits: dict[str, Any]) -> None:
    with CoscoExchange(name, 4, metadata=tenants.ours) as exchange:
        number = exchange.handle().number
        request = mpb.MakeCapabilityRequest(number=number, **limits)
        assert _refusal(tenants, request) == "INVALID_ARGUMENT"


def _refusal(tenants: Tenants, request: mpb.MakeCapabilityRequest) -> str:
    with pytest.raises(grpc.RpcError) as caught:
        tenants.call(tenants.ours, "MakeCapability", request)
    failed: Any = caught.value
    return str(failed.code().name)


def test_parts_of_a_group_that_are_gone(tenants: Tenants, name: str) -> None:
    """A handle has those that are left, and is made whatever was released in between."""
    with CoscoExchangeGroup(name, 2, 2, 1, metadata=tenants.ours) as group:
        group.extend(2)
        first = group.handle().info(0).number
        group.release(0)
        group.release(1)
        request = mpb.MakeCapabilityRequest(number=first, read=True)
        until(lambda: _is_refused(tenants, request), BOUND_S, "the release")
        handle = group.handle(may="write")
        assert handle.size == 4
        with handle.writer(3, 0) as writer:
            writer.collect(0, b"a row")
        with pytest.raises(ExchangeClosed):
            handle.writer(0, 0)
        request = mpb.MakeCapabilityRequest(group_id=name, first=3, read=True)
        assert _refusal(tenants, request) == "INVALID_ARGUMENT"
    gone = mpb.MakeCapabilityRequest(group_id=name, read=True)
    assert _is_refused(tenants, gone)
    assert _is_refused(tenants, mpb.MakeCapabilityRequest(group_id=f"{name} never", read=True))


def _is_refused(tenants: Tenants, request: mpb.MakeCapabilityRequest) -> bool:
    try:
        tenants.call(tenants.ours, "MakeCapability", request)
    except grpc.RpcError:
        return True
    return False
