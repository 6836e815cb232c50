"""What people drop without `close`: it is ended when it is collected, and says so."""

from __future__ import annotations

import gc
import logging
import os
import pickle
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
from support.children import join, run_code
from support.exchanges import until
from support.threads import client_threads

from cosco import (
    CommitTimeout,
    CoscoExchange,
    CoscoExchangeGroup,
    CoscoReader,
    CoscoWriter,
    ExchangeClosed,
    GroupHandle,
    LocalCluster,
)
from cosco.client.groups.following import FOLLOWING
from cosco.client.rpc.leftovers import LEFTOVERS
from cosco.client.write.push_streams import STREAMS

WAIT_S = 30.0


def working_threads() -> list[str]:
    """Those of the client that work for somebody."""
    STREAMS.close()
    FOLLOWING.close()
    return client_threads()


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    before = len(working_threads())
    yield
    gc.collect()
    until(lambda: len(working_threads()) <= before, WAIT_S, "the end of all threads")


@contextmanager
def dropped(what: str) -> Iterator[None]:
    """Within, one object is dropped."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ResourceWarning)
        yield
        gc.collect()
    told = [str(one.message) for one in caught if one.category is ResourceWarning]
    assert [f"unclosed <{what} of " in one for one in told] == [True], told


def is_closed(name: str, metadata: str) -> bool:
    try:
        CoscoExchange.attach(name, metadata=metadata)
    except ExchangeClosed:
        return True
    return False


def write(name: str, metadata: str, mapper: int = 0) -> None:
    with CoscoWriter(name, mapper, metadata=metadata) as writer:
        writer.collect(0, b"row")


@pytest.fixture
def exchange(name: str, metadata: str) -> Iterator[CoscoExchange]:
    with CoscoExchange(name, 1, metadata=metadata) as exchange:
        yield exchange


# --- writers ----------------------------------------------------------------------------------


def test_a_writer_with_rows_under_way(
    exchange: CoscoExchange, metadata: str, caplog: pytest.LogCaptureFixture
) -> None:
    before = working_threads()
    writer = CoscoWriter(exchange.shuffle_id, 3, buffer_bytes=64 << 10, metadata=metadata)
    writer.collect_batch([0] * 1000, [bytes(1000)] * 1000)
    assert len(working_threads()) > len(before)
    with dropped("CoscoWriter"):
        del writer
    until(lambda: working_threads() == before, WAIT_S)
    assert exchange.progress().mappers_committed == 0
    told = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert len(told) == 1
    assert "mapper 3 is aborted as its writer was dropped" in told[0]
    assert exchange.shuffle_id in told[0]


def test_a_writer_in_a_cycle(exchange: CoscoExchange, metadata: str) -> None:
    holder: dict[str, Any] = {}
    holder["self"] = holder
    holder["writer"] = CoscoWriter(exchange.shuffle_id, 0, metadata=metadata)
    holder["writer"].collect(0, b"row")
    with dropped("CoscoWriter"):
        del holder


def test_a_writer_that_is_replaced_by_the_next_one(exchange: CoscoExchange, metadata: str) -> None:
    writer = CoscoWriter(exchange.shuffle_id, 0, metadata=metadata)
    with dropped("CoscoWriter"):
        writer = CoscoWriter(exchange.shuffle_id, 0, metadata=metadata)
    writer.collect(0, b"row")
    assert writer.close().won


def test_a_writer_whose_method_is_kept_is_in_use(exchange: CoscoExchange, metadata: str) -> None:
    def methods(writer: CoscoWriter) -> tuple[Callable[..., Any], Callable[[], Any]]:
        return writer.collect, writer.close

    collect, close = methods(CoscoWriter(exchange.shuffle_id, 0, metadata=metadata))
    gc.collect()
    collect(0, b"row")
    assert close().won


def test_a_writer_that_a_thread_is_blocked_in_is_in_use(
    exchange: CoscoExchange, metadata: str
) -> None:
    def write_all() -> bool:
        writer = CoscoWriter(exchange.shuffle_id, 0, buffer_bytes=64 << 10, metadata=metadata)
        for _ in range(8):
            writer.collect_batch([0] * 500, [os.urandom(1000)] * 500)
            gc.collect()
        return writer.close().won

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(write_all).result(WAIT_S)


def test_a_writer_that_was_closed_or_aborted_is_dropped_quietly(
    exchange: CoscoExchange, metadata: str
) -> None:
    for end in (CoscoWriter.close, CoscoWriter.abort):
        writer = CoscoWriter(exchange.shuffle_id, 0, metadata=metadata)
        end(writer)
        del writer
    gc.collect()


def test_a_writer_dropped_in_a_forked_child_is_its_parents(
    exchange: CoscoExchange, metadata: str
) -> None:
    writer = CoscoWriter(exchange.shuffle_id, 0, buffer_bytes=64 << 10, metadata=metadata)
    writer.collect_batch([0] * 200, [bytes(1000)] * 200)
    reader = CoscoReader(exchange.shuffle_id, [0], 0, metadata=metadata)
    pid = os.fork()
    if not pid:
        try:
            del writer, reader, exchange
            gc.collect()
        finally:
            os._exit(0 if not LEFTOVERS._queue else 1)
    join(pid)
    assert writer.close().won
    assert len(list(reader)) == 200
    reader.close()


# --- readers ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "use",
    [
        lambda reader: None,
        lambda reader: reader.next(),
        lambda reader: next(iter(reader)),
        lambda reader: next(reader.read_batches(max_bytes=1)),
        lambda reader: reader.read_table(),
        list,
    ],
)
def test_a_reader(
    exchange: CoscoExchange, metadata: str, use: Callable[[CoscoReader], object]
) -> None:
    write(exchange.shuffle_id, metadata)
    before = working_threads()
    reader = CoscoReader(exchange.shuffle_id, [0], 0, metadata=metadata)
    use(reader)
    with dropped("CoscoReader"):
        del reader
    until(lambda: working_threads() == before, WAIT_S)


def test_a_reader_that_only_its_rows_hold(exchange: CoscoExchange, metadata: str) -> None:
    with CoscoWriter(exchange.shuffle_id, 0, metadata=metadata) as writer:
        writer.collect_batch([0] * 1000, [b"%d" % i for i in range(1000)])
    with dropped("CoscoReader"):
        rows = iter(CoscoReader(exchange.shuffle_id, [0], 0, metadata=metadata))
        gc.collect()
        assert len(set(rows)) == 1000
        batches = None
        del rows
    with dropped("CoscoReader"):
        batches = CoscoReader(exchange.shuffle_id, [0], 0, metadata=metadata).read_batches()
        gc.collect()
        assert sum(batch.num_rows for batch in batches) == 1000
        del batches


def test_a_reader_that_another_thread_waits_in_is_in_use(
    exchange: CoscoExchange, metadata: str
) -> None:
    def read() -> list[bytes]:
        return list(CoscoReader(exchange.shuffle_id, [0], 0, metadata=metadata))

    with dropped("CoscoReader"), ThreadPoolExecutor(1) as pool:
        found = pool.submit(read)
        time.sleep(0.2)
        gc.collect()
        write(exchange.shuffle_id, metadata)
        assert found.result(WAIT_S) == [b"row"]


# --- exchanges --------------------------------------------------------------------------------


def test_an_exchange(name: str, metadata: str) -> None:
    exchange = CoscoExchange(name, 1, lease_s=1.0, metadata=metadata)
    with dropped("CoscoExchange"):
        del exchange
    until(lambda: is_closed(name, metadata), WAIT_S)


def test_a_cell_that_is_run_again(name: str, metadata: str) -> None:
    exchange = None
    for run in range(3):
        with dropped("CoscoExchange") if run else pytest.MonkeyPatch.context():
            exchange = CoscoExchange(f"{name}-{run}", 1, lease_s=1.0, metadata=metadata)
    assert exchange is not None
    exchange.close()
    until(lambda: working_threads() == [], WAIT_S)


def test_an_exchange_whose_callback_is_a_method_of_who_owns_it(name: str, metadata: str) -> None:
    class Engine:
        def __init__(self) -> None:
            self.exchange = CoscoExchange(name, 1, self.again, lease_s=1.0, metadata=metadata)

        def again(self, mappers: list[int], reason: str) -> None:
            raise AssertionError

    engine = Engine()
    with dropped("CoscoExchange"):
        del engine
    until(lambda: is_closed(name, metadata), WAIT_S)


def make(name: str, metadata: str, **options: Any) -> str:
    """As people write it who think that the id is the exchange."""
    return CoscoExchange(name, 1, lease_s=1.0, metadata=metadata, **options).shuffle_id


def test_an_exchange_that_a_factory_made_lives_while_a_writer_does(
    name: str, metadata: str
) -> None:
    with dropped("CoscoExchange"):
        made = make(name, metadata)
    with CoscoWriter(made, 0, metadata=metadata) as writer:
        writer.collect(0, b"row")
        time.sleep(2)  # two leases
    with CoscoReader(made, [0], 0, metadata=metadata) as reader:
        assert list(reader) == [b"row"]
        assert not is_closed(made, metadata)
    until(lambda: is_closed(made, metadata), WAIT_S)


def test_an_exchange_that_was_let_go_is_taken_up_again(
    name: str, metadata: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between two writers nobody is there, for longer than the renewal goes on."""
    monkeypatch.setattr("cosco.client.driver.driver.LET_GO_S", 0.1)
    with dropped("CoscoExchange"):
        made = CoscoExchange(name, 1, lease_s=5.0, metadata=metadata).shuffle_id
    until(lambda: "cosco-lease" not in working_threads(), WAIT_S, "the end of the renewal")
    writer = CoscoWriter(made, 0, metadata=metadata)
    assert "cosco-lease" in working_threads()
    writer.close()
    until(lambda: "cosco-lease" not in working_threads(), WAIT_S, "the end of the renewal")
    CoscoExchange.attach(made, metadata=metadata).close()


