"""The commands as processes: ready lines, status, clean ends, and bad input in one line."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from support.commands import command, environment

from cosco import CoscoExchange, CoscoReader, CoscoWriter


def run(name: str, *args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(name, *args),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env=environment(),
    )


@contextmanager
def serving(name: str, *args: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A running service and its address; it must end cleanly on SIGTERM."""
    process = subprocess.Popen(
        command(name, *args), stdout=subprocess.PIPE, text=True, env=environment()
    )
    with process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            match = re.fullmatch(rf"cosco-{name} ready on (127\.0\.0\.1:\d+)\n", line)
            assert match, line
            yield process, match[1]
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=30) == 0
        finally:
            process.kill()


@pytest.fixture
def by_hand(tmp_path: Path) -> Iterator[str]:
    """A metadata service and two daemons started as a person would; gives its address."""
    with ExitStack() as stack:
        store = f"sqlite:///{tmp_path}/metadata.db"
        _, metadata = stack.enter_context(
            serving("metadata", "--listen", "127.0.0.1:0", "--store", store)
        )
        arguments = ("--memory", "16MiB", "--store", f"file://{tmp_path}/store")
        for host in ("one", "two"):
            stack.enter_context(
                serving("shuffled", *arguments, "--metadata", metadata, "--host-id", host)
            )
        yield metadata


def test_services_by_hand_and_status(by_hand: str) -> None:
    with CoscoExchange("by-hand", 3, metadata=by_hand):
        with CoscoWriter("by-hand", 5, metadata=by_hand) as writer:
            writer.collect(2, b"row")
        with CoscoReader("by-hand", [5], 2, metadata=by_hand) as reader:
            assert list(reader) == [b"row"]

        shown = json.loads(run("main", "status", "--metadata", by_hand, "--json").stdout)
        assert {d["host_id"] for d in shown["daemons"]} == {"one", "two"}
        assert {d["state"] for d in shown["daemons"]} == {"serving"}
        (exchange,) = shown["exchanges"]
        assert exchange["shuffle_id"] == "by-hand"
        assert (exchange["rows"], exchange["mappers_committed"]) == (1, 1)

        text = run("main", "status", "--metadata", by_hand)
        assert text.returncode == 0
        assert re.search(r"^by-hand +1 +3 +1 +1 +open$", text.stdout, re.MULTILINE)


def unused_address() -> str:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"127.0.0.1:{server.getsockname()[1]}"


def refused(tmp_path: Path) -> list[tuple[str, tuple[str, ...], str]]:
    file = tmp_path / "file"
    file.write_text("no directory")
    nobody = unused_address()
    return [
        ("metadata", ("--listen", "nowhere"), "nowhere"),
        ("metadata", ("--listen", "127.0.0.1:0", "--store", "mysql://x"), "mysql"),
        ("metadata", ("--listen", "127.0.0.1:0", "--store", f"sqlite:///{file}/db"), "file"),
        ("metadata", ("--listen", "192.0.2.1:0", "--store", f"sqlite:///{tmp_path}/a.db"), "192"),
        ("metadata", ("--ranges-per-daemon", "0"), "--ranges-per-daemon"),
        ("shuffled", ("--memory", "1MiB"), "--memory"),
        ("shuffled", ("--memory", "lots"), "lots"),
        ("shuffled", ("--store", "ftp://x", "--metadata", nobody), "ftp"),
        ("shuffled", ("--store", f"file://{file}", "--metadata", nobody), "file"),
        ("main", ("status", "--metadata", nobody, "--timeout-s", "1"), nobody),
        ("main", ("status", "--metadata", "nonsense"), "nonsense"),
        ("main", ("demo", "--mappers", "0"), "--mappers"),
        ("main", ("demo", "--memory", "1KiB"), "--memory"),
        ("main", (), "Missing command"),
        ("bench", ("throughput", "--rows", "99999999999999"), "GB of memory"),
        ("bench", ("throughput", "--codec", "zip"), "--codec"),
        ("bench", ("throughput", "--rows", "9", "--json", "/nowhere/x.json"), "/nowhere/x.json"),
    ]


def test_bad_input_is_one_line_and_code_2(tmp_path: Path) -> None:
    for name, args, about in refused(tmp_path):
        done = run(name, *args)
        prog = "cosco" if name == "main" else f"cosco-{name}"
        assert done.returncode == 2, (name, args, done)
        *log, line = done.stderr.splitlines()
        assert line.startswith(f"{prog}: ") and about in line, (name, args, done.stderr)
        assert not log, (name, args, done.stderr)
        assert done.stdout == ""


def test_a_taken_port_is_refused(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        done = run("metadata", "--listen", address, "--store", f"sqlite:///{tmp_path}/m.db")
    assert done.returncode == 2
    assert address in done.stderr.splitlines()[-1]


def bench_args(directory: Path, *args: str) -> tuple[str, ...]:
    return (
        "throughput", "--rows", "200000", "--memory", "16MiB", "--partitions", "8",
        "--directory", str(directory), *args,
    )  # fmt: skip


def test_bench_throughput_checks_itself_and_writes_json(tmp_path: Path) -> None:
    store = tmp_path / "store"
    store.mkdir()
    target = tmp_path / "result.json"
    done = run("bench", *bench_args(store, "--ledger-rows", "100000", "--json", str(target)))
    assert done.returncode == 0, done.stderr
    shown: dict[str, Any] = json.loads(target.read_text())
    assert shown["verified"] is True
    assert shown["rows"] == 200_000
    assert shown["gb_per_s"] > 0
    assert shown["cpu_s_per_gb"].keys() == {"writers", "daemons", "readers"}
    assert all(value > 0 for value in shown["cpu_s_per_gb"].values())
    assert shown["calls"].keys() == {
        "collect_rows_per_s", "collect_batch_gb_per_s",
        "reader_rows_per_s", "read_batches_gb_per_s",
    }  # fmt: skip
    assert all(value > 0 for value in shown["calls"].values())
    assert [stage["name"] for stage in shown["ledger"]] == [
        "make rows", "partition", "pack", "compress", "push", "take in", "copy", "store",
        "fetch", "unpack", "verify",
    ]  # fmt: skip
    assert {"machine", "versions", "settings"} <= shown.keys()
    assert list(store.iterdir()) == []


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_bench_leaves_nothing(tmp_path: Path, signum: signal.Signals) -> None:
    store = tmp_path / "store"
    store.mkdir()
    args = bench_args(store, "--ledger-rows", "0", "--rows", "3000000")
    said = tmp_path / "stderr"
    with said.open("wb") as stderr:
        process = subprocess.Popen(
            command("bench", *args),
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            env=environment(TMPDIR=str(store), PYTHONFAULTHANDLER="1"),
        )
    with process:
        bench = psutil.Process(process.pid)
        # Two daemons, the metadata service, two writers, two readers.
        while len(children := bench.children(recursive=True)) < 7:
            assert process.poll() is None, said.read_text()
        process.send_signal(signum)
        assert process.wait(timeout=30) == 128 + signum, said.read_text()
    _, alive = psutil.wait_procs(children, timeout=10)
    assert not alive
    assert list(store.iterdir()) == []
