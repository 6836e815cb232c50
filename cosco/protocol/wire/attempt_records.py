"""What a writer opens, renews and commits, to protobuf and back."""

from __future__ import annotations

from typing import Final

import numpy as np

from cosco.errors import InvalidArgument
from cosco.protocol.api_limits import MAX_MAPPER, MAX_PARTITIONS
from cosco.protocol.pb import metadata_pb2 as mpb
from cosco.protocol.records import (
    AttemptSums,
    CommitRequest,
    ExchangeInfo,
    OpenedAttempt,
    RenewedAssignments,
)
from cosco.protocol.wire.arrays import (
    ascending_u32,
    bytes64,
    gaps_bytes,
    narrow_bytes,
    narrow_u64,
    u64,
)
from cosco.protocol.wire.exchanges import (
    assignment_from_pb,
    assignment_to_pb,
    info_from_pb,
    info_to_pb,
)

#: An assignment on the wire: its range index times this, and its epoch.
_RANGE_UNIT: Final = np.uint64(1 << 32)


def opened_info(info: ExchangeInfo) -> bytes:
    """What all writers of an exchange are told, for `opened_reply`."""
    return mpb.OpenAttemptReply(info=info_to_pb(info)).SerializeToString()


def opened_reply(o: OpenedAttempt, info: bytes) -> bytes:
    """OpenAttemptReply, serialized: two messages in a row are one with the fields of both."""
    own = mpb.OpenAttemptReply(
        mapper=o.mapper, attempt=o.attempt, partial=o.partial, ranges=o.ranges
    )
    return info + own.SerializeToString()


def opened_from_pb(pb: mpb.OpenAttemptReply) -> OpenedAttempt:
    return OpenedAttempt(info_from_pb(pb.info), pb.mapper, pb.attempt, pb.partial, tuple(pb.ranges))


def renewed_to_pb(r: RenewedAssignments) -> mpb.RenewAssignmentsReply:
    return mpb.RenewAssignmentsReply(
        assignments=[assignment_to_pb(a) for a in r.assignments],
        alive=r.alive,
        waiting_for=r.waiting_for,
    )


def renewed_from_pb(pb: mpb.RenewAssignmentsReply) -> RenewedAssignments:
    assignments = tuple(assignment_from_pb(a) for a in pb.assignments)
    return RenewedAssignments(assignments, pb.alive, pb.waiting_for)


def commit_to_pb(c: CommitRequest) -> mpb.CommitRequest:
    ranges, epochs = c.acknowledged.T.astype(np.uint64)
    return mpb.CommitRequest(
        number=c.number,
        mapper=c.mapper,
        attempt=c.attempt,
        generation=c.generation,
        acknowledged=bytes64(_RANGE_UNIT * ranges + epochs),
        gaps=gaps_bytes(c.sums.partitions),
        rows=narrow_bytes(c.sums.rows),
        raw_bytes=narrow_bytes(c.sums.raw_bytes),
        stored_bytes=narrow_bytes(c.sums.stored_bytes),
        digests=bytes64(c.sums.digests),
        partial=c.partial,
        ranges=c.ranges,
    )


def commit_from_pb(pb: mpb.CommitRequest) -> CommitRequest:
    digests = u64(pb.digests, "digests")
    count = len(digests)
    if count > MAX_PARTITIONS:
        raise InvalidArgument(f"a commit of {count} partitions; there are {MAX_PARTITIONS} at most")
    sums = AttemptSums(
        ascending_u32(pb.gaps, count, MAX_PARTITIONS, "partitions"),
        narrow_u64(pb.rows, count, "rows"),
        narrow_u64(pb.raw_bytes, count, "raw_bytes"),
        narrow_u64(pb.stored_bytes, count, "stored_bytes"),
        digests,
    )
    acknowledged = u64(pb.acknowledged, "acknowledged")
    if not (acknowledged[1:] > acknowledged[:-1]).all():
        raise InvalidArgument("the acknowledged assignments of a commit do not ascend")
    if pb.mapper > MAX_MAPPER or not pb.attempt:
        raise InvalidArgument(f"a commit of mapper {pb.mapper}, attempt {pb.attempt}")
    return CommitRequest(
        number=pb.number,
        mapper=pb.mapper,
        attempt=pb.attempt,
        generation=pb.generation,
        # The low half of each, the epoch, comes first in memory.
        acknowledged=acknowledged.view("<u4").reshape(-1, 2)[:, ::-1],
        sums=sums,
        partial=pb.partial,
        ranges=tuple(pb.ranges),
    )
