"""The messages that are packed by hand: commits, snapshots, and replies that share a part.

Commits and snapshots come by the thousand and carry a number a partition, or a mapper: arrays
of as few bytes as the numbers need. Of the replies to writers and readers most is the same for
all of them, and is serialized once: two serialized messages in a row are one with the fields of
both, also of the messages in them.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from cosco.errors import InvalidArgument
from cosco.protocol.api_limits import MAX_MAPPER, MAX_PARTITIONS
from cosco.protocol.pb import metadata_pb2 as mpb
from cosco.protocol.records import (
    U32,
    U64,
    AttemptSums,
    CommitRequest,
    CommitWait,
    ExchangeInfo,
    OpenedAttempt,
    ReadSnapshot,
    Source,
)
from cosco.protocol.wire.arrays import (
    ascending_u32,
    bitmap_bytes,
    bitmap_from_bytes,
    bytes64,
    gaps_bytes,
    narrow_bytes,
    narrow_u64,
    u64,
)
from cosco.protocol.wire.plain import FROM_PB, TO_PB, from_pb, to_pb

#: An assignment in a commit: its range index times this, plus its epoch.
_RANGE_UNIT: Final = np.uint64(1 << 32)


# --- writers ------------------------------------------------------------------------------


def opened_info(info: ExchangeInfo) -> bytes:
    """Return what all writers of an exchange are told, for `opened_reply`."""
    return mpb.OpenAttemptReply(info=to_pb(info)).SerializeToString()


def opened_reply(opened: OpenedAttempt, info: bytes) -> bytes:
    """Return an OpenAttemptReply, serialized."""
    own = mpb.OpenAttemptReply(
        mapper=opened.mapper, attempt=opened.attempt, partial=opened.partial, ranges=opened.ranges
    )
    return info + own.SerializeToString()


def _commit_to_pb(commit: CommitRequest) -> mpb.CommitRequest:
    ranges, epochs = commit.acknowledged.T.astype(np.uint64)
    sums = commit.sums
    return mpb.CommitRequest(
        number=commit.number,
        mapper=commit.mapper,
        attempt=commit.attempt,
        generation=commit.generation,
        acknowledged=bytes64(_RANGE_UNIT * ranges + epochs),
        gaps=gaps_bytes(sums.partitions),
        rows=narrow_bytes(sums.rows),
        raw_bytes=narrow_bytes(sums.raw_bytes),
        stored_bytes=narrow_bytes(sums.stored_bytes),
        digests=bytes64(sums.digests),
        partial=commit.partial,
        ranges=commit.ranges,
    )


def _commit_from_pb(pb: mpb.CommitRequest) -> CommitRequest:
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


# --- readers ------------------------------------------------------------------------------


def snapshot_mappers(mappers: U32, attempts: U64) -> bytes:
    """Return what readers of many partitions are told alike, for `wait_reply`."""
    snapshot = mpb.ReadSnapshot(
        gaps=gaps_bytes(mappers), attempts=narrow_bytes(attempts), count=len(mappers)
    )
    return mpb.AwaitCommitsReply(snapshot=snapshot).SerializeToString()


def wait_reply(wait: CommitWait, mappers: bytes) -> bytes:
    """Return an AwaitCommitsReply, serialized; `mappers` are those of its snapshot, if any."""
    snapshot, own = wait.snapshot, None
    if snapshot is not None:
        own = mpb.ReadSnapshot(
            version=snapshot.version,
            generation=snapshot.generation,
            build=snapshot.build,
            rows=snapshot.rows,
            raw_bytes=snapshot.raw_bytes,
            digest=snapshot.digest,
            sources=map(to_pb, snapshot.sources),
        )
    reply = mpb.AwaitCommitsReply(
        snapshot=own, missing=bitmap_bytes(wait.missing), recompute=wait.recompute
    )
    return mappers + reply.SerializeToString()


def _wait_from_pb(pb: mpb.AwaitCommitsReply) -> CommitWait:
    return CommitWait(
        snapshot=_snapshot_from_pb(pb.snapshot) if pb.HasField("snapshot") else None,
        missing=bitmap_from_bytes(pb.missing, "missing"),
        recompute=pb.recompute,
    )


def _snapshot_from_pb(pb: mpb.ReadSnapshot) -> ReadSnapshot:
    if pb.count > len(pb.attempts):  # they begin at 1, so none is left out as 0
        raise InvalidArgument(f"{len(pb.attempts)} bytes of attempts of {pb.count} mappers")
    return ReadSnapshot(
        version=pb.version,
        generation=pb.generation,
        build=pb.build,
        mappers=ascending_u32(pb.gaps, pb.count, MAX_MAPPER + 1, "mappers"),
        attempts=narrow_u64(pb.attempts, pb.count, "attempts"),
        rows=pb.rows,
        raw_bytes=pb.raw_bytes,
        digest=pb.digest,
        sources=tuple(from_pb(Source, source) for source in pb.sources),
    )


TO_PB[CommitRequest], FROM_PB[CommitRequest] = _commit_to_pb, _commit_from_pb
FROM_PB[CommitWait] = _wait_from_pb
