"""What people give to `collect` and `collect_batch` of a bytes exchange.

What is refused leaves nothing behind, and the writer goes on: each case is followed by a row that
counts, and read back.
"""

from __future__ import annotations

import ctypes
from array import array
from collections import UserList, deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from cosco import (
    CoscoError,
    CoscoExchange,
    CoscoReader,
    CoscoWriter,
    InvalidArgument,
    InvalidRow,
    PartitionOutOfRange,
)

PARTITIONS = 4
ROWS = [b"a", b"", b"ccc"]
PLACES = [2, 0, 2]


class Job:
    """An exchange, and a writer of it."""

    def __init__(self, name: str, metadata: str) -> None:
        self.name, self.metadata = name, metadata
        self.exchange = CoscoExchange(name, PARTITIONS, metadata=metadata)
        self.writer = CoscoWriter(name, 0, metadata=metadata)

    def rows(self) -> list[tuple[int, bytes]]:
        """Commit, and return what readers see, sorted."""
        self.writer.close()
        found = []
        for partition in range(PARTITIONS):
            with CoscoReader(self.name, [0], partition, metadata=self.metadata) as reader:
                found += [(partition, row) for row in reader]
        return sorted(found)


@pytest.fixture
def job(name: str, metadata: str) -> Iterator[Job]:
    job = Job(name, metadata)
    yield job
    job.writer.abort()
    job.exchange.close()


def pairs(places: list[int], rows: list[bytes]) -> list[tuple[int, bytes]]:
    return sorted(zip(places, rows, strict=True))


# --- one partition for each row ---------------------------------------------------------------

TAKEN_PLACES: dict[str, Callable[[], Any]] = {
    "list": lambda: PLACES,
    "tuple": lambda: tuple(PLACES),
    "deque": lambda: deque(PLACES),
    "UserList": lambda: UserList(PLACES),
    "list of numpy integers": lambda: [np.uint8(p) for p in PLACES],
    "range with a step": lambda: range(3),
    "array.array": lambda: array("H", PLACES),
    "memoryview": lambda: memoryview(array("q", PLACES)),
    "numpy": lambda: np.array(PLACES, np.uint64),
    "numpy, reversed": lambda: np.array(PLACES[::-1], ">i4")[::-1],
    "numpy objects": lambda: np.array(PLACES, object),
    "numpy, masked nowhere": lambda: np.ma.array(PLACES, mask=[0, 0, 0]),
    "Arrow": lambda: pa.array(PLACES, pa.uint32()),
    "Arrow, sliced": lambda: pa.array([9, *PLACES], pa.int16()).slice(1),
    "Arrow, in chunks": lambda: pa.chunked_array([PLACES[:1], [], PLACES[1:]], pa.int8()),
    "Series": lambda: pd.Series(PLACES),
    "Series, filtered": lambda: pd.Series([*PLACES, 9], index=[5, 5, 0, 1])[lambda s: s < 9],
    "Series of objects": lambda: pd.Series(PLACES, dtype=object),
    "Series, nullable": lambda: pd.Series(PLACES, dtype="Int64"),
    "Series, of Arrow": lambda: pd.Series(PLACES, dtype="int64[pyarrow]"),
    "Index": lambda: pd.Index(PLACES),
    "Index, nullable": lambda: pd.Index(PLACES, dtype="UInt8"),
    "RangeIndex": lambda: pd.RangeIndex(3),
    "polars": lambda: pl.Series(PLACES),
    "polars, narrow": lambda: pl.Series(PLACES, dtype=pl.UInt8),
}
#: One partition for all rows.
TAKEN_PLACE: dict[str, Callable[[], Any]] = {
    "integer": lambda: 1,
    "numpy": lambda: np.int64(1),
    "numpy, narrow": lambda: np.uint8(1),
    "of an Index": lambda: pd.Index([1])[0],
    "of a Series": lambda: pd.Series([1]).iloc[0],
    "of a group": lambda: next(iter(pd.DataFrame({"p": [1]}).groupby("p")))[0],
    "of polars": lambda: pl.Series([1])[0],
}


