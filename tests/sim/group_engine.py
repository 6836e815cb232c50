"""An engine of micro-batches over an exchange group: a driver, workers that live on, and tasks.

Each exchange is one micro-batch: its mappers write, its readers may wait before they begin, and
it is released when it was read. A worker is a process with a thread for each of its tasks; what
its death takes with it is run again elsewhere.
"""

from __future__ import annotations

import pickle
import random
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import cosco
from cosco import (
    CommitTimeout,
    CoscoError,
    CoscoExchangeGroup,
    CoscoReader,
    ExchangeClosed,
    GroupHandle,
)

from . import threads
from .clients import SERVICE_TIMEOUT_S, Clients, Place
from .loop import PROCESS, Process
from .loop import RunState as ProcessState
from .model import Run, RunState
from .programs import METADATA_ADDRESS
from .scenario import GroupWork, Scenario
from .world import World

LEASE_S = 60.0
#: Of the reason for which mappers are called back that have lost nothing but their commit.
_UNCOMMITTED = "before they committed"
#: In peace: of readers that ask the metadata service, and of released exchanges that are read.
_ORDINARY = 0.3
_STALE = 0.3
#: A reader that waits for longer in peace waits for a commit that nobody knows to be missing.
_PATIENCE_S = 40.0
#: A released exchange is gone from everywhere, in peace.
_RELEASED_S = 8.0


@dataclass(eq=False)
class _Task:
    """What a worker is to do; `ended` is called once, when it has or when it will not."""

    name: str
    work: Callable[[GroupHandle], None]
    ended: Callable[[], None]


@dataclass(eq=False)
class _Worker:
    """A process that does tasks, None being the last one."""

    process: Process
    inbox: threads.SimpleQueue = field(default_factory=threads.SimpleQueue)
    tasks: dict[_Task, None] = field(default_factory=dict)
    is_retired: bool = False


