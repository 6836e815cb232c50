"""What a seed stands for: the cluster, the work, and how much goes wrong."""

from __future__ import annotations

import random
from dataclasses import dataclass
from enum import Enum

from .network import Weather


class Ending(Enum):
    """How the exchange comes to its end."""

    ALL_READ = 1  # everything was read, then its driver closes it
    EARLY = 2  # its driver closes it amid the work
    ABANDONED = 3  # its driver dies amid the work, and nobody takes its place


@dataclass(frozen=True, slots=True)
class Scenario:
    """One run, but for the moments at which things happen. Times are seconds."""

    # the cluster
    daemons: int
    hosts: int
    shared_store: bool
    memory_bytes: int
    chunk_bytes: int
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
    return Scenario(
        daemons=daemons,
        hosts=hosts,
        shared_store=rng.random() < 0.6,
        memory_bytes=600 << 10 if tight else rng.choice((600, 900, 1300, 2300)) << 10,
        chunk_bytes=512 << 10 if tight else rng.choice((8, 16, 64, 512)) << 10,
        inflight_bytes=rng.choice((100, 400, 4000)) << 10,
        heartbeat_s=rng.choice((0.5, 1.0, 1.0)),
        daemon_lease_s=rng.choice((2.0, 2.0, 4.0)),
        store_slowness=rng.choice((1.0, 1.0, 1.0, 20.0, 100.0)),
        partitions=rng.randint(1, 6),
        mappers=rng.randint(3, 5) if tight else rng.randint(1, 5),
        readers=rng.choice((0, 0, 1, 2, 4)),
        **({"rows": 200, "row_bytes": 2000} if tight else _rows(rng)),
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
    )


def _rows(rng: random.Random) -> dict[str, int]:
    """How many rows, and how long."""
    kind = rng.random()
    if kind < 0.4:
        return {"rows": rng.choice((1, 10, 50, 100, 200)), "row_bytes": rng.choice((30, 60, 100))}
    if kind < 0.95:
        rows = rng.choice((1, 10, 50, 100, 200))
        return {"rows": rows, "row_bytes": rng.choice((300, 1000, 2000))}
    return {"rows": rng.choice((3, 10)), "row_bytes": 40_000}  # of more than a buffer, some
