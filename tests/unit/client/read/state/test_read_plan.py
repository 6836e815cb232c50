"""A reader's decisions: whom it asks, how long it waits, and when it calls rows lost."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyroaring import BitMap

from cosco.client.read.state.direct_stores import PAUSE_S, DirectStores
from cosco.client.read.state.read_plan import (
    INSIST_AFTER_S,
    MARKS_BUILD,
    POLL_S,
    STALL_S,
    AwaitCommits,
    Begin,
    Done,
    Failure,
    Fetch,
    GiveUp,
    ReadPlan,
    ReportDaemon,
    ReportLoss,
)
from cosco.protocol.records import CommitWait, DaemonRef, LossCause, ReadSnapshot, Source

A, B, C, D = (DaemonRef(i, f"127.0.0.1:{i}") for i in range(1, 5))


def source(*daemons: DaemonRef, epoch: int = 1, sealed: bool = False) -> Source:
    return Source(0, epoch, daemons, sealed)


def snapshot(*sources: Source, build: int = 1, generation: int = 1) -> ReadSnapshot:
    return ReadSnapshot(
        version=1,
        generation=generation,
        build=build,
        mappers=np.array([1], np.uint32),
        attempts=np.array([2], np.uint64),
        rows=4,
        raw_bytes=28,
        digest=1,
        sources=sources,
    )


def begun(
    *sources: Source, timeout_s: float | None = None, service_timeout_s: float = 100.0
) -> ReadPlan:
    """A plan that has begun to read, at time 0."""
    plan = ReadPlan(timeout_s=timeout_s, service_timeout_s=service_timeout_s)
    assert isinstance(plan.step(0.0), AwaitCommits)
    plan.told(CommitWait(snapshot(*sources)), 0.0)
    assert isinstance(plan.step(0.0), Begin)
    plan.begun()
    return plan


def fetch(plan: ReadPlan, now: float = 0.0) -> Fetch:
    step = plan.step(now)
    assert isinstance(step, Fetch), step
    return step


def renew(plan: ReadPlan, *sources: Source, now: float = 0.0) -> None:
    assert isinstance(plan.step(now), AwaitCommits), plan.step(now)
    plan.told(CommitWait(snapshot(*sources)), now)


def lost(plan: ReadPlan, now: float = 0.0) -> ReportLoss:
    step = plan.step(now)
    assert isinstance(step, ReportLoss), step
    return step


# --- waiting for commits ------------------------------------------------------------------------


def test_commits_are_awaited_without_bound() -> None:
    plan = ReadPlan(timeout_s=None, service_timeout_s=5.0)
    assert plan.step(0.0) == AwaitCommits(0.0, POLL_S)
    plan.told(CommitWait(None, BitMap([3])), 20.0)
    step = plan.step(10**6)
    assert isinstance(step, AwaitCommits)
    assert (step.wait_s, step.outage_s) == (POLL_S, None)
    assert step.pause_s > 0


def test_commits_are_awaited_for_so_long() -> None:
    plan = ReadPlan(timeout_s=30.0, service_timeout_s=5.0)
    assert plan.step(100.0) == AwaitCommits(0.0, POLL_S, 5.0)
    plan.told(CommitWait(None, BitMap([3])), 120.0)
    step = plan.step(120.0)
    assert isinstance(step, AwaitCommits)
    assert (step.wait_s, step.outage_s) == (10.0, 5.0)
    plan.told(CommitWait(None, BitMap([3]), recompute=True), 130.0)
    assert plan.step(130.0) == GiveUp(
        Failure.TIMEOUT, "in 30 s", missing=BitMap([3]), recompute=True
    )


def test_without_a_wait_commits_are_asked_for_once() -> None:
    plan = ReadPlan(timeout_s=0.0, service_timeout_s=5.0)
    assert plan.step(9.0) == AwaitCommits(0.0, 0.0, 0.0)
    plan.told(CommitWait(None, BitMap([3])), 9.0)
    step = plan.step(9.0)
    assert isinstance(step, GiveUp)
    assert not step.recompute


# --- whom to ask ----------------------------------------------------------------------------------


def test_the_first_of_each_source_is_believed() -> None:
    plan = begun(source(A, B), source(B, A, epoch=2, sealed=True))
    first = fetch(plan)
    assert (first.daemon, first.files, first.stall_s) == (A, False, STALL_S)
    plan.answered(first)
    second = fetch(plan)
    assert (second.source.epoch, second.daemon, second.files) == (2, B, True)
    plan.answered(second)
    assert plan.step(0.0, is_complete=True) == Done()


def test_a_bad_answer_is_as_good_as_none() -> None:
    plan = begun(source(A, B))
    plan.answered(fetch(plan), "a chunk is broken")
    other = fetch(plan)
    assert (other.daemon, other.files) == (B, True)


def test_a_fetch_that_was_interrupted_is_the_next_again() -> None:
    plan = begun(source(A, B))
    assert fetch(plan) == fetch(plan)


def test_nobody_is_asked_once_all_is_there() -> None:
    plan = begun(source(A), source(B, epoch=2))
    plan.answered(fetch(plan))
    assert plan.step(0.0, is_complete=True) == Done()


def test_everybody_is_asked_for_everything_before_rows_are_lost() -> None:
    plan = begun(source(A, B), source(C, epoch=2))
    plan.answered(fetch(plan))
    plan.answered(fetch(plan))
    asked = []
    while isinstance(step := plan.step(0.0), Fetch):
        asked.append((step.source.epoch, step.daemon, step.files))
        plan.answered(step)
    assert asked == [(1, A, True), (1, B, True), (2, C, True)]
    renew(plan, source(A, B), source(C, epoch=2))
    report = lost(plan)
    assert (report.generation, report.build, report.cause) == (1, 1, LossCause.MISSING)


def test_daemons_and_epochs_that_come_before_a_loss_are_asked_as_well() -> None:
    plan = begun(source(A))
    plan.answered(fetch(plan))
    plan.answered(fetch(plan))
    renew(plan, source(A, B, sealed=True))
    asked = []
    while isinstance(step := plan.step(0.0), Fetch):
        asked.append(step.daemon)
        plan.answered(step)
    assert asked == [A, B]  # and A again, as it stored what it had when it was sealed
    renew(plan, source(A, B, sealed=True))
    assert lost(plan).cause is LossCause.MISSING


@pytest.mark.parametrize("bad", [True, False])
def test_what_is_bad_or_with_nobody_is_gone(bad: bool) -> None:
    sources = (source(A),) if bad else (source(A), source(epoch=2))
    plan = begun(*sources)
    plan.answered(fetch(plan), "broken" if bad else "")
    plan.answered(fetch(plan), "broken" if bad else "")
    renew(plan, *sources)
    report = lost(plan)
    assert report.cause is LossCause.GONE
    assert ("broken" if bad else "epoch 2 of range 0") in report.reason


def test_what_was_bad_only_the_first_time_is_missing() -> None:
    plan = begun(source(A))
    plan.answered(fetch(plan), "the disk hiccuped")
    plan.answered(fetch(plan))
    renew(plan, source(A))
    assert lost(plan).cause is LossCause.MISSING


def test_a_closed_exchange_is_asked_for_first() -> None:
    plan = begun(source(A, B))
    plan.closed(fetch(plan))
    renew(plan, source(A, B))  # where the service would raise ExchangeClosed
    assert fetch(plan).daemon == B


def test_an_epoch_that_is_over_is_no_loss_and_the_present_build_is_read_instead() -> None:
    plan = begun(source(A, B))
    plan.closed(fetch(plan))
    assert isinstance(plan.step(0.0), AwaitCommits)  # before anybody else, or a report
    new = snapshot(source(B, epoch=2), build=2)
    plan.told(CommitWait(new), 0.0)
    step = plan.step(0.0)
    assert isinstance(step, Begin)
    assert step.snapshot is new


def test_an_epoch_that_is_over_ends_the_read_of_who_has_given_rows() -> None:
    plan = begun(source(A, B))
    plan.gave()
    plan.closed(fetch(plan))
    assert isinstance(plan.step(0.0), AwaitCommits)
    plan.told(CommitWait(snapshot(source(B, epoch=2), build=2)), 0.0)
    assert plan.step(0.0) == GiveUp(Failure.BROKEN_OFF)


def test_files_of_an_old_build_that_are_gone_are_no_loss_either() -> None:
    """A daemon that has been started again finds nothing, and has not been told why."""
    plan = begun(source(A, B))
    plan.answered(fetch(plan), "no such file")
    plan.answered(fetch(plan))
    while isinstance(plan.step(0.0), Fetch):  # all of them, once more
        plan.answered(fetch(plan))
    assert isinstance(plan.step(0.0), AwaitCommits)  # and no report
    plan.told(CommitWait(snapshot(source(B, epoch=2), build=2)), 0.0)
    assert isinstance(plan.step(0.0), Begin)


# --- daemons out of reach -------------------------------------------------------------------------


def test_another_one_is_asked_before_anybody_is_reported() -> None:
    plan = begun(source(A, B), source(A, B, epoch=2))
    plan.unreachable(fetch(plan), 0.0, "refused")
    plan.answered(fetch(plan))
    second = fetch(plan)
    assert (second.source.epoch, second.daemon) == (2, B)  # A is left alone for now
    plan.answered(second)
    # Not before rows are missing, and the second pass has begun.
    others = [fetch(plan)]
    plan.answered(others[0])
    others.append(fetch(plan))
    plan.answered(others[1])
    assert [f.daemon for f in others] == [B, B]
    assert plan.step(0.0) == ReportDaemon(A, insist=False)


def test_a_dead_daemon_is_waited_for_until_it_is_not_named_any_more() -> None:
    plan = begun(source(A))
    plan.unreachable(fetch(plan), 0.0, "refused")
    assert plan.step(0.0) == ReportDaemon(A, insist=False)
    plan.reported(A, alive=False)
    pauses = []
    for now in range(1, 8):  # it may be started again
        step = plan.step(float(now))
        assert isinstance(step, AwaitCommits)
        pauses.append(step.pause_s)
        plan.told(CommitWait(snapshot(source(A))), float(now))
        plan.unreachable(fetch(plan), float(now), "refused")  # reported once
    assert pauses[0] < 0.1
    assert pauses == sorted(pauses)
    assert pauses[-1] == pauses[-2] == 1.0
    renew(plan, source(), now=8.0)
    assert lost(plan, 8.0).cause is LossCause.GONE


def test_who_adopted_it_is_asked() -> None:
    plan = begun(source(A))
    plan.unreachable(fetch(plan), 0.0, "refused")
    plan.reported(A, alive=False)
    renew(plan, source(D))
    step = fetch(plan)
    assert step.daemon == D
    plan.answered(step)
    assert plan.step(1.0, is_complete=True) == Done()


def test_one_that_is_alive_for_the_service_is_insisted_on_after_a_while() -> None:
    plan = begun(source(A))
    plan.unreachable(fetch(plan), 0.0, "cut")
    assert plan.step(0.0) == ReportDaemon(A, insist=False)
    plan.reported(A, alive=True)
    for now, insist in ((1.0, False), (INSIST_AFTER_S, True)):
        renew(plan, source(A), now=now)
        plan.unreachable(fetch(plan, now), now, "cut")
        assert plan.step(now) == ReportDaemon(A, insist=insist)
        plan.reported(A, alive=True)


def test_one_that_said_no_is_not_reported() -> None:
    plan = begun(source(A))
    plan.unreachable(fetch(plan), 0.0, "no room", busy=True)
    renew(plan, source(A))
    assert fetch(plan).daemon == A


def test_a_daemon_that_stays_out_of_reach_ends_it() -> None:
    plan = begun(source(A), service_timeout_s=10.0)
    plan.unreachable(fetch(plan), 0.0, "refused")
    plan.reported(A, alive=True)
    renew(plan, source(A), now=9.0)
    plan.unreachable(fetch(plan), 10.0, "refused again")
    plan.reported(A, alive=True)
    assert plan.step(10.0) == GiveUp(Failure.UNREACHABLE, "refused again")


def test_an_answer_ends_an_outage() -> None:
    plan = begun(source(A), service_timeout_s=10.0)
    plan.unreachable(fetch(plan), 0.0, "refused")
    plan.reported(A, alive=True)
    renew(plan, source(A), now=5.0)
    plan.answered(fetch(plan))
    plan.unreachable(fetch(plan), 11.0, "refused")
    assert plan.step(11.0) == ReportDaemon(A, insist=False)


def test_a_slow_daemon_gets_more_time() -> None:
    plan = begun(source(A, B))
    for stalls in range(9):
        step = fetch(plan)
        assert step.daemon == A
        assert step.stall_s == STALL_S * 2 ** min(stalls, 6)
        plan.unreachable(step, 0.0, "silent", stalled=True)
        other = fetch(plan)  # whom nobody has reason to doubt
        assert other.stall_s == STALL_S
        plan.unreachable(other, 0.0, "refused")
        plan.reported(A, alive=True)
        plan.reported(B, alive=True)
        renew(plan, source(A, B))


def test_who_was_out_of_reach_comes_last() -> None:
    plan = begun(source(A))
    plan.unreachable(fetch(plan), 0.0, "cut")
    plan.reported(A, alive=True)
    renew(plan, source(A, B))
    assert fetch(plan).daemon == B


def test_pauses_begin_short_after_an_answer() -> None:
    plan = begun(source(A))
    pauses = []
    for now in (0.0, 1.0, 2.0, 3.0):
        if now == 3.0:
            plan.answered(fetch(plan), "broken")  # the second pass asks it again
        plan.unreachable(fetch(plan), now, "refused")
        plan.reported(A, alive=False)
        step = plan.step(now)
        assert isinstance(step, AwaitCommits)
        pauses.append(step.pause_s)
        plan.told(CommitWait(snapshot(source(A))), now)
    assert pauses[0] < pauses[1] < pauses[2]
    assert pauses[3] == pauses[0]


def test_those_who_serve_files_are_asked_again_while_others_are_out_of_reach() -> None:
    plan = begun(source(A, B))
    plan.unreachable(fetch(plan), 0.0, "cut")
    now, asked_b_at = 0.0, []
    while now < 20.0:
        step = plan.step(now)
        match step:
            case Fetch(daemon=daemon) if daemon == A:
                plan.unreachable(step, now, "cut")
            case Fetch():
                asked_b_at.append(now)
                plan.answered(step)
            case ReportDaemon():
                plan.reported(A, alive=True)
            case AwaitCommits():
                now += step.pause_s
                plan.told(CommitWait(snapshot(source(A, B))), now)
            case _:
                raise AssertionError(step)
    assert 3 <= len(asked_b_at) <= 6


# --- another build --------------------------------------------------------------------------------


def lost_plan() -> ReadPlan:
    plan = begun(source())
    renew(plan, source())
    lost(plan)
    return plan


def test_after_a_loss_the_next_build_is_awaited_and_begun() -> None:
    plan = lost_plan()
    plan.loss_reported()
    assert plan.step(50.0) == AwaitCommits(0.0, POLL_S)
    plan.told(CommitWait(None, BitMap([1]), recompute=True), 70.0)
    assert isinstance(plan.step(70.0), AwaitCommits)
    rebuilt = snapshot(source(A), build=2)
    plan.told(CommitWait(rebuilt), 80.0)
    assert plan.step(80.0) == Begin(rebuilt)
    plan.begun()
    plan.answered(fetch(plan))
    assert plan.step(80.0, is_complete=True) == Done()


def test_a_rebuild_is_awaited_for_so_long() -> None:
    plan = begun(source(), timeout_s=7.0)
    renew(plan, source(), now=100.0)
    plan.loss_reported()
    assert plan.step(100.0) == AwaitCommits(0.0, 7.0, 7.0)
    plan.told(CommitWait(None, BitMap([1]), recompute=True), 107.0)
    step = plan.step(107.0)
    assert isinstance(step, GiveUp)
    assert (step.why, step.recompute) == (Failure.TIMEOUT, True)


def test_a_build_that_goes_on_after_its_loss_is_not_read_again() -> None:
    plan = lost_plan()
    plan.loss_reported()
    plan.told(CommitWait(snapshot(source(A))), 0.0)
    assert plan.step(0.0) == GiveUp(Failure.LOST)


def test_a_build_that_ended_meanwhile_is_given_up() -> None:
    plan = begun(source(A))
    plan.unreachable(fetch(plan), 0.0, "refused")
    plan.reported(A, alive=False)
    plan.told(CommitWait(snapshot(source(B), build=3)), 0.0)
    assert isinstance(plan.step(0.0), Begin)
    plan.begun()
    assert fetch(plan).daemon == B


def test_a_rebuild_that_others_asked_for_is_awaited() -> None:
    plan = begun(source(A), timeout_s=5.0)
    plan.unreachable(fetch(plan), 0.0, "refused")
    plan.reported(A, alive=False)
    assert isinstance(plan.step(9.0), AwaitCommits)
    plan.told(CommitWait(None, BitMap([1]), recompute=True), 9.0)
    step = plan.step(9.0)
    assert isinstance(step, AwaitCommits)
    assert step.wait_s == 5.0
    plan.told(CommitWait(snapshot(source(B))), 10.0)  # the same build: what was read counts
    assert fetch(plan).daemon == B


@pytest.mark.parametrize("build", [1, 2])
def test_rows_that_were_given_are_not_given_again(build: int) -> None:
    plan = lost_plan()
    plan.gave()
    plan.loss_reported()
    assert plan.step(0.0) == AwaitCommits()  # whose error, if it raises, tells more
    plan.told(CommitWait(snapshot(source(A), build=build)), 0.0)
    assert plan.step(0.0) == GiveUp(Failure.BROKEN_OFF)


@pytest.mark.parametrize(
    "wait", [CommitWait(snapshot(source(B), build=2)), CommitWait(None, BitMap([1]), True)]
)
def test_another_build_breaks_off_what_was_given(wait: CommitWait) -> None:
    plan = begun(source(A))
    plan.gave()
    plan.unreachable(fetch(plan), 0.0, "refused")
    plan.reported(A, alive=False)
    plan.told(wait, 0.0)
    assert plan.step(0.0) == GiveUp(Failure.BROKEN_OFF)


# --- what marks said ----------------------------------------------------------------------------


def of_marks() -> ReadPlan:
    """A plan that reads what marks said, of two mappers, and whose only daemon is gone."""
    plan = ReadPlan(timeout_s=None, service_timeout_s=100.0)
    both = replace(
        snapshot(source(A), build=MARKS_BUILD),
        mappers=np.array([0, 1], np.uint32),
        attempts=np.array([9, 2], np.uint64),
    )
    plan.told(CommitWait(both), 0.0)
    plan.begun()
    plan.unreachable(fetch(plan), 0.0, "refused")
    plan.reported(A, alive=False)
    return plan


@pytest.mark.parametrize("given", [False, True])
def test_what_is_committed_goes_on_with_the_same_by_marks(given: bool) -> None:
    plan = of_marks()
    if given:
        plan.gave()
    step = plan.step(0.0)
    assert isinstance(step, AwaitCommits)
    assert step.wait_s > 0  # commits follow marks, a moment later
    plan.told(CommitWait(snapshot(source(B), build=3)), 0.0)
    plan.answered(fetch(plan))
    plan.answered(fetch(plan))
    assert plan.step(0.0) == AwaitCommits()
    plan.told(CommitWait(snapshot(source(B), build=3)), 0.0)
    assert lost(plan).build == 3


@pytest.mark.parametrize(
    "other",
    [
        {"attempts": np.array([3], np.uint64)},
        {"mappers": np.array([7], np.uint32)},
        {"rows": 5},
        {"raw_bytes": 27},
        {"digest": 2},
        {"generation": 2},
    ],
)
@pytest.mark.parametrize("given", [False, True])
def test_what_is_committed_begins_anew_where_marks_said_other_things(
    given: bool, other: dict[str, Any]
) -> None:
    plan = of_marks()
    if given:
        plan.gave()
    plan.told(CommitWait(replace(snapshot(source(B)), **other)), 0.0)
    step = plan.step(0.0)
    assert step == GiveUp(Failure.BROKEN_OFF) if given else isinstance(step, Begin)


# --- any run --------------------------------------------------------------------------------------


@dataclass
class World:
    """Daemons and a service that behave as drawn, and what the plan did with them."""

    data: st.DataObject
    rows: frozenset[int] = frozenset(range(4))
    build: int = 1
    now: float = 0.0
    #: Rows that each daemon has of each epoch, in the present build.
    held: dict[tuple[int, DaemonRef], frozenset[int]] = field(default_factory=dict)
    dead: set[DaemonRef] = field(default_factory=set)
    forgotten: set[DaemonRef] = field(default_factory=set)  # not named any more
    sealed: bool = False
    #: Who answered, files and all, since the build began, and whether that was good.
    answered: dict[tuple[int, DaemonRef], bool] = field(default_factory=dict)
    was_bad: bool = False

    def begin_build(self) -> None:
        subsets = st.frozensets(st.sampled_from(sorted(self.rows)))
        self.held = {
            (epoch, daemon): self.data.draw(subsets)
            for epoch in (1, 2)
            for daemon in (A, B, C)
        }  # fmt: skip
        self.answered, self.was_bad = {}, False

    def snapshot(self) -> ReadSnapshot:
        named = [d for d in (A, B, C) if d not in self.forgotten]
        return snapshot(
            source(*named, sealed=True),
            source(*reversed(named), epoch=2, sealed=self.sealed),
            build=self.build,
        )

    def something_happens(self) -> None:
        event = self.data.draw(st.sampled_from(["", "", "", "die", "forget", "seal", "build"]))
        daemon = self.data.draw(st.sampled_from([A, B, C]))
        if event == "die":
            self.dead.add(daemon)
        elif event == "forget":
            self.forgotten |= self.dead
        elif event == "seal":
            self.sealed = True
        elif event == "build":
            self.build += 1
            self.begin_build()

    def fetch(self, plan: ReadPlan, step: Fetch) -> frozenset[int]:
        epoch, daemon = step.source.epoch, step.daemon
        assert daemon in step.source.daemons
        is_primary = daemon == step.source.daemons[0]
        assert step.files or (is_primary and not step.source.sealed)
        outcome = self.data.draw(st.sampled_from(["good", "good", "bad", "cut", "stall", "fork"]))
        if daemon in self.dead or outcome in {"cut", "stall"}:
            self.now += step.stall_s if outcome == "stall" else 0.01
            plan.unreachable(step, self.now, outcome, stalled=outcome == "stall")
            return frozenset()
        if outcome == "fork":
            return frozenset()
        if step.files:
            self.answered[epoch, daemon] = outcome == "good"
        self.was_bad |= outcome == "bad"
        plan.answered(step, outcome if outcome == "bad" else "")
        held = self.held[epoch, daemon]
        return held if outcome == "good" else held - {0}

    def report(self, step: ReportLoss) -> None:
        """Check a report of the present build, and rebuild it whole; others do nothing."""
        if step.build != self.build:
            return
        sources = self.snapshot().sources
        named = {(s.epoch, daemon) for s in sources for daemon in s.daemons}
        assert named <= self.answered.keys()
        if step.cause is LossCause.MISSING:
            assert named
            assert all(self.answered[asked] for asked in named)
        else:
            assert self.was_bad or not named
        self.build += 1
        self.begin_build()
        self.held[1, A] = self.held[2, C] = self.rows


@given(st.data())
def test_any_run_ends_well(data: st.DataObject) -> None:
    """It ends; complete only with all rows; a loss only when all that is named was asked."""
    plan = ReadPlan(timeout_s=60.0, service_timeout_s=30.0)
    world = World(data)
    world.begin_build()
    found: frozenset[int] | None = None
    reading = 0
    for turn in range(3000):
        if turn < 40:
            world.something_happens()
        complete = found == world.rows
        match step := plan.step(world.now, is_complete=complete):
            case AwaitCommits():
                world.now += step.pause_s
                plan.told(CommitWait(world.snapshot()), world.now)
            case Begin():
                reading, found = step.snapshot.build, frozenset()
                plan.begun()
            case Fetch():
                assert found is not None and not complete
                if reading == world.build:
                    found |= world.fetch(plan, step)
                else:  # of a build that ended: its files are there still
                    plan.answered(step)
            case ReportDaemon():
                plan.reported(step.daemon, alive=step.daemon not in world.dead)
            case ReportLoss():
                assert not complete
                world.report(step)
                plan.loss_reported()
            case Done():
                assert complete
                return
            case GiveUp():
                assert step.why is Failure.UNREACHABLE
                assert world.now >= 30.0
                return
    raise AssertionError("it never ends")


# --- directly from stores ---------------------------------------------------------------------


def directly(stores: DirectStores | None, *sources: Source) -> ReadPlan:
    """A plan that has begun to read, with stores that it may read from."""
    plan = ReadPlan(timeout_s=None, service_timeout_s=100.0, direct=stores)
    plan.step(0.0)
    plan.told(CommitWait(snapshot(*sources)), 0.0)
    assert isinstance(plan.step(0.0), Begin)
    plan.begun()
    return plan


def stored(*daemons: DaemonRef, epoch: int = 1) -> Source:
    return replace(source(*daemons, epoch=epoch), store_ids=tuple("s" for _ in daemons))


def test_first_fetches_are_direct_where_the_store_is_named() -> None:
    plan = directly(DirectStores(), stored(A, B), source(C, epoch=2))
    one = fetch(plan)
    assert (one.daemon, one.direct) == (A, True)
    plan.answered(one)
    other = fetch(plan)
    assert (other.daemon, other.direct) == (C, False)
    assert not fetch(directly(None, stored(A))).direct


def test_what_cannot_be_read_the_same_daemon_is_asked_for() -> None:
    plan = directly(DirectStores(), stored(A, B), stored(A, B, epoch=2))
    one = fetch(plan)
    plan.not_direct(one)
    again = fetch(plan)
    assert again == replace(one, direct=False)
    plan.answered(again)
    assert fetch(plan).direct  # of the other epoch nothing has failed
    plan.answered(fetch(plan))
    assert isinstance(plan.step(0.0, is_complete=True), Done)


def test_a_failure_is_forgotten_with_the_build_it_was_of() -> None:
    plan = directly(DirectStores(), stored(A))
    plan.not_direct(fetch(plan))
    plan.unreachable(fetch(plan), 0.0, "down")
    plan.reported(A, alive=False)
    assert isinstance(plan.step(0.0), AwaitCommits)
    plan.told(CommitWait(snapshot(stored(B))), 0.0)
    assert fetch(plan) == Fetch(stored(B), B, files=False, stall_s=STALL_S)
    plan.unreachable(fetch(plan), 0.0, "down")
    plan.reported(B, alive=False)
    plan.step(0.0)
    plan.told(CommitWait(snapshot(stored(B), build=2)), 0.0)
    assert isinstance(plan.step(0.0), Begin)
    plan.begun()
    assert fetch(plan).direct


def test_a_loss_is_never_said_of_what_was_read_directly() -> None:
    plan = directly(DirectStores(), stored(A, B))
    plan.answered(fetch(plan))
    second = []
    for _ in range(2):
        second.append(fetch(plan))
        plan.answered(second[-1])
    assert [(one.daemon, one.direct, one.whole) for one in second] == [
        (A, False, True),
        (B, False, True),
    ]
    renew(plan, stored(A, B))
    lost(plan)


def test_a_store_that_is_left_alone() -> None:
    stores = DirectStores()
    stores.failed("s", 0.0)
    plan = directly(stores, stored(A))
    assert not fetch(plan, now=1.0).direct
    assert fetch(plan, now=1.0 + PAUSE_S).direct
