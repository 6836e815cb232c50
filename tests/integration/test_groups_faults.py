"""What happens to the exchanges of a group when a process of it dies: every row is there once."""

from __future__ import annotations

import os
import pickle
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any

import pytest
from support.exchanges import Pairs, by_partition, numbered, serving, until
from support.groups import (
    InBackground,
    committed,
    flush,
    make,
    never,
    open_readers,
    put,
    take,
    take_all,
)
from support.processes import python

from cosco import CoscoExchangeGroup, DataLost, GroupHandle, LocalCluster
from cosco.local.cluster import ServiceProcess
from cosco.protocol.records import DaemonRef

MAPPERS = 3
PARTITIONS = 3
RETURN_S = 30.0


@pytest.fixture(scope="module")
def started() -> Iterator[LocalCluster]:
    """One store for three daemons, and a short lease: who is silent is soon given up."""
    options = ["--daemon-lease-s", "2"]
    with LocalCluster(3, memory="16MiB", metadata_options=options) as cluster:
        yield cluster
        flush(cluster.metadata)


@pytest.fixture(scope="module")
def started_volatile() -> Iterator[LocalCluster]:
    """Two daemons with memory alone."""
    with LocalCluster(
        2,
        memory="16MiB",
        daemon_options=["--store", "memory://"],
        metadata_options=["--adoption-grace-s", "0.2"],
    ) as cluster:
        yield cluster
        flush(cluster.metadata)


def pairs_of(mapper: int) -> Pairs:
    return numbered(mapper, 600, partitions=PARTITIONS)


EXPECTED = by_partition([pair for m in range(MAPPERS) for pair in pairs_of(m)], PARTITIONS)


class Calls:
    """A callback that has mappers run again, and what it was called with."""

    def __init__(self) -> None:
        self.handle: GroupHandle | None = None
        self._lock = threading.Lock()
        self._calls: list[tuple[int, tuple[int, ...]]] = []

    def __call__(self, index: int, mappers: list[int], reason: str) -> None:
        assert reason
        with self._lock:
            self._calls.append((index, tuple(mappers)))
        assert self.handle is not None
        for mapper in mappers:
            put(self.handle, index, mapper, pairs_of(mapper))

    def of(self, index: int) -> set[int]:
        """Mappers that were called back."""
        with self._lock:
            return {mapper for i, mappers in self._calls if i == index for mapper in mappers}


def group_with(
    name: str, metadata: str, calls: Calls | None = None, **options: int
) -> CoscoExchangeGroup:
    group = make(
        name, metadata, partitions=PARTITIONS, mappers=MAPPERS, callback=calls or never, **options
    )
    if calls is not None:
        calls.handle = group.handle()
    return group


def fill(handle: GroupHandle, i: int, mappers: range = range(MAPPERS)) -> None:
    for mapper in mappers:
        put(handle, i, mapper, pairs_of(mapper))


def primary(cluster: LocalCluster, handle: GroupHandle, i: int) -> ServiceProcess:
    """The daemon of partition 0."""
    address = handle.info(i).assignments[0].primary.address
    return next(daemon for daemon in cluster.daemons if daemon.address == address)


def primary_of(handle: GroupHandle) -> DaemonRef:
    return handle.info(0).assignments[0].primary


def make_beside(
    handle: GroupHandle, name: str, metadata: str, **options: Any
) -> CoscoExchangeGroup:
    """A group whose partition 0 is with the same daemon as that of another one."""
    with ExitStack() as elsewhere:  # daemons that have them are given fewer others
        for attempt in range(8):
            group = make(f"{name}-{attempt}", metadata, **options)
            if primary_of(group.handle()) == primary_of(handle):
                return group
            elsewhere.enter_context(group)
    raise AssertionError("no group was placed there")


