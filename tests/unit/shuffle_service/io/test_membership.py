"""Heartbeats, sweeps and orders, with a metadata service that answers what it is told to."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from support.daemon_parts import DaemonParts
from support.frame_making import EXCHANGE

from cosco.dfs import MemoryStore
from cosco.errors import InvalidArgument, ServiceUnavailable
from cosco.mechanics import NATIVE
from cosco.process.service_calls import channel_choice
from cosco.protocol import wire
from cosco.protocol.capability import CapabilityKey
from cosco.protocol.records import (
    DaemonHeartbeat,
    DaemonOrders,
    DaemonRegistration,
    EpochsDrop,
    EpochsDropped,
    StoredBytes,
)
from cosco.shuffle_service.io import membership as module
from cosco.shuffle_service.io.epoch_removal import EpochRemoval
from cosco.shuffle_service.io.membership import Membership, MetadataLink

REGISTRATION = DaemonRegistration(11, "a:1", "h", "s", 10, 5)


def orders(*, known: bool = True, cluster_id: str = "c", **more: Any) -> DaemonOrders:
    return DaemonOrders(known=known, cluster_id=cluster_id, lease_s=10.0, **more)


class Rig:
    """A Membership, and both sides of it: `answer` is what the service says to a heartbeat."""

    address = "m:1"

    def __init__(self, *, heartbeat_s: float = 0.001, sweep_s: float = 3600.0) -> None:
        self.heartbeats: list[DaemonHeartbeat] = []
        self.registrations: list[DaemonRegistration] = []
        self.told: list[DaemonOrders] = []
        self.keys: list[tuple[CapabilityKey, ...]] = []
        self.forgotten: list[int] = []
        self.dropped: list[int] = []
        self.draining = False
        self.stored: tuple[int, ...] = ()
        self.answer: Callable[[DaemonHeartbeat], DaemonOrders] = lambda _: orders()
        self.drop_fails = False
        self.register: Callable[[], DaemonOrders] = orders
        self.changed = asyncio.Event()
        parts = DaemonParts(MemoryStore(), link=self)
        self.core = parts.core
        old_epochs = EpochRemoval(parts.core, parts.flusher, MemoryStore(), timeout_s=5.0)
        self.membership = Membership(
            self,  # type: ignore[arg-type]
            describe=self.describe,
            condition=self.condition,
            listed=self.listed,
            forget=self.forgotten.append,
            remove=self.remove,
            stored=parts.core.stored,
            old_epochs=old_epochs,
            told=lambda told, _now: self.told.append(told),
            set_keys=lambda keys: self.keys.append(tuple(keys)),
            heartbeat_s=heartbeat_s,
            sweep_s=sweep_s,
        )

    def condition(self) -> DaemonHeartbeat:
        stored = self.core.stored.to_tell()
        return DaemonHeartbeat(11, 5, draining=self.draining, unstored_bytes=3, stored=stored)

    async def describe(self) -> DaemonRegistration:
        return REGISTRATION

    async def listed(self) -> tuple[int, ...]:
        return self.stored

    async def remove(self, number: int) -> None:
        if self.drop_fails:
            raise OSError("busy")
        self.dropped.append(number)
        self._note()

    async def call(self, method: str, request: Any) -> Any:
        """As of MetadataLink."""
        if method == "RegisterDaemon":
            self.registrations.append(wire.from_pb(DaemonRegistration, request))
            self._note()
            return wire.to_pb(self.register())
        assert method == "Heartbeat"
        heartbeat = wire.from_pb(DaemonHeartbeat, request)
        self.heartbeats.append(heartbeat)
        self._note()
        return wire.to_pb(self.answer(heartbeat))

    def _note(self) -> None:
        self.changed.set()
        self.changed = asyncio.Event()

    async def until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            await self.changed.wait()


def run(main: Callable[[Rig], Coroutine[Any, Any, None]], **options: float) -> None:
    async def with_rig() -> None:
        rig = Rig(**options)
        running = asyncio.create_task(rig.membership.run(orders()))
        try:
            async with asyncio.timeout(10):
                await main(rig)
        finally:
            running.cancel()
            with suppress(asyncio.CancelledError, InvalidArgument):
                await running

    asyncio.run(with_rig())


def test_a_heartbeat_says_how_the_daemon_is_and_its_answer_is_passed_on() -> None:
    async def main(rig: Rig) -> None:
        rig.answer = lambda _: orders(drain=True)
        await rig.until(lambda: len(rig.heartbeats) >= 2)
        assert rig.heartbeats[0] == DaemonHeartbeat(11, 5, unstored_bytes=3)
        assert orders(drain=True) in rig.told

    run(main)


def test_a_drain_is_told_at_once_and_then_often() -> None:
    async def main(rig: Rig) -> None:
        for _ in range(10):
            await asyncio.sleep(0)  # it has begun to wait for the next heartbeat
        assert not rig.heartbeats
        rig.draining = True
        rig.membership.hurry()
        await rig.until(lambda: len(rig.heartbeats) >= 3)
        assert all(heartbeat.draining for heartbeat in rig.heartbeats)

    run(main, heartbeat_s=3600.0)


def test_an_order_is_carried_out_and_confirmed_until_that_is_answered() -> None:
    async def main(rig: Rig) -> None:
        failing = True

        def answer(heartbeat: DaemonHeartbeat) -> DaemonOrders:
            nonlocal failing
            if heartbeat.dropped:
                if failing:
                    failing = False
                    raise ServiceUnavailable("gone for a moment")
                return orders()
            return orders(drop=(4,))

        rig.answer = answer
        await rig.until(lambda: sum(bool(h.dropped) for h in rig.heartbeats) >= 2)
        assert rig.dropped == [4]
        assert {h.dropped for h in rig.heartbeats} == {(), (4,)}

    run(main)


def test_an_order_that_fails_is_not_confirmed_and_is_tried_again() -> None:
    async def main(rig: Rig) -> None:
        rig.drop_fails = True
        rig.answer = lambda h: orders(drop=() if h.dropped else (4,))
        await rig.until(lambda: len(rig.heartbeats) >= 5)
        assert not any(h.dropped for h in rig.heartbeats)
        rig.drop_fails = False
        await rig.until(lambda: rig.heartbeats[-1].dropped == (4,))

    run(main)


def test_an_order_that_comes_while_others_are_carried_out_is_not_lost() -> None:
    async def main(rig: Rig) -> None:
        held = asyncio.Event()
        first = rig.remove

        async def slow(number: int) -> None:
            await held.wait()
            await first(number)

        rig.membership._remove = slow
        given: list[tuple[int, ...]] = [(4,), (5,)]
        rig.answer = lambda _: orders(drop=given.pop(0) if given else ())
        await rig.until(lambda: not given)
        await rig.until(lambda: len(rig.heartbeats) >= 4)
        assert rig.membership.owes_drops
        held.set()
        await rig.until(lambda: rig.dropped == [4, 5])
        assert rig.membership.owes_drops  # until that is told
        await rig.until(lambda: 5 in rig.heartbeats[-1].dropped)
        await rig.until(lambda: not rig.heartbeats[-1].dropped)
        assert not rig.membership.owes_drops

    run(main)


def test_what_a_sweep_finds_is_told_and_what_the_answer_names_is_dropped() -> None:
    async def main(rig: Rig) -> None:
        rig.stored = (4, 7)
        rig.answer = lambda h: orders(drop=(7,) if 7 in h.exchanges else ())
        await rig.until(lambda: rig.dropped == [7])
        assert {h.exchanges for h in rig.heartbeats if h.exchanges} == {(4, 7)}  # whole
        # A folder that appears again is found again.
        await rig.until(lambda: rig.dropped == [7, 7])

    run(main, sweep_s=0.01)


def test_one_sweep_is_told_once() -> None:
    async def main(rig: Rig) -> None:
        sweeps = iter([(4, 7)])

        async def listed() -> tuple[int, ...]:
            for found in sweeps:
                return found
            await asyncio.Event().wait()
            raise AssertionError

        rig.membership._listed = listed
        await rig.until(lambda: any(h.exchanges for h in rig.heartbeats))
        told = len(rig.heartbeats)
        await rig.until(lambda: len(rig.heartbeats) >= told + 5)
        assert sum(bool(h.exchanges) for h in rig.heartbeats) == 1

    run(main, sweep_s=0.001)


def test_a_store_that_cannot_be_listed_does_not_hold_up_heartbeats() -> None:
    async def main(rig: Rig) -> None:
        async def listed() -> tuple[int, ...]:
            raise OSError("cannot be read")

        rig.membership._listed = listed
        await rig.until(lambda: len(rig.heartbeats) >= 20)
        assert not any(h.exchanges for h in rig.heartbeats)

    run(main, sweep_s=0.001)


def test_a_daemon_that_is_not_known_registers_again() -> None:
    async def main(rig: Rig) -> None:
        rig.answer = lambda _: orders(known=bool(rig.registrations))
        await rig.until(lambda: bool(rig.registrations))
        assert rig.registrations == [REGISTRATION]
        before = len(rig.heartbeats)
        await rig.until(lambda: len(rig.heartbeats) > before)

    run(main)


def test_another_cluster_ends_it() -> None:
    async def main() -> None:
        rig = Rig()
        rig.answer = lambda _: orders(cluster_id="d")
        with pytest.raises(ServiceUnavailable, match="is of cluster d now and was of c"):
            await rig.membership.run(orders())

    asyncio.run(main())


def test_memory_is_freed_at_once_whatever_becomes_of_files() -> None:
    async def main(rig: Rig) -> None:
        async def hang(number: int) -> None:
            await asyncio.Event().wait()

        rig.membership._remove = hang
        given: list[tuple[int, ...]] = [(4, 5), (5, 6), (4, 5, 6)]
        rig.answer = lambda _: orders(drop=given.pop(0) if given else ())
        await rig.until(lambda: not given and len(rig.heartbeats) >= 6)
        assert rig.forgotten == [4, 5, 6]
        assert not any(heartbeat.dropped for heartbeat in rig.heartbeats)

    run(main)


def test_it_registers_until_the_service_is_sure(caplog: pytest.LogCaptureFixture) -> None:
    """Somebody may be at its address who is registered."""

    async def main(rig: Rig) -> None:
        answers = [replace(orders(), known=False)] * 2
        rig.register = lambda: answers.pop() if answers else orders()
        rig.answer = lambda h: replace(orders(), known=len(rig.registrations) >= 3)
        await rig.until(lambda: len(rig.registrations) >= 3)
        await rig.until(lambda: len(rig.heartbeats) >= 3)
        assert len(rig.registrations) == 3
        [told] = [one.getMessage() for one in caplog.records]
        assert "another daemon is registered at" in told

    run(main)


KEY, NEXT = CapabilityKey(1, b"k" * 32), CapabilityKey(2, b"n" * 32)


def test_keys_are_there_before_anything_is_served() -> None:
    async def main() -> None:
        rig = Rig()
        answers = [orders(known=False, keys=(NEXT,)), orders(keys=(KEY,))]
        rig.register = lambda: answers.pop(0)
        await rig.membership.register(5.0)
        assert rig.keys == [(KEY,)]

    asyncio.run(main())


def test_keys_are_those_of_the_last_answer_that_knows_it() -> None:
    async def main(rig: Rig) -> None:
        said = [
            orders(keys=(KEY,)),
            orders(known=False),  # which says nothing of keys
            orders(keys=(KEY, NEXT)),
            orders(keys=(NEXT,)),
            orders(),
        ]
        rig.register = lambda: orders(keys=(KEY,))
        rig.answer = lambda _: said.pop(0) if said else orders()
        await rig.until(lambda: len(rig.heartbeats) > 6)
        assert rig.keys[:6] == [(), (KEY,), (KEY,), (KEY, NEXT), (NEXT,), ()]

    run(main)


def test_it_ends_when_another_daemon_answers_at_its_address() -> None:
    async def main(rig: Rig) -> None:
        def refuse() -> DaemonOrders:
            raise InvalidArgument("another shuffle daemon answers")

        rig.register = refuse
        rig.answer = lambda _: replace(orders(), known=False)
        with pytest.raises(InvalidArgument, match="another shuffle daemon answers"):
            await rig.membership.run(orders())
        with pytest.raises(InvalidArgument, match="another shuffle daemon answers"):
            await rig.membership.register(5.0)

    asyncio.run(main(Rig()))


def test_old_epochs_go_by_order_and_that_is_said_with_sweeps_alone() -> None:
    async def main(rig: Rig) -> None:
        rig.stored = (EXCHANGE, 9)
        drop = (EpochsDrop(EXCHANGE, 0, 2, 5),)

        def answer(heartbeat: DaemonHeartbeat) -> DaemonOrders:
            return orders(epochs_drop=() if heartbeat.epochs_dropped else drop)

        rig.answer = answer
        await rig.until(lambda: bool(rig.heartbeats and rig.heartbeats[-1].epochs_dropped))
        assert rig.heartbeats[-1].epochs_dropped == (EpochsDropped(EXCHANGE, 5),)
        assert all(h.exchanges for h in rig.heartbeats if h.epochs_dropped)
        assert rig.core.exchanges() == set()
        rig.stored = ()
        await rig.until(lambda: not len(rig.core.old_epochs))  # as nothing is there of it

    run(main, sweep_s=0.001)


@pytest.mark.parametrize(
    "way",
    ["portable", pytest.param("native", marks=pytest.mark.skipif(NATIVE is None, reason="x"))],
)
def test_answers_that_cannot_be_read_count_as_none(
    way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever answers there; what waits for an answer is not to end by it."""
    if way == "portable":
        monkeypatch.setattr(channel_choice, "NATIVE", None)

    async def nonsense(_request: bytes, _context: Any) -> bytes:
        return b"\xff\xff"

    def failing(error: bytes) -> Any:
        async def fail(_request: bytes, context: Any) -> bytes:
            trailers = ((wire.ERROR_KEY, error),)
            await context.abort(grpc.StatusCode.INTERNAL, "no", trailers)
            raise AssertionError("abort returned")

        return fail

    meant = wire.error_to_bytes(InvalidArgument("another one is there"))
    handlers = {
        "Heartbeat": grpc.unary_unary_rpc_method_handler(nonsense),
        "ReportDaemon": grpc.unary_unary_rpc_method_handler(failing(b"\xff\xff")),
        "RegisterDaemon": grpc.unary_unary_rpc_method_handler(failing(meant)),
    }

    async def main() -> None:
        server = grpc.aio.server()
        service = grpc.method_handlers_generic_handler(wire.METADATA_SERVICE, handlers)
        server.add_generic_rpc_handlers((service,))
        link = MetadataLink(f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}")
        await server.start()
        try:
            with pytest.raises(ServiceUnavailable, match="its answer is nonsense"):
                await link.call("Heartbeat", wire.mpb.HeartbeatRequest())
            with pytest.raises(ServiceUnavailable, match="ReportDaemon at"):
                await link.call("ReportDaemon", wire.mpb.ReportDaemonRequest())
            with pytest.raises(InvalidArgument, match="another one is there"):
                await link.call("RegisterDaemon", wire.mpb.RegisterDaemonRequest())
            with pytest.raises(ServiceUnavailable, match="a gRPC server of something else"):
                await link.call("LookupAssignment", wire.mpb.LookupAssignmentRequest())
        finally:
            await link.close()
            await server.stop(None)

    asyncio.run(main())


