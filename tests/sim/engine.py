"""An engine that uses Cosco: a driver, runs of mappers, readers; each a process that may die.

The engine itself is the world's: it never fails, and runs again what failed.
"""

from __future__ import annotations

from collections.abc import Callable

import cosco
from cosco import (
    CommitTimeout,
    CoscoError,
    CoscoExchange,
    CoscoReader,
    CoscoWriter,
    ExchangeClosed,
    GenerationChanged,
)

from . import threads
from .clients import SERVICE_TIMEOUT_S, Clients, Place
from .loop import Process
from .loop import RunState as ProcessState
from .model import Run, RunState
from .programs import METADATA_ADDRESS
from .scenario import Scenario
from .world import World

SHUFFLE_ID = "simulated"
LEASE_S = 90.0
#: The share of runs that are run once more by the process that has done them.
_REPEATED = 0.1


class Engine(Clients):
    """One exchange, from its creation until it is closed."""

    def __init__(self, world: World, scenario: Scenario) -> None:
        super().__init__(world, scenario)
        self.mappers = list(range(scenario.mappers))
        self.writers: dict[Process, Run] = {}
        self.readers: dict[Process, int] = {}
        self._has_begun = False
        self._finish = threads.Event()
        self._starts = 0

    # --- driver ----------------------------------------------------------------------------

    def start(self) -> None:
        self._start_driver()

    def _start_driver(self) -> None:
        if not self.is_closed and not self.is_abandoned:
            self.driver = self._spawn("driver", self._drive, lambda: None)

    def driver_died(self) -> None:
        """Another one takes over."""
        self.world.count("drivers replaced")
        self.world.later(self.world.rng.random() * 5.0, self._start_driver)

    def _drive(self) -> None:
        scenario = self.scenario
        callback = self._recompute if scenario.callback else None
        try:
            if not self.is_created:
                try:
                    exchange = CoscoExchange(
                        SHUFFLE_ID,
                        scenario.partitions,
                        callback,
                        deterministic=scenario.deterministic,
                        **self._options(LEASE_S),
                    )
                except cosco.ExchangeExists:  # by a driver that died before it could say so
                    exchange = self._attach(callback)
                self.is_created = True
                self.world.later(0, self._begin_work)
            else:
                exchange = self._attach(callback)
            self._finish.wait()
            exchange.close()
            self.is_closed = True
            self.world.trace("exchange closed")
        except ExchangeClosed:
            if not self._finish.is_set():
                self.world.problem("the exchange was closed under the driver")
            self.is_closed = True
        except CoscoError as error:
            self.world.trace(f"driver: {type(error).__name__}: {error}")
            if not error.retriable and not isinstance(error, cosco.CapacityExceeded):
                self.world.problem_of_exception("the driver failed", error)
            self.world.later(1.0, self._start_driver)

    def _attach(self, callback: Callable[[list[int], str], None] | None) -> CoscoExchange:
        return CoscoExchange.attach(
            SHUFFLE_ID,
            callback,
            own=True,
            metadata=METADATA_ADDRESS,
            service_timeout_s=SERVICE_TIMEOUT_S,
        )

    def _recompute(self, mappers: list[int], reason: str) -> None:
        self.world.trace(f"recompute {mappers}: {reason}")
        self._lost(reason)
        self.world.count("callbacks")
        self._run_again(((0, mapper) for mapper in mappers), 1.0)

    # --- mappers ---------------------------------------------------------------------------

    def _begin_work(self) -> None:
        if self._has_begun:
            return
        self._has_begun = True
        rng, scenario = self.world.rng, self.scenario
        for mapper in self.mappers:
            self.world.later(rng.random() * scenario.work_s, self.want, (0, mapper))
        for _ in range(scenario.readers):
            delay = rng.random() * 2 * scenario.work_s
            self.world.later(delay, self._start_reader, rng.randrange(scenario.partitions))
        if self.is_peaceful:
            self._read_all()

    def speculate(self) -> None:
        if self.is_created:
            self.world.trace("speculate")
            self.start_run((0, self.world.rng.choice(self.mappers)))

    def is_over(self, index: int) -> bool:
        return False  # before all is

    def processes(self) -> list[Process]:
        return [*self.writers, *self.readers]

    def start_run(self, place: Place) -> None:
        if self.is_ending:
            return
        runs = [self._begin_run(place)]

        def work() -> None:
            self._map(runs[0])
            if self.world.rng.random() < _REPEATED and not self.is_ending:
                # As one does whose engine has missed that it ended: over the same streams.
                self.world.count("runs repeated in their process")
                runs.append(self._begin_run(place))
                self.writers[process] = runs[1]
                self._map(runs[1])

        def ended() -> None:
            for run in runs:
                self._run_ended(place, run)

        process = self._spawn(f"map{place[1]}.{runs[0].number}", work, ended)
        self.writers[process] = runs[0]

    def _map(self, run: Run) -> None:
        scenario = self.scenario
        pause_s = self.world.rng.random() * scenario.mapper_s / self.pauses
        what = f"run {run.number} of mapper {run.mapper}"
        met = False
        try:
            with CoscoWriter(
                SHUFFLE_ID,
                run.mapper,
                buffer_bytes=scenario.buffer_bytes,
                metadata=METADATA_ADDRESS,
                service_timeout_s=SERVICE_TIMEOUT_S,
            ) as writer:
                met = True
                rows = self._write_rows(writer.collect, run, pause_s)
            commit = writer.close()
        except CoscoError as error:
            run.interrupt()
            self._explain(what, error, met=met)
        else:
            run.state = RunState.WON if commit.won else RunState.NOT_WON
            self.world.trace(f"{what}: won={commit.won}")
            if not commit.won:
                self.world.count("runs that did not win")
            if commit.won and commit.rows > rows:
                self.world.problem(f"run {run.number} committed {commit.rows} rows of {rows}")

    # --- readers ---------------------------------------------------------------------------

    def _start_reader(self, partition: int) -> None:
        if self.is_ending:
            return
        mappers = self.mappers
        if not self.is_peaceful and self.world.rng.random() < 0.3:
            mappers = self.world.rng.sample(mappers, self.world.rng.randint(1, len(mappers)))
        done: list[bool] = []
        self._starts += 1
        process = self._spawn(
            f"read{partition}.{self._starts}",
            lambda: done.append(self._read(partition, mappers)),
            lambda: self._reader_ended(partition, done),
        )
        self.readers[process] = partition

    def _reader_ended(self, partition: int, done: list[bool]) -> None:
        if not any(done):
            self.world.later(0.3 + self.world.rng.random(), self._start_reader, partition)

    def _read(self, partition: int, mappers: list[int]) -> bool:
        """Read a partition whole; False: try again."""
        peaceful = self.is_peaceful
        slow = self.world.rng.random() < 0.2
        whole = self.world.rng.random() < 0.3
        met = False
        timeout_s = None if self.world.rng.random() < 0.7 else 5.0
        try:
            with CoscoReader(
                SHUFFLE_ID,
                mappers,
                partition,
                timeout_s=timeout_s,
                metadata=METADATA_ADDRESS,
                service_timeout_s=SERVICE_TIMEOUT_S,
            ) as reader:
                met = timeout_s is None  # which bounds its waits for the service as well
                rows: list[bytes] = []
                if whole:
                    rows = reader.read_table().column("row").to_pylist()
                else:
                    for row in reader:
                        rows.append(row)
                        if slow and len(rows) % 50 == 1:
                            threads.sleep(self.world.rng.random() * 0.3)
        except CommitTimeout:
            return False
        except CoscoError as error:
            self._explain(f"reader of partition {partition}", error, met=met)
            return self._read_failed((0, partition), error, peaceful=peaceful)
        self._has_read(f"partition {partition}", mappers, partition, rows)
        self.world.trace(f"partition {partition}: {len(rows)} rows of mappers {mappers}")
        if peaceful and len(mappers) == len(self.mappers):
            self.verified.add((0, partition))
        return True

    def _explain(self, what: str, error: CoscoError, *, met: bool) -> None:
        """Whether an error may happen here. `met`: the service has answered this client before,
        so that an outage must have been waited for."""
        self._check_error(
            what,
            error,
            {
                GenerationChanged: not self.scenario.deterministic,
                ExchangeClosed: self.is_ending,
                cosco.ServiceUnavailable: not met,
            },
        )

    # --- ending ----------------------------------------------------------------------------

    def be_peaceful(self) -> None:
        self.is_peaceful = True
        if self.is_created:
            self._read_all()

    def is_done(self) -> bool:
        return (
            self.is_peaceful
            and (self.is_ending or len(self.verified) == self.scenario.partitions)
            and not any(p.state is not ProcessState.DEAD for p in (*self.writers, *self.readers))
        )

    def read_again(self) -> None:
        self.verified.clear()
        self._read_all()

    def _read_all(self) -> None:
        for partition in range(self.scenario.partitions):
            self._start_reader(partition)

    def unread(self) -> str:
        read = sorted(partition for _, partition in self.verified)
        return f"partitions {read} of {self.scenario.partitions} are read"

    @property
    def is_ending(self) -> bool:
        return self._finish.is_set() or self.is_abandoned

    def finish(self) -> None:
        if not self._finish.is_set():
            busy = any(p.state is not ProcessState.DEAD for p in (*self.writers, *self.readers))
            self.world.trace("close the exchange")
            self.world.count("closes amid work" if busy else "closes")
            self._finish.set()
