"""The daemon's process: builds the parts, serves, and takes them down in order."""

from __future__ import annotations

import asyncio
import re
import secrets
import time
from collections.abc import Callable
from typing import Final

import grpc

from cosco.config import DaemonConfig
from cosco.dfs import IOEvent, Observer, open_store
from cosco.dfs.io_log import IoLog
from cosco.errors import CapacityExceeded
from cosco.process.allocator import keep_large_blocks
from cosco.process.grpc_settings import bind
from cosco.protocol.push.credits import FrameBudgets
from cosco.protocol.records import DaemonHeartbeat, DaemonOrders, DaemonRegistration
from cosco.shuffle_service.grpc_server import DaemonHandlers
from cosco.shuffle_service.io.arena import Arena
from cosco.shuffle_service.io.flusher import Flusher
from cosco.shuffle_service.io.lookups import Lookups
from cosco.shuffle_service.io.membership import Membership, MetadataLink
from cosco.shuffle_service.io.metrics import DaemonMetrics, MetricsEndpoint
from cosco.shuffle_service.io.push.copy_keeper import CopyKeeper
from cosco.shuffle_service.io.push.forward import Forwards
from cosco.shuffle_service.io.read.fetch_service import FetchService
from cosco.shuffle_service.io.read.read_memory import ReadMemory, read_arena_bytes
from cosco.shuffle_service.io.task_runner import TaskRunner
from cosco.shuffle_service.state.buffers.limits import pool_bytes
from cosco.shuffle_service.state.core import DaemonCore
from cosco.shuffle_service.state.draining import Drain, Step
from cosco.shuffle_service.state.intake import Intakes

_GAUGES_S: Final = 1.0
_DRAIN_POLL_S: Final = 0.02
#: Beyond what writers wait for a store that takes nothing.
_DRAIN_MORE_S: Final = 30.0
#: The folder of an exchange; what else lies there is left alone.
_NUMBER: Final = re.compile(r"[1-9][0-9]{0,17}")


