"""Puts the simulated world under the programs: clock, network, disks, database and threads.

What they import by name is replaced in every module of Cosco that has it; nothing of Cosco
itself is changed. For processes that do nothing but simulate.
"""

# mypy: ignore-errors

from __future__ import annotations

import gc
import importlib
import logging
import pkgutil
import queue
import random
import secrets
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import grpc
import grpc.aio
import pyarrow as pa

import cosco
import cosco.dfs
import cosco.metadata.store.database
from cosco.client.groups import commit_outbox, following
from cosco.client.read import direct_reads, store_files
from cosco.client.read.state import direct_stores, direct_window
from cosco.client.rpc import grpc_channel, in_use, known_services, leftovers, transport
from cosco.client.write import push_streams
from cosco.process.native_grpc import server_choice
from cosco.process.service_calls import channel_choice
from cosco.shuffle_service.io import arena, metrics

from . import aio, client_files, database, storage, threads, watch
from .loop import PROCESS
from .world import OnPurpose, current, is_active

_PACKAGES = ("client", "metadata", "shuffle_service", "dfs")
#: What needs libraries of its own, and is not simulated.
_APART = ("cosco.dfs.hdfs", "cosco.dfs.objects", "cosco.dfs.testing")
#: What the Unix clock says as a run begins.
_EPOCH_S = 1.8e9
_installed: list[bool] = []


class SimArena:
    """Memory for pages; the kernel has no part in it."""

    def __init__(self, length: int) -> None:
        self.memory = memoryview(bytearray(length))

    async def populate(self) -> None:
        """There is nothing to ask the kernel for."""

    def close(self) -> None:
        """The interpreter takes it back."""


class _Metric:
    """Counts for the coverage of the world."""

    def __init__(self, name: str) -> None:
        self._name = name

    def inc(self, amount: float = 1) -> None:
        if amount:
            current().count(self._name)

    def observe(self, amount: float = 1) -> None:
        pass

    dec = set = observe

    def labels(self, label: str) -> _Metric:
        return _Metric(f"{self._name} {label}")


class _Tokens:
    """Stands for tokens of a file: with them come capabilities."""

    async def watch(self) -> None:
        """They never change."""


def _principals_of(config: Any) -> _Tokens | None:
    return _Tokens() if config.tokens else None


#: To a daemon the rows of one exchange are of this many tenants, by their ranges, and so are the
#: streams of its writers, by their mappers: there are few exchanges at a time.
TENANTS = 3


def _make_tenants(rights: Any, groups: Any, intakes: Any) -> None:
    rights.Caller.tenant = property(lambda _: "simulated" if current().has_tenants else "")
    found, open_intake = groups.Groups.found, intakes.Intakes.open

    def found_of_ranges(self: Any, exchange: Any, assignment: Any) -> Any:
        one = found(self, exchange, assignment)
        tenant = one.tenant and one.tenant + assignment.range_index % TENANTS
        return replace(one, tenant=tenant)

    def open_of_mappers(self: Any, hello: Any, stream: Any, now: float, tenant: int = 0) -> Any:
        return open_intake(self, hello, stream, now, tenant and tenant + hello.mapper % TENANTS)

    groups.Groups.found, intakes.Intakes.open = found_of_ranges, open_of_mappers


def _watch_queues(order: Any, queue: Any) -> None:
    def passed_over(self: Any) -> None:
        current().count("tenants passed over")
        pass_over_line(self)

    def served(self: Any, now: float) -> None:
        lines = len(self._order._lines)
        serve(self, now)
        if lines > 1 and not self._is_serving:
            current().count("tenants waiting together")

    pass_over_line, serve = order.FairOrder.pass_over_line, queue.PageQueue.serve
    order.FairOrder.pass_over_line, queue.PageQueue.serve = passed_over, served


class SimMetrics:
    """`DaemonMetrics`, for nobody to look at."""

    def __getattr__(self, name: str) -> _Metric:
        metric = self.__dict__[name] = _Metric(f"daemon {name}")
        return metric

    def count(self, what: str, amount: float) -> None:
        getattr(self, what).inc(amount)

    def figures(self) -> None:
        """Nobody asks for them."""

    def count_denied(self) -> None:
        self.refused.labels("capability").inc()

    def count_too_many(self) -> None:
        self.refused.labels("tenant_streams").inc()

    def count_tier(self, what: str, amount: int, label: str) -> None:
        metric = getattr(self, f"tier_{what}")
        (metric.labels(label) if label else metric).inc(amount)

    def observe_flash(self, event: object) -> None:
        pass

    def count_event(self, event: Any) -> None:
        self.events.labels(event.kind.label).inc(event.times)

    def observe_io(self, event: object) -> None:
        pass


