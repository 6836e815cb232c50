"""The benchmarks as processes, at tiny sizes: figures, failures of peers, and clean ends."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import psutil
import pytest
from support.commands import ROOT, command, environment

PEERS = ("peers", "--rows", "20000", "--files", "3", "--partitions", "4", "--warm-ups", "1",
         "--runs", "1")  # fmt: skip


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    """Where a benchmark's files go, and must be gone in the end."""
    directory = tmp_path / "scratch"
    directory.mkdir()
    return directory


def bench(scratch: Path, *args: str) -> tuple[subprocess.CompletedProcess[str], dict[str, Any]]:
    """How it ended, and its JSON."""
    target = scratch.parent / "result.json"
    done = subprocess.run(
        command("bench", *args, "--json", str(target)),
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
        env=environment(TMPDIR=str(scratch)),
    )
    assert list(scratch.iterdir()) == []
    shown: dict[str, Any] = json.loads(target.read_text()) if target.exists() else {}
    return done, shown


def install(environments: Path, name: str, program: str) -> None:
    """A peer whose interpreter is a shell program; $HARNESS runs a Python program for it."""
    python = environments / name / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f"#!/bin/sh\n{textwrap.dedent(program)}")
    python.chmod(0o755)


def install_with_harness(environments: Path, name: str, lost: int) -> None:
    """A peer that counts the rows of the files, `lost` too few after its shuffle."""
    script = environments / f"{name}.py"
    script.write_text(
        textwrap.dedent(f"""\
        import contextlib, sys
        sys.path.insert(0, {str(ROOT / "benchmarks" / "peers")!r})
        import pyarrow.compute as pc
        import pyarrow.parquet as pq
        from harness import Tally, Tasks, main

        @contextlib.contextmanager
        def start(job):
            def count(lost):
                tables = [pq.read_table(file) for file in job.files]
                return Tally(
                    sum(t.num_rows for t in tables) - lost,
                    sum(pc.sum(t["key"]).as_py() for t in tables),
                    sum(pc.sum(pc.binary_length(t["payload"])).as_py() for t in tables),
                )
            yield Tasks(lambda: count(0), lambda: count({lost}), {{}}, {{}})

        main(start)
        """)
    )
    install(environments, name, f'shift\nexec "{sys.executable}" "{script}" "$@"\n')


def test_peers_without_peers_measures_cosco_and_says_what_is_missing(scratch: Path) -> None:
    done, shown = bench(
        scratch, *PEERS, "--peers", "spark,ray", "--environments", str(scratch.parent / "none")
    )
    assert done.returncode == 0, done.stderr
    assert shown["seconds"].keys() == shown["scan_seconds"].keys() == {"cosco", "cosco_replicas_2"}
    assert shown["missing"] == ["spark", "ray"]
    assert shown["speedup"] == {}
    assert shown["rows"]["rows"] == 20_000
    assert {"machine", "versions", "settings", "command", "commit"} <= shown.keys()
    assert "spark: missing: run make peers" in done.stdout
    assert "ray: missing: run make peers" in done.stdout


def test_a_failed_peer_says_why_and_the_others_go_on(scratch: Path) -> None:
    environments = scratch.parent / "environments"
    install(environments, "spark", "echo first >&2\necho there is no Java here >&2\nexit 3\n")
    install_with_harness(environments, "dask", lost=0)
    install_with_harness(environments, "ray", lost=1)
    done, shown = bench(
        scratch,
        *PEERS,
        "--environments",
        str(environments),
        "--replicas",
        "1",
        "--peers",
        "spark,dask,ray",
    )
    assert done.returncode == 1, done.stderr
    assert shown["problems"].keys() == {"spark", "ray"}
    assert shown["problems"]["spark"].endswith("it ended with code 3: there is no Java here")
    assert "19999" in shown["problems"]["ray"]
    assert shown["seconds"].keys() == {"cosco", "dask"}
    assert shown["speedup"]["dask"] == shown["seconds"]["dask"] / shown["seconds"]["cosco"]
    assert shown["cpu_seconds"].keys() == shown["seconds"].keys()
    assert shown["cpu_seconds"]["cosco"] > 0
    assert shown["missing"] == []
    assert "there is no Java here" in done.stdout


