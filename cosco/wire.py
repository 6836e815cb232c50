"""Records to protobuf and back: with `cosco.bulk`, all that knows the generated types.

Decoding a message checks what cannot be left to luck (lengths of parallel arrays, ids in
range) and raises InvalidArgument; whoever serves the call turns that into a refusal.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from pyroaring import BitMap

import cosco.errors as errors
from cosco._pb import metadata_pb2 as mpb
from cosco._pb import shuffle_pb2 as spb
from cosco.bulk import fetch_data, fetch_reply, fetch_request, push_frame, push_request
from cosco.errors import CoscoError, InvalidArgument, ServiceUnavailable
from cosco.records import (
    MAX_MAPPER,
    U32,
    U64,
    Assignment,
    AttemptSums,
    CommitRequest,
    CommitWait,
    DaemonHeartbeat,
    DaemonOrders,
    DaemonRef,
    DaemonRegistration,
    DaemonState,
    DaemonStatus,
    DriverOrders,
    ExchangeInfo,
    ExchangeProgress,
    ExchangeSpec,
    ExchangeStatus,
    LossCause,
    LossReport,
    OpenedAttempt,
    PartitionRange,
    ReadSnapshot,
    RecomputeCall,
    RenewedAssignments,
    RowKind,
    Source,
)

__all__ = [
    "METADATA_METHODS", "METADATA_SERVICE", "SHUFFLE_SERVICE", "fetch_data", "fetch_reply",
    "fetch_request", "mpb", "push_frame", "push_request", "spb",
]  # fmt: skip

METADATA_SERVICE: Final = "cosco.v1.Metadata"
SHUFFLE_SERVICE: Final = "cosco.v1.Shuffle"
#: Trailing metadata key of an ErrorDetail.
ERROR_KEY: Final = "cosco-error-bin"
#: An error names so many mappers at most; those that are left are named by the next one.
MAX_ERROR_MAPPERS: Final = 100_000
#: Which takes less than this, of trailing metadata.
MAX_ERROR_BYTES: Final = 1 << 20
#: Version of the push stream that Hello names.
PUSH_PROTOCOL: Final = 1
#: Messages of the metadata service stay below this; 100,000 mappers take 1.2 MB.
MAX_METADATA_MESSAGE_BYTES: Final = 64 << 20

_ROW_KINDS: Final = {
    RowKind.UNDECIDED: mpb.ROW_KIND_UNDECIDED,
    RowKind.BYTES: mpb.ROW_KIND_BYTES,
    RowKind.ARROW: mpb.ROW_KIND_ARROW,
}
_PB_ROW_KINDS: Final = {pb: kind for kind, pb in _ROW_KINDS.items()}
_DAEMON_STATES: Final = {
    DaemonState.SERVING: mpb.DAEMON_STATE_SERVING,
    DaemonState.DRAINING: mpb.DAEMON_STATE_DRAINING,
    DaemonState.DEAD: mpb.DAEMON_STATE_DEAD,
}

#: method → (request type, reply type) of the metadata service.
METADATA_METHODS: Final[dict[str, tuple[Any, Any]]] = {
    "RegisterDaemon": (mpb.RegisterDaemonRequest, mpb.DaemonOrdersReply),
    "Heartbeat": (mpb.HeartbeatRequest, mpb.DaemonOrdersReply),
    "LookupAssignment": (mpb.LookupAssignmentRequest, mpb.LookupAssignmentReply),
    "ReportDaemon": (mpb.ReportDaemonRequest, mpb.ReportDaemonReply),
    "DrainDaemon": (mpb.DrainDaemonRequest, mpb.DrainDaemonReply),
    "CreateExchange": (mpb.CreateExchangeRequest, mpb.ExchangeInfoReply),
    "DescribeExchange": (mpb.DescribeExchangeRequest, mpb.ExchangeInfoReply),
    "PollDriver": (mpb.PollDriverRequest, mpb.PollDriverReply),
    "CloseExchange": (mpb.CloseExchangeRequest, mpb.CloseExchangeReply),
    "Progress": (mpb.ProgressRequest, mpb.ProgressReply),
    "OpenAttempt": (mpb.OpenAttemptRequest, mpb.OpenAttemptReply),
    "FixRowKind": (mpb.FixRowKindRequest, mpb.ExchangeInfoReply),
    "RenewAssignments": (mpb.RenewAssignmentsRequest, mpb.RenewAssignmentsReply),
    "Commit": (mpb.CommitRequest, mpb.CommitReply),
    "AwaitCommits": (mpb.AwaitCommitsRequest, mpb.AwaitCommitsReply),
    "ReportLoss": (mpb.ReportLossRequest, mpb.ReportLossReply),
    "Status": (mpb.StatusRequest, mpb.StatusReply),
}


# --- errors -------------------------------------------------------------------------------


def error_to_bytes(error: CoscoError) -> bytes:
    detail = mpb.ErrorDetail(
        kind=type(error).__name__,
        message=str(error),
        shuffle_id=error.shuffle_id or "",
        mappers=error.mappers[:MAX_ERROR_MAPPERS],
        retriable=error.retriable,
    )
    if error.partition is not None:
        detail.partition = error.partition
    return detail.SerializeToString()


def error_from_bytes(data: bytes) -> CoscoError:
    """The error a service meant; ServiceUnavailable for a kind unknown to this version."""
    detail = mpb.ErrorDetail.FromString(data)
    cls = getattr(errors, detail.kind, None)
    if not (isinstance(cls, type) and issubclass(cls, CoscoError)):
        cls = ServiceUnavailable
    return cls(
        detail.message,
        shuffle_id=detail.shuffle_id or None,
        mappers=tuple(detail.mappers),
        partition=detail.partition if detail.HasField("partition") else None,
        retriable=detail.retriable,
    )


# --- arrays and bitmaps -------------------------------------------------------------------


def _u32(data: bytes, what: str) -> U32:
    if len(data) % 4:
        raise InvalidArgument(f"{what}: {len(data)} bytes are no array of uint32")
    return np.frombuffer(data, dtype="<u4")


def _u64(data: bytes, what: str) -> U64:
    if len(data) % 8:
        raise InvalidArgument(f"{what}: {len(data)} bytes are no array of uint64")
    return np.frombuffer(data, dtype="<u8")


def _bytes32(array: U32) -> bytes:
    return np.ascontiguousarray(array, dtype="<u4").tobytes()


def _bytes64(array: U64) -> bytes:
    return np.ascontiguousarray(array, dtype="<u8").tobytes()


def bitmap_from_bytes(data: bytes, what: str) -> BitMap:
    """A roaring bitmap of mapper ids; raises InvalidArgument."""
    if not data:
        return BitMap()
    try:
        bitmap = BitMap.deserialize(data)
    except Exception as error:  # the library raises plain and various errors
        raise InvalidArgument(f"{what}: no roaring bitmap") from error
    if bitmap and bitmap.max() > MAX_MAPPER:
        raise InvalidArgument(f"{what}: mapper {bitmap.max()} is beyond {MAX_MAPPER}")
    return bitmap


# --- daemons ------------------------------------------------------------------------------


def ref_to_pb(ref: DaemonRef) -> mpb.DaemonRef:
    return mpb.DaemonRef(incarnation=ref.incarnation, address=ref.address)


def ref_from_pb(pb: mpb.DaemonRef) -> DaemonRef:
    return DaemonRef(pb.incarnation, pb.address)


def registration_to_pb(r: DaemonRegistration) -> mpb.RegisterDaemonRequest:
    return mpb.RegisterDaemonRequest(
        incarnation=r.incarnation,
        address=r.address,
        host_id=r.host_id,
        store_id=r.store_id,
        memory_bytes=r.memory_bytes,
        free_bytes=r.free_bytes,
        metrics_address=r.metrics_address,
        exchanges=r.exchanges,
        draining=r.draining,
    )


def registration_from_pb(pb: mpb.RegisterDaemonRequest) -> DaemonRegistration:
    if not pb.incarnation or not pb.address or not pb.host_id or not pb.store_id:
        raise InvalidArgument("a registration needs incarnation, address, host and store id")
    if max(len(pb.address), len(pb.host_id), len(pb.store_id)) > 256:
        raise InvalidArgument("an address, host id or store id longer than 256 characters")
    return DaemonRegistration(
        incarnation=pb.incarnation,
        address=pb.address,
        host_id=pb.host_id,
        store_id=pb.store_id,
        memory_bytes=pb.memory_bytes,
        free_bytes=pb.free_bytes,
        metrics_address=pb.metrics_address,
        exchanges=tuple(pb.exchanges),
        draining=pb.draining,
    )


def heartbeat_to_pb(h: DaemonHeartbeat) -> mpb.HeartbeatRequest:
    return mpb.HeartbeatRequest(
        incarnation=h.incarnation,
        free_bytes=h.free_bytes,
        dropped=h.dropped,
        draining=h.draining,
        store_failing=h.store_failing,
        exchanges=h.exchanges,
        unstored_bytes=h.unstored_bytes,
    )


def heartbeat_from_pb(pb: mpb.HeartbeatRequest) -> DaemonHeartbeat:
    return DaemonHeartbeat(
        incarnation=pb.incarnation,
        free_bytes=pb.free_bytes,
        dropped=tuple(pb.dropped),
        draining=pb.draining,
        store_failing=pb.store_failing,
        exchanges=tuple(pb.exchanges),
        unstored_bytes=pb.unstored_bytes,
    )


def orders_to_pb(o: DaemonOrders) -> mpb.DaemonOrdersReply:
    return mpb.DaemonOrdersReply(
        known=o.known,
        cluster_id=o.cluster_id,
        lease_s=o.lease_s,
        drop=o.drop,
        drain=o.drain,
        may_exit=o.may_exit,
    )


def orders_from_pb(pb: mpb.DaemonOrdersReply) -> DaemonOrders:
    return DaemonOrders(
        known=pb.known,
        cluster_id=pb.cluster_id,
        lease_s=pb.lease_s,
        drop=tuple(pb.drop),
        drain=pb.drain,
        may_exit=pb.may_exit,
    )


def daemon_status_to_pb(s: DaemonStatus) -> mpb.DaemonStatus:
    return mpb.DaemonStatus(
        ref=ref_to_pb(s.ref),
        host_id=s.host_id,
        store_id=s.store_id,
        state=_DAEMON_STATES[s.state],
        memory_bytes=s.memory_bytes,
        free_bytes=s.free_bytes,
        metrics_address=s.metrics_address,
        assignments=s.assignments,
    )


def daemon_status_from_pb(pb: mpb.DaemonStatus) -> DaemonStatus:
    return DaemonStatus(
        ref=ref_from_pb(pb.ref),
        host_id=pb.host_id,
        store_id=pb.store_id,
        state=DaemonState(pb.state),
        memory_bytes=pb.memory_bytes,
        free_bytes=pb.free_bytes,
        metrics_address=pb.metrics_address,
        assignments=pb.assignments,
    )


# --- exchanges ----------------------------------------------------------------------------


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
        partitions=_bytes32(c.sums.partitions),
        rows=_bytes64(c.sums.rows),
        raw_bytes=_bytes64(c.sums.raw_bytes),
        stored_bytes=_bytes64(c.sums.stored_bytes),
        digests=_bytes64(c.sums.digests),
        partial=c.partial,
        ranges=c.ranges,
    )


def commit_from_pb(pb: mpb.CommitRequest) -> CommitRequest:
    sums = AttemptSums(
        _u32(pb.partitions, "partitions"),
        _u64(pb.rows, "rows"),
        _u64(pb.raw_bytes, "raw_bytes"),
        _u64(pb.stored_bytes, "stored_bytes"),
        _u64(pb.digests, "digests"),
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


def snapshot_to_pb(s: ReadSnapshot) -> mpb.ReadSnapshot:
    return mpb.ReadSnapshot(
        version=s.version,
        generation=s.generation,
        build=s.build,
        mappers=_bytes32(s.mappers),
        attempts=_bytes64(s.attempts),
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
        mappers=_u32(pb.mappers, "mappers"),
        attempts=_u64(pb.attempts, "attempts"),
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
        partition_rows=_bytes64(p.partition_rows),
        partition_bytes=_bytes64(p.partition_bytes),
        replicas=p.replicas,
    )


def progress_from_pb(pb: mpb.ProgressReply) -> ExchangeProgress:
    return ExchangeProgress(
        mappers_committed=pb.mappers_committed,
        rows=pb.rows,
        bytes_raw=pb.raw_bytes,
        bytes_stored=pb.stored_bytes,
        partition_rows=_u64(pb.partition_rows, "partition_rows"),
        partition_bytes=_u64(pb.partition_bytes, "partition_bytes"),
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
