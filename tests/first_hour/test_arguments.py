"""Whatever is given to a public class is taken, or refused by an error of ours.

The tables go over every argument of every class, each with the same hostile values.
"""

from __future__ import annotations

import itertools
import operator
import pickle
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pyroaring import BitMap
from support.exchanges import until

from cosco import (
    AdaptiveGroupSize,
    CoscoError,
    CoscoExchange,
    CoscoExchangeGroup,
    CoscoReader,
    CoscoWriter,
    ExchangeClosed,
    ExchangeExists,
    ExchangeNotFound,
    GenerationChanged,
    InvalidArgument,
    InvalidRow,
    LocalCluster,
)

_NUMBERS = itertools.count()


class Hostile:
    """An object none of whose methods works."""

    def __repr__(self) -> str:
        raise RuntimeError("no repr")

    def __index__(self) -> int:
        raise TypeError("no index")

    def __bool__(self) -> bool:
        raise RuntimeError("no truth")


VALUES: list[Any] = [
    None, True, np.True_, -1, 0, 1, 2, 1.5, 2.0, -0.5, float("nan"), float("inf"), 1e308, 2**31,
    2**63, 10**400, 10**5000, -(10**5000), np.int64(2), np.uint8(1), np.float32(2.5),
    np.float64("nan"), Fraction(5, 2), Decimal(2), Decimal("NaN"), Decimal("sNaN"), 1j,
    "", "x", "5", "1s", "a\0b", "\ud800", "a\nb", "x" * 5000, "127.0.0.1", "127.0.0.1:٣",
    "h:" + "9" * 5000, "a b:1", "\ud800:1", "127.0.0.1:70701", b"", b"x", bytearray(b"x"),
    Path("x"), Path("\0"), [], [1], ["x"], (1, 2), {}, {"a": 1}, {1}, object(), Hostile(), int,
    np.array([1]), np.array([]), np.array(1), np.array([[1]]), np.array(["2024"], "M8[s]"),
    pd.Series([1]), pd.Series([], dtype=float), pd.DataFrame({"a": [1]}), pd.NA, pd.NaT,
    pa.array([1]), pa.scalar("5"), pa.table({"a": [1]}), pa.int64(), pa.schema([("a", pa.int64())]),
    pa.schema([]), range(3), iter([1]), BitMap([1]), lambda *_: None, timedelta(1),
    datetime(2024, 2, 29, tzinfo=UTC),
]  # fmt: skip


#: What may come of a value: some are names or generations of something that there is not.
REFUSALS = (
    InvalidArgument,
    InvalidRow,
    ExchangeClosed,
    ExchangeExists,
    ExchangeNotFound,
    GenerationChanged,
)


@pytest.fixture(autouse=True)
def _default_service(monkeypatch: pytest.MonkeyPatch, metadata: str) -> None:
    monkeypatch.setenv("COSCO_METADATA", metadata)


@pytest.fixture
def exchange(name: str) -> Iterator[str]:
    with CoscoExchange(name, 4):
        yield name


def refusal(call: Callable[[], Any]) -> CoscoError | None:
    """The error of a call, which must be of ours and fit to be shown; None if it was taken."""
    try:
        call()
    except REFUSALS as e:
        text = str(e)
        assert "\n" not in text and len(text) < 6000, text
        assert str(pickle.loads(pickle.dumps(e))) == text
        return e
    return None


def go_over(call: Callable[[Any], Any], *, taken: int) -> None:
    """Give every value, and know how many of them are right."""
    before = threading.active_count()
    # An iterator is used up by whoever takes it.
    values = [iter([1]) if isinstance(value, type(iter([]))) else value for value in VALUES]
    found = [shown(value) for value in values if refusal(lambda value=value: call(value)) is None]
    assert len(found) == taken, found
    # gRPC has one of its own for all channels.
    until(lambda: threading.active_count() <= before + 1, 10.0, "the end of all threads")


def shown(value: Any) -> str:
    try:
        return repr(value)[:40]
    except Exception:  # noqa: BLE001 (it is hostile)
        return f"a {type(value).__name__}"


#: How many of the values are a whole number from 1 or from 0 on, with one of numpy's without
#: dimensions; a time from 0 on; a text; True or False.
FROM_1, FROM_0, SECONDS, TEXTS, SWITCHES = 5, 6, 13, 9, 2


