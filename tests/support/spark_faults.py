"""A query of three stages whose tasks say when they run, so that something can happen meanwhile."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any, Final

import psutil
from support.exchanges import until

MAPPERS: Final = 6
PARTITIONS: Final = 8
KEYS: Final = 500
ROWS: Final = 3_000
_RUN_S: Final = 240.0


class Query:
    """Sums by key, and then by a part of the key: two shuffles. It runs in a thread of its own."""

    def __init__(
        self,
        context: Any,
        log: Path,
        *,
        map_s: float = 0.0,
        reduce_s: float = 0.0,
        pad: int = 200,
        group: tuple[str, bool] | None = None,
    ) -> None:
        """Begin. map_s, reduce_s: what each task of the first two stages takes longer. group: of
        its job, and whether a cancelled task is interrupted."""
        self._context, self._group = context, group
        self._log = log
        self._found: list[Any] = []
        self._error: list[BaseException] = []
        self._rdd = _rdd(context, str(log), map_s, reduce_s, pad)
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            if self._group is not None:
                name, interrupts = self._group
                self._context.setJobGroup(name, "", interrupts)
            self._found.append(self._rdd.collectAsMap())
        except BaseException as error:  # noqa: BLE001  told to whoever asks for the result
            self._error.append(error)

    def runs(self, kind: str) -> list[int]:
        """Return the indexes of the tasks of one kind that have begun, in their order."""
        lines = self._log.read_text().splitlines() if self._log.exists() else []
        return [int(line.split()[1]) for line in lines if line.split()[0] == kind]

    def wait_for(self, kind: str, count: int) -> None:
        """Wait until so many tasks of a kind have begun."""
        until(
            lambda: len(self.runs(kind)) >= count or not self._thread.is_alive(),
            _RUN_S,
            f"{count} tasks of {kind}",
        )

    def result(self) -> dict[int, int]:
        """Wait for the result; raises what the query has raised."""
        self._thread.join(_RUN_S)
        assert not self._thread.is_alive(), f"the query still runs: {self._log.read_text()}"
        if self._error:
            raise self._error[0]
        return dict(self._found[0])


def expected() -> dict[int, int]:
    """Return the result of every such query."""
    sums: dict[int, int] = {}
    for number in range(MAPPERS * ROWS):
        sums[number % KEYS % 7] = sums.get(number % KEYS % 7, 0) + number
    return sums


def _rdd(context: Any, log: str, map_s: float, reduce_s: float, pad: int) -> Any:
    def say(kind: str, seconds: float) -> Any:
        def told(index: int, rows: Any) -> Any:
            with Path(log).open("a") as file:
                file.write(f"{kind} {index}\n")
            time.sleep(seconds)  # the work of a task
            return rows

        return told

    numbers = context.parallelize(range(MAPPERS * ROWS), MAPPERS)
    mapped = numbers.mapPartitionsWithIndex(say("map", map_s))
    rows = mapped.map(lambda number: (number % KEYS, (number, "x" * pad)))
    first = rows.partitionBy(PARTITIONS).mapPartitionsWithIndex(say("reduce", reduce_s))
    return first.map(lambda pair: (pair[0] % 7, pair[1][0])).reduceByKey(lambda a, b: a + b, 5)


def executors() -> list[psutil.Process]:
    """Return the executors' processes of this one's session, oldest first."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if "CoarseGrainedExecutorBackend" in " ".join(process.cmdline()):
                found.append(process)
        except psutil.Error:
            continue
    return sorted(found, key=lambda process: process.create_time())
