"""Mappers that marked and never committed are found, wherever their marks are."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pytest
from pyroaring import BitMap

from cosco.client.groups import mark_watch
from cosco.client.rpc.scope import Scope
from cosco.protocol.group_records import Follow, Followed, FollowOutcome
from cosco.protocol.records import (
    Assignment,
    DaemonRef,
    ExchangeInfo,
    ExchangeSpec,
    PartitionRange,
    RowKind,
)

A, B, C = (DaemonRef(i, f"127.0.0.1:{i}") for i in (1, 2, 3))


class _World:
    """Two ranges; marks by (daemon, range, epoch), and the time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        self.marks: dict[tuple[DaemonRef, int, int], BitMap] = {}
        self.earlier = BitMap()  # of earlier builds, at daemons of present epochs
        self.first = [Assignment(0, 1, 1, A), Assignment(1, 1, 1, B)]
        self.present = list(self.first)
        monkeypatch.setattr(mark_watch.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(mark_watch.FOLLOWING, "ask_now", self._ask_now)
        self.again = BitMap()  # what was found of those that run again
        self.watch = mark_watch.OrphanWatch(
            self._info(self.first), 0, lambda: self._info(self.present), Scope("a test", "x")
        )

    def _info(self, assignments: Iterable[Assignment]) -> ExchangeInfo:
        return ExchangeInfo(
            number=1,
            spec=ExchangeSpec("x", 2),
            generation=1,
            kind=RowKind.BYTES,
            schema=b"",
            ranges=(PartitionRange(0, 0, 1), PartitionRange(1, 1, 1)),
            assignments=tuple(assignments),
        )

    def _ask_now(
        self, ref: DaemonRef, follow: Follow, _scope: Scope, _tls: object
    ) -> Followed | None:
        done = self.marks.get((ref, follow.range_index, follow.epoch))
        if done is None:
            return None
        if not follow.same_build:
            done = done | self.earlier
        return Followed(1, FollowOutcome.WAITING, np.empty(0, np.uint64), done=done)

    def look(self, seconds: float) -> list[int]:
        """What is found in so long, looking each second, while no mapper commits."""
        found = BitMap()
        for _ in range(int(seconds)):
            found |= self.watch.look(BitMap([0, 1, 2]))
            self.again |= self.watch.look_again(BitMap([0, 1]))
            self.now += 1.0
        return list(found)


def test_who_has_marked_at_all_ranges_is_found_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    world = _World(monkeypatch)
    world.marks = {(A, 0, 1): BitMap([0, 1]), (B, 1, 1): BitMap([0])}
    assert world.look(3) == [0]
    assert world.look(3) == []  # once
    assert world.look(mark_watch.REPORT_AGAIN_S) == [0]  # its re-run may have died as well


def test_marks_of_a_range_that_moved_count_in_both_epochs(monkeypatch: pytest.MonkeyPatch) -> None:
    world = _World(monkeypatch)
    world.present = [Assignment(0, 2, 1, C), world.first[1]]
    world.marks = {(A, 0, 1): BitMap([0]), (C, 0, 2): BitMap([1]), (B, 1, 1): BitMap([0, 1])}
    assert world.look(3) == [0, 1]


def test_who_has_marked_at_one_range_is_given_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    world = _World(monkeypatch)
    # The mark at the first range went with its daemon.
    world.present = [Assignment(0, 2, 1, C), world.first[1]]
    world.marks = {(C, 0, 2): BitMap(), (B, 1, 1): BitMap([2])}
    assert world.look(mark_watch.PARTLY_S - 1) == []
    assert world.look(4) == [2]


def test_who_runs_again_is_found_by_marks_of_the_present_build(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = _World(monkeypatch)
    world.earlier = BitMap([1])
    world.present = [Assignment(0, 2, 2, C), world.first[1]]
    world.marks = {(C, 0, 2): BitMap([0, 2]), (B, 1, 1): BitMap([0, 1])}
    world.look(mark_watch.PARTLY_S - 1)
    assert not world.again
    world.look(4)
    assert (list(world.again), world.watch.build) == ([0], 2)
    world.again.clear()
    world.look(mark_watch.REPORT_AGAIN_S - 4)
    assert not world.again
    world.look(4)
    assert list(world.again) == [0]
    # That build ends as well: marks of it say nothing of the next one.
    world.again.clear()
    world.present = [Assignment(0, 3, 3, A), world.first[1]]
    world.marks[A, 0, 3] = BitMap()
    world.earlier = BitMap([0, 1])
    world.look(2 * mark_watch.PARTLY_S)
    assert (list(world.again), world.watch.build) == ([], 3)