def test_mappers_are_called_back_while_a_writer_keeps_the_exchange(name: str) -> None:
    called: list[list[int]] = []
    with LocalCluster(1, memory="16MiB") as cluster:
        metadata, (daemon,) = cluster.metadata, cluster.daemons
        with dropped("CoscoExchange"):
            made = CoscoExchange(
                name, 1, lambda mappers, reason: called.append(mappers), replicas=1,
                metadata=metadata,
            ).shuffle_id  # fmt: skip
        write(made, metadata)
        daemon.stop()
        daemon.restart()
        for file in (cluster.directory / "store").rglob("0-*"):
            if file.is_file():
                file.unlink()
        with CoscoReader(made, [0], 0, timeout_s=1.0, metadata=metadata) as reader:
            with pytest.raises(CommitTimeout):  # nobody runs the mapper
                reader.read_table()
        assert called == [[0]]
        CoscoExchange.attach(made, metadata=metadata).close()


def test_an_exchange_that_was_taken_over_and_dropped(name: str, metadata: str) -> None:
    with CoscoExchange(name, 1, lease_s=1.0, metadata=metadata):
        second = CoscoExchange.attach(name, own=True, metadata=metadata)
        with dropped("CoscoExchange"):
            del second
        until(lambda: is_closed(name, metadata), WAIT_S)


