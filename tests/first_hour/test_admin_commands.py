"""An operator looks at a cluster and steers it: exchanges, exchange, close, drain, undrain, forget,
each for people and as JSON, against real services."""

from __future__ import annotations

import json
import os
import signal
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from support.exchanges import fetch, numbered, send, serving, until
from support.processes import Services

from cosco import (
    CoscoExchange,
    CoscoExchangeGroup,
    CoscoReader,
    ExchangeClosed,
    InvalidArgument,
    LocalCluster,
)
from cosco.admin import all_exchanges, forget_store, list_exchanges, show_exchange
from cosco.cli.main import command
from cosco.cli.options import Refused
from cosco.observe import fetch_status
from cosco.protocol.admin_records import ExchangePhase
from cosco.protocol.records import DaemonState, DaemonStatus

BOUND_S = 20.0


def cosco(*arguments: str, metadata: str) -> str:
    """What a command prints."""
    done = CliRunner().invoke(command, [*arguments, "--metadata", metadata], standalone_mode=False)
    if done.exception is not None:
        raise done.exception
    return done.output


def printed(*arguments: str, metadata: str) -> dict[str, Any]:
    """The object that a command prints for programs."""
    found: dict[str, Any] = json.loads(cosco(*arguments, "--json", metadata=metadata))
    return found


# --- looking ------------------------------------------------------------------------------


def test_there_are_more_exchanges_than_fit_on_a_page(metadata: str, name: str) -> None:
    with CoscoExchangeGroup(name, 1, 1100, 1, metadata=metadata):
        found = list(all_exchanges(metadata, prefix=f"{name}/"))
        assert [status.shuffle_id for status in found] == [f"{name}/{i}" for i in range(1100)]
        page = list_exchanges(metadata, prefix=f"{name}/", limit=10)
        assert len(page.exchanges) == 10
        assert page.next == page.exchanges[-1].number
        status = fetch_status(metadata)
        assert len(status.exchanges) == 1000
        assert status.open >= 1100
        text = cosco("status", metadata=metadata)
        assert f"({status.open} open, {status.closing} closing); the newest 1000 of them:" in text
        listed = printed("exchanges", "--prefix", f"{name}/", "--limit", "3", metadata=metadata)
        assert [e["shuffle_id"] for e in listed["exchanges"]] == [f"{name}/{i}" for i in range(3)]
        rest = printed("exchanges", "--after", str(listed["next"]), metadata=metadata)
        assert rest["exchanges"][0]["shuffle_id"] == f"{name}/3"
        assert rest["next"] is None
        assert not list_exchanges(metadata, phase=ExchangePhase.CLOSING, prefix=name).exchanges


def test_one_exchange_is_looked_at(metadata: str, name: str) -> None:
    with CoscoExchange(name, 4, lambda *_: None, metadata=metadata):
        rows = [(0, b"a" * 10)] * 5 + [(2, b"b" * 10)]
        send(name, 3, rows, metadata)
        found = printed("exchange", name, metadata=metadata)
        assert found["state"] == "open"
        assert found["rows"] == 6
        assert found["largest_partitions"] == [
            {"partition": 0, "rows": 5, "bytes_raw": 50},
            {"partition": 2, "rows": 1, "bytes_raw": 10},
        ]
        assert (found["empty_partitions"], found["callback"]) == (2, True)
        assert (found["replicas"], found["copies"], found["rows_are"]) == (2, 2, "bytes")
        assert found["driver_heard_s"] < found["lease_s"] == 300
        assert {d["address"] for d in found["daemons"]} == set(serving(metadata))
        assert found["losses"] == found["failures"] == found["unusual_ranges"] == []
        text = cosco("exchange", name, metadata=metadata)
        assert f"exchange {name} " in text
        assert "1 committed of 1 opened" in text


