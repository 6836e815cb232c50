"""What the peer programs have in common: arguments, timing, and how they report.

A peer program runs in an environment of its own (`make peers`), started by `cosco-bench
peers`. It does its whole job again and again: the scan of the files alone, then the
repartition; first to warm up, then on the clock. It writes events, one JSON object a line, to
the descriptor it is given, which its own children do not inherit, so that its end is seen.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Job:
    """What to run.

    scratch: a directory for all files the peer makes. replicas: copies of a row, with Cosco.
    """

    files: list[str]
    partitions: int
    threads: int
    scratch: str
    replicas: int


@dataclass(frozen=True)
class Tally:
    """What came out: rows, the sum of their keys, bytes of their payloads."""

    rows: int
    keys: int
    payload_bytes: int


@dataclass(frozen=True)
class Tasks:
    """A peer that is up. `scan` reads the files, `shuffle` repartitions them as well; both
    touch every row and column that comes out. `versions` and `settings`: what was used."""

    scan: Callable[[], Tally]
    shuffle: Callable[[], Tally]
    versions: dict[str, str]
    settings: dict[str, Any]


def main(start: Callable[[Job], AbstractContextManager[Tasks]]) -> None:
    """Run the peer that `start` brings up, as the command line says, and end the process."""
    options = arguments("partitions", "threads", "warm-ups", "runs")
    job = Job(options.files, options.partitions, options.threads, options.scratch, options.replicas)
    with report(options.events) as tell, start(job) as tasks:
        _measure(tasks, options.warm_ups, options.runs, tell)


def arguments(*numbers: str) -> argparse.Namespace:
    """Parse the command line of a peer program; `numbers` are its options beside those of all."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--scratch", required=True, help="directory for all files")
    parser.add_argument("--replicas", type=int, default=1)
    for name in ("events", *numbers):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("files", nargs="+")
    return parser.parse_args()


@contextmanager
def report(descriptor: int) -> Iterator[Callable[..., None]]:
    """Yield what writes an event; whatever is raised becomes one, and ends the process."""
    os.set_inheritable(descriptor, False)
    with os.fdopen(descriptor, "w", buffering=1) as events:

        def tell(**event: Any) -> None:
            events.write(json.dumps(event) + "\n")

        try:
            yield tell
        except Exception as error:  # noqa: BLE001  whatever it is, it is what is reported
            tell(error=f"{type(error).__name__}: {_first_line(error)}")
            sys.exit(1)


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), "no message")


def _measure(tasks: Tasks, warm_ups: int, runs: int, tell: Callable[..., None]) -> None:
    seconds: dict[str, list[float]] = {"scan": [], "shuffle": []}
    tell(done="start")
    for _ in range(warm_ups + runs):
        tallies = []
        for name, task in (("scan", tasks.scan), ("shuffle", tasks.shuffle)):
            before = time.perf_counter()
            tallies.append(task())
            seconds[name].append(time.perf_counter() - before)
            tell(done=name)
        scanned, tally = tallies
        if tally != scanned:
            raise ValueError(f"the files hold {scanned}, and {tally} came out")
    tell(
        result={
            "seconds": seconds["shuffle"][warm_ups:],
            "scan_seconds": seconds["scan"][warm_ups:],
            "tally": asdict(tally),
            "versions": {"python": sys.version.split()[0], **tasks.versions},
            "settings": tasks.settings,
        }
    )


def scratch_directory(scratch: str, name: str) -> str:
    """Make a directory below the one for all files of the peer."""
    directory = Path(scratch) / name
    directory.mkdir()
    return str(directory)
