"""Records of daemons and what they are told, to protobuf and back."""

from __future__ import annotations

from typing import Final

from cosco._pb import metadata_pb2 as mpb
from cosco.errors import InvalidArgument
from cosco.records import (
    DaemonHeartbeat,
    DaemonOrders,
    DaemonRef,
    DaemonRegistration,
    DaemonState,
    DaemonStatus,
)

_STATES: Final = {
    DaemonState.SERVING: mpb.DAEMON_STATE_SERVING,
    DaemonState.DRAINING: mpb.DAEMON_STATE_DRAINING,
    DaemonState.DEAD: mpb.DAEMON_STATE_DEAD,
}


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
        state=_STATES[s.state],
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
