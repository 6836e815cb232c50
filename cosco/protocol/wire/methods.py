"""Names, methods and limits of the services that protos/cosco/v1 defines."""

from __future__ import annotations

from typing import Any, Final

from cosco.protocol.pb import metadata_pb2 as mpb

METADATA_SERVICE: Final = "cosco.v1.Metadata"
SHUFFLE_SERVICE: Final = "cosco.v1.Shuffle"
#: Version of the push stream that Hello names.
PUSH_PROTOCOL: Final = 1
#: Messages of the metadata service stay below this; 100,000 mappers take 1.2 MB.
MAX_METADATA_MESSAGE_BYTES: Final = 64 << 20

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
    "CreateGroup": (mpb.CreateGroupRequest, mpb.GroupPart),
    "PollGroup": (mpb.PollGroupRequest, mpb.PollGroupReply),
    "ReleaseExchanges": (mpb.ReleaseExchangesRequest, mpb.ReleaseExchangesReply),
    "CloseGroup": (mpb.CloseGroupRequest, mpb.CloseGroupReply),
    "CommitBatch": (mpb.CommitBatchRequest, mpb.CommitBatchReply),
    "ReportUncommitted": (mpb.ReportUncommittedRequest, mpb.ReportUncommittedReply),
    "Status": (mpb.StatusRequest, mpb.StatusReply),
}