def test_partitions_of_every_kind(job: Job) -> None:
    wanted = []
    for make in TAKEN_PLACES.values():
        places = make()
        job.writer.collect_batch(places, ROWS)
        wanted += pairs([int(p) for p in places], ROWS)
    for make in TAKEN_PLACE.values():
        job.writer.collect_batch(make(), ROWS)
        wanted += pairs([1] * 3, ROWS)
    assert job.rows() == sorted(wanted)


NO_PLACES: dict[str, Any] = {
    "list": [],
    "numpy": np.array([]),
    "numpy objects": np.array([], object),
    "Arrow": pa.array([]),
    "Arrow, in no chunks": pa.chunked_array([], pa.int8()),
    "Series": pd.Series([]),
    "Series of floats": pd.Series([], dtype=float),
    "Index": pd.Index([]),
    "polars": pl.Series([]),
    "range": range(0),
    "memoryview": memoryview(b""),
}


def test_no_partitions_for_no_rows(job: Job) -> None:
    for places in [*NO_PLACES.values(), 1, np.int64(1)]:
        for rows in ([], (), pa.array([]), np.array([]), pa.array([], pa.binary()), pd.Series([])):
            job.writer.collect_batch(places, rows)
    job.writer.collect(1, b"last")
    assert job.rows() == [(1, b"last")]


def generator() -> Iterator[int]:
    yield from PLACES


REFUSED_PLACES: list[tuple[str, Callable[[], Any], type[CoscoError], str]] = [
    ("masked", lambda: np.ma.array(PLACES, mask=[0, 1, 0]), InvalidRow, "1 partitions are masked"),
    ("floats", lambda: np.array(PLACES, float), InvalidRow, "integers, not float64: cast them"),
    ("list of floats", lambda: [0.0, 1.0, 2.0], InvalidRow, "an integer, not float"),
    ("booleans", lambda: np.array([True, False, True]), InvalidRow, "integers, not .*bool"),
    ("list of booleans", lambda: [True, 0, 1], InvalidRow, "an integer, not bool"),
    ("numpy booleans", lambda: [np.True_, 0, 1], InvalidRow, "an integer, not bool"),
    ("text", lambda: "012", InvalidRow, "not str"),
    ("list of text", lambda: ["0", "1", "2"], InvalidRow, "an integer, not str"),
    ("bytes", lambda: b"\0\1\2", InvalidRow, "not bytes"),
    ("None", lambda: None, InvalidRow, "not NoneType"),
    ("a missing one", lambda: [0, None, 1], InvalidRow, "row 1 .* an integer, not NoneType"),
    ("one boolean for all", lambda: True, InvalidRow, "an integer, not bool"),
    ("one boolean of numpy", lambda: np.True_, InvalidRow, "of integers, not|an integer, not"),
    ("one float for all", lambda: 1.0, InvalidRow, "one integer, or an array .*, not float"),
    ("one below for all", lambda: -1, PartitionOutOfRange, "no partition -1"),
    ("one above for all", lambda: 4, PartitionOutOfRange, "no partition 4"),
    ("one of numpy above", lambda: np.int64(4), PartitionOutOfRange, "no partition 4"),
    ("one far above", lambda: 10**5000, PartitionOutOfRange, "no partition a"),
    ("of no dimensions", lambda: np.array(1), InvalidRow, "0 dimensions"),
    ("generator", generator, InvalidRow, "sequence of integers, not generator"),
    ("set", lambda: {0, 1, 2}, InvalidRow, "not set"),
    ("dict", lambda: {0: 1}, InvalidRow, "not dict"),
    ("columns", lambda: np.array([PLACES]).T, InvalidRow, "2 dimensions"),
    ("times", lambda: np.array(PLACES, "M8[s]"), InvalidRow, "datetime64"),
    ("complex", lambda: np.array(PLACES, complex), InvalidRow, "complex"),
    ("Arrow nulls", lambda: pa.array([0, None, 1]), InvalidRow, "1 partitions are null"),
    ("Arrow floats", lambda: pa.array([0.0, 1.0, 2.0]), InvalidRow, "not double: cast them"),
    ("Series with NA", lambda: pd.Series([0, None, 1], dtype="Int64"), InvalidRow, "null"),
    ("Series of Arrow with NA", lambda: pd.Series([0, None, 1], dtype="int8[pyarrow]"),
     InvalidRow, "null"),
    ("Series with NaN", lambda: pd.Series([0, None, 1]), InvalidRow, "null|float64|double"),
    ("Index with NA", lambda: pd.Index([0, None, 1], dtype="Int64"), InvalidRow, "integer"),
    ("MultiIndex", lambda: pd.MultiIndex.from_arrays([PLACES, PLACES]), InvalidRow, "tuple"),
    ("Categorical", lambda: pd.Series(PLACES, dtype="category"), InvalidRow, "dictionary"),
    ("DataFrame", lambda: pd.DataFrame({"p": PLACES}), InvalidRow, "struct|DataFrame"),
    ("polars null", lambda: pl.Series([0, None, 1]), InvalidRow, "null"),
    ("polars objects", lambda: pl.Series([{}] * 3, dtype=pl.Object), InvalidRow, "Object"),
    ("below", lambda: [0, -1, 2], PartitionOutOfRange, "no partition -1"),
    ("above", lambda: pa.array([0, 4, 2]), PartitionOutOfRange, "no partition 4"),
    ("far above", lambda: np.array([0, 2**64 - 1, 0], np.uint64), PartitionOutOfRange, "1844"),
    ("no machine's integer", lambda: [0, 10**5000, 0], PartitionOutOfRange, "no partition a"),
    ("too few", lambda: [0, 1], InvalidArgument, "2 partitions for 3 rows"),
    ("too many", lambda: np.zeros(4, int), InvalidArgument, "4 partitions for 3 rows"),
    ("an endless range", lambda: range(2**40), InvalidArgument, "partitions for 3 rows"),
    ("no machine's range", lambda: range(2**70), InvalidArgument, "more partitions than"),
]  # fmt: skip


