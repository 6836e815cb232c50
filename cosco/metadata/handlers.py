"""The calls of the metadata service: messages in, one call of the state, messages out.

The state is called in the event loop and never waits. A reply, an error included, leaves
once everything the state had applied by then is durable.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

import grpc

from cosco import wire
from cosco.errors import CoscoError, ServiceUnavailable
from cosco.metadata.journal import Journal
from cosco.metadata.state import MetadataState
from cosco.metadata.waiting import Waiting
from cosco.records import CommitWait
from cosco.wire import mpb

log = logging.getLogger(__name__)

#: A long poll is answered after so many seconds at the latest.
MAX_WAIT_S: Final = 30.0
#: Long polls under way, calls; more are told to try again.
MAX_WAITING_CALLS: Final = 20_000
#: A poll renews the lease when it comes, so a driver gets to send so many in a lease.
POLLS_PER_LEASE: Final = 3

_Waiter = asyncio.Future[None]


class Handlers:
    """The service as grpc.aio calls it. `was_used` looks up in the database whether an
    exchange of an id ever was; it raises ServiceUnavailable."""

    def __init__(
        self,
        state: MetadataState,
        journal: Journal,
        was_used: Callable[[str], Awaitable[bool]],
    ) -> None:
        self._state = state
        self._journal = journal
        self._was_used = was_used
        self._waiting: Waiting[_Waiter] = Waiting(MAX_WAITING_CALLS)
        self._stopping = False

    def generic_handler(self) -> grpc.GenericRpcHandler:
        """All methods of the service, for `Server.add_generic_rpc_handlers`."""
        methods: dict[str, Callable[[Any], Awaitable[Any]]] = {
            "RegisterDaemon": self.register_daemon,
            "Heartbeat": self.heartbeat,
            "LookupAssignment": self.lookup_assignment,
            "CreateExchange": self.create_exchange,
            "DescribeExchange": self.describe_exchange,
            "PollDriver": self.poll_driver,
            "CloseExchange": self.close_exchange,
            "Progress": self.progress,
            "OpenAttempt": self.open_attempt,
            "FixRowKind": self.fix_row_kind,
            "Commit": self.commit,
            "AwaitCommits": self.await_commits,
            "Status": self.status,
        }
        return grpc.method_handlers_generic_handler(
            wire.METADATA_SERVICE,
            {
                name: grpc.unary_unary_rpc_method_handler(
                    self._answering(name, methods[name]),
                    request_deserializer=request_type.FromString,
                    response_serializer=reply_type.SerializeToString,
                )
                for name, (request_type, reply_type) in wire.METADATA_METHODS.items()
            },
        )

    def tick(self, now: float) -> None:
        """Let leases run out."""
        for number in self._state.tick(now):
            self._wake(self._waiting.closed(number))

    def stop_waiting(self) -> None:
        """Answer every long poll now, and those that come from now on at once."""
        self._stopping = True
        self._wake(self._waiting.everyone())

    # --- daemons ---------------------------------------------------------------------------

    async def register_daemon(self, request: mpb.RegisterDaemonRequest) -> mpb.DaemonOrdersReply:
        orders = self._state.register(wire.registration_from_pb(request), time.monotonic())
        return wire.orders_to_pb(orders)

    async def heartbeat(self, request: mpb.HeartbeatRequest) -> mpb.DaemonOrdersReply:
        orders = self._state.heartbeat(wire.heartbeat_from_pb(request), time.monotonic())
        return wire.orders_to_pb(orders)

    async def lookup_assignment(
        self, request: mpb.LookupAssignmentRequest
    ) -> mpb.LookupAssignmentReply:
        found = self._state.lookup_assignment(
            request.number, request.range_index, request.epoch, request.incarnation
        )
        if found is None:
            return mpb.LookupAssignmentReply()
        assignment, part = found
        return mpb.LookupAssignmentReply(
            assignment=wire.assignment_to_pb(assignment), range=wire.range_to_pb(part)
        )

    # --- drivers ---------------------------------------------------------------------------

    async def create_exchange(self, request: mpb.CreateExchangeRequest) -> mpb.ExchangeInfoReply:
        spec = wire.spec_from_pb(request.spec)
        used = await self._used(spec.shuffle_id)
        info = self._state.create_exchange(spec, request.owner, time.monotonic(), used=used)
        return wire.info_to_pb(info)

    async def describe_exchange(
        self, request: mpb.DescribeExchangeRequest
    ) -> mpb.ExchangeInfoReply:
        used = await self._used(request.shuffle_id)
        info = self._state.describe_exchange(
            request.shuffle_id, request.owner, time.monotonic(), used=used
        )
        if request.owner:
            self._wake(self._waiting.driver(info.number))  # the one before learns it now
        return wire.info_to_pb(info)

    async def poll_driver(self, request: mpb.PollDriverRequest) -> mpb.PollDriverReply:
        number, owner = request.number, request.owner
        orders = self._state.poll_driver(number, owner, time.monotonic())
        if not orders.calls and not self._stopping:
            longest_s = self._state.lease_s(number) / POLLS_PER_LEASE
            waiter = self._waiter()
            self._waiting.add_driver(number, waiter)
            await self._wait(waiter, min(_wait_s(request.wait_s), longest_s))
            orders = self._state.poll_driver(number, owner, time.monotonic())
        return wire.driver_orders_to_pb(orders)

    async def close_exchange(self, request: mpb.CloseExchangeRequest) -> mpb.CloseExchangeReply:
        used = await self._used(request.shuffle_id)
        number = self._state.close_exchange(request.shuffle_id, used=used)
        if number is not None:
            self._wake(self._waiting.closed(number))
        return mpb.CloseExchangeReply()

    async def progress(self, request: mpb.ProgressRequest) -> mpb.ProgressReply:
        return wire.progress_to_pb(self._state.progress(request.number))

    # --- writers and readers ---------------------------------------------------------------

    async def open_attempt(self, request: mpb.OpenAttemptRequest) -> mpb.OpenAttemptReply:
        used = await self._used(request.shuffle_id)
        mapper = request.mapper if request.HasField("mapper") else None
        return wire.opened_to_pb(self._state.open_attempt(request.shuffle_id, mapper, used=used))

    async def fix_row_kind(self, request: mpb.FixRowKindRequest) -> mpb.ExchangeInfoReply:
        kind = wire.kind_from_pb(request)
        return wire.info_to_pb(self._state.fix_row_kind(request.number, kind, request.schema))

    async def commit(self, request: mpb.CommitRequest) -> mpb.CommitReply:
        won = self._state.commit(wire.commit_from_pb(request))
        self._wake(self._waiting.committed(request.number, request.mapper))
        return mpb.CommitReply(won=won)

    async def await_commits(self, request: mpb.AwaitCommitsRequest) -> mpb.AwaitCommitsReply:
        mappers = wire.bitmap_from_bytes(request.mappers, "mappers")

        def look() -> CommitWait:
            return self._state.await_commits(
                request.number, mappers, request.partition, request.generation
            )

        result = look()
        if result.snapshot is None and not self._stopping:
            waiter = self._waiter()
            self._waiting.add_reader(request.number, mappers, result.missing, waiter)
            await self._wait(waiter, _wait_s(request.wait_s))
            result = look()
        return wire.wait_to_pb(result)

    # --- people ----------------------------------------------------------------------------

    async def status(self, _: mpb.StatusRequest) -> mpb.StatusReply:
        daemons, exchanges = self._state.status()
        return mpb.StatusReply(
            cluster_id=self._state.cluster_id,
            daemons=map(wire.daemon_status_to_pb, daemons),
            exchanges=map(wire.exchange_status_to_pb, exchanges),
        )

    # --- inside ----------------------------------------------------------------------------

    def _answering(
        self, name: str, method: Callable[[Any], Awaitable[Any]]
    ) -> Callable[[Any, grpc.aio.ServicerContext[Any, Any]], Awaitable[Any]]:
        async def call(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
            reply, failure = None, None
            try:
                reply = await method(request)
            except CoscoError as error:
                failure = error
            except Exception:
                log.exception("%s failed", name)
                await context.abort(
                    grpc.StatusCode.INTERNAL,
                    f"{name} failed inside the metadata service; its log says why",
                )
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

    async def _used(self, shuffle_id: str) -> bool:
        """What the state wants to know of an id that it does not hold."""
        return not self._state.knows(shuffle_id) and await self._was_used(shuffle_id)

    def _waiter(self) -> _Waiter:
        return asyncio.get_running_loop().create_future()

    async def _wait(self, waiter: _Waiter, wait_s: float) -> None:
        """Wait until `waiter` is woken; it waits no more afterwards, come what may."""
        try:
            await asyncio.wait((waiter,), timeout=wait_s)
        finally:
            self._waiting.remove(waiter)

    @staticmethod
    def _wake(waiters: list[_Waiter]) -> None:
        for waiter in waiters:
            waiter.set_result(None)


def _wait_s(asked_s: float) -> float:
    return min(asked_s, MAX_WAIT_S) if asked_s > 0 else 0.0  # 0 also for a NaN
