"""The calls of the metadata service as a client makes them: records in, records out."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterable
from typing import Any, Final, Self

from google.protobuf.message import DecodeError
from pyroaring import BitMap

from cosco.client.access.service_connection import Connection, connection_to
from cosco.client.rpc.application_calls import ApplicationCalls
from cosco.client.rpc.capability_calls import CapabilityCalls
from cosco.client.rpc.known_services import SERVICES
from cosco.client.rpc.scope import Scope, Unreachable, retrying
from cosco.client.rpc.transport import Endpoint
from cosco.errors import ServiceUnavailable
from cosco.process.wrong_address import guess
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
    RangesWait,
    RenewedAssignments,
    RowKind,
)
from cosco.protocol.wire import mpb

#: A service that never answered this process is given up after this time.
FIRST_CONTACT_S: Final = 3.0
#: The deadline of one try, on top of what the service is asked to wait.
CALL_TIMEOUT_S: Final = 10.0
_FIRST_CALL_TIMEOUT_S: Final = 5.0


class MetadataClient(ApplicationCalls, CapabilityCalls):
    """One metadata service, for one client object.

    Every method raises the error the service meant; ClientClosed once the scope is closed;
    ServiceUnavailable when the service cannot be reached: after FIRST_CONTACT_S if this process
    has never met it, else after `service_timeout_s`; at once if the process has ended it.
    """

    def __init__(self, metadata: Connection | str, scope: Scope, service_timeout_s: float) -> None:
        """Begin without calling. Raises: InvalidArgument for files of the connection that cannot
        be used."""
        self.connection: Final = connection_to(metadata)
        self.address: Final = self.connection.address
        self._scope = scope
        self._service_timeout_s = service_timeout_s
        self._credential = self.connection.credential()
        self._endpoint = Endpoint(self.address, self.connection.tls)
        self._met_by_others = False

    @property
    def has_ended(self) -> bool:
        """Whether this process has ended the service, with all that it held."""
        return SERVICES.has_ended(self.address)

    def set_met(self) -> None:
        """Count the service as one that has answered, as it has answered others of its exchange."""
        self._met_by_others = True

    def within(self, timeout_s: float) -> Self:
        """Return the same client, which gives up after `timeout_s`; it is closed with this one."""
        hurried = copy.copy(self)
        hurried._service_timeout_s = timeout_s
        return hurried

    def close(self) -> None:
        """Give up the connection."""
        self._endpoint.close()

    def create_exchange(
        self, spec: ExchangeSpec, owner: bytes, *, callback: bool, application_id: str = ""
    ) -> ExchangeInfo:
        """Create an exchange.

        owner: 16 random bytes that tell this call's repetition from another's, or those of its
        application. callback: the driver can have mappers run again.
        """
        request = mpb.CreateExchangeRequest(
            spec=wire.to_pb(spec), owner=owner, callback=callback, application_id=application_id
        )
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

    def begin_reading_ranges(
        self, shuffle_id: str, mappers: BitMap, partitions: BitMap
    ) -> tuple[ExchangeInfo, RangesWait | None]:
        """Ask for the exchange and for the commits of `mappers` to several partitions.

        Returns: the exchange, and what `await_ranges` answers, if some of them are ready at once;
        else None, as of `begin_reading`.
        """
        request = mpb.DescribeExchangeRequest(shuffle_id=shuffle_id)
        if partitions:
            request.reading.mappers = mappers.serialize()
            request.reading.partitions = partitions.serialize()
        reply = self._call("DescribeExchange", request)
        wait = wire.from_pb(RangesWait, reply.commits) if reply.HasField("commits") else None
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

    def close_exchange(self, shuffle_id: str, owner: bytes = b"") -> None:
        """Close an exchange, which is nothing to do if it went with its service.

        Raises InvalidArgument if an `owner` is named that it does not have any more.
        """
        self._close("CloseExchange", mpb.CloseExchangeRequest(shuffle_id=shuffle_id, owner=owner))

    def progress(self, number: int) -> ExchangeProgress:
        reply = self._call("Progress", mpb.ProgressRequest(number=number))
        return wire.from_pb(ExchangeProgress, reply)

    def open_attempt(self, shuffle_id: str, mapper: int | None) -> OpenedAttempt:
        request = mpb.OpenAttemptRequest(shuffle_id=shuffle_id, mapper=mapper)
        return wire.from_pb(OpenedAttempt, self._call("OpenAttempt", request))

    def fix_row_kind(
        self, number: int, kind: RowKind, schema: bytes, *, seen: bytes
    ) -> ExchangeInfo:
        """Decide what the exchange's rows are, unless that was done since they were `seen`.

        Returns: the exchange as it is now.
        """
        request = mpb.FixRowKindRequest(
            number=number,
            kind=mpb.RowKind.Name(int(kind)),
            schema=schema,
            seen=seen,
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

    def await_ranges(
        self,
        number: int,
        mappers: BitMap,
        partitions: BitMap,
        generation: int,
        *,
        wait_s: float,
        outage_s: float | None = None,
    ) -> RangesWait:
        """Wait up to `wait_s` until no partition waits for the mappers, and say which do not.

        `outage_s` shortens the wait for the service.
        """
        request = mpb.AwaitCommitsRequest(
            number=number,
            mappers=mappers.serialize(),
            partitions=partitions.serialize(),
            generation=generation,
            wait_s=wait_s,
        )
        reply = self._call("AwaitCommits", request, wait_s=wait_s, outage_s=outage_s)
        return wire.from_pb(RangesWait, reply)

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
        """Close a group and all exchanges of it; harmless if it is closed, as `close_exchange`."""
        self._close("CloseGroup", mpb.CloseGroupRequest(group_id=group_id))

    def commit_batch(
        self, commits: Iterable[CommitRequest], *, try_s: float
    ) -> tuple[CommitResult, ...]:
        """Commit attempts of exchanges of groups, and return what became of each. Tries once."""
        request = mpb.CommitBatchRequest(commits=map(wire.to_pb, commits))
        reply = self._call("CommitBatch", request, outage_s=0.0, try_s=try_s)
        return tuple(wire.from_pb(CommitResult, result) for result in reply.results)

    def report_uncommitted(
        self, number: int, mappers: BitMap, reason: str, *, range_index: int = 0, build: int = 0
    ) -> None:
        """Have mappers of a group's exchange run again that ended before they committed.

        build: 0 for those that never have, else that of a range that they were called back for.
        """
        request = mpb.ReportUncommittedRequest(
            number=number,
            mappers=mappers.serialize(),
            reason=reason,
            range_index=range_index,
            build=build,
        )
        self._call("ReportUncommitted", request)

    # --- inside ----------------------------------------------------------------------------

    def _close(self, method: str, request: Any) -> None:
        try:
            self._call(method, request)
        except ServiceUnavailable:
            if not self.has_ended:
                raise

    @property
    def _is_met(self) -> bool:
        return self._met_by_others or SERVICES.has_met(self.connection)

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
        body = wire.say_protocol(method, request).SerializeToString()
        started = time.monotonic()

        def attempt() -> bytes:
            timeout_s = wait_s + (try_s if self._is_met else _FIRST_CALL_TIMEOUT_S)
            path = f"/{wire.METADATA_SERVICE}/{method}"
            may_be_another = self.has_ended
            try:
                shown = "" if self._credential is None else self._credential()
                reply = self._endpoint.unary(path, body, timeout_s, self._scope, shown)
            except Unreachable as error:
                if error.told and not self.has_ended:  # it is there, and worth to be waited for
                    SERVICES.meet(self.connection)
                raise
            if may_be_another or not self.has_ended:  # else it was the last word of an ended one
                SERVICES.meet(self.connection)
            return reply

        def limit_s() -> float:
            if self.has_ended:
                return 0.0
            limit_s = self._service_timeout_s if outage_s is None else outage_s
            return limit_s if self._is_met else min(limit_s, FIRST_CONTACT_S)

        failure: Unreachable | None = None
        reply = b""
        try:
            reply = retrying(self._scope, limit_s, attempt)
        except Unreachable as error:
            failure = error
        if failure is not None:
            raise self._unavailable(failure, time.monotonic() - started)
        try:
            return reply_type.FromString(reply)
        except DecodeError as error:
            raise ServiceUnavailable(
                f"the metadata service at {self.address} answered {method} with nonsense: {error}",
                shuffle_id=self._scope.shuffle_id,
            ) from None

    def _unavailable(self, error: Unreachable, seconds: float) -> ServiceUnavailable:
        if self.has_ended:
            return ServiceUnavailable(
                f"the metadata service at {self.address} is gone: this process has closed the "
                "LocalCluster that it was of",
                shuffle_id=self._scope.shuffle_id,
                retriable=False,
            )
        if error.told:
            return ServiceUnavailable(
                f"the metadata service at {self.address} could do nothing for {seconds:.1f} s: "
                f"{error}",
                shuffle_id=self._scope.shuffle_id,
            )
        if self._is_met:
            remedy = "it stopped answering"
        else:
            meaning = guess(str(error))
            remedy = f"{meaning}; " if meaning else ""
            remedy += "is cosco-metadata running there? set metadata= or COSCO_METADATA"
        return ServiceUnavailable(
            f"no answer from the metadata service at {self.address} in {seconds:.1f} s: "
            f"{remedy} ({error})",
            shuffle_id=self._scope.shuffle_id,
        )
