"""Totals of all daemons never fall, whoever comes, goes or starts again."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from support.metadata_cluster import Cluster

from cosco.metadata.state.daemons.figure_totals import TOTALS, FigureTotals
from cosco.protocol.daemon_figures import COUNTERS, DaemonFigures


def totals(cluster: Cluster) -> dict[str, float]:
    return dict(zip(TOTALS, cluster.state.view.totals(), strict=True))


def tell(cluster: Cluster, incarnation: int, **figures: Any) -> None:
    assert cluster.beat(incarnation, figures=DaemonFigures(**figures)).known


def test_counters_are_added_up_and_what_is_there_now_is_that_of_the_living() -> None:
    cluster = Cluster(1, 2)
    tell(cluster, 1, bytes_received=100, waited_s=0.5, copies_bytes=7)
    tell(cluster, 2, bytes_received=10, copies_bytes=3)
    tell(cluster, 1, bytes_received=150, waited_s=0.75, copies_bytes=5)
    found = totals(cluster)
    assert (found["bytes_received"], found["waited_s"], found["copies_bytes"]) == (160, 0.75, 8)
    assert cluster.beat(2).known  # an older one that tells no figures
    assert totals(cluster) == found
    cluster.kill(1)
    cluster.kill(2)
    found = totals(cluster)
    assert (found["bytes_received"], found["waited_s"], found["copies_bytes"]) == (160, 0.75, 0)


def test_a_new_start_begins_at_nothing_and_adds_to_what_there_was() -> None:
    cluster = Cluster(1)
    tell(cluster, 1, writes=40)
    cluster.register(2, address="host:1")
    tell(cluster, 2, writes=2)
    assert totals(cluster)["writes"] == 42


def test_who_was_thought_dead_goes_on_from_what_it_told() -> None:
    cluster = Cluster(1, 2)
    cluster.create("names-both", partitions=8)
    tell(cluster, 1, reads=40, followers=3)
    cluster.kill(1)
    assert (totals(cluster)["reads"], totals(cluster)["followers"]) == (40, 0)
    cluster.register(1)
    tell(cluster, 1, reads=41)
    assert totals(cluster)["reads"] == 41


def test_what_was_done_before_the_service_began_is_no_leap() -> None:
    cluster = Cluster(1)
    tell(cluster, 1, writes=10**9)
    cluster.persist()
    cluster.restart()
    tell(cluster, 1, writes=10**9 + 1, push_streams=3)
    assert (totals(cluster)["writes"], totals(cluster)["push_streams"]) == (0, 3)
    tell(cluster, 1, writes=10**9 + 5)
    assert totals(cluster)["writes"] == 4


STEPS = st.lists(st.tuples(st.sampled_from(sorted(COUNTERS)), st.integers(0, 1000)), max_size=30)


@given(STEPS)
def test_no_total_ever_falls(steps: list[tuple[str, int]]) -> None:
    sums, told, before = FigureTotals(), DaemonFigures(), [0.0] * len(TOTALS)
    for name, value in steps:
        now = replace(told, **{name: value})
        sums.add(told, now)
        point = sums.point(())
        place = TOTALS.index(name)
        assert point[place] - before[place] == max(0, value - getattr(told, name))
        assert all(b >= a for a, b in zip(before, point, strict=True))
        told, before = now, point