def test_an_id_that_steers_a_terminal_is_shown_and_does_not(metadata: str, name: str) -> None:
    evil = f"{name}\x1b[2J\r\n\x07"
    with CoscoExchange(evil, 1, metadata=metadata):
        for arguments in (
            ("status",),
            ("exchanges",),
            ("exchange", evil),
            ("exchange", evil, "--json"),
            ("close", evil),
        ):
            text = cosco(*arguments, metadata=metadata)
            assert name in text
            assert not set("\x1b\r\x07") & set(text)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("exchange", "nobody's"), "there is no exchange"),
        (("close", "nobody's"), "there is no exchange"),
        (("undrain", "nobody:1"), "no live shuffle daemon"),
        (("forget", "nobody's"), "no exchange has anything"),
    ],
)
def test_what_is_named_is_not_there(metadata: str, arguments: tuple[str, ...], said: str) -> None:
    with pytest.raises(Refused, match=said):  # which ends the program with 1
        cosco(*arguments, metadata=metadata)


def test_an_address_that_is_none(name: str) -> None:
    with pytest.raises(InvalidArgument):  # which ends the program with 2
        cosco("exchange", name, metadata="nonsense")


# --- closing ------------------------------------------------------------------------------


def test_an_exchange_is_closed_by_hand(metadata: str, name: str) -> None:
    with CoscoExchange(name, 1, metadata=metadata):
        send(name, 1, numbered(1, 5), metadata)
        assert cosco("close", name, metadata=metadata) == f"{name} is closed\n"
        with pytest.raises(ExchangeClosed):
            fetch(name, [1], 0, metadata)
        again = printed("close", name, metadata=metadata)
        assert again == {"shuffle_id": name, "was_open": False}
        until(lambda: not list_exchanges(metadata, prefix=name).exchanges, BOUND_S, "its end")
        kept = show_exchange(metadata, name)  # for a while
        assert (kept.status.finished, kept.cause, kept.status.rows) == (True, "asked", 5)


def test_a_group_is_closed_by_hand(metadata: str, name: str) -> None:
    group = CoscoExchangeGroup(name, 1, 3, 1, metadata=metadata)
    assert printed("close", f"{name}/1", metadata=metadata)["was_open"]
    assert printed("close", name, metadata=metadata)["was_open"]
    assert not printed("close", name, metadata=metadata)["was_open"]
    with pytest.raises(ExchangeClosed), group.handle().reader(0, 0, timeout_s=5) as reader:
        reader.read_table()
    group.close()


def test_a_reader_that_waits_is_told_of_the_close(metadata: str, name: str) -> None:
    with (
        CoscoExchange(name, 1, metadata=metadata),
        CoscoReader(name, [1], 0, metadata=metadata) as reader,
    ):
        cosco("close", name, metadata=metadata)
        with pytest.raises(ExchangeClosed):
            reader.read_table()


# --- daemons and stores -------------------------------------------------------------------


@pytest.fixture(scope="module")
def private() -> Iterator[LocalCluster]:
    """Three daemons with stores of their own."""
    with LocalCluster(3, memory="16MiB", shared_store=False) as cluster:
        yield cluster


def is_ready(metrics: str) -> bool:
    """Whether a daemon says that it would serve."""
    try:
        with urllib.request.urlopen(f"http://{metrics}/readyz", timeout=BOUND_S):
            return True
    except urllib.error.HTTPError as error:
        error.close()
        return False


def test_a_drain_is_taken_back(private: LocalCluster, name: str) -> None:
    metadata, daemon = private.metadata, private.daemons[0]

    def status() -> DaemonStatus:
        [found] = [d for d in fetch_status(metadata).daemons if d.ref.address == daemon.address]
        return found

    def state() -> DaemonState:
        return status().state

    with CoscoExchange(name, 6, replicas=1, metadata=metadata):
        rows = numbered(1, 60, partitions=6)
        send(name, 1, rows, metadata)
        assert printed("drain", daemon.address, metadata=metadata)["draining"]
        until(lambda: state() is DaemonState.DRAINING, BOUND_S, "its drain")
        until(lambda: not is_ready(status().metrics_address), BOUND_S, "the daemon to hear of it")
        # It has files of its own that the exchange needs, so it serves on.
        assert "is given work again" in cosco("undrain", daemon.address, metadata=metadata)
        until(lambda: state() is DaemonState.SERVING, BOUND_S, "the end of its drain")
        assert printed("undrain", daemon.address, metadata=metadata)["was_draining"] is False
        assert sum(sum(fetch(name, [1], p, metadata).values()) for p in range(6)) == 60
    until(lambda: is_ready(status().metrics_address), BOUND_S, "the daemon to hear of it")
    with CoscoExchange(f"{name}-after", 6, replicas=1, metadata=metadata):
        shares = show_exchange(metadata, f"{name}-after").daemons
        assert daemon.address in {share.ref.address for share in shares}
        send(f"{name}-after", 1, rows, metadata)
        assert sum(fetch(f"{name}-after", [1], 0, metadata).values()) == 10
        # Small buffers stay in memory again, rather than become small chunks for ever.
        until(lambda: status().free_bytes < status().memory_bytes, BOUND_S, "rows in its memory")


