"""Groups in forked and spawned workers, and at the end of processes: see support/group_engine.py
for the cases."""

from __future__ import annotations

import os
import pickle
import signal

import pytest
from support.children import run_case
from support.group_engine import CASES, MAPPERS
from support.groups import make
from support.processes import python

from cosco import CoscoExchange, LocalCluster


@pytest.mark.parametrize("case", CASES)
def test_workers(case: str, metadata: str) -> None:
    run_case("group_engine", case, metadata)
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


ENDING = """
    import sys
    from cosco import CoscoExchangeGroup
    from cosco.client.groups import commit_outbox

    commit_outbox._EXIT_PATIENCE_S, commit_outbox._EXIT_TRY_S = 0.8, 0.4
    group = CoscoExchangeGroup(sys.argv[1], 1, 3, 1, metadata=sys.argv[2], lease_s=1.0)
    handle = group.handle()
    handle.writer(0, 0).close()
    handle.flush()
    print("ready", flush=True)
    sys.stdin.readline()
    reader = handle.reader(1, 0)
    handle.writer(2, 0).close()
    group.release(0)
"""


def test_a_process_ends_soon_although_the_service_is_silent(
    cluster: LocalCluster, metadata: str, name: str
) -> None:
    """With commits and releases to tell, and a lease to renew."""
    with python(ENDING, name, metadata) as process:
        assert process.stdin is not None
        os.kill(cluster.metadata_service.pid, signal.SIGSTOP)
        try:
            process.stdin.write("\n")
            process.stdin.flush()
            assert process.wait(10) == 0
        finally:
            os.kill(cluster.metadata_service.pid, signal.SIGCONT)
