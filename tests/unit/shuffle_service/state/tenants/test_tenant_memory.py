"""What tenants have of a daemon's memory: counted exactly, bounded, and never at a standstill."""

from __future__ import annotations

import random
from collections import Counter, deque

import pytest
from support.frame_making import INCARNATION, block, frame

from cosco.errors import CoscoError
from cosco.protocol.group_records import Alike, FoundAssignment
from cosco.protocol.keys import AssignmentKey, CopyId
from cosco.protocol.push.credits import FrameBudgets
from cosco.protocol.push.messages import Hello
from cosco.protocol.push.receiver import Intake, PushReceiver
from cosco.protocol.records import Assignment, DaemonRef, PartitionRange
from cosco.shuffle_service.state.buffers import mechanics_choice
from cosco.shuffle_service.state.buffers.limits import PoolShares
from cosco.shuffle_service.state.buffers.pool import MAX_PAGE_BYTES, PagePool
from cosco.shuffle_service.state.core import DaemonCore
from cosco.shuffle_service.state.intake import Intakes
from cosco.shuffle_service.state.replication.copy_log import Copy
from cosco.shuffle_service.state.segments.segment_choice import Flush
from cosco.shuffle_service.state.tenants.tenant_memory import TenantMemory

KIB = 1 << 10
PARTITIONS = 4
LONGEST = 100 * KIB
HERE = DaemonRef(INCARNATION, "a")


class Daemon:
    """A core of 1 MiB with one exchange for each tenant, whose number is his tag, and writers."""

    def __init__(self, share: float, tenants: int = 2) -> None:
        self.core = DaemonCore(
            arena=memoryview(bytearray(4 * MAX_PAGE_BYTES)),
            incarnation=INCARNATION,
            segment_bytes=64 * KIB,
            tenant_memory_share=share,
        )
        self.core.cluster_id = "c"
        self.intakes = Intakes(self.core, lambda *_: None, lambda *_: lambda: None)
        for tenant in range(1, tenants + 1):
            self.admit(tenant)
        self.answered: Counter[int] = Counter()
        self.refused: list[CoscoError] = []
        self.positions: Counter[int] = Counter()
        self.writing: deque[Flush] = deque()

    def admit(self, tenant: int) -> None:
        assigned = Assignment(0, 1, 1, HERE)
        self.core.admit(tenant, assigned, PartitionRange(0, 0, PARTITIONS), tenant=tenant)

    def writer(self, tenant: int, mapper: int = 1) -> Intake:
        stream = PushReceiver(INCARNATION, FrameBudgets(1 << 20), self.intakes.open)
        return self.intakes.open(Hello(tenant, mapper, 1, INCARNATION), stream, 0.0, tenant)

    def push(
        self, intake: Intake, tenant: int, length: int, partition: int = 0, mapper: int = 1
    ) -> bool:
        """Returns whether the frame is in, or refused, at once."""

        def answer(error: CoscoError | None) -> None:
            if error is None:
                self.answered[tenant] += length
            else:
                self.refused.append(error)

        position = self.positions[tenant]
        self.positions[tenant] += 1
        assert intake.tenant == tenant
        made = block(partition, position, b"x" * length, exchange=tenant, mapper=mapper)
        return intake.take_in(memoryview(frame([made], exchange=tenant)), answer, 0.0)

    def begin(self, most: int = 3) -> None:
        """Begin writes as a flusher would, of whatever is due."""
        self.core.kick()
        while len(self.writing) < most and (flush := self.core.next_flush()) is not None:
            self.writing.append(flush)

    def end_one(self) -> None:
        self.core.end_flush(self.writing.popleft(), 0.0)

    def write_all(self) -> None:
        """Write what is due, and what becomes due by it."""
        for _ in range(200):
            self.begin()
            if not self.writing:
                return
            self.end_one()
            self.check()
        raise AssertionError("there is no end of it")

    def check(self) -> None:
        held = self.core.tenants.held_bytes
        assert sum(held.values()) == self.core.unstored_bytes - self.core.shares.copies
        by_chunks: Counter[int] = Counter()
        for assignment in self.core._assignments.values():
            for chunk in assignment.in_memory():
                by_chunks[assignment.tenant] += chunk.capacity
        gone = [flush for flush in self.writing if flush.is_dropped()]
        for flush in gone:
            by_chunks[flush.tenant] += flush.capacity
        assert held == +by_chunks

    def held(self, tenant: int) -> int:
        return self.core.tenants.held_bytes.get(tenant, 0)


def test_a_tenant_has_no_more_than_his_share_and_others_go_on() -> None:
    daemon = Daemon(share=0.25)
    hog, other = daemon.writer(1), daemon.writer(2)
    pushed = [daemon.push(hog, 1, 30 * KIB, partition=n % PARTITIONS) for n in range(9)]
    assert daemon.held(1) <= 256 * KIB
    assert not all(pushed)
    for n in range(6):
        assert daemon.push(other, 2, 30 * KIB, partition=n % PARTITIONS)
    daemon.check()


