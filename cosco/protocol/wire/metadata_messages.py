"""Which record is which message.

A record that is part of others comes before them. What is packed by hand, for size, is in
`cosco.protocol.wire.packed`.
"""

from __future__ import annotations

from cosco.errors import InvalidArgument
from cosco.protocol import admin_records, application_records, group_records, keys, records
from cosco.protocol.api_limits import check_part
from cosco.protocol.capability import CapabilityKey, Limits, Rights
from cosco.protocol.daemon_figures import DaemonFigures, check_figures
from cosco.protocol.group_records import FoundAssignment, GroupPart
from cosco.protocol.pb import metadata_pb2 as mpb
from cosco.protocol.pb import shuffle_pb2 as spb
from cosco.protocol.records import DaemonRegistration, RowKind
from cosco.protocol.wire.plain import from_pb, plain

_MAX_NAME_CHARACTERS = 256
#: What rows may be said to be.
_DECIDED = frozenset({RowKind.BYTES, RowKind.ARROW, RowKind.OPAQUE})


def _check_registration(registration: DaemonRegistration) -> None:
    names = registration.address, registration.host_id, registration.store_id
    if not registration.incarnation or not all(names):
        raise InvalidArgument("a registration needs incarnation, address, host and store id")
    for name in (*names, registration.metrics_address):
        if len(name) > _MAX_NAME_CHARACTERS:
            raise InvalidArgument(
                f"an address, host id or store id longer than {_MAX_NAME_CHARACTERS} characters"
            )
        if not name.isprintable():  # people are shown them, in logs and errors
            raise InvalidArgument(
                f"an address, host id or store id with characters that do not print: {name!r}"
            )


def _check_part(part: GroupPart) -> None:
    check_part(part.first, part.size, part.mappers)


def _check_alike(found: FoundAssignment) -> None:
    if found.alike is not None:
        check_part(0, found.alike.size, found.mappers)


plain(keys.RangeEpoch, mpb.RangeEpoch)
plain(keys.AssignmentKey, spb.AssignmentKey)

plain(records.DaemonRef, mpb.DaemonRef)
plain(DaemonRegistration, mpb.RegisterDaemonRequest, check=_check_registration)
plain(records.EpochsDrop, mpb.EpochsDrop)
plain(records.EpochsDropped, mpb.EpochsDropped)
plain(records.StoredBytes, mpb.StoredBytes)
plain(DaemonFigures, mpb.DaemonFigures, check=check_figures)
plain(records.DaemonHeartbeat, mpb.HeartbeatRequest)
plain(CapabilityKey, mpb.CapabilityKey)
plain(records.DaemonOrders, mpb.DaemonOrdersReply)
plain(records.DaemonStatus, mpb.DaemonStatus)

plain(records.ExchangeSpec, mpb.ExchangeSpec)
plain(records.PartitionRange, mpb.PartitionRange)
plain(records.Assignment, mpb.Assignment)
plain(records.ExchangeInfo, mpb.ExchangeInfoReply, apart={"commits"})
plain(records.ExchangeProgress, mpb.ProgressReply)
plain(records.ExchangeStatus, mpb.ExchangeStatus)
plain(records.RecomputeCall, mpb.RecomputeCall)
plain(records.DriverOrders, mpb.PollDriverReply)

plain(admin_records.ExchangePage, mpb.ListExchangesReply)
plain(admin_records.ForgottenStore, mpb.ForgetStoreReply)
plain(admin_records.PartitionSize, mpb.PartitionSize)
plain(admin_records.DaemonShare, mpb.DaemonShare)
plain(admin_records.RangeStatus, mpb.RangeStatus)
plain(admin_records.LossStatus, mpb.LossStatus)
plain(admin_records.RangeFailure, mpb.RangeFailure)
plain(admin_records.ExchangeDetail, mpb.ShowExchangeReply)

plain(records.OpenedAttempt, mpb.OpenAttemptReply)
plain(records.RenewedAssignments, mpb.RenewAssignmentsReply)
plain(records.Source, mpb.Source)
plain(records.LossReport, mpb.ReportLossRequest)

plain(GroupPart, mpb.GroupPart, check=_check_part)
plain(group_records.GroupCall, mpb.GroupCall)
plain(group_records.GroupAnswer, mpb.GroupAnswer)
plain(group_records.CommitResult, mpb.CommitResult)
plain(group_records.Alike, mpb.Alike)
plain(FoundAssignment, mpb.LookupAssignmentReply, check=_check_alike)

plain(application_records.ApplicationCall, mpb.ApplicationCall)
plain(application_records.ApplicationAnswer, mpb.ApplicationAnswer)

plain(group_records.Follow, spb.FollowRequest)
plain(group_records.Followed, spb.FollowReply)


def found_assignment(pb: mpb.LookupAssignmentReply) -> FoundAssignment | None:
    """Return what a daemon asked for, if that is its own; raises InvalidArgument."""
    return from_pb(FoundAssignment, pb) if pb.HasField("assignment") else None


def limits_of(pb: mpb.MakeCapabilityRequest) -> Limits:
    """Return what a capability is to be limited to."""
    rights = (Rights.READ if pb.read else Rights(0)) | (Rights.WRITE if pb.write else Rights(0))
    return Limits(rights, pb.lives_s)


def fixed_kind(pb: mpb.FixRowKindRequest) -> RowKind:
    """Return the kind that a writer fixes; raises InvalidArgument unless it is one, with a schema
    for ARROW alone."""
    kind = int(pb.kind)
    if kind not in _DECIDED or (kind == RowKind.ARROW) != bool(pb.schema):
        raise InvalidArgument("rows are BYTES or OPAQUE without a schema, or ARROW with one")
    return RowKind(kind)
