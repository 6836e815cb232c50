"""What engines of both kinds have: a driver, processes that may die, runs that are repeated until
one succeeds, readers whose rows are checked, and an end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import cosco
from cosco import CoscoError, DataLost
from cosco.metadata.state.exchange.exchange_state import ExchangeState
from cosco.metadata.state.exchange.losses import MAX_BUILDS

from . import threads
from .loop import Process
from .model import Model, Run, RunState
from .programs import METADATA_ADDRESS
from .scenario import Ending, Scenario
from .world import OnPurpose, World

#: Longer than any outage here, the recovery from it included.
SERVICE_TIMEOUT_S = 120.0
ABANDONED_LEASE_S = 20.0
CLIENT_HOSTS = 3

#: (index of the exchange, partition or mapper); without a group the index is 0.
Place = tuple[int, int]


class CallbackFailed(OnPurpose):
    """What the driver's callback raises on purpose."""


class Clients:
    """The clients of one world, as `Nemesis` and the runner see them."""

    #: What they are called where it is counted what they were told.
    kind = "clients"
    #: A mapper rests this often while it works.
    pauses = 10
    #: Seconds until a run that failed is repeated: the least, and what is added at random.
    retry_s = (0.2, 1.0)

    def __init__(self, world: World, scenario: Scenario) -> None:
        self.world = world
        self.scenario = scenario
        self.model = Model(world.seed, scenario)
        self.driver: Process | None = None
        self.is_created = False
        self.is_closed = False
        self.is_abandoned = False  # its driver is gone for good
        self.is_peaceful = False  # no new fault comes
        self.losses = 0  # that the driver, or a reader, was told of
        self.damages = 0  # to what was stored
        #: Exchanges that all mappers had committed to when a host was lost, and who was called
        #: back since.
        self.settled: set[int] = set()
        self.called: Counter[Place] = Counter()
        self.reads = 0
        self.verified: set[Place] = set()  # partitions read whole in peace
        self.wanted: Counter[Place] = Counter()  # runs of mappers that must yet succeed

    def start(self) -> None:
        """Have a driver begin."""
        raise NotImplementedError

    def processes(self) -> list[Process]:
        """Those that map and read, of which one may be killed or paused."""
        raise NotImplementedError

    def speculate(self) -> None:
        """Run some mapper once more."""
        raise NotImplementedError

    def read_something(self) -> None:
        """Have a reader begin, if they do not come by themselves."""

    def extend(self) -> None:
        """Have more exchanges made, if there are to be any."""

    def driver_died(self) -> None:
        """To be called when it was killed."""
        raise NotImplementedError

    def be_peaceful(self) -> None:
        """No fault comes any more: everything must be read right from here on."""
        raise NotImplementedError

    def read_again(self) -> None:
        """Read everything once more."""
        raise NotImplementedError

    def is_done(self) -> bool:
        """Whether everything was read whole since peace, or nobody may go on."""
        raise NotImplementedError

    def unread(self) -> str:
        """What is not read yet, for people."""
        raise NotImplementedError

    def finish(self) -> None:
        """Have the driver close everything."""
        raise NotImplementedError

    @property
    def is_ending(self) -> bool:
        """Whether all was closed, or will be, as nobody wants it."""
        raise NotImplementedError

    def abandon(self) -> None:
        """No other driver comes."""
        self.world.trace("the exchange is abandoned")
        self.world.count("exchanges abandoned")
        self.is_abandoned = self.is_closed = True

    # --- driver ----------------------------------------------------------------------------

    def _options(self, lease_s: float) -> dict[str, Any]:
        """What an exchange and a group are both made with."""
        scenario = self.scenario
        return {
            "replicas": scenario.replicas,
            "min_replicas": scenario.min_replicas,
            "codec": scenario.codec,
            "lease_s": ABANDONED_LEASE_S if scenario.ending is Ending.ABANDONED else lease_s,
            "metadata": METADATA_ADDRESS,
            "service_timeout_s": SERVICE_TIMEOUT_S,
        }

    def _run_again(self, places: Iterable[Place], rest_s: float) -> None:
        """Do what a driver's callback is there for, unless it is to fail."""
        if self.scenario.callbacks_fail and self.world.rng.random() < 0.5:
            raise CallbackFailed("on purpose")
        threads.sleep(self.world.rng.random() * rest_s)
        for place in places:
            self.want(place)

    # --- mappers ---------------------------------------------------------------------------

    def start_run(self, place: Place) -> None:
        """Begin a run of a mapper, wanted or speculative."""
        raise NotImplementedError

    def is_over(self, index: int) -> bool:
        """Whether nobody wants the rows of an exchange any more."""
        raise NotImplementedError

    def want(self, place: Place) -> None:
        """Run a mapper until it succeeds once more."""
        self.wanted[place] += 1
        self.start_run(place)

    def repair(self, places: Iterable[Place]) -> None:
        """Run those mappers again that nobody else does."""
        for place in places:
            if not self.wanted[place]:
                self.want(place)

    def _begin_run(self, place: Place) -> Run:
        index, mapper = place
        return self.model.begin_run(index * self.scenario.mappers + mapper)

    def _write_rows(
        self, collect: Callable[[int, bytes], None], run: Run, pause_s: float | None
    ) -> int:
        """Collect all rows of a run, which may close then, with `pauses` rests, or none.

        Returns: how many rows there are.
        """
        rows = self.model.rows(run)
        pace = len(rows) // self.pauses + 1
        for i, (partition, row) in enumerate(rows):
            collect(partition, row)
            if i % pace == 0 and pause_s is not None:
                threads.sleep(pause_s)
        run.state = RunState.CLOSING
        return len(rows)

    def _run_ended(self, place: Place, run: Run) -> None:
        """It, or its process, is gone, come what may."""
        if run.state in (RunState.WON, RunState.NOT_WON):
            self.wanted[place] = 0
            return
        run.interrupt()
        if self.wanted[place] and not self.is_over(place[0]):
            least_s, random_s = self.retry_s
            wait_s = least_s + random_s * self.world.rng.random()
            self.world.later(wait_s, self.start_run, place)

    # --- readers ---------------------------------------------------------------------------

    def _has_read(
        self, what: str, mappers: Iterable[int], partition: int, rows: list[bytes]
    ) -> None:
        """Check what a reader has yielded to its end."""
        if wrong := self.model.check_read(mappers, partition, rows):
            self.world.problem(f"{what} read wrong: {wrong}")
        self.reads += 1

    def _read_failed(self, place: Place, error: CoscoError, *, peaceful: bool) -> bool:
        """Do what an engine does then; whether nobody need read it again."""
        if isinstance(error, DataLost) and not error.retriable:
            self.repair((place[0], mapper) for mapper in error.mappers)
        if self._is_of_forgery(error):  # there is no end to it
            self.verified.add(place)
            return True
        if isinstance(error, cosco.DataCorrupted) and peaceful and self.damages > MAX_BUILDS:
            # Rows of one range went missing from whole files each time: that is the end of it.
            self.verified.add(place)
            return True
        return False

    # --- errors ----------------------------------------------------------------------------

    def _is_of_forgery(self, error: CoscoError) -> bool:
        """Whether it is what clients are to be told when a commit was forged."""
        if self.world.forged is None:
            return False
        return isinstance(error, cosco.DataCorrupted | cosco.RecomputeMismatch)

    def host_lost(self) -> None:
        """To be called when a host goes for good."""
        self.called.clear()
        self.settled = {index for index in self._exchanges() if self._is_committed(index)}

    def is_committed(self) -> bool:
        """Whether all mappers have committed to all exchanges there are."""
        return all(self._is_committed(index) for index in self._exchanges())

    def called_twice(self) -> list[Place]:
        """The mappers that one lost host has made run more than once."""
        if self.scenario.replicas > 1:  # readers find out by range whether a copy is left
            return []
        return [place for place, n in self.called.items() if place[0] in self.settled and n > 1]

    def _exchanges(self) -> Iterable[int]:
        """The indexes of all exchanges there are."""
        raise NotImplementedError

    def _name_of(self, index: int) -> str:
        """The id of an exchange."""
        raise NotImplementedError

    def _committed(self, index: int) -> set[int] | None:
        """The mappers of an exchange that the metadata service has; None if it is not there."""
        exchange = self._exchange(index)
        return None if exchange is None else set(exchange.attempts.committed_mappers)

    def _exchange(self, index: int) -> ExchangeState | None:
        """What the metadata service knows of an exchange; None if it is not there."""
        states = [state for process, state in self.world.states.items() if process.runs]
        return states[-1]._exchanges.opened(self._name_of(index)) if states else None

    def _is_committed(self, index: int) -> bool:
        committed = self._committed(index)
        return committed is not None and len(committed) == self.scenario.mappers

    def _lost(self, reason: str) -> None:
        """Count what the driver or a reader is told of a loss."""
        self.losses += 1

    def _check_error(
        self, what: str, error: CoscoError, allowed: dict[type[CoscoError], bool]
    ) -> None:
        """Note an error that a client was told; it is a problem unless it may happen here.

        allowed: beside those that may happen to all engines alike.
        """
        self.world.trace(f"{what}: {type(error).__name__}: {error}")
        self.world.count(f"{self.kind} were told {type(error).__name__}")
        if isinstance(error, DataLost):
            self._lost(str(error))
        always: dict[type[CoscoError], bool] = {
            DataLost: True,
            cosco.CapacityExceeded: True,
            cosco.DataCorrupted: self.scenario.damage or self._is_of_forgery(error),
            cosco.RecomputeMismatch: self._is_of_forgery(error),
        }
        if not any(isinstance(error, kind) and may for kind, may in (always | allowed).items()):
            self.world.problem_of_exception(f"{what} failed", error)

    # --- processes -------------------------------------------------------------------------

    def _spawn(self, name: str, work: Callable[[], object], ended: Callable[[], None]) -> Process:
        """A client process with one thread; `ended` is called once when it is gone."""
        host = f"10.0.2.{self.world.rng.randrange(CLIENT_HOSTS) + 1}"
        process: Process

        def main() -> None:
            def run() -> None:
                try:
                    work()
                    threads.join_all(process)
                finally:
                    self.world.later(0, self.world.loop.kill, process)

            threads.Thread(target=run, name="main").start()

        process = self.world.spawn(name, host, main)
        process.on_death[lambda: self.world.later(0, ended)] = None
        return process
