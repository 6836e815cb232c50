"""One simulated world: a seed, a clock, processes, a network, disks, and what went wrong."""

from __future__ import annotations

import gc
import random
import traceback
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import greenlet  # type: ignore[import-untyped]

from .loop import PROCESS, Process, RunState, VirtualLoop
from .network import Network

if TYPE_CHECKING:
    from cosco.metadata.state.state import MetadataState
    from cosco.protocol.push.credits import FrameBudgets
    from cosco.shuffle_service.state.core import DaemonCore

    from .database import TableStore
    from .storage import Disk

#: Lines of the trace that are kept.
TRACE_LINES = 400


class OnPurpose(Exception):
    """What is raised to see that it is borne."""


class World:
    """Everything there is in one run. `rng` decides whatever is not decided by the programs."""

    def __init__(self, seed: int, *, echo: bool = False) -> None:
        self.seed = seed
        self.rng = random.Random(seed)
        self.direct_rng: random.Random | None = None  # of what clients read from disks
        self.entries_rng: random.Random | None = None  # of what servers take at a time
        self.loop = VirtualLoop()  # type: ignore[abstract]  # asyncio asks for no more of it
        self.hub = greenlet.getcurrent()
        self.network = Network(self)
        self.disks: dict[str, Disk] = {}
        #: What was put first, by path: its CRC.
        self.given: dict[str, int] = {}
        #: Of daemons with two tiers, by process: the disks of both.
        self.flashes: dict[Process, Disk] = {}
        self.slow_disks: dict[Process, Disk] = {}
        self.is_flash_durable = False  # by their options
        self.has_tenants = False  # see `patches.TENANTS`
        self.lost_stores: set[str] = set()  # ids of those whose disk is no more
        self.forgotten_stores: set[str] = set()  # of these, what an operator has said so of
        self.database: TableStore
        self.processes: list[Process] = []
        #: What daemons hold, by process.
        self.cores: dict[Process, DaemonCore] = {}
        self.budgets: dict[Process, FrameBudgets] = {}
        #: Marks that daemons have met: (incarnation, assignment, mapper, attempt).
        self.marks: set[tuple[int, tuple[int, int, int], int, int]] = set()
        #: What metadata services know, by process.
        self.states: dict[Process, MetadataState] = {}
        self.known_losses = 0  # that metadata services heard of
        #: When the build of a range that was the present one ended last: (exchange, range) → then.
        self.ended_builds: dict[tuple[int, int], float] = {}
        self.old_build_grace_s = 0.0
        self.forged: tuple[int, int] | None = None  # mapper and attempt somebody committed for
        self.is_forgery_known = False  # the service has answered what the attempt itself said
        #: How often things happened that a run may be about.
        self.counts: Counter[str] = Counter()
        #: By daemon, how often in a row it had not noticed a write that hangs.
        self.unnoticed: dict[str, int] = {}
        self.problems: list[str] = []
        self.lines: list[str] = []
        self.is_over = False
        self._numbers = 0
        self._echo = echo

    def next_number(self) -> int:
        """A number that nobody else has: what is hashed by it has one order in every run."""
        self._numbers += 1
        return self._numbers

    def end(self) -> None:
        """Take the world down. What its programs do as they go is seen by nobody."""
        self.is_over = True
        for process in self.processes:
            process.state = RunState.DEAD
        for process in self.processes:
            for kept in process.kept:
                if isinstance(kept, greenlet.greenlet) and kept:
                    kept.throw(greenlet.GreenletExit)
            process.kept.clear()
            process.on_death.clear()
        self.processes.clear()
        self.cores.clear()
        self.budgets.clear()
        self.states.clear()
        self.flashes.clear()
        self.slow_disks.clear()
        self.network.servers.clear()
        self.loop.clear()
        gc.collect()  # now, rather than in the middle of the next world

    def trace(self, text: str) -> None:
        """Note what happened, for people, and for the comparison of two runs."""
        if self.is_over:
            return
        process = PROCESS.get()
        line = f"{self.loop.now - 1000:9.4f} {process.name if process else '-':<14} {text}"
        self.lines.append(line)
        if self._echo:
            print(line, flush=True)

    def count(self, what: str) -> None:
        """Note that something happened, for the coverage of many runs."""
        if not self.is_over:
            self.counts[what] += 1

    def problem(self, text: str) -> None:
        """Something that must never be."""
        if not self.is_over:
            self.trace(f"PROBLEM {text}")
            self.problems.append(text)

    def problem_of_exception(self, what: str, error: BaseException) -> None:
        lines = "".join(traceback.format_exception(error))
        self.problem(f"{what}: {error!r}\n{lines}")

    def spawn(self, name: str, host: str, main: Callable[[], Any]) -> Process:
        """Start a process whose first callback is `main`."""
        process = Process(name, host)
        self.processes.append(process)
        self.loop.call_soon(main, context=process.context.copy())
        return process

    def kill(self, process: Process) -> None:
        if process.state is not RunState.DEAD:
            self.trace(f"kill {process}")
            self.loop.kill(process)

    def later(self, seconds: float, callback: Callable[..., object], *args: Any) -> None:
        """Have the world itself do something."""
        self.network.at(self.loop.now + seconds, callback, *args)


_current: list[World] = []


def current() -> World:
    """The world that is being run: a program under test knows of none."""
    return _current[-1]


def enter(world: World) -> None:
    _current.append(world)


def leave() -> None:
    _current.clear()


def is_active() -> bool:
    return bool(_current)
