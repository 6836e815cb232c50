"""Losses that meet something else: another loss, a restart, a driver that is gone."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.exchanges import (
    Pairs,
    by_partition,
    describe,
    fetch,
    fetch_all,
    numbered,
    send,
    until,
)
from support.processes import Services, python

from cosco import (
    CommitTimeout,
    CoscoExchange,
    CoscoReader,
    CoscoWriter,
    DataLost,
    GenerationChanged,
)
from cosco.observe import fetch_status, read_metrics

BOUND_S = 20.0
MAPPERS = [1, 2]


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    with Services(tmp_path_factory.mktemp("losses")) as started:
        for _ in range(2):
            started.daemon("--segment-bytes", "64KiB", "--memory", "16MiB")
        yield started


def rows_of(mapper: int) -> Pairs:
    return numbered(mapper, 300)


def expected() -> Counter[bytes]:
    return Counter(row for mapper in MAPPERS for _, row in rows_of(mapper))


def segments_stored(services: Services) -> int:
    """How many segments daemons have stored, each counted once it is durable."""
    daemons = fetch_status(services.metadata).daemons
    counts = (read_metrics(one.metrics_address)["cosco_segments_stored_total"] for one in daemons)
    return int(sum(counts))


@dataclass
class Stored:
    """What was stored before a test, and the files that it has deleted since."""

    before: int = 0
    deleted: int = 0


STORED = Stored()


@pytest.fixture(autouse=True)
def count_stored(services: Services) -> None:
    STORED.before, STORED.deleted = segments_stored(services), 0


def delete_stored(services: Services, name: str) -> list[Path]:
    """Wait for files of the exchange, and delete them all.

    A file may be there before it is durable, and until then its rows are read from memory.
    """
    number = describe(name, services.metadata).number
    store = services.directory / "store"
    gone: list[Path] = []

    def are_durable() -> bool:
        gone[:] = [f for f in store.glob(f"*/{number}/*/*") if f.stat().st_size]
        durable = segments_stored(services) - STORED.before - STORED.deleted
        return 0 < len(gone) <= durable

    until(are_durable, BOUND_S, "storing")
    STORED.deleted += len(gone)
    for file in gone:
        file.unlink()
    return gone


def test_a_loss_during_the_rebuild(services: Services, name: str) -> None:
    """The same mappers are lost twice; the second loss is another one."""
    metadata = services.metadata
    calls: list[list[int]] = []

    def again(mappers: list[int], reason: str) -> None:
        calls.append(sorted(mappers))
        for mapper in mappers:
            send(name, mapper, rows_of(mapper), metadata)
            if len(calls) == 1:
                delete_stored(services, name)

    with CoscoExchange(name, 1, again, codec="none", metadata=metadata):
        for mapper in MAPPERS:
            send(name, mapper, rows_of(mapper), metadata)
        delete_stored(services, name)
        assert fetch(name, MAPPERS, 0, metadata) == expected()
    assert calls[0] == MAPPERS
    assert len(calls) == 2


def test_several_ranges_lost_at_once(services: Services, name: str) -> None:
    """Their readers report them side by side, as no store is gone; each is built again once."""
    metadata = services.metadata
    calls: list[list[int]] = []

    def pairs_of(mapper: int) -> Pairs:
        return numbered(mapper, 600, partitions=4)

    def again(mappers: list[int], reason: str) -> None:
        calls.append(sorted(mappers))
        for mapper in mappers:
            send(name, mapper, pairs_of(mapper), metadata)

    with CoscoExchange(name, 4, again, codec="none", metadata=metadata):
        for mapper in MAPPERS:
            send(name, mapper, pairs_of(mapper), metadata)
        ranges = len(describe(name, metadata).ranges)
        assert ranges > 1
        delete_stored(services, name)
        every = [pair for mapper in MAPPERS for pair in pairs_of(mapper)]
        assert fetch_all(name, MAPPERS, 4, metadata) == by_partition(every, 4)
    # A run for one range sends the others that are lost by then, so some need fewer runs.
    assert calls[0] == MAPPERS
    assert all(set(call) <= set(MAPPERS) for call in calls)
    assert len(calls) <= ranges


def test_a_dead_store_is_found_in_all_exchanges_and_every_mapper_called_back_once(
    tmp_path: Path, name: str
) -> None:
    """One reader of one partition of one exchange finds that a daemon, and all it had, is gone."""
    mappers, names = [1, 2, 3, 4, 5, 6], [f"{name}-{i}" for i in range(2)]
    calls: list[tuple[str, list[int]]] = []

    def pairs_of(mapper: int) -> Pairs:
        return numbered(mapper, 120, partitions=6)

    def arrange(exchange: str) -> Callable[[list[int], str], None]:
        def again(lost: list[int], reason: str) -> None:
            calls.append((exchange, sorted(lost)))
            for mapper in lost:
                send(exchange, mapper, pairs_of(mapper), started.metadata)

        return again

    with Services(tmp_path) as started, ExitStack() as stack:
        metadata = started.metadata
        for _ in range(3):
            started.daemon("--memory", "16MiB", store="memory://")
        for one in names:
            made = CoscoExchange(one, 6, arrange(one), replicas=1, metadata=metadata)
            stack.enter_context(made)
            for mapper in mappers:
                send(one, mapper, pairs_of(mapper), metadata)
        victim = started.daemons[0]
        lost = [
            next(r.first for r in info.ranges if r.index == a.range_index)
            for info in (describe(one, metadata) for one in names[:1])
            for a in info.assignments
            if a.primary.address == victim.address
        ]
        assert len(lost) > 1
        victim.kill()
        every = by_partition([pair for mapper in mappers for pair in pairs_of(mapper)], 6)
        assert fetch(names[0], mappers, lost[0], metadata) == every[lost[0]]
        until(lambda: len(calls) == 2, BOUND_S, "the other exchange's driver to be told")
        for one in names:
            assert fetch_all(one, mappers, 6, metadata) == every
    assert sorted(calls) == [(one, mappers) for one in names]


def test_the_service_restarts_during_the_callback(services: Services, name: str) -> None:
    metadata = services.metadata
    calls: list[list[int]] = []

    def again(mappers: list[int], reason: str) -> None:
        calls.append(sorted(mappers))
        send(name, mappers[0], rows_of(mappers[0]), metadata)
        services.metadata_service.kill()
        services.metadata_service.start()
        for mapper in mappers[1:]:
            send(name, mapper, rows_of(mapper), metadata)

    with CoscoExchange(name, 1, again, codec="none", metadata=metadata):
        for mapper in MAPPERS:
            send(name, mapper, rows_of(mapper), metadata)
        delete_stored(services, name)
        assert fetch(name, MAPPERS, 0, metadata) == expected()
        assert calls == [MAPPERS]  # told once, whatever the service forgot


def test_another_driver_takes_over(services: Services, name: str) -> None:
    """The one that made the exchange is gone when rows are lost; a reader waits for the next."""
    metadata = services.metadata
    driver = """
        import sys, cosco
        x = cosco.CoscoExchange(sys.argv[1], 1, print, codec="none", metadata=sys.argv[2])
        print("made", flush=True); sys.stdin.readline()
    """
    with python(driver, name, metadata):
        pass  # which kills it
    for mapper in MAPPERS:
        send(name, mapper, rows_of(mapper), metadata)
    delete_stored(services, name)
    with pytest.raises(CommitTimeout) as caught:
        fetch(name, MAPPERS, 0, metadata, timeout_s=1)
    assert caught.value.recompute
    assert sorted(caught.value.mappers) == MAPPERS
    calls: list[list[int]] = []

    def again(mappers: list[int], reason: str) -> None:
        calls.append(sorted(mappers))
        for mapper in mappers:
            send(name, mapper, rows_of(mapper), metadata)

    with ThreadPoolExecutor() as pool:
        reading = pool.submit(fetch, name, MAPPERS, 0, metadata)
        with CoscoExchange.attach(name, again, own=True, metadata=metadata):
            assert reading.result(BOUND_S) == expected()
            assert calls == [MAPPERS]


def test_a_reader_that_gave_rows_says_that_another_one_may_try(
    services: Services, name: str
) -> None:
    metadata = services.metadata
    rows = numbered(1, 8000, size=10_000)  # far more than a reader holds back

    def again(mappers: list[int], reason: str) -> None:
        assert mappers == [1]
        send(name, 1, rows, metadata, buffer_bytes=4 << 20)

    with CoscoExchange(name, 1, again, codec="none", metadata=metadata):
        send(name, 1, rows, metadata, buffer_bytes=4 << 20)
        with CoscoReader(name, [1], 0, timeout_s=BOUND_S, metadata=metadata) as reader:
            assert reader.next()
            delete_stored(services, name)
            with pytest.raises(DataLost) as caught:
                for _ in reader:
                    pass
            assert caught.value.retriable
        assert fetch(name, [1], 0, metadata) == Counter(row for _, row in rows)


def test_a_commit_that_names_a_lost_build_joins_the_loss(services: Services, name: str) -> None:
    """A writer that had sent its rows before they were lost learns it from nobody."""
    metadata = services.metadata
    calls: list[list[int]] = []
    told = threading.Event()

    def again(mappers: list[int], reason: str) -> None:
        calls.append(sorted(mappers))
        told.set()
        for mapper in mappers:
            send(name, mapper, rows_of(mapper), metadata)

    with CoscoExchange(name, 1, again, codec="none", metadata=metadata):
        send(name, 1, rows_of(1), metadata)  # first, so that what is deleted has some of it
        late = CoscoWriter(name, 2, buffer_bytes=64 << 10, metadata=metadata)
        for partition, row in rows_of(2):
            late.collect(partition, row)
        until(lambda: bool(late._pusher.routes.acknowledged()), BOUND_S, "rows that are taken")
        delete_stored(services, name)
        with ThreadPoolExecutor() as pool:
            reading = pool.submit(fetch, name, [1], 0, metadata)
            assert told.wait(BOUND_S)
            late.close()
            only_first = Counter(row for _, row in rows_of(1))
            assert reading.result(BOUND_S) == only_first
        assert fetch(name, MAPPERS, 0, metadata) == expected()
    assert sorted({mapper for call in calls for mapper in call}) == MAPPERS


def test_a_nondeterministic_exchange_starts_anew(services: Services, name: str) -> None:
    """No row of the generation that was lost mixes with those of the next one."""
    metadata = services.metadata
    calls: list[list[int]] = []
    reasons: list[str] = []

    def rows_in(generation: int, mapper: int) -> Pairs:
        return [(p, b"%d|" % generation + row) for p, row in numbered(mapper, 300, partitions=4)]

    def again(mappers: list[int], reason: str) -> None:
        calls.append(sorted(mappers))
        reasons.append(reason)
        for mapper in mappers:
            send(name, mapper, rows_in(2, mapper), metadata)

    exchange = CoscoExchange(name, 4, again, codec="none", deterministic=False, metadata=metadata)
    with exchange:
        for mapper in MAPPERS:
            send(name, mapper, rows_in(1, mapper), metadata)
        old_reader = CoscoReader(name, MAPPERS, 3, timeout_s=BOUND_S, metadata=metadata)
        old_writer = CoscoWriter(name, 3, metadata=metadata)
        old_writer.collect(0, b"1|old")
        lost = delete_stored(services, name)
        partition = int(lost[0].name.split("-")[0])
        with pytest.raises(GenerationChanged):
            fetch(name, MAPPERS, partition, metadata)
        for number in range(4):
            expected = Counter(
                row for mapper in MAPPERS for p, row in rows_in(2, mapper) if p == number
            )
            assert fetch(name, MAPPERS, number, metadata) == expected
        with old_reader, pytest.raises(GenerationChanged):
            old_reader.read_table()
        with pytest.raises(GenerationChanged):
            old_writer.close()
        with pytest.raises(GenerationChanged):
            CoscoReader(name, MAPPERS, 0, generation=1, metadata=metadata)
    assert calls == [[*MAPPERS, 3]]  # all that were opened, committed or not
    assert "again" in reasons[0] or "reducers" in reasons[0]
