"""The last points are kept, as many as there is room for, and are JSON."""

from __future__ import annotations

import json

from cosco.metadata.http.recent_totals import RecentTotals


def test_the_last_points_are_kept_and_each_is_encoded_as_it_is_told() -> None:
    recent = RecentTotals(("at_s", "a", "b"), max_points=2)
    assert json.loads(recent.encoded()) == {"names": ["at_s", "a", "b"], "points": []}
    told = [recent.add(1.00049 + n, (n, n / 3)) for n in range(3)]
    assert json.loads(told[1]) == [2.0, 1, 0.333]
    found = json.loads(recent.encoded())
    assert found["points"] == [json.loads(one) for one in told[1:]]
