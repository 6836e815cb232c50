"""Operations that shuffle: the same results as pandas, and through Cosco."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import dask
import dask.bag
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
from distributed import Client

from cosco.dask.dask_expression import CoscoShuffle

ROWS = 600
RANDOM = np.random.default_rng(14)
FRAME = pd.DataFrame(
    {
        "key": RANDOM.integers(0, 50, ROWS),
        "x": RANDOM.random(ROWS),
        "name": pd.array([f"v{i % 37}" for i in range(ROWS)], dtype="string[pyarrow]"),
        "at": pd.date_range("2024-01-01", periods=ROWS, freq="min", tz="Europe/Berlin"),
    }
)
OTHER = pd.DataFrame({"key": np.arange(0, 50, 2), "label": np.arange(25) * 1.5})
#: On the dask or the pandas frame, and how the result is ordered to be compared.
OPERATIONS: dict[str, Callable[[Any, Any], Any]] = {
    "merge": lambda frame, other: frame.merge(other, on="key", how="left"),
    "merge, outer": lambda frame, other: frame.merge(other, on="key", how="outer"),
    "groupby apply": lambda frame, _: frame.groupby("key").apply(
        lambda group: group.x.sum(), **_meta(frame, ("x", "f8"))
    ),
    "groupby transform": lambda frame, _: frame.groupby("key").x.transform(
        "sum", **_meta(frame, ("x", "f8"))
    ),
    "groupby median": lambda frame, _: frame.groupby("key").x.median(),
    "groupby with several outputs": lambda frame, _: frame.groupby("key").agg(
        {"x": "sum"}, **_if_dask(frame, split_out=3)
    ),
    "drop_duplicates": lambda frame, _: frame[["key"]].drop_duplicates(
        **_if_dask(frame, split_out=3)
    ),
    "nunique": lambda frame, _: pd.Series(
        [frame.name.nunique(**_if_dask(frame, split_out=2))]
        if isinstance(frame, pd.DataFrame)
        else [frame.name.nunique(split_out=2).compute()]
    ),
    "value_counts": lambda frame, _: frame.name.value_counts(**_if_dask(frame, split_out=2)),
    "set_index": lambda frame, _: frame.set_index("at", **_if_dask(frame, npartitions=4)),
    "sort_values": lambda frame, _: frame.sort_values("x"),
    "sort_values of texts": lambda frame, _: frame.sort_values(["name", "x"]),
}
#: Results whose order is said by the operation.
ORDERED = {"set_index", "sort_values", "sort_values of texts"}


def _if_dask(frame: Any, **options: Any) -> dict[str, Any]:
    return {} if isinstance(frame, pd.DataFrame) else options


def _meta(frame: Any, meta: object) -> dict[str, Any]:
    return _if_dask(frame, meta=meta)


def in_order(result: Any) -> pd.DataFrame:
    frame = result.to_frame("value") if isinstance(result, pd.Series) else result
    frame = frame.reset_index() if frame.index.name is not None else frame
    return frame.sort_values(list(frame.columns)).reset_index(drop=True)


def shuffles_of(collection: Any) -> list[Any]:
    return list(collection.optimize(fuse=False).expr.find_operations(CoscoShuffle))


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_gives_what_pandas_gives(client: Client, name: str) -> None:
    operation = OPERATIONS[name]
    lazy = operation(dd.from_pandas(FRAME, npartitions=5), dd.from_pandas(OTHER, npartitions=3))
    if hasattr(lazy, "compute"):
        assert shuffles_of(lazy), "it did not go through Cosco"
        lazy = lazy.compute()
    expected = operation(FRAME, OTHER)
    if name in ORDERED:
        pd.testing.assert_frame_equal(lazy, expected, check_freq=False)
    else:
        pd.testing.assert_frame_equal(
            in_order(lazy), in_order(expected), check_names=False, check_dtype=False
        )


def test_one_partition_is_read_without_the_others(client: Client) -> None:
    whole = dd.from_pandas(FRAME, npartitions=5).shuffle("key", npartitions=6)
    parts = dask.compute(*whole.to_delayed())
    pd.testing.assert_frame_equal(whole.partitions[2].compute(), parts[2])
    pd.testing.assert_frame_equal(
        whole.partitions[[4, 1]].compute(), pd.concat([parts[4], parts[1]])
    )


def test_the_first_rows(client: Client) -> None:
    """Of one partition alone, or of all until there are enough. (`tail` fails with any method.)"""
    whole = dd.from_pandas(FRAME, npartitions=5).shuffle("key", npartitions=4)
    parts = dask.compute(*whole.to_delayed())
    pd.testing.assert_frame_equal(whole.head(3), parts[0].head(3))
    most = len(FRAME) - 1
    pd.testing.assert_frame_equal(whole.head(most, npartitions=-1), pd.concat(parts).head(most))


def test_results_that_come_and_go_while_others_are_kept(client: Client) -> None:
    """Outputs of one shuffle that are asked for later, or again, are read; nothing is mixed up."""
    shuffled = dd.from_pandas(FRAME, npartitions=5).shuffle("key", npartitions=4)
    parts = dask.compute(*shuffled.to_delayed())
    first = client.compute(shuffled.partitions[1])
    pd.testing.assert_frame_equal(first.result(timeout=60), parts[1])
    second = client.compute(shuffled.partitions[[1, 3]])
    first.release()
    pd.testing.assert_frame_equal(second.result(timeout=60), pd.concat([parts[1], parts[3]]))
    third = client.compute(shuffled)
    second.release()
    pd.testing.assert_frame_equal(third.result(timeout=60), pd.concat(parts))


def test_shuffles_at_the_same_time_and_of_each_other(client: Client) -> None:
    frame = dd.from_pandas(FRAME, npartitions=5)
    by_key = [client.compute(frame.shuffle("key", npartitions=n)) for n in (2, 3, 4)]
    chained = client.compute(frame.shuffle("key").shuffle("name").shuffle("x"))
    for future in (*by_key, chained):
        pd.testing.assert_frame_equal(future.result(timeout=100).sort_index(), FRAME)


@pytest.mark.parametrize("npartitions", [1, 20])
def test_more_partitions_or_fewer(client: Client, npartitions: int) -> None:
    got = dd.from_pandas(FRAME, npartitions=7).shuffle("key", npartitions=npartitions)
    assert got.npartitions == npartitions
    pd.testing.assert_frame_equal(got.compute().sort_index(), FRAME)


@pytest.mark.parametrize("keep", ["first", "last"])
def test_the_order_of_rows_with_one_key_is_kept(client: Client, keep: str) -> None:
    got = dd.from_pandas(FRAME, npartitions=5).drop_duplicates("key", keep=keep, split_out=3)
    expected = FRAME.drop_duplicates("key", keep=keep)
    pd.testing.assert_frame_equal(got.compute().sort_values("key"), expected.sort_values("key"))


def test_the_same_shuffle_twice_in_one_graph_and_in_two(client: Client) -> None:
    shuffled = dd.from_pandas(FRAME, npartitions=5).shuffle("key")
    total, largest = dask.compute(shuffled.x.sum(), shuffled.key.max())
    assert total == pytest.approx(FRAME.x.sum())
    assert largest == FRAME.key.max()
    first, second = shuffled.compute(), shuffled.compute()
    pd.testing.assert_frame_equal(first, second)


def test_a_kept_frame_can_be_shuffled_again(client: Client) -> None:
    kept = dd.from_pandas(FRAME, npartitions=5).shuffle("key").persist()
    again = kept.shuffle("name").compute()
    pd.testing.assert_frame_equal(again.sort_index(), FRAME)
    pd.testing.assert_frame_equal(kept.compute().sort_index(), FRAME)


def test_a_small_side_is_still_sent_to_all(client: Client) -> None:
    large, small = dd.from_pandas(FRAME, npartitions=40), dd.from_pandas(OTHER, npartitions=2)
    joined = large.merge(small, on="key")
    assert any("Broadcast" in type(one).__name__ for one in joined.optimize(fuse=False).expr.walk())
    pd.testing.assert_frame_equal(
        in_order(joined.compute()), in_order(FRAME.merge(OTHER, on="key")), check_dtype=False
    )


def test_groups_of_a_bag_go_by_tasks(client: Client) -> None:
    groups = dask.bag.from_sequence(range(20), npartitions=4).groupby(lambda n: n % 3)
    assert {key: sorted(values) for key, values in groups.compute()} == {
        key: list(range(key, 20, 3)) for key in range(3)
    }


def test_frames_of_delayed_parts_and_of_arrays(client: Client) -> None:
    """Where graphs are joined at a lower level, tasks of a shuffle stay apart."""
    shuffled = dd.from_pandas(FRAME[["key", "x"]], npartitions=5).shuffle("key")
    lengths = [dask.delayed(len)(part) for part in shuffled.to_delayed(optimize_graph=True)]
    assert sum(dask.compute(*lengths)) == ROWS
    values = shuffled[["x"]].to_dask_array(lengths=True)
    assert values.sum().compute() == pytest.approx(FRAME.x.sum())
