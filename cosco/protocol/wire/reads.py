"""What a reader waits for, reads and misses, to protobuf and back."""

from __future__ import annotations

from cosco.errors import InvalidArgument
from cosco.protocol.api_limits import MAX_MAPPER
from cosco.protocol.pb import metadata_pb2 as mpb
from cosco.protocol.records import (
    U32,
    U64,
    CommitWait,
    LossCause,
    LossReport,
    ReadSnapshot,
    Source,
)
from cosco.protocol.wire.arrays import (
    ascending_u32,
    bitmap_from_bytes,
    gaps_bytes,
    narrow_bytes,
    narrow_u64,
)
from cosco.protocol.wire.daemons import ref_from_pb, ref_to_pb


def snapshot_mappers(mappers: U32, attempts: U64) -> bytes:
    """What readers of many partitions are told alike, for `wait_reply`."""
    snapshot = mpb.ReadSnapshot(
        gaps=gaps_bytes(mappers), attempts=narrow_bytes(attempts), count=len(mappers)
    )
    return mpb.AwaitCommitsReply(snapshot=snapshot).SerializeToString()


def snapshot_from_pb(pb: mpb.ReadSnapshot) -> ReadSnapshot:
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
        sources=tuple(
            Source(s.range_index, s.epoch, tuple(map(ref_from_pb, s.daemons)), s.sealed)
            for s in pb.sources
        ),
    )


def wait_reply(w: CommitWait, mappers: bytes) -> bytes:
    """AwaitCommitsReply, serialized; `mappers` are those of its snapshot, if it has one.

    Two messages in a row are one with the fields of both, also of the messages in them.
    """
    s, snapshot = w.snapshot, None
    if s is not None:
        snapshot = mpb.ReadSnapshot(
            version=s.version,
            generation=s.generation,
            build=s.build,
            rows=s.rows,
            raw_bytes=s.raw_bytes,
            digest=s.digest,
            sources=[
                mpb.Source(
                    range_index=source.range_index,
                    epoch=source.epoch,
                    daemons=[ref_to_pb(d) for d in source.daemons],
                    sealed=source.sealed,
                )
                for source in s.sources
            ],
        )
    own = mpb.AwaitCommitsReply(
        snapshot=snapshot, missing=w.missing.serialize(), recompute=w.recompute
    )
    return mappers + own.SerializeToString()


def wait_from_pb(pb: mpb.AwaitCommitsReply) -> CommitWait:
    return CommitWait(
        snapshot=snapshot_from_pb(pb.snapshot) if pb.HasField("snapshot") else None,
        missing=bitmap_from_bytes(pb.missing, "missing"),
        recompute=pb.recompute,
    )


def loss_to_pb(r: LossReport) -> mpb.ReportLossRequest:
    return mpb.ReportLossRequest(
        number=r.number,
        generation=r.generation,
        build=r.build,
        partition=r.partition,
        cause=mpb.LossCause.Name(int(r.cause)),
        reason=r.reason,
    )


def loss_from_pb(pb: mpb.ReportLossRequest) -> LossReport:
    if pb.cause not in (mpb.LOSS_CAUSE_GONE, mpb.LOSS_CAUSE_MISSING):
        raise InvalidArgument(f"a loss of the unknown cause {pb.cause}")
    return LossReport(
        number=pb.number,
        generation=pb.generation,
        build=pb.build,
        partition=pb.partition,
        cause=LossCause(pb.cause),
        reason=pb.reason,
    )
