"""Records of exchanges, their placement and their drivers, to protobuf and back."""

from __future__ import annotations

from typing import Final

from cosco.errors import InvalidArgument
from cosco.protocol.pb import metadata_pb2 as mpb
from cosco.protocol.records import (
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
from cosco.protocol.wire.arrays import bitmap_from_bytes, bytes64, u64
from cosco.protocol.wire.daemons import ref_from_pb, ref_to_pb
from cosco.protocol.wire.plain import Plain

_ROW_KINDS: Final = {
    RowKind.UNDECIDED: mpb.ROW_KIND_UNDECIDED,
    RowKind.BYTES: mpb.ROW_KIND_BYTES,
    RowKind.ARROW: mpb.ROW_KIND_ARROW,
}
_PB_ROW_KINDS: Final = {pb: kind for kind, pb in _ROW_KINDS.items()}

_SPEC: Final = Plain(ExchangeSpec, mpb.ExchangeSpec)
spec_to_pb, spec_from_pb = _SPEC.to_pb, _SPEC.from_pb

_STATUS: Final = Plain(ExchangeStatus, mpb.ExchangeStatus)
exchange_status_to_pb, exchange_status_from_pb = _STATUS.to_pb, _STATUS.from_pb


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
