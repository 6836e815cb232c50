"""What a writer opens, renews and commits, to protobuf and back."""

from __future__ import annotations

import numpy as np

from cosco._pb import metadata_pb2 as mpb
from cosco.errors import InvalidArgument
from cosco.records import (
    MAX_MAPPER,
    AttemptSums,
    CommitRequest,
    OpenedAttempt,
    RenewedAssignments,
)
from cosco.wire.arrays import bytes32, bytes64, u32, u64
from cosco.wire.exchanges import assignment_from_pb, assignment_to_pb, info_from_pb, info_to_pb


def opened_to_pb(o: OpenedAttempt) -> mpb.OpenAttemptReply:
    return mpb.OpenAttemptReply(
        info=info_to_pb(o.info),
        mapper=o.mapper,
        attempt=o.attempt,
        partial=o.partial,
        ranges=o.ranges,
    )


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
    return mpb.CommitRequest(
        number=c.number,
        mapper=c.mapper,
        attempt=c.attempt,
        generation=c.generation,
        acknowledged=[
            mpb.RangeEpoch(range_index=index, epoch=epoch) for index, epoch in c.acknowledged
        ],
        partitions=bytes32(c.sums.partitions),
        rows=bytes64(c.sums.rows),
        raw_bytes=bytes64(c.sums.raw_bytes),
        stored_bytes=bytes64(c.sums.stored_bytes),
        digests=bytes64(c.sums.digests),
        partial=c.partial,
        ranges=c.ranges,
    )


def commit_from_pb(pb: mpb.CommitRequest) -> CommitRequest:
    sums = AttemptSums(
        u32(pb.partitions, "partitions"),
        u64(pb.rows, "rows"),
        u64(pb.raw_bytes, "raw_bytes"),
        u64(pb.stored_bytes, "stored_bytes"),
        u64(pb.digests, "digests"),
    )
    lengths = {len(a) for a in (sums.rows, sums.raw_bytes, sums.stored_bytes, sums.digests)}
    if lengths != {len(sums.partitions)}:
        raise InvalidArgument("the arrays of a commit differ in length")
    if not bool(np.all(sums.partitions[1:] > sums.partitions[:-1])):
        raise InvalidArgument("the partitions of a commit do not ascend")
    if pb.mapper > MAX_MAPPER or not pb.attempt:
        raise InvalidArgument(f"a commit of mapper {pb.mapper}, attempt {pb.attempt}")
    return CommitRequest(
        number=pb.number,
        mapper=pb.mapper,
        attempt=pb.attempt,
        generation=pb.generation,
        acknowledged=tuple((a.range_index, a.epoch) for a in pb.acknowledged),
        sums=sums,
        partial=pb.partial,
        ranges=tuple(pb.ranges),
    )
