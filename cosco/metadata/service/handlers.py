"""The calls of the metadata service: messages in, one call of the state, messages out.

The state is called in the event loop and never waits. A reply, an error included, leaves
once everything the state had applied by then is durable. What the state wants to be told to
daemons is the courier's to do (`cosco.metadata.service.courier`), woken by `errands`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from typing import Any, Final

import grpc
from google.protobuf.message import Message

from cosco.errors import CoscoError, ServiceUnavailable
from cosco.metadata.service.encoded_parts import EncodedParts
from cosco.metadata.service.group_handlers import GroupHandlers, UsedIds
from cosco.metadata.service.journal import Journal
from cosco.metadata.service.polls import POLLS_PER_LEASE, Polls, Waiter, bounded_s
from cosco.metadata.state.daemons.errands import ProbeOutcome
from cosco.metadata.state.state import MetadataState
from cosco.protocol import wire
from cosco.protocol.group_records import FoundAssignment
from cosco.protocol.keys import AssignmentKey, RangeEpoch
from cosco.protocol.records import (
    CommitRequest,
    CommitWait,
    DaemonHeartbeat,
    DaemonOrders,
    DaemonRef,
    DaemonRegistration,
    DriverOrders,
    ExchangeInfo,
    ExchangeProgress,
    ExchangeSpec,
    LossReport,
    RenewedAssignments,
)
from cosco.protocol.wire import mpb

log = logging.getLogger(__name__)

#: A report is answered after so many seconds at the latest, with what was believed before.
MAX_REPORT_S: Final = 5.0

#: A writer that opens waits at most this for the epoch that follows one that has ended.
MAX_MOVE_S: Final = 1.0
#: Bound of the encoded parts that are kept for further replies.
MAX_ENCODED_BYTES: Final = 32 << 20


class Handlers:
    """The service as grpc.aio calls it."""

    def __init__(self, state: MetadataState, journal: Journal, used_ids: UsedIds) -> None:
        self._state = state
        self._journal = journal
        self._used_ids = used_ids
        self._polls = Polls(state)
        self._groups = GroupHandlers(state, self._polls, used_ids)
        #: What many writers, or readers, are told alike.
        self._parts = EncodedParts(MAX_ENCODED_BYTES)
        #: Set when the state has probes or fences to take.
        self.errands = self._polls.errands

    def generic_handler(self) -> grpc.GenericRpcHandler:
        """All methods of the service, for `Server.add_generic_rpc_handlers`."""
        methods: dict[str, Callable[[Any], Awaitable[Any]]] = {
            "RegisterDaemon": self.register_daemon,
            "Heartbeat": self.heartbeat,
            "LookupAssignment": self.lookup_assignment,
            "ReportDaemon": self.report_daemon,
            "DrainDaemon": self.drain_daemon,
            "CreateExchange": self.create_exchange,
            "DescribeExchange": self.describe_exchange,
            "PollDriver": self.poll_driver,
            "CloseExchange": self.close_exchange,
            "Progress": self.progress,
            "OpenAttempt": self.open_attempt,
            "FixRowKind": self.fix_row_kind,
            "RenewAssignments": self.renew_assignments,
            "Commit": self.commit,
            "AwaitCommits": self.await_commits,
            "ReportLoss": self.report_loss,
            "Status": self.status,
            **self._groups.methods(),
        }
        return grpc.method_handlers_generic_handler(
            wire.METADATA_SERVICE,
            {
                name: grpc.unary_unary_rpc_method_handler(
                    self._answering(name, methods[name]),
                    request_deserializer=request_type.FromString,
                )
                for name, (request_type, _) in wire.METADATA_METHODS.items()
            },
        )

    def tick(self, now: float) -> None:
        """Let leases run out, and move what waits for daemons."""
        for number in self._state.tick(now):
            self._polls.wake(self._polls.waiting.exchange(number))
        self._polls.changed()

    def probed(self, incarnation: int, outcome: ProbeOutcome) -> None:
        """How a daemon answered when it was asked who is there."""
        self._state.probed(incarnation, outcome, time.monotonic())
        self._polls.wake(self._polls.waiting.probed(incarnation))
        self._polls.changed()

    def fenced(self, incarnation: int, keys: Iterable[AssignmentKey]) -> None:
        """A daemon takes nothing more for these assignments."""
        self._state.fenced(incarnation, keys)
        self._polls.changed()

    def fence_failed(self, incarnation: int) -> None:
        """A daemon could not be told."""
        self._state.fence_failed(incarnation)
        self._polls.changed()

    def stop_waiting(self) -> None:
        """Answer every long poll now, and those that come from now on at once."""
        self._polls.stop()

    # --- daemons ---------------------------------------------------------------------------

    async def register_daemon(self, request: mpb.RegisterDaemonRequest) -> DaemonOrders:
        registration = wire.from_pb(DaemonRegistration, request)
        return self._state.register(registration, time.monotonic())

    async def heartbeat(self, request: mpb.HeartbeatRequest) -> DaemonOrders:
        return self._state.heartbeat(wire.from_pb(DaemonHeartbeat, request), time.monotonic())

    async def lookup_assignment(
        self, request: mpb.LookupAssignmentRequest
    ) -> FoundAssignment | None:
        return self._state.lookup_assignment(
            request.number, request.range_index, request.epoch, request.incarnation
        )

    async def report_daemon(self, request: mpb.ReportDaemonRequest) -> mpb.ReportDaemonReply:
        suspect = wire.from_pb(DaemonRef, request.daemon)
        alive = await self._ask(suspect, request.reporter, request.insist)
        return mpb.ReportDaemonReply(alive=alive)

    async def drain_daemon(self, request: mpb.DrainDaemonRequest) -> None:
        self._state.drain(request.daemon)

    # --- drivers ---------------------------------------------------------------------------

    async def create_exchange(self, request: mpb.CreateExchangeRequest) -> ExchangeInfo:
        spec = wire.from_pb(ExchangeSpec, request.spec)
        used = await self._used(spec.shuffle_id)
        return self._state.create_exchange(
            spec, request.owner, time.monotonic(), used=used, callback=request.callback
        )

    async def describe_exchange(
        self, request: mpb.DescribeExchangeRequest
    ) -> mpb.ExchangeInfoReply:
        used = await self._used(request.shuffle_id)
        owner, now = request.owner, time.monotonic()
        info = self._state.describe_exchange(
            request.shuffle_id, owner, now, used=used, callback=request.callback
        )
        if owner:  # the driver before learns it now, and readers what it can do
            self._polls.wake(self._polls.waiting.exchange(info.number))
        reply: mpb.ExchangeInfoReply = wire.to_pb(info)
        if request.HasField("reading") and info.spec.deterministic:
            with suppress(CoscoError):  # which the reader meets when it asks for itself
                mappers = wire.bitmap_from_bytes(request.reading.mappers, "mappers")
                partition = request.reading.partition
                wait = self._state.await_commits(info.number, mappers, partition, 0, now)
                if wait.snapshot is not None:
                    reply.commits.ParseFromString(self._wait_reply(wait))
        return reply

    async def poll_driver(self, request: mpb.PollDriverRequest) -> DriverOrders:
        number, owner = request.number, request.owner
        answers = request.arranged, [(f.loss_id, f.reason) for f in request.failed]
        with self._polls.telling(number):
            self._state.poll_driver(number, owner, time.monotonic(), *answers)
        wait_s = min(bounded_s(request.wait_s), self._state.lease_s(number) / POLLS_PER_LEASE)
        return await self._polls.poll(
            lambda: self._state.poll_driver(number, owner, time.monotonic()),
            lambda orders: bool(orders.calls),
            lambda _, waiter: self._polls.waiting.add_driver(number, waiter),
            wait_s,
        )

    async def close_exchange(self, request: mpb.CloseExchangeRequest) -> None:
        used = await self._used(request.shuffle_id)
        number = self._state.close_exchange(request.shuffle_id, used=used)
        if number is not None:
            self._polls.wake(self._polls.waiting.exchange(number))

    async def progress(self, request: mpb.ProgressRequest) -> ExchangeProgress:
        return self._state.progress(request.number)

    # --- writers and readers ---------------------------------------------------------------

    async def open_attempt(self, request: mpb.OpenAttemptRequest) -> bytes:
        # To the daemons of an epoch that has ended it would send rows in vain.
        await self._polls.poll(
            lambda: self._state.fencing(request.shuffle_id),
            lambda found: not found[1],
            lambda found, waiter: self._polls.waiting.add_writer(*found, waiter),
            MAX_MOVE_S,
        )
        used = await self._used(request.shuffle_id)
        mapper = request.mapper if request.HasField("mapper") else None
        opened = self._state.open_attempt(request.shuffle_id, mapper, used=used)
        # All writers are told of the same ranges and daemons.
        info = self._parts.get(opened.info, lambda: wire.opened_info(opened.info))
        return wire.opened_reply(opened, info)

    async def fix_row_kind(self, request: mpb.FixRowKindRequest) -> ExchangeInfo:
        kind = wire.fixed_kind(request)
        return self._state.fix_row_kind(request.number, kind, request.schema)

    async def commit(self, request: mpb.CommitRequest) -> mpb.CommitReply:
        with self._polls.telling(request.number):
            won = self._state.commit(wire.from_pb(CommitRequest, request))
        self._polls.wake(self._polls.waiting.committed(request.number, request.mapper))
        return mpb.CommitReply(won=won)

    async def await_commits(self, request: mpb.AwaitCommitsRequest) -> bytes:
        number, partition = request.number, request.partition
        mappers = wire.bitmap_from_bytes(request.mappers, "mappers")

        def look() -> CommitWait:
            return self._state.await_commits(
                number, mappers, partition, request.generation, time.monotonic()
            )

        def add(wait: CommitWait, waiter: Waiter) -> None:
            rebuilt = partition if wait.recompute else None
            self._polls.waiting.add_reader(number, mappers, wait.missing, waiter, rebuilt)

        found = await self._polls.poll(
            look, lambda wait: wait.snapshot is not None, add, bounded_s(request.wait_s)
        )
        return self._wait_reply(found)

    async def renew_assignments(self, request: mpb.RenewAssignmentsRequest) -> RenewedAssignments:
        number, generation = request.number, request.generation
        stale = {wire.from_pb(RangeEpoch, pair) for pair in request.stale}
        if request.HasField("suspect"):
            keys = [AssignmentKey(number, *pair) for pair in stale]
            await self._ask(wire.from_pb(DaemonRef, request.suspect), 0, request.insist, keys)

        def add(renewed: RenewedAssignments, waiter: Waiter) -> None:
            newer = {assignment.range_index for assignment in renewed.assignments}
            waited_for = {pair.range_index for pair in stale} - newer
            self._polls.waiting.add_writer(number, waited_for, waiter)

        return await self._polls.poll(
            lambda: self._state.renew_assignments(number, generation, stale),
            lambda renewed: renewed.alive or not renewed.waiting_for,
            add,
            bounded_s(request.wait_s),
        )

    async def report_loss(self, request: mpb.ReportLossRequest) -> None:
        with self._polls.telling(request.number):
            self._state.report_loss(wire.from_pb(LossReport, request))

    # --- people ----------------------------------------------------------------------------

    async def status(self, _: mpb.StatusRequest) -> mpb.StatusReply:
        daemons, exchanges = self._state.status()
        return mpb.StatusReply(
            cluster_id=self._state.cluster_id,
            daemons=map(wire.to_pb, daemons),
            exchanges=map(wire.to_pb, exchanges),
        )

    # --- inside ----------------------------------------------------------------------------

    def _answering(
        self, name: str, method: Callable[[Any], Awaitable[Any]]
    ) -> Callable[[Any, grpc.aio.ServicerContext[Any, Any]], Awaitable[bytes]]:
        async def call(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> bytes:
            reply, failure = b"", None
            try:
                reply = _serialized(await method(request))
            except CoscoError as error:
                failure = error
            except Exception:
                log.exception("%s failed", name)
                await context.abort(
                    grpc.StatusCode.INTERNAL,
                    f"{name} failed inside the metadata service; its log says why",
                )
            self._polls.changed()
            await self._journal.durable()
            if isinstance(failure, ServiceUnavailable):  # as any outage: the caller tries again
                await context.abort(grpc.StatusCode.UNAVAILABLE, str(failure))
            elif failure is not None:
                await context.abort(
                    grpc.StatusCode.FAILED_PRECONDITION,
                    str(failure),
                    ((wire.ERROR_KEY, wire.error_to_bytes(failure)),),
                )
            return reply

        return call

    def _wait_reply(self, wait: CommitWait) -> bytes:
        """Encode what a reader is told; readers of a range, and often of all, are told of the
        same mappers."""
        snapshot, mappers = wait.snapshot, b""
        if snapshot is not None:
            mappers = self._parts.get(
                snapshot.mappers, lambda: wire.snapshot_mappers(snapshot.mappers, snapshot.attempts)
            )
        return wire.wait_reply(wait, mappers)

    async def _used(self, shuffle_id: str) -> bool:
        """What the state wants to know of an id that it does not hold."""
        return not self._state.knows(shuffle_id) and await self._used_ids.was_used(shuffle_id)

    async def _ask(
        self,
        suspect: DaemonRef,
        reporter: int,
        insist: bool,
        keys: Iterable[AssignmentKey] = (),
    ) -> bool:
        """Have a daemon asked who is there; whether it is believed to live then."""
        incarnation = suspect.incarnation
        self._state.report_daemon(suspect, reporter, insist, time.monotonic(), keys)
        return await self._polls.poll(
            lambda: self._state.is_live(incarnation),
            lambda _: not self._state.is_probed(incarnation),
            lambda _, waiter: self._polls.waiting.add_report(incarnation, waiter),
            MAX_REPORT_S,
        )


def _serialized(reply: Any) -> bytes:
    """Return a reply as it is sent: a record, a message, bytes that are one, or nothing."""
    if reply is None:
        return b""  # a message without fields
    if isinstance(reply, bytes):
        return reply
    message = reply if isinstance(reply, Message) else wire.to_pb(reply)
    return bytes(message.SerializeToString())
