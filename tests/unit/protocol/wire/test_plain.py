"""Records whose conversion follows from their fields: all of them cross the wire whole."""

from __future__ import annotations

from dataclasses import dataclass, fields, is_dataclass, replace
from enum import IntEnum
from typing import Any

import numpy as np
import pytest
from pyroaring import BitMap

from cosco.errors import CoscoError, DataLost, InvalidArgument
from cosco.protocol import wire
from cosco.protocol.admin_records import (
    DaemonShare,
    ExchangeDetail,
    ExchangePage,
    ForgottenStore,
    LossState,
    LossStatus,
    PartitionSize,
    RangeFailure,
    RangeStatus,
)
from cosco.protocol.application_records import ApplicationAnswer, ApplicationCall
from cosco.protocol.capability import CapabilityKey
from cosco.protocol.daemon_figures import DaemonFigures
from cosco.protocol.group_records import (
    Alike,
    CommitResult,
    Follow,
    Followed,
    FollowOutcome,
    FoundAssignment,
    GroupAnswer,
    GroupCall,
    GroupPart,
)
from cosco.protocol.keys import AssignmentKey, RangeEpoch
from cosco.protocol.records import (
    Assignment,
    CommitRequest,
    CommitWait,
    DaemonHeartbeat,
    DaemonOrders,
    DaemonRef,
    DaemonRegistration,
    DaemonState,
    DaemonStatus,
    DriverOrders,
    EpochsDrop,
    EpochsDropped,
    ExchangeInfo,
    ExchangeProgress,
    ExchangeSpec,
    ExchangeStatus,
    LossCause,
    LossReport,
    OpenedAttempt,
    PartitionRange,
    RangesWait,
    RecomputeCall,
    RenewedAssignments,
    RowKind,
    Source,
    StoredBytes,
)
from cosco.protocol.wire import mpb
from cosco.protocol.wire.plain import FROM_PB, TO_PB, plain

REF = DaemonRef(2**64 - 1, "a:1")
RANGE = PartitionRange(1, 2, 3)
ASSIGNMENT = Assignment(1, 2, 3, REF, (DaemonRef(7, "b:2"),), True)
SPEC = ExchangeSpec("name", 16, 1, 3, "none", False, 2.5, b"schema", 7, True, "00-ab")
INFO = ExchangeInfo(5, SPEC, 2, RowKind.ARROW, b"other", (RANGE,), (ASSIGNMENT,), "cosco1.x")
CALL = RecomputeCall(4, BitMap([1, 9]), "lost")
STATUS = ExchangeStatus("name", 5, 16, 3, 1000, True, True)
SIZE = PartitionSize(1, 2, 3)
SHARE = DaemonShare(REF, "store", DaemonState.DEAD, 1, 2, 3)
RANGE_STATUS = RangeStatus(RANGE, 1, 2, True, 3, "hosts")
LOSS = LossStatus(1, (2, 4), 5, LossState.FAILED, 3, "lost", "raised")
FAILURE = RangeFailure(1, "DataLost", "lost")
GONE = EpochsDrop(1, 2, 3, 2**64 - 1)
DROPPED = EpochsDropped(1, 2**64 - 1)
STORED = StoredBytes(1, 2**64 - 1)
FIGURES = DaemonFigures(*range(1, 12), 1.5, 13, 14, 2.5, 3.5, *range(17, 24))
KEY = CapabilityKey(1, b"secret")
COUNTS = np.array([1, 2**64 - 1], dtype=np.uint64)