class Daemon:
    """One shuffle daemon; `start` to `stop` once. It drains when `ending` is set, which it
    sets itself when the metadata service orders it."""

    def __init__(self, config: DaemonConfig, ending: asyncio.Event) -> None:
        self._config = config
        self._ending = ending
        self._metrics = DaemonMetrics()
        self._io_log = IoLog(config.io_log) if config.io_log else None
        self._store = open_store(
            config.store, threads=config.flush_threads + 2, observer=self._observer()
        )
        self._arena = Arena(pool_bytes(config.memory))
        self._read_arena = Arena(read_arena_bytes(config.memory))
        self._core = DaemonCore(
            arena=self._arena.memory,
            incarnation=secrets.randbits(63) | 1,
            chunk_bytes=config.chunk_limit_bytes,
            full_store_wait_s=config.full_store_wait_s,
            store_idle_s=config.store_idle_s,
        )
        self._flusher = Flusher(self._core, self._store, self._metrics, config.flush_threads)
        self._link = MetadataLink(config.metadata)
        self._core.replication.volatile = not self._store.durable
        lookups = Lookups(self._core, self._link)
        intakes = Intakes(self._core, self._metrics.count, lookups.look_up)
        self._budgets = FrameBudgets(config.inflight_bytes)
        self._copies = CopyKeeper(self._core, intakes)
        self._forwards = Forwards(self._core, self._link, config.full_store_wait_s)
        fetch = FetchService(
            self._core,
            self._store,
            ReadMemory(self._read_arena.memory),
            self._metrics,
            self._copies.absorb,
        )
        self._handlers = DaemonHandlers(
            self._core, self._budgets, intakes, self._copies, fetch, lookups, self._metrics
        )
        self._drain = Drain(config.full_store_wait_s + _DRAIN_MORE_S)
        self._membership = Membership(
            self._link,
            describe=self._describe,
            condition=self._condition,
            listed=self._listed_exchanges,
            drop=self._drop,
            told=self._told,
            heartbeat_s=config.heartbeat_s,
            sweep_s=config.sweep_s,
        )
        self._endpoint: MetricsEndpoint | None = None
        self._server: grpc.aio.Server | None = None
        self._own = TaskRunner()
        self._populating = TaskRunner()  # which ends by itself
        #: What runs tasks of its own, in the order of starting.
        self._parts = self._flusher, self._copies, self._forwards
        self.address = ""

    def _observer(self) -> Observer:
        """Return what counts each read and write of the store, and writes it down if asked to."""
        count = self._metrics.observe_io
        if self._io_log is None:
            return count
        write = self._io_log.observe

        def observe(event: IOEvent) -> None:
            count(event)
            write(event)

        return observe

    async def start(self) -> None:
        """Serve and register; raises CoscoError in one line if that cannot be."""
        await self._store.open()
        self._metrics.pages_capacity_bytes.set(self._core.pool.capacity_bytes)
        if self._config.metrics:
            self._endpoint = MetricsEndpoint(self._config.metrics, self._metrics)
        for part in self._parts:
            part.start()
        self._server = self._handlers.server()
        bound = bind(self._server, self._config.listen)
        self.address = self._config.advertise or bound
        orders = await self._membership.register(self._config.register_timeout_s)
        self._core.cluster_id = orders.cluster_id
        if await self._listed_exchanges():  # left by an earlier start: which of them must go?
            orders = await self._membership.register(self._config.register_timeout_s)
        await self._server.start()  # not before: paths need the cluster's id
        self._populating.run("populate", self._arena.populate())
        self._own.run("membership", self._membership.run(orders))
        self._own.run("gauges", self._update_gauges())

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
        await self._ending.wait()
        self._drain.begin(time.monotonic())
        self._flusher.store_all()
        self._membership.hurry()
        step, serves_on = Step.WAIT, False
        while step is not Step.EXIT:
            if step is Step.SERVE_ON and not serves_on:
                serves_on = True
                drained()
            await asyncio.sleep(_DRAIN_POLL_S)
            step = self._drain.step(
                time.monotonic(),
                unstored_bytes=self._core.unstored_bytes,
                takes_in=self._core.takes_in,
            )

    async def stop(self, *, store: bool) -> None:
        """Stop serving; with `store` store everything that is in memory first.

        Heartbeats go on until then, as what is closed meanwhile need not be stored. Raises
        CapacityExceeded if the store does not take it.
        """
        if self._server is not None:
            await self._server.stop(grace=0)
        try:
            if store and self._store.durable:
                left_s = self._drain.store_left_s(time.monotonic())
                await asyncio.wait_for(self._store_everything(), left_s)
        except TimeoutError:
            lost = self._core.unstored_bytes
            raise CapacityExceeded(
                f"{lost} bytes of pages could not be stored ({self._core.flushes.failure})"
            ) from None
        finally:
            for part in (self._own, self._populating, *reversed(self._parts)):
                await part.stop()
            await self._link.close()
            await self._store.close()
            if self._endpoint is not None:
                await asyncio.to_thread(self._endpoint.close)
            self._arena.close()
            self._read_arena.close()
            if self._io_log is not None:
                self._io_log.close()

    async def _store_everything(self) -> None:
        self._flusher.store_all()
        while (copy := self._core.copies.oldest(None)) is not None:
            await self._copies.absorb(copy.key)
        await self._flusher.flush_everything()

    # --- membership -----------------------------------------------------------------------

    async def _describe(self) -> DaemonRegistration:
        return DaemonRegistration(
            incarnation=self._core.incarnation,
            address=self.address,
            host_id=self._config.host,
            store_id=self._store.store_id,
            memory_bytes=self._core.pool.capacity_bytes,
            free_bytes=self._core.pool.free_bytes,
            metrics_address=self._endpoint.address if self._endpoint is not None else "",
            exchanges=await self._listed_exchanges(),
            draining=self._drain.begun,
        )

    def _condition(self) -> DaemonHeartbeat:
        return DaemonHeartbeat(
            incarnation=self._core.incarnation,
            free_bytes=self._core.pool.free_bytes,
            draining=self._drain.begun,
            store_failing=self._core.flushes.failing(time.monotonic()),
            unstored_bytes=self._core.unstored_bytes,
        )

    def _told(self, orders: DaemonOrders, now: float) -> None:
        self._drain.told(orders, now)
        if orders.drain:
            self._ending.set()

    async def _listed_exchanges(self) -> tuple[int, ...]:
        """Exchanges in memory, or with files in the cluster's folder once it is known."""
        if not self._core.cluster_id:
            return ()
        names = await self._store.list_folders(f"{self._core.cluster_id}/")
        stored = {int(name) for name in names if _NUMBER.fullmatch(name)}
        return tuple(sorted(stored | self._core.exchanges()))

    async def _drop(self, number: int) -> None:
        """Forget an exchange: memory at once, files after the writes under way have ended."""
        busy = self._core.drop(number)
        self._core.changed(time.monotonic())
        await self._flusher.ended(busy)
        await self._store.delete_prefix(f"{self._core.cluster_id}/{number}/")

    async def _update_gauges(self) -> None:
        while True:
            self._metrics.pages_used_bytes.set(self._core.unstored_bytes)
            self._metrics.copies_bytes.set(self._core.shares.copies)
            self._metrics.forwards.set(len(self._core.replication))
            self._metrics.granted_bytes.set(self._budgets.in_flight_bytes)
            self._metrics.followers.set(self._core.mark_boards.followers)
            self._metrics.assignments.set(self._core.assignments)
            self._budgets.tick(time.monotonic())
            await asyncio.sleep(_GAUGES_S)


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