HANG = """\
sleep 3600 &
touch "$(dirname "$0")/../started"
sleep 3600
"""


def test_a_peer_that_hangs_is_ended(scratch: Path) -> None:
    environments = scratch.parent / "environments"
    install(environments, "spark", HANG)
    chosen = ("--peers", "spark", "--replicas", "", "--timeout-s", "1")
    done, shown = bench(scratch, *PEERS, "--environments", str(environments), *chosen)
    assert done.returncode == 1
    assert "had not ended after 1 s" in shown["problems"]["spark"]


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_peers_leave_nothing(scratch: Path, signum: signal.Signals) -> None:
    environments = scratch.parent / "environments"
    install(environments, "spark", HANG)
    chosen = ("--peers", "spark", "--replicas", "", "--environments", str(environments))
    process = subprocess.Popen(
        command("bench", *PEERS, *chosen),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment(TMPDIR=str(scratch)),
    )
    with process:
        running = psutil.Process(process.pid)
        while not (environments / "spark" / "started").exists():
            assert process.poll() is None
        children = running.children(recursive=True)
        process.send_signal(signum)
        assert process.wait(timeout=30) == 128 + signum
    _, alive = psutil.wait_procs(children, timeout=10)
    assert not alive
    assert list(scratch.iterdir()) == []


def test_latency_of_a_row_and_of_a_small_exchange(scratch: Path) -> None:
    done, shown = bench(
        scratch,
        *("latency", "--rounds", "3", "--exchanges", "2", "--warm-ups", "1"),
        *("--mappers", "2", "--partitions", "3", "--rows", "50", "--workers", "2"),
    )
    assert done.returncode == 0, done.stderr
    for replicas in ("replicas_1", "replicas_2"):
        row, exchange = shown["row"][replicas], shown["exchange"][replicas]
        assert 0 < row["p50_ms"] <= row["p95_ms"] <= row["p99_ms"]
        assert row["samples"] == 3
        assert exchange["total"]["p50_ms"] > exchange["write"]["p50_ms"] > 0
        assert exchange.keys() == {"total", "create", "write", "read", "close"}
    assert "one row, replicas=2" in done.stdout


def test_micro_batches_in_groups_beside_a_peer(scratch: Path) -> None:
    environments = scratch.parent / "environments"
    program = environments / "ray.py"
    environments.mkdir()
    program.write_text(
        textwrap.dedent(f"""\
        import contextlib, sys
        sys.path.insert(0, {str(ROOT / "benchmarks" / "peers")!r})
        from micro_harness import Stages, main
        from micro_work import map_sums

        @contextlib.contextmanager
        def start(job):
            def run(iteration):
                # It loses a mapper of the larger shape.
                mappers = range(job.tasks if job.tasks == 2 else 1)
                return sum(map_sums(iteration, m, job.tasks) for m in mappers).tolist()
            yield Stages({{"sum": run}}, {{}}, {{}})

        main(start)
        """)
    )
    install(environments, "ray", f'shift\nexec "{sys.executable}" "{program}" "$@"\n')
    done, shown = bench(
        scratch,
        *("latency", "--rounds", "3", "--exchanges", "1", "--warm-ups", "2", "--rows", "50"),
        *("--mappers", "1", "--partitions", "1", "--workers", "1", "--replicas", "2,1"),
        *("--group", "1,3", "--tasks", "2,3", "--iterations", "4", "--peers", "ray,dask"),
        *("--environments", str(environments)),
    )
    assert done.returncode == 1, done.stderr
    assert shown["groups"] == shown["shapes"]["2x2"]["groups"]
    for shape in ("2x2", "3x3"):
        for size, iterations in (("1", 4), ("3", 6)):
            found = shown["shapes"][shape]["groups"][size]
            assert found["iterations"] == iterations
            assert 0 < found["p50_ms"] <= found["p95_ms"] <= found["max_ms"]
            assert found["coordination_ms"] > 0 < found["compute_ms"]
            assert found["mean_ms"] == pytest.approx(found["coordination_ms"] + found["task_ms"])
    assert shown["peers"].keys() == {"ray"}
    assert shown["peers"]["ray"]["samples"] == 4
    assert shown["speedup"]["ray"] == (
        shown["peers"]["ray"]["p50_ms"] / shown["groups"]["3"]["p50_ms"]
    )
    assert shown["problems"].keys() == {"dask", "ray 3x3"}
    assert "other sums than the exact ones" in shown["problems"]["ray 3x3"]
    assert shown["missing"] == ["dask"]
    assert shown["push_to_readable"]["samples"] == 3
    assert shown["group_settings"]["replicas"] == [1, 2]
    both = shown["replicas"]
    assert both["1"]["shapes"]["2x2"]["groups"] == shown["groups"] != both["2"]["shapes"]["2x2"]
    assert both["2"]["shapes"]["3x3"]["groups"]["3"]["iterations"] == 6
    assert both["2"]["push_to_readable"]["samples"] == 3
    assert "replicas=2, groups of 3" in done.stdout