RECORDS: list[Any] = [
    RangeEpoch(1, 2),
    AssignmentKey(1, 2, 3),
    REF,
    DaemonRegistration(7, "a:1", "host", "store", 100, 50, "a:2", (3, 4), True, 3),
    GONE,
    DROPPED,
    STORED,
    FIGURES,
    DaemonHeartbeat(
        7,
        50,
        (1, 2),
        True,
        True,
        (3,),
        9,
        True,
        (DROPPED, DROPPED),
        "native 1",
        (STORED, STORED),
        FIGURES,
        "1.0",
    ),
    KEY,
    DaemonOrders(True, "cluster", 1.5, (8,), True, True, True, (GONE,), (KEY,), (1, 2**64 - 1)),
    DaemonStatus(
        REF,
        "host",
        "store",
        DaemonState.DRAINING,
        100,
        50,
        "a:2",
        6,
        True,
        True,
        "n",
        FIGURES,
        "1.0",
    ),
    SPEC,
    RANGE,
    ASSIGNMENT,
    INFO,
    ExchangeProgress(1, 2, 3, 4, COUNTS, COUNTS, 2),
    STATUS,
    ExchangePage((STATUS,), 9),
    ForgottenStore(1, 2, 3, 4),
    SIZE,
    SHARE,
    RANGE_STATUS,
    LOSS,
    FAILURE,
    ExchangeDetail(
        STATUS,
        "group",
        2,
        3,
        4,
        "lz4",
        False,
        RowKind.ARROW,
        5,
        True,
        6.5,
        7.5,
        8.5,
        9,
        10,
        11,
        12,
        13,
        (SIZE,),
        14,
        (SHARE,),
        (RANGE_STATUS,),
        (LOSS,),
        15,
        (FAILURE,),
        BitMap([16]),
        ("store",),
        "application-1",
        True,
        "tenant",
        17.5,
        18.5,
        "lease",
        19,
        (20, 2**64 - 1),
    ),
    CALL,
    DriverOrders((CALL,)),
    OpenedAttempt(INFO, 3, 2**63, True, (1, 2)),
    RenewedAssignments((ASSIGNMENT,), True, "hosts"),
    Source(1, 2, (REF,), True, ("store",)),
    LossReport(1, 2, 3, 4, LossCause.MISSING, "gone"),
    GroupPart("group", 5, 6, 7, INFO),
    GroupCall(1, CALL),
    GroupAnswer(1, 2, "raised"),
    ApplicationCall(1, CALL),
    ApplicationAnswer(1, 2, "raised"),
    CommitResult(True, DataLost("gone", shuffle_id="s", mappers=(1,), partition=0, retriable=True)),
    Alike(1, 2, BitMap([1])),
    FoundAssignment(ASSIGNMENT, RANGE, 4, Alike(1, 2), 2**64 - 1, "00-ab"),
    Follow(1, 2, 3, 4, 5, 6, 7, True, True, True, "cosco1.x"),
    Followed(1, FollowOutcome.CLOSED, COUNTS, 2, 3, 4, True, b"rows", BitMap([3]), "closed"),
]


def as_told(value: Any) -> Any:
    """Something to compare, of the types that a record is made of."""
    if isinstance(value, np.ndarray):
        return value.dtype, value.tolist()
    if isinstance(value, Exception):
        return type(value), str(value), vars(value)
    if is_dataclass(value):
        return type(value), [(f.name, as_told(getattr(value, f.name))) for f in fields(value)]
    return type(value), value


@pytest.mark.parametrize("record", RECORDS, ids=[type(record).__name__ for record in RECORDS])
def test_every_field_crosses_the_wire(record: Any) -> None:
    if is_dataclass(record):
        assert all(as_told(getattr(record, f.name)) != as_told(f.default) for f in fields(record))
    message = wire.to_pb(record)
    again = wire.from_pb(type(record), type(message).FromString(message.SerializeToString()))
    assert as_told(again) == as_told(record)


def test_no_record_is_left_out() -> None:
    by_hand = {CoscoError, CommitRequest}
    assert {type(record) for record in RECORDS} == TO_PB.keys() - by_hand
    assert FROM_PB.keys() - TO_PB.keys() == {CommitWait, RangesWait}


def test_what_may_be_absent_is_none() -> None:
    assert wire.from_pb(CommitResult, mpb.CommitResult(won=True)) == CommitResult(True)
    assert wire.found_assignment(mpb.LookupAssignmentReply()) is None
    found = FoundAssignment(ASSIGNMENT, RANGE)
    assert wire.found_assignment(wire.to_pb(found)) == found


@dataclass(frozen=True, slots=True)
class Shorter:
    index: int
    first: int


@dataclass(frozen=True, slots=True)
class Longer(Shorter):
    count: int = 0
    more: int = 0


