"""Failover at the level of calls: the real metadata service, with daemons that are played or
real processes."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Self

import grpc
import pytest
from support.metadata_service import LONG_S, Service, run, running

import cosco.metadata.service.courier
import cosco.metadata.service.handlers
from cosco.errors import InvalidArgument
from cosco.local.cluster import LocalCluster
from cosco.metadata.state.daemons.members import Members
from cosco.metadata.state.state import MetadataState
from cosco.metadata.store.sql import SqlStore
from cosco.observe import drain_daemon, fetch_status
from cosco.protocol import wire
from cosco.protocol.records import Assignment, DaemonRef, DaemonState
from cosco.protocol.wire import mpb, spb

#: A dead process must be noticed, and its ranges be elsewhere, in so long.
NOTICED_S = 2.0


class PlayedDaemon:
    """Answers Probe and Seal; what it was sealed of is in `sealed`."""

    def __init__(self, incarnation: int) -> None:
        self.incarnation = incarnation
        #: Where it is served.
        self.ref = DaemonRef(incarnation, "")
        self.probes = 0
        self.sealed: list[tuple[int, int, int]] = []
        #: Calls fail while it is not set; they hang while `hears` is not.
        self.obeys = True
        self.hears = asyncio.Event()
        self.hears.set()
        self.seals = 0
        #: Whether what it answers is no message of this protocol.
        self.babbles = False

    async def probe(self, _request: Any, _context: Any) -> Any:
        self.probes += 1
        await self.hears.wait()
        return spb.ProbeReply(incarnation=self.incarnation)

    async def seal(self, request: Any, context: Any) -> Any:
        self.seals += 1
        await self.hears.wait()
        if not self.obeys:
            await context.abort(grpc.StatusCode.INTERNAL, "not now")
        assert request.incarnation == self.incarnation
        self.sealed += [(key.number, key.range_index, key.epoch) for key in request.keys]
        return spb.SealReply(incarnation=self.incarnation)

    def _serialize(self, reply: Any) -> bytes:
        message: bytes = reply.SerializeToString()
        return b"\xff\xff\xff" if self.babbles else message

    @asynccontextmanager
    async def served(self) -> AsyncIterator[Self]:
        server = grpc.aio.server()
        handlers: dict[str, Any] = {
            "Probe": grpc.unary_unary_rpc_method_handler(
                self.probe, spb.ProbeRequest.FromString, self._serialize
            ),
            "Seal": grpc.unary_unary_rpc_method_handler(
                self.seal, spb.SealRequest.FromString, self._serialize
            ),
        }
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(wire.SHUFFLE_SERVICE, handlers),)
        )
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        try:
            self.ref = DaemonRef(self.incarnation, f"127.0.0.1:{port}")
            yield self
        finally:
            self.hears.set()
            await server.stop(0)


@asynccontextmanager
async def played(count: int) -> AsyncIterator[list[PlayedDaemon]]:
    """Daemons with the incarnations 1, 2, …, served."""
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(PlayedDaemon(incarnation).served())
            for incarnation in range(1, count + 1)
        ]


async def in_use(service: Service, daemon: PlayedDaemon, *later: PlayedDaemon) -> None:
    """An exchange with one range, on `daemon`; the others come after."""
    await service.register(daemon.incarnation, address=daemon.ref.address)
    await service.create(partitions=1)
    for other in later:
        await service.register(other.incarnation, address=other.ref.address)


async def drain(service: Service, daemon: PlayedDaemon) -> None:
    await service.call("DrainDaemon", mpb.DrainDaemonRequest(daemon=daemon.ref.address))


def calls_of(monkeypatch: pytest.MonkeyPatch, part: type, method: str) -> list[object]:
    """Grows with every call of a method of the state, or of a part of it."""
    calls: list[object] = []
    original = getattr(part, method)

    def call(*arguments: Any) -> Any:
        calls.append(arguments)
        return original(*arguments)

    monkeypatch.setattr(part, method, call)
    return calls


def nobody(incarnation: int) -> DaemonRef:
    """A daemon at an address where nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return DaemonRef(incarnation, f"127.0.0.1:{free.getsockname()[1]}")


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 (there is no event for it)
        await asyncio.sleep(0.01)


