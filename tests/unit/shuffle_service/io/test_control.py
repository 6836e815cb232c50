"""Probe and Seal, as the metadata service asks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from support.frame_making import EXCHANGE, INCARNATION, block, frame

from cosco.dfs import MemoryStore
from cosco.errors import CapacityExceeded, ExchangeClosed, InvalidArgument
from cosco.protocol.records import Assignment, DaemonRef, PartitionRange
from cosco.protocol.wire import spb
from cosco.shuffle_service.io.control import MAX_SEAL_KEYS, ControlService
from cosco.shuffle_service.io.flusher import Flusher
from cosco.shuffle_service.io.metrics import DaemonMetrics
from cosco.shuffle_service.io.page_waiters import PageWaiters
from cosco.shuffle_service.state.buffers.assignments import NotAssigned
from cosco.shuffle_service.state.buffers.frame_check import check_frame
from cosco.shuffle_service.state.buffers.pool import MAX_PAGE_BYTES
from cosco.shuffle_service.state.core import DaemonCore

OWN, COPIED = (EXCHANGE, 0, 1), (EXCHANGE, 1, 1)
SELF, PEER = DaemonRef(INCARNATION, "a"), DaemonRef(INCARNATION + 1, "b")


class Rig:
    """A daemon that is the primary of OWN and the replica of COPIED, with rows of both."""

    def __init__(self, store: MemoryStore) -> None:
        self.core = DaemonCore(
            arena=memoryview(bytearray(16 * MAX_PAGE_BYTES)),
            incarnation=INCARNATION,
            chunk_bytes=1 << 20,
        )
        self.core.cluster_id = "c"
        partitions = PartitionRange(0, 0, 9)
        self.core.admit(EXCHANGE, Assignment(0, 1, 1, SELF), partitions)
        self.core.admit(EXCHANGE, Assignment(1, 1, 1, PEER, (SELF,)), partitions)
        self.data = memoryview(frame([block(0, 0, b"x" * 1000)]))
        self.frame = check_frame(self.data)
        self.take()
        self.copy()
        self.waiters = PageWaiters()
        self.flusher = Flusher(self.core, store, self.waiters, DaemonMetrics(), writers=1)
        self.control = ControlService(self.core, self.flusher, self.settle)
        self.failures: list[Exception] = []
        self.tried: asyncio.Queue[tuple[int, int, int]] = asyncio.Queue()

    def take(self) -> None:
        held = self.core.assignment(OWN)
        assert held is not None
        self.core.take(held, self.frame, 0)

    def copy(self) -> None:
        held = self.core.assignment(COPIED)
        assert held is not None
        self.core.take_copy(
            held, self.frame, self.data, PEER.incarnation,
            stream=self, now=0.0, settle=lambda _: None,
        )  # fmt: skip

    async def settle(self, key: tuple[int, int, int]) -> None:
        self.tried.put_nowait(key)
        if self.failures:
            raise self.failures.pop(0)
        while (copy := self.core.copies.oldest(key)) is not None:
            assert self.core.settle_copy(copy)
        self.flusher.kick()

    def seal(self, *keys: tuple[int, int, int], incarnation: int = INCARNATION) -> spb.SealReply:
        return self.control.seal(
            spb.SealRequest(
                incarnation=incarnation,
                keys=[spb.AssignmentKey(number=n, range_index=r, epoch=e) for n, r, e in keys],
            )
        )


def run(main: Callable[[Rig], Coroutine[Any, Any, None]]) -> None:
    async def with_rig() -> None:
        store = MemoryStore()
        await store.open()
        rig = Rig(store)
        rig.flusher.start()
        rig.control.start()
        async with asyncio.timeout(10):
            await main(rig)
        await rig.control.stop()
        await rig.flusher.stop()

    asyncio.run(with_rig())


def test_a_probe_tells_who_it_is() -> None:
    async def main(rig: Rig) -> None:
        assert rig.control.probe().incarnation == INCARNATION

    run(main)


def test_what_is_sealed_takes_nothing_more_and_is_stored_copies_as_well() -> None:
    async def main(rig: Rig) -> None:
        reply = rig.seal(OWN, COPIED, (EXCHANGE, 5, 9))
        assert reply.incarnation == INCARNATION
        assert reply.held_bytes > 2000
        with pytest.raises(NotAssigned):
            rig.take()
        with pytest.raises(NotAssigned):
            rig.copy()
        while rig.core.unstored_bytes:
            await rig.waiters.changed()
        assert rig.tried.get_nowait() == COPIED
        assert rig.tried.empty()  # there is nothing to settle of the others
        assert rig.seal(OWN, COPIED).held_bytes == 0

    run(main)


def test_a_seal_wakes_the_flusher_where_there_is_nothing_to_settle() -> None:
    async def main(rig: Rig) -> None:
        for _ in range(10):
            await asyncio.sleep(0)  # the flusher has found nothing to do
        assert rig.seal(OWN).held_bytes > 1000
        await rig.waiters.changed()
        assert rig.seal(OWN).held_bytes == 0

    run(main)


def test_a_seal_for_another_incarnation_changes_nothing() -> None:
    async def main(rig: Rig) -> None:
        assert rig.seal(OWN, COPIED, incarnation=PEER.incarnation) == spb.SealReply(
            incarnation=INCARNATION
        )
        rig.take()
        rig.copy()
        assert rig.tried.empty()

    run(main)


def test_copies_that_cannot_be_settled_are_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cosco.shuffle_service.io.control._RETRY_S", 0.001)

    async def main(rig: Rig) -> None:
        rig.failures = [CapacityExceeded("full"), OSError("broken")]
        rig.seal(COPIED)
        assert [await rig.tried.get() for _ in range(3)] == [COPIED] * 3
        while rig.core.copies.has(COPIED):
            await rig.waiters.changed()

    run(main)


def test_copies_of_a_closed_exchange_are_not_tried_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("cosco.shuffle_service.io.control._RETRY_S", 0.001)

    async def main(rig: Rig) -> None:
        rig.failures = [ExchangeClosed("closed")]
        rig.seal(COPIED)
        await rig.tried.get()
        await asyncio.sleep(0.01)
        assert rig.tried.empty()

    run(main)


def test_too_many_assignments_at_once_are_refused() -> None:
    async def main(rig: Rig) -> None:
        with pytest.raises(InvalidArgument, match=f"at most {MAX_SEAL_KEYS}"):
            rig.seal(*((1, n, 1) for n in range(MAX_SEAL_KEYS + 1)))

    run(main)
