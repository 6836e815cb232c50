"""Datasets give through Cosco what they give with Ray alone."""

from __future__ import annotations

import datetime as dt
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import ray
import ray.data
from ray.data.aggregate import AggregateFn, Count, Max, Mean, Std, Sum, Unique
from support.ray_datasets import ExchangesMade, both, in_some_order, none_is_left

import cosco.ray

Dataset = ray.data.Dataset
Shuffle = Callable[[Dataset], Dataset]

# Workers cannot import tests.
ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])

# Ray sorts data frames by a call that pandas 3.1 wants no more.
pytestmark = pytest.mark.filterwarnings("ignore:The inplace keyword:DeprecationWarning")

ROWS = 1200


def frame() -> pd.DataFrame:
    draw = np.random.default_rng(7)
    return pd.DataFrame(
        {
            "key": draw.integers(0, 60, ROWS),
            # Whole 1024ths, whose sums are exact in any order: Ray adds as blocks come.
            "x": draw.integers(0, 1024, ROWS) / 1024,
            "text": [f"v{i % 37}" for i in range(ROWS)],
        }
    )


def source(blocks: int = 4) -> Dataset:
    """A dataset of as many Arrow blocks, each of which has its own map task."""
    ray.data.DataContext.get_current().shuffle_input_batch_bytes = 1
    tables = [pa.Table.from_pandas(frame().iloc[i::blocks]) for i in range(blocks)]
    return ray.data.from_arrow(tables)


def doubled(batch: dict[str, Any]) -> dict[str, Any]:
    return {**batch, "x": batch["x"] * 2}


def counted(group: dict[str, Any]) -> dict[str, Any]:
    return {"key": group["key"][:1], "n": np.array([len(group["key"])])}


def other() -> Dataset:
    keys = np.arange(0, 90, 2)
    return ray.data.from_arrow(
        [pa.table({"key": keys[i::2], "name": [f"n{key}" for key in keys[i::2]]}) for i in (0, 1)]
    )


def joined(kind: str) -> Shuffle:
    return lambda dataset: dataset.join(other(), join_type=kind, num_partitions=3, on=("key",))


SET = AggregateFn(
    init=lambda _: [],
    accumulate_row=lambda texts, row: [*texts, row["text"]],
    merge=lambda one, more: one + more,
    finalize=lambda texts: "".join(sorted(texts)),
    name="texts",
)

#: By name: the shuffle, and how many exchanges it is.
KEYED: dict[str, tuple[Shuffle, int]] = {
    "repartition": (lambda d: d.repartition(5, keys=["key"]), 1),
    "repartition by two keys": (lambda d: d.repartition(3, keys=["key", "text"]), 1),
    "repartition and sort": (lambda d: d.repartition(3, keys=["key"], sort=True), 1),
    "more partitions than keys": (lambda d: d.repartition(70, keys=["key"]), 1),
    "repartition with a fused map": (
        lambda d: d.repartition(3, keys=["key"]).map_batches(doubled),
        1,
    ),
    "aggregates": (
        lambda d: d.groupby("key").aggregate(Count(), Sum("x"), Mean("x"), Max("text")),
        1,
    ),
    "an aggregate of values": (lambda d: d.groupby("key").aggregate(Unique("text")), 1),
    "an aggregate in Python": (lambda d: d.groupby("key").aggregate(SET), 1),
    "map_groups": (lambda d: d.groupby("key").map_groups(counted), 1),
    "inner join": (joined("inner"), 2),
    "outer join": (joined("full_outer"), 2),
    "semi join": (joined("left_semi"), 2),
    "two shuffles": (
        lambda d: d.repartition(3, keys=["text"]).groupby("key").count(),
        2,
    ),
}

ORDERED: dict[str, tuple[Shuffle, int]] = {
    "sort": (lambda d: d.sort("x"), 1),
    "sort by two columns": (lambda d: d.sort(["key", "x"], descending=[True, False]), 1),
    "sort with boundaries": (lambda d: d.sort("key", boundaries=[10, 30]), 1),
    "random_shuffle": (lambda d: d.random_shuffle(seed=3), 1),
    "random_shuffle of a fused map": (lambda d: d.map_batches(doubled).random_shuffle(seed=3), 1),
    "repartition(shuffle=True)": (lambda d: d.repartition(3, shuffle=True), 1),
    "repartition(shuffle=True) of a fused map": (
        lambda d: d.map_batches(doubled).repartition(9, shuffle=True),
        1,
    ),
    "shuffle after shuffle": (lambda d: d.random_shuffle(seed=1).sort(["x", "text"]), 2),
}


@pytest.mark.parametrize("shuffle", KEYED)
def test_keyed_shuffles(shuffle: str, metadata: str, exchanges_made: ExchangesMade) -> None:
    job, exchanges = KEYED[shuffle]
    alone, through = both(lambda: job(source()), metadata)
    assert alone
    assert in_some_order(through) == in_some_order(alone)
    assert exchanges_made() == exchanges