async def current(service: Service) -> Assignment:
    return (await service.describe()).assignments[0]


# --- played daemons -----------------------------------------------------------------------


def test_one_that_refuses_connections_is_dead_and_its_ranges_move(tmp_path: Path) -> None:
    async def test() -> None:
        dead = nobody(1)
        async with running(tmp_path) as service, played(3) as (_, replica, third):
            await service.register(1, address=dead.address)
            await service.register(2, address=replica.ref.address)
            await service.create(replicas=2, partitions=1)
            assert (await current(service)).primary == dead
            await service.register(3, address=third.ref.address)
            begun = time.monotonic()
            renewed = await service.renew((0, 1), suspect=dead, wait_s=LONG_S)
            assert time.monotonic() - begun < NOTICED_S
            [assignment] = renewed.assignments
            assert assignment.epoch == 2
            assert {assignment.primary, *assignment.replicas} == {replica.ref, third.ref}
            assert not renewed.alive
            assert replica.sealed == [(1, 0, 1)]
            assert third.sealed == []
            assert not await service.report(dead)

    run(test)


def test_another_start_at_the_address_is_the_end_of_the_one_before(tmp_path: Path) -> None:
    async def test() -> None:
        async with running(tmp_path) as service, PlayedDaemon(7).served() as daemon:
            await service.register(1, address=daemon.ref.address)
            assert not await service.report(DaemonRef(1, daemon.ref.address))
            assert daemon.probes == 1
            assert not (await service.beat(1)).known

    run(test)


def test_many_reports_are_one_question(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cosco.metadata.service.courier, "PROBE_TIMEOUT_S", LONG_S)
    monkeypatch.setattr(cosco.metadata.service.handlers, "MAX_REPORT_S", LONG_S)
    reported = calls_of(monkeypatch, Members, "report")

    async def test() -> None:
        async with running(tmp_path) as service, played(1) as [daemon]:
            await in_use(service, daemon)
            daemon.hears.clear()
            reports = [asyncio.create_task(service.report(daemon.ref)) for _ in range(20)]
            await until(lambda: len(reported) == 20 and daemon.probes > 0)
            assert not any(report.done() for report in reports)
            daemon.hears.set()
            assert all(await asyncio.gather(*reports))
            assert daemon.probes == 1

    run(test)


def test_silence_is_not_death(tmp_path: Path) -> None:
    async def test() -> None:
        async with running(tmp_path) as service, played(1) as [daemon]:
            await in_use(service, daemon)
            daemon.hears.clear()
            assert await service.report(daemon.ref)
            assert (await service.renew((0, 1), suspect=daemon.ref, wait_s=LONG_S)).alive
            assert (await service.beat(1)).known

    run(test)


def test_an_answer_that_is_no_message_counts_as_silence(tmp_path: Path) -> None:
    async def test() -> None:
        async with running(tmp_path) as service, played(2) as (daemon, other):
            await in_use(service, daemon, other)
            daemon.babbles = True
            assert await service.report(daemon.ref)
            await drain(service, daemon)
            await until(lambda: daemon.seals >= 2)
            assert daemon.ref.address in (await service.renew((0, 1))).waiting_for
            daemon.babbles = False
            renewed = await service.renew((0, 1), wait_s=LONG_S)
            assert [a.primary for a in renewed.assignments] == [other.ref]

    run(test)


def test_a_seal_is_tried_until_it_is_confirmed(tmp_path: Path) -> None:
    async def test() -> None:
        async with running(tmp_path) as service, played(2) as (daemon, other):
            await in_use(service, daemon, other)
            daemon.obeys = False
            await drain(service, daemon)
            await until(lambda: daemon.seals >= 3)
            waits = await service.renew((0, 1))
            assert daemon.ref.address in waits.waiting_for
            renewal = asyncio.create_task(service.renew((0, 1), wait_s=LONG_S))
            daemon.obeys = True
            assert [a.primary for a in (await renewal).assignments] == [other.ref]
            assert daemon.sealed == [(1, 0, 1)]

    run(test)


