"""What a reader gives to its caller, and when: rows that may be taken back are held back."""

from __future__ import annotations

import gc
import linecache
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import FrameType
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from cosco.client import live_object
from cosco.client.content import Decoded
from cosco.client.read import row_source as module
from cosco.client.read.gather import BegunAnew
from cosco.client.read.reader import CoscoReader
from cosco.client.read.state.mapper_order import HELD_BLOCK_BYTES
from cosco.client.read.state.merge import CheckedBlock
from cosco.client.read.state.read_plan import ReadPlan
from cosco.errors import (
    CapacityExceeded,
    ClientClosed,
    CoscoError,
    DataCorrupted,
    DataLost,
    InvalidArgument,
    PartitionOutOfRange,
)
from cosco.format.block import CODEC_NONE, HEADER_BYTES, encode_block, parse_header
from cosco.protocol.records import ExchangeInfo, ExchangeSpec, RowKind

pytestmark = pytest.mark.usefixtures("read_mechanics")

#: How many rows are held back: they are of one byte and come in blocks of one.
HELD_ROWS = 10
#: Of a batch of one such row: the byte, and where it begins and ends.
BATCH_BYTES = 1 + 2 * 4
INFO = ExchangeInfo(
    number=5,
    spec=ExchangeSpec("x", 1),
    generation=1,
    kind=RowKind.BYTES,
    schema=b"",
    ranges=(),
    assignments=(),
)


class Builds:
    """Stands for a Gatherer: each build but the last one is lost after its rows."""

    def __init__(self, *builds: str) -> None:
        self.left = list(builds)
        #: Rows that the gatherer was asked for so far.
        self.yielded = 0

    def gather(self, plan: ReadPlan, partition: int, begin: Any) -> Iterator[Decoded]:
        for row in self.left.pop(0):
            self.yielded += 1
            yield Decoded(1, 1, row.encode(), lengths=False)
        if self.left:
            raise DataLost("begin anew", retriable=True) if plan.has_given else BegunAnew

    def close(self) -> None:
        pass


class Metadata:
    def __init__(self, *arguments: Any) -> None:
        pass

    def begin_reading(self, *arguments: Any) -> tuple[ExchangeInfo, None]:
        return INFO, None

    def close(self) -> None:
        pass


@pytest.fixture
def reading(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., CoscoReader]]:
    """Makes a reader of such builds."""
    held_bytes = HELD_ROWS * (BATCH_BYTES + module.HELD_OVERHEAD_BYTES)
    monkeypatch.setattr(module, "HOLD_BYTES", held_bytes)
    monkeypatch.setattr(live_object, "MetadataClient", Metadata)
    readers: list[CoscoReader] = []

    def make(builds: Builds, **options: Any) -> CoscoReader:
        monkeypatch.setattr(module, "Gatherer", lambda *_, **__: builds)
        readers.append(CoscoReader("x", [1], 0, metadata="127.0.0.1:1", **options))
        return readers[-1]

    make.readers = readers  # type: ignore[attr-defined]
    yield make
    for one in readers:
        one.close()


Reading = Callable[..., CoscoReader]


def by_rows(reader: CoscoReader) -> Iterator[bytes]:
    return iter(reader)


def by_batches(reader: CoscoReader) -> Iterator[bytes]:
    for batch in reader.read_batches(max_bytes=1):
        yield from batch.column(0).to_pylist()


def by_table(reader: CoscoReader) -> Iterator[bytes]:
    return iter(reader.read_table().column(0).to_pylist())


ways = pytest.mark.parametrize("way", [by_rows, by_batches, by_table])


@pytest.mark.parametrize("partition", [-1, 1, 2**70])
@pytest.mark.usefixtures("reading")
def test_a_partition_on_either_side_of_those_there_are(partition: int) -> None:
    with pytest.raises(PartitionOutOfRange) as caught:
        CoscoReader("x", [1], partition, metadata="127.0.0.1:1")
    assert (caught.value.shuffle_id, caught.value.partition) == ("x", partition)


def test_what_is_wrong_in_a_block_names_its_place(reading: Reading) -> None:
    builds = Builds("")
    broken = Decoded(1, 2, b"", lengths=True)
    builds.gather = lambda *_: iter([broken])  # type: ignore[method-assign]
    with pytest.raises(DataCorrupted, match="length table") as caught:
        reading(builds).read_table()
    assert (caught.value.shuffle_id, caught.value.partition) == ("x", 0)


