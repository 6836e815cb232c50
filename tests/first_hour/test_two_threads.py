"""Two threads and one reader: each row comes once, or a call is refused; none is lost silently."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from support.children import run_code

from cosco import ClientClosed, CoscoExchange, CoscoReader, CoscoWriter, InvalidArgument

ROWS = [b"%d" % i for i in range(20_000)]
WAIT_S = 20.0


@pytest.fixture(scope="module")
def written(metadata: str) -> Iterator[str]:
    """An exchange with ROWS in its first partition, and in its others together."""
    name = "two-threads"
    with CoscoExchange(name, 9, metadata=metadata):
        with CoscoWriter(name, 0, metadata=metadata, buffer_bytes=64 << 10) as writer:
            writer.collect_batch([0] * len(ROWS), ROWS)
            writer.collect_batch([1 + i % 8 for i in range(len(ROWS))], ROWS)
        yield name


@pytest.fixture(params=[0, range(1, 9)], ids=["one", "several"])
def reader(written: str, metadata: str, request: pytest.FixtureRequest) -> Iterator[CoscoReader]:
    with CoscoReader(written, [0], request.param, metadata=metadata) as reader:
        yield reader


CALLS: dict[str, Callable[[CoscoReader], object]] = {
    "next": lambda reader: reader.next(),
    "iterate": list,
    "read_batches": lambda reader: list(reader.read_batches()),
    "read_table": lambda reader: reader.read_table(),
    "read_tables": lambda reader: list(reader.read_tables()),
}


@pytest.mark.parametrize("call", CALLS)
def test_one_iterates_and_the_other_calls(reader: CoscoReader, call: str) -> None:
    begun, over = threading.Event(), threading.Event()
    refused: list[Exception] = []

    def disturb() -> None:
        assert begun.wait(WAIT_S)
        while not over.is_set():
            try:
                CALLS[call](reader)
            except InvalidArgument as error:
                refused.append(error)
            over.wait(0.001)

    found = []
    with ThreadPoolExecutor(1) as pool:
        disturbing = pool.submit(disturb)
        for row in reader:
            found.append(row)
            begun.set()
            if len(found) == 1000:
                while not refused:
                    time.sleep(0.001)
        over.set()
        disturbing.result(WAIT_S)
    assert sorted(found) == sorted(ROWS)
    assert "CoscoReader" in str(refused[0])
    assert refused[0].partition in range(9)  # type: ignore[attr-defined]


def test_one_waits_for_the_mappers_and_the_other_calls_next(name: str, metadata: str) -> None:
    with (
        CoscoExchange(name, 1, metadata=metadata),
        CoscoReader(name, [0], 0, metadata=metadata) as reader,
        ThreadPoolExecutor(1) as pool,
    ):
        waiting = pool.submit(list, reader)
        while not reader._scope._calls:
            time.sleep(0.001)
        for call in CALLS.values():
            with pytest.raises(InvalidArgument, match="in use"):
                call(reader)
        with CoscoWriter(name, 0, metadata=metadata) as writer:
            writer.collect(0, b"row")
        assert waiting.result(WAIT_S) == [b"row"]


def test_both_iterate_over_one_iterator(reader: CoscoReader) -> None:
    """Each row goes to one of them, or one is refused; together they have all."""
    rows = iter(reader)

    def take() -> list[bytes]:
        found: list[bytes] = []
        while True:
            try:
                found.append(next(rows))
            except StopIteration:
                return found
            except InvalidArgument:
                pass

    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(take) for _ in range(2)]
        found = [row for one in both for row in one.result(WAIT_S)]
    assert sorted(found) == sorted(ROWS)


def test_both_take_batches_of_one_iterator(reader: CoscoReader) -> None:
    batches = reader.read_batches(max_bytes=1 << 10)

    def take() -> list[bytes]:
        found: list[bytes] = []
        while True:
            try:
                found += next(batches).column(0).to_pylist()
            except StopIteration:
                return found
            except InvalidArgument:
                pass

    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(take) for _ in range(2)]
        found = [row for one in both for row in one.result(WAIT_S)]
    assert sorted(found) == sorted(ROWS)


def test_the_reader_moves_to_another_thread(reader: CoscoReader) -> None:
    assert reader.next()
    first = reader.row()
    with ThreadPoolExecutor(1) as pool:
        rest = pool.submit(list, reader).result(WAIT_S)
    assert sorted([first, *rest]) == sorted(ROWS)
    assert not reader.next()


def test_the_iterator_moves_to_another_thread(reader: CoscoReader) -> None:
    rows = iter(reader)
    first = next(rows)
    with ThreadPoolExecutor(1) as pool:
        rest = pool.submit(list, rows).result(WAIT_S)
    assert sorted([first, *rest]) == sorted(ROWS)


@pytest.mark.parametrize("call", ["read_batches", "read_table"])
def test_batches_after_some_rows(reader: CoscoReader, call: str) -> None:
    assert reader.next()
    with pytest.raises(InvalidArgument, match="one pass"):
        CALLS[call](reader)
    assert len(list(reader)) == len(ROWS) - 1  # and that changed nothing


def test_batches_twice(reader: CoscoReader) -> None:
    batches = reader.read_batches()
    next(batches)
    for call in ("read_batches", "read_table", "iterate", "next"):
        with pytest.raises(InvalidArgument, match="one pass"):
            CALLS[call](reader)
    list(batches)


@pytest.mark.parametrize("way", ["rows", "batches"])
def test_an_iterator_of_a_closed_reader_does_not_seem_to_end(
    written: str, metadata: str, way: str
) -> None:
    reader = CoscoReader(written, [0], 0, metadata=metadata)
    items = iter(reader) if way == "rows" else reader.read_batches(max_bytes=1000)
    next(items)
    with ThreadPoolExecutor(1) as pool:
        pool.submit(reader.close).result(WAIT_S)
    for _ in range(3):
        with pytest.raises(ClientClosed):
            for _item in items:
                pass


def test_a_process_whose_threads_share_a_reader_ends_well(written: str, metadata: str) -> None:
    """It died of SIGSEGV once."""
    code = f"""
        import threading
        from cosco import CoscoReader, InvalidArgument

        for _ in range(10):
            with CoscoReader({written!r}, [0], 0, metadata={metadata!r}) as reader:
                rows = iter(reader)
                def take():
                    try:
                        next(rows, None)
                    except InvalidArgument:
                        pass
                threads = [threading.Thread(target=take) for _ in range(8)]
                for thread in threads:
                    thread.start()
                try:
                    count = sum(1 for _ in rows)
                except InvalidArgument:
                    count = None
                for thread in threads:
                    thread.join()
                assert count is None or count > {len(ROWS)} - 9, count
    """
    run_code(code)
