"""Old epochs go from memory and from the store, and are said to be gone only then."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Any

from support.daemon_parts import DaemonParts
from support.frame_making import EXCHANGE, INCARNATION, block

from cosco.dfs import MemoryStore
from cosco.format.chunk import ALIGNMENT
from cosco.protocol.events import EventKind
from cosco.protocol.keys import AssignmentKey
from cosco.protocol.records import Assignment, DaemonRef, EpochsDrop, EpochsDropped, PartitionRange
from cosco.shuffle_service.io.epoch_removal import EpochRemoval

ROOT = f"c/{EXCHANGE}/"


class FailingStore(MemoryStore):
    """A store that deletes nothing while `fails`, and says when it was asked to."""

    def __init__(self) -> None:
        super().__init__()
        self.fails = False
        self.asked = asyncio.Event()

    async def delete_prefix(self, prefix: str) -> None:
        self.asked.set()
        if self.fails:
            raise OSError(errno.EIO, "Input/output error")
        await super().delete_prefix(prefix)


class HangingStore(MemoryStore):
    """A store whose puts hang until `go` is set, and which says when it was asked for one."""

    def __init__(self) -> None:
        super().__init__()
        self.go = asyncio.Event()
        self.asked = asyncio.Event()

    async def put(self, path: str, parts: Sequence[memoryview]) -> None:
        self.asked.set()
        await self.go.wait()
        await super().put(path, parts)


class Rig:
    def __init__(self, store: MemoryStore, timeout_s: float) -> None:
        self.store = store
        self.parts = DaemonParts(store)
        self.core = self.parts.core
        self.removal = EpochRemoval(self.core, self.parts.flusher, store, timeout_s=timeout_s)

    async def lay(self, *folders: str, number: int = EXCHANGE) -> None:
        """Put a file of some daemon into each of these folders of an exchange."""
        for folder in folders:
            path = f"c/{number}/{folder}/0-3-99-1"
            await self.store.put(path, [memoryview(bytes(ALIGNMENT))])

    async def folders(self, number: int = EXCHANGE) -> list[str]:
        return await self.store.list_folders(f"c/{number}/")

    def order(self, *drops: tuple[int, int, int], number: int = EXCHANGE) -> None:
        self.removal.order(EpochsDrop(number, *drop) for drop in drops)

    async def until_dropped(self, sequence: int, number: int = EXCHANGE) -> None:
        done = EpochsDropped(number, sequence)
        while True:
            if done in self.removal.dropped([EXCHANGE, number]):
                return
            await asyncio.sleep(0)

    async def turns(self) -> None:
        """Let what can go on go on."""
        for _ in range(50):
            await asyncio.sleep(0)


def run(
    main: Callable[[Rig], Coroutine[Any, Any, None]],
    store: Callable[[], MemoryStore] = MemoryStore,
    *,
    timeout_s: float = 30.0,
) -> None:
    async def with_rig() -> None:
        opened = store()
        await opened.open()
        rig = Rig(opened, timeout_s)
        rig.parts.flusher.start()
        running = asyncio.create_task(rig.removal.run())
        try:
            async with asyncio.timeout(20):
                await main(rig)
        finally:
            running.cancel()
            with suppress(asyncio.CancelledError):
                await running
            await rig.parts.flusher.stop()

    asyncio.run(with_rig())


def test_old_epochs_go_and_nothing_else() -> None:
    async def main(rig: Rig) -> None:
        await rig.parts.take(block(0, 0))
        await rig.lay("0-1", "0-2", "0-3", "0-12", "1-1", "10-1")
        await rig.lay("0-x", "00-1", "0-01", "strange", "-1", "0-1-1")
        await rig.lay("0-1", number=EXCHANGE + 1)
        rig.order((0, 3, 1), (1, 1, 2))
        await rig.until_dropped(2)
        assert await rig.folders() == sorted(
            ["0-3", "0-12", "1-1", "10-1", "0-x", "00-1", "0-01", "strange", "-1", "0-1-1"]
        )
        assert await rig.folders(EXCHANGE + 1) == ["0-1"]
        assert rig.core.assignment(AssignmentKey(EXCHANGE, 0, 1)) is None
        assert not rig.core.unstored_bytes
        [event] = [e for e in rig.core.events.pop_all() if e.kind is EventKind.EPOCHS_DROPPED]
        assert (event.number, event.range_indexes) == (EXCHANGE, (0,))
        rig.order((0, 3, 1))  # told again: there is nothing to do, and nothing to tell
        await rig.turns()
        assert not rig.core.events

    run(main)


def test_what_fails_is_not_said_to_be_done_and_is_done_when_it_is_ordered_again() -> None:
    async def main(rig: Rig) -> None:
        store = rig.store
        assert isinstance(store, FailingStore)
        await rig.lay("0-1", "0-2")
        store.fails = True
        rig.order((0, 2, 1))
        await store.asked.wait()
        await rig.turns()
        assert rig.removal.dropped([EXCHANGE]) == ()
        assert rig.core.assignment(AssignmentKey(EXCHANGE, 0, 1)) is None  # memory is free
        store.fails = False
        rig.order((0, 2, 1))
        await rig.until_dropped(1)
        assert await rig.folders() == ["0-2"]

    run(main, FailingStore)


def test_an_exchange_that_cannot_be_deleted_holds_up_no_other() -> None:
    async def main(rig: Rig) -> None:
        store = rig.store
        assert isinstance(store, FailingStore)
        await rig.lay("0-1", number=EXCHANGE + 1)
        delete = store.delete_prefix

        async def fails_first(prefix: str) -> None:
            if prefix.startswith(ROOT):
                raise OSError(errno.EIO, "Input/output error")
            await delete(prefix)

        store.delete_prefix = fails_first  # type: ignore[method-assign]
        await rig.lay("0-1")
        rig.order((0, 2, 1))
        rig.order((0, 2, 5), number=EXCHANGE + 1)
        await rig.until_dropped(5, EXCHANGE + 1)
        assert await rig.folders(EXCHANGE + 1) == []
        assert await rig.folders() == ["0-1"]

    run(main, FailingStore)


def test_a_write_under_way_is_waited_for_so_that_it_leaves_nothing() -> None:
    async def main(rig: Rig) -> None:
        store = rig.store
        assert isinstance(store, HangingStore)
        await rig.parts.take(block(0, 0, b"x" * (64 << 10)))
        await store.asked.wait()
        rig.order((0, 2, 1))
        await rig.turns()
        assert rig.removal.dropped([EXCHANGE]) == ()
        store.go.set()
        await rig.until_dropped(1)
        assert await rig.folders() == []
        assert rig.core.pool.free_bytes == rig.core.pool.capacity_bytes

    run(main, HangingStore)


def test_a_write_that_hangs_ends_the_try_and_the_present_epoch_is_no_matter() -> None:
    async def main(rig: Rig) -> None:
        store = rig.store
        assert isinstance(store, HangingStore)
        await rig.parts.take(block(0, 0, b"x" * (64 << 10)))
        await store.asked.wait()
        rig.order((1, 2, 1))  # of another range: nothing of it is being written
        await rig.until_dropped(1)
        rig.order((0, 2, 2))
        await asyncio.sleep(0.1)  # longer than is waited
        assert rig.removal.dropped([EXCHANGE]) == (EpochsDropped(EXCHANGE, 1),)
        store.go.set()
        rig.order((0, 2, 2))
        await rig.until_dropped(2)
        assert await rig.folders() == []

    run(main, HangingStore, timeout_s=0.02)


def test_what_is_said_is_of_what_a_sweep_found_and_closed_exchanges_are_let_be() -> None:
    async def main(rig: Rig) -> None:
        rig.order((0, 2, 3))
        await rig.until_dropped(3)
        assert rig.removal.dropped([EXCHANGE + 1]) == ()
        assert len(rig.core.old_epochs) == 0
        assert rig.removal.dropped([EXCHANGE]) == ()  # it was forgotten, and is told again
        rig.core.drop(EXCHANGE)
        await rig.lay("0-1")
        rig.order((0, 2, 4))
        await rig.turns()
        assert rig.removal.dropped([EXCHANGE]) == ()
        assert await rig.folders() == ["0-1"]  # it goes with all of the exchange
        assert len(rig.core.old_epochs) == 0

    run(main)


def test_an_exchange_that_is_closed_while_its_old_epochs_are_deleted() -> None:
    async def main(rig: Rig) -> None:
        store = rig.store
        assert isinstance(store, HangingStore)
        await rig.parts.take(block(0, 0, b"x" * (64 << 10)))
        await store.asked.wait()
        rig.order((0, 2, 1))
        await rig.turns()  # it waits for the write by now
        rig.core.drop(EXCHANGE)
        store.go.set()
        await rig.until_dropped(1)
        assert await rig.folders() == []
        assert rig.core.pool.free_bytes == rig.core.pool.capacity_bytes
        assert len(rig.core.old_epochs) == 0

    run(main, HangingStore)


def test_what_came_late_is_refused_after_it_has_gone() -> None:
    async def main(rig: Rig) -> None:
        rig.order((0, 2, 1))
        await rig.until_dropped(1)
        first = Assignment(0, 1, 1, DaemonRef(INCARNATION, "a"))
        rig.core.admit(EXCHANGE, first, PartitionRange(0, 0, 9))
        assert rig.core.assignment(AssignmentKey(EXCHANGE, 0, 1)) is None

    run(main)