class Blocks(Builds):
    """Builds of blocks, whose rows are of one mapper and begin with the last one."""

    def gather(self, plan: ReadPlan, partition: int, begin: Any) -> Iterator[Any]:
        found = list(enumerate(self.left[0]))
        for _ in super().gather(plan, partition, begin):
            number, row = found.pop()
            header, stored, _ = encode_block(
                exchange=5, partition=0, mapper=1, attempt=1, first_row=number, rows=1,
                content=row.encode(), codec=CODEC_NONE,
            )  # fmt: skip
            block = header + stored
            yield CheckedBlock(parse_header(block), stored, memoryview(block))


def in_order(reader: CoscoReader) -> list[bytes]:
    batches = reader.read_batches(max_bytes=2, order="mapper")
    return [row for batch in batches for row in batch.column(0).to_pylist()]


def in_an_ordered_table(reader: CoscoReader) -> list[bytes]:
    return list(reader.read_table(order="mapper").column(0).to_pylist())


ordered_ways = pytest.mark.parametrize("way", [in_order, in_an_ordered_table])


@ordered_ways
def test_rows_in_order_are_of_the_last_build(reading: Reading, way: Any) -> None:
    long = "abcdefghijklmnop" * HELD_ROWS
    assert b"".join(way(reading(Blocks("abc", "x" * 5 * HELD_ROWS, long)))).decode() == long


def test_with_an_order_all_rows_are_there_before_the_first_one(reading: Reading) -> None:
    many = Blocks("x" * (10 * HELD_ROWS))
    assert many.yielded == 0
    next(reading(many).read_batches(max_bytes=1, order="mapper"))
    assert many.yielded == 10 * HELD_ROWS


@ordered_ways
def test_an_order_that_takes_more_than_may_be_held(reading: Reading, way: Any) -> None:
    cost = HEADER_BYTES + HELD_BLOCK_BYTES + 1
    assert len(way(reading(Blocks("abc"), max_held_bytes=3 * cost))) == 3
    reader = reading(Blocks("abcd"), max_held_bytes=3 * cost)
    for _ in range(2):
        with pytest.raises(CapacityExceeded, match="max_held_bytes") as caught:
            way(reader)
        assert (caught.value.shuffle_id, caught.value.partition) == ("x", 0)


@pytest.mark.parametrize("order", ["mappers", "", 0, True, ["mapper"], np.array(["a", "mapper"])])
def test_an_order_that_there_is_not(reading: Reading, order: Any) -> None:
    reader = reading(Builds("abc"))
    for call in (reader.read_table, reader.read_batches):
        with pytest.raises(InvalidArgument, match='must be None or "mapper"'):
            call(order=order)
    assert list(reader) == [b"a", b"b", b"c"]


@ways
def test_rows_of_builds_that_were_lost_are_not_seen(reading: Reading, way: Any) -> None:
    reader = reading(Builds("abc", "", "x" * HELD_ROWS, "defgh"))
    assert sorted(way(reader)) == [b"d", b"e", b"f", b"g", b"h"]


@ways
def test_no_row_is_given_before_all_or_many_are_there(reading: Reading, way: Any) -> None:
    few = Builds("x" * HELD_ROWS)
    next(way(reading(few)))
    assert few.yielded == HELD_ROWS
    many = Builds("x" * (10 * HELD_ROWS))
    rows = way(reading(many))
    next(rows)
    # A batch is made once there is a row that does not go into it.
    expected = {by_rows: HELD_ROWS + 1, by_batches: HELD_ROWS + 2, by_table: 10 * HELD_ROWS}
    assert many.yielded == expected[way]
    assert sum(1 for _ in rows) == 10 * HELD_ROWS - 1


@pytest.mark.parametrize("way", [by_rows, by_batches])
def test_what_was_given_ends_with_an_error(reading: Reading, way: Any) -> None:
    reader = reading(Builds("x" * (HELD_ROWS + 2), "d"))
    rows = way(reader)
    next(rows)
    for more in (lambda: list(rows), reader.next):  # and it stays so
        with pytest.raises(DataLost) as caught:
            more()
        assert caught.value.retriable


