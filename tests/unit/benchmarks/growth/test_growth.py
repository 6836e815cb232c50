"""The shapes that growth is measured on, their rows, and what is made of the figures."""

from __future__ import annotations

import pytest
from cosco_bench.growth.growth import GrowthResult, ShapeFigures
from cosco_bench.harness.capacity import STOCK_ROWS
from cosco_bench.harness.flow import rows_of
from cosco_bench.settings import Growing, GrowthSettings, Shape

from cosco.errors import CapacityExceeded

SETTINGS = GrowthSettings(
    sizes=(400, 100), partitions=(8, 2), mappers=(), base_size=100, base_partitions=2,
    base_mappers=3, runs=2,
)  # fmt: skip


def test_each_way_to_grow_keeps_the_others_at_the_base() -> None:
    assert SETTINGS.shapes() == {
        Growing.SIZE: [Shape(100, 2, 3), Shape(400, 2, 3)],
        Growing.PARTITIONS: [Shape(100, 2, 3), Shape(100, 8, 3)],
        Growing.MAPPERS: [],
    }
    assert SETTINGS.distinct_shapes() == [Shape(100, 2, 3), Shape(100, 8, 3), Shape(400, 2, 3)]
    assert SETTINGS.rows == 2 * 2 * (1 + 1 + 4)


def test_curves_are_medians_per_gb_and_spreads_are_ratios() -> None:
    figures = {
        shape: ShapeFigures([1.0, 3.0, 2.0], [0.5], [4.0]) for shape in SETTINGS.distinct_shapes()
    }
    result = GrowthResult(SETTINGS, figures)
    small, large = result.curve(Growing.SIZE)
    assert small["s_per_gb"] == pytest.approx(2e7)
    assert large["s_per_gb"] == pytest.approx(5e6)
    assert result.spread(Growing.SIZE) == pytest.approx(4)
    assert result.spread(Growing.PARTITIONS) == pytest.approx(1)
    assert result.spread(Growing.MAPPERS) is None
    assert result.to_json()["target"] == {"size": 1.15, "partitions": 2.0, "mappers": 1.5}


def test_what_cannot_fit_is_refused() -> None:
    with pytest.raises(CapacityExceeded, match="exchanges of 1e\\+06 GB need"):
        GrowthSettings(sizes=(10**15,)).check()
    with pytest.raises(CapacityExceeded, match="GB of memory"):
        GrowthSettings(memory=1 << 50).check()
    with pytest.raises(CapacityExceeded, match="partitions need"):
        GrowthSettings(scale_mappers=10**13).check()


@pytest.mark.parametrize(("mapper", "rows"), [(0, 10), (3, STOCK_ROWS + 7), (5, 250_000), (1, 0)])
def test_a_mapper_gets_its_rows_with_their_keys(mapper: int, rows: int) -> None:
    pieces = list(rows_of(mapper, rows))
    assert sum(len(batch) for _, batch in pieces) == rows
    for keys, batch in pieces:
        assert len(keys) == len(batch)
        assert int.from_bytes(batch[0].as_py()[:8], "little") == keys[0]


def test_mappers_begin_at_places_of_their_own() -> None:
    first = [next(iter(rows_of(mapper, 1000)))[0][0] for mapper in range(20)]
    assert len(set(first)) == 20
