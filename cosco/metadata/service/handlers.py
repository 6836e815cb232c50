"""The calls of the metadata service: messages in, one call of the state, messages out.

The state is called in the event loop and never waits. A reply, or a CoscoError in its
place, leaves once everything the state had applied by then is durable. What daemons are to be told
or asked is carried out by `cosco.metadata.service.courier`.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any, Final

import grpc
from google.protobuf.message import Message

from cosco.errors import CoscoError, InvalidArgument, ServiceUnavailable
from cosco.metadata.service.application_handlers import ApplicationHandlers
from cosco.metadata.service.encoded_pieces import MAX_ENCODED_BYTES, EncodedPieces
from cosco.metadata.service.journal import Journal
from cosco.metadata.service.polls import (
    EXCHANGES_AT_ONCE,
    POLLS_PER_LEASE,
    Polls,
    Waiter,
    bounded_s,
)
from cosco.metadata.service.reader_calls import ReaderCalls
from cosco.metadata.state.daemons.claims import Claim
from cosco.metadata.state.state import MetadataState
from cosco.metadata.store.database import Database
from cosco.protocol import wire
from cosco.protocol.admin_records import ExchangeDetail, ExchangePage, ForgottenStore
from cosco.protocol.api_limits import check_part, shown
from cosco.protocol.group_records import CommitResult, FoundAssignment, GroupAnswer, GroupPart
from cosco.protocol.keys import AssignmentKey, RangeEpoch
from cosco.protocol.records import (
    CommitRequest,
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

#: A report is answered after this time at the latest, with what is believed then.
MAX_REPORT_S: Final = 5.0
#: A registration is answered after this time at the latest, if need be with "not yet".
MAX_CLAIM_S: Final = 2.0
#: A writer that opens waits at most this for the epoch that follows one that has ended.
MAX_MOVE_S: Final = 1.0
#: Commits of a batch after which other calls have their turn.
COMMITS_AT_ONCE: Final = 64


class Handlers:
    """The service as grpc.aio calls it."""

    def __init__(
        self, state: MetadataState, polls: Polls, journal: Journal, database: Database
    ) -> None:
        self._state = state
        self._polls = polls
        self._journal = journal
        self._database = database
        #: Called for each commit, by whether the attempt counts.
        self.on_commit: Mapping[bool, Callable[[], object]] = dict.fromkeys((True, False), int)
        #: What many writers, or readers, are told alike.
        self._pieces = EncodedPieces(MAX_ENCODED_BYTES)
        self._applications = ApplicationHandlers(state, polls)
        self._readers = ReaderCalls(state, polls, self._pieces)

    def generic_handler(self) -> grpc.GenericRpcHandler:
        """Return all methods of the service, for `Server.add_generic_rpc_handlers`.

        `RegisterDaemon` is `register_daemon`, and so on.
        """
        return grpc.method_handlers_generic_handler(
            wire.METADATA_SERVICE,
            {
                name: grpc.unary_unary_rpc_method_handler(
                    self._answering(name),
                    request_deserializer=request_type.FromString,
                )
                for name, (request_type, _) in wire.METADATA_METHODS.items()
            },
        )

    # --- daemons ---------------------------------------------------------------------------

    async def register_daemon(self, request: mpb.RegisterDaemonRequest) -> DaemonOrders:
        registration = wire.from_pb(DaemonRegistration, request)
        ref = DaemonRef(registration.incarnation, registration.address)
        claim = await self._polls.poll(
            lambda: self._state.members.claim(ref),
            lambda claim: claim is not Claim.ASKED,
            lambda _, waiter: self._polls.waiting.add_report(ref.incarnation, waiter),
            MAX_CLAIM_S,
        )
        if claim is Claim.TAKEN:
            raise InvalidArgument(
                f"another shuffle daemon answers at {shown(ref.address)}, the address of this "
                "one: give each its own with --listen or --advertise"
            )
        if claim is not Claim.GRANTED:
            return self._state.members.not_yet()
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
        self._state.members.drain(request.daemon)

    async def undrain_daemon(self, request: mpb.UndrainDaemonRequest) -> mpb.UndrainDaemonReply:
        was_draining = self._state.members.undrain(request.daemon, time.monotonic())
        return mpb.UndrainDaemonReply(was_draining=was_draining)

    # --- drivers ---------------------------------------------------------------------------

    async def create_exchange(self, request: mpb.CreateExchangeRequest) -> ExchangeInfo:
        spec = wire.from_pb(ExchangeSpec, request.spec)
        used = await self._used(spec.shuffle_id)
        return self._state.create_exchange(
            spec,
            request.owner,
            time.monotonic(),
            used=used,
            callback=request.callback,
            application_id=request.application_id,
        )

    async def describe_exchange(
        self, request: mpb.DescribeExchangeRequest
    ) -> mpb.ExchangeInfoReply | bytes:
        used = await self._used(request.shuffle_id)
        owner, now = request.owner, time.monotonic()
        info = self._state.describe_exchange(
            request.shuffle_id, owner, now, used=used, callback=request.callback
        )
        if owner:  # so the driver before learns it, and readers whether mappers can be run again
            self._polls.wake(self._polls.waiting.exchange(info.number))
        reply: mpb.ExchangeInfoReply = wire.to_pb(info)
        if request.HasField("reading") and info.spec.deterministic:
            with suppress(CoscoError):  # which the reader meets when it asks for itself
                said = self._readers.ready(info.number, request.reading, now)
                return reply.SerializeToString() + wire.commits_field(said) if said else reply
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

    async def close_exchange(self, request: mpb.CloseExchangeRequest) -> mpb.CloseExchangeReply:
        used = await self._used(request.shuffle_id)
        number = self._state.close_exchange(request.shuffle_id, used=used, owner=request.owner)
        if number is not None:
            self._polls.wake(self._polls.waiting.exchange(number))
        return mpb.CloseExchangeReply(was_open=number is not None)

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
        info = self._pieces.get(opened.info, lambda: wire.opened_info(opened.info))
        return wire.opened_reply(opened, info)

    async def fix_row_kind(self, request: mpb.FixRowKindRequest) -> ExchangeInfo:
        kind = wire.fixed_kind(request)
        seen = request.seen if request.HasField("seen") else None
        return self._state.fix_row_kind(request.number, kind, request.schema, seen)

    async def commit(self, request: mpb.CommitRequest) -> mpb.CommitReply:
        return mpb.CommitReply(won=self._commit(request))

    async def await_commits(self, request: mpb.AwaitCommitsRequest) -> bytes:
        return await self._readers.await_commits(request)

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
            self._state.report_loss(wire.from_pb(LossReport, request), time.monotonic())

    # --- groups ----------------------------------------------------------------------------

    async def create_group(self, request: mpb.CreateGroupRequest) -> GroupPart:
        spec = wire.from_pb(ExchangeSpec, request.spec)
        check_part(request.first, request.size, request.mappers)
        used = await self._group_used(spec.shuffle_id)
        taken = None
        if not (request.first or used or self._state.groups.knows(spec.shuffle_id)):
            taken = await self._database.used_in_group(spec.shuffle_id)
        return self._state.groups.create(
            spec,
            request.mappers,
            request.size,
            request.first,
            request.owner,
            time.monotonic(),
            callback=request.callback,
            used=used,
            taken=taken,
        )

    async def poll_group(self, request: mpb.PollGroupRequest) -> mpb.PollGroupReply:
        group_id, owner = request.group_id, request.owner
        used = await self._group_used(group_id)
        answers = [wire.from_pb(GroupAnswer, answer) for answer in request.answers]
        self._polls.told(self._state.groups.answer(group_id, owner, answers, used=used))
        wait_s = min(
            bounded_s(request.wait_s), self._state.groups.lease_s(group_id) / POLLS_PER_LEASE
        )
        calls = await self._polls.poll(
            lambda: self._state.groups.poll(group_id, owner, time.monotonic(), used=True),
            bool,
            lambda _, waiter: self._polls.waiting.add_group(group_id, waiter),
            wait_s,
        )
        return mpb.PollGroupReply(calls=map(wire.to_pb, calls))

    async def release_exchanges(self, request: mpb.ReleaseExchangesRequest) -> None:
        indexes = wire.bitmap_from_bytes(request.indexes, "indexes")
        used = await self._group_used(request.group_id)
        self._polls.told(self._state.groups.release(request.group_id, indexes, used=used))

    async def close_group(self, request: mpb.CloseGroupRequest) -> mpb.CloseGroupReply:
        used = await self._group_used(request.group_id)
        was_open = self._state.groups.knows(request.group_id)
        self._polls.told(self._state.groups.close(request.group_id, used=used))
        self._polls.wake(self._polls.waiting.group(request.group_id))
        return mpb.CloseGroupReply(was_open=was_open)

    async def commit_batch(self, request: mpb.CommitBatchRequest) -> mpb.CommitBatchReply:
        results = []
        for at, commit in enumerate(request.commits, 1):
            try:
                result = CommitResult(self._commit(commit))
            except CoscoError as error:
                result = CommitResult(won=False, error=error)
            results.append(wire.to_pb(result))
            if at % COMMITS_AT_ONCE == 0:
                await asyncio.sleep(0)
        return mpb.CommitBatchReply(results=results)

    async def report_uncommitted(self, request: mpb.ReportUncommittedRequest) -> None:
        mappers = wire.bitmap_from_bytes(request.mappers, "mappers")
        with self._polls.telling(request.number):
            self._state.groups.report_uncommitted(
                request.number, mappers, request.reason, time.monotonic()
            )

    # --- people ----------------------------------------------------------------------------

    async def status(self, _: mpb.StatusRequest) -> mpb.StatusReply:
        daemons, exchanges = self._state.status()
        return mpb.StatusReply(
            cluster_id=self._state.cluster_id,
            daemons=map(wire.to_pb, daemons),
            exchanges=map(wire.to_pb, exchanges),
            open=(counts := self._state.counts()).open,
            closing=counts.closing,
        )

    async def list_exchanges(self, request: mpb.ListExchangesRequest) -> ExchangePage:
        return self._state.overview.page(
            request.phase, request.prefix, request.after, request.limit
        )

    async def show_exchange(self, request: mpb.ShowExchangeRequest) -> ExchangeDetail:
        used = await self._used(request.shuffle_id)
        return self._state.overview.detail(request.shuffle_id, time.monotonic(), used=used)

    async def forget_store(self, request: mpb.ForgetStoreRequest) -> ForgottenStore:
        closed, numbers = self._state.forget_store(request.store_id)
        ranges = doubtful = exchanges = 0
        for at, number in enumerate(numbers, 1):
            if not self._state.is_open(number):
                continue
            with self._polls.telling(number):
                lost, others = self._state.lost_stores.lose_with(
                    number, request.store_id, time.monotonic()
                )
            ranges, doubtful, exchanges = ranges + lost, doubtful + others, exchanges + bool(lost)
            if at % EXCHANGES_AT_ONCE == 0:
                await asyncio.sleep(0)
        return ForgottenStore(closed, ranges, doubtful, exchanges)

    # --- inside ----------------------------------------------------------------------------

    def _answering(
        self, name: str
    ) -> Callable[[Any, grpc.aio.ServicerContext[Any, Any]], Awaitable[bytes]]:
        python_name = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()
        of = self if hasattr(self, python_name) else self._applications
        method: Callable[[Any], Awaitable[Any]] = getattr(of, python_name)

        async def call(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> bytes:
            reply, failure = b"", None
            try:
                await self._journal.usable()
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
            if not isinstance(failure, ServiceUnavailable):
                try:
                    await self._journal.durable_or_told()
                except ServiceUnavailable as error:
                    failure = error
            if failure is not None:
                # An outage, of which the caller tries again, or an answer.
                away = isinstance(failure, ServiceUnavailable)
                await context.abort(
                    grpc.StatusCode.UNAVAILABLE if away else grpc.StatusCode.FAILED_PRECONDITION,
                    str(failure),
                    ((wire.ERROR_KEY, wire.error_to_bytes(failure)),),
                )
            return reply

        return call

    def _commit(self, request: mpb.CommitRequest) -> bool:
        commit = wire.from_pb(CommitRequest, request)
        with self._polls.telling(commit.number):
            won = self._state.commit(commit)
        self.on_commit[won]()
        self._polls.wake(self._polls.waiting.committed(commit.number, commit.mapper))
        return won

    async def _used(self, shuffle_id: str) -> bool:
        """Whether the state does not hold this id and the database knows that it was used."""
        return not self._state.knows(shuffle_id) and await self._database.was_used(shuffle_id)

    async def _group_used(self, group_id: str) -> bool:
        """Whether it is so for the id of a group."""
        return not self._state.groups.knows(group_id) and await self._database.was_group(group_id)

    async def _ask(
        self,
        suspect: DaemonRef,
        reporter: int,
        insist: bool,
        keys: Iterable[AssignmentKey] = (),
    ) -> bool:
        """Have a daemon asked who is there.

        Returns: whether it is believed to live then.
        """
        incarnation = suspect.incarnation
        self._state.members.report(suspect, reporter, insist, keys)
        return await self._polls.poll(
            lambda: self._state.members.is_live(incarnation),
            lambda _: not self._state.members.is_probed(incarnation),
            lambda _, waiter: self._polls.waiting.add_report(incarnation, waiter),
            MAX_REPORT_S,
        )


def _serialized(reply: Any) -> bytes:
    """Return the bytes to send for a record, a message, the bytes of a message, or None."""
    if reply is None:
        return b""  # a message without fields
    if isinstance(reply, bytes):
        return reply
    message = reply if isinstance(reply, Message) else wire.to_pb(reply)
    return bytes(message.SerializeToString())
