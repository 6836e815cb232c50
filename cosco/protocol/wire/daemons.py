"""Records of daemons and what they are told, to protobuf and back."""

from __future__ import annotations

from typing import Final

from cosco.errors import InvalidArgument
from cosco.protocol.pb import metadata_pb2 as mpb
from cosco.protocol.records import (
    DaemonHeartbeat,
    DaemonOrders,
    DaemonRef,
    DaemonRegistration,
    DaemonState,
    DaemonStatus,
)
from cosco.protocol.wire.plain import Plain

_STATES: Final = {
    DaemonState.SERVING: mpb.DAEMON_STATE_SERVING,
    DaemonState.DRAINING: mpb.DAEMON_STATE_DRAINING,
    DaemonState.DEAD: mpb.DAEMON_STATE_DEAD,
}

_REGISTRATION: Final = Plain(DaemonRegistration, mpb.RegisterDaemonRequest)
registration_to_pb = _REGISTRATION.to_pb

_HEARTBEAT: Final = Plain(DaemonHeartbeat, mpb.HeartbeatRequest)
heartbeat_to_pb, heartbeat_from_pb = _HEARTBEAT.to_pb, _HEARTBEAT.from_pb

_ORDERS: Final = Plain(DaemonOrders, mpb.DaemonOrdersReply)
orders_to_pb, orders_from_pb = _ORDERS.to_pb, _ORDERS.from_pb


def ref_to_pb(ref: DaemonRef) -> mpb.DaemonRef:
    return mpb.DaemonRef(incarnation=ref.incarnation, address=ref.address)


def ref_from_pb(pb: mpb.DaemonRef) -> DaemonRef:
    return DaemonRef(pb.incarnation, pb.address)


def registration_from_pb(pb: mpb.RegisterDaemonRequest) -> DaemonRegistration:
    if not pb.incarnation or not pb.address or not pb.host_id or not pb.store_id:
        raise InvalidArgument("a registration needs incarnation, address, host and store id")
    if max(len(pb.address), len(pb.host_id), len(pb.store_id)) > 256:
        raise InvalidArgument("an address, host id or store id longer than 256 characters")
    return _REGISTRATION.from_pb(pb)


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
