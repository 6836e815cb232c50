"""`cosco-bench io` as a process: its figures, what it refuses, and an end in the middle."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import psutil
import pytest
from support.commands import ROOT, command, environment

MIB = 1 << 20


def run(*args: str, **settings: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command("bench", "io", *args),
        **{"env": environment(), **settings},
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )


def installed(site: Path) -> dict[str, str]:
    """An environment with what the wheel has, and nothing else of the checkout."""
    for package in (ROOT / "cosco", ROOT / "benchmarks" / "cosco_bench"):
        shutil.copytree(package, site / package.name, ignore=shutil.ignore_patterns("__pycache__"))
    return environment(PYTHONPATH=str(site))


@pytest.mark.slow
@pytest.mark.timeout(300)  # four shuffles, with services and processes of their own
def test_a_small_run_gives_every_figure_without_a_checkout(tmp_path: Path) -> None:
    store, target, picture = tmp_path / "store", tmp_path / "io.json", tmp_path / "io.svg"
    store.mkdir()
    done = run(
        "--bytes", "16MB", "--mappers", "20", "--partitions", "8", "--memory", "64MiB",
        "--directory", str(store), "--json", str(target), "--plot", str(picture),
        env=installed(tmp_path / "site"), cwd=store,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "what the buffers buy" in done.stdout
    assert list(store.iterdir()) == []
    assert picture.read_text().lstrip().startswith("<?xml")
    shown: dict[str, Any] = json.loads(target.read_text())
    assert shown["verified"] is True
    assert shown["commit"] == ""
    assert {
        "machine",
        "versions",
        "settings",
        "command",
        "commit",
        "published",
        "model",
    } <= shown.keys()
    for name in ("cosco", "sort_shuffle"):
        one = shown[name]
        for kind in ("writes", "reads"):
            assert {"count", "bytes", "mean_bytes", "histogram"} == one[kind].keys()
            assert one[kind]["count"] == sum(b["count"] for b in one[kind]["histogram"])
        times = one["service_time_s"]
        assert times.keys() == {"reads", "writes", "spills", "total"}
        parts = times["reads"] + times["writes"] + times["spills"]
        assert times["total"] == pytest.approx(parts)
    cosco, sort = shown["cosco"], shown["sort_shuffle"]
    # All rows went to the disk once, and came from there once.
    assert 1 < cosco["write_amplification"] < 1.05
    assert cosco["reads"]["bytes"] == pytest.approx(cosco["bytes_stored"], rel=0.05)
    assert cosco["spills"]["writes"]["count"] == 0
    assert 2 < sort["write_amplification"] < 2.01
    assert sort["reads"]["count"] == 20 * 8 + 20 * 2  # segments, and indexes in each process
    assert shown["ratios"]["mean_read_bytes"] > 10
    assert shown["ratios"]["service_time"] > 2
    levels = shown["memory_levels"]
    assert [level["memory_bytes"] for level in levels] == [64 * MIB, 32 * MIB, 16 * MIB]
    assert levels[0]["cosco"] == cosco
    for level in levels:
        assert level["peak_rss_bytes"] < level["memory_bytes"] + 150 * MIB


@pytest.mark.parametrize(
    ("args", "about"),
    [
        (("--bytes", "60TB"), "GB of disk"),
        (("--memory", "900TiB"), "GB of memory"),
        (("--bytes", "100TB", "--mappers", "1"), "GB of memory"),
        (("--memory", "32MiB"), "--memory"),
        (("--bytes", "100", "--mappers", "2"), "--bytes"),
        (("--merge-factor", "1"), "--merge-factor"),
        (("--json", "/nowhere/x.json"), "/nowhere/x.json"),
        (("--plot", "/nowhere/x.svg"), "/nowhere/x.svg"),
    ],
)
def test_what_cannot_run_is_refused_in_one_line(args: tuple[str, ...], about: str) -> None:
    done = run("--mappers", "65536", *args)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("cosco-bench: ")
    assert about in line
    assert done.stdout == ""


@pytest.mark.parametrize("children", [2, 5])
def test_an_interrupted_run_leaves_nothing(tmp_path: Path, children: int) -> None:
    """Two workers of the sort shuffle, or two daemons and writers and the metadata service."""
    process = subprocess.Popen(
        command(
            "bench", "io", "--bytes", "100MB", "--mappers", "100", "--directory", str(tmp_path)
        ),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment(TMPDIR=str(tmp_path)),
    )
    with process:
        bench = psutil.Process(process.pid)
        while len(started := bench.children(recursive=True)) < children:
            assert process.poll() is None
        process.send_signal(signal.SIGTERM if children == 2 else signal.SIGINT)
        code = signal.SIGTERM if children == 2 else signal.SIGINT
        assert process.wait(timeout=30) == 128 + code
    _, alive = psutil.wait_procs(started, timeout=10)
    assert not alive
    assert list(tmp_path.iterdir()) == []