def closed(live: Any) -> None:
    live.close()


EXCHANGE = {
    "shuffle_id": TEXTS,
    "partitions": FROM_1,
    "recompute_writers_callback": 3,
    "schema": 3,
    "replicas": FROM_1,
    "min_replicas": FROM_1 + 1,
    "codec": 0,
    "deterministic": SWITCHES,
    "direct_reads": SWITCHES,
    "lease_s": 9 + 1,  # None: as its application has it
    "metadata": 2,
    "service_timeout_s": SECONDS,
}


@pytest.mark.parametrize("argument", EXCHANGE)
def test_every_argument_of_an_exchange(argument: str) -> None:
    def make(value: Any) -> None:
        arguments = {"shuffle_id": f"arguments-e{next(_NUMBERS)}", "partitions": 4}
        closed(CoscoExchange(**{**arguments, argument: value}))

    go_over(make, taken=EXCHANGE[argument])


ATTACH = {
    "shuffle_id": 0,
    "recompute_writers_callback": 1,
    "own": SWITCHES,
    "metadata": 2,
    "service_timeout_s": SECONDS,
}


@pytest.mark.parametrize("argument", ATTACH)
def test_every_argument_of_attach(argument: str) -> None:
    def make(value: Any) -> None:
        name = f"arguments-a{next(_NUMBERS)}"
        with CoscoExchange(name, 4):
            closed(CoscoExchange.attach(**{"shuffle_id": name, argument: value}))

    go_over(make, taken=ATTACH[argument])


WRITER = {
    "shuffle_id": 0,
    "mapper": FROM_0 + 1,
    "buffer_bytes": 4,
    "metadata": 2,
    "service_timeout_s": SECONDS,
}


@pytest.mark.parametrize("argument", WRITER)
def test_every_argument_of_a_writer(argument: str, exchange: str) -> None:
    def make(value: Any) -> None:
        CoscoWriter(**{"shuffle_id": exchange, "mapper": 0, argument: value}).abort()

    go_over(make, taken=WRITER[argument])


READER = {
    "shuffle_id": 0,
    "mappers": 14,
    "partition": FROM_0 + 9,  # several, in whatever has them
    "generation": 4,
    "timeout_s": SECONDS + 1,
    "metadata": 2,
    "service_timeout_s": SECONDS,
    "max_held_bytes": 9,
}


@pytest.mark.parametrize("argument", READER)
def test_every_argument_of_a_reader(argument: str, exchange: str) -> None:
    def make(value: Any) -> None:
        arguments = {"shuffle_id": exchange, "mappers": [0], "partition": 0}
        closed(CoscoReader(**{**arguments, argument: value}))

    go_over(make, taken=READER[argument])


def test_how_much_a_batch_is_to_have(exchange: str) -> None:
    with CoscoWriter(exchange, 0) as writer:
        writer.collect(0, b"row")

    def read(value: Any) -> None:
        with CoscoReader(exchange, [0], 0, timeout_s=0) as reader:
            batches = list(reader.read_batches(max_bytes=value))
        assert [batch.num_rows for batch in batches] == [1]

    go_over(read, taken=9)


GROUP = {
    "group_id": TEXTS,
    "partitions": FROM_1,
    "size": FROM_1,
    "mappers": FROM_1,
    "recompute_writers_callback": 3,
    "schema": 3,
    "replicas": FROM_1,
    "min_replicas": FROM_1 + 1,
    "codec": 0,
    "lease_s": 9,
    "metadata": 2,
    "service_timeout_s": SECONDS,
}


@pytest.mark.parametrize("argument", GROUP)
def test_every_argument_of_a_group(argument: str) -> None:
    def make(value: Any) -> None:
        arguments = {
            "group_id": f"arguments-g{next(_NUMBERS)}", "partitions": 2, "size": 1, "mappers": 1,
        }  # fmt: skip
        closed(CoscoExchangeGroup(**{**arguments, argument: value}))

    go_over(make, taken=GROUP[argument])


