"""The daemon's process: builds the parts, serves, and takes them down in order."""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from cosco.config import DaemonConfig, insecure_warning, is_loopback, is_wildcard, parse_address
from cosco.decision_thread import hold_to_this_thread
from cosco.dfs import answered_in
from cosco.errors import CapacityExceeded, ServiceUnavailable
from cosco.mechanics import DESCRIPTION, NATIVE
from cosco.process.allocator import keep_large_blocks
from cosco.process.build import VERSION
from cosco.process.event_writer import EventWriter
from cosco.process.exposition import METRICS_PATH, add_process_metrics, metrics_resource
from cosco.process.health import Health
from cosco.process.host_checks import (
    address_warnings,
    is_name,
    memory_warnings,
    name_warnings,
    open_files_warnings,
)
from cosco.process.http_endpoint import HttpEndpoint
from cosco.process.machine import this_machine
from cosco.process.native_grpc.server_choice import Server, bind, peer_limits
from cosco.process.tls.service_tls import service_tls
from cosco.process.tracing.span_export import start_tracing
from cosco.protocol.events import Event, EventKind
from cosco.protocol.push.credits import FrameBudgets
from cosco.protocol.records import DaemonHeartbeat, DaemonOrders, DaemonRegistration
from cosco.protocol.wire import SHUFFLE_SERVICE
from cosco.shuffle_service.grpc_server import DaemonHandlers
from cosco.shuffle_service.io.arena import Arena
from cosco.shuffle_service.io.daemon_store import DaemonStore
from cosco.shuffle_service.io.epoch_removal import EpochRemoval
from cosco.shuffle_service.io.flusher import Flusher
from cosco.shuffle_service.io.lookups import Lookups
from cosco.shuffle_service.io.membership import Membership, MetadataLink
from cosco.shuffle_service.io.metrics import DaemonMetrics
from cosco.shuffle_service.io.push.copy_keeper import CopyKeeper
from cosco.shuffle_service.io.push.forward import Forwards
from cosco.shuffle_service.io.read.fetch_service import FetchService
from cosco.shuffle_service.io.read.read_memory import ReadMemory, read_arena_bytes
from cosco.shuffle_service.io.task_runner import TaskRunner
from cosco.shuffle_service.state.access_check import AccessCheck
from cosco.shuffle_service.state.buffers.limits import pool_bytes
from cosco.shuffle_service.state.buffers.old_epochs import Going
from cosco.shuffle_service.state.core import DaemonCore
from cosco.shuffle_service.state.draining import Drain, Step
from cosco.shuffle_service.state.intake import Intakes
from cosco.shuffle_service.state.tenants.tenant_streams import TenantStreams

log = logging.getLogger(__name__)
#: What decides: see `cosco.decision_thread`.
_DECIDING: Final = (
    "cosco.shuffle_service.state",
    "cosco.protocol.push",
    "cosco.dfs.directories.state",
    "cosco.dfs.tiers.state",
)
#: What the daemon tells of itself, to be given a level of its own.
EVENTS: Final = logging.getLogger("cosco.shuffle_service.events")

#: What collectors of spans know daemons by.
_SERVICE: Final = "cosco-shuffled"

_GAUGES_S: Final = 1.0
_DRAIN_POLL_S: Final = 0.02
#: Beyond what writers wait for a store that takes nothing.
_DRAIN_MORE_S: Final = 30.0
#: A daemon that has to register waits for its store for this time.
_LIST_TIMEOUT_S: Final = 2.0
#: What is under way when the daemon ends may take this long, before it is left to its fate.
_LAST_CALLS_S: Final = 2.0
#: The folder of an exchange; what else lies there is left alone.
_NUMBER: Final = re.compile(r"[1-9][0-9]{0,17}")


