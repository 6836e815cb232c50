"""What is kept of exchanges that have ended: how many, for how long, and over a restart."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from cosco.metadata.state.history.history import NO_HISTORY, History, HistoryBounds
from cosco.metadata.state.records.changes import ChangeLog
from cosco.protocol.finished_exchange import FinishedExchange


class Kept:
    """A history, and the rows that the database has of it."""

    def __init__(self, keep_s: float = 100.0, keep_max: int = 3) -> None:
        self.bounds = HistoryBounds(1000.0, keep_s, keep_max)
        self.changes = ChangeLog()
        self.rows: dict[int, tuple[Any, ...]] = {}
        self.history = History((), self.changes)
        self.history.begin(self.bounds, 50.0)

    def end(self, number: int, now: float, **what: Any) -> FinishedExchange:
        self.history.tick(now)
        finished = FinishedExchange(number, f"id-{number}", closed_s=self.history.unix_s, **what)
        self.history.add(finished)
        return finished

    def restart(self, bounds: HistoryBounds | None = None, now: float = 0.0) -> None:
        """Begin anew with the rows; `now` is of another clock, which begins with the process."""
        self.save()
        self.history = History([row for _, row in sorted(self.rows.items())], self.changes)
        self.history.begin(bounds or self.bounds, now)

    def save(self) -> None:
        for _, (number,), row in self.changes.pop_all():
            self.rows.pop(number, None)
            if row is not None:
                self.rows[number] = (number, *row)

    @property
    def numbers(self) -> list[int]:
        return list(self.history.numbers())


def test_the_last_ones_are_kept() -> None:
    kept = Kept(keep_max=3)
    for number in (4, 9, 5, 1, 7):
        kept.end(number, 51.0)
    assert kept.numbers == [5, 1, 7]
    assert kept.history.find("id-9") is None
    kept.save()
    assert sorted(kept.rows) == [1, 5, 7]


def test_each_is_kept_for_a_while() -> None:
    kept = Kept(keep_s=100.0)
    first, second = kept.end(1, 60.0), kept.end(2, 90.0)
    assert (first.closed_s, second.closed_s) == (1010.0, 1040.0)
    kept.history.tick(159.9)
    assert kept.numbers == [1, 2]
    kept.history.tick(160.0)
    assert kept.numbers == [2]
    assert kept.history.find("id-1") is None
    assert kept.history.find("id-2") == second == kept.history.get(2)
    kept.history.tick(1e6)
    assert not kept.numbers
    kept.save()
    assert not kept.rows


@pytest.mark.parametrize("bounds", [NO_HISTORY, HistoryBounds(1000.0, 0.0, 5),
                                    HistoryBounds(1000.0, 5.0, 0)])  # fmt: skip
def test_none_is_kept_where_that_is_not_wanted(bounds: HistoryBounds) -> None:
    kept = Kept()
    kept.end(1, 51.0)
    kept.restart(bounds)
    assert not kept.numbers
    kept.end(2, 1.0)
    assert not kept.numbers
    kept.save()
    assert not kept.rows


def test_a_restart_changes_nothing_but_the_bounds() -> None:
    kept = Kept(keep_max=4)
    whole = kept.end(
        8, 52.0, tenant="t", cause="lease", created_s=1.5, partitions=3, replicas=2, codec="lz4",
        mappers_committed=4, rows=5, bytes_raw=6, bytes_stored=2**63 + 7, empty_partitions=1,
        losses=2, rebuilds=1, sizes=(1, 2**63, 3), largest=((0, 5, 6),),
    )  # fmt: skip
    others = [kept.end(number, 53.0) for number in (3, 2, 9)]
    kept.restart()
    assert kept.numbers == [8, 2, 3, 9]  # those of one moment by their numbers
    assert [kept.history.get(number) for number in (8, 3, 2, 9)] == [whole, *others]
    kept.restart(kept.bounds._replace(keep_max=1))
    assert kept.numbers == [9]
    kept.restart(kept.bounds._replace(unix_s=1103.0))
    assert not kept.numbers


def test_a_row_that_makes_no_sense_goes_and_the_others_stay() -> None:
    kept = Kept()
    kept.end(1, 51.0)
    kept.save()
    for number, text in ((2, "x"), (3, "{}"), (4, "[]"), (5, '{"shuffle_id": "x", "sizes": 5}')):
        kept.rows[number] = (number, text)
    kept.restart()
    assert kept.numbers == [1]
    kept.save()
    assert sorted(kept.rows) == [1]


def test_one_that_ended_in_the_future_does_not_keep_the_others() -> None:
    kept = Kept(keep_s=100.0)
    future = FinishedExchange(1, "id-1", closed_s=9e9)  # as the clock was wrong then
    kept.history.add(future)
    kept.end(2, 60.0)
    kept.history.tick(61.0)
    assert kept.numbers == [2]


def test_what_a_newer_version_has_added_is_left_out() -> None:
    finished = FinishedExchange(3, "x", sizes=(4,))
    said = finished.to_json()
    assert "number" not in said
    newer = json.dumps(said | {"added": 1})
    older = json.dumps({"shuffle_id": "x"})
    assert FinishedExchange.from_json(3, newer) == finished
    assert FinishedExchange.from_json(3, older) == replace(finished, sizes=())