def test_every_argument_of_what_a_group_can_do(name: str) -> None:
    with CoscoExchangeGroup(name, 4, size=3, mappers=3) as group:
        handle = group.handle()
        go_over(lambda value: handle.writer(value, 0).abort(), taken=FROM_0)
        go_over(lambda value: handle.writer(0, value).abort(), taken=FROM_0)
        go_over(lambda value: handle.writer(0, 0, buffer_bytes=value).abort(), taken=4)
        go_over(lambda value: handle.reader(value, 0).close(), taken=FROM_0)
        go_over(lambda value: handle.reader(0, value).close(), taken=FROM_0)
        go_over(lambda value: handle.reader(0, 0, timeout_s=value).close(), taken=SECONDS + 1)
        go_over(group.extend, taken=FROM_1)
        go_over(group.release, taken=FROM_0)


def test_every_argument_of_a_group_size() -> None:
    for argument, taken in {
        "size": FROM_1, "smallest": 3, "largest": FROM_1, "step": FROM_1,
        "lower": 1, "upper": 2, "factor": 7, "weight": 2,
    }.items():  # fmt: skip
        go_over(lambda value, of=argument: AdaptiveGroupSize(**{of: value}), taken=taken)
    sizing = AdaptiveGroupSize()
    go_over(lambda value: sizing.observe(0.0, value), taken=SECONDS - 1)
    go_over(lambda value: sizing.observe(value, 1e300), taken=SECONDS - 1)


def is_text(value: Any) -> bool:
    return isinstance(value, str) and not set(value) & {"\0", "\ud800"}


def is_count(value: Any) -> bool:
    try:
        return type(value) not in (bool, np.bool_) and operator.index(value) is not None
    except TypeError:
        return False


#: What would start processes.
RIGHT: dict[str, Callable[[Any], bool]] = {
    "daemons": lambda value: is_count(value) and 0 < value <= 256,
    "memory": lambda value: type(value) is int and 16 << 20 <= value < 2**63,
    "directory": lambda value: (
        value is None
        or (is_text(value) and len(value) < 5000)
        or (isinstance(value, Path) and value.name == "x")
    ),
    "shared_store": lambda value: type(value) in (bool, np.bool_),
    "daemon_options": lambda value: type(value) in (list, tuple) and all(map(is_text, value)),
    "metadata_options": lambda value: type(value) in (list, tuple) and all(map(is_text, value)),
}


@pytest.mark.parametrize("argument", RIGHT)
def test_every_argument_of_a_local_cluster(argument: str, tmp_path: Path) -> None:
    """Those that are right are not tried: each would start processes."""
    base = tmp_path / "clusters"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        for value in VALUES:
            if not RIGHT[argument](value):
                arguments: dict[str, Any] = {"daemons": 1, "directory": base, argument: value}
                with pytest.raises(InvalidArgument) as caught:
                    LocalCluster(**arguments)
                assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_local_cluster_as_numbers_make_it(tmp_path: Path) -> None:
    odd = tmp_path / "a b?c#d%41é"
    with LocalCluster(
        np.int64(1), memory=256 << 20, directory=odd, shared_store=np.False_
    ) as cluster:
        with (
            CoscoExchange("x", 1, replicas=1, metadata=cluster.metadata),
            pytest.raises(InvalidArgument),
        ):
            cluster.daemons[0].stop(timeout_s="soon")  # type: ignore[arg-type]
        cluster.daemons[0].stop(timeout_s=np.int64(30))
    assert not odd.exists()