class _OfProcess:
    """Stands for an object that each process has one of, and knows nobody else's."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make

    def __getattr__(self, name: str) -> Any:
        process = PROCESS.get()
        for kept in process.kept:
            if type(kept) is self._make:
                break
        else:
            kept = self._make()
            process.kept.append(kept)
        return getattr(kept, name)


class _Leftovers:
    """Stands for the one of a process that ends: what is dropped here is what was killed."""

    is_over = True

    def add(self, end: Callable[[], None]) -> None:
        """An interrupted `close` of a process that is being killed."""


def _number_of(waiter: Any) -> int:
    """Given when it is first asked for, which is always at the same place of a run."""
    if not hasattr(waiter, "number"):
        waiter.number = current().next_number()
    return waiter.number


def _shown(make: Callable[..., Any], where: str) -> Callable[..., Any]:
    """`make`, whose results the world can look at, by their process."""

    def made(*arguments: Any, **options: Any) -> Any:
        result = make(*arguments, **options)
        getattr(current(), where)[PROCESS.get()] = result
        if where == "cores":
            watch.watch(current(), result)
        return result

    return made


def _watch_ends(exchange_state: Any) -> None:
    """See that builds end which no reader has reported only where no copy can be left."""

    def reported(self: Any, report: Any) -> Any:
        index = take_report(self, report)
        last[self] = index
        return index

    def lose(self: Any, indexes: list[int], why: str, cause: str) -> Any:
        watch.check_ends(current(), self, [i for i in indexes if i != last.get(self)])
        last.pop(self, None)
        ended = end(self, indexes, why, cause)
        for index in ended:
            current().ended_builds[self.number, index] = current().loop.now
        return ended

    last: dict[Any, Any] = {}
    take_report, end = exchange_state.reported, exchange_state.lose
    exchange_state.reported, exchange_state.lose = reported, lose


def _watch_drops(old_builds: Any, fetch_service: Any) -> None:
    """See that old builds go only when they may, and who reads them still."""

    def look(self: Any, exchange: Any, graces: Any, now: float) -> Any:
        before = dict(exchange.dropped._gone)
        result = look_at(self, exchange, graces, now)
        for index, gone in exchange.dropped._gone.items():
            if before.get(index) != gone:
                watch.check_gone(current(), exchange, index)
        return result

    def check_there(self: Any, number: int, parts: Any) -> None:
        if any(part.key in self._core.old_epochs for part in parts):
            current().count("readers met a dropped build")
        check(self, number, parts)

    look_at, check = old_builds._look, fetch_service._check_there
    old_builds._look, fetch_service._check_there = look, check_there


def _count_losses(losses: Any) -> None:
    """But for those of mappers that only have to commit."""

    def counted(self: Any, *arguments: Any) -> Any:
        current().known_losses += 1
        return pend(self, *arguments)

    def called_back(self: Any, *arguments: Any) -> None:
        before = current().known_losses
        call_back(self, *arguments)
        current().known_losses = before

    pend, call_back = losses._pend, losses.call_back
    losses._pend, losses.call_back = counted, called_back


class _TraceHandler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        if is_active():
            current().trace(f"log {record.name}: {record.getMessage()}")
            error = record.exc_info[1] if record.exc_info else None
            if error is not None and not isinstance(error, OnPurpose):
                current().problem_of_exception("logged", error)


def install() -> None:
    """Replace what is below the programs, once in this process."""
    if _installed:
        return
    _installed.append(True)
    # What pyarrow and numpy import at their first use, and what that draws from `secrets`.
    importlib.import_module("numpy.random")
    pa.array([b"row"]).to_numpy(zero_copy_only=False)
    monotonic, sleep = time.monotonic, time.sleep
    time.monotonic = lambda: current().loop.now if is_active() else monotonic()
    unix = time.time
    time.time = lambda: _EPOCH_S + current().loop.now if is_active() else unix()
    time.sleep = lambda s: threads.sleep(s) if is_active() else sleep(s)
    secrets.randbits = lambda bits: current().rng.getrandbits(bits)  # noqa: PLW0108  each world's
    secrets.token_bytes = lambda n=32: current().rng.randbytes(n)
    secrets.token_hex = lambda n=32: current().rng.randbytes(n).hex()
    grpc.aio.server = aio.Server
    grpc.aio.insecure_channel = aio.Channel
    grpc.insecure_channel = aio.SyncChannel
    # Sets of calls have one order in every run, as those of futures and tasks.
    grpc_channel.GrpcCall.__hash__ = lambda call: call._call.number
    # The simulated network is below gRPC.
    server_choice.NATIVE = None
    channel_choice.NATIVE = None
    transport._channels = transport._Channels(grpc_channel.GrpcTransport())
    following.Waiter.__hash__ = _number_of
    replaced: list[tuple[Any, Any]] = [
        (server_choice.new_server, aio.new_server),
        (cosco.dfs.open_store, storage.open_store),
        (cosco.dfs.registry.open_flash, storage.open_flash),
        (cosco.metadata.store.database.open_database, database.open_database),
        (arena.Arena, SimArena),
        (metrics.DaemonMetrics, SimMetrics),
        (queue.SimpleQueue, threads.SimpleQueue),
        (threading, threads),
        (
            push_streams.STREAMS,
            _OfProcess(push_streams.Streams),
        ),
        (
            following.FOLLOWING,
            _OfProcess(following.Following),
        ),
        (
            commit_outbox.COMMIT_OUTBOXES,
            _OfProcess(commit_outbox.CommitOutboxes),
        ),
        (
            in_use.IN_USE,
            _OfProcess(in_use.InUse),
        ),
        (
            leftovers.LEFTOVERS,
            _Leftovers(),
        ),
        (store_files.StoreFiles, client_files.ClientFiles),
        (direct_reads.DIRECT_STORES, _OfProcess(direct_stores.DirectStores)),
        (known_services.SERVICES, _OfProcess(known_services.KnownServices)),
    ]
    for package in _PACKAGES:
        folder = f"{next(iter(cosco.__path__))}/{package}"
        for info in pkgutil.walk_packages([folder], f"cosco.{package}."):
            if not info.name.startswith(_APART):
                importlib.import_module(info.name)
    daemon = importlib.import_module("cosco.shuffle_service.server")
    daemon.DaemonCore = _shown(daemon.DaemonCore, "cores")
    daemon.FrameBudgets = _shown(daemon.FrameBudgets, "budgets")
    metadata = importlib.import_module("cosco.metadata.server")
    metadata.MetadataState = _shown(metadata.MetadataState, "states")
    # Capabilities are asked for here, and no tokens: those need TLS.
    metadata.principals_of = _principals_of
    guard = metadata.Guard
    metadata.Guard = lambda state, names, _, *rest: guard(state, names, None, *rest)
    _make_tenants(
        importlib.import_module("cosco.metadata.state.access.rights"),
        importlib.import_module("cosco.metadata.state.groups.group_table"),
        importlib.import_module("cosco.shuffle_service.state.intake"),
    )
    _watch_queues(
        importlib.import_module("cosco.protocol.push.fair_order"),
        importlib.import_module("cosco.shuffle_service.state.page_queue"),
    )
    config = importlib.import_module("cosco.config")
    config._check_tokens = lambda _: None
    # Handles are shown to the metadata service as well, which asks for nothing.
    client = importlib.import_module("cosco.client.access.service_connection")
    client.is_loopback = lambda _: True
    _count_losses(importlib.import_module("cosco.metadata.state.exchange.losses").Losses)
    _watch_ends(
        importlib.import_module("cosco.metadata.state.exchange.exchange_state").ExchangeState
    )
    _watch_drops(
        importlib.import_module("cosco.metadata.state.old_builds").OldBuilds,
        importlib.import_module("cosco.shuffle_service.io.read.fetch_service").FetchService,
    )
    watch.watch_tiers(importlib.import_module("cosco.dfs.tiers.state.tier_table").TierTable)
    # So that indexes are forgotten here.
    importlib.import_module("cosco.shuffle_service.state.buffers.limits")._INDEXES_MIN_BYTES = 0
    # So that chunks, which are short here, are read directly, some in pieces, and wait for room.
    importlib.import_module("cosco.shuffle_service.io.read.fetch_service").DIRECT_MIN_BYTES = 200
    direct_window.PIECE_BYTES = 16 << 10
    direct_reads.WINDOW_BYTES = 64 << 10
    # So that groups' exchanges, whose partitions are few here, have several ranges.
    importlib.import_module("cosco.metadata.state.daemons.placement").GROUP_RANGE_PARTITIONS = 2
    kept = {
        "cosco.client.rpc.fork_gate",
        "cosco.client.rpc.native_channel",
        "cosco.client.rpc.transport",
    }  # for real forks of real threads
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] != "cosco" or name in kept:
            continue
        for attribute, value in list(vars(module).items()):
            for old, new in replaced:
                if value is old:
                    setattr(module, attribute, new)
    logger = logging.getLogger("cosco")
    logger.addHandler(_TraceHandler(logging.WARNING))
    logger.propagate = False
    random.seed(0)
    sys.unraisablehook = lambda _: None  # what ends with a world ends in the middle of it
    gc.disable()  # a world collects its garbage when it ends, so that none of it runs in another
    gc.collect()
    gc.freeze()