def test_partitions_that_are_none(job: Job) -> None:
    for label, make, kind, message in REFUSED_PLACES:
        with pytest.raises(kind, match=message) as caught:
            job.writer.collect_batch(make(), ROWS)
        assert caught.value.shuffle_id == job.name, label
        job.writer.collect_batch([3], [label.encode()])
    assert job.rows() == sorted((3, label.encode()) for label, *_ in REFUSED_PLACES)


# --- rows --------------------------------------------------------------------------------------

HALF = np.arange(6, dtype=np.uint16).reshape(2, 3)

TAKEN_ROWS: dict[str, tuple[Callable[[], Any], list[bytes]]] = {
    "tuple": (lambda: tuple(ROWS), ROWS),
    "deque": (lambda: deque(ROWS), ROWS),
    "UserList": (lambda: UserList(ROWS), ROWS),
    "numpy objects": (lambda: np.array(ROWS, object), ROWS),
    "bytearrays and views": (lambda: [bytearray(b"a"), memoryview(b""), b"ccc"], ROWS),
    "numpy rows": (lambda: [HALF, HALF[:, 1], HALF[:0]],
                   [HALF.tobytes(), HALF[:, 1].tobytes(), b""]),
    "read-only, other byte order": (lambda: [np.frombuffer(b"abcd", ">i2")], [b"abcd"]),
    "structs": (lambda: [np.zeros(1, [("O", "i2"), ("x", "i2")]), (ctypes.c_int16 * 2)(1, 1)],
                [bytes(4), b"\1\0\1\0"]),
    "array.array": (lambda: [array("B", b"xyz")], [b"xyz"]),
    "Arrow buffers": (lambda: [pa.py_buffer(b"xyz")], [b"xyz"]),
    "Arrow scalars": (lambda: list(pa.array(ROWS)), ROWS),
    "Arrow views' scalars": (lambda: list(pa.array(ROWS, pa.binary_view())), ROWS),
    "Arrow": (lambda: pa.array(ROWS), ROWS),
    "Arrow, large": (lambda: pa.array(ROWS, pa.large_binary()), ROWS),
    "Arrow, views": (lambda: pa.array(ROWS, pa.binary_view()), ROWS),
    "Arrow, fixed": (lambda: pa.array([b"ab", b"\0\0"], pa.binary(2)), [b"ab", b"\0\0"]),
    "Arrow, sliced in chunks": (lambda: pa.chunked_array([[b"x", *ROWS], [b"y"]])[1:],
                                [*ROWS, b"y"]),
    "Series": (lambda: pd.Series(ROWS), ROWS),
    "Series, zeros at the end": (lambda: pd.Series([b"a\0\0"]), [b"a\0\0"]),
    "Series, of Arrow": (lambda: pd.Series(ROWS, dtype=pd.ArrowDtype(pa.binary())), ROWS),
    "Index": (lambda: pd.Index(ROWS), ROWS),
    "polars": (lambda: pl.Series(ROWS), ROWS),
}  # fmt: skip