def test_for_who_has_his_share_his_own_buffers_are_flushed() -> None:
    daemon = Daemon(share=0.25)
    hog, other = daemon.writer(1), daemon.writer(2)
    for n in range(3):
        assert daemon.push(other, 2, 50 * KIB, partition=n)
    n = 0
    while daemon.push(hog, 1, 30 * KIB, partition=n % PARTITIONS):
        n += 1
    daemon.begin()
    assert {flush.tenant for flush in daemon.writing} == {1}
    waits = daemon.answered[1]
    while daemon.writing:
        daemon.end_one()
        daemon.check()
    assert daemon.answered[1] == waits + 30 * KIB
    assert daemon.held(2) >= 150 * KIB


@pytest.mark.parametrize("share", [0.001, 0.02])
def test_who_holds_nothing_may_take_a_frame_that_is_more_than_his_share(share: float) -> None:
    daemon = Daemon(share)
    writers = [daemon.writer(1, mapper) for mapper in (1, 2)]
    for n in range(5):
        is_in = [
            daemon.push(one, 1, 40 * KIB, n % PARTITIONS, m) for m, one in enumerate(writers, 1)
        ]
        assert is_in == [True, False]
        daemon.write_all()
        assert daemon.answered[1] == (n + 1) * 80 * KIB
        assert daemon.held(1) == 0


def test_a_page_that_is_lacked_for_a_short_row_is_made() -> None:
    """The bound is no whole number of pages: what is left is more than the row, and no page."""
    daemon = Daemon(share=6000 / (4 * MAX_PAGE_BYTES))
    first, second = daemon.writer(1, 1), daemon.writer(1, 2)
    assert daemon.push(first, 1, 100, partition=0)
    assert not daemon.push(second, 1, 100, partition=1, mapper=2)
    daemon.write_all()
    assert daemon.answered[1] == 200


def test_his_buffers_are_flushed_though_larger_ones_would_do_for_the_pool() -> None:
    daemon = Daemon(share=0.1)
    hog, others = daemon.writer(1), [daemon.writer(2, mapper) for mapper in (1, 2)]
    for n in range(2):
        daemon.push(hog, 1, 45 * KIB, partition=n)
    daemon.core.tenants._limit = None
    for n in range(4):
        daemon.push(others[0], 2, 230 * KIB, partition=n)
    daemon.core.tenants._limit = 100 * KIB
    daemon.push(hog, 1, 45 * KIB, partition=2)
    daemon.core.segment_bytes = 1 << 30
    daemon.core.flushes._ready.clear()
    assert daemon.core.is_pressed
    daemon.begin(most=1)
    assert daemon.writing[0].tenant == 1


def test_copies_are_absorbed_whatever_is_their_tenants_and_counted_as_his() -> None:
    daemon = Daemon(share=0.05)
    core, writer = daemon.core, daemon.writer(1)
    primary = DaemonRef(INCARNATION + 1, "b")
    assigned = Assignment(0, 2, 1, primary, (HERE,))
    core.admit(1, assigned, PartitionRange(0, 0, PARTITIONS), tenant=1)
    while daemon.push(writer, 1, 30 * KIB):
        pass
    held, key = daemon.held(1), AssignmentKey(1, 0, 2)
    data = memoryview(frame([block(0, 0, b"x" * 50 * KIB, exchange=1)], exchange=1, epoch=2))
    copy = Copy(CopyId(primary.incarnation, 1), key, len(data), data, None, 0.0, lambda _: None)
    assignment = core.assignment(key)
    assert assignment is not None
    core.keep_copy(assignment, mechanics_choice.CHOSEN.check_frame(data), copy)
    daemon.check()
    assert core.absorb_copy(copy)
    daemon.check()
    assert daemon.held(1) >= held + 50 * KIB
    daemon.write_all()
    assert daemon.answered[1] > 30 * KIB


def test_whose_an_assignment_is_says_its_look_up_and_that_of_one_alike() -> None:
    core = Daemon(share=0.5, tenants=0).core
    assigned, alike = Assignment(0, 1, 1, HERE), Alike(1, 3)
    found = FoundAssignment(
        assigned, PartitionRange(0, 0, PARTITIONS), 2, alike, tenant=7, trace="00-ab"
    )
    key = AssignmentKey(1, 0, 1)
    core.alike.begin_look_up(key)
    core.learn(key, found)
    held = [core.find(key._replace(number=number)) for number in (1, 2, 3)]
    assert [one and (one.tenant, one.trace) for one in held] == [(7, "00-ab")] * 3