def test_rows_can_be_taken_by_each_call_in_turn(reading: Reading) -> None:
    reader = reading(Builds("abcdef"))
    assert reader.next()
    assert reader.row() == b"a"
    assert next(reader) == b"b"
    assert next(iter(reader)) == b"c"
    assert reader.next()
    assert reader.row() == b"d"
    assert list(reader) == [b"e", b"f"]
    assert [reader.next(), reader.next()] == [False, False]
    reader.close()
    for more in (reader.next, lambda: next(reader)):
        with pytest.raises(ClientClosed):
            more()


def test_a_table_begins_anew_however_much_there_was(reading: Reading) -> None:
    table = reading(Builds("x" * (10 * HELD_ROWS), "de")).read_table()
    assert table.schema == pa.schema([("row", pa.binary())])
    assert table.column(0).to_pylist() == [b"d", b"e"]


def test_a_table_is_no_longer_held_by_its_reader(reading: Reading) -> None:
    reader = reading(Builds("abc"))
    table = weakref.ref(reader.read_table())
    assert table() is None
    with pytest.raises(InvalidArgument, match="one pass"):
        reader.read_table()


@pytest.mark.parametrize("way", [by_rows, by_batches])
@pytest.mark.parametrize("given", [1, HELD_ROWS - 1, HELD_ROWS])
def test_what_is_held_back_is_not_given_after_close(reading: Reading, way: Any, given: int) -> None:
    reader = reading(Builds("x" * HELD_ROWS))
    rows = way(reader)
    for _ in range(given):
        next(rows)
    reader.close()
    left = []
    with pytest.raises(ClientClosed):  # and not the end, even after the last row
        left.extend(rows)
    assert not left
    with pytest.raises(ClientClosed):
        reader.next()


# --- who reads --------------------------------------------------------------------------------


class Gate(Builds):
    """One build, whose rows but the first come when they may."""

    def __init__(self, rows: str) -> None:
        super().__init__(rows)
        self.is_waiting, self.go_on = threading.Event(), threading.Event()

    def gather(self, plan: ReadPlan, partition: int, begin: Any) -> Iterator[Decoded]:
        for number, decoded in enumerate(super().gather(plan, partition, begin)):
            if number == 1:
                self.is_waiting.set()
                assert self.go_on.wait(WAIT_S)
            yield decoded


WAIT_S = 10.0
others = pytest.mark.parametrize(
    "other",
    [
        lambda reader: reader.next(),
        next,
        lambda reader: next(iter(reader)),
        list,
        lambda reader: reader.read_table(),
        lambda reader: list(reader.read_batches()),
    ],
)


@ways
@others
def test_a_call_that_comes_into_another_one_is_refused(
    reading: Reading, way: Any, other: Any
) -> None:
    builds = Gate("abcdefgh")
    reader = reading(builds)
    with ThreadPoolExecutor(1) as pool:
        found = pool.submit(lambda: list(way(reader)))
        assert builds.is_waiting.wait(WAIT_S)
        for _ in range(3):
            with pytest.raises(InvalidArgument, match=r"partition 0 of exchange 'x'.*CoscoReader"):
                other(reader)
        builds.go_on.set()
        assert sorted(found.result(WAIT_S)) == [b"%c" % c for c in b"abcdefgh"]


@others
def test_a_call_beside_the_loop_of_another_thread_is_refused(reading: Reading, other: Any) -> None:
    reader = reading(Builds("abcdefgh"))
    found = []
    with ThreadPoolExecutor(1) as pool:
        for row in reader:
            found.append(row)
            with pytest.raises(InvalidArgument, match=r"MainThread|one pass"):
                pool.submit(other, reader).result(WAIT_S)
    assert found == [b"%c" % c for c in b"abcdefgh"]


def test_a_reader_moves_between_threads(reading: Reading) -> None:
    reader = reading(Builds("abcdefgh"))
    with ThreadPoolExecutor(1) as pool:
        assert reader.next()
        assert pool.submit(next, reader).result() == b"b"
        for row in reader:
            assert row == b"c"
            break
        assert pool.submit(lambda: next(iter(reader))).result() == b"d"
        rows = iter(reader)
        assert next(rows) == b"e"
        assert pool.submit(next, rows).result() == b"f"
        del rows
        assert pool.submit(list, reader).result() == [b"g", b"h"]
        assert not reader.next()


