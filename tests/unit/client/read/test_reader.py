"""What a reader gives to its caller, and when: rows that may be taken back are held back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa
import pytest

from cosco.client import live_object
from cosco.client.content import Decoded
from cosco.client.read import reader as module
from cosco.client.read.gather import BegunAnew
from cosco.client.read.reader import CoscoReader
from cosco.client.read.state.read_plan import ReadPlan
from cosco.errors import ClientClosed, DataCorrupted, DataLost, PartitionOutOfRange
from cosco.protocol.records import ExchangeInfo, ExchangeSpec, RowKind

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

    def gather(self, plan: ReadPlan) -> Iterator[Decoded]:
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

    def make(builds: Builds) -> CoscoReader:
        monkeypatch.setattr(module, "Gatherer", lambda *_, **__: builds)
        readers.append(CoscoReader("x", [1], 0, metadata="127.0.0.1:1"))
        return readers[-1]

    yield make
    for one in readers:
        one.close()


Reading = Callable[[Builds], CoscoReader]


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
    builds.gather = lambda plan: iter([broken])  # type: ignore[method-assign]
    with pytest.raises(DataCorrupted, match="length table") as caught:
        reading(builds).read_table()
    assert (caught.value.shuffle_id, caught.value.partition) == ("x", 0)


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