def test_an_exchange_that_was_attached_to_is_dropped_quietly(
    exchange: CoscoExchange, metadata: str
) -> None:
    assert CoscoExchange.attach(exchange.shuffle_id, metadata=metadata).progress().rows == 0
    gc.collect()
    assert exchange.progress().rows == 0


# --- groups -----------------------------------------------------------------------------------


def test_a_group(name: str, metadata: str) -> None:
    group = CoscoExchangeGroup(name, 1, 2, 1, lease_s=1.0, metadata=metadata)
    with dropped("CoscoExchangeGroup"):
        del group
    until(lambda: is_closed(f"{name}/0", metadata), WAIT_S)


def test_a_group_lives_while_a_handle_or_what_it_made_does(name: str, metadata: str) -> None:
    with dropped("CoscoExchangeGroup"):
        handle = CoscoExchangeGroup(name, 1, 2, 1, lease_s=1.0, metadata=metadata).handle()
    time.sleep(1.5)
    handle = pickle.loads(pickle.dumps(handle))
    time.sleep(1.5)
    assert isinstance(handle, GroupHandle)
    with handle.writer(0, 0) as writer, handle.reader(0, 0) as reader:
        del handle
        writer.collect(0, b"row")
        writer.close()
        assert list(reader) == [b"row"]
    until(lambda: is_closed(f"{name}/0", metadata), WAIT_S)


