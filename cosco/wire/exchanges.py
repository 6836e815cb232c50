"""Records of exchanges, their placement and their drivers, to protobuf and back."""

from __future__ import annotations

from typing import Final

from cosco._pb import metadata_pb2 as mpb
from cosco.errors import InvalidArgument
from cosco.records import (
    Assignment,
    DriverOrders,
    ExchangeInfo,
    ExchangeProgress,
    ExchangeSpec,
    ExchangeStatus,
    PartitionRange,
    RecomputeCall,
    RowKind,
)
from cosco.wire.arrays import bitmap_from_bytes, bytes64, u64
from cosco.wire.daemons import ref_from_pb, ref_to_pb

_ROW_KINDS: Final = {
    RowKind.UNDECIDED: mpb.ROW_KIND_UNDECIDED,
    RowKind.BYTES: mpb.ROW_KIND_BYTES,
    RowKind.ARROW: mpb.ROW_KIND_ARROW,
}
_PB_ROW_KINDS: Final = {pb: kind for kind, pb in _ROW_KINDS.items()}


def spec_to_pb(s: ExchangeSpec) -> mpb.ExchangeSpec:
    return mpb.ExchangeSpec(
        shuffle_id=s.shuffle_id,
        partitions=s.partitions,
        replicas=s.replicas,
        min_replicas=s.min_replicas,
        codec=s.codec,
        deterministic=s.deterministic,
        lease_s=s.lease_s,
        schema=s.schema,
    )


def spec_from_pb(pb: mpb.ExchangeSpec) -> ExchangeSpec:
    return ExchangeSpec(
        shuffle_id=pb.shuffle_id,
        partitions=pb.partitions,
        replicas=pb.replicas,
        min_replicas=pb.min_replicas,
        codec=pb.codec,
        deterministic=pb.deterministic,
        lease_s=pb.lease_s,
        schema=pb.schema,
    )


def range_to_pb(r: PartitionRange) -> mpb.PartitionRange:
    return mpb.PartitionRange(index=r.index, first=r.first, count=r.count)


def range_from_pb(pb: mpb.PartitionRange) -> PartitionRange:
    return PartitionRange(pb.index, pb.first, pb.count)


def assignment_to_pb(a: Assignment) -> mpb.Assignment:
    return mpb.Assignment(
        range_index=a.range_index,
        epoch=a.epoch,
        build=a.build,
        primary=ref_to_pb(a.primary),
        replicas=[ref_to_pb(r) for r in a.replicas],
        sealed=a.sealed,
    )


def assignment_from_pb(pb: mpb.Assignment) -> Assignment:
    return Assignment(
        range_index=pb.range_index,
        epoch=pb.epoch,
        build=pb.build,
        primary=ref_from_pb(pb.primary),
        replicas=tuple(ref_from_pb(r) for r in pb.replicas),
        sealed=pb.sealed,
    )


def info_to_pb(i: ExchangeInfo) -> mpb.ExchangeInfoReply:
    return mpb.ExchangeInfoReply(
        number=i.number,
        spec=spec_to_pb(i.spec),
        generation=i.generation,
        kind=_ROW_KINDS[i.kind],
        schema=i.schema,
        ranges=[range_to_pb(r) for r in i.ranges],
        assignments=[assignment_to_pb(a) for a in i.assignments],
    )


def info_from_pb(pb: mpb.ExchangeInfoReply) -> ExchangeInfo:
    return ExchangeInfo(
        number=pb.number,
        spec=spec_from_pb(pb.spec),
        generation=pb.generation,
        kind=RowKind(pb.kind),
        schema=pb.schema,
        ranges=tuple(range_from_pb(r) for r in pb.ranges),
        assignments=tuple(assignment_from_pb(a) for a in pb.assignments),
    )


def kind_from_pb(pb: mpb.FixRowKindRequest) -> RowKind:
    """The kind a writer fixes; raises InvalidArgument for anything but BYTES and ARROW."""
    kind = _PB_ROW_KINDS.get(pb.kind, RowKind.UNDECIDED)
    if kind is RowKind.UNDECIDED or (kind is RowKind.ARROW) != bool(pb.schema):
        raise InvalidArgument("rows are BYTES without a schema or ARROW with one")
    return kind


def driver_orders_to_pb(o: DriverOrders) -> mpb.PollDriverReply:
    return mpb.PollDriverReply(
        calls=[
            mpb.RecomputeCall(loss_id=c.loss_id, mappers=c.mappers.serialize(), reason=c.reason)
            for c in o.calls
        ]
    )


def driver_orders_from_pb(pb: mpb.PollDriverReply) -> DriverOrders:
    return DriverOrders(
        tuple(
            RecomputeCall(c.loss_id, bitmap_from_bytes(c.mappers, "mappers"), c.reason)
            for c in pb.calls
        )
    )


def progress_to_pb(p: ExchangeProgress) -> mpb.ProgressReply:
    return mpb.ProgressReply(
        mappers_committed=p.mappers_committed,
        rows=p.rows,
        raw_bytes=p.bytes_raw,
        stored_bytes=p.bytes_stored,
        partition_rows=bytes64(p.partition_rows),
        partition_bytes=bytes64(p.partition_bytes),
        replicas=p.replicas,
    )


def progress_from_pb(pb: mpb.ProgressReply) -> ExchangeProgress:
    return ExchangeProgress(
        mappers_committed=pb.mappers_committed,
        rows=pb.rows,
        bytes_raw=pb.raw_bytes,
        bytes_stored=pb.stored_bytes,
        partition_rows=u64(pb.partition_rows, "partition_rows"),
        partition_bytes=u64(pb.partition_bytes, "partition_bytes"),
        replicas=pb.replicas,
    )


def exchange_status_to_pb(s: ExchangeStatus) -> mpb.ExchangeStatus:
    return mpb.ExchangeStatus(
        shuffle_id=s.shuffle_id,
        number=s.number,
        partitions=s.partitions,
        mappers_committed=s.mappers_committed,
        rows=s.rows,
        closing=s.closing,
    )


def exchange_status_from_pb(pb: mpb.ExchangeStatus) -> ExchangeStatus:
    return ExchangeStatus(
        shuffle_id=pb.shuffle_id,
        number=pb.number,
        partitions=pb.partitions,
        mappers_committed=pb.mappers_committed,
        rows=pb.rows,
        closing=pb.closing,
    )