def test_deviations_but_for_what_the_order_of_blocks_rounds(metadata: str) -> None:
    alone, through = both(lambda: source().groupby("key").aggregate(Std("x")), metadata)
    expected = {row["key"]: pytest.approx(row["std(x)"]) for row in alone}
    assert len(alone) == len(through) == 60
    assert {row["key"]: row["std(x)"] for row in through} == expected


@pytest.mark.parametrize("shuffle", ORDERED)
def test_ordered_shuffles(shuffle: str, metadata: str, exchanges_made: ExchangesMade) -> None:
    job, exchanges = ORDERED[shuffle]
    alone, through = both(lambda: job(source()), metadata)
    assert through == alone
    assert exchanges_made() == exchanges
    none_is_left(metadata)


def test_the_seed_of_a_shuffle_without_one_is_another_each_time(metadata: str) -> None:
    first, second = both(lambda: source().random_shuffle(), metadata)
    again = source().random_shuffle().take_all()
    assert first != second != again
    assert in_some_order(second) == in_some_order(again) == in_some_order(first)


def test_what_needs_no_shuffle_makes_no_exchange(
    metadata: str, exchanges_made: ExchangesMade
) -> None:
    alone, through = both(lambda: source().repartition(2).map_batches(doubled), metadata)
    assert through == alone
    assert exchanges_made() == 0


# --- blocks ---------------------------------------------------------------------------------------


def arrow(*tables: pa.Table) -> Callable[[], Dataset]:
    return lambda: ray.data.from_arrow(list(tables))


def items(make: Callable[[int], Any]) -> Callable[[], Dataset]:
    return lambda: ray.data.from_items(
        [{"key": i % 5, "value": make(i)} for i in range(40)], override_num_blocks=4
    )


def pandas_blocks() -> Dataset:
    return ray.data.from_pandas([frame().iloc[i::4] for i in range(4)])


def keys(first: int) -> pa.Array:
    return pa.array(range(first, first + 8))


BLOCKS: dict[str, Callable[[], Dataset]] = {
    "tensors": items(lambda i: np.full((2, 3), i)),
    "ragged tensors": items(lambda i: np.full((i % 3 + 1, 2), i)),
    "nested": items(lambda i: {"a": [i, None], "b": {"c": f"x{i}"}}),
    "python objects": items(lambda i: complex(i, 1)),
    "times": items(lambda i: dt.datetime(2024, 1, 1, tzinfo=dt.UTC) + dt.timedelta(hours=i)),
    "nulls": items(lambda i: None if i % 3 else i),
    "long texts": items(lambda i: "x" * 100_000 * (i % 3)),
    "pandas": pandas_blocks,
    "dictionaries": arrow(
        *(
            pa.table({"key": keys(i), "value": pa.array(list("abcabcab")).dictionary_encode()})
            for i in range(3)
        )
    ),
    "a column without a type": arrow(
        pa.table({"key": keys(0), "value": pa.nulls(8)}),
        pa.table({"key": keys(4), "value": pa.array(range(8))}),
    ),
    "no rows": arrow(pa.table({"key": keys(0)[:0], "value": keys(0)[:0]})),
    "a block without rows": arrow(
        pa.table({"key": keys(0)[:0], "value": keys(0)[:0]}),
        pa.table({"key": keys(0), "value": keys(1)}),
    ),
}

WAYS: dict[str, Shuffle] = {
    "keyed": lambda d: d.repartition(3, keys=["key"]),
    "sort": lambda d: d.sort("key"),
    "random": lambda d: d.random_shuffle(seed=2),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("blocks", BLOCKS)
def test_blocks_stay_what_they_are(blocks: str, way: str, metadata: str) -> None:
    alone, through = both(lambda: WAYS[way](BLOCKS[blocks]()), metadata)
    if way == "random":
        assert repr(through) == repr(alone)
    assert in_some_order(through) == in_some_order(alone)


@pytest.mark.parametrize("way", WAYS)
def test_schemas_stay_what_they_are(way: str, metadata: str) -> None:
    """Also those of partitions without rows."""

    def schemas() -> set[str]:
        blocks = WAYS[way](source()).to_arrow_refs()
        return {str(block.schema) for block in ray.get(blocks)}

    alone = schemas()
    cosco.ray.enable(metadata)
    assert schemas() == alone


def test_blocks_of_different_schemas_get_types_that_hold_all(metadata: str) -> None:
    """Ray alone does that only where they meet in one task."""
    ray.data.DataContext.get_current().shuffle_input_batch_bytes = 1
    cosco.ray.enable(metadata)
    dataset = ray.data.from_arrow(
        [
            pa.table({"key": keys(0), "value": pa.array(range(8), pa.int32())}),
            pa.table({"key": keys(0), "value": pa.array([0.5] * 8)}),
        ]
    )
    rows = dataset.repartition(3, keys=["key"], sort=True).take_all()
    assert sorted(row["value"] for row in rows) == [0, *[0.5] * 8, *range(1, 8)]
