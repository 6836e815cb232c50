"""What must hold of messages, and of the arrays and sets in them, whatever bytes they are of.

Of each: it is refused as the services answer, or it is the same after it is written and read again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from google.protobuf.message import Message

import cosco.protocol.wire as wire
from cosco.errors import CoscoError, InvalidArgument
from cosco.protocol import admin_records, application_records, group_records, records
from cosco.protocol.api_limits import MAX_MAPPER, MAX_PARTITIONS
from cosco.protocol.pb import metadata_pb2 as mpb
from cosco.protocol.pb import shuffle_pb2 as spb
from cosco.protocol.records import CommitWait, RangesWait
from cosco.protocol.wire import arrays
from cosco.protocol.wire.fields import DELIMITED, field, parsed

from .outcomes import must, must_agree, outcome

#: What services and clients make records of, as they came.
RECORDS: Final[tuple[tuple[type[Any], type[Message]], ...]] = (
    (records.CommitRequest, mpb.CommitRequest),
    (records.CommitWait, mpb.AwaitCommitsReply),
    (records.RangesWait, mpb.AwaitCommitsReply),
    (records.DaemonRegistration, mpb.RegisterDaemonRequest),
    (records.DaemonHeartbeat, mpb.HeartbeatRequest),
    (records.DaemonOrders, mpb.DaemonOrdersReply),
    (records.ExchangeSpec, mpb.ExchangeSpec),
    (records.ExchangeInfo, mpb.ExchangeInfoReply),
    (records.OpenedAttempt, mpb.OpenAttemptReply),
    (records.RenewedAssignments, mpb.RenewAssignmentsReply),
    (records.DriverOrders, mpb.PollDriverReply),
    (records.LossReport, mpb.ReportLossRequest),
    (group_records.FoundAssignment, mpb.LookupAssignmentReply),
    (group_records.GroupPart, mpb.GroupPart),
    (group_records.GroupAnswer, mpb.GroupAnswer),
    (group_records.CommitResult, mpb.CommitResult),
    (group_records.Follow, spb.FollowRequest),
    (group_records.Followed, spb.FollowReply),
    (application_records.ApplicationCall, mpb.ApplicationCall),
    (application_records.ApplicationAnswer, mpb.ApplicationAnswer),
    (admin_records.ExchangeDetail, mpb.ShowExchangeReply),
    (admin_records.ExchangePage, mpb.ListExchangesReply),
)
#: Of these: commits, and what readers are told of them, which are packed by hand.
_COMMITS: Final = 3
_FRAME_TAG: Final = 6 << 3 | DELIMITED  # PushRequest.frame
_PACKED_TAG: Final = 4 << 3 | DELIMITED  # FetchReply.packed
_COUNT_MAX: Final = 1 << 12


def array_check(data: bytes) -> None:
    """Read bytes as arrays of as many numbers as the first two of them say."""
    if len(data) < 2:
        return
    count, rest = int.from_bytes(data[:2], "little") % _COUNT_MAX, data[2:]
    wide = outcome(InvalidArgument, arrays.u64, rest, "numbers")
    if not wide.refusal:
        must_agree(arrays.bytes64(wide.value), rest, "an array of uint64")
    narrow = outcome(InvalidArgument, arrays.narrow_u64, rest, count, "numbers")
    if not narrow.refusal:
        again = arrays.narrow_bytes(narrow.value)
        other = arrays.narrow_u64(again, count, "numbers")
        must_agree(len(narrow.value), count, "the length of a narrow array")
        must_agree(other.tolist(), narrow.value.tolist(), "a narrow array")
        must(len(again) <= len(rest) or not count, "an array is not longer when it is made again")
    for limit in (MAX_PARTITIONS, MAX_MAPPER + 1, count):
        found = outcome(InvalidArgument, arrays.ascending_u32, rest, count, limit, "numbers")
        if not found.refusal:
            numbers = found.value.tolist()
            must(len(numbers) == count and max(numbers, default=-1) < limit, "numbers are bounded")
            must(numbers == sorted(set(numbers)), "numbers ascend")
            gaps = arrays.gaps_bytes(found.value)
            made = arrays.ascending_u32(gaps, count, limit, "numbers")
            must_agree(made.tolist(), numbers, "gaps")


def bitmap_check(data: bytes) -> None:
    """Read bytes as a set of mappers, and of partitions."""
    read: tuple[tuple[Callable[[bytes, str], Any], int], ...] = (
        (arrays.bitmap_from_bytes, MAX_MAPPER + 1),
        (arrays.partitions_from_bytes, MAX_PARTITIONS),
    )
    for parse, limit in read:
        found = outcome(InvalidArgument, parse, data, "set")
        if found.refusal:
            continue
        bitmap = found.value
        if len(bitmap) < MAX_PARTITIONS:
            numbers = arrays.bitmap_array(bitmap).tolist()
            must_agree(numbers, sorted(set(numbers)), "members ascend")
            must_agree(len(numbers), len(bitmap), "the size of a set")
            must(max(numbers, default=-1) < limit, "members are bounded")
            must(all(map(bitmap.__contains__, numbers[:1000])), "members are found")
        again = arrays.bitmap_bytes(bitmap)
        must(parse(again, "set") == bitmap, "a set that is made again")
        must(not bitmap - bitmap and bitmap | bitmap == bitmap & bitmap, "a set is itself")


def push_request_check(data: bytes) -> None:
    """Read what a sender of frames says."""
    found = outcome(InvalidArgument, wire.push_request_from_bytes, data)
    if found.refusal:
        return
    request = found.value
    said = spb.PushRequest(
        hello=None if request.hello is None else spb.Hello(**request.hello._asdict()),
        released=request.released,
        announce=request.announce,
        withdrawn=request.withdrawn,
        eager=request.eager,
    ).SerializeToString()
    frame = b"" if request.frame is None else field(_FRAME_TAG, bytes(request.frame))
    must_agree(wire.push_request_from_bytes(said + frame), request, "a push request")
    whole = spb.PushRequest.FromString(data)  # which reads all of it itself
    must_agree(whole.frame, b"" if request.frame is None else request.frame, "a frame")
    must_agree(whole.HasField("hello"), request.hello is not None, "a hello")
    if request.frame is None:  # its own writer has it; `eager` says something of a frame alone
        again = wire.push_request_from_bytes(wire.push_request_to_bytes(request))
        must_agree(again, request._replace(eager=False), "a push request that is made again")


def push_reply_check(data: bytes) -> None:
    """Read what a receiver of frames says."""
    _same(data, wire.push_reply_from_bytes, wire.push_reply_to_bytes)


def fetch_request_check(data: bytes) -> None:
    """Read what a reader asks a daemon for."""
    _same(data, wire.fetch_request_from_bytes, wire.fetch_request_to_bytes)


def fetch_reply_check(data: bytes) -> None:
    """Read what a daemon sends to a reader."""
    found = outcome(InvalidArgument, lambda: list(wire.fetch_replies(data)))
    if found.refusal:
        return
    whole = spb.FetchReply.FromString(data)  # which reads all of it itself
    replies = list(whole.packed) or [whole]
    datas = [reply for reply in found.value if isinstance(reply, memoryview)]
    must_agree([one.data for one in replies if one.HasField("data")], datas, "data")
    again = b"".join(field(_PACKED_TAG, _reply_bytes(reply)) for reply in found.value)
    must_agree(list(wire.fetch_replies(again)), found.value, "replies to a fetch")


def _reply_bytes(reply: wire.FetchReply) -> bytes:
    if isinstance(reply, memoryview):
        return wire.fetch_data([reply])
    if isinstance(reply, spb.PartEnd):
        return spb.FetchReply(end=reply).SerializeToString()
    reference = wire.reference_of(reply)
    if reference is not None and not reply.error and reply.stored and not reply.headers:
        made = wire.fetch_reference(reply.body_bytes, reply.offset, reference)
        found = spb.FetchReply.FromString(made).section
        must_agree(wire.reference_of(found), reference, "a reference")
    return spb.FetchReply(section=reply).SerializeToString()


def follow_check(data: bytes) -> None:
    """Read questions and answers about marks."""
    _same(data, wire.follows_from_bytes, wire.follows_to_bytes)
    found = outcome(InvalidArgument, wire.followed_from_bytes, data)
    if not found.refusal:  # which have arrays, that are compared as bytes
        again = wire.followed_to_bytes(found.value)
        other = wire.followed_to_bytes(wire.followed_from_bytes(again))
        must_agree(other, again, "answers about marks")


def error_check(data: bytes) -> None:
    """Read an error, as which any bytes are taken."""
    error = wire.error_from_bytes(data)
    must(isinstance(error, CoscoError), "an error is one")
    must(wire.error_line(error).isprintable(), "an error is one line")
    again = wire.error_to_bytes(error)
    must_agree(wire.error_to_bytes(wire.error_from_bytes(again)), again, "an error")


def commit_check(data: bytes) -> None:
    """Read what writers commit, and what readers are told of it: the first byte says which."""
    if data:
        _record(*RECORDS[data[0] % _COMMITS], data[1:])


def record_check(data: bytes) -> None:
    """Read a message of any kind as its record: the first byte says which."""
    if data:
        others = RECORDS[_COMMITS:]
        _record(*others[data[0] % len(others)], data[1:])


def _record(kind: type[Any], message: type[Message], data: bytes) -> None:
    found = outcome(InvalidArgument, lambda: wire.from_pb(kind, parsed(message, data)))
    if found.refusal:
        return
    must(isinstance(found.value, kind), "a record is one")
    for snapshot in _snapshots(found.value):
        must(len(snapshot.mappers) <= len(data), "mappers are no more than what says them")
    again = _record_bytes(found.value)
    other = wire.from_pb(kind, parsed(message, again))
    must_agree(_record_bytes(other), again, f"a {kind.__name__}")


def _snapshots(record: Any) -> list[records.ReadSnapshot]:
    if isinstance(record, RangesWait):
        return [one.common for one in record.ranges]
    return [record.snapshot] if isinstance(record, CommitWait) and record.snapshot else []


def _record_bytes(record: Any) -> bytes:
    if isinstance(record, CommitWait):
        snapshot = record.snapshot
        mappers = b"" if snapshot is None else _mappers(snapshot)
        return wire.wait_reply(record, mappers)
    if isinstance(record, RangesWait):
        return wire.ranges_reply(record, _mappers)
    made: bytes = wire.to_pb(record).SerializeToString()
    return made


def _mappers(snapshot: records.ReadSnapshot) -> bytes:
    return wire.snapshot_mappers(snapshot.mappers, snapshot.attempts)


def _same(data: bytes, parse: Callable[[bytes], Any], write: Callable[[Any], bytes]) -> None:
    found = outcome(InvalidArgument, parse, data)
    if not found.refusal:
        must_agree(parse(write(found.value)), found.value, "what is written and read again")
