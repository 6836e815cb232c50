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
    DataLost,
    ExchangeClosed,
    GenerationChanged,
)
from cosco.metadata.state.exchange.losses import MAX_BUILDS

from . import threads
from .clients import SERVICE_TIMEOUT_S, Clients
from .loop import Process
from .loop import RunState as ProcessState
from .model import Run, RunState
from .programs import METADATA_ADDRESS
from .scenario import Ending, Scenario
from .world import OnPurpose, World

SHUFFLE_ID = "simulated"
LEASE_S = 90.0
ABANDONED_LEASE_S = 20.0
#: A mapper rests so often while it works.
_PAUSES = 10
#: The share of runs that are run once more by the process that has done them.
_REPEATED = 0.1


class CallbackFailed(OnPurpose):
    """What the driver's callback raises on purpose."""


class Engine(Clients):
    """One exchange, from its creation until it is closed."""

    def __init__(self, world: World, scenario: Scenario) -> None:
        super().__init__(world, scenario)
        self.mappers = list(range(scenario.mappers))
        self.writers: dict[Process, Run] = {}
        self.readers: dict[Process, int] = {}
        self.verified: set[int] = set()  # partitions read whole in peace
        self._wanted: dict[int, int] = {}  # mapper → runs that must yet succeed
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
                        replicas=scenario.replicas,
                        min_replicas=scenario.min_replicas,
                        codec=scenario.codec,
                        deterministic=scenario.deterministic,
                        lease_s=ABANDONED_LEASE_S
                        if scenario.ending is Ending.ABANDONED
                        else LEASE_S,
                        metadata=METADATA_ADDRESS,
                        service_timeout_s=SERVICE_TIMEOUT_S,
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
        self.losses += 1
        self.world.count("callbacks")
        if self.scenario.callbacks_fail and self.world.rng.random() < 0.5:
            raise CallbackFailed("on purpose")
        threads.sleep(self.world.rng.random())
        for mapper in mappers:
            self._want(mapper)

    # --- mappers ---------------------------------------------------------------------------

    def _begin_work(self) -> None:
        if self._wanted:
            return
        rng, scenario = self.world.rng, self.scenario
        for mapper in self.mappers:
            self._wanted[mapper] = 0
            self.world.later(rng.random() * scenario.work_s, self._want, mapper)
        for _ in range(scenario.readers):
            delay = rng.random() * 2 * scenario.work_s
            self.world.later(delay, self._start_reader, rng.randrange(scenario.partitions))
        if self.is_peaceful:
            self._read_all()

    def _want(self, mapper: int) -> None:
        self._wanted[mapper] += 1
        self.start_run(mapper)

    def speculate(self) -> None:
        if self.is_created:
            self.world.trace("speculate")
            self.start_run(self.world.rng.choice(self.mappers))

    def processes(self) -> list[Process]:
        return [*self.writers, *self.readers]

    def start_run(self, mapper: int) -> None:
        """A run of a mapper, wanted or speculative."""
        if self.is_ending:
            return
        runs = [self.model.begin_run(mapper)]

        def work() -> None:
            self._map(runs[0])
            if self.world.rng.random() < _REPEATED and not self.is_ending:
                # As one does whose engine has missed that it ended: over the same streams.
                self.world.count("runs repeated in their process")
                runs.append(self.model.begin_run(mapper))
                self.writers[process] = runs[1]
                self._map(runs[1])

        def ended() -> None:
            for run in runs:
                self._run_ended(run)

        process = self._spawn(f"map{mapper}.{runs[0].number}", work, ended)
        self.writers[process] = runs[0]

    def _map(self, run: Run) -> None:
        rng, scenario = self.world.rng, self.scenario
        pause_s = rng.random() * scenario.mapper_s / _PAUSES
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
                rows = self.model.rows(run)
                pace = len(rows) // _PAUSES + 1
                for i, (partition, row) in enumerate(rows):
                    writer.collect(partition, row)
                    if i % pace == 0:
                        threads.sleep(pause_s)
                run.state = RunState.CLOSING
            commit = writer.close()
        except CoscoError as error:
            closing = run.state is RunState.CLOSING
            run.state = RunState.UNKNOWN if closing else RunState.FAILED
            self._explain(f"run {run.number} of mapper {run.mapper}", error, met=met)
        else:
            run.state = RunState.WON if commit.won else RunState.NOT_WON
            self.world.trace(f"run {run.number} of mapper {run.mapper}: won={commit.won}")
            if not commit.won:
                self.world.count("runs that did not win")
            expected = len(rows)
            if commit.won and commit.rows > expected:
                self.world.problem(f"run {run.number} committed {commit.rows} rows of {expected}")

    def _run_ended(self, run: Run) -> None:
        """Its process is gone, come what may."""
        if run.state in (RunState.WON, RunState.NOT_WON):
            self._wanted[run.mapper] = 0
            return
        if run.state in (RunState.RUNNING, RunState.CLOSING):
            closing = run.state is RunState.CLOSING
            run.state = RunState.UNKNOWN if closing else RunState.FAILED
        if self._wanted[run.mapper]:
            self.world.later(0.2 + self.world.rng.random(), self.start_run, run.mapper)

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
            if isinstance(error, DataLost) and not error.retriable:
                self._repair(error)
            if isinstance(error, cosco.DataCorrupted) and peaceful and self.damages > MAX_BUILDS:
                # Rows of one range went missing from whole files each time: that is the end of it.
                self.verified.add(partition)
                return True
            return False
        wrong = self.model.check_read(mappers, partition, rows)
        if wrong:
            self.world.problem(f"partition {partition} read wrong: {wrong}")
        self.reads += 1
        self.world.trace(f"partition {partition}: {len(rows)} rows of mappers {mappers}")
        if peaceful and len(mappers) == len(self.mappers):
            self.verified.add(partition)
        return True

    def _repair(self, error: DataLost) -> None:
        """What one does without a callback: run the mappers that the error names."""
        self.losses += 1
        for mapper in error.mappers:
            if not self._wanted[mapper]:
                self._want(mapper)

    def _explain(self, what: str, error: CoscoError, *, met: bool) -> None:
        """Whether an error may happen here. `met`: the service has answered this client before,
        so that an outage must have been waited for."""
        self.world.trace(f"{what}: {type(error).__name__}: {error}")
        self.world.count(f"clients were told {type(error).__name__}")
        if isinstance(error, DataLost):
            self.losses += 1
        allowed = isinstance(error, DataLost | cosco.CapacityExceeded) or (
            isinstance(error, GenerationChanged) and not self.scenario.deterministic
        )
        if isinstance(error, ExchangeClosed):
            allowed = self.is_ending
        if isinstance(error, cosco.ServiceUnavailable):
            allowed = not met
        if isinstance(error, cosco.DataCorrupted):
            allowed = self.scenario.damage
        if not allowed:
            self.world.problem_of_exception(f"{what} failed", error)

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
        return f"partitions {sorted(self.verified)} of {self.scenario.partitions} are read"

    @property
    def is_ending(self) -> bool:
        return self._finish.is_set() or self.is_abandoned

    def finish(self) -> None:
        if not self._finish.is_set():
            busy = any(p.state is not ProcessState.DEAD for p in (*self.writers, *self.readers))
            self.world.trace("close the exchange")
            self.world.count("closes amid work" if busy else "closes")
            self._finish.set()
