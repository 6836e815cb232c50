"""Daemons with several directories, of which some fill, err or hang."""

from __future__ import annotations

import os
import re
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from support.exchanges import Pairs, fetch, never, send, serving, until
from support.hanging_store import Gate
from support.processes import Service, Services, end_of

from cosco import CoscoExchange
from cosco.observe import fetch_status, read_metrics

ROW_BYTES = 50_000
OPTIONS = (
    *("--memory", "16MiB", "--segment-bytes", "64KiB", "--full-store-wait-s", "5"),
    *("--sweep-s", "0.2", "--store-timeout-s", "0.5"),
)


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    with Services(tmp_path) as started:
        yield started


def started(
    services: Services, *directories: Path, options: tuple[str, ...] = (), hangs: bool = False
) -> Service:
    """A daemon with these directories."""
    first, *more = (directory.as_uri() for directory in directories)
    several = [text for url in more for text in ("--store", url)]
    module = "tests.support.hanging_store" if hangs else "cosco.cli.shuffled"
    return services.daemon(*several, *OPTIONS, *options, store=first, module=module)


def rows_of(mapper: int, count: int) -> Pairs:
    return [(n % 4, b"%d-%d-" % (mapper, n) + os.urandom(ROW_BYTES)) for n in range(count)]


def counted(rows: Pairs) -> Counter[bytes]:
    return Counter(row for _, row in rows)


def read_all(services: Services, name: str, mappers: list[int]) -> Counter[bytes]:
    found: Counter[bytes] = Counter()
    for partition in range(4):
        found += fetch(name, mappers, partition, services.metadata)
    return found


def exchange(services: Services, name: str) -> CoscoExchange:
    return CoscoExchange(name, 4, never, replicas=1, codec="none", metadata=services.metadata)


def stored(directory: Path) -> int:
    """Bytes of rows in a directory, also while they are being removed."""
    found = 0
    for root, _, names in os.walk(directory):
        for name in names:
            if not name.startswith("cosco-store."):
                with suppress(FileNotFoundError):
                    found += Path(root, name).stat().st_size
    return found


def told(daemon: Service, event: str, directory: Path, cause: str) -> bool:
    pattern = f"event={event} store={re.escape(directory.as_uri())} cause={cause}"
    return re.search(pattern, daemon.log.read_text()) is not None


def metric(services: Services, daemon: Service, name: str) -> float:
    return read_metrics(serving(services.metadata)[daemon.address].metrics_address)[name]


def test_a_directory_that_fills_is_left_and_a_restart_adopts_all(
    services: Services, small_disk: Path
) -> None:
    """It has 24 MiB, of which 4 MiB are never used."""
    small, large = small_disk / "store", services.directory / "large"
    daemon = started(services, small, large, options=("--store-reserve", "4MiB"))
    with exchange(services, "fills"):
        rows: Pairs = []
        mappers: list[int] = []
        while not told(daemon, "directory_out", small, "full"):
            assert len(mappers) < 20, "500 MB, and it is not full"
            mappers.append(len(mappers))
            more = rows_of(mappers[-1], 500)  # 25 MB
            rows += more
            assert send("fills", mappers[-1], more, services.metadata, buffer_bytes=1 << 20).won
        free = os.statvfs(small_disk)
        assert free.f_bavail * free.f_frsize >= 4 << 20
        assert stored(small) > 8 << 20
        assert stored(large) > 8 << 20
        well = "cosco_directory_well"  # of both together
        until(lambda: metric(services, daemon, well) == 1, 10, "the metric")
        assert not any(d.store_failing for d in fetch_status(services.metadata).daemons)
        assert read_all(services, "fills", mappers) == counted(rows)
        assert daemon.stop() == 0
        daemon.start()
        until(lambda: daemon.address in serving(services.metadata), 10, "its return")
        assert read_all(services, "fills", mappers) == counted(rows)
    until(lambda: not stored(small) and not stored(large), 15, "the deletion in both")
    assert not told(daemon, "directory_out", large, "full")
    with exchange(services, "again"):
        rows = rows_of(1, 900)
        assert send("again", 1, rows, services.metadata, buffer_bytes=1 << 20).won
        until(lambda: stored(small) > 1 << 20, 10, "writes to it")
        assert read_all(services, "again", [1]) == counted(rows)


