"""What is left of builds that have ended goes while their exchange is open; readers notice at most
that they begin anew."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
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
from support.processes import Services

from cosco import CoscoExchange, CoscoReader, DataLost
from cosco.admin import undrain_daemon
from cosco.observe import drain_daemon

BOUND_S = 30.0
GRACE_S = 0.5
MAPPERS = [1, 2]
PARTITIONS = 6
#: What is deleted is found soon, and what is written is in the store soon.
QUICK = ("--memory", "32MiB", "--sweep-s", "0.2", "--store-idle-s", "0.1")


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    options = ["--old-build-grace-s", str(GRACE_S), "--adoption-grace-s", "0"]
    with Services(tmp_path, metadata_options=options) as started:
        yield started


def files_of(store: Path, number: int, range_index: int, epoch: int) -> list[Path]:
    return list(store.glob(f"*/{number}/{range_index}-{epoch}/*"))


def again_with(
    name: str, metadata: str, rows: Callable[[int], Pairs], calls: list[list[int]]
) -> Callable[[list[int], str], None]:
    """A callback that runs mappers at once, and notes which."""

    def again(mappers: list[int], reason: str) -> None:
        calls.append(sorted(mappers))
        for mapper in mappers:
            send(name, mapper, rows(mapper), metadata, buffer_bytes=1 << 20)

    return again


def test_the_files_of_a_lost_build_go_from_all_daemons(services: Services, name: str) -> None:
    """One mapper's rows are at a daemon that lives, the other's at one that dies with its store:
    the whole range is written anew, and then what the first one has of it goes, and nothing else;
    and what the dead one has goes when it is back."""
    metadata, calls = services.metadata, list[list[int]]()
    stores = [services.directory / f"store-{i}" for i in range(3)]
    for store in stores:
        services.daemon(*QUICK, store=f"file://{store}")
    first, victim, _ = services.daemons

    def rows(mapper: int) -> Pairs:
        return numbered(mapper, 300, partitions=PARTITIONS)

    def primaries() -> dict[int, tuple[int, str]]:
        assignments = describe(name, metadata).assignments
        return {a.range_index: (a.epoch, a.primary.address) for a in assignments}

    again = again_with(name, metadata, rows, calls)
    with CoscoExchange(name, PARTITIONS, again, replicas=1, metadata=metadata):
        number = describe(name, metadata).number
        send(name, 1, rows(1), metadata)
        were_there = [i for i, (_, at) in primaries().items() if at == first.address]
        drain_daemon(metadata, first.address)
        until(lambda: all(at != first.address for _, at in primaries().values()), BOUND_S, "a move")
        undrain_daemon(metadata, first.address)
        send(name, 2, rows(2), metadata)
        now = primaries()
        lost = [i for i in were_there if now[i][1] == victim.address]
        kept = [i for i in were_there if now[i][1] != victim.address]
        assert lost
        assert kept
        for index in lost:
            until(lambda i=index: bool(files_of(stores[0], number, i, 1)), BOUND_S, "storing")
            until(lambda i=index: bool(files_of(stores[1], number, i, 2)), BOUND_S, "storing")
        victim.kill()
        every = by_partition([pair for mapper in MAPPERS for pair in rows(mapper)], PARTITIONS)
        assert fetch_all(name, MAPPERS, PARTITIONS, metadata) == every
        assert calls == [MAPPERS]
        for index in lost:
            until(lambda i=index: not files_of(stores[0], number, i, 1), BOUND_S, "a drop")
        assert all(files_of(stores[0], number, index, 1) for index in kept)
        assert all(files_of(stores[1], number, index, 2) for index in lost)
        assert fetch_all(name, MAPPERS, PARTITIONS, metadata) == every
        victim.start()
        for index in lost:
            until(lambda i=index: not files_of(stores[1], number, i, 2), BOUND_S, "a drop")
        assert fetch_all(name, MAPPERS, PARTITIONS, metadata) == every
        # What lands later than that goes with the exchange, if not before.
        late = next(stores[0].glob(f"*/{number}")) / f"{lost[0]}-1" / "0-0-63-1"
        late.parent.mkdir()
        late.write_bytes(bytes(4096))
    until(lambda: not late.exists(), BOUND_S, "the end of the exchange")
    assert calls == [MAPPERS]


def rows_of(mapper: int) -> Pairs:
    """One daemon has partitions 0 and 1 in one range, 2 and 3 in another. Mapper 1 writes little to
    1 and 3; mapper 2 to 0 and 2 more than a reader holds back, or is sent ahead."""
    if mapper == 1:
        return [(1, b"little"), (3, b"little")]
    return [(2 * (p == 0), row) for p, row in numbered(2, 12_000, partitions=3, size=10_000)]


def lose_little(services: Services, number: int, range_index: int) -> Path:
    """Delete what mapper 1 wrote to a range. Returns the folder, with all that mapper 2 did."""
    store, partition = services.directory / "store", 2 * range_index + 1

    def little() -> list[Path]:
        files = files_of(store, number, range_index, 1)
        return [file for file in files if file.name.startswith(f"{partition}-{partition}-")]

    [file] = little()
    file.unlink()
    return file.parent


def send_all(services: Services, name: str) -> int:
    """Both mappers, each into files of its own. Returns the number of the exchange."""
    number = describe(name, services.metadata).number
    store = services.directory / "store"
    send(name, 1, rows_of(1), services.metadata)
    for index in range(2):
        until(lambda i=index: bool(files_of(store, number, i, 1)), BOUND_S, "storing")
    send(name, 2, rows_of(2), services.metadata, buffer_bytes=1 << 20)
    return number


def test_a_reader_in_the_middle_of_it_is_told_to_begin_anew(services: Services, name: str) -> None:
    """All that it reads is there when its build ends: rows of another partition are lost."""
    metadata, calls = services.metadata, list[list[int]]()
    services.daemon(*QUICK, "--segment-bytes", "1MiB")
    again = again_with(name, metadata, rows_of, calls)
    with CoscoExchange(name, 4, again, codec="none", replicas=1, metadata=metadata):
        number = send_all(services, name)
        with CoscoReader(name, MAPPERS, 0, timeout_s=BOUND_S, metadata=metadata) as reader:
            assert reader.next()
            folder = lose_little(services, number, 0)
            assert fetch(name, MAPPERS, 1, metadata) == Counter([b"little"])
            until(lambda: not folder.exists(), BOUND_S, "a drop")
            with pytest.raises(DataLost, match="another reader") as caught:
                for _ in reader:
                    pass
            assert caught.value.retriable
        expected = by_partition([pair for mapper in MAPPERS for pair in rows_of(mapper)], 4)
        assert fetch(name, MAPPERS, 0, metadata) == expected[0]
    assert calls == [MAPPERS]


def test_a_reader_that_has_given_no_row_of_it_goes_on_with_the_present_build(
    services: Services, name: str
) -> None:
    """It was told of the old build, and is slow with another partition until that has gone."""
    metadata, calls = services.metadata, list[list[int]]()
    services.daemon(*QUICK, "--segment-bytes", "1MiB")
    again = again_with(name, metadata, rows_of, calls)
    with CoscoExchange(name, 4, again, codec="none", replicas=1, metadata=metadata):
        number = send_all(services, name)
        with CoscoReader(name, MAPPERS, [0, 2], timeout_s=BOUND_S, metadata=metadata) as reader:
            tables = reader.read_tables()
            found = [next(tables)]
            folder = lose_little(services, number, 1)
            assert fetch(name, MAPPERS, 3, metadata) == Counter([b"little"])
            until(lambda: not folder.exists(), BOUND_S, "a drop")
            found.extend(tables)
        expected = by_partition([pair for mapper in MAPPERS for pair in rows_of(mapper)], 4)
        assert [partition for partition, _ in found] == [0, 2]
        assert [Counter(t.column(0).to_pylist()) for _, t in found] == [expected[0], expected[2]]
    assert calls == [MAPPERS]
