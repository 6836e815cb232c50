"""The truth: what each run of a mapper writes, and what a reader may therefore find.

A row names the run that wrote it, at a fixed width: re-runs give the same numbers of rows
and bytes, as they must, and rows of two runs can still be told apart.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum

from .scenario import Scenario


class RunState(Enum):
    RUNNING = 1
    CLOSING = 2  # from here on the service may have its commit
    WON = 3
    NOT_WON = 4
    FAILED = 5  # an error, and it had not begun to close
    UNKNOWN = 6  # it died, or failed, while it closed


#: Whose rows may be seen.
VISIBLE = frozenset({RunState.CLOSING, RunState.WON, RunState.UNKNOWN})


@dataclass(slots=True)
class Run:
    """One run of a mapper."""

    number: int
    mapper: int
    state: RunState = RunState.RUNNING

    def interrupt(self) -> None:
        """Note that it failed, or that its process is gone, if it had not ended before."""
        if self.state is RunState.CLOSING:
            self.state = RunState.UNKNOWN
        elif self.state is RunState.RUNNING:
            self.state = RunState.FAILED


@dataclass(slots=True)
class Model:
    """All rows there should be."""

    seed: int
    scenario: Scenario
    runs: dict[int, Run] = field(default_factory=dict)
    _shapes: dict[int, list[tuple[int, int]]] = field(default_factory=dict)

    def begin_run(self, mapper: int) -> Run:
        run = Run(len(self.runs) + 1, mapper)
        self.runs[run.number] = run
        return run

    def shape(self, mapper: int) -> list[tuple[int, int]]:
        """(partition, length of the filling) of each of a mapper's rows, in order."""
        shape = self._shapes.get(mapper)
        if shape is None:
            rng = random.Random(f"rows {self.seed} {mapper}")
            scenario = self.scenario
            count = rng.randint(0, 2 * scenario.rows)
            partitions = range(scenario.partitions)
            if rng.random() < 0.3:  # some partitions get nothing
                partitions = range(rng.randrange(scenario.partitions) + 1)
            shape = self._shapes[mapper] = [
                (rng.choice(partitions), rng.randrange(2 * scenario.row_bytes))
                for _ in range(count)
            ]
        return shape

    def rows(self, run: Run) -> list[tuple[int, bytes]]:
        """What a run collects: (partition, row)."""
        return [
            (partition, _row(run.number, run.mapper, i, length))
            for i, (partition, length) in enumerate(self.shape(run.mapper))
        ]

    def check_read(self, mappers: Iterable[int], partition: int, rows: list[bytes]) -> str:
        """What is wrong with a complete read; empty if nothing is."""
        found: defaultdict[int, list[bytes]] = defaultdict(list)
        for row in rows:
            try:
                found[int(row[6:10])].append(row)
            except ValueError:
                return f"a row that nobody wrote: {row[:40]!r}"
        wanted = set(mappers)
        if strangers := found.keys() - wanted:
            return f"rows of mappers {sorted(strangers)}, who were not named"
        for mapper in sorted(wanted):
            problem = self._check_mapper(mapper, partition, found.get(mapper, []))
            if problem:
                return problem
        return ""

    def _check_mapper(self, mapper: int, partition: int, rows: list[bytes]) -> str:
        shape = [(i, n) for i, (p, n) in enumerate(self.shape(mapper)) if p == partition]
        if not shape and not rows:
            return ""
        numbers = sorted({int(row[:5]) for row in rows})
        if len(numbers) != 1:
            return f"rows of mapper {mapper} come from runs {numbers}, {len(rows)} in all"
        run = self.runs[numbers[0]]
        if run.mapper != mapper or run.state not in VISIBLE:
            return f"rows of mapper {mapper} come from run {run}"
        expected = sorted(_row(run.number, mapper, i, n) for i, n in shape)
        if sorted(rows) != expected:
            return (
                f"{len(rows)} rows of mapper {mapper} ({len(set(rows))} different ones) in "
                f"partition {partition}, it wrote {len(expected)}"
            )
        return ""


def _row(run: int, mapper: int, i: int, length: int) -> bytes:
    return b"%05d.%04d.%05d." % (run, mapper, i) + bytes([65 + (i + mapper) % 26]) * length