def test_rows_of_nobody_are_not_one_tenants() -> None:
    daemon = Daemon(share=0.1)
    daemon.core.admit(9, Assignment(0, 1, 1, HERE), PartitionRange(0, 0, PARTITIONS))
    stream = PushReceiver(INCARNATION, FrameBudgets(1 << 20), daemon.intakes.open)
    writer = daemon.intakes.open(Hello(9, 1, 1, INCARNATION), stream, 0.0)
    for n in range(10):
        made = block(n % PARTITIONS, n, b"x" * 50 * KIB, exchange=9)
        assert writer.take_in(memoryview(frame([made], exchange=9)), lambda _: None, 0.0)
    assert daemon.core.tenants.held_bytes[0] > 500 * KIB
    assert not daemon.core.tenants.holds_up(0)
    assert not daemon.core.tenants.nearly_full


def test_a_write_that_hangs_is_not_counted_on() -> None:
    pool = PagePool(4 * MAX_PAGE_BYTES)
    memory = TenantMemory(PoolShares(pool), pool.capacity_bytes, 0.5)
    memory.took(1, 500 * KIB)
    assert list(memory.nearly_full) == [1]
    assert memory.is_low(1, 0, hanging_bytes=0)
    memory.begin_flush(1, 300 * KIB)
    assert not memory.is_low(1, 0, hanging_bytes=0)
    assert memory.is_low(1, 0, hanging_bytes=300 * KIB)
    assert memory.is_low(1, 400 * KIB, hanging_bytes=0)
    memory.end_flush(1, 300 * KIB)
    assert not memory.nearly_full
    assert memory.held_bytes == {1: 200 * KIB}
    memory.freed(1, 200 * KIB)
    assert memory.held_bytes == {}


def test_what_is_dropped_while_it_is_written_is_held_until_that_has_ended() -> None:
    daemon = Daemon(share=0.5)
    writer = daemon.writer(1)
    for n in range(3):
        daemon.push(writer, 1, 70 * KIB, partition=n % 2)
    daemon.begin(most=1)
    daemon.core.drop(1)
    daemon.check()
    assert daemon.held(1) == daemon.writing[0].capacity
    daemon.end_one()
    assert daemon.core.tenants.held_bytes == {}
    assert not daemon.core.tenants._flushing


class Work:
    """Writers of three tenants who push at random, while writes begin and end at random."""

    def __init__(self, seed: int, share: float) -> None:
        print(f"seed {seed}")
        self.rng = random.Random(seed)
        self.daemon = Daemon(share, tenants=3)
        self.writers = {(t, m): self.daemon.writer(t, m) for t in (1, 2, 3) for m in (1, 2, 3)}
        self.busy: set[tuple[int, int]] = set()
        self.answers: Counter[str] = Counter()

    def step(self) -> None:
        free = sorted(set(self.writers) - self.busy)
        match self.rng.choice(("push", "push", "begin", "end")):
            case "push" if free:
                self.push(*self.rng.choice(free))
            case "begin":
                self.daemon.begin()
            case "end" if self.daemon.writing:
                self.daemon.end_one()
        self.daemon.check()

    def push(self, tenant: int, mapper: int) -> None:
        rng, daemon = self.rng, self.daemon

        def answer(error: CoscoError | None) -> None:
            self.busy.discard((tenant, mapper))
            self.answers[type(error).__name__] += 1

        self.busy.add((tenant, mapper))
        content = b"x" * rng.randint(1, LONGEST)
        daemon.positions[tenant] += 1
        position = daemon.positions[tenant]
        made = block(rng.randrange(PARTITIONS), position, content, exchange=tenant, mapper=mapper)
        data = memoryview(frame([made], exchange=tenant))
        self.writers[tenant, mapper].take_in(data, answer, 0.0)


@pytest.mark.parametrize("share", [1.0, 0.4, 0.1, 0.001])
@pytest.mark.parametrize("seed", range(12))
def test_all_come_in_and_all_is_counted_whatever_happens(seed: int, share: float) -> None:
    work = Work(seed, share)
    daemon = work.daemon
    most = share * daemon.core.pool.capacity_bytes + LONGEST + 8 * KIB
    for step in range(400):
        work.step()
        assert share == 1.0 or max(daemon.core.tenants.held_bytes.values(), default=0) <= most
        if step == 200:  # an exchange is closed amid the work
            work.writers = {who: one for who, one in work.writers.items() if who[0] != 3}
            daemon.core.drop(3)
            daemon.core.changed(0.0)
            daemon.check()
    daemon.write_all()
    assert not work.busy
    assert work.answers.keys() <= {"NoneType", "ExchangeClosed", "NotAssigned"}
    assert work.answers["NoneType"] > 50
    daemon.core.flushes.everything = True
    daemon.write_all()
    assert daemon.core.unstored_bytes == 0
    assert daemon.core.tenants.held_bytes == {}
