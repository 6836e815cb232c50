from __future__ import annotations

import time
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cosco.errors import CapacityExceeded
from cosco.metadata.state.daemons.placement import (
    Avoid,
    Candidate,
    cut_ranges,
    group_range_count,
    place,
    place_next,
    range_count,
)
from cosco.protocol.mark import MAX_MARK_PARTITIONS


def daemon(incarnation: int, host: str = "", free: int = 1 << 30, assigned: int = 0) -> Candidate:
    return Candidate(incarnation, host or f"host-{incarnation}", free, assigned)


@given(st.integers(1, 10_000), st.data())
def test_ranges_cover_all_partitions_evenly(partitions: int, data: st.DataObject) -> None:
    count = data.draw(st.integers(1, min(partitions, 300)))
    ranges = cut_ranges(partitions, count)
    assert [r.index for r in ranges] == list(range(count))
    assert [p for r in ranges for p in range(r.first, r.first + r.count)] == list(range(partitions))
    sizes = {r.count for r in ranges}
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize(
    ("partitions", "daemons", "per_daemon", "expected"),
    [(1, 4, 2, 1), (7, 4, 2, 7), (1000, 4, 2, 8), (1000, 1, 3, 3), (5, 0, 2, 1)],
)
def test_range_count(partitions: int, daemons: int, per_daemon: int, expected: int) -> None:
    assert range_count(partitions, daemons, per_daemon) == expected


@pytest.mark.parametrize(
    ("partitions", "daemons", "expected"),
    [(1, 4, 1), (16, 4, 1), (17, 4, 2), (64, 4, 4), (1000, 4, 4), (16, 1, 1), (5, 0, 1),
     (MAX_MARK_PARTITIONS, 1, 1), (MAX_MARK_PARTITIONS + 1, 1, 2)],
)  # fmt: skip
def test_groups_have_few_ranges(partitions: int, daemons: int, expected: int) -> None:
    assert group_range_count(partitions, daemons) == expected


def test_equal_daemons_take_turns() -> None:
    placed = place(4, [daemon(2), daemon(1)], replicas=1)
    assert [primary.incarnation for primary, _ in placed] == [1, 2, 1, 2]


def test_more_free_memory_takes_more() -> None:
    placed = place(6, [daemon(1, free=100), daemon(2, free=200)], replicas=1)
    assert Counter(primary.incarnation for primary, _ in placed) == {1: 2, 2: 4}


def test_a_large_cluster_is_placed_at_once() -> None:
    began = time.process_time()
    placed = place(4000, [daemon(n) for n in range(2000)], replicas=2)
    assert time.process_time() - began < 4.0  # looking at every daemon each time takes 13 s
    assert set(Counter(d.incarnation for p, q in placed for d in (p, *q)).values()) == {4}


def test_what_a_daemon_has_counts() -> None:
    placed = place(2, [daemon(1, assigned=2), daemon(2)], replicas=1)
    assert [primary.incarnation for primary, _ in placed] == [2, 2]


def test_full_daemons_are_still_balanced() -> None:
    placed = place(4, [daemon(1, free=0), daemon(2, free=0)], replicas=1)
    assert Counter(primary.incarnation for primary, _ in placed) == {1: 2, 2: 2}


@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.integers(0, 1 << 40), st.integers(0, 5)),
        min_size=1,
        max_size=12,
    ),
    st.integers(1, 20),
    st.integers(1, 2),
)
def test_copies_are_on_different_hosts(
    hosts: list[tuple[str, int, int]], ranges: int, replicas: int
) -> None:
    daemons = [daemon(i, host, free, n) for i, (host, free, n) in enumerate(hosts, 1)]
    if len({d.host_id for d in daemons}) < replicas:
        with pytest.raises(CapacityExceeded, match="on 2 hosts, there are daemons on 1"):
            place(ranges, daemons, replicas)
        return
    placed = place(ranges, daemons, replicas)
    assert placed == place(ranges, daemons[::-1], replicas)
    assert len(placed) == ranges
    for primary, others in placed:
        assert len(others) == replicas - 1
        assert primary.host_id not in {other.host_id for other in others}


def test_no_daemon() -> None:
    with pytest.raises(CapacityExceeded, match=r"no shuffle daemon .* start cosco-shuf"):
        place(1, [], 1)


def test_primaries_are_spread_though_every_daemon_has_a_copy_of_everything() -> None:
    placed = place(4, [daemon(1), daemon(2)], replicas=2)
    assert [primary.incarnation for primary, _ in placed] == [1, 2, 1, 2]


def test_exchanges_of_one_range_begin_with_another_daemon_each() -> None:
    daemons = [daemon(n) for n in (1, 2, 3)]
    firsts = [place(1, daemons, replicas=2, turn=turn)[0][0].incarnation for turn in range(4)]
    assert firsts == [1, 2, 3, 1]


@pytest.mark.parametrize(
    ("min_replicas", "avoid", "expected"),
    [
        (1, Avoid(), [1, 2]),
        (1, Avoid(as_primary=frozenset({1})), [2, 1]),
        (1, Avoid(as_primary=frozenset({1, 2})), [1, 2]),  # one of them must be
        (1, Avoid(as_any=frozenset({1})), [2]),
        (2, Avoid(as_any=frozenset({1})), [1, 2]),  # rather this than not at all
        (1, Avoid(as_any=frozenset({1, 2})), [1, 2]),
    ],
)
def test_the_next_place_of_a_range(min_replicas: int, avoid: Avoid, expected: list[int]) -> None:
    daemons = [daemon(1), daemon(2)]
    chosen = place_next(daemons, 2, min_replicas, avoid, turn=0)
    assert chosen is not None
    assert [c.incarnation for c in (chosen[0], *chosen[1])] == expected


def test_the_next_place_takes_what_hosts_there_are() -> None:
    one_host = [daemon(1, "h"), daemon(2, "h")]
    chosen = place_next(one_host, 2, 1, Avoid(), turn=0)
    assert chosen is not None
    assert chosen[1] == ()
    assert place_next(one_host, 2, 2, Avoid(), turn=0) is None
    assert place_next([], 1, 1, Avoid(), turn=0) is None