def test_rows_of_every_kind(job: Job) -> None:
    wanted = []
    for make, rows in TAKEN_ROWS.values():
        places = [len(wanted) % PARTITIONS] * len(rows)
        job.writer.collect_batch(places, make())
        wanted += pairs(places, rows)
    assert job.rows() == sorted(wanted)


def rows_generator() -> Iterator[bytes]:
    yield from ROWS


class Raising(UserList[bytes]):
    """A sequence that breaks off."""

    def __iter__(self) -> Iterator[bytes]:
        yield b"a"
        raise RuntimeError("broken off")


REFUSED_ROWS: list[tuple[str, Callable[[], Any], str]] = [
    ("text", lambda: [b"a", "b", b"c"], "row 1 of the batch: a row is bytes-like, not str"),
    ("None", lambda: [b"a", b"b", None], "row 2 .* not NoneType"),
    ("numbers", lambda: [1, 2, 3], "row 0 .* not int"),
    ("numpy numbers", lambda: [b"a", np.float64(1), b""], "row 1 .* not float64"),
    ("times", lambda: [b"a", b"b", np.array(["2024"], "M8[s]")], "row 2 .* ndarray of datetime64"),
    ("objects in an array", lambda: [b"", b"", np.array([{}], object)], "row 2 .* of objects"),
    ("objects in a struct", lambda: [b"", b"", np.zeros(1, [("x", "O")])], "row 2 .* of objects"),
    ("lists", lambda: [[1], [2], [3]], "row 0 .* not list"),
    ("Arrow text", lambda: pa.array(["a", "b", "c"]), "binary, not string: cast it"),
    ("Arrow text scalars", lambda: list(pa.array(["a", "b", "c"])), "not StringScalar"),
    ("Arrow null scalars", lambda: list(pa.array([b"a", None, b"c"])), "row 1 .*BinaryScalar"),
    ("Arrow nulls", lambda: pa.array([b"a", None, b"c"]), "1 rows are null"),
    ("Arrow, only nulls", lambda: pa.nulls(3), "not null"),
    ("Arrow lists", lambda: pa.array([[1], [2], [3]]), "not list"),
    ("Series of text", lambda: pd.Series(["a", "b", "c"]), "not (large_)?string"),
    ("Series with None", lambda: pd.Series([b"a", None, b"c"]), "1 rows are null"),
    ("Series of anything", lambda: pd.Series([b"a", 1, {}]), "Series"),
    ("polars objects", lambda: pl.Series([{}] * 3, dtype=pl.Object), "Object"),
    ("numpy's S", lambda: np.array([b"a\0", b"b", b"c"]), "S2, which drops zero bytes"),
    ("numpy", lambda: np.zeros((3, 2), np.uint8), "2 dimensions of uint8"),
    ("masked objects", lambda: np.ma.array(np.array(ROWS, object), mask=[0, 1, 0]), "masked"),
    ("generator", rows_generator, "not generator"),
    ("iterator", lambda: iter(ROWS), "not list_iterator"),
    ("set", lambda: {b"a", b"b", b"c"}, "not set"),
    ("dict", lambda: dict.fromkeys(ROWS), "not dict"),
    ("one row", lambda: b"abc", "not bytes"),
    ("one row of an array", lambda: array("B", b"abc"), "not array"),
    ("one view", lambda: memoryview(b"abc"), "not memoryview"),
    ("one text", lambda: "abc", "not str"),
    ("a scalar", lambda: pa.scalar(b"abc"), "not BinaryScalar"),
    ("nothing", lambda: None, "not NoneType"),
    ("a range", lambda: range(2**40), "not range"),
]  # fmt: skip


