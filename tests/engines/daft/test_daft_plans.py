"""On many machines, where Daft shuffles: what follows a repartition needs no other shuffle.

Daft shuffles on Ray alone, and a process that has chosen Ray stays with it, so a program of its own
runs there.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

PROGRAM = """if True:
    import contextlib, gc, io, json, sys
    import daft, ray
    from daft import col
    from cosco.daft import repartition
    from cosco.observe import fetch_status

    def plan(frame):
        text = io.StringIO()
        frame.explain(True, file=text)
        return text.getvalue().split("== Physical Plan ==")[1]

    def rows(frame, key):
        return frame.sort(key).to_pydict()

    metadata = sys.argv[1]
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, configure_logging=False)
    daft.set_runner_ray()
    frame = daft.from_pydict({"key": [i % 50 for i in range(1000)], "x": list(range(1000))})
    frame = frame.into_partitions(3)
    names = daft.from_pydict({"key": list(range(50)), "name": [f"n{i}" for i in range(50)]})
    shuffled = repartition(frame, 4, "key", metadata=metadata)
    others = repartition(names, 4, "key", metadata=metadata)
    jobs = {
        "groupby": lambda one, other: one.groupby("key").agg(col("x").sum()),
        "distinct": lambda one, other: one.select("key").distinct(),
        "join": lambda one, other: one.join(other, on="key", strategy="hash")
            .groupby("name").agg(col("x").sum()),
        "half a join": lambda one, other: one.join(names, on="key", strategy="hash")
            .groupby("name").agg(col("x").sum()),
        "joined frames": lambda one, other: one.join(other, on="key", strategy="hash")
            .groupby("key").agg(col("x").sum()),
    }
    found = {}
    for name, job in jobs.items():
        key = "name" if "join" in name and name != "joined frames" else "key"
        mine, theirs = job(shuffled, others), job(frame, names)
        found[name] = [plan(mine), plan(theirs), rows(mine, key) == rows(theirs, key)]
    del shuffled, others, mine
    jobs.clear()
    job = None
    gc.collect()
    ray.shutdown()
    print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def found(services: Any) -> dict[str, tuple[str, str, bool]]:
    """Plans with and without Cosco, by job, and whether their results are the same."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, services.metadata],
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
        env={**os.environ, "RAY_AUTH_MODE": "disabled"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    result: dict[str, tuple[str, str, bool]] = json.loads(done.stdout.splitlines()[-1])
    return result


@pytest.mark.parametrize(
    ("job", "shuffles", "without"),
    [("groupby", 0, 1), ("distinct", 0, 1), ("joined frames", 0, 2), ("half a join", 2, 3)],
)
def test_what_is_clustered_is_not_shuffled_again(
    found: dict[str, tuple[str, str, bool]], job: str, shuffles: int, without: int
) -> None:
    mine, theirs, _ = found[job]
    assert mine.count("Shuffle: Hash") == shuffles, mine
    assert theirs.count("Shuffle: Hash") == without, theirs


def test_results_are_those_of_daft_alone(found: dict[str, tuple[str, str, bool]]) -> None:
    assert {job: same for job, (_, _, same) in found.items()} == dict.fromkeys(found, True)
