"""Frames that are repartitioned have the rows they had, wherever they go from there."""

from __future__ import annotations

import datetime as dt
import decimal
from collections import Counter
from typing import Any

import daft
import numpy as np
import pyarrow as pa
import pytest
from daft import DataType, col
from daft.expressions import ExpressionsProjection
from daft.recordbatch import MicroPartition

from cosco import InvalidArgument
from cosco.daft import repartition
from cosco.daft.private_parts_of_daft import with_partitions
from cosco.engine_versions import SUPPORTED

MOMENT = dt.datetime(2026, 3, 29, 1, 30, tzinfo=dt.UTC)
#: Three values of each type, and how Daft is told what they are if Arrow cannot say it.
COLUMNS: dict[str, tuple[Any, DataType | None]] = {
    "bool": (pa.array([True, None, False]), None),
    "int8": (pa.array([1, None, -3], pa.int8()), None),
    "uint64": (pa.array([2**64 - 1, None, 0], pa.uint64()), None),
    "float32": (pa.array([0.5, None, float("-inf")], pa.float32()), None),
    "string": (pa.array(["", None, "ж" * 300]), None),
    "binary": (pa.array([b"", None, b"\0\xff"]), None),
    "fixed binary": (pa.array([b"ab", None, b"cd"], pa.binary(2)), None),
    "date": (pa.array([MOMENT.date(), None, MOMENT.date()]), None),
    "time": (pa.array([1, None, 3], pa.time64("us")), None),
    "moment": (pa.array([MOMENT, None, MOMENT], pa.timestamp("us")), None),
    "zoned": (pa.array([MOMENT, None, MOMENT], pa.timestamp("us", "Europe/Berlin")), None),
    "duration": (pa.array([1, None, 3], pa.duration("us")), None),
    "decimal": (pa.array([decimal.Decimal("1.23"), None, decimal.Decimal("-9.99")]), None),
    "null": (pa.nulls(3), None),
    "list": (pa.array([[1], None, [2, 3]]), None),
    "struct": (pa.array([{"a": 1, "b": "x"}, None, {"a": None, "b": "y"}]), None),
    "map": (pa.array([[("a", 1)], None, []], pa.map_(pa.string(), pa.int64())), None),
    "list of structs": (pa.array([[{"a": [1, 2]}], None, []]), None),
    "pair": (pa.array([[1.0, 2.0], None, [3.0, 4.0]], pa.list_(pa.float32(), 2)), None),
    "embedding": (
        pa.array([[1.0, 2.0], None, [3.0, 4.0]], pa.list_(pa.float32(), 2)),
        DataType.embedding(DataType.float32(), 2),
    ),
    "fixed tensor": (
        pa.array([[1.0, 2.0], [0.0, 0.0], [3.0, 4.0]], pa.list_(pa.float32(), 2)),
        DataType.tensor(DataType.float32(), (2,)),
    ),
    "tensor": ([np.ones((2, 3)), np.zeros((1, 1)), np.arange(4.0)], None),
    "image": (
        [np.full((2, 2, 3), i, np.uint8) for i in range(3)],
        DataType.image("RGB"),
    ),
    "fixed image": (
        [np.full((2, 2, 3), i, np.uint8) for i in range(3)],
        DataType.image("RGB", 2, 2),
    ),
}


def numbers(rows: int = 5_000) -> daft.DataFrame:
    rng = np.random.default_rng(rows)
    return daft.from_pydict(
        {
            "key": pa.array(rng.integers(50, size=rows), mask=rng.random(rows) < 0.1),
            "text": [f"v{i % 7}" for i in range(rows)],
            "x": rng.integers(1_000, size=rows),
        }
    )


def rows_of(frame: daft.DataFrame) -> Counter[tuple[Any, ...]]:
    columns = frame.to_pydict()
    return Counter(zip(*(columns[name] for name in sorted(columns)), strict=True))


@pytest.mark.parametrize("partitions", [1, 4, 300])
def test_all_rows_come_out_once(metadata: str, partitions: int) -> None:
    frame = numbers()
    assert rows_of(repartition(frame, partitions, "key", metadata=metadata)) == rows_of(frame)


@pytest.mark.parametrize("partitions", [5, 50])
def test_a_partition_has_the_rows_that_daft_would_send_there(partitions: int) -> None:
    """So a frame of Daft's own is joined with it partition by partition."""
    rows = MicroPartition.from_arrow(numbers().to_arrow())
    found = [Counter[int | None]() for _ in range(partitions)]
    for row_partitions, batch in with_partitions(rows, ["key"], partitions):
        for partition, key in zip(
            np.broadcast_to(row_partitions, batch.num_rows), batch["key"].to_pylist(), strict=True
        ):
            found[partition][key] += 1
    parts = rows.partition_by_hash(ExpressionsProjection([col("key")]), partitions)
    assert found == [Counter(part.to_pydict()["key"]) for part in parts]