def test_what_tls_costs_is_told_beside_the_run_without(scratch: Path) -> None:
    sizes = ("--rows", "20000", "--partitions", "4", "--warm-up-rows", "1000", "--ledger-rows", "0")
    done, shown = bench(scratch, "throughput", *sizes, "--memory", "32MiB", "--tls")
    assert done.returncode == 0, done.stderr
    assert "what TLS costs" in done.stdout
    assert shown["verified"]
    assert shown["with_tls"]["verified"]
    assert shown["with_tls"]["rows"] == shown["rows"] == 20_000


def test_one_daemon_takes_in_stores_and_serves_what_was_packed_beforehand(scratch: Path) -> None:
    done, shown = bench(
        scratch,
        *("daemon", "--rows", "50000", "--partitions", "4,30", "--mappers", "3"),
        *("--memory", "16MiB", "--runs", "2", "--codec", "none"),
    )
    assert done.returncode == 0, done.stderr
    for partitions in ("4", "30"):
        found = shown["partitions"][partitions]
        # A header of 64 bytes a block, a length of 4 a row.
        assert 5_200_000 < found["stored_bytes"] < 5_300_000
        assert found["stored_bytes"] > found["mean_frame_bytes"] >= found["mean_block_bytes"] > 0
        # Processor time comes in ticks of 10 ms, and so little may take none.
        assert min(value for what, value in found.items() if "cpu" not in what) > 0
        assert min(found.values()) >= 0
        assert len(shown["runs"][partitions]) == 2
    assert "taken in and stored" in done.stdout


def test_growth_has_curves_a_plot_and_the_metadata_service(scratch: Path) -> None:
    plot = scratch.parent / "growth.svg"
    done, shown = bench(
        scratch,
        *("growth", "--sizes", "1MB,2MB", "--partitions", "2,8", "--mappers", ""),
        *("--base-size", "1MB", "--base-partitions", "2", "--base-mappers", "3", "--runs", "1"),
        *("--memory", "16MiB", "--scale-mappers", "30", "--scale-partitions", "40"),
        *("--scale-daemons", "5", "--plot", str(plot)),
    )
    assert done.returncode == 0, done.stderr
    assert [point["size"] for point in shown["growth"]["size"]] == [1_000_000, 2_000_000]
    assert [point["partitions"] for point in shown["growth"]["partitions"]] == [2, 8]
    assert shown["growth"]["mappers"] == []
    assert shown["spread"]["size"] >= 1
    assert shown["spread"]["mappers"] is None
    assert all(point["s_per_gb"] > 0 for point in shown["growth"]["size"])
    scale = shown["metadata"]
    assert scale["commits_per_s"] > 0
    assert scale["base_rss_bytes"] <= scale["peak_rss_bytes"] < 2 << 30
    assert shown["settings"]["metadata"]["mappers"] == 30
    assert plot.read_text().startswith("<?xml")


def test_growth_that_cannot_fit_is_refused(scratch: Path) -> None:
    done, shown = bench(scratch, "growth", "--sizes", "900TB")
    assert (done.returncode, shown) == (2, {})
    assert "exchanges of 900000 GB need" in done.stderr
    assert "GB of disk" in done.stderr
