"""Daemons with flash before their store: what is on either when something ends, or fails."""

from __future__ import annotations

import os
import re
import shutil
import signal
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
from cosco.protocol.records import DaemonStatus

PARTITIONS = 4
ROW_BYTES = 50_000
OPTIONS = (
    *("--memory", "16MiB", "--segment-bytes", "64KiB", "--full-store-wait-s", "10"),
    *("--sweep-s", "0.2", "--store-timeout-s", "10"),
)
BOUND_S = 30


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    with Services(tmp_path, metadata_options=["--daemon-lease-s", "3"]) as started:
        yield started


def started(
    services: Services, flash: Path, *options: str, then: Path | None = None, hangs: bool = False
) -> Service:
    """A daemon with this flash, before a store that it shares, or one of its own."""
    then = then or services.directory / "then"
    store = f"flash={flash.as_uri()},then={then.as_uri()}"
    module = "tests.support.hanging_store" if hangs else "cosco.cli.shuffled"
    return services.daemon(*OPTIONS, *options, store=store, module=module)


def rows_of(mapper: int, count: int) -> Pairs:
    return [(n % PARTITIONS, b"%d-%d-" % (mapper, n) + os.urandom(ROW_BYTES)) for n in range(count)]


def counted(rows: Pairs) -> Counter[bytes]:
    return Counter(row for _, row in rows)


def read_all(services: Services, name: str, mappers: list[int]) -> Counter[bytes]:
    found: Counter[bytes] = Counter()
    for partition in range(PARTITIONS):
        found += fetch(name, mappers, partition, services.metadata)
    return found


def write(services: Services, name: str, mapper: int, count: int = 400) -> Pairs:
    rows = rows_of(mapper, count)
    assert send(name, mapper, rows, services.metadata, buffer_bytes=1 << 20).won
    return rows


def files(directory: Path) -> int:
    """Segments in a directory, also while they are being removed."""
    found = 0
    for _, _, names in os.walk(directory):
        with suppress(FileNotFoundError):
            found += sum(not name.startswith("cosco-store.") for name in names)
    return found


def metric(services: Services, daemon: Service, name: str) -> float:
    address = serving(services.metadata)[daemon.address].metrics_address
    return read_metrics(address).get(name, 0.0)


def status(services: Services) -> list[DaemonStatus]:
    return list(fetch_status(services.metadata).daemons)


def told(daemon: Service, event: str) -> bool:
    return re.search(rf"event={event}\b", daemon.log.read_text()) is not None


def back(services: Services, daemon: Service) -> None:
    until(lambda: daemon.address in serving(services.metadata), BOUND_S, "its return")


def test_what_is_short_lived_never_reaches_the_slow_tier(services: Services) -> None:
    flash, then = services.directory / "flash", services.directory / "then"
    daemon = started(services, flash)
    with CoscoExchange("short", PARTITIONS, never, replicas=1, metadata=services.metadata):
        rows = write(services, "short", 1)
        until(lambda: files(flash) > 0, BOUND_S, "a flush")
        assert read_all(services, "short", [1]) == counted(rows)
        assert files(then) == 0
    until(lambda: not files(flash), BOUND_S, "the deletion")
    saved = "cosco_tier_saved_bytes_total"
    until(lambda: metric(services, daemon, saved) > 1 << 20, BOUND_S, "the metric")
    assert metric(services, daemon, "cosco_tier_moves_total") == 0


def test_what_has_copies_moves_at_once_and_what_is_full_moves_on(services: Services) -> None:
    """Two daemons that share the slow tier, each with 8 MiB of flash."""
    then = services.directory / "then"
    flashes = [services.directory / f"flash-{n}" for n in range(2)]
    daemons = [started(services, flash, "--tier-flash-bytes", "8MiB") for flash in flashes]
    with CoscoExchange("copies", PARTITIONS, never, codec="none", metadata=services.metadata):
        rows = write(services, "copies", 1)
        until(lambda: files(then) > 0, BOUND_S, "a move")
        assert read_all(services, "copies", [1]) == counted(rows)
    until(lambda: not any(map(files, [then, *flashes])), BOUND_S, "the deletion on both tiers")
    with CoscoExchange(
        "full", PARTITIONS, never, replicas=1, codec="none", metadata=services.metadata
    ):
        rows = write(services, "full", 1, 1000)
        until(lambda: files(then) > 0, BOUND_S, "a move")
        for flash in flashes:
            assert sum(one.stat().st_size for one in flash.rglob("*-*-*-*")) <= 8 << 20
        assert read_all(services, "full", [1]) == counted(rows)
    until(lambda: not any(map(files, [then, *flashes])), BOUND_S, "the deletion on both tiers")
    assert all(daemon.is_running() for daemon in daemons)