def test_a_daemon_that_was_told_to_end_by_a_signal_is_not_undrained(
    private: LocalCluster, name: str
) -> None:
    metadata, daemon = private.metadata, private.daemons[0]
    with CoscoExchange(name, 6, replicas=1, metadata=metadata):
        send(name, 1, numbered(1, 60, partitions=6), metadata)
        os.kill(daemon.pid, signal.SIGTERM)
        until(lambda: daemon.address not in serving(metadata), BOUND_S, "its drain")
        with pytest.raises(Refused, match="told to end"):
            cosco("undrain", daemon.address, metadata=metadata)


def test_a_host_is_gone_with_its_store(tmp_path: Path, name: str) -> None:
    called: list[list[int]] = []

    def folders() -> set[str]:
        """The exchanges that have files in the store, by number."""
        return {folder.name for folder in (tmp_path / "store-0").glob("*/[0-9]*")}

    with Services(tmp_path, metadata_options=("--daemon-lease-s", "1")) as services:
        for i in range(2):
            options = ("--heartbeat-s", "0.2", "--store-idle-s", "0.1")
            services.daemon(*options, store=f"file://{tmp_path}/store-{i}")
        metadata, lost = services.metadata, services.daemons[0]
        store = serving(metadata)[lost.address].store_id
        with CoscoExchange(
            name, 4, lambda mappers, _: called.append(mappers), replicas=1, metadata=metadata
        ):
            rows = numbered(1, 40, partitions=4)
            send(name, 1, rows, metadata)
            with pytest.raises(Refused, match="served by the live shuffle daemon"):
                cosco("forget", store, metadata=metadata)
            with CoscoExchange(f"{name}-waits", 2, replicas=1, metadata=metadata) as waits:
                send(f"{name}-waits", 1, numbered(1, 20, partitions=2), metadata)
                until(lambda: len(folders()) == 2, BOUND_S, "its files")
                lost.kill()
                until(lambda: lost.address not in serving(metadata), BOUND_S, "its death")
                waits.close()
            until(
                lambda: show_exchange(metadata, f"{name}-waits").waiting_for == (f"store {store}",),
                BOUND_S,
                "the end of the wait for the other daemon",
            )
            assert "waits for store" in cosco("exchange", f"{name}-waits", metadata=metadata)
            done = printed("forget", store, metadata=metadata)
            assert (done["closed"], done["ranges_lost"] > 0) == (1, True)
            gone = show_exchange(metadata, f"{name}-waits")
            assert (gone.status.finished, gone.waiting_for) == (True, ())
            until(lambda: bool(called), BOUND_S, "the callback")  # nobody has read anything
            send(name, 1, rows, metadata)
            assert sum(sum(fetch(name, [1], p, metadata).values()) for p in range(4)) == 40
            assert forget_store(metadata, store).ranges == 0
            services.metadata_service.kill()
            services.metadata_service.start()
            assert forget_store(metadata, store).closed == 0
            lost.start()  # it comes back after all, with what was forgotten
            number = f"{show_exchange(metadata, name).status.number}"
            until(lambda: folders() == {number}, BOUND_S, "its sweep")
            assert sum(sum(fetch(name, [1], p, metadata).values()) for p in range(4)) == 40
        assert "store_was_forgotten" in lost.tail()
        until(lambda: not folders(), BOUND_S, "the end of its files")
