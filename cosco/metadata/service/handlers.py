"""The calls of the metadata service: messages in, one call of the state, messages out.

The state is called in the event loop and never waits. A reply, or a CoscoError in its
place, leaves once everything the state had applied by then is durable. What daemons are to be told
or asked is carried out by `cosco.metadata.service.courier`.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import re
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any, Final

import grpc
from google.protobuf.message import Message

from cosco.config import parse_peer
from cosco.errors import CoscoError, InvalidArgument
from cosco.metadata.service.access_handlers import AccessHandlers
from cosco.metadata.service.application_handlers import ApplicationHandlers
from cosco.metadata.service.durable_answers import DurableAnswers
from cosco.metadata.service.encoded_pieces import MAX_ENCODED_BYTES, EncodedPieces
from cosco.metadata.service.event_handlers import EventHandlers
from cosco.metadata.service.guard import Guard, Visit
from cosco.metadata.service.journal import Journal
from cosco.metadata.service.limits.daemon_room import DaemonRoom
from cosco.metadata.service.polls import (
    EXCHANGES_AT_ONCE,
    POLLS_PER_LEASE,
    Polls,
    Waiter,
    bounded_s,
    held_by,
)
from cosco.metadata.service.reader_calls import ReaderCalls
from cosco.metadata.state.daemons.claims import Claim
from cosco.metadata.state.event_history import EventHistory
from cosco.metadata.state.state import MetadataState
from cosco.metadata.store.database import Database
from cosco.process.build import VERSION
from cosco.process.grpc_handlers.parsed_requests import unary_unary
from cosco.process.grpc_handlers.refusals import refuse
from cosco.protocol import wire
from cosco.protocol.admin_records import ExchangeDetail, ExchangePage, ForgottenStore
from cosco.protocol.api_limits import check_part, check_stale_count, shown
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
        self,
        state: MetadataState,
        polls: Polls,
        journal: Journal,
        database: Database,
        guard: Guard | None = None,
        history: EventHistory | None = None,
    ) -> None:
        """guard: decides who may make which call; None: anybody any. history: what was told."""
        self._guard = guard or Guard(state)
        self._state = state
        self._polls = polls
        #: Makes calls that came by something else as well.
        self.answers = DurableAnswers(polls, journal, self._guard.calls)
        self._database = database
        #: Says which daemons may register.
        self.daemon_room = DaemonRoom(state)
        #: Called for each commit, by whether the attempt counts.
        self.on_commit: Mapping[bool, Callable[[], object]] = dict.fromkeys((True, False), int)
        #: What many writers, or readers, are told alike.
        self._pieces = EncodedPieces(MAX_ENCODED_BYTES)
        self._others = _others(state, polls, database, history or EventHistory())
        self._readers = ReaderCalls(state, polls, self._pieces)

    def generic_handler(self) -> grpc.GenericRpcHandler:
        """Return all methods of the service, for `Server.add_generic_rpc_handlers`.

        `RegisterDaemon` is `register_daemon`, and so on.
        """
        return grpc.method_handlers_generic_handler(
            wire.METADATA_SERVICE,
            {
                name: unary_unary(self._answering(name), wire.request_parser(name))
                for name in wire.METADATA_METHODS
            },
        )

    # --- daemons ---------------------------------------------------------------------------

    async def register_daemon(self, request: mpb.RegisterDaemonRequest) -> DaemonOrders:
        registration = wire.from_pb(DaemonRegistration, request)
        parse_peer(registration.address)  # everybody is told it, and is to connect to it
        ref = DaemonRef(registration.incarnation, registration.address)
        self.daemon_room.check(ref)
        claim = await self._polls.poll(
            lambda: self._state.members.claim(ref),
            lambda claim: claim is not Claim.ASKED,
            lambda _, waiter: self._polls.waiting.add_report(ref.incarnation, waiter),
            MAX_CLAIM_S,
            held_bytes=held_by(request),
        )
        if claim is Claim.TAKEN:
            raise InvalidArgument(
                f"another shuffle daemon answers at {shown(ref.address)}, the address of this "
                "one: give each its own with --listen or --advertise"
            )
        if claim is not Claim.GRANTED:
            return self._state.members.not_yet()
        return self._state.access.with_keys(self._state.register(registration, time.monotonic()))

    async def heartbeat(self, request: mpb.HeartbeatRequest) -> DaemonOrders:
        beat = wire.from_pb(DaemonHeartbeat, request)
        return self._state.access.with_keys(self._state.heartbeat(beat, time.monotonic()))

    async def lookup_assignment(
        self, request: mpb.LookupAssignmentRequest
    ) -> FoundAssignment | None:
        return self._state.lookup_assignment(
            request.number, request.range_index, request.epoch, request.incarnation
        )

    async def report_daemon(
        self, request: mpb.ReportDaemonRequest, visit: Visit
    ) -> mpb.ReportDaemonReply:
        suspect = wire.from_pb(DaemonRef, request.daemon)
        # What a primary says of its replica has its ranges moved; nobody else speaks for one.
        reporter = request.reporter if visit.is_daemon else 0
        alive = await self._ask(suspect, reporter, request.insist)
        return mpb.ReportDaemonReply(alive=alive)

    async def drain_daemon(self, request: mpb.DrainDaemonRequest) -> None:
        self._state.members.drain(request.daemon)

    async def undrain_daemon(self, request: mpb.UndrainDaemonRequest) -> mpb.UndrainDaemonReply:
        was_draining = self._state.members.undrain(request.daemon, time.monotonic())
        return mpb.UndrainDaemonReply(was_draining=was_draining)

    # --- drivers ---------------------------------------------------------------------------

    async def create_exchange(
        self, request: mpb.CreateExchangeRequest, visit: Visit
    ) -> ExchangeInfo:
        spec = wire.from_pb(ExchangeSpec, request.spec)
        used = await self.used(spec.shuffle_id)
        visit.check()
        return self._state.create_exchange(
            spec,
            request.owner,
            time.monotonic(),
            used=used,
            callback=request.callback,
            application_id=request.application_id,
            tenant=visit.caller.tenant,
        )

    async def describe_exchange(
        self, request: mpb.DescribeExchangeRequest, visit: Visit
    ) -> mpb.ExchangeInfoReply | bytes:
        used = await self.used(request.shuffle_id)
        visit.check()
        owner, now = request.owner, time.monotonic()
        info = self._state.describe_exchange(
            request.shuffle_id, owner, now, used=used, callback=request.callback
        )
        if owner:  # so the driver before learns it, and readers whether mappers can be run again
            self._polls.wake(self._polls.waiting.exchange(info.number))
        reply: mpb.ExchangeInfoReply = wire.to_pb(visit.caller.told(info))
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
            held_bytes=held_by(request),
        )

    async def close_exchange(
        self, request: mpb.CloseExchangeRequest, visit: Visit
    ) -> mpb.CloseExchangeReply:
        used = await self.used(request.shuffle_id)
        visit.check()
        number = self._state.close_exchange(request.shuffle_id, used=used, owner=request.owner)
        if number is not None:
            self._polls.wake(self._polls.waiting.exchange(number))
        return mpb.CloseExchangeReply(was_open=number is not None)

    async def progress(self, request: mpb.ProgressRequest) -> ExchangeProgress:
        return self._state.progress(request.number)

    # --- writers and readers ---------------------------------------------------------------

    async def open_attempt(self, request: mpb.OpenAttemptRequest, visit: Visit) -> bytes:
        # To the daemons of an epoch that has ended it would send rows in vain.
        await self._polls.poll(
            lambda: self._state.fencing(request.shuffle_id),
            lambda found: not found[1],
            lambda found, waiter: self._polls.waiting.add_writer(*found, waiter),
            MAX_MOVE_S,
            held_bytes=held_by(request),
        )
        used = await self.used(request.shuffle_id)
        visit.check()
        mapper = request.mapper if request.HasField("mapper") else None
        opened = self._state.open_attempt(request.shuffle_id, mapper, used=used)
        # All writers are told of the same ranges and daemons.
        info = self._pieces.get(opened.info, lambda: wire.opened_info(opened.info))
        return wire.opened_reply(opened, info, visit.caller.capability_for(opened.info))

    async def fix_row_kind(self, request: mpb.FixRowKindRequest, visit: Visit) -> ExchangeInfo:
        kind = wire.fixed_kind(request)
        seen = request.seen if request.HasField("seen") else None
        info = self._state.fix_row_kind(request.number, kind, request.schema, seen)
        return visit.caller.told(info)

    async def commit(self, request: mpb.CommitRequest) -> mpb.CommitReply:
        return mpb.CommitReply(won=self._commit(request))

    async def await_commits(self, request: mpb.AwaitCommitsRequest) -> bytes:
        return await self._readers.await_commits(request)

    async def renew_assignments(self, request: mpb.RenewAssignmentsRequest) -> RenewedAssignments:
        number, generation = request.number, request.generation
        check_stale_count(len(request.stale))
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
            held_bytes=held_by(request),
        )

    async def report_loss(self, request: mpb.ReportLossRequest) -> None:
        with self._polls.telling(request.number):
            self._state.report_loss(wire.from_pb(LossReport, request), time.monotonic())

    # --- groups ----------------------------------------------------------------------------

    async def create_group(self, request: mpb.CreateGroupRequest, visit: Visit) -> GroupPart:
        spec = wire.from_pb(ExchangeSpec, request.spec)
        check_part(request.first, request.size, request.mappers)
        used = await self._group_used(spec.shuffle_id)
        taken = None
        if not (request.first or used or self._state.groups.knows(spec.shuffle_id)):
            taken = await self._database.used_in_group(spec.shuffle_id)
        visit.check()
        return self._state.groups.create(
            spec,
            request.mappers,
            request.size,
            request.first,
            request.owner,
            time.monotonic(),
            callback=request.callback,
            tenant=visit.caller.tenant,
            used=used,
            taken=taken,
        )

    async def poll_group(self, request: mpb.PollGroupRequest, visit: Visit) -> mpb.PollGroupReply:
        group_id, owner = request.group_id, request.owner
        used = await self._group_used(group_id)
        visit.check()
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
            held_bytes=held_by(request),
        )
        return mpb.PollGroupReply(calls=map(wire.to_pb, calls))

    async def release_exchanges(self, request: mpb.ReleaseExchangesRequest, visit: Visit) -> None:
        indexes = wire.bitmap_from_bytes(request.indexes, "indexes")
        used = await self._group_used(request.group_id)
        visit.check()
        self._polls.told(self._state.groups.release(request.group_id, indexes, used=used))

    async def close_group(
        self, request: mpb.CloseGroupRequest, visit: Visit
    ) -> mpb.CloseGroupReply:
        used = await self._group_used(request.group_id)
        visit.check()
        was_open = self._state.groups.knows(request.group_id)
        self._polls.told(self._state.groups.close(request.group_id, used=used))
        self._polls.wake(self._polls.waiting.group(request.group_id))
        return mpb.CloseGroupReply(was_open=was_open)

    async def commit_batch(
        self, request: mpb.CommitBatchRequest, visit: Visit
    ) -> mpb.CommitBatchReply:
        results = []
        for at, commit in enumerate(request.commits, 1):
            try:
                visit.may_commit(commit.number)
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
            where = {"range_index": request.range_index, "build": request.build}
            self._state.groups.report_uncommitted(
                request.number, mappers, request.reason, time.monotonic(), **where
            )

    # --- people ----------------------------------------------------------------------------

    async def status(self, request: mpb.StatusRequest, visit: Visit) -> mpb.StatusReply:
        tenant, counts = visit.caller.sees, self._state.counts()
        daemons, exchanges = self._state.overview.status(tenant, figures=request.figures)
        return mpb.StatusReply(
            cluster_id=self._state.cluster_id,
            daemons=map(wire.to_pb, daemons),
            exchanges=map(wire.to_pb, exchanges),
            open=counts.open if tenant is None else self._state.overview.count_of(tenant),
            closing=counts.closing if tenant is None else 0,
            version=VERSION,
        )

    async def list_exchanges(self, request: mpb.ListExchangesRequest, visit: Visit) -> ExchangePage:
        return self._state.overview.page(
            request.phase, request.prefix, request.after, request.limit, visit.caller.sees
        )

    async def show_exchange(self, request: mpb.ShowExchangeRequest, visit: Visit) -> ExchangeDetail:
        used = await self.used(request.shuffle_id)
        visit.check()
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
        of = next(one for one in (self, *self._others) if hasattr(one, python_name))
        method: Callable[..., Awaitable[Any]] = getattr(of, python_name)
        asks_who = "visit" in inspect.signature(method).parameters

        async def call(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> bytes:
            async def act(visit: Visit) -> bytes:
                of_whom = (visit,) if asks_who else ()  # who waits for something checks again
                return _serialized(await method(request, *of_whom))

            reply, failure = b"", None
            try:
                reply = await self.answers.answer(
                    lambda: self._guard.visit(name, request, context), act
                )
            except CoscoError as error:
                failure = error
            except Exception:
                log.exception("%s failed", name)
                await context.abort(
                    grpc.StatusCode.INTERNAL,
                    f"{name} failed inside the metadata service; its log says why",
                )
            if failure is not None:
                await refuse(context, failure)
            return reply

        return call

    def _commit(self, request: mpb.CommitRequest) -> bool:
        commit = wire.from_pb(CommitRequest, request)
        with self._polls.telling(commit.number):
            won = self._state.commit(commit)
        self.on_commit[won]()
        self._polls.wake(self._polls.waiting.committed(commit.number, commit.mapper))
        return won

    async def used(self, shuffle_id: str) -> bool:
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
            held_bytes=0,
        )


def _others(
    state: MetadataState, polls: Polls, database: Database, history: EventHistory
) -> tuple[object, ...]:
    """Return what has the handlers of the other methods."""
    return (
        ApplicationHandlers(state, polls),
        AccessHandlers(state, database),
        EventHandlers(history),
    )


def _serialized(reply: Any) -> bytes:
    """Return the bytes to send for a record, a message, the bytes of a message, or None."""
    if reply is None:
        return b""  # a message without fields
    if isinstance(reply, bytes):
        return reply
    message = reply if isinstance(reply, Message) else wire.to_pb(reply)
    return bytes(message.SerializeToString())