def test_a_daemon_that_is_killed_amid_a_move_adopts_its_flash(services: Services) -> None:
    """It is alone, so rows come back or are lost; a torn file in the slow tier is written over."""
    flash, then = services.directory / "flash", services.directory / "then"
    daemon = started(services, flash, "--tier-age-s", "0.2", hangs=True)
    with CoscoExchange("killed", PARTITIONS, never, replicas=1, metadata=services.metadata):
        with Gate(then).held("writes"):
            rows = write(services, "killed", 1)
            until(lambda: files(flash) > 3, BOUND_S, "flushes")
            daemon.signal(signal.SIGTERM)  # so that all is on flash, and is to move
            until(lambda: told(daemon, "drain_began"), BOUND_S, "its drain")
            until(
                lambda: all(d.free_bytes == d.memory_bytes for d in status(services)),
                BOUND_S,
                "the flush of all",
            )
            daemon.kill()
        torn = next(one for one in flash.rglob("*-*-*-*") if one.is_file())
        half = then / torn.relative_to(flash)
        half.parent.mkdir(parents=True, exist_ok=True)
        half.write_bytes(torn.read_bytes()[:4096])
        daemon.start()
        back(services, daemon)
        assert read_all(services, "killed", [1]) == counted(rows)
        until(lambda: metric(services, daemon, "cosco_flash_pending_bytes") == 0, BOUND_S, "moves")
        assert half.read_bytes() == torn.read_bytes()
        assert read_all(services, "killed", [1]) == counted(rows)
    until(lambda: not files(flash) and not files(then), BOUND_S, "the deletion on both tiers")


def test_a_host_that_is_lost_with_its_flash_loses_nothing_that_has_copies(
    services: Services,
) -> None:
    flashes = [services.directory / f"flash-{n}" for n in range(2)]
    daemons = [started(services, flash) for flash in flashes]
    with CoscoExchange("two", PARTITIONS, never, codec="none", metadata=services.metadata):
        rows = write(services, "two", 1)
        daemons[0].kill()
        shutil.rmtree(flashes[0])
        assert read_all(services, "two", [1]) == counted(rows)
        daemons[0].start()
        back(services, daemons[0])
        more = write(services, "two", 2)
        assert read_all(services, "two", [1, 2]) == counted(rows + more)
    then = services.directory / "then"
    until(lambda: not any(map(files, [then, *flashes])), BOUND_S, "the deletion on both tiers")


@pytest.mark.parametrize("replicas", [1, 2])
def test_a_flash_that_counts_as_durable_is_lost_with_its_rows_which_are_computed_again(
    services: Services, replicas: int
) -> None:
    """This is the weaker promise of --tier-durable flash, and of one copy."""
    options = ("--tier-durable", "flash") if replicas == 2 else ()
    flashes = [services.directory / f"flash-{n}" for n in range(2)]
    daemons = [started(services, flash, *options) for flash in flashes]
    calls: list[list[int]] = []
    rows = rows_of(1, 400)

    def again(mappers: list[int], _reason: str) -> None:
        calls.append(mappers)
        assert send("weak", 1, rows, services.metadata, buffer_bytes=1 << 20).won

    with CoscoExchange(
        "weak", PARTITIONS, again, replicas=replicas, codec="none", metadata=services.metadata
    ):
        again([1], "the first time")
        until(lambda: all(map(files, flashes)), BOUND_S, "flushes")
        assert files(services.directory / "then") == 0
        daemons[0].kill()
        shutil.rmtree(flashes[0])
        daemons[0].start()
        back(services, daemons[0])
        assert read_all(services, "weak", [1]) == counted(rows)
        assert len(calls) > 1
        assert calls[-1] == [1]


def test_a_daemon_that_drains_moves_all_and_others_serve_it(services: Services) -> None:
    flashes = [services.directory / f"flash-{n}" for n in range(2)]
    first = started(services, flashes[0])
    with CoscoExchange(
        "drains", PARTITIONS, never, replicas=1, codec="none", metadata=services.metadata
    ):
        rows = write(services, "drains", 1)
        until(lambda: files(flashes[0]) > 0, BOUND_S, "a flush")
        started(services, flashes[1])
        assert first.stop() == 0
        then = services.directory / "then"
        assert {one.name for one in flashes[0].rglob("*-*-*-*")} <= {
            one.name for one in then.rglob("*-*-*-*")
        }
        shutil.rmtree(flashes[0])
        assert read_all(services, "drains", [1]) == counted(rows)
    until(lambda: not files(services.directory / "then"), BOUND_S, "the deletion")


