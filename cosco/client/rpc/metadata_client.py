"""The calls of the metadata service as a client makes them: records in, records out."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any, Final

from google.protobuf.message import DecodeError
from pyroaring import BitMap

from cosco.client.rpc.scope import Scope, Unreachable, retrying
from cosco.client.rpc.transport import Endpoint
from cosco.errors import ServiceUnavailable
from cosco.protocol import wire
from cosco.protocol.api_limits import MAX_PARTITIONS
from cosco.protocol.group_records import CommitResult, GroupAnswer, GroupCall, GroupPart
from cosco.protocol.records import (
    CommitRequest,
    CommitWait,
    DaemonRef,
    DriverOrders,
    ExchangeInfo,
    ExchangeProgress,
    ExchangeSpec,
    LossReport,
    OpenedAttempt,
    RenewedAssignments,
    RowKind,
)
from cosco.protocol.wire import mpb

#: A service that never answered this object is given up after this time.
FIRST_CONTACT_S: Final = 3.0
#: The deadline of one try, on top of what the service is asked to wait.
CALL_TIMEOUT_S: Final = 10.0
_FIRST_CALL_TIMEOUT_S: Final = 5.0


class MetadataClient:
    """One metadata service, for one client object.

    Every method raises the error the service meant; ClientClosed once the scope is closed;
    ServiceUnavailable when the service cannot be reached: after FIRST_CONTACT_S if it never
    was, else after `service_timeout_s`.
    """

    def __init__(self, address: str, scope: Scope, service_timeout_s: float) -> None:
        self.address: Final = address
        self._scope = scope
        self._service_timeout_s = service_timeout_s
        self._endpoint = Endpoint(address)
        self._met = False

    def set_met(self) -> None:
        """Count the service as one that has answered, as it has answered others of its exchange."""
        self._met = True

    def close(self) -> None:
        """Give up the connection."""
        self._endpoint.close()

    def create_exchange(self, spec: ExchangeSpec, owner: bytes, *, callback: bool) -> ExchangeInfo:
        """Create an exchange.

        owner: 16 random bytes that tell this call's repetition from another's. callback: the
        driver can have mappers run again.
        """
        request = mpb.CreateExchangeRequest(spec=wire.to_pb(spec), owner=owner, callback=callback)
        return wire.from_pb(ExchangeInfo, self._call("CreateExchange", request))

    def describe_exchange(
        self, shuffle_id: str, owner: bytes = b"", *, callback: bool = False
    ) -> ExchangeInfo:
        """Return the exchange. An `owner`, if not empty, takes it over, with a callback or not."""
        request = mpb.DescribeExchangeRequest(shuffle_id=shuffle_id, owner=owner, callback=callback)
        return wire.from_pb(ExchangeInfo, self._call("DescribeExchange", request))

    def begin_reading(
        self, shuffle_id: str, mappers: BitMap, partition: int
    ) -> tuple[ExchangeInfo, CommitWait | None]:
        """Ask for the exchange and for the commits of `mappers`.

        Returns: the exchange, and what `await_commits` answers, if that is a snapshot at once;
        else None, as for an exchange that may begin a new generation, of which a reader must hear.
        """
        request = mpb.DescribeExchangeRequest(shuffle_id=shuffle_id)
        if 0 <= partition < MAX_PARTITIONS:  # else it is in no exchange
            request.reading.mappers = mappers.serialize()
            request.reading.partition = partition
        reply = self._call("DescribeExchange", request)
        wait = wire.from_pb(CommitWait, reply.commits) if reply.HasField("commits") else None
        return wire.from_pb(ExchangeInfo, reply), wait

    def poll_driver(
        self,
        number: int,
        owner: bytes,
        *,
        wait_s: float,
        arranged: tuple[int, ...] = (),
        failed: tuple[tuple[int, str], ...] = (),
    ) -> DriverOrders:
        """Renew the lease, answer earlier calls (`failed`: loss id and reason), get others."""
        request = mpb.PollDriverRequest(
            number=number,
            owner=owner,
            wait_s=wait_s,
            arranged=arranged,
            failed=[mpb.RecomputeFailure(loss_id=loss, reason=why) for loss, why in failed],
        )
        return wire.from_pb(DriverOrders, self._call("PollDriver", request, wait_s=wait_s))

    def close_exchange(self, shuffle_id: str) -> None:
        self._call("CloseExchange", mpb.CloseExchangeRequest(shuffle_id=shuffle_id))

    def progress(self, number: int) -> ExchangeProgress:
        return wire.from_pb(
            ExchangeProgress, self._call("Progress", mpb.ProgressRequest(number=number))
        )

    def open_attempt(self, shuffle_id: str, mapper: int | None) -> OpenedAttempt:
        request = mpb.OpenAttemptRequest(shuffle_id=shuffle_id, mapper=mapper)
        return wire.from_pb(OpenedAttempt, self._call("OpenAttempt", request))

    def fix_row_kind(self, number: int, kind: RowKind, schema: bytes) -> ExchangeInfo:
        request = mpb.FixRowKindRequest(
            number=number,
            kind=mpb.RowKind.Name(int(kind)),
            schema=schema,
        )
        return wire.from_pb(ExchangeInfo, self._call("FixRowKind", request))

    def renew_assignments(
        self,
        number: int,
        generation: int,
        stale: Iterable[tuple[int, int]],
        suspect: DaemonRef | None,
        *,
        insist: bool,
        wait_s: float,
        outage_s: float | None = None,
    ) -> RenewedAssignments:
        """Wait up to `wait_s` for successors of the `stale` (range, epoch) pairs.

        `suspect` is a daemon out of reach, asked by the service before it answers; `insist`:
        it was said to be alive and stays out of reach. `outage_s` shortens the wait for the
        service.

        Raises: GenerationChanged, ExchangeClosed.
        """
        request = mpb.RenewAssignmentsRequest(
            number=number,
            generation=generation,
            stale=[mpb.RangeEpoch(range_index=index, epoch=epoch) for index, epoch in stale],
            suspect=None if suspect is None else wire.to_pb(suspect),
            insist=insist,
            wait_s=wait_s,
        )
        reply = self._call("RenewAssignments", request, wait_s=wait_s, outage_s=outage_s)
        return wire.from_pb(RenewedAssignments, reply)

    def commit(self, commit: CommitRequest) -> bool:
        """Whether this attempt is the one that counts."""
        return bool(self._call("Commit", wire.to_pb(commit)).won)

    def await_commits(
        self,
        number: int,
        mappers: BitMap,
        partition: int,
        generation: int,
        *,
        wait_s: float,
        outage_s: float | None = None,
    ) -> CommitWait:
        """Wait up to `wait_s` for the mappers. `outage_s` shortens the wait for the service."""
        request = mpb.AwaitCommitsRequest(
            number=number,
            mappers=mappers.serialize(),
            partition=partition,
            generation=generation,
            wait_s=wait_s,
        )
        reply = self._call("AwaitCommits", request, wait_s=wait_s, outage_s=outage_s)
        return wire.from_pb(CommitWait, reply)

    def report_daemon(
        self, daemon: DaemonRef, *, insist: bool = False, outage_s: float | None = None
    ) -> bool:
        """Say that a daemon is out of reach.

        `insist`: it was said to be alive before. `outage_s` shortens the wait for the service.

        Returns: whether the service can reach it.
        """
        request = mpb.ReportDaemonRequest(daemon=wire.to_pb(daemon), insist=insist)
        return bool(self._call("ReportDaemon", request, outage_s=outage_s).alive)

    def report_loss(self, report: LossReport, *, outage_s: float | None = None) -> None:
        """Say that rows are missing. A report of a build that has ended does nothing.

        `outage_s` shortens the wait for the service.

        Raises: what readers of the partition are to see: DataLost, DataCorrupted,
        GenerationChanged, ExchangeClosed.
        """
        self._call("ReportLoss", wire.to_pb(report), outage_s=outage_s)

    # --- groups ----------------------------------------------------------------------------

    def create_group(
        self,
        spec: ExchangeSpec,
        *,
        mappers: int,
        size: int,
        first: int,
        owner: bytes,
        callback: bool,
    ) -> GroupPart:
        """Make a group (`first` is 0), or extend it from index `first`; `spec` names it.

        As for `create_exchange`, a repeated call succeeds.
        """
        request = mpb.CreateGroupRequest(
            spec=wire.to_pb(spec),
            mappers=mappers,
            size=size,
            first=first,
            owner=owner,
            callback=callback,
        )
        return wire.from_pb(GroupPart, self._call("CreateGroup", request))

    def poll_group(
        self, group_id: str, owner: bytes, *, wait_s: float, answers: Iterable[GroupAnswer] = ()
    ) -> tuple[GroupCall, ...]:
        """Renew the leases of all exchanges of a group, answer earlier calls, get others."""
        request = mpb.PollGroupRequest(
            group_id=group_id,
            owner=owner,
            wait_s=wait_s,
            answers=map(wire.to_pb, answers),
        )
        reply = self._call("PollGroup", request, wait_s=wait_s)
        return tuple(wire.from_pb(GroupCall, call) for call in reply.calls)

    def release_exchanges(self, group_id: str, indexes: BitMap, *, try_s: float) -> None:
        """Close exchanges of a group, and pass over those that are closed. Tries once."""
        request = mpb.ReleaseExchangesRequest(group_id=group_id, indexes=indexes.serialize())
        self._call("ReleaseExchanges", request, outage_s=0.0, try_s=try_s)

    def close_group(self, group_id: str) -> None:
        """Close a group and all exchanges of it; harmless if it is closed."""
        self._call("CloseGroup", mpb.CloseGroupRequest(group_id=group_id))

    def commit_batch(
        self, commits: Iterable[CommitRequest], *, try_s: float
    ) -> tuple[CommitResult, ...]:
        """Commit attempts of exchanges of groups, and return what became of each. Tries once."""
        request = mpb.CommitBatchRequest(commits=map(wire.to_pb, commits))
        reply = self._call("CommitBatch", request, outage_s=0.0, try_s=try_s)
        return tuple(wire.from_pb(CommitResult, result) for result in reply.results)

    def report_uncommitted(self, number: int, mappers: BitMap, reason: str) -> None:
        """Have mappers of a group's exchange run again that ended before they committed."""
        request = mpb.ReportUncommittedRequest(
            number=number, mappers=mappers.serialize(), reason=reason
        )
        self._call("ReportUncommitted", request)

    # --- inside ----------------------------------------------------------------------------

    def _call(
        self,
        method: str,
        request: Any,
        *,
        wait_s: float = 0.0,
        outage_s: float | None = None,
        try_s: float = CALL_TIMEOUT_S,
    ) -> Any:
        _, reply_type = wire.METADATA_METHODS[method]
        body = request.SerializeToString()
        limit_s = self._service_timeout_s if outage_s is None else outage_s
        if not self._met:
            limit_s = min(limit_s, FIRST_CONTACT_S)
        started = time.monotonic()

        def attempt() -> bytes:
            timeout_s = wait_s + (try_s if self._met else _FIRST_CALL_TIMEOUT_S)
            path = f"/{wire.METADATA_SERVICE}/{method}"
            reply = self._endpoint.unary(path, body, timeout_s, self._scope)
            self._met = True
            return reply

        try:
            reply = retrying(self._scope, limit_s, attempt)
        except Unreachable as error:
            raise self._unavailable(error, time.monotonic() - started) from None
        try:
            return reply_type.FromString(reply)
        except DecodeError as error:
            raise ServiceUnavailable(
                f"the metadata service at {self.address} answered {method} with nonsense: {error}",
                shuffle_id=self._scope.shuffle_id,
            ) from None

    def _unavailable(self, error: Unreachable, seconds: float) -> ServiceUnavailable:
        remedy = (
            "it stopped answering"
            if self._met
            else "is cosco-metadata running there? set metadata= or COSCO_METADATA"
        )
        return ServiceUnavailable(
            f"no answer from the metadata service at {self.address} in {seconds:.1f} s: "
            f"{remedy} ({error})",
            shuffle_id=self._scope.shuffle_id,
        )
