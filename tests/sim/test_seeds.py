"""The simulator's seeds that every `make test` runs, and that a seed is always the same run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from itertools import islice
from pathlib import Path

import pytest

from .scenario import seeds_of_groups

# `make test` gives it the time that other tests leave.
pytestmark = pytest.mark.timeout(1800)

ROOT = Path(__file__).resolve().parents[2]
SEEDS = 1200
#: What must have happened in five of them at least, by the names that `--coverage` prints.
HAPPENINGS = (
    "calls lost",
    "calls repeated",
    "calls repeated late",
    "messages late",
    "streams broken",
    "messages entered together",
    "fault: cut",
    "fault: kill daemon",
    "fault: kill daemons",
    "fault: kill after lag",
    "fault: pause daemon",
    "fault: power off",
    "fault: restart metadata",
    "fault: pause metadata",
    "fault: fail database",
    "fault: kill client",
    "fault: pause client",
    "fault: fill disk",
    "fault: fail disk",
    "fault: hang disk",
    "fault: take address",
    "fault: flip",
    "fault: delete",
    "fault: truncate",
    "fault: lose disk",
    "fault: trouble tier",
    "fault: lose flash",
    "fault: flip on flash",
    "daemon tier_put_bytes flash",
    "daemon tier_put_bytes then",
    "daemon tier_moves waited",
    "daemon tier_moves age",
    "daemon tier_moves room",
    "daemon tier_moves left",
    "daemon tier_moves all",
    "daemon tier_move_failures",
    "daemon tier_damaged",
    "daemon tier_saved",
    "daemon events flash_out",
    "daemon events flash_back",
    "daemon events moves_failing",
    "daemon events moves_recovered",
    "hosts lost alone",
    "ranges lost with others",
    "fault: speculate",
    "writes torn",
    "writes that hung",
    "daemon flush_failures",
    "daemon stopped",
    "drained and serving on",
    "metadata service stopped",
    "drivers replaced",
    "exchanges abandoned",
    "closes amid work",
    "runs that did not win",
    "commits forged",
    "stores forgotten",
    "old builds dropped",
    "tenants passed over",
    "tenants waiting together",
    "daemon refused tenant_streams",
    "old epochs dropped from memory",
    "daemon events epochs_dropped",
    "readers met a dropped build",
    "drains taken back",
    "exchanges closed by an operator",
    "callbacks",
    "applications",
    "callbacks of sources",
    "sources read",
    "runs that wrote columns",
    "daemon bytes_referenced",
    "direct: read",
    "direct: another store",
    "direct: hung",
    "direct: slow",
    "direct: refused",
    "direct: missing",
    "direct: short",
    "direct: zeros",
    "direct: flipped",
    "clients were told DataLost",
    "clients were told GenerationChanged",
    "clients were told ExchangeClosed",
    "daemon duplicates_dropped",
    "daemon fetch_failures",
    "daemon frames_refused not_assigned",
    "daemon frames_refused wrong_incarnation",
    "daemon frames_refused exchange_closed",
    "daemon marks",
    "extensions amid faults",
    "releases",
    "releases amid work",
    "groups closed amid work",
    "workers killed after a close",
    "workers killed after a close to moved ranges",
    "workers that ended in good order",
    "mappers that died before they committed",
    "callbacks of groups",
    "clients of groups were told ExchangeClosed",
)


def simulate(
    *arguments: str, hash_seed: str = "random", **environment: str
) -> subprocess.CompletedProcess[str]:
    """`python -m tests.sim` in processes of its own, as it replaces clocks and threads."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "tests.sim", *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": hash_seed, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
def test_every_seed_ends_with_the_committed_rows() -> None:
    done = simulate("--count", str(SEEDS), "--coverage")
    assert done.returncode == 0, f"\n{done.stdout}\n{done.stderr}"
    assert f"{SEEDS} seeds in" in done.stdout
    seen = {name: int(n) for n, name in re.findall(r"^ +(\d+) (.+)$", done.stdout, re.MULTILINE)}
    assert not [name for name in HAPPENINGS if seen.get(name, 0) < 5], f"\n{done.stdout}"


def test_a_seed_is_the_same_run_whatever_ran_before_it() -> None:
    """And whichever implementation of the mechanics runs in it."""
    seeds = [str(seed) for seed in (*range(14), *islice(seeds_of_groups(0), 1, 5))]
    runs = [
        simulate(*seeds, hash_seed="1"),
        simulate(*reversed(seeds), hash_seed="2", COSCO_NATIVE="off"),
    ]
    found = [dict(re.findall(r"seed (\d+): ok.* trace (\w+)", run.stdout)) for run in runs]
    assert len(found[0]) == len(seeds), f"\n{runs[0].stdout}\n{runs[0].stderr}"
    assert found[0] == found[1]
    assert len(set(found[0].values())) == len(seeds)


def test_every_break_is_in_the_docs() -> None:
    breaks = (ROOT / "tests" / "sim" / "breaks.py").read_text()
    documented = (ROOT / "docs" / "testing.md").read_text()
    names = re.findall(r'^@_break\(\s*"([a-z-]+)"', breaks, re.MULTILINE)
    assert re.findall(r"^\| `([a-z-]+)` \|", documented, re.MULTILINE) == names
    assert len(names) >= 10