def test_what_cannot_move_at_the_end_is_said_and_found_again(services: Services) -> None:
    flash, then = services.directory / "flash", services.directory / "then"
    daemon = started(services, flash, "--store-timeout-s", "1", hangs=True)
    with CoscoExchange("stuck", PARTITIONS, never, replicas=1, metadata=services.metadata):
        rows = write(services, "stuck", 1)
        until(lambda: files(flash) > 0, BOUND_S, "a flush")
        with Gate(then).held("writes"):
            daemon.signal(signal.SIGTERM)
            until(lambda: told(daemon, "moves_failing"), BOUND_S, "its line")
            assert daemon.stop() == 2
        assert re.search(r"[1-9][0-9]+ are on flash alone: start the daemon", daemon.tail())
        daemon.start()
        back(services, daemon)
        assert read_all(services, "stuck", [1]) == counted(rows)
    until(lambda: not files(flash) and not files(then), BOUND_S, "the deletion on both tiers")


def test_a_flash_that_fails_is_passed_by_and_comes_back(services: Services) -> None:
    flash, then = services.directory / "flash", services.directory / "then"
    daemon = started(services, flash)
    with CoscoExchange(
        "passed", PARTITIONS, never, replicas=1, codec="none", metadata=services.metadata
    ):
        away = services.directory / "away"
        flash.rename(away)
        flash.symlink_to(flash)  # every call there fails
        rows = write(services, "passed", 1)
        until(lambda: told(daemon, "flash_out"), BOUND_S, "its line")
        until(lambda: files(then) > 0, BOUND_S, "puts past it")
        assert read_all(services, "passed", [1]) == counted(rows)
        flash.unlink()
        away.rename(flash)
        until(lambda: told(daemon, "flash_back"), BOUND_S, "its return")
        more = write(services, "passed", 2)
        until(lambda: files(flash) > 0, BOUND_S, "puts to it")
        assert read_all(services, "passed", [1, 2]) == counted(rows + more)
    until(lambda: not files(flash) and not files(then), BOUND_S, "the deletion on both tiers")


def test_a_slow_tier_that_hangs_is_told_when_somebody_waits(services: Services) -> None:
    then = services.directory / "then"
    options = ("--store-timeout-s", "0.5")
    daemons = [
        started(services, services.directory / f"flash-{n}", *options, hangs=True) for n in range(2)
    ]
    with CoscoExchange("hangs", PARTITIONS, never, codec="none", metadata=services.metadata):
        with Gate(then).held("writes"):
            rows = write(services, "hangs", 1, 200)
            until(lambda: any(d.store_failing for d in status(services)), BOUND_S, "its word")
            assert any(told(daemon, "moves_failing") for daemon in daemons)
        until(lambda: not any(d.store_failing for d in status(services)), BOUND_S, "its end")
        assert read_all(services, "hangs", [1]) == counted(rows)
        more = write(services, "hangs", 2, 200)
        assert read_all(services, "hangs", [1, 2]) == counted(rows + more)


def test_one_flash_has_one_daemon_and_one_store(services: Services) -> None:
    flash = services.directory / "flash"
    daemon = started(services, flash)
    given = ("--metadata", services.metadata, "--memory", "16MiB", "--store")
    log = services.directory / "refused.log"
    store = f"flash={flash.as_uri()},then={(services.directory / 'then').as_uri()}"
    code, [line] = end_of("cosco.cli.shuffled", *given, store, log=log)
    assert code == 2
    assert "is another daemon's" in line
    assert daemon.stop() == 0
    other = f"flash={flash.as_uri()},then={(services.directory / 'other').as_uri()}"
    code, [line] = end_of("cosco.cli.shuffled", *given, other, log=log)
    assert code == 2
    assert "has segments of the store" in line


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--store", "flash=file:///a"), "two tiers are flash=file:///DIR,then=URL"),
        (("--store", "flash=s3://a/b,then=file:///b"), "flash is to be one directory"),
        (("--store", "flash=file:///a,then=memory://"), "not durable"),
        (("--store", "flash=file:///a,then=file:///a/b"), "one is in the other"),
        (("--store", "flash=file:///a,then=x://b"), "of an unknown kind"),
        (("--store", "flash=file:///a,then=file:///b", "--store", "file:///c"), "given once"),
        (("--store", "flash=file:///a,then=file:///b", "--tier-durable", "both"), "then or flash"),
        (("--store", "flash=file:///a,then=file:///b", "--tier-age-s", "-1"), "--tier-age-s"),
        (("--store", "file:///a", "--tier-durable", "flash"), "--tier-durable is for"),
        (("--store", "file:///a", "--tier-flash-bytes", "1GiB"), "--tier-flash-bytes is for"),
    ],
)
def test_options_that_make_no_sense(options: tuple[str, ...], reason: str, tmp_path: Path) -> None:
    code, lines = end_of("cosco.cli.shuffled", *options, log=tmp_path / "log")
    assert code == 2
    assert len(lines) == 1
    assert reason in lines[0]