@pytest.mark.parametrize(("step_s", "at_a_time"), [(0.0, 100), (0.0004, 3), (1.0, 1)])
def test_exchanges_are_forgotten_for_a_moment_at_a_time(
    monkeypatch: pytest.MonkeyPatch, step_s: float, at_a_time: int
) -> None:
    """So that many cost little, and nobody else waits for all of them."""
    clock = itertools.count()
    stepping = SimpleNamespace(monotonic=lambda: next(clock) * step_s)

    async def main(rig: Rig) -> None:
        seen: list[int] = []

        async def look() -> None:
            while True:
                seen.append(len(rig.forgotten))
                await asyncio.sleep(0)

        looking = asyncio.create_task(look())
        monkeypatch.setattr(module, "time", stepping)
        rig.membership._order(orders(drop=tuple(range(1, 101))))
        await rig.until(lambda: len(rig.dropped) == 100)
        looking.cancel()
        assert rig.forgotten == list(range(1, 101))
        gained = [after - before for before, after in itertools.pairwise(seen)]
        assert max(gained) == at_a_time

    run(main, heartbeat_s=1000.0)


def test_what_is_stored_is_told_until_it_was_heard_and_again_with_each_sweep() -> None:
    async def main(rig: Rig) -> None:
        wanted = (StoredBytes(EXCHANGE, 70),)
        rig.core.stored.wrote(EXCHANGE, 70)
        rig.answer = lambda _: replace(orders(), known=False)
        await rig.until(lambda: len(rig.heartbeats) >= 3)  # of a service that knows it not
        assert {h.stored for h in rig.heartbeats} == {wanted}
        rig.answer = lambda _: orders()
        await rig.until(lambda: not rig.heartbeats[-1].stored)
        told = len(rig.heartbeats)
        await rig.until(lambda: rig.heartbeats[-1].stored == wanted)
        assert len(rig.heartbeats) > told

    run(main, sweep_s=0.05)


def test_all_that_is_stored_is_told_again_after_the_service_was_away() -> None:
    """It may have been started again, and then knows nothing of it."""

    async def main(rig: Rig) -> None:
        rig.core.stored.wrote(EXCHANGE, 70)
        await rig.until(lambda: bool(rig.heartbeats) and not rig.heartbeats[-1].stored)
        away = ServiceUnavailable("away")

        def refuse(_: DaemonHeartbeat) -> DaemonOrders:
            rig.answer = lambda _: orders()
            raise away

        rig.answer = refuse
        wanted = (StoredBytes(EXCHANGE, 70),)
        await rig.until(lambda: rig.heartbeats[-1].stored == wanted)

    run(main)