def test_rows_that_are_none(job: Job) -> None:
    for label, make, message in REFUSED_ROWS:
        with pytest.raises(InvalidRow, match=message) as caught:
            job.writer.collect_batch([0, 1, 2], make())
        assert caught.value.shuffle_id == job.name, label
        job.writer.collect_batch([3], [label.encode()])
    assert job.rows() == sorted((3, label.encode()) for label, *_ in REFUSED_ROWS)


def test_a_sequence_that_breaks_off_by_itself(job: Job) -> None:
    job.writer.collect(1, b"before")
    with pytest.raises(RuntimeError, match="broken off"):
        job.writer.collect_batch([0, 0], Raising([b"a", b"b"]))
    job.writer.collect(1, b"after")
    assert job.rows() == [(1, b"after"), (1, b"before")]


def test_single_rows_and_partitions(job: Job) -> None:
    for row in (HALF, bytearray(b"x"), memoryview(b"abcd")[::2], pa.scalar(b"y"), np.bytes_(b"z")):
        job.writer.collect(np.int64(1), row)  # type: ignore[arg-type]
    refused: list[Any] = [None, "x", 1, [b"x"], np.array(["2024"], "M8[s]"), pa.scalar("x")]
    for row in refused:
        with pytest.raises(InvalidRow, match="a row is bytes-like, not"):
            job.writer.collect(0, row)
    for partition in (True, 1.0, "1", None, np.float64(1), [1]):
        with pytest.raises(InvalidRow, match="a partition is an integer, not"):
            job.writer.collect(partition, b"x")  # type: ignore[arg-type]
    for partition in (-1, 4, 2**64, 10**5000):
        with pytest.raises(PartitionOutOfRange, match="there is no partition"):
            job.writer.collect(partition, b"x")
    wanted = [HALF.tobytes(), b"x", b"ac", b"y", b"z"]
    assert job.rows() == sorted((1, row) for row in wanted)


def test_the_first_rows_are_wrong_and_the_next_ones_a_table(job: Job) -> None:
    """What is refused does not decide of which kind the exchange's rows are."""
    wrong: list[tuple[Any, Any]] = [
        ([0], ["text"]), ([9], [b"x"]), ([0], {"a": [1]}), ([9], pa.table({"b": ["x"]})),
        ([0, 0], pa.table({"c": [1.5]})), (None, pd.DataFrame({"d": [1]})),
    ]  # fmt: skip
    for places, rows in wrong:
        with pytest.raises((InvalidRow, InvalidArgument)):
            job.writer.collect_batch(places, rows)
    with pytest.raises(InvalidRow):
        job.writer.collect(0, "text")  # type: ignore[arg-type]
    job.writer.collect_batch([1], pa.table({"a": [7]}))
    job.writer.close()
    with CoscoReader(job.name, [0], 1, metadata=job.metadata) as reader:
        assert reader.read_table().to_pydict() == {"a": [7]}


def test_nothing_raw_leaks_out(job: Job) -> None:
    makers = [*TAKEN_PLACES.values(), *(make for _, make, *_ in REFUSED_PLACES)]
    makers += [*(make for make, _ in TAKEN_ROWS.values()), *(make for _, make, _ in REFUSED_ROWS)]
    hostile = [make() for make in makers] + [object(), int, Ellipsis, pa.table({})]
    job.writer.collect(3, b"a bytes exchange")
    for thing in hostile:
        for arguments in ((thing, ROWS), ([0, 0, 0], thing), (thing, thing)):
            with suppress(CoscoError):
                job.writer.collect_batch(*arguments)
    job.writer.collect(3, b"goes on")
    assert {(3, b"a bytes exchange"), (3, b"goes on")} <= set(job.rows())
