"""Records of exchange groups, to protobuf and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from google.protobuf.message import DecodeError

from cosco.errors import InvalidArgument
from cosco.protocol.api_limits import check_part
from cosco.protocol.group_records import (
    Alike,
    CommitResult,
    Follow,
    Followed,
    FollowOutcome,
    FoundAssignment,
    GroupAnswer,
    GroupBlock,
    GroupCall,
)
from cosco.protocol.pb import metadata_pb2 as mpb
from cosco.protocol.pb import shuffle_pb2 as spb
from cosco.protocol.records import RecomputeCall
from cosco.protocol.wire.arrays import bitmap_from_bytes, bytes64, u64
from cosco.protocol.wire.error_detail import error_from_pb, error_to_pb
from cosco.protocol.wire.exchanges import (
    assignment_from_pb,
    assignment_to_pb,
    info_from_pb,
    info_to_pb,
    range_from_pb,
    range_to_pb,
)
from cosco.protocol.wire.plain import Plain

_ANSWER: Final = Plain(GroupAnswer, mpb.GroupAnswer)
group_answer_to_pb, group_answer_from_pb = _ANSWER.to_pb, _ANSWER.from_pb


def group_block_to_pb(b: GroupBlock) -> mpb.GroupBlock:
    return mpb.GroupBlock(
        group_id=b.group_id,
        first=b.first,
        size=b.size,
        mappers=b.mappers,
        info=info_to_pb(b.info),
    )


def group_block_from_pb(pb: mpb.GroupBlock) -> GroupBlock:
    check_part(pb.first, pb.size, pb.mappers)
    return GroupBlock(pb.group_id, pb.first, pb.size, pb.mappers, info_from_pb(pb.info))


def group_call_to_pb(c: GroupCall) -> mpb.GroupCall:
    call = mpb.RecomputeCall(
        loss_id=c.call.loss_id, mappers=c.call.mappers.serialize(), reason=c.call.reason
    )
    return mpb.GroupCall(index=c.index, call=call)


def group_call_from_pb(pb: mpb.GroupCall) -> GroupCall:
    mappers = bitmap_from_bytes(pb.call.mappers, "mappers")
    return GroupCall(pb.index, RecomputeCall(pb.call.loss_id, mappers, pb.call.reason))


def found_assignment_to_pb(f: FoundAssignment | None) -> mpb.LookupAssignmentReply:
    """None: it is not the daemon's that asks."""
    if f is None:
        return mpb.LookupAssignmentReply()
    alike = None
    if f.alike is not None:
        without = f.alike.without.serialize() if f.alike.without else b""
        alike = mpb.Alike(first_number=f.alike.first_number, size=f.alike.size, without=without)
    return mpb.LookupAssignmentReply(
        assignment=assignment_to_pb(f.assignment),
        range=range_to_pb(f.partitions),
        mappers=f.mappers,
        alike=alike,
    )


def found_assignment_from_pb(pb: mpb.LookupAssignmentReply) -> FoundAssignment | None:
    if not pb.HasField("assignment"):
        return None
    alike = None
    if pb.HasField("alike"):
        without = bitmap_from_bytes(pb.alike.without, "without")
        alike = Alike(pb.alike.first_number, pb.alike.size, without)
        check_part(0, alike.size, pb.mappers)
    return FoundAssignment(
        assignment_from_pb(pb.assignment), range_from_pb(pb.range), pb.mappers, alike
    )


def commit_result_to_pb(r: CommitResult) -> mpb.CommitResult:
    error = None if r.error is None else error_to_pb(r.error)
    return mpb.CommitResult(won=r.won, error=error)


def commit_result_from_pb(pb: mpb.CommitResult) -> CommitResult:
    return CommitResult(pb.won, error_from_pb(pb.error) if pb.HasField("error") else None)


#: Questions in one message of a reader's process.
MAX_FOLLOWS: Final = 1024

_FOLLOW: Final = Plain(Follow, spb.FollowRequest)


def follows_to_bytes(follows: Sequence[Follow]) -> bytes:
    """At most MAX_FOLLOWS."""
    return spb.FollowRequests(requests=map(_FOLLOW.to_pb, follows)).SerializeToString()


def follows_from_bytes(message: bytes) -> list[Follow]:
    """Raises InvalidArgument."""
    try:
        requests = spb.FollowRequests.FromString(message).requests
    except DecodeError as error:
        raise InvalidArgument(f"a message that is no FollowRequests: {error}") from None
    if not 1 <= len(requests) <= MAX_FOLLOWS:
        raise InvalidArgument(
            f"a FollowRequests of {len(requests)} questions; give 1 to {MAX_FOLLOWS}"
        )
    follows = list(map(_FOLLOW.from_pb, requests))
    if not all(follow.id for follow in follows):
        raise InvalidArgument("a FollowRequest without an id")
    return follows


def followed_to_bytes(answers: Sequence[Followed]) -> bytes:
    return spb.FollowReplies(replies=map(_followed_to_pb, answers)).SerializeToString()


def followed_from_bytes(message: bytes) -> list[Followed]:
    """Raises InvalidArgument."""
    try:
        return list(map(_followed_from_pb, spb.FollowReplies.FromString(message).replies))
    except (DecodeError, ValueError) as error:
        raise InvalidArgument(f"a message that is no FollowReplies: {error}") from None


def _followed_to_pb(f: Followed) -> spb.FollowReply:
    return spb.FollowReply(
        id=f.id,
        outcome=spb.FollowOutcome.Name(int(f.outcome)),
        reason=f.reason,
        done=f.done.serialize() if f.done else b"",
        attempts=bytes64(f.attempts),
        rows=f.rows,
        raw_bytes=f.raw_bytes,
        digest=f.digest,
        fetch=f.fetch,
        data=f.data,
    )


def _followed_from_pb(pb: spb.FollowReply) -> Followed:
    """Raises ValueError for an outcome that is unknown, and InvalidArgument."""
    return Followed(
        id=pb.id,
        outcome=FollowOutcome(pb.outcome),
        attempts=u64(pb.attempts, "attempts"),
        rows=pb.rows,
        raw_bytes=pb.raw_bytes,
        digest=pb.digest,
        fetch=pb.fetch,
        data=pb.data,
        done=bitmap_from_bytes(pb.done, "done"),
        reason=pb.reason,
    )
