"""What a reader waits for, reads and misses, to protobuf and back."""

from __future__ import annotations

from cosco._pb import metadata_pb2 as mpb
from cosco.errors import InvalidArgument
from cosco.records import (
    CommitWait,
    LossCause,
    LossReport,
    ReadSnapshot,
    Source,
)
from cosco.wire.arrays import bitmap_from_bytes, bytes32, bytes64, u32, u64
from cosco.wire.daemons import ref_from_pb, ref_to_pb


def snapshot_to_pb(s: ReadSnapshot) -> mpb.ReadSnapshot:
    return mpb.ReadSnapshot(
        version=s.version,
        generation=s.generation,
        build=s.build,
        mappers=bytes32(s.mappers),
        attempts=bytes64(s.attempts),
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


def snapshot_from_pb(pb: mpb.ReadSnapshot) -> ReadSnapshot:
    return ReadSnapshot(
        version=pb.version,
        generation=pb.generation,
        build=pb.build,
        mappers=u32(pb.mappers, "mappers"),
        attempts=u64(pb.attempts, "attempts"),
        rows=pb.rows,
        raw_bytes=pb.raw_bytes,
        digest=pb.digest,
        sources=tuple(
            Source(s.range_index, s.epoch, tuple(map(ref_from_pb, s.daemons)), s.sealed)
            for s in pb.sources
        ),
    )


def wait_to_pb(w: CommitWait) -> mpb.AwaitCommitsReply:
    reply = mpb.AwaitCommitsReply(missing=w.missing.serialize(), recompute=w.recompute)
    if w.snapshot is not None:
        reply.snapshot.CopyFrom(snapshot_to_pb(w.snapshot))
    return reply


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
