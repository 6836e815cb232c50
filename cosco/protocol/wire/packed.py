"""The messages that are packed by hand: commits, snapshots, and replies that share a part.

Commits and snapshots come by the thousand and carry a number a partition, or a mapper: arrays
of as few bytes as the numbers need. Of the replies to writers and readers most is the same for
all of them, and is serialized once: two serialized messages in a row are one with the fields of
both, also of the messages in them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

import numpy as np
from pyroaring import BitMap

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
    RangeSnapshot,
    RangesWait,
    ReadSnapshot,
    Source,
)
from cosco.protocol.wire.arrays import (
    ascending_u32,
    bitmap_array,
    bitmap_bytes,
    bitmap_from_bytes,
    bytes64,
    gaps_bytes,
    narrow_bytes,
    narrow_u64,
    partitions_from_bytes,
    u64,
)
from cosco.protocol.wire.fields import DELIMITED, field
from cosco.protocol.wire.plain import FROM_PB, TO_PB, from_pb, to_pb

#: An assignment in a commit: its range index times this, plus its epoch.
_RANGE_UNIT: Final = np.uint64(1 << 32)
#: Ranges that a reply has beside its first one are left out beyond this.
MAX_RANGES_BYTES: Final = 4 << 20

_COMMITS_TAG: Final = 8 << 3 | DELIMITED  # ExchangeInfoReply.commits
_SNAPSHOT_TAG: Final = 1 << 3 | DELIMITED  # AwaitCommitsReply.snapshot
_RANGE_TAG: Final = 4 << 3 | DELIMITED  # AwaitCommitsReply.ranges
_COMMON_TAG: Final = 1 << 3 | DELIMITED  # RangeSnapshot.common


# --- writers ------------------------------------------------------------------------------


def opened_info(info: ExchangeInfo) -> bytes:
    """Return what all writers of an exchange are told, for `opened_reply`: all but a capability,
    which need not be the same for all."""
    told = replace(info, capability="")
    return mpb.OpenAttemptReply(info=to_pb(told)).SerializeToString()


def opened_reply(opened: OpenedAttempt, info: bytes, capability: str) -> bytes:
    """Return an OpenAttemptReply, serialized. capability: what this writer is told."""
    own = mpb.OpenAttemptReply(
        mapper=opened.mapper, attempt=opened.attempt, partial=opened.partial, ranges=opened.ranges
    )
    own.info.capability = capability  # who parses both merges them
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
    if len(acknowledged) > 1 and not (acknowledged[1:] > acknowledged[:-1]).all():
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
    """Return what readers of many partitions are told alike, for `wait_reply`, `ranges_reply`."""
    return mpb.ReadSnapshot(
        gaps=gaps_bytes(mappers), attempts=narrow_bytes(attempts), count=len(mappers)
    ).SerializeToString()


def wait_reply(wait: CommitWait, mappers: bytes) -> bytes:
    """Return an AwaitCommitsReply, serialized; `mappers` are those of its snapshot, if any."""
    snapshot = b""
    if wait.snapshot is not None:
        snapshot = field(_SNAPSHOT_TAG, mappers, _own_bytes(wait.snapshot))
    reply = mpb.AwaitCommitsReply(missing=bitmap_bytes(wait.missing), recompute=wait.recompute)
    return snapshot + reply.SerializeToString()


def ranges_reply(wait: RangesWait, mappers_of: Callable[[ReadSnapshot], bytes]) -> bytes:
    """Return an AwaitCommitsReply to a reader of several partitions, serialized.

    `mappers_of` a range's `common` is what `snapshot_mappers` makes of it. Ranges beyond
    MAX_RANGES_BYTES are left out, but for the first one.
    """
    reply = mpb.AwaitCommitsReply(
        waiting=bitmap_bytes(wait.waiting),
        missing=bitmap_bytes(wait.missing),
        recompute=wait.recompute,
        failed=wait.failed,
    ).SerializeToString()
    pieces, length, before = [reply], len(reply), None
    for one in wait.ranges:
        same = (
            before is not None
            and before.mappers is one.common.mappers
            and before.attempts is one.common.attempts
        )
        piece = _range_field(one, b"" if same else mappers_of(one.common), same_mappers=same)
        length += len(piece)
        if length > MAX_RANGES_BYTES and before is not None:
            break
        pieces.append(piece)
        before = one.common
    return b"".join(pieces)


def commits_field(reply: bytes) -> bytes:
    """Return ExchangeInfoReply.commits, serialized, of a serialized AwaitCommitsReply."""
    return field(_COMMITS_TAG, reply)


def _range_field(one: RangeSnapshot, mappers: bytes, *, same_mappers: bool) -> bytes:
    own = mpb.RangeSnapshot(
        partitions=bitmap_bytes(BitMap(one.partitions)),
        rows=narrow_bytes(one.rows),
        raw_bytes=narrow_bytes(one.raw_bytes),
        digests=bytes64(one.digests),
        same_mappers=same_mappers,
    )
    common = field(_COMMON_TAG, mappers, _own_bytes(one.common))
    return field(_RANGE_TAG, common, own.SerializeToString())


def _own_bytes(snapshot: ReadSnapshot) -> bytes:
    """Return all of a snapshot but its mappers, serialized."""
    return mpb.ReadSnapshot(
        version=snapshot.version,
        generation=snapshot.generation,
        build=snapshot.build,
        rows=snapshot.rows,
        raw_bytes=snapshot.raw_bytes,
        digest=snapshot.digest,
        sources=map(to_pb, snapshot.sources),
    ).SerializeToString()


def _ranges_from_pb(pb: mpb.AwaitCommitsReply) -> RangesWait:
    ranges: list[RangeSnapshot] = []
    for one in pb.ranges:
        ranges.append(_range_from_pb(one, ranges[-1] if ranges else None))
    return RangesWait(
        ranges=tuple(ranges),
        waiting=partitions_from_bytes(pb.waiting, "waiting"),
        missing=bitmap_from_bytes(pb.missing, "missing"),
        recompute=pb.recompute,
        failed=pb.failed,
    )


def _range_from_pb(pb: mpb.RangeSnapshot, before: RangeSnapshot | None) -> RangeSnapshot:
    common = _snapshot_from_pb(pb.common)
    if pb.same_mappers:
        if before is None:
            raise InvalidArgument("the first range of a reply refers to the mappers of another")
        shared = before.common
        common = replace(common, mappers=shared.mappers, attempts=shared.attempts)
    partitions = bitmap_array(partitions_from_bytes(pb.partitions, "partitions"))
    digests = u64(pb.digests, "digests")
    if not len(partitions) or len(digests) != len(partitions):
        raise InvalidArgument(f"{len(digests)} digests of {len(partitions)} partitions")
    if before is not None and partitions[0] <= before.partitions[-1]:
        raise InvalidArgument("the ranges of a reply do not ascend")
    return RangeSnapshot(
        common=common,
        partitions=partitions,
        rows=narrow_u64(pb.rows, len(partitions), "rows"),
        raw_bytes=narrow_u64(pb.raw_bytes, len(partitions), "raw_bytes"),
        digests=digests,
    )


def _wait_from_pb(pb: mpb.AwaitCommitsReply) -> CommitWait:
    return CommitWait(
        snapshot=_snapshot_from_pb(pb.snapshot) if pb.HasField("snapshot") else None,
        missing=bitmap_from_bytes(pb.missing, "missing"),
        recompute=pb.recompute,
    )


def _snapshot_from_pb(pb: mpb.ReadSnapshot) -> ReadSnapshot:
    if pb.count > len(pb.attempts):  # they begin at 1, so none is left out as 0
        raise InvalidArgument(f"{len(pb.attempts)} bytes of attempts of {pb.count} mappers")
    attempts = narrow_u64(pb.attempts, pb.count, "attempts")
    if not attempts.all():
        raise InvalidArgument("a snapshot with a mapper of attempt 0")
    return ReadSnapshot(
        version=pb.version,
        generation=pb.generation,
        build=pb.build,
        mappers=ascending_u32(pb.gaps, pb.count, MAX_MAPPER + 1, "mappers"),
        attempts=attempts,
        rows=pb.rows,
        raw_bytes=pb.raw_bytes,
        digest=pb.digest,
        sources=tuple(from_pb(Source, source) for source in pb.sources),
    )


TO_PB[CommitRequest], FROM_PB[CommitRequest] = _commit_to_pb, _commit_from_pb
FROM_PB[CommitWait] = _wait_from_pb
FROM_PB[RangesWait] = _ranges_from_pb
