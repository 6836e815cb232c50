"""Daemons and the metadata service killed, paused, drained and restarted at random moments.

Each run is decided by its seed but for what the machine's timing adds. A failing one prints its
seed and how to run it again.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator

import pytest
from support.kill_runs import Runner

from cosco import LocalCluster

_VARIABLE = "COSCO_KILL_SEED"
_ALL = ("kill", "kill", "pause", "drain", "metadata")
_LEASE = ("--daemon-lease-s", "2")


@pytest.fixture(scope="module")
def shared() -> Iterator[Runner]:
    with Runner(LocalCluster(3, memory="32MiB", metadata_options=_LEASE)) as runner:
        yield runner


@pytest.fixture(scope="module")
def private() -> Iterator[Runner]:
    cluster = LocalCluster(3, memory="32MiB", shared_store=False, metadata_options=_LEASE)
    with Runner(cluster) as runner:
        yield runner


def seed_of(request: pytest.FixtureRequest) -> int:
    given = os.environ.get(_VARIABLE)
    seed = random.randrange(2**32) if given is None else int(given)
    print(f"again with: {_VARIABLE}={seed} pytest '{request.node.nodeid}'")
    return seed


@pytest.mark.parametrize("number", range(24))
def test_one_failure_loses_nothing(
    number: int, shared: Runner, request: pytest.FixtureRequest
) -> None:
    """Two copies, a store for all: nothing is ever computed again."""
    seed = seed_of(request)
    shared.run(f"one-{number}", seed, replicas=2, strict=True, kinds=_ALL)


@pytest.mark.parametrize("number", range(10))
def test_several_failures_at_once(
    number: int, shared: Runner, request: pytest.FixtureRequest
) -> None:
    seed = seed_of(request)
    losses = shared.run(f"several-{number}", seed, replicas=2, strict=False, kinds=_ALL)
    print(f"{losses} losses")


@pytest.mark.parametrize("number", range(8))
def test_one_copy_only(number: int, shared: Runner, request: pytest.FixtureRequest) -> None:
    seed = seed_of(request)
    losses = shared.run(f"single-{number}", seed, replicas=1, strict=False, kinds=_ALL)
    print(f"{losses} losses")


@pytest.mark.parametrize("number", range(5))
@pytest.mark.parametrize("replicas", [1, 2])
def test_stores_of_their_own(
    number: int, replicas: int, private: Runner, request: pytest.FixtureRequest
) -> None:
    seed = seed_of(request)
    losses = private.run(
        f"private-{replicas}-{number}", seed, replicas=replicas, strict=False, kinds=_ALL
    )
    print(f"{losses} losses")