def test_a_thread_that_ended_leaves_its_loop_to_others(reading: Reading) -> None:
    reader = reading(Builds("abc"))
    loops = []
    thread = threading.Thread(target=lambda: loops.append(iter(reader)))
    thread.start()
    thread.join()
    assert next(loops[0]) == b"a"
    assert list(reader) == [b"b", b"c"]
    assert not list(loops[0])


def test_two_loops_of_one_thread_share_the_rows(reading: Reading) -> None:
    reader = reading(Builds("abcdef"))
    assert list(zip(reader, reader, strict=True)) == [(b"a", b"b"), (b"c", b"d"), (b"e", b"f")]


@pytest.mark.parametrize("way", [by_rows, by_batches])
def test_what_raised_raises_again(reading: Reading, way: Any) -> None:
    class Refused(Builds):
        def gather(self, plan: ReadPlan, partition: int, begin: Any) -> Iterator[Decoded]:
            yield from super().gather(plan, partition, begin)
            raise DataCorrupted("torn")

    reader = reading(Refused("x" * (HELD_ROWS + 3)))
    rows = iter(reader) if way is by_rows else reader.read_batches(max_bytes=1)
    with pytest.raises(DataCorrupted):
        while True:
            next(rows)
    for _ in range(3):
        with pytest.raises(DataCorrupted):
            next(rows)


def one_by_one(reader: CoscoReader, way: str) -> Callable[[], bytes]:
    """Gives one row, or raises StopIteration."""
    if way == "batches":
        batches = reader.read_batches(max_bytes=1)

        def take_batch() -> bytes:
            row: bytes = next(batches).column(0)[0].as_py()
            return row

        return take_batch
    if way == "loop":
        return iter(reader).__next__
    if way == "iterator":
        return reader.__next__

    def take() -> bytes:
        if not reader.next():
            raise StopIteration
        return reader.row()

    return take


class InterruptAt:
    """Raises KeyboardInterrupt at one of the lines of the reader that run, as Ctrl-C may."""

    def __init__(self, line: int) -> None:
        self.lines_left = line

    def __call__(self, frame: FrameType, event: str, _: object) -> Any:
        code = frame.f_code
        if "cosco/client/read" not in code.co_filename or code.co_name == "row":
            return None  # `row` may be called again
        # The interpreter looks for signals where a function begins and where a call ends.
        source = linecache.getline(code.co_filename, frame.f_lineno)
        if event == "call" or (event == "line" and "(" in source):
            self.lines_left -= 1
            if self.lines_left == -1:
                raise KeyboardInterrupt
        return self


@pytest.mark.parametrize("way", ["loop", "iterator", "next", "batches"])
def test_an_interrupt_anywhere_makes_no_early_end(reading: Reading, way: str) -> None:
    """Afterwards the rest is given, or refused for good."""
    for line in range(1000):
        take = one_by_one(reading(Builds("abcd")), way)
        found = [take()]
        interrupt = InterruptAt(line)
        before = sys.gettrace()
        try:
            sys.settrace(interrupt)
            found.append(take())
        except KeyboardInterrupt:
            pass
        finally:
            sys.settrace(before)
        try:
            while True:
                found.append(take())
        except StopIteration:
            assert found == [b"a", b"b", b"c", b"d"], f"after an interrupt at line {line}"
        except CoscoError:
            with pytest.raises(CoscoError):
                take()
        if interrupt.lines_left >= 0:
            assert line > 10
            return


# --- dropped ----------------------------------------------------------------------------------


@ways
def test_a_reader_is_in_use_while_its_rows_are(reading: Reading, way: Any) -> None:
    rows = way(reading(Builds("abc")))
    gc.collect()
    assert sorted(rows) == [b"a", b"b", b"c"]


def test_a_dropped_reader_is_gone_at_once(reading: Reading) -> None:
    """Nothing that works for it holds it: not even the collector is needed."""
    reader = reading(Builds("x" * (2 * HELD_ROWS)))
    gone = weakref.ref(reader)
    next(reader)
    next(iter(reader))
    reader.close()
    reading.readers.clear()  # type: ignore[attr-defined]
    gc.disable()
    try:
        del reader
        assert gone() is None
    finally:
        gc.enable()
