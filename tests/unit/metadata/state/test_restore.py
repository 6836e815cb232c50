"""Random losses and commits: a restart at any moment goes on as if there were none, and what
readers are told always adds up to the rows of the attempts that it names."""

from __future__ import annotations

import random
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from support.committing import (
    PARTITIONS,
    RANGES,
    await_commits,
    commit_of,
    current,
    exchange,
    move_on,
    ranges_with,
    take_report,
)

from cosco.errors import CoscoError, DataCorrupted, GenerationChanged
from cosco.metadata.state.exchange.exchange_state import ExchangeState
from cosco.metadata.state.exchange.losses import Losses
from cosco.metadata.state.records.changes import ChangeLog
from cosco.metadata.state.restore import restore_exchanges
from cosco.metadata.store.sql import SqlStore
from cosco.protocol.records import LossCause, LossReport

MAPPERS = 3
STEPS = 120
#: What each mapper writes, by partition; deterministic mappers write the same each time.
ROWS = [{p: m + p + 1 for p in range(PARTITIONS) if (m + p) % 3} for m in range(MAPPERS)]
OWNERS = (bytes(16), b"b" * 16)


@dataclass
class Attempt:
    """A writer that is under way: what it was told to send and who acknowledged it."""

    mapper: int
    number: int
    generation: int
    ranges: tuple[int, ...] | None
    rows: dict[int, int]
    acknowledged: set[tuple[int, int]] = field(default_factory=set)


class Rebuilds:
    """One exchange, kept in a database that is written after every call."""

    def __init__(self, seed: int, store: SqlStore) -> None:
        self.random = random.Random(seed)
        self.store = store
        self.changes = ChangeLog()
        self.state = exchange(
            changes=self.changes,
            deterministic=self.random.random() < 0.7,
            callback=self.random.random() < 0.7,
        )
        self.state.put_all()
        self.attempts: list[Attempt] = []
        #: Attempts that asked to commit, by mapper and number.
        self.committed: dict[tuple[int, int], Attempt] = {}

    def step(self) -> None:
        """One random call."""
        steps = {
            self.open: 3, self.run: 5, self.push: 4, self.commit: 4, self.lose: 3, self.move: 1,
            self.lose_store: 1, self.answer: 1, self.take_over: 1, self.restart: 1,
        }  # fmt: skip
        [step] = self.random.choices(list(steps), list(steps.values()))
        step()

    def open(self) -> None:
        opened = self.state.open_attempt(self.random.randrange(MAPPERS))
        rows = dict(ROWS[opened.mapper])
        if not self.state.spec.deterministic:
            rows = {p: n * self.random.randint(1, 3) for p, n in rows.items()}
        elif self.random.random() < 0.02:
            rows[min(rows)] += 1  # it was said to be deterministic
        if opened.partial:
            rows = {p: n for p, n in rows.items() if ranges_with([p]) <= set(opened.ranges)}
        ranges = opened.ranges if opened.partial else None
        self.attempts.append(
            Attempt(opened.mapper, opened.attempt, opened.info.generation, ranges, rows)
        )

    def run(self) -> None:
        """An attempt that nothing comes between."""
        self.open()
        self.finish(self.attempts[-1])

    def push(self) -> None:
        """Some frames of an attempt are acknowledged."""
        if self.attempts:
            attempt = self.random.choice(self.attempts[-6:])
            written = ranges_with(attempt.rows)
            ranges = {index for index in written if self.random.random() < 0.5}
            attempt.acknowledged.update(current(self.state, ranges))

    def commit(self) -> None:
        if self.attempts:
            self.finish(self.random.choice(self.attempts[-6:]))

    def finish(self, attempt: Attempt) -> None:
        unsent = ranges_with(attempt.rows) - {index for index, _ in attempt.acknowledged}
        attempt.acknowledged.update(current(self.state, unsent))
        request = commit_of(
            attempt.mapper,
            attempt.number,
            attempt.rows,
            generation=attempt.generation,
            acknowledged=sorted(attempt.acknowledged),
            ranges=attempt.ranges,
        )
        self.committed[attempt.mapper, attempt.number] = attempt
        try:
            won = self.state.commit(request)
            assert self.state.commit(request) == won
            if won and self.random.random() < 0.01:
                self.contradict(attempt)
        except GenerationChanged:
            assert not self.state.spec.deterministic
        except DataCorrupted as error:
            assert error.mappers == (attempt.mapper,)
            assert attempt.mapper in self.state.attempts.contradicted

    def contradict(self, attempt: Attempt) -> None:
        """What counted is committed again, and says something else."""
        rows = {p: n + 1 for p, n in attempt.rows.items()}
        request = commit_of(
            attempt.mapper,
            attempt.number,
            rows,
            generation=attempt.generation,
            acknowledged=sorted(attempt.acknowledged),
            ranges=attempt.ranges,
        )
        with pytest.raises(DataCorrupted):
            self.state.commit(request)

    def lose(self) -> None:
        index = self.random.randrange(len(RANGES))
        cause = LossCause.MISSING if self.random.random() < 0.05 else LossCause.GONE
        build = self.state.build(index)
        report = LossReport(3, self.state.generation, build, RANGES[index].first, cause, "gone")
        ended = take_report(self.state, report)
        assert take_report(self.state, report) == []
        if self.random.random() < 0.8:
            move_on(self.state, ended)

    def lose_store(self) -> None:
        """Several ranges lose their rows at once."""
        some = [i for i in range(len(RANGES)) if self.random.random() < 0.6]
        lost = [i for i in some if self.state.builds.writers(i)]
        lost = [i for i in lost if i not in self.state.losses.verdicts]
        move_on(self.state, self.state.lose(lost, "a store is gone", "gone"))

    def move(self) -> None:
        move_on(self.state, [self.random.randrange(len(RANGES))])

    def answer(self) -> None:
        answers = {call.loss_id: self.random.random() for call in self.state.losses.calls()}
        self.state.losses.answer(
            [loss_id for loss_id, luck in answers.items() if luck < 0.5],
            [(loss_id, "raised") for loss_id, luck in answers.items() if luck > 0.8],
        )

    def take_over(self) -> None:
        self.state.take_over(self.random.choice(OWNERS), self.random.random() < 0.7)

    def restart(self) -> None:
        self.write()
        self.state = self.stored(self.changes)

    def write(self) -> None:
        self.store.write(self.changes.pop_all())

    def stored(self, changes: ChangeLog) -> ExchangeState:
        [state] = restore_exchanges(self.store.load().tables, changes).values()
        return state

    def check_snapshots(self) -> None:
        """Readers of the mappers that are there see the rows of the attempts they are told
        of, and all daemons that took them."""
        for partition in range(PARTITIONS):
            try:
                seen = await_commits(self.state, partition).snapshot
            except CoscoError:
                continue
            assert seen is not None
            [index] = ranges_with([partition])
            epochs = {source.epoch for source in seen.sources}
            rows = 0
            for key in zip(seen.mappers.tolist(), seen.attempts.tolist(), strict=True):
                attempt = self.committed[key]
                assert attempt.generation == seen.generation
                assert {e for i, e in attempt.acknowledged if i == index} <= epochs
                rows += attempt.rows.get(partition, 0)
            assert (seen.rows, seen.raw_bytes) == (rows, 10 * rows)