def test_writers_and_readers_of_a_group(name: str, metadata: str) -> None:
    with CoscoExchangeGroup(name, 1, 2, 1, metadata=metadata) as group:
        handle = group.handle()
        before = working_threads()
        writer = handle.writer(0, 0)
        writer.collect(0, b"row")
        with dropped("CoscoWriter"):
            del writer
        reader = handle.reader(0, 0)
        with dropped("CoscoReader"):
            del reader
        until(lambda: working_threads() == before, WAIT_S)


# --- the end of a process ---------------------------------------------------------------------

KEPT = """
    from cosco import *
    metadata, name = {metadata!r}, {name!r}
    exchange = CoscoExchange(name, 1, lambda mappers, reason: None, metadata=metadata)
    writer = CoscoWriter(name, 0, buffer_bytes=64 << 10, metadata=metadata)
    writer.collect_batch([0] * 300, [bytes(1000)] * 300)
    other = CoscoWriter(name, 1, metadata=metadata)
    other.collect(0, b"row")
    other.close()
    reader = CoscoReader(name, [1], 0, metadata=metadata)
    rows = iter(reader)
    next(rows)
    group = CoscoExchangeGroup(name + "-group", 1, 2, 1, metadata=metadata)
    waiting = group.handle().reader(0, 0)
"""
ENDS = {
    "at module level": "",
    "in a cycle": "cycle = [writer, reader, exchange, group, waiting]; cycle.append(cycle); "
    "del writer, reader, exchange, group, rows, waiting",
    "in a thread": "import threading; threading.Thread(target=next, args=(waiting,), "
    "daemon=True).start()",
    "in a finalizer": "class Last:\n"
    "        def __del__(self): self.kept.clear()\n"
    "    last = Last(); last.kept = [writer, reader, exchange, group, waiting]; "
    "del writer, reader, exchange, group, rows, waiting",
}


@pytest.mark.parametrize("end", ENDS)
def test_a_process_that_ends_with_everything_open(name: str, metadata: str, end: str) -> None:
    code = KEPT.format(metadata=metadata, name=name) + "    " + ENDS[end] + "\n"
    (told,) = run_code(code).splitlines()
    assert f"{name!r}: an attempt of mapper 0 is aborted as the process ends" in told


def test_a_script_that_forgets_to_close(name: str, metadata: str) -> None:
    """Python collects nothing of its last frame that would warn, and it ends with 0."""
    code = f"""
    from cosco import *
    exchange = CoscoExchange({name!r}, 1, metadata={metadata!r})
    writers = [CoscoWriter({name!r}, mapper, metadata={metadata!r}) for mapper in range(4)]
    for writer in writers:
        writer.collect(0, b"row")
    writers[1].close()
    writers[2].abort()
    """
    told = run_code(code)
    assert [f"mapper {mapper} is aborted" in told for mapper in range(4)] == [
        True, False, False, True
    ]  # fmt: skip


def test_a_process_that_drops_everything_and_ends(name: str, metadata: str) -> None:
    code = KEPT.format(metadata=metadata, name=name)
    code += "    del writer, reader, exchange, group, rows, waiting\n"
    told = run_code(code, warnings="default")
    assert told.count("ResourceWarning: unclosed <Cosco") == 5
    assert "Traceback" not in told