def half_written(handle: GroupHandle, i: int, mapper: int) -> Callable[[], None]:
    """A writer that has pushed half of its rows; call what is returned to have it go on."""
    writer = handle.writer(i, mapper, buffer_bytes=64 << 10)
    pairs = pairs_of(mapper)
    for partition, row in pairs[: len(pairs) // 2]:
        writer.collect(partition, row)

    def end() -> None:
        with writer:
            for partition, row in pairs[len(pairs) // 2 :]:
                writer.collect(partition, row)

    return end


# A mapper in a process of its own, that is killed by itself at a moment of its choice.
DYING = """
    import os, pickle, signal, sys

    print("started", flush=True)
    handle = pickle.loads(bytes.fromhex(sys.argv[1]))
    pairs = pickle.loads(bytes.fromhex(sys.stdin.readline()))
    i, mapper, when = int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
    writer = handle.writer(i, mapper, buffer_bytes=64 << 10)
    for partition, row in pairs:
        writer.collect(partition, row)
    if when == "closed":
        writer.close()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def die_writing(handle: GroupHandle, i: int, mapper: int, when: str) -> None:
    given = pickle.dumps(handle).hex()
    with python(DYING, given, str(i), str(mapper), when) as process:
        assert process.stdin is not None
        process.stdin.write(pickle.dumps(pairs_of(mapper)).hex() + "\n")
        process.stdin.flush()
        assert process.wait(30) == -signal.SIGKILL


def test_a_daemon_dies_and_nothing_is_lost(cluster: LocalCluster, metadata: str, name: str) -> None:
    """Every exchange is at another point then; only a commit that died with its process has a
    mapper run again, and only for who has to go by commits."""
    calls = Calls()
    with group_with(name, metadata, calls, size=6) as group:
        handle: GroupHandle = pickle.loads(pickle.dumps(group.handle()))
        fill(handle, 0)
        fill(handle, 1, range(1))
        end = half_written(handle, 1, 1)
        fill(handle, 3, range(2))
        die_writing(handle, 3, 2, "closed")
        fill(handle, 4, range(2))
        die_writing(handle, 4, 2, "pushing")
        # Marks are at the daemons although the commit is not.
        with handle.reader(3, 1, timeout_s=0) as early:
            assert Counter(early) == EXPECTED[1]
        assert committed(handle, 3) < MAPPERS
        readers = [open_readers(handle, i, range(PARTITIONS)) for i in (1, 2, 4)]
        waiting = [[InBackground(one.read_table) for one in some] for some in readers]
        dying = primary(cluster, handle, 0)
        dying.kill()
        end()
        put(handle, 1, 2, pairs_of(2))
        fill(handle, 2)
        put(handle, 4, 2, pairs_of(2))
        for some in waiting:
            found = [Counter(one.result().column(0).to_pylist()) for one in some]
            assert found == EXPECTED
        for reader in [one for some in readers for one in some]:
            reader.close()
        assert [calls.of(i) for i in range(6)] == [set()] * 6
        for i in (0, 3):
            assert take_all(handle, i) == EXPECTED
        assert [calls.of(i) for i in range(6)] == [set(), set(), set(), {2}, set(), set()]
        dying.restart()
        fill(handle, 5)
        for i in range(6):
            assert take_all(handle, i) == EXPECTED
        handle.flush()
        assert [committed(handle, i) for i in range(6)] == [MAPPERS] * 6


def test_daemons_are_drained_one_after_another(
    cluster: LocalCluster, metadata: str, name: str
) -> None:
    with group_with(name, metadata, size=3) as group:
        handle = group.handle()
        fill(handle, 0)
        fill(handle, 1, range(2))
        readers = open_readers(handle, 1, range(PARTITIONS))
        waiting = [InBackground(reader.read_table) for reader in readers]
        primary(cluster, handle, 0).restart()
        assert not any(one.is_done() for one in waiting)
        put(handle, 1, 2, pairs_of(2))
        found = [Counter(one.result().column(0).to_pylist()) for one in waiting]
        assert found == EXPECTED
        for reader in readers:
            reader.close()
        group.extend(1)
        fill(handle, 2)
        fill(group.handle(), 3)
        for i in range(4):
            assert take_all(group.handle(), i) == EXPECTED


def test_rows_without_another_copy_are_written_again(
    started_volatile: LocalCluster, name: str
) -> None:
    """And those with one are not."""
    cluster, metadata = started_volatile, started_volatile.metadata
    calls = Calls()
    with (
        group_with(name, metadata, calls, size=4, replicas=1) as group,
        group_with(f"safe-{name}", metadata, size=3, min_replicas=1) as safe,
        make_beside(
            group.handle(),
            f"mute-{name}",
            metadata,
            partitions=1,
            mappers=2,
            replicas=1,
            callback=None,
        ) as mute,
    ):
        handle, safe_handle, mute_handle = group.handle(), safe.handle(), mute.handle()
        fill(handle, 0)
        fill(handle, 1, range(1))
        end = half_written(handle, 1, 1)
        fill(handle, 3)
        assert take_all(handle, 3) == EXPECTED
        fill(safe_handle, 0)
        fill(safe_handle, 1, range(2))
        handle.flush()
        for mapper in range(2):
            put(mute_handle, 0, mapper, [(0, b"%d" % mapper)])
        readers = open_readers(handle, 1, range(PARTITIONS))
        waiting = [InBackground(reader.read_table) for reader in readers]
        dying = primary(cluster, mute_handle, 0)
        dying.kill()
        end()
        put(handle, 1, 2, pairs_of(2))
        put(safe_handle, 1, 2, pairs_of(2))
        found = [Counter(one.result().column(0).to_pylist()) for one in waiting]
        assert found == EXPECTED
        for reader in readers:
            reader.close()
        for i in (0, 3):
            assert take_all(handle, i) == EXPECTED
            assert calls.of(i) == set(range(MAPPERS))
        assert 0 in calls.of(1)
        for i in range(2):
            assert take_all(safe_handle, i) == EXPECTED
        with pytest.raises(DataLost) as caught:
            take(mute_handle, 0, 0)
        assert sorted(caught.value.mappers) == [0, 1]
        for mapper in range(2):  # and so they run again
            put(mute_handle, 0, mapper, [(0, b"%d" % mapper)])
        mute_handle.flush()
        assert take(mute_handle, 0, 0) == Counter([b"0", b"1"])
        dying.restart()
        until(lambda: len(serving(metadata)) == 2, RETURN_S, "the return of the daemon")
        fill(handle, 2)
        fill(safe_handle, 2)
        for i in range(4):
            assert take_all(handle, i) == EXPECTED
        for i in range(3):
            assert take_all(safe_handle, i) == EXPECTED
        assert calls.of(2) == set()


def test_a_silent_daemon_is_given_up(cluster: LocalCluster, metadata: str, name: str) -> None:
    with group_with(name, metadata, size=2) as group:
        handle = group.handle()
        fill(handle, 0)
        fill(handle, 1, range(2))
        handle.flush()
        readers = open_readers(handle, 1, range(PARTITIONS))
        waiting = [InBackground(reader.read_table) for reader in readers]
        silent = primary(cluster, handle, 1)
        os.kill(silent.pid, signal.SIGSTOP)
        try:
            late = InBackground(partial(take_all, handle, 0))
            put(handle, 1, 2, pairs_of(2))
            found = [Counter(one.result().column(0).to_pylist()) for one in waiting]
            assert found == EXPECTED
            assert late.result() == EXPECTED
        finally:
            os.kill(silent.pid, signal.SIGCONT)
        for reader in readers:
            reader.close()
        assert take_all(handle, 1) == EXPECTED
