from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cosco.format.intervals import IntervalSet

spans = st.tuples(st.integers(0, 60), st.integers(1, 12)).map(lambda s: (s[0], s[0] + s[1]))


@given(st.lists(spans, max_size=40), st.lists(spans, max_size=40))
def test_behaves_like_a_set_of_integers(
    added: list[tuple[int, int]], asked: list[tuple[int, int]]
) -> None:
    intervals, model = IntervalSet(), set[int]()
    for start, end in added:
        intervals.add(start, end)
        model.update(range(start, end))
        for low, high in [*asked, (start, end)]:
            wanted = set(range(low, high))
            assert intervals.covers(low, high) == (wanted <= model)
            assert intervals.overlaps(low, high) == bool(wanted & model)
    found = list(zip(intervals._starts, intervals._ends, strict=True))
    assert set().union(*(range(*pair) for pair in found)) == model
    # Disjoint, ascending and not adjacent: the smallest form there is.
    assert all(one[1] < other[0] for one, other in pairwise(found))
    assert len(intervals) == len(found)


def test_rows_in_order_are_one_interval() -> None:
    intervals = IntervalSet()
    for start in range(0, 1000, 10):
        intervals.add(start, start + 10)
    assert list(zip(intervals._starts, intervals._ends, strict=True)) == [(0, 1000)]


@pytest.mark.parametrize(("start", "end"), [(3, 3), (4, 3)])
def test_an_empty_interval_is_refused(start: int, end: int) -> None:
    with pytest.raises(ValueError, match="empty interval"):
        IntervalSet().add(start, end)