def test_nobody_is_fenced_before_the_seal_is_durable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writes = threading.Event()
    writes.set()
    original = SqlStore.write

    def write(store: SqlStore, changes: Any) -> None:
        assert writes.wait(20)
        original(store, changes)

    monkeypatch.setattr(SqlStore, "write", write)

    async def test() -> None:
        async with running(tmp_path) as service, played(2) as (daemon, other):
            await in_use(service, daemon, other)
            writes.clear()
            draining = asyncio.create_task(drain(service, daemon))
            await asyncio.sleep(0.3)  # for what must not happen there is no event
            assert not draining.done()
            assert daemon.seals == 0
            writes.set()
            await draining
            renewed = await service.renew((0, 1), wait_s=LONG_S)
            assert [a.primary for a in renewed.assignments] == [other.ref]

    run(test)


def test_a_daemon_that_comes_ends_the_wait_of_writers(tmp_path: Path) -> None:
    async def test() -> None:
        async with running(tmp_path) as service, played(2) as (daemon, other):
            await service.register(1, address=daemon.ref.address)
            await service.create(partitions=2)
            await drain(service, daemon)
            renewals = [
                asyncio.create_task(service.renew(*stale, wait_s=LONG_S))
                for stale in ([(0, 1)], [(1, 1)], [(0, 1), (1, 1)])
            ]
            await until(lambda: len(daemon.sealed) == 2)
            bounded = await service.renew((0, 1), wait_s=0.1)
            assert "min_replicas=1" in bounded.waiting_for
            assert not any(renewal.done() for renewal in renewals)
            await service.register(2, address=other.ref.address)
            answers = await asyncio.gather(*renewals)
            assert [len(answer.assignments) for answer in answers] == [1, 1, 2]

    run(test)


def test_a_writer_that_insists_goes_elsewhere(tmp_path: Path) -> None:
    async def test() -> None:
        async with running(tmp_path) as service, played(2) as (daemon, other):
            await in_use(service, daemon, other)
            assert (await service.renew((0, 1), suspect=daemon.ref)).alive
            renewed = await service.renew((0, 1), suspect=daemon.ref, insist=True, wait_s=LONG_S)
            assert [a.primary for a in renewed.assignments] == [other.ref]
            assert daemon.sealed == [(1, 0, 1)]
            assert await service.report(daemon.ref)

    run(test)


def test_a_restarted_service_finishes_what_it_began(tmp_path: Path) -> None:
    async def test() -> None:
        async with played(2) as (daemon, other):
            async with running(tmp_path) as service:
                await in_use(service, daemon, other)
                daemon.obeys = False
                await drain(service, daemon)
                assert (await current(service)).sealed
            daemon.obeys = True
            async with running(tmp_path) as service:
                renewed = await service.renew((0, 1), wait_s=LONG_S)
                assert [a.primary for a in renewed.assignments] == [other.ref]
                assert (await service.beat(1)).drain

    run(test)


def test_only_daemons_are_drained(tmp_path: Path) -> None:
    async def test() -> None:
        async with running(tmp_path) as service:
            with pytest.raises(InvalidArgument, match="there is no live shuffle daemon at 'a:1'"):
                await service.call("DrainDaemon", mpb.DrainDaemonRequest(daemon="a:1"))

    run(test)


