"""What a seed stands for: the cluster, the work, and how much goes wrong."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

from .network import Weather

#: The share of seeds that are of exchange groups.
GROUPS = 0.15
#: The share of the others in which somebody commits in the name of a mapper's attempt.
FORGED = 0.03
#: The share of the others whose rows are columns.
COLUMNS = 0.15
#: The share of all in which an operator drains a daemon, and takes that back.
DRAINED = 0.04
#: The share of all in which a host dies for good with its own disk, and nothing else fails.
LOST_HOSTS = 0.04
#: `GroupWork.orphaned` is one of these.
ORPHANED = (0.0, 0.3)
#: How long old builds are kept, in seconds: in the last case for longer than any run takes.
OLD_BUILD_GRACES_S = (0.0, 0.0, 3.0, 900.0)

#: Partitions of an exchange, at most.
MAX_PARTITIONS = 8
#: The share of all whose daemons have flash before their stores.
TIERS = 0.15

#: The share of exchanges whose readers read from stores themselves.
DIRECT = 0.35
#: The share of all whose daemons ask for capabilities, by keys that follow one another.
KEYED = 0.4
#: Of these, what a tenant may have of the memory of a daemon, and of its streams: in the last case
#: less than a frame, and one stream, which writers take turns with.
TENANT_SHARES = (1.0, 0.5, 0.2, 0.002)
TENANT_STREAMS = (0, 0, 1)
#: The share of exchanges that an application owns, beside another one.
APPLICATIONS = 0.2


class Ending(Enum):
    """How the exchange comes to its end."""

    ALL_READ = 1  # everything was read, then its driver closes it
    EARLY = 2  # its driver closes it amid the work
    ABANDONED = 3  # its driver dies amid the work, and nobody takes its place


@dataclass(frozen=True, slots=True)
class GroupWork:
    """An engine of micro-batches. Shares are of 1."""

    size: int  # exchanges that the group is made with
    extensions: tuple[int, ...]  # exchanges that are added, each amid a failure if there is one
    window: int  # micro-batches that are under way at once
    workers: int
    prescheduled: bool  # readers of all exchanges there are begin before any mapper
    early: float  # of other readers that begin before their mappers
    late: float  # of readers that begin long after their mappers
    absent: float  # of readers that do not come before all faults are over
    speculation: float  # of mappers that have a second attempt
    flushed: float  # of mappers whose commit is waited for
    dying: float  # of mappers whose worker is killed right after they have ended
    orphaned: float  # of those that ended after a range of theirs had moved: likewise
    retiring: float  # of tasks after which their worker ends in good order
    released: float  # of exchanges that are released once they were read
    early_released: float  # of exchanges that are released at any moment
    boards_bytes: int  # what boards and waiting readers of a daemon may take; 0: as it is


@dataclass(frozen=True, slots=True)
class Tiers:
    """How daemons use their flash."""

    age_s: float
    flash_bytes: int  # 0: as much as there is
    flash_is_durable: bool
    segment_bytes: int


@dataclass(frozen=True, slots=True)
class Scenario:
    """One run, but for the moments at which things happen. Times are seconds."""

    # the cluster
    daemons: int
    hosts: int
    shared_store: bool
    memory_bytes: int
    segment_bytes: int
    inflight_bytes: int
    heartbeat_s: float
    daemon_lease_s: float
    store_slowness: float  # 1: a few milliseconds an operation
    # the work
    partitions: int
    mappers: int
    readers: int
    rows: int  # of a mapper, in the mean
    row_bytes: int  # in the mean
    buffer_bytes: int
    codec: str
    replicas: int
    min_replicas: int
    deterministic: bool
    callback: bool
    work_s: float  # until the last mapper begins
    mapper_s: float  # the longest time that a mapper takes without faults
    # what goes wrong
    one_at_a_time: bool  # never two failures of daemons before the first one is overcome
    faults: int
    faults_s: float  # until the last fault begins
    damage: bool  # stored bytes are changed, files are deleted, disks are lost
    callbacks_fail: bool  # the driver's callback raises now and then
    weather: Weather
    ending: Ending
    old_build_grace_s: float  # how long old builds are kept once the next one is complete
    forged: bool = False  # one commit is made twice, and says two things
    drained: bool = False  # an operator drains a daemon, and takes that back
    lost_host: bool = False  # one host goes with its disk, and nothing else goes wrong
    keyed: bool = False  # daemons ask for capabilities
    tenant_share: float = 1.0  # of the memory of a daemon, where it is keyed
    tenant_streams: int = 0  # that a tenant may have there; 0: any number
    columns: bool = False  # rows are of Arrow, see `columns.py`
    direct: bool = False  # readers read from stores, see `client_files.py`
    application: bool = False  # one owns the exchange, and a source that its re-runs read
    tiers: Tiers | None = None  # None: one store a daemon
    group: GroupWork | None = None  # None: one exchange of its own

    @property
    def drops_old_builds(self) -> bool:
        """Whether old builds go while the run lasts."""
        return self.old_build_grace_s < max(OLD_BUILD_GRACES_S)

    def describe(self) -> str:
        return ", ".join(f"{name}={getattr(self, name)}" for name in self.__slots__)


def draw(seed: int) -> Scenario:
    """The scenario of a seed."""
    rng = random.Random(f"scenario {seed}")
    one_at_a_time = rng.random() < 0.4
    daemons = rng.choice((3, 3, 4)) if one_at_a_time else rng.choice((2, 2, 3, 3, 4))
    hosts = daemons if one_at_a_time or rng.random() < 0.7 else max(2, daemons - 1)
    rough = rng.random() < 0.5
    faults_s = rng.choice((5.0, 15.0, 30.0)) if one_at_a_time else rng.choice((2.0, 6.0, 12.0))
    tight = rng.random() < 0.08  # pools too small for what comes
    replicas = 2 if one_at_a_time or rng.random() < 0.75 else 1
    # What is written in the beginning is in memory when daemons fail one after the other.
    busy_s = faults_s * rng.choice((0.05, 1.0)) * rng.random()
    scenario = Scenario(
        daemons=daemons,
        hosts=hosts,
        shared_store=rng.random() < 0.6,
        memory_bytes=600 << 10 if tight else rng.choice((600, 900, 1300, 2300)) << 10,
        segment_bytes=512 << 10 if tight else rng.choice((8, 16, 64, 512)) << 10,
        inflight_bytes=rng.choice((100, 400, 4000)) << 10,
        heartbeat_s=rng.choice((0.5, 1.0, 1.0)),
        daemon_lease_s=rng.choice((2.0, 2.0, 4.0)),
        store_slowness=rng.choice((1.0, 1.0, 1.0, 20.0, 100.0)),
        partitions=rng.randint(1, 6),
        mappers=rng.randint(3, 5) if tight else rng.randint(1, 5),
        readers=rng.choice((0, 0, 1, 2, 4)),
        **_rows(rng, tight),
        buffer_bytes=64 << 10,
        codec="lz4" if rng.random() < 0.2 else "none",
        replicas=replicas,
        min_replicas=replicas if rng.random() < 0.15 else 1,
        deterministic=rng.random() < 0.85,
        callback=rng.random() < 0.85,
        work_s=busy_s,
        mapper_s=busy_s * rng.random(),
        one_at_a_time=one_at_a_time,
        faults=rng.choice((3, 6, 10, 15)),
        faults_s=faults_s,
        damage=not one_at_a_time and rng.random() < 0.4,
        callbacks_fail=rng.random() < 0.15,
        weather=Weather(
            slow=rng.choice((0.0, 0.02, 0.1)),
            lost=rng.choice((0.0, 0.02, 0.1)),
            repeated=rng.choice((0.0, 0.05, 0.2)),
            broken=rng.choice((0.0, 0.005, 0.03)),
        )
        if rough
        else Weather(),
        ending=rng.choices(list(Ending), (17, 2, 1))[0],
        old_build_grace_s=random.Random(f"old builds {seed}").choice(OLD_BUILD_GRACES_S),
    )
    drained = random.Random(f"drained {seed}").random() < DRAINED
    keyed = random.Random(f"keys {seed}").random() < KEYED
    tiers = _tiers(random.Random(f"tiers {seed}"))
    scenario = replace(scenario, drained=drained, keyed=keyed, tiers=tiers)
    if keyed:
        tenants = random.Random(f"tenants {seed}")
        share, streams = tenants.choice(TENANT_SHARES), tenants.choice(TENANT_STREAMS)
        scenario = replace(scenario, tenant_share=share, tenant_streams=streams)
    if scenario.tiers is not None and not tight:  # so that segments are many
        segment_bytes = min(scenario.segment_bytes, scenario.tiers.segment_bytes)
        scenario = replace(scenario, segment_bytes=segment_bytes)
    kind = random.Random(f"kind {seed}")
    direct = random.Random(f"direct {seed}").random() < DIRECT
    lost_host = random.Random(f"lost host {seed}")
    is_lost = lost_host.random() < LOST_HOSTS
    if kind.random() < GROUPS:
        orphaned = random.Random(f"orphaned {seed}").choice(ORPHANED)
        scenario = _of_group(kind, scenario, orphaned)
        return _with_lost_host(lost_host, scenario) if is_lost else scenario
    if is_lost:
        scenario = _with_lost_host(lost_host, scenario)
        return replace(scenario, columns=kind.random() < COLUMNS, direct=direct)
    is_forged = random.Random(f"forged {seed}").random() < FORGED
    owned = random.Random(f"application {seed}").random() < APPLICATIONS
    if owned and not one_at_a_time:  # so that one death is a loss of both
        scenario = replace(scenario, callback=True, replicas=1, min_replicas=1)
    return replace(
        scenario,
        forged=is_forged and not owned,
        columns=kind.random() < COLUMNS,
        application=owned,
        direct=direct,
    )


def seeds_of_groups(first: int) -> Iterator[int]:
    """The seeds from `first` on whose scenario is one of a group."""
    for seed in itertools.count(first):
        if random.Random(f"kind {seed}").random() < GROUPS:
            yield seed


def seeds_of_applications(first: int) -> Iterator[int]:
    """The seeds from `first` on in which an application owns the exchange."""
    return (seed for seed in itertools.count(first) if draw(seed).application)


def seeds_of_tiers(first: int) -> Iterator[int]:
    """The seeds from `first` on in which daemons have flash."""
    return (s for s in itertools.count(first) if _tiers(random.Random(f"tiers {s}")) is not None)


def _tiers(rng: random.Random) -> Tiers | None:
    if rng.random() >= TIERS:
        return None
    return Tiers(
        age_s=rng.choice((0.0, 1.0, 10.0, 300.0)),
        flash_bytes=rng.choice((0, 0, 60 << 10, 400 << 10)),
        flash_is_durable=rng.random() < 0.3,
        segment_bytes=rng.choice((8, 16, 16, 512)) << 10,
    )


def _of_group(rng: random.Random, scenario: Scenario, orphaned: float) -> Scenario:
    """The same cluster with a group: more exchanges, and less in each."""
    faults_s = min(scenario.faults_s, rng.choice((4.0, 12.0)))
    large = rng.random() < 0.1  # more than fits in memory
    return replace(
        scenario,
        partitions=rng.randint(1, 4),
        mappers=rng.randint(1, 4),
        rows=200 if large else rng.choice((1, 3, 10, 30)),
        row_bytes=2000 if large else rng.choice((30, 100, 1000)),
        deterministic=True,
        faults=rng.choice((2, 4, 8)),
        faults_s=faults_s,
        work_s=faults_s * rng.choice((0.05, 1.0)) * rng.random(),
        mapper_s=rng.choice((0.0, 0.05, 0.5)),
        ending=rng.choices(list(Ending), (15, 3, 2))[0],
        group=GroupWork(
            size=rng.choice((1, 2, 3, 4)),
            extensions=rng.choice(((), (), (1,), (2,), (1, 2))),
            window=rng.choice((1, 2, 8)),
            workers=rng.randint(2, 4),
            prescheduled=rng.random() < 0.4,
            early=rng.choice((0.0, 0.5, 1.0)),
            late=rng.choice((0.0, 0.3)),
            absent=rng.choice((0.0, 0.0, 0.3)),
            speculation=rng.choice((0.0, 0.1, 0.5)),
            flushed=rng.choice((0.0, 0.3)),
            dying=rng.choice((0.0, 0.05, 0.2)),
            orphaned=orphaned,
            retiring=rng.choice((0.0, 0.05)),
            released=rng.choice((0.0, 0.7, 1.0)),
            early_released=rng.choice((0.0, 0.0, 0.15)),
            boards_bytes=rng.choice((0, 0, 0, 0, 2000, 5000)),
        ),
    )


def _with_lost_host(rng: random.Random, scenario: Scenario) -> Scenario:
    """The same work where nothing goes wrong but that."""
    group = scenario.group
    if group is not None:
        group = replace(group, speculation=0.0, dying=0.0, orphaned=0.0)
        group = replace(group, retiring=0.0, early_released=0.0)
    copies = rng.choice((1, 1, 2))
    return replace(
        scenario,
        shared_store=False,
        partitions=rng.randint(2, 8),
        replicas=copies,
        min_replicas=1,
        store_slowness=1.0,
        callback=True,
        callbacks_fail=False,
        one_at_a_time=False,
        faults=0,
        damage=False,
        weather=Weather(),
        ending=Ending.ALL_READ,
        drained=False,
        lost_host=True,
        group=group,
    )


def _rows(rng: random.Random, tight: bool) -> dict[str, Any]:
    """How many rows, and how long."""
    if tight:
        return {"rows": 200, "row_bytes": 2000}
    kind = rng.random()
    if kind < 0.4:
        return {"rows": rng.choice((1, 10, 50, 100, 200)), "row_bytes": rng.choice((30, 60, 100))}
    if kind < 0.95:
        rows = rng.choice((1, 10, 50, 100, 200))
        return {"rows": rows, "row_bytes": rng.choice((300, 1000, 2000))}
    return {"rows": rng.choice((3, 10)), "row_bytes": 40_000}  # of more than a buffer, some
