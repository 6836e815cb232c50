"""What micro-batches compute, and that the exact sums are those of the numbers."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from cosco_bench.latency import micro_work
from cosco_bench.latency.micro_work import FACTOR, KEYS, LOW_BITS, NUMBERS, exact_sums, map_sums
from cosco_bench.peers.peer_process import SCRIPTS
from cosco_bench.settings import MICRO_PEERS, LatencySettings

TASKS = 3


def test_peers_compute_the_same_by_the_same_file() -> None:
    """A link, as their environments have no Cosco: a copy would go its own way."""
    theirs = SCRIPTS / "micro_work.py"
    assert theirs.is_symlink()
    assert theirs.samefile(micro_work.__file__)


def test_sums_of_mappers_add_up_to_the_exact_ones() -> None:
    for iteration in (0, 1, 500):
        found = sum(map_sums(iteration, mapper, TASKS) for mapper in range(TASKS))
        assert np.array_equal(found, exact_sums(iteration, TASKS))
        assert found.shape == (TASKS, KEYS)
    assert not np.array_equal(exact_sums(0, TASKS), exact_sums(1, TASKS))


def test_exact_sums_are_those_of_plain_integers() -> None:
    expected = Counter[int]()
    for number in range(2 * TASKS * NUMBERS, 3 * TASKS * NUMBERS):
        expected[(number * FACTOR >> LOW_BITS) % (TASKS * KEYS)] += number & 1023
    exact = exact_sums(2, TASKS)
    assert {key: exact[key % TASKS, key // TASKS] for key in range(TASKS * KEYS)} == expected


@pytest.mark.parametrize(
    ("groups", "warm_ups", "steps"), [((1,), 2, 7), ((3,), 2, 8), ((1, 3), 0, 11)]
)
def test_iterations_fill_whole_groups(groups: tuple[int, ...], warm_ups: int, steps: int) -> None:
    settings = LatencySettings(
        group=groups, tasks=(2,), iterations=5, warm_ups=warm_ups, rounds=0, peers=(),
        replicas=(1,),
    ).micro  # fmt: skip
    assert settings is not None
    assert settings.steps == steps + warm_ups
    assert replace(settings, replicas=(1, 2)).steps == 2 * settings.steps


def test_every_peer_has_a_program() -> None:
    for program in MICRO_PEERS.values():
        assert (SCRIPTS / program.script).exists()