def test_a_directory_that_errs_is_left_and_comes_back(services: Services) -> None:
    first, second = services.directory / "first", services.directory / "second"
    daemon = started(services, first, second)
    with exchange(services, "errs"):
        rows = rows_of(1, 500)
        assert send("errs", 1, rows, services.metadata, buffer_bytes=1 << 20).won
        assert stored(first) > 1 << 20
        away = services.directory / "away"
        first.rename(away)
        first.symlink_to(first)  # every call there fails
        more = rows_of(2, 500)
        assert send("errs", 2, more, services.metadata, buffer_bytes=1 << 20).won
        until(lambda: told(daemon, "directory_out", first, "errs"), 10, "its line")
        first.unlink()
        away.rename(first)
        until(lambda: told(daemon, "directory_back", first, "errs"), 20, "its return")
        before = stored(first)
        rest = rows_of(3, 500)
        assert send("errs", 3, rest, services.metadata, buffer_bytes=1 << 20).won
        until(lambda: stored(first) > before, 10, "writes to it")
        assert read_all(services, "errs", [1, 2, 3]) == counted(rows + more + rest)


def test_a_directory_that_hangs_is_left_and_comes_back(services: Services) -> None:
    first, second = services.directory / "first", services.directory / "second"
    # What hangs for half of that is left: on a busy machine the other one takes longer than usual.
    daemon = started(services, first, second, options=("--store-timeout-s", "4"), hangs=True)
    with exchange(services, "hangs"):
        rows = rows_of(1, 300)
        assert send("hangs", 1, rows, services.metadata, buffer_bytes=1 << 20).won
        with Gate(first).held("writes"):
            # The daemon is alone: all goes to the other directory, and nobody has to wait.
            more = rows_of(2, 1000)
            assert send("hangs", 2, more, services.metadata, buffer_bytes=1 << 20).won
            until(lambda: told(daemon, "directory_out", first, "hangs"), 20, "its end")
            assert "event=store_hangs" not in daemon.log.read_text()
            assert not any(d.store_failing for d in fetch_status(services.metadata).daemons)
        until(lambda: told(daemon, "directory_back", first, "hangs"), 20, "its return")
        assert read_all(services, "hangs", [1, 2]) == counted(rows + more)
        before = stored(first)
        rest = rows_of(3, 500)
        assert send("hangs", 3, rest, services.metadata, buffer_bytes=1 << 20).won
        until(lambda: stored(first) > before, 10, "writes to it")
        assert read_all(services, "hangs", [1, 2, 3]) == counted(rows + more + rest)


def test_a_dead_disk_is_given_up(services: Services) -> None:
    """The daemon starts without it if it is told to, and its rows are computed again."""
    first, second = services.directory / "first", services.directory / "second"
    daemon = started(services, first, second)
    rows = rows_of(1, 600)
    calls: list[list[int]] = []

    def again(mappers: list[int], _reason: str) -> None:
        calls.append(mappers)
        for mapper in mappers:
            assert send("dead", mapper, rows, services.metadata, buffer_bytes=1 << 20).won

    with CoscoExchange("dead", 4, again, replicas=1, codec="none", metadata=services.metadata):
        again([1], "the first time")
        assert stored(first) > 1 << 20
        assert daemon.stop() == 0
        shutil.rmtree(first)
        urls = ("--store", first.as_uri(), "--store", second.as_uri())
        given = ("--metadata", services.metadata, "--memory", "16MiB", *urls)
        log = services.directory / "refused.log"
        code, [line] = end_of("cosco.cli.shuffled", *given, log=log)
        assert code == 2
        assert f"1 of the 2 directories of the store are missing: {str(first)!r} (" in line
        assert "--store-missing 1" in line
        daemon._arguments += ["--store-missing", "1"]
        daemon.start()
        until(lambda: daemon.address in serving(services.metadata), 10, "its return")
        assert told(daemon, "directory_out", first, "missing")
        assert read_all(services, "dead", [1]) == counted(rows)
        assert len(calls) > 1
    until(lambda: not stored(second), 15, "the deletion")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--store", "file:///a", "--store", "memory://"), "memory://"),
        (("--store", "memory://", "--store-reserve", "1GiB"), "--store-reserve"),
        (("--store", "file:///a", "--store-reserve", "much"), "no size"),
        (("--store", "file:///a", "--store-reserve", "100%"), "nothing to write to"),
        (("--store", "file:///a", "--store-missing", "1"), "--store-missing is 1"),
    ],
)
def test_options_that_make_no_sense(options: tuple[str, ...], reason: str, tmp_path: Path) -> None:
    code, lines = end_of("cosco.cli.shuffled", *options, log=tmp_path / "log")
    assert code == 2
    assert len(lines) == 1
    assert reason in lines[0]