def test_a_writer_that_opens_is_told_of_the_next_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cosco.metadata.service.handlers, "MAX_MOVE_S", LONG_S)
    looks = calls_of(monkeypatch, MetadataState, "fencing")

    async def test() -> None:
        async with running(tmp_path) as service, played(2) as (daemon, other):
            await in_use(service, daemon, other)
            daemon.hears.clear()
            await drain(service, daemon)
            await until(lambda: daemon.seals == 1)
            opening = asyncio.create_task(service.open_attempt(1))
            await until(lambda: bool(looks))
            await service.beat(2)
            assert not opening.done()
            daemon.hears.set()
            [assignment] = (await opening).info.assignments
            assert (assignment.epoch, assignment.primary) == (2, other.ref)
            # Where there is nobody else, it is not kept waiting.
            await drain(service, other)
            await until(lambda: bool(other.sealed))
            assert (await service.open_attempt(1)).info.assignments[0].sealed

    run(test)


def test_a_writer_that_opens_waits_for_no_silent_daemon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cosco.metadata.service.handlers, "MAX_MOVE_S", 0.05)

    async def test() -> None:
        async with running(tmp_path) as service, played(2) as (daemon, other):
            await in_use(service, daemon, other)
            daemon.hears.clear()
            await drain(service, daemon)
            opened = await service.open_attempt(1)
            assert opened.info.assignments[0].sealed
            following = await service.open_attempt(1)
            assert following.attempt >> 36 == (opened.attempt >> 36) + 1

    run(test)


# --- processes ----------------------------------------------------------------------------


@asynccontextmanager
async def service_at(address: str) -> AsyncIterator[Service]:
    async with grpc.aio.insecure_channel(address) as channel:
        yield Service(address, channel)


def test_a_killed_process_is_noticed_in_two_seconds() -> None:
    async def test(cluster: LocalCluster) -> None:
        async with service_at(cluster.metadata) as service:
            await service.create(replicas=2, partitions=1)
            before = await current(service)
            [killed] = [d for d in cluster.daemons if d.address == before.primary.address]
            killed.kill()
            begun = time.monotonic()
            renewed = await service.renew((0, 1), suspect=before.primary, wait_s=LONG_S)
            assert time.monotonic() - begun < NOTICED_S
            [assignment] = renewed.assignments
            assert before.primary not in {assignment.primary, *assignment.replicas}
            assert len(assignment.replicas) == 1
            killed.restart()
            assert not await service.report(before.primary)
            states = [d.state for d in fetch_status(cluster.metadata).daemons]
            assert sorted(states) == [DaemonState.SERVING] * 3 + [DaemonState.DEAD]

    with LocalCluster(3, memory="64MiB") as cluster:
        run(lambda: test(cluster))


def test_a_stopped_process_is_alive_and_then_fenced() -> None:
    async def test(cluster: LocalCluster) -> None:
        async with service_at(cluster.metadata) as service:
            await service.create(replicas=2, partitions=1)
            before = await current(service)
            [paused] = [d for d in cluster.daemons if d.address == before.primary.address]
            os.kill(paused.pid, signal.SIGSTOP)
            try:
                assert await service.report(before.primary)
                drain_daemon(cluster.metadata, paused.address)
                assert paused.address in (await service.renew((0, 1))).waiting_for
            finally:
                os.kill(paused.pid, signal.SIGCONT)
            renewed = await service.renew((0, 1), wait_s=LONG_S)
            assert [a.epoch for a in renewed.assignments] == [2]

    with LocalCluster(3, memory="64MiB") as cluster:
        run(lambda: test(cluster))


def test_cosco_drain() -> None:
    def drain(daemon: str, metadata: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "cosco.cli.main", "drain", daemon, "--metadata", metadata],
            capture_output=True,
            text=True,
            check=False,
        )

    with LocalCluster(2, memory="64MiB") as cluster:
        address = cluster.daemons[0].address
        done = drain(address, cluster.metadata)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout == f"{address} drains: cosco status shows it until it has ended\n"
        for daemon in fetch_status(cluster.metadata).daemons:
            assert (daemon.state is DaemonState.SERVING) == (daemon.ref.address != address)
        failed = drain("127.0.0.1:1", cluster.metadata)
        assert failed.returncode == 2
        assert failed.stdout == ""
        assert failed.stderr == (
            "cosco: there is no live shuffle daemon at '127.0.0.1:1': name one that cosco "
            "status lists, as host:port\n"
        )
