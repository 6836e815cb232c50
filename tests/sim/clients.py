"""What engines of both kinds have: a driver, processes that may die, and an end."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from . import threads
from .loop import Process
from .model import Model
from .scenario import Scenario

if TYPE_CHECKING:
    from .world import World

#: Longer than any outage here, the recovery from it included.
SERVICE_TIMEOUT_S = 120.0
CLIENT_HOSTS = 3


class Clients:
    """The clients of one world, as `Nemesis` and the runner see them."""

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
        self.reads = 0

    def start(self) -> None:
        """Have a driver begin."""
        raise NotImplementedError

    def processes(self) -> list[Process]:
        """Those that map and read, of which one may be killed or paused."""
        raise NotImplementedError

    def speculate(self) -> None:
        """Run some mapper once more."""
        raise NotImplementedError

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
