"""What the peers' micro-batches have in common: arguments, timing, checks, and the report.

A program runs in an environment of its own (`make peers`), started by `cosco-bench latency
--group`. It runs iterations of two stages one after another, first to warm up, then on the
clock: from before the first task is handed in until its driver has all reducers' sums. Where
there are several ways to say the stages, they take turns in the warm-up, and the fastest one
counts. Each iteration's sums are compared with the exact ones. Events are written as in `harness`.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import arguments, report

#: Programs of a peer that are started by it find the modules of this directory.
os.environ["PYTHONPATH"] = os.pathsep.join(
    filter(None, (str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")))
)


#: Iterations that are scheduled at once, where that can be.
GROUP = 100


@dataclass(frozen=True)
class MicroJob:
    """What to run: `tasks` mappers and as many reducers on `threads` processors.

    replicas: copies of a row, with Cosco.
    """

    tasks: int
    threads: int
    scratch: str
    replicas: int


@dataclass(frozen=True)
class Stages:
    """A peer that is up.

    forms: by name, ways to run an iteration, which is given; sums are by reducer, then by key.
    same_numbers: all iterations are given the number of the first one.
    run_group: where there are no forms: runs a group of iterations, and returns the seconds and the
        sums of each.
    """

    forms: dict[str, Callable[[int], list[list[int]]]]
    versions: dict[str, str]
    settings: dict[str, Any]
    same_numbers: bool = False
    run_group: Callable[[range], tuple[list[float], list[list[list[int]]]]] | None = None


def main(start: Callable[[MicroJob], AbstractContextManager[Stages]]) -> None:
    """Run the peer that `start` brings up, as the command line says, and end the process."""
    options = arguments("tasks", "threads", "warm-ups")
    exact = json.loads(Path(options.files[0]).read_text())  # sums of all iterations
    job = MicroJob(options.tasks, options.threads, options.scratch, options.replicas)
    with report(options.events) as tell, start(job) as stages:
        tell(done="start")
        run = _run_forms if stages.run_group is None else _run_groups
        form, seconds = run(stages, exact, options.warm_ups)
        tell(
            result={
                "seconds": seconds,
                "scan_seconds": [],
                "tally": {},
                "versions": {"python": sys.version.split()[0], **stages.versions},
                "settings": {"form": form, **stages.settings},
            }
        )


def _run_forms(stages: Stages, exact: list[Any], warm_ups: int) -> tuple[str, list[float]]:
    """Run one iteration after another; return the form that counts, and the seconds of each."""
    names = list(stages.forms)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    form = names[0]
    for index in range(len(exact)):
        if index < warm_ups:
            form = names[index % len(names)]
        elif index == warm_ups:
            form = min(names, key=lambda name: _second_half(seconds[name]))
            seconds[form].clear()
        iteration = 0 if stages.same_numbers else index
        before = time.perf_counter()
        found = stages.forms[form](iteration)
        seconds[form].append(time.perf_counter() - before)
        _check(index, found, exact[iteration])
    return form, seconds[form]


def _run_groups(stages: Stages, exact: list[Any], warm_ups: int) -> tuple[str, list[float]]:
    """Run groups of GROUP iterations; return what they are called, and the seconds of each."""
    assert stages.run_group is not None
    seconds: list[float] = []
    for part in (range(warm_ups), range(warm_ups, len(exact))):
        seconds.clear()
        for first in part[::GROUP]:
            group = range(first, min(first + GROUP, part.stop))
            took, found = stages.run_group(group)
            seconds += took
            for index, sums in zip(group, found, strict=True):
                _check(index, sums, exact[index])
    return f"groups of {GROUP}", seconds


def _check(index: int, found: list[list[int]], exact: list[list[int]]) -> None:
    if found != exact:
        raise ValueError(f"iteration {index} has other sums than the exact ones")


def _second_half(seconds: list[float]) -> float:
    """Return the median of the later ones, when they are warm; 0 for none."""
    later = seconds[len(seconds) // 2 :]
    return statistics.median(later) if later else 0.0