class GroupEngine(Clients):
    """One group, from its creation until it is closed."""

    kind = "clients of groups"
    pauses = 4
    retry_s = (0.1, 0.4)

    def __init__(self, world: World, scenario: Scenario, work: GroupWork) -> None:
        super().__init__(world, scenario)
        self.work = work
        self.size = 0  # exchanges that tasks may use
        self.handle = b""
        self.released: dict[int, float] = {}  # when
        self._numbers: dict[int, int] = {}  # of exchanges, by index
        self.workers: list[_Worker] = []
        self._commands: threads.SimpleQueue = threads.SimpleQueue()
        self._extensions = list(work.extensions)
        self._extending = 0
        self._tries = 0  # at making a group
        self._names: Counter[str] = Counter()
        self._begun = 0  # micro-batches
        self._awaited: dict[int, set[int]] = {}  # of those under way: partitions not yet read
        self._prescheduled: set[Place] = set()
        self._done_by: dict[Place, list[Process]] = {}  # whose runs of a mapper have ended well
        self._tasks: dict[_Task, None] = {}  # that have not ended
        self._is_finishing = False
        self._orphans = random.Random(f"orphans {world.seed}")

    # --- driver ----------------------------------------------------------------------------

    def start(self) -> None:
        if not self.is_ending and not self.is_created:
            self._tries += 1
            self.driver = self._spawn("driver", self._drive, lambda: None)

    def driver_died(self) -> None:
        """Nobody can take the place of a group's driver."""
        self.abandon()

    def _drive(self) -> None:
        scenario = self.scenario
        try:
            with CoscoExchangeGroup(
                f"group{self._tries}",
                scenario.partitions,
                self.work.size,
                scenario.mappers,
                self._recompute if scenario.callback else None,
                **self._options(LEASE_S),
            ) as group:
                self.is_created = True
                self._made(group)
                self.world.later(0, self._begin_work)
                while (command := self._commands.get()) is not None:
                    command(group)
            self.is_closed = True
            self.world.trace("group closed")
        except CoscoError as error:
            self.world.trace(f"driver: {type(error).__name__}: {error}")
            unmet = isinstance(error, cosco.ServiceUnavailable) and not self.is_created
            # An earlier call of the same try may have come late.
            if self.is_created or not (unmet or isinstance(error, cosco.CapacityExceeded)):
                self.world.problem_of_exception("the driver failed", error)
            self.world.later(1.0, self.start)

    def _made(self, group: CoscoExchangeGroup) -> None:
        handle = group.handle()
        for index in range(self.size, group.size):
            self._numbers[index] = handle.info(index).number
        self.handle = pickle.dumps(handle)
        self.size = group.size

    def _recompute(self, index: int, mappers: list[int], reason: str) -> None:
        self.world.trace(f"recompute {mappers} of {index}: {reason}")
        self._lost(reason)
        self.world.count("callbacks of groups")
        if _UNCOMMITTED not in reason:
            self.called.update((index, mapper) for mapper in mappers)
        self._run_again(((index, mapper) for mapper in mappers), 0.5)

    def _lost(self, reason: str) -> None:
        if _UNCOMMITTED in reason:
            self.world.count("mappers that died before they committed")
        else:
            super()._lost(reason)

    def extend(self) -> None:
        if not self._extensions or not self.is_created or self.is_ending:
            return
        n = self._extensions.pop(0)
        self._extending += 1
        self.world.trace(f"extend by {n}")
        self.world.count("extensions" if self.is_peaceful else "extensions amid faults")
        self._commands.put(lambda group: self._extend(group, n))

    def _extend(self, group: CoscoExchangeGroup, n: int) -> None:
        def work() -> None:
            try:
                group.extend(n)
            except cosco.CapacityExceeded:
                self.world.later(1.0, self._commands.put, lambda group: self._extend(group, n))
                return
            except CoscoError as error:
                closed = isinstance(error, ExchangeClosed | cosco.ClientClosed)
                if not (closed and self.is_ending):
                    self.world.problem_of_exception("extend failed", error)
            else:
                first = self.size
                self._made(group)
                self.world.later(0, self._extended, first)
            self._extending -= 1

        threads.Thread(target=work, name="extend").start()

    def _extended(self, first: int) -> None:
        self._preschedule()
        self._advance()
        if self.is_peaceful:
            self._read_all(first)

    def release(self, index: int) -> None:
        """Have an exchange ended."""
        if index in self.released or self.is_ending:
            return
        self.world.trace(f"release {index}")
        self.world.count("releases amid work" if self._is_under_way(index) else "releases")
        self.released[index] = self.world.loop.now
        self._awaited.pop(index, None)
        self._commands.put(lambda group: group.release(index))
        self._advance()

    def _is_under_way(self, index: int) -> bool:
        return any(task.name.startswith((f"map{index}.", f"read{index}.")) for task in self._tasks)

    # --- micro-batches ---------------------------------------------------------------------

    def _begin_work(self) -> None:
        for _ in range(self.work.workers):
            self._start_worker()
        for _ in self._extensions:
            # If no failure comes to do it amid.
            self.world.later(self.scenario.faults_s * self.world.rng.random(), self.extend)
        self._preschedule()
        self._advance()
        if self.is_peaceful:
            self.be_peaceful()

    def _preschedule(self) -> None:
        if not self.work.prescheduled or self.is_ending:
            return
        for index in range(self._begun, self.size):
            for partition in range(self.scenario.partitions):
                place = index, partition
                if place not in self._prescheduled and index not in self.released:
                    self._prescheduled.add(place)
                    if self.world.rng.random() >= self.work.absent:
                        self._read_soon(place, 0.0)

    def _advance(self) -> None:
        """Begin what may begin."""
        while (
            self._begun < self.size
            and not self.is_ending
            and (len(self._awaited) < self.work.window or self.is_peaceful)
        ):
            self._begun += 1
            self._begin(self._begun - 1)

    def _begin(self, index: int) -> None:
        rng, work = self.world.rng, self.work
        if index in self.released:
            return
        wait_s = self.scenario.work_s / 4 * rng.random()
        self._awaited[index] = set()
        for partition in range(self.scenario.partitions):
            kind = rng.random()
            if (index, partition) not in self._prescheduled:
                if kind < work.absent:
                    continue
                late_s = 3 * self.scenario.mapper_s + 2.0 * rng.random()
                early_s = 0.0 if rng.random() < work.early else wait_s
                self._read_soon(
                    (index, partition), wait_s + late_s if rng.random() < work.late else early_s
                )
            self._awaited[index].add(partition)
        for mapper in range(self.scenario.mappers):
            self.wanted[index, mapper] = 0
            when = wait_s + 0.02 * rng.random()
            self.world.later(when, self.want, (index, mapper))
            if rng.random() < work.speculation:
                when += rng.choice((0.0, 0.05, 2.0)) * rng.random()
                self.world.later(when, self.start_run, (index, mapper))
        if rng.random() < work.early_released:
            self.world.later(2 * wait_s * rng.random(), self.release, index)
        if not self._awaited[index]:
            self._was_read(index)

    def _was_read(self, index: int) -> None:
        """By all readers that there are to be."""
        if self._awaited.pop(index, None) is not None and not self.is_ending:
            if self.world.rng.random() < self.work.released:
                self.world.later(self.world.rng.random(), self.release, index)
            self._advance()

    def speculate(self) -> None:
        if self._begun:
            rng = self.world.rng
            place = rng.randrange(self._begun), rng.randrange(self.scenario.mappers)
            self.world.trace(f"speculate {place}")
            self.start_run(place)

    # --- workers ---------------------------------------------------------------------------

    def processes(self) -> list[Process]:
        return [worker.process for worker in self.workers]

    def _start_worker(self) -> None:
        if self._is_finishing or self.is_closed:
            return
        self._names["worker"] += 1

        def work() -> None:
            handle: GroupHandle = pickle.loads(self.handle)
            while (task := worker.inbox.get()) is not None:
                if handle.size < self.size:
                    handle = pickle.loads(self.handle)
                threads.Thread(target=do, args=(task, handle), name=task.name).start()

        def do(task: _Task, handle: GroupHandle) -> None:
            task.work(handle)
            self.world.later(0, self._task_over, worker, task)

        process = self._spawn(
            f"worker{self._names['worker']}", work, lambda: self._worker_died(worker)
        )
        worker = _Worker(process)
        self.workers.append(worker)

    def _worker_died(self, worker: _Worker) -> None:
        if worker in self.workers:
            self.workers.remove(worker)
        for task in list(worker.tasks):
            self._task_over(worker, task)
        if not worker.is_retired:
            self.world.later(0.5 * self.world.rng.random(), self._start_worker)

    def _give(self, task: _Task) -> None:
        """Have some worker do it."""
        if task in self._tasks and self.is_ending:
            self._tasks.pop(task)
            return
        self._tasks[task] = None
        able = [
            w for w in self.workers if not w.is_retired and w.process.state is not ProcessState.DEAD
        ]
        if not able:
            self.world.later(0.1, self._give, task)
            return
        worker = self.world.rng.choice(able)
        worker.tasks[task] = None
        worker.inbox.put(task)

    def _task_over(self, worker: _Worker, task: _Task) -> None:
        if worker.tasks.pop(task, task) is not None:
            return
        del self._tasks[task]
        task.ended()
        if self.world.rng.random() < self.work.retiring and not self.is_peaceful:
            self.world.count("workers that ended in good order")
            self._retire(worker)
            self._start_worker()

    def _retire(self, worker: _Worker) -> None:
        """Have it do the tasks it has, and end."""
        if not worker.is_retired:
            worker.is_retired = True
            worker.inbox.put(None)

    # --- mappers ---------------------------------------------------------------------------

    def is_over(self, index: int) -> bool:
        return index in self.released

    def start_run(self, place: Place) -> None:
        if self.is_ending:
            return
        index, mapper = place
        run = self._begin_run(place)
        self._give(
            _Task(
                f"map{index}.{mapper}.{run.number}",
                lambda handle: self._map(handle, place, run),
                lambda: self._run_ended(place, run),
            )
        )

    def _map(self, handle: GroupHandle, place: Place, run: Run) -> None:
        rng, scenario = self.world.rng, self.scenario
        pause_s = rng.random() * scenario.mapper_s / self.pauses
        process = PROCESS.get()
        assert process is not None
        try:
            with handle.writer(*place, buffer_bytes=scenario.buffer_bytes) as writer:
                self._write_rows(writer.collect, run, pause_s or None)
            if rng.random() < self.work.flushed:
                handle.flush()
            run.state = RunState.WON
            self._done_by.setdefault(place, []).append(process)
            self.world.trace(f"run {run.number} of mapper {place} is done")
            if rng.random() < self.work.dying and not self.is_peaceful:
                self.world.count("workers killed after a close")
                self.world.later(0.15 * rng.random(), self.world.kill, process)
            elif self._has_moved(place[0]) and self._orphans.random() < self.work.orphaned:
                self.world.count("workers killed after a close to moved ranges")
                self.world.later(0.1 * self._orphans.random(), self.world.kill, process)
        except CoscoError as error:
            run.interrupt()
            self._explain(f"run {run.number} of mapper {place}", place[0], error)

    def _has_moved(self, index: int) -> bool:
        """Whether a range of an exchange has other daemons than at first, amid faults."""
        exchange = self._exchange(index)
        if exchange is None or self.is_peaceful:
            return False
        return any(exchange.current(one.index).epoch > 1 for one in exchange.ranges)

    # --- readers ---------------------------------------------------------------------------

    def _read_soon(self, place: Place, seconds: float) -> None:
        self.world.later(seconds, self._start_reader, place)

    def _start_reader(self, place: Place) -> None:
        if self.is_ending:
            return
        done: list[bool] = []
        ordinary = self.is_peaceful and self._is_committed(place[0])
        ordinary = ordinary and self.world.rng.random() < _ORDINARY
        self._names["read"] += 1
        self._give(
            _Task(
                f"read{place[0]}.{place[1]}.{self._names['read']}",
                lambda handle: done.append(self._read(handle, place, ordinary=ordinary)),
                lambda: self._reader_ended(place, done),
            )
        )

    def _reader_ended(self, place: Place, done: list[bool]) -> None:
        index, partition = place
        if any(done):
            if index in self._awaited:
                self._awaited[index].discard(partition)
                if not self._awaited[index]:
                    self._was_read(index)
        elif index not in self.released:
            self._read_soon(place, 0.3 + self.world.rng.random())

    def _read(self, handle: GroupHandle, place: Place, *, ordinary: bool) -> bool:
        """Read a partition whole; False: try again."""
        index, partition = place
        peaceful = self.is_peaceful
        slow = self.world.rng.random() < 0.1
        whole = self.world.rng.random() < 0.3
        hurried = self.world.rng.random() < 0.2
        timeout_s = _PATIENCE_S if peaceful else 5.0 if hurried else None
        try:
            with self._reader(handle, place, timeout_s, ordinary=ordinary) as reader:
                if slow:
                    threads.sleep(self.world.rng.random() * 2.0)
                table = reader.read_table() if whole else None
                rows = list(reader) if table is None else table.column("row").to_pylist()
        except CommitTimeout as error:
            self.world.trace(f"reader of {place}: {error}")
            if peaceful:
                self._find_forgotten(place, error.mappers)
            return False
        except CoscoError as error:
            self._explain(f"reader of {place}", index, error)
            return self._read_failed(place, error, peaceful=peaceful)
        mappers = self.scenario.mappers
        named = range(index * mappers, (index + 1) * mappers)
        self._has_read(f"partition {place}", named, partition, rows)
        self.world.trace(f"partition {place}: {len(rows)} rows")
        if peaceful:
            self.verified.add(place)
        return True

    def _find_forgotten(self, place: Place, mappers: Iterable[int]) -> None:
        """Mappers have ended and were not committed, as their processes died. That is to be found
        as long as any daemon has their marks; those that had them may be gone, or had no room."""
        index, partition = place
        forgotten = [mapper for mapper in mappers if not self.wanted[index, mapper]]
        self.world.count("commits that readers waited for in vain")
        marked = self._marked(index, partition)
        if kept := [m for m in forgotten if m in marked and not self._may_commit((index, m))]:
            self.world.problem(f"nobody found that {kept} of {index} are not committed")
        self.repair((index, mapper) for mapper in forgotten)

    def _may_commit(self, place: Place) -> bool:
        """Whether a process lives that has done a mapper: again just now, perhaps."""
        done_by = self._done_by.get(place, ())
        return any(process.state is not ProcessState.DEAD for process in done_by)

    def _marked(self, index: int, partition: int) -> set[int]:
        """The mappers of which some daemon has a mark that has no commit, for all that a reader
        of a partition can tell. Those that have committed before run again for its range: their
        marks are of then, but for those in its present build."""
        exchange = self._exchange(index)
        if exchange is None:
            return set()
        own = exchange.builds.index_of(partition)
        marked: set[int] = set()
        for core in (core for process, core in self.world.cores.items() if process.runs):
            for held in core._assignments.values():
                if held.key.number == exchange.number and held.board is not None:
                    is_present = held.key.range_index == own and held.build == exchange.build(own)
                    known = () if is_present else exchange.attempts.committed_mappers
                    marked.update(mapper for mapper in held.board.done() if mapper not in known)
        return marked

    def _reader(
        self, handle: GroupHandle, place: Place, timeout_s: float | None, *, ordinary: bool
    ) -> CoscoReader:
        if not ordinary:
            return handle.reader(*place, timeout_s=timeout_s)
        return CoscoReader(
            f"{handle.group_id}/{place[0]}",
            range(handle.mappers),
            place[1],
            timeout_s=timeout_s,
            metadata=METADATA_ADDRESS,
            service_timeout_s=SERVICE_TIMEOUT_S,
        )

    def _explain(self, what: str, index: int, error: CoscoError) -> None:
        """Whether an error may happen here."""
        self._check_error(
            what,
            error,
            {
                ExchangeClosed: self.is_ending or self.is_over(index),
                cosco.ServiceUnavailable: not self.is_peaceful,  # it may be the first who asks
            },
        )

    # --- ending ----------------------------------------------------------------------------

    def be_peaceful(self) -> None:
        self.is_peaceful = True
        if not self.is_created:
            return
        for _ in list(self._extensions):
            self.extend()
        self._advance()
        self._read_all()

    def is_done(self) -> bool:
        if not self.is_peaceful or self._tasks:
            return False
        if self.is_ending:
            return True
        is_begun = self.is_created and not self._extending and self._begun == self.size
        return is_begun and not self._unread()

    def _unread(self) -> list[Place]:
        return [
            (index, partition)
            for index in range(self.size)
            if index not in self.released
            for partition in range(self.scenario.partitions)
            if (index, partition) not in self.verified
        ]

    def unread(self) -> str:
        return (
            f"of {self.size} exchanges (released: {sorted(self.released)}) {self._unread()} are "
            f"not read, these tasks go on: {[task.name for task in self._tasks]}"
        )

    def read_again(self) -> None:
        self._check_commits()
        self._check_releases()
        self.verified.clear()
        self._read_all()

    def _read_all(self, first: int = 0) -> None:
        """In peace, of all exchanges from `first` on."""
        rng = self.world.rng
        for index in range(first, self.size):
            for partition in range(self.scenario.partitions):
                if index not in self.released or rng.random() < _STALE:
                    self._start_reader((index, partition))
            if index in self.released and rng.random() < _STALE:
                self.start_run((index, rng.randrange(self.scenario.mappers)))

    def _exchanges(self) -> Iterable[int]:
        return range(self.size)

    def _name_of(self, index: int) -> str:
        return f"group{self._tries}/{index}"

    def _check_commits(self) -> None:
        """Long after all has ended, everything is committed whose process did not die."""
        for place in self._done_by:
            committed = self._committed(place[0])
            if place[0] in self.released or committed is None or place[1] in committed:
                continue
            if self._may_commit(place):
                self.world.problem(f"mapper {place} is done and was never committed")

    def _check_releases(self) -> None:
        """Long after all has ended, nobody holds anything of a released exchange."""
        states = [state for process, state in self.world.states.items() if process.runs]
        cores = [core for process, core in self.world.cores.items() if process.runs]
        held_up_until = self.world.network.held_up_until
        for index, when in self.released.items():
            # A release waits for the answer to the one before it, which a cut may hold up.
            if self.world.loop.now - max(when, held_up_until) < _RELEASED_S:
                continue
            name = f"group{self._tries}/{index}"
            if any(state._exchanges.opened(name) is not None for state in states):
                self.world.problem(f"exchange {index} was released and is open")
            if any(self._numbers[index] in core.exchanges() for core in cores):
                self.world.problem(f"exchange {index} was released and a daemon holds it")

    @property
    def is_ending(self) -> bool:
        return self._is_finishing or self.is_abandoned

    def finish(self) -> None:
        if not self._is_finishing:
            self.world.trace("close the group")
            self.world.count("groups closed amid work" if self._tasks else "groups closed")
            self._is_finishing = True
            self._commands.put(None)
        for worker in self.workers:
            self._retire(worker)