def test_a_cluster_in_a_place_where_none_can_be(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    for place in (file, file / "below", tmp_path / ("x" * 300), "/proc/nothing", "\0", "\ud800"):
        with pytest.raises(InvalidArgument, match="director"):
            LocalCluster(1, directory=place)
    assert list(tmp_path.iterdir()) == [file]


def test_a_wait_as_good_as_for_ever(exchange: str) -> None:
    for_ever: Any = 10**308
    rows: list[bytes] = []

    def read() -> None:
        with CoscoReader(
            exchange, [0], 0, timeout_s=for_ever, service_timeout_s=for_ever
        ) as reader:
            rows.extend(reader)

    waiting = threading.Thread(target=read)
    waiting.start()
    with CoscoWriter(exchange, 0, service_timeout_s=for_ever) as writer:
        writer.collect(0, b"row")
    waiting.join(30)
    assert rows == [b"row"]


# --- mappers, one by one ------------------------------------------------------------------------

MAPPERS: dict[str, tuple[Any, list[int]]] = {
    "a range": (range(4), [0, 1, 2, 3]),
    "a range with a step": (range(9, 0, -4), [1, 5, 9]),
    "a long range": (range(1 << 22), []),
    "no range": (range(0), []),
    "a set": ({3, 1}, [1, 3]),
    "a generator": ((i for i in (5, 2)), [2, 5]),
    "keys": ({1: "a", 7: "b"}, [1, 7]),
    "numpy": (np.array([4, 4, 2], np.uint64), [2, 4]),
    "Arrow": (pa.array([4, 2], pa.int8()), [2, 4]),
    "Arrow, in chunks": (pa.chunked_array([[4], [2]]), [2, 4]),
    "Series": (pd.Series([4, 2], index=[0, 0]), [2, 4]),
    "Series, nullable": (pd.Series([4, 2], dtype="Int64"), [2, 4]),
    "Index": (pd.Index([4, 2]), [2, 4]),
    "RangeIndex": (pd.RangeIndex(2), [0, 1]),
    "bitmap": (BitMap([2**31 - 1, 0]), [0, 2**31 - 1]),
}


def test_mappers_of_every_kind(exchange: str) -> None:
    for label, (mappers, wanted) in MAPPERS.items():
        with CoscoReader(exchange, mappers, 0, timeout_s=0) as reader:
            if wanted:
                with pytest.raises(CoscoError) as caught:
                    reader.next()
                assert list(caught.value.mappers) == wanted, label
            elif label == "no range":
                assert not reader.next()


NO_MAPPERS: list[Any] = [
    7, np.int64(7), "12", b"12", [0, None], [0.0], ["0"], [True], [-1], [2**31], range(-1, 3),
    range(2**31, 2**31 + 2), range(2**31), range(10**30), itertools.count(),
    np.array([[0]]), np.array([0.5]), np.ma.array([0, 1], mask=[0, 1]), pd.Series([0, None]),
    pd.DataFrame({0: [1]}), pa.array([0, None]), pa.array(["0"]), BitMap([2**31]),
    pd.Series([0, None], dtype="Int64"), [10**5000],
]  # fmt: skip


def test_mappers_that_are_none(exchange: str) -> None:
    for mappers in NO_MAPPERS:
        with pytest.raises(InvalidArgument, match="mapper"):
            CoscoReader(exchange, mappers, 0)


# --- bounds of the service, told at once --------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"lease_s": 8 * 86400}, r"lease_s is 691200.0, it must be 1 to 604800"),
        ({"schema": pa.schema([("x" * (9 << 20), pa.int64())])}, "at most 8388608"),
        ({"partitions": (1 << 20) + 1}, "partitions is 1048577, it must be 1 to 1048576"),
        ({"replicas": 3}, "replicas is 3, it must be 1 to 2"),
        ({"replicas": 1, "min_replicas": 2}, "min_replicas is 2, it must be 1 to 1"),
        ({"codec": "zstd"}, "codec is 'zstd', it must be one of"),
        ({"deterministic": "no"}, "deterministic is 'no', it must be True or False"),
    ],
    ids=lambda value: "" if isinstance(value, str) else next(iter(value)),
)
def test_what_only_the_service_refused(arguments: dict[str, Any], message: str) -> None:
    """Nobody is asked: there is no service at this address."""
    nobody = {"metadata": "127.0.0.1:9", **arguments}
    with pytest.raises(InvalidArgument, match=message) as caught:
        CoscoExchange("bounds", **{"partitions": 1, **nobody})
    assert caught.value.shuffle_id == "bounds"
    if "deterministic" not in arguments:
        with pytest.raises(InvalidArgument, match=message):
            CoscoExchangeGroup("bounds", **{"partitions": 1, "size": 1, "mappers": 1, **nobody})


@pytest.mark.parametrize("length", [1014, 1024, 1025])
def test_a_group_id_that_is_too_long_for_its_exchanges(length: int) -> None:
    with pytest.raises(InvalidArgument, match=rf"{length} bytes long, it must be 1 to 10[12]\d"):
        CoscoExchangeGroup("x" * length, 1, size=1, mappers=1, metadata="127.0.0.1:9")


def test_the_longest_group_id() -> None:
    with CoscoExchangeGroup("x" * 1013, 1, size=1, mappers=1) as group:
        with group.handle().writer(0, 0) as writer:
            writer.collect(0, b"row")
        group.handle().flush()
        with group.handle().reader(0, 0, timeout_s=10) as reader:
            assert list(reader) == [b"row"]
