"""Groups in forked and spawned workers, and at the end of processes: see support/group_engine.py
for the cases."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import pytest
from support.group_engine import CASES, MAPPERS
from support.groups import make

from cosco import CoscoExchange

ENGINE = Path(__file__).parents[1] / "support" / "group_engine.py"


@pytest.mark.parametrize("case", CASES)
def test_workers(case: str, metadata: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-W", "error", ENGINE, case, metadata],
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "ok\n", "")
    if case == "ending":
        done = CoscoExchange.attach("ending/0", metadata=metadata)
        assert done.progress().mappers_committed == MAPPERS


def test_a_handle_is_small(metadata: str, name: str) -> None:
    with make(name, metadata, partitions=64, size=100, mappers=64) as group:
        handle = group.handle()
        assert len(pickle.dumps(handle)) < 4096
        for _ in range(3):
            group.extend(100)
        assert len(pickle.dumps(group.handle())) < 4096
        for i in range(0, 400, 2):
            group.release(i)
        assert len(pickle.dumps(group.handle())) < 4096