class Daemon:
    """One shuffle daemon; `start` to `stop` once. It drains when `ending` is set, or while the
    metadata service orders it."""

    #: Whether the metadata service had forgotten the store, and has told so.
    _was_forgotten = False
    _started = False

    def __init__(self, config: DaemonConfig, ending: asyncio.Event) -> None:
        self._config = config
        self._ending = ending
        self._ordered = asyncio.Event()  # while the metadata service orders to drain
        self._metrics = DaemonMetrics()
        self._stores = DaemonStore(config, self._metrics)
        self._store = self._stores.store
        self._arena = Arena(pool_bytes(config.memory))
        self._read_arena = Arena(read_arena_bytes(config.memory))
        self._core = DaemonCore(
            arena=self._arena.memory,
            incarnation=secrets.randbits(63) | 1,
            segment_bytes=config.segment_limit_bytes,
            full_store_wait_s=config.full_store_wait_s,
            store_idle_s=config.store_idle_s,
            store_timeout_s=config.store_timeout_s,
            tenant_memory_share=config.tenant_memory_share,
        )
        self._flusher = Flusher(
            self._core, self._store, self._metrics, config.writers, self._stores.is_durable
        )
        self._tls = service_tls(config, NATIVE)
        self._link = MetadataLink(config.metadata, self._tls)
        self._core.replication.volatile = not self._store.durable
        lookups = Lookups(self._core, self._link)
        writers = self._tenant_streams()
        intakes = Intakes(self._core, self._metrics.count, lookups.look_up, writers)
        self._budgets = FrameBudgets(config.inflight_bytes, config.tenant_memory_share)
        self._copies = CopyKeeper(self._core, intakes)
        denied, strangers = self._metrics.count_denied, config.lets_in_strangers
        self._access = AccessCheck(self._core.incarnation, denied, lets_in_strangers=strangers)
        self._forwards = Forwards(
            self._core, self._link, config.full_store_wait_s, self._access.proof
        )
        fetch = FetchService(
            self._core,
            self._store,
            ReadMemory(self._read_arena.memory),
            self._metrics,
            self._copies.absorb,
            config.store_timeout_s,
        )
        self._health = Health(self._readiness)
        self._handlers = DaemonHandlers(
            self._core, self._budgets, intakes, self._copies, fetch, lookups, self._metrics,
            self._tls.names, self._access, self._tenant_streams(),
        )  # fmt: skip
        self._machine = this_machine(config.host_id)
        self._events = EventWriter(self._core.events, EVENTS)
        self._events.listeners.append(self._metrics.count_event)
        self._stores.serve(self._core, self._events)
        self._drain = Drain(config.full_store_wait_s + _DRAIN_MORE_S)
        self._membership = self._new_membership()
        self._endpoint: HttpEndpoint | None = None
        self._server: Server | None = None
        self._own = TaskRunner()
        self._populating = TaskRunner()  # which ends by itself
        #: What runs tasks of its own, in the order of starting.
        self._parts = self._flusher, self._copies, self._forwards
        self.address = ""

    def _tenant_streams(self) -> TenantStreams:
        return TenantStreams(self._config.tenant_streams, self._metrics.count_too_many)

    def _new_membership(self) -> Membership:
        return Membership(
            self._link,
            describe=self._describe,
            condition=self._condition,
            listed=self._listed_exchanges,
            forget=self._forget,
            remove=self._remove,
            stored=self._core.stored,
            old_epochs=EpochRemoval(
                self._core, self._flusher, self._store, timeout_s=self._config.store_timeout_s
            ),
            told=self._told,
            set_keys=self._access.set_keys,
            tell=self._core.events.add,
            heartbeat_s=self._config.heartbeat_s,
            sweep_s=self._config.sweep_s,
        )

    async def start(self) -> None:
        """Serve and register; raises CoscoError in one line if that cannot be."""
        await self._store.open()
        self._metrics.pages_capacity_bytes.set(self._core.pool.capacity_bytes)
        for part in self._parts:
            part.start()
        # Which may open more files, so before it is said how few they are.
        peers = replace(peer_limits(self._config), idle_stream_s=self._config.idle_stream_s)
        for warning in (*memory_warnings(self._config.memory), *open_files_warnings()):
            log.warning("%s", warning)
        for doubt in filter(None, (self._machine.doubt, insecure_warning(self._config))):
            log.warning("%s", doubt)
        self._server = self._handlers.server(
            self._health.handler(SHUFFLE_SERVICE),
            unfinished_bytes=self._config.unfinished_bytes,
            peers=peers,
            tls=self._tls,
        )
        bound = bind(self._server, self._config.listen, self._tls)
        self._endpoint = self._open_endpoint()  # where `listen` is wrong, that is what is said
        self.address = self._config.advertise or bound
        # Before it registers: the service asks who answers there. It serves nothing else yet.
        await self._server.start()
        self._check_address()
        orders = await self._membership.register(self._config.register_timeout_s)
        self._core.cluster_id = orders.cluster_id
        if await self._left_exchanges():  # by an earlier start: which of them must go?
            orders = await self._membership.register(self._config.register_timeout_s)
        self._populating.run("populate", self._arena.populate())
        self._own.run("membership", self._membership.run(orders))
        self._own.run("gauges", self._update_gauges())
        self._own.run("certificates", self._tls.watch())
        self._own.run("events", self._events.run())
        if self._stores.tiers is not None:
            self._own.run("tiers", self._stores.tiers.run())
        self._started = True
        self._tell(EventKind.SERVICE_STARTED)

    async def failed(self) -> None:
        """Return only by raising: a task that must run for ever has ended."""
        tasks = [task for part in (self._own, *self._parts) for task in part.tasks]
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            await task
        raise RuntimeError(f"the task {next(iter(done)).get_name()} has ended")

    async def run(self, drained: Callable[[], None]) -> None:
        """Serve until it was asked to end, and drained; calls `drained` if it then serves on.

        Returns when it may end.
        """
        while True:
            await _first_of(self._ending, self._ordered)
            self._drain.begin(time.monotonic())
            self._tell(EventKind.DRAIN_BEGAN, bytes=self._core.unstored_bytes)
            self._flusher.store_all()
            self._stores.move_all(True)
            self._membership.hurry()
            if await self._drained(drained):
                break
            self._drain.cancel()
            self._flusher.store_as_usual()
            self._stores.move_all(False)
            self._membership.calm()
            self._tell(EventKind.DRAIN_CANCELLED)

    async def _drained(self, drained: Callable[[], None]) -> bool:
        """Wait until the daemon may end. Returns False if it is not to drain any more."""
        step, serves_on = Step.WAIT, False
        while step is not Step.EXIT:
            if not (self._ending.is_set() or self._ordered.is_set()):
                return False
            if step is Step.SERVE_ON and not serves_on:
                serves_on = True
                self._tell(EventKind.DRAINED, bytes=self._core.unstored_bytes, cause="serves on")
                drained()
            await asyncio.sleep(_DRAIN_POLL_S)
            step = self._drain.step(
                time.monotonic(),
                unstored_bytes=self._core.unstored_bytes,
                takes_in=self._core.takes_in,
                unmoved_bytes=self._stores.unmoved_bytes,
                owes_drops=self._membership.owes_drops,
            )
        if not serves_on:
            self._tell(EventKind.DRAINED, bytes=self._core.unstored_bytes)
        return True

    async def stop(self, *, store: bool) -> None:
        """Stop serving; with `store` store everything that is in memory first.

        Heartbeats go on until then, as what is closed meanwhile need not be stored. Raises
        CapacityExceeded if the store does not take it.
        """
        self._health.stop()
        if self._server is not None:
            await self._server.stop(grace=0)
        try:
            if store and self._store.durable:
                hangs = self._core.flushes.hangs
                left_s = self._drain.store_left_s(time.monotonic(), store_hangs=hangs)
                await asyncio.wait_for(self._store_everything(), left_s)
        except TimeoutError:
            lost, unmoved = self._core.unstored_bytes, self._stores.unmoved_bytes
            why = self._core.flushes.failure or "the store is too slow"
            what = f"{lost} bytes of pages could not be stored"
            if unmoved:
                what += f", and {unmoved} are on flash alone: start the daemon with it again"
            raise CapacityExceeded(f"{what} ({why})") from None
        finally:
            for part in (self._own, self._populating, *reversed(self._parts)):
                await part.stop()
            await self._link.close()
            self._close_memory(is_unused=await self._close_store())
            if self._endpoint is not None:
                await asyncio.to_thread(self._endpoint.close)
            self._stores.close_log()
            if self._started:  # else why it could not start is the only line
                self._events.flush()
                self._tell(EventKind.SERVICE_STOPPED)

    async def _close_store(self) -> bool:
        """Let go of the store. Returns False if it hangs: its threads are left to end with the
        process, and may use memory until then."""
        try:
            async with asyncio.timeout(_LAST_CALLS_S):
                await self._store.close()
        except TimeoutError:
            log.warning("store %s: calls under way hang, and are abandoned", self._store.url)
            for writing in self._flusher.writes:
                writing.cancel()
            return False
        return True

    def _close_memory(self, *, is_unused: bool) -> None:
        if is_unused:
            self._arena.close()
            self._read_arena.close()

    async def _store_everything(self) -> None:
        self._flusher.store_all()
        self._stores.move_all(True)
        while (copy := self._core.copies.oldest(None)) is not None:
            await self._copies.absorb(copy.key)
        await self._flusher.flush_everything()
        await self._stores.nothing_pending()

    # --- for operators ---------------------------------------------------------------------

    def _tell(self, kind: EventKind, *, bytes: int | None = None, cause: str | None = None) -> None:
        """Tell at once what the daemon as a whole does."""
        started = kind is EventKind.SERVICE_STARTED
        self._events.tell(
            Event(
                kind=kind,
                daemon=self.address or None,
                incarnation=self._core.incarnation,
                host_id=self._machine.host_id if started else None,
                store=self._store.url if started else None,
                metrics=(self._metrics_address() or None) if started else None,
                version=VERSION if started else None,
                mechanics=DESCRIPTION if started else None,
                cluster=self._core.cluster_id if started else None,
                bytes=bytes,
                cause=cause,
            )
        )

    def _open_endpoint(self) -> HttpEndpoint | None:
        listen = self._config.metrics_listen
        if not listen:
            return None
        add_process_metrics(self._metrics.registry, VERSION)
        resources = {
            METRICS_PATH: metrics_resource(self._metrics.registry),
            **self._health.resources(),
        }
        return HttpEndpoint(listen, resources, f"--metrics {self._config.metrics}")

    def _metrics_address(self) -> str:
        """Return where others reach the metrics: not at a wildcard."""
        if self._endpoint is None:
            return ""
        address = self._endpoint.address
        if is_loopback(address) and not is_loopback(self.address or self._config.listen):
            return ""  # others would ask themselves
        if is_wildcard(address) and self._config.advertise:
            _, port = parse_address(address)
            return f"{self._config.advertise.rpartition(':')[0]}:{port}"
        return address

    def _readiness(self) -> list[str]:
        """Return why it would not serve."""
        now = time.monotonic()
        reasons = self._membership.not_ready(now)
        if self._drain.begun:
            reasons.append("the daemon drains")
        if self._core.flushes.failing(now):
            reasons.append(f"the store takes no writes: {self._core.flushes.failure}")
        return reasons

    # --- membership -----------------------------------------------------------------------

    async def _describe(self) -> DaemonRegistration:
        # Whoever was taken for dead is told to drop what it lists, and nothing else that ended.
        self._core.alike.forget()
        return DaemonRegistration(
            incarnation=self._core.incarnation,
            address=self.address,
            host_id=self._machine.host_id,
            store_id=self._store.store_id,
            memory_bytes=self._core.pool.capacity_bytes,
            free_bytes=self._core.pool.free_bytes,
            metrics_address=self._metrics_address(),
            exchanges=await self._found_exchanges(),
            draining=self._drain.begun,
        )

    def _check_address(self) -> None:
        """Warn if others will not find this daemon."""

        def look_up() -> None:
            for warning in name_warnings(self.address):
                log.warning("%s", warning)

        for warning in address_warnings(self.address, self._config.metadata):
            log.warning("%s", warning)
        if is_name(self.address):  # which may take a while to be looked up
            threading.Thread(target=look_up, name="cosco-look-up", daemon=True).start()

    async def _left_exchanges(self) -> tuple[int, ...]:
        """Return what an earlier start left; raises CoscoError if the store does not say."""
        try:
            return await self._listed_exchanges()
        except OSError as error:
            raise ServiceUnavailable(
                f"store {self._config.store!r} cannot be listed: {error.strerror or error}"
            ) from None

    async def _found_exchanges(self) -> tuple[int, ...]:
        """Return what there is of exchanges, or of memory alone if the store is slow to say.

        A daemon that is not registered is taken for dead, and sweeps tell the rest.
        """
        try:
            async with answered_in(_LIST_TIMEOUT_S, f"the store {self._store.url}"):
                return await self._listed_exchanges()
        except OSError as error:
            log.warning("what the store holds is told later: %s", error)
            return tuple(sorted(self._core.exchanges()))

    def _condition(self) -> DaemonHeartbeat:
        return DaemonHeartbeat(
            incarnation=self._core.incarnation,
            free_bytes=self._core.pool.free_bytes,
            draining=self._ending.is_set(),
            store_failing=self._core.flushes.failing(time.monotonic()),
            store_hangs=self._core.flushes.hangs,
            unstored_bytes=self._core.unstored_bytes + self._stores.unmoved_bytes,
            mechanics=DESCRIPTION,
            version=VERSION,
            stored=self._core.stored.to_tell(),
            figures=self._metrics.figures(),
        )

    def _told(self, orders: DaemonOrders, now: float) -> None:
        self._drain.told(orders, now)
        self._core.tenants.set_full(orders.full_tenants)
        if orders.drain:
            self._ordered.set()
        else:  # `cosco undrain`, say
            self._ordered.clear()
        if orders.was_forgotten and not self._was_forgotten:
            self._was_forgotten = True
            self._events.tell(Event(kind=EventKind.STORE_WAS_FORGOTTEN, store=self._store.url))

    async def _listed_exchanges(self) -> tuple[int, ...]:
        """Exchanges in memory, or with files in the cluster's folder once it is known."""
        if not self._core.cluster_id:
            return ()
        names = await self._store.list_folders(f"{self._core.cluster_id}/")
        stored = {int(name) for name in names if _NUMBER.fullmatch(name)}
        return tuple(sorted(stored | self._core.exchanges()))

    def _forget(self, number: int) -> None:
        """Forget what memory holds of an exchange."""
        self._core.drop(number)
        self._core.changed(time.monotonic())

    async def _remove(self, number: int) -> None:
        """Delete the files of an exchange that was forgotten, after the writes under way."""
        async with answered_in(self._config.store_timeout_s, f"a write to {self._store.url}"):
            await self._flusher.ended(Going(number))
        await self._store.delete_prefix(f"{self._core.cluster_id}/{number}/")

    async def _update_gauges(self) -> None:
        while True:
            self._metrics.pages_used_bytes.set(self._core.unstored_bytes)
            self._metrics.copies_bytes.set(self._core.shares.copies)
            self._metrics.forwards.set(len(self._core.replication))
            self._metrics.waiting_frames_bytes.set(self._core.page_queue.waiting_bytes)
            self._metrics.tenants_held_up.set(len(set(self._core.page_queue.held_up)))
            self._metrics.granted_bytes.set(self._budgets.in_flight_bytes)
            self._metrics.followers.set(self._core.mark_boards.followers)
            self._metrics.assignments.set(self._core.assignments)
            self._metrics.store_writes_hanging.set(self._core.flushes.hanging)
            self._stores.update_gauges()
            self._budgets.tick(time.monotonic())
            await asyncio.sleep(_GAUGES_S)