@pytest.mark.parametrize("keys", [("key",), ("text",), ("text", "key")])
def test_groups_are_whole(metadata: str, keys: tuple[str, ...]) -> None:
    frame = numbers()
    shuffled = repartition(frame, 4, *keys, metadata=metadata)
    wanted = frame.groupby(*keys).agg(col("x").sum(), col("x").count().alias("n"))
    assert rows_of(shuffled.groupby(*keys).agg(col("x").sum(), col("x").count().alias("n"))) == (
        rows_of(wanted)
    )
    assert rows_of(shuffled.select(*keys).distinct()) == rows_of(frame.select(*keys).distinct())


@pytest.mark.parametrize("how", ["inner", "left", "outer", "anti"])
def test_joins_are_those_of_daft(metadata: str, how: Any) -> None:
    frame = numbers(400)
    names = daft.from_pydict(
        {"key": [*range(0, 60, 2), None], "name": [f"n{i}" for i in range(31)]}
    )
    wanted = rows_of(frame.join(names, on="key", how=how))
    left = repartition(frame, 4, "key", metadata=metadata)
    right = repartition(names, 4, "key", metadata=metadata)
    for one, other in ((left, right), (left, names), (frame, right)):
        assert rows_of(one.join(other, on="key", how=how)) == wanted


def test_what_daft_leaves_to_the_source_is_done(metadata: str) -> None:
    shuffled = repartition(numbers(), 4, "key", metadata=metadata)
    frame = numbers()
    for select in (
        lambda one: one.where(col("key").is_null()),
        lambda one: one.where(col("x") < 100).select("text"),
        lambda one: one.select((col("x") + 1).alias("y")),
    ):
        assert rows_of(select(shuffled)) == rows_of(select(frame))
    assert shuffled.count_rows() == frame.count_rows()
    assert len(shuffled.limit(7).to_pydict()["x"]) == 7
    assert len(shuffled.where(col("x") >= 0).limit(7).to_pydict()["x"]) == 7


@pytest.mark.parametrize("name", COLUMNS)
def test_every_type_keeps_its_values_and_its_name(metadata: str, name: str) -> None:
    values, kind = COLUMNS[name]
    frame = daft.from_pydict({"key": [0, 1, 2], "value": values})
    if kind is not None:
        frame = frame.with_column("value", col("value").cast(kind))
    shuffled = repartition(frame, 2, "key", metadata=metadata)
    assert shuffled.schema() == frame.schema()
    found, wanted = shuffled.sort("key").to_arrow(), frame.sort("key").to_arrow()
    assert found.schema == wanted.schema
    assert found.equals(wanted)


def test_no_rows_and_empty_partitions(metadata: str) -> None:
    frame = numbers().where(col("x") < 0)
    shuffled = repartition(frame, 3, "key", metadata=metadata)
    assert shuffled.schema() == frame.schema()
    assert shuffled.to_pydict() == {"key": [], "text": [], "x": []}
    assert shuffled.groupby("key").agg(col("x").sum()).count_rows() == 0
    assert repartition(numbers().limit(0), 3, "key", metadata=metadata).count_rows() == 0
    one = repartition(daft.from_pydict({"key": [7]}), 50, "key", metadata=metadata)
    assert one.to_pydict() == {"key": [7]}


def test_a_frame_of_a_frame(metadata: str) -> None:
    frame = numbers()
    first = repartition(frame, 3, "key", metadata=metadata)
    assert rows_of(repartition(first, 5, "text", metadata=metadata)) == rows_of(frame)


@pytest.mark.parametrize(
    "kind",
    [
        DataType.python(),
        DataType.list(DataType.python()),
        DataType.struct({"a": DataType.int64(), "b": DataType.python()}),
        DataType.map(DataType.string(), DataType.python()),
    ],
    ids=str,
)
def test_python_objects_are_refused_before_anything_runs(kind: DataType) -> None:
    frame = daft.from_pydict({"key": [1]}).with_column("o", daft.lit(None).cast(kind))
    with pytest.raises(InvalidArgument, match="column 'o' has Python objects"):
        repartition(frame, 2, "key", metadata="nowhere:1")


def test_wrong_arguments(metadata: str) -> None:
    frame = numbers(10)
    with pytest.raises(InvalidArgument, match="keys are missing"):
        repartition(frame, 2, metadata=metadata)
    with pytest.raises(InvalidArgument, match="'kye', which is no column"):
        repartition(frame, 2, "key", "kye", metadata=metadata)
    for expression in (col("key"), col("x") + 1, 3, ["key"]):
        with pytest.raises(InvalidArgument, match="must be the name of a column"):
            repartition(frame, 2, expression, metadata=metadata)  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument, match="'key' twice"):
        repartition(frame, 2, "key", "text", "key", metadata=metadata)
    with pytest.raises(InvalidArgument, match="df is a dict"):
        repartition({"key": [1]}, 2, "key", metadata=metadata)  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument, match="partitions"):
        repartition(frame, 0, "key", metadata=metadata)


def test_the_installed_version_is_supported() -> None:
    [supported] = SUPPORTED["daft"]
    assert supported.has(daft.__version__)
