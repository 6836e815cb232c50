"""An engine that uses Cosco: a driver, runs of mappers, readers; each a process that may die.

The engine itself is the world's: it never fails, and runs again what failed.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import cosco
from cosco import (
    CommitTimeout,
    CoscoApplication,
    CoscoError,
    CoscoExchange,
    CoscoReader,
    CoscoWriter,
    ExchangeClosed,
    GenerationChanged,
)

from . import threads
from .clients import SERVICE_TIMEOUT_S, Clients, Place
from .columns import Columns, rows_of
from .loop import PROCESS, Process
from .loop import RunState as ProcessState
from .model import Run, RunState
from .programs import METADATA_ADDRESS
from .scenario import Scenario
from .world import World

SHUFFLE_ID = "simulated"
LEASE_S = 90.0
#: Short, so that it runs out in many worlds unless it is renewed.
APPLICATION_LEASE_S = 30.0
#: What the source of an application's exchange has, and how long it may take to be there.
SOURCE_ROW = b"the source's row"
SOURCE_WAIT_S = 120.0
#: The share of runs that are run once more by the process that has done them.
_REPEATED = 0.1
#: The share of readers that rest before another partition, where old builds go meanwhile, and for
#: how many seconds at most.
_LAGGING = 0.8
_LAG_S = 15.0
#: There, of readers in peace, the share that reads all partitions.
_OF_ALL = 0.3


class Source:
    """Another exchange of the driver's application, which its mappers read when they run again.

    One row of one mapper, which the driver's process writes.
    """

    def __init__(
        self, world: World, application: CoscoApplication, is_ending: threads.Event
    ) -> None:
        self._world = world
        self._is_ending = is_ending
        self._process = PROCESS.get()
        self._handle = application.exchange(1, self._again, mappers=1, replicas=1).handle()
        self._write()

    def _again(self, mappers: list[int], reason: str) -> None:
        self._world.trace(f"the source runs again: {reason}")
        self._world.count("callbacks of sources")
        self._write()

    def _write(self) -> None:
        while not self._is_ending.is_set():
            try:
                with self._handle.writer(0) as writer:
                    writer.collect(0, SOURCE_ROW)
            except CoscoError as error:
                self._world.trace(f"the source is not written: {type(error).__name__}: {error}")
                threads.sleep(0.5)
            else:
                return

    def read(self) -> None:
        """Read it, while its own mapper may have to run again first."""
        if PROCESS.get() is not self._process:
            return  # another driver has taken the exchange over, and left the source
        try:
            with self._handle.reader(0, timeout_s=SOURCE_WAIT_S) as reader:
                rows = rows_of(reader.read_table())
        except CommitTimeout as error:
            if not self._is_ending.is_set():
                self._world.problem_of_exception("a callback waited for another exchange's", error)
        except CoscoError as error:  # as it may be for any reader amid faults
            self._world.trace(f"the source is not read: {type(error).__name__}: {error}")
        else:
            self._world.count("sources read")
            if rows != [SOURCE_ROW]:
                self._world.problem(f"the source has the rows {rows}")


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
        self._lags = random.Random(f"lags {world.seed}")
        self._source: Source | None = None

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
                    end = self._create(callback)
                except cosco.ExchangeExists:  # by a driver that died before it could say so
                    end = self._attach(callback).close
                self.is_created = True
                self.world.later(0, self._begin_work)
            else:
                end = self._attach(callback).close
            self._finish.wait()
            end()
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

    def _create(self, callback: Callable[[list[int], str], None] | None) -> Callable[[], None]:
        """Make the exchange, alone or in an application.

        Returns: what ends it.
        """
        scenario, options = self.scenario, self._options(LEASE_S)
        if not scenario.application:
            return CoscoExchange(
                SHUFFLE_ID,
                scenario.partitions,
                callback,
                deterministic=scenario.deterministic,
                direct_reads=scenario.direct,
                **options,
            ).close
        application = CoscoApplication(
            "simulated",
            lease_s=min(options.pop("lease_s"), APPLICATION_LEASE_S),
            metadata=options.pop("metadata"),
            service_timeout_s=SERVICE_TIMEOUT_S,
        )
        CoscoExchange(
            SHUFFLE_ID,
            scenario.partitions,
            callback,
            deterministic=scenario.deterministic,
            direct_reads=scenario.direct,
            application=application,
            **options,
        )
        self._source = Source(self.world, application, self._finish)
        self.world.count("applications")
        return application.close

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
        self.called.update((0, mapper) for mapper in mappers)
        if self._source is not None:
            self._source.read()
        self._run_again(((0, mapper) for mapper in mappers), 1.0)

    def _exchanges(self) -> Iterable[int]:
        return (0,)

    def _name_of(self, index: int) -> str:
        return SHUFFLE_ID

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
                if scenario.columns:
                    columns = Columns(writer, run.mapper, scenario.mappers)
                    rows = self._write_rows(columns.collect, run, pause_s)
                    columns.flush()
                    self.world.count("runs that wrote columns")
                else:
                    rows = self._write_rows(writer.collect, run, pause_s)
            commit = writer.close()
        except CoscoError as error:
            run.interrupt()
            self._explain(what, error, met=met)
            if self._is_of_forgery(error):
                self.wanted[0, run.mapper] = 0
        else:
            run.state = RunState.WON if commit.won else RunState.NOT_WON
            self.world.trace(f"{what}: won={commit.won}")
            if not commit.won:
                self.world.count("runs that did not win")
            if commit.won and commit.rows > rows:
                self.world.problem(f"run {run.number} committed {commit.rows} rows of {rows}")

    # --- readers ---------------------------------------------------------------------------

    def read_something(self) -> None:
        self._start_reader(self.world.rng.randrange(self.scenario.partitions))

    def _start_reader(self, partition: int) -> None:
        if self.is_ending:
            return
        mappers = self.mappers
        if not self.is_peaceful and self.world.rng.random() < 0.3:
            mappers = self.world.rng.sample(mappers, self.world.rng.randint(1, len(mappers)))
        partitions = [partition]
        if self.world.rng.random() < 0.3:
            others = self.world.rng.sample(range(self.scenario.partitions), 1)
            others += self.world.rng.sample(range(self.scenario.partitions), 1)
            partitions = sorted({partition, *others})
        drops = self.scenario.drops_old_builds
        if self.is_peaceful and drops and self._lags.random() < _OF_ALL:
            partitions = list(range(self.scenario.partitions))
        done: list[bool] = []
        self._starts += 1
        process = self._spawn(
            f"read{partition}.{self._starts}",
            lambda: done.append(self._read(partition, partitions, mappers)),
            lambda: self._reader_ended(partition, done),
        )
        self.readers[process] = partition

    def _reader_ended(self, partition: int, done: list[bool]) -> None:
        if not any(done):
            self.world.later(0.3 + self.world.rng.random(), self._start_reader, partition)

    def _read(self, wanted: int, partitions: list[int], mappers: list[int]) -> bool:
        """Read partitions whole, for the sake of one of them; False: try again."""
        peaceful = self.is_peaceful
        met = False
        was_forgery_known = self.world.is_forgery_known
        timeout_s = None if self.world.rng.random() < 0.7 else 5.0
        way = self._way()
        #: What came of each partition that was come to; those before the last one are verified.
        found: dict[int, list[bytes]] = {}
        failure: CoscoError | None = None
        try:
            with CoscoReader(
                SHUFFLE_ID,
                mappers,
                partitions if len(partitions) > 1 else partitions[0],
                timeout_s=timeout_s,
                metadata=METADATA_ADDRESS,
                service_timeout_s=SERVICE_TIMEOUT_S,
            ) as reader:
                met = timeout_s is None  # which bounds its waits for the service as well
                for partition, rows in way(reader):
                    if found and partition not in found:
                        self._lag()
                    if partition in found and partition != next(reversed(found)):
                        self.world.problem(f"partition {partition} was given again")
                    found.setdefault(partition, []).extend(rows)
        except CommitTimeout:
            return False
        except CoscoError as error:
            failure = error
        forged = self.world.forged
        if forged is not None and forged[0] in mappers and not was_forgery_known:
            # Until the attempt itself was heard nobody can know; a reader that begins later must.
            whole = []
        elif failure is None:
            whole = partitions
        else:
            whole = [p for p in partitions if found and p < max(found)]
        for partition in whole:
            self._check_partition(mappers, partition, found.get(partition, []), way)
            if peaceful and len(mappers) == len(self.mappers):
                self.verified.add((0, partition))
        if failure is not None:
            self._explain(f"reader of partitions {partitions}", failure, met=met)
            return self._read_failed((0, wanted), failure, peaceful=peaceful)
        return bool(whole)

    def _lag(self) -> None:
        """Be slow with one partition, so that much may become of the next one meanwhile."""
        if self.scenario.drops_old_builds and self._lags.random() < _LAGGING:
            self.world.count("readers that lagged")
            threads.sleep(_LAG_S * self._lags.random())

    def _check_partition(
        self, mappers: list[int], partition: int, rows: list[bytes], way: Any
    ) -> None:
        self._has_read(f"partition {partition}", mappers, partition, rows)
        places = [(row[6:10], row[11:16]) for row in rows]
        if way == self._in_order and places != sorted(places):
            self.world.problem(f"rows of partition {partition} are not in order")
        self.world.trace(f"partition {partition}: {len(rows)} rows of mappers {mappers}")

    # Each way to read yields rows with their partition.

    def _way(self) -> Callable[[CoscoReader], Iterator[tuple[int, list[bytes]]]]:
        number = self.world.rng.random()
        if number < 0.2:
            return self._by_tables
        if number < 0.35:
            return self._in_order
        return self._by_batches if self.scenario.columns else self._by_rows

    def _by_tables(self, reader: CoscoReader) -> Iterator[tuple[int, list[bytes]]]:
        for partition, table in reader.read_tables():
            yield partition, rows_of(table)

    def _in_order(self, reader: CoscoReader) -> Iterator[tuple[int, list[bytes]]]:
        for batch in reader.read_batches(max_bytes=1 << 14, order="mapper"):
            yield reader.partition, rows_of(batch)

    def _by_batches(self, reader: CoscoReader) -> Iterator[tuple[int, list[bytes]]]:
        slow = self.world.rng.random() < 0.2
        for batch in reader.read_batches(max_bytes=1 << 14):
            yield reader.partition, rows_of(batch)
            if slow:
                threads.sleep(self.world.rng.random() * 0.3)

    def _by_rows(self, reader: CoscoReader) -> Iterator[tuple[int, list[bytes]]]:
        slow = self.world.rng.random() < 0.2
        for number, row in enumerate(reader):
            yield reader.partition, [row]
            if slow and number % 50 == 0:
                threads.sleep(self.world.rng.random() * 0.3)

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