def answers(state: ExchangeState) -> list[Any]:
    """Whatever can be asked, in a form that compares, and without changing anything."""
    progress, losses = state.progress(2), state.losses
    given: list[Any] = [state.info(), state.status(), state.placed, state.version, state.owner]
    given += [progress.bytes_stored, progress.partition_rows.tolist()]
    given += [losses.highest, losses.callback, losses.tries._by_mapper, losses.verdicts._by_range]
    given += [(loss_id, losses._row(loss_id)) for loss_id in sorted(losses._losses)]
    given += [
        state.attempts.count,
        state.attempts.plain,
        state.attempts.opened,
        state.attempts.committed,
    ]
    given += [state.attempts.committed_mappers, losses.pending(None)]
    given += [state.attempts._digests, state.attempts.contradicted]
    given.append(state.builds.present.tolist())
    for index, build in enumerate(state.builds._ranges):
        for totals in (build.expected, build.regained):
            given.append(None if totals is None else totals.tolist())
        given += [state.builds.writers(index), build.resent, losses.pending(index)]
    check_mappers(losses)
    for partition in range(PARTITIONS):
        for named in ([], *([mapper] for mapper in range(MAPPERS)), list(range(MAPPERS))):
            try:
                wait = await_commits(state, partition, named)
            except CoscoError as error:
                given.append((type(error), str(error), error.mappers))
                continue
            given += [wait.missing, wait.recompute]
            if (seen := wait.snapshot) is not None:
                given += [seen.version, seen.build, seen.rows, seen.digest, seen.sources]
                given += [seen.mappers.tolist(), seen.attempts.tolist()]
    return given


def check_mappers(losses: Losses) -> None:
    """A mapper that is pending for anything is in one loss, any other in none."""
    called = [mapper for loss in losses._losses.values() for mapper in loss.mappers]
    assert len(called) == len(set(called))
    assert set(called) == {mapper for mappers in losses._pending.values() for mapper in mappers}
    assert all(losses._pending.values())
    assert all(loss.mappers for loss in losses._losses.values())
    assert set(losses.tries._by_mapper) <= set(called)


@pytest.mark.parametrize("seed", range(16))
def test_a_restart_at_any_moment_changes_nothing(seed: int, tmp_path: Path) -> None:
    with closing(SqlStore(str(tmp_path / "metadata.db"))) as store:
        rebuilds = Rebuilds(seed, store)
        for _ in range(STEPS):
            rebuilds.step()
            rebuilds.check_snapshots()
            rebuilds.write()
            assert answers(rebuilds.stored(ChangeLog())) == answers(rebuilds.state)