@pytest.mark.parametrize("record", [Shorter, Longer])
def test_a_field_that_one_side_lacks_is_an_error_at_once(record: type) -> None:
    with pytest.raises(TypeError, match="differ in their fields"):
        plain(record, mpb.PartitionRange)


class Cause(IntEnum):
    MISSING = 1


@dataclass(frozen=True, slots=True)
class Report:
    number: int
    generation: int
    build: int
    partition: int
    cause: Cause
    reason: str


def test_an_enum_of_other_members_is_an_error_at_once() -> None:
    with pytest.raises(TypeError, match="differ in their members"):
        plain(Report, mpb.ReportLossRequest)


def test_an_unknown_enum_value_is_refused() -> None:
    pb = wire.to_pb(LossReport(1, 2, 3, 4, LossCause.GONE, "gone"))
    for value in (0, 9):
        pb.cause = value
        with pytest.raises(InvalidArgument, match=f"cause: {value} is no LossCause"):
            wire.from_pb(LossReport, pb)


def test_sets_and_arrays_are_checked() -> None:
    with pytest.raises(InvalidArgument, match="mappers: no roaring bitmap"):
        wire.from_pb(RecomputeCall, mpb.RecomputeCall(mappers=b"nonsense"))
    with pytest.raises(InvalidArgument, match="partition_rows: 7 bytes"):
        wire.from_pb(ExchangeProgress, mpb.ProgressReply(partition_rows=bytes(7)))


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (DaemonRegistration(0, "a:1", "host", "store", 1, 1), "needs incarnation"),
        (DaemonRegistration(7, "a:1", "", "store", 1, 1), "needs incarnation"),
        (DaemonRegistration(7, "a:1", "h" * 257, "store", 1, 1), "longer than 256"),
        (DaemonRegistration(7, "a:1", "host", "s", 1, 1, "m" * 257), "longer than 256"),
        (DaemonRegistration(7, "a\n:1", "host", "store", 1, 1), "do not print"),
        (DaemonRegistration(7, "a:1", "\x1b[2J", "store", 1, 1), "do not print"),
        (DaemonRegistration(7, "a:1", "host", "s\0", 1, 1), "do not print"),
        (DaemonRegistration(7, "a:1", "host", "s", 1, 1, "m\n:1"), "do not print"),
        (GroupPart("group", 0, 0, 7, INFO), "a group of 0 exchanges"),
        (GroupPart("group", 0, 1, 0, INFO), "a group of 0 mappers"),
        (FoundAssignment(ASSIGNMENT, RANGE, 4, Alike(1, 1001)), "a group of 1001 exchanges"),
    ],
)
def test_what_cannot_be_is_refused(record: Any, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        wire.from_pb(type(record), wire.to_pb(record))


@pytest.mark.parametrize(
    ("kind", "schema"), [(0, b""), (1, b"schema"), (2, b""), (3, b"schema"), (4, b"")]
)
def test_a_kind_without_its_schema_is_refused(kind: int, schema: bytes) -> None:
    with pytest.raises(InvalidArgument, match="rows are BYTES or OPAQUE without"):
        wire.fixed_kind(mpb.FixRowKindRequest(kind=kind, schema=schema))


@pytest.mark.parametrize("kind", [RowKind.BYTES, RowKind.ARROW, RowKind.OPAQUE])
def test_a_kind_with_what_it_needs(kind: RowKind) -> None:
    schema = b"schema" if kind is RowKind.ARROW else b""
    assert wire.fixed_kind(mpb.FixRowKindRequest(kind=int(kind), schema=schema)) is kind


def test_names_may_be_long() -> None:
    registration = replace(RECORDS[3], host_id="h" * 256)
    assert wire.from_pb(DaemonRegistration, wire.to_pb(registration)) == registration


def test_what_an_error_says_to_a_peer_is_one_line_that_no_terminal_obeys() -> None:
    """Whatever it quotes: an address or a reason may be of who means harm."""
    error = InvalidArgument("of \x1b[2Jthis\r\nand \0that, näh")
    said = r"of \x1b[2Jthis\r\nand \x00that, näh"
    assert wire.error_line(error) == said
    assert str(wire.error_from_bytes(wire.error_to_bytes(error))) == said