async def _first_of(*events: asyncio.Event) -> None:
    """Return once one of the events is set."""
    waits = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()


async def serve(
    config: DaemonConfig,
    *,
    ready: Callable[[str], None],
    stop: asyncio.Event,
    stop_now: asyncio.Event,
    drained: Callable[[], None],
) -> None:
    """Run a daemon until `stop` is set and it is drained, or until `stop_now` is set.

    Calls `drained` when it has drained and readers need it still. Raises CoscoError if it
    cannot start, or cannot store what it has.
    """
    keep_large_blocks(one_arena=True)
    hold_to_this_thread(*_DECIDING)
    end_tracing = start_tracing(_SERVICE) if config.tracing else None
    try:
        await _serve(config, ready, stop, stop_now, drained)
    finally:
        if end_tracing is not None:
            await asyncio.to_thread(end_tracing)


async def _serve(
    config: DaemonConfig,
    ready: Callable[[str], None],
    stop: asyncio.Event,
    stop_now: asyncio.Event,
    drained: Callable[[], None],
) -> None:
    daemon = Daemon(config, stop)
    try:
        await daemon.start()
    except BaseException:
        await daemon.stop(store=False)
        raise
    ready(daemon.address)
    ends = [
        asyncio.create_task(daemon.failed(), name="watch"),
        asyncio.create_task(daemon.run(drained), name="run"),
        asyncio.create_task(stop_now.wait(), name="stop"),
    ]
    done, _ = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    for task in ends:
        task.cancel()
    try:
        await daemon.stop(store=True)
    finally:
        for task in done:
            await task  # what went wrong first
