"""Runs one seed from its first event to its last, and says what was wrong."""

from __future__ import annotations

import hashlib
import random
import time
from collections import Counter
from dataclasses import dataclass

from . import audit, patches
from . import world as worlds
from .clients import Clients
from .database import TableStore
from .engine import Engine
from .faults import Nemesis
from .group_engine import GroupEngine
from .loop import RunState
from .programs import Daemon, MetadataService
from .scenario import Scenario, draw
from .world import World

#: The time between two looks at what the daemons hold.
AUDIT_S = 0.5
#: A run that is not over so long after its last fault never will be.
RECOVERY_S = 400.0
#: And from the close of its exchange on, until nothing is left of it anywhere.
CLEANING_S = 120.0
#: And what is left of old builds after their grace.
OLD_BUILDS_S = 60.0
#: A daemon with the address of another one has ended by then.
TWINS_S = 60.0
#: Messages that were repeated may come until then.
REPEATED_S = 10.0
MAX_STEPS = 2_000_000
TAIL_LINES = 60


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a seed. `digest` is of its trace: two runs of one seed have the same."""

    seed: int
    problems: tuple[str, ...]
    tail: tuple[str, ...]
    scenario: str
    digest: str
    virtual_s: float
    wall_s: float
    steps: int
    reads: int
    losses: int
    counts: Counter[str]

    @property
    def replay(self) -> str:
        return f"python -m tests.sim {self.seed} --trace"

    def report(self) -> str:
        """For people: what, when, and how to see it again."""
        return "\n".join(
            (
                f"seed {self.seed} failed after {self.virtual_s:.1f} s of its time:",
                *self.problems[:5],
                f"scenario: {self.scenario}",
                "the end of its trace:",
                *self.tail,
                f"replay it with: {self.replay}",
            )
        )


def run_seed(seed: int, *, echo: bool = False) -> Result:
    """Run one world to its end."""
    patches.install()
    random.seed(seed)  # the pauses between the clients' tries
    started = time.perf_counter()
    scenario = draw(seed)
    world = World(seed, echo=echo)
    worlds.enter(world)
    world.database = TableStore()
    engine: Clients
    if scenario.group is None:
        engine = Engine(world, scenario)
    else:
        engine = GroupEngine(world, scenario, scenario.group)
    try:
        _live(world, scenario, engine)
    except RuntimeError as error:
        world.problem(str(error))
    result = Result(
        seed=seed,
        problems=tuple(world.problems),
        tail=tuple(world.lines[-TAIL_LINES:]),
        scenario=scenario.describe(),
        digest=_digest(world),
        virtual_s=world.loop.now - 1000,
        wall_s=time.perf_counter() - started,
        steps=world.loop.steps,
        reads=engine.reads,
        losses=engine.losses,
        counts=world.counts,
    )
    del engine
    world.end()
    worlds.leave()
    return result


def _live(world: World, scenario: Scenario, engine: Clients) -> None:
    world.old_build_grace_s = scenario.old_build_grace_s
    metadata = MetadataService(world, scenario)
    daemons = [Daemon(world, scenario, i) for i in range(scenario.daemons)]
    loop = world.loop
    for daemon in daemons:
        daemon.neighbours = daemons
    metadata.start()
    for daemon in daemons:
        daemon.start()
    if not loop.run(lambda: all(d.is_ready for d in daemons), loop.now + 60, MAX_STEPS):
        world.problem("the daemons do not start")
        return
    engine.start()
    nemesis = Nemesis(world, scenario, metadata, daemons, engine)
    nemesis.start()

    def failed() -> bool:
        return bool(world.problems)

    def look() -> None:
        audit.audit(world, daemons)
        world.later(AUDIT_S, look)

    look()
    end = loop.now + scenario.faults_s + RECOVERY_S
    if not loop.run(lambda: engine.is_done() or failed(), end, MAX_STEPS):
        world.problem(
            f"no end {RECOVERY_S:g} s after the last fault: {engine.unread()}, and there are "
            f"{[p.name for p in world.processes if p.state is not RunState.DEAD]}"
        )
    if failed():
        return
    _check_losses(world, scenario, engine, nemesis)
    if failed():
        return
    if not engine.is_ending:
        _read_again(world, daemons, engine)
        _check_old_builds(world, scenario)
    _check_twins(world, nemesis)
    engine.finish()

    def clean() -> bool:
        return engine.is_closed and not audit.left(world, daemons)

    if not loop.run(lambda: clean() or failed(), loop.now + CLEANING_S, MAX_STEPS):
        world.problem(
            f"{CLEANING_S:g} s after the close of the exchange (closed: {engine.is_closed}) there "
            f"is left: {audit.left(world, daemons)}"
        )


def _check_losses(world: World, scenario: Scenario, engine: Clients, nemesis: Nemesis) -> None:
    """What the copies bear is no loss, and one that must be calls every mapper back once."""
    if scenario.lost_host and (twice := engine.called_twice()):
        world.problem(f"one host was lost, and {twice} were called back more than once")
    elif engine.losses and not nemesis.is_too_much:
        world.problem(f"{engine.losses} losses, and never did more than one thing fail at a time")


def _check_twins(world: World, nemesis: Nemesis) -> None:
    """Who keeps an address was found out long ago, and the other daemon was told."""
    loop, twins = world.loop, nemesis.twins
    if not loop.run(lambda: not any(t.runs for t in twins), loop.now + TWINS_S, MAX_STEPS):
        world.problem("a daemon goes on that advertises the address of another one")


def _read_again(world: World, daemons: list[Daemon], engine: Clients) -> None:
    """Read everything a second time, when nothing has failed since the first: late copies of
    old messages change nothing, and every range has its copies again."""
    losses = world.known_losses
    world.loop.run(lambda: bool(world.problems), world.loop.now + REPEATED_S, MAX_STEPS)
    end = world.loop.now + CLEANING_S
    if not world.loop.run(lambda: audit.is_overcome(world, daemons), end, MAX_STEPS):
        world.problem(f"{CLEANING_S:g} s after everything was read it is not as it was before")
    engine.read_again()
    end = world.loop.now + RECOVERY_S
    if not world.loop.run(lambda: engine.is_done() or bool(world.problems), end, MAX_STEPS):
        world.problem(f"no end of the second reading: {engine.unread()}")
    elif world.known_losses > losses and not engine.damages:  # which may be found late
        world.problem("rows were lost after everything was read, and nothing failed")


def _check_old_builds(world: World, scenario: Scenario) -> None:
    """While the exchange is open, no file is left of builds that others have made up for."""
    if not scenario.drops_old_builds or world.problems:
        return
    end = world.loop.now + scenario.old_build_grace_s + OLD_BUILDS_S

    def is_over() -> bool:
        return bool(world.problems) or not audit.old_files(world)

    if not world.loop.run(is_over, end, MAX_STEPS):
        world.problem(f"of old builds there is left: {audit.old_files(world)}")


def _digest(world: World) -> str:
    """Of everything that was drawn and noted."""
    state = f"{world.rng.random()} {world.loop.now} {world.loop.steps}"
    return hashlib.sha256("\n".join((*world.lines, state)).encode()).hexdigest()[:16]
