"""How a `with` block ends, and what that ends."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support.children import run_code
from support.exchanges import until
from support.threads import client_threads

from cosco import (
    ClientClosed,
    CoscoExchange,
    CoscoExchangeGroup,
    CoscoReader,
    CoscoWriter,
    ExchangeClosed,
    InvalidArgument,
)

WAIT_S = 20.0


@pytest.fixture
def exchange(name: str, metadata: str) -> Iterator[CoscoExchange]:
    with CoscoExchange(name, 1, metadata=metadata) as exchange:
        yield exchange


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [
        record.getMessage()
        for record in caplog.records
        if record.name == "cosco" and record.levelno == logging.WARNING
    ]


# --- exchanges --------------------------------------------------------------------------------


def test_a_look_at_the_progress_of_a_running_exchange(
    exchange: CoscoExchange, metadata: str
) -> None:
    for _ in range(2):
        with CoscoExchange.attach(exchange.shuffle_id, metadata=metadata) as attached:
            assert attached.progress().rows == 0
        with pytest.raises(ClientClosed):
            attached.progress()
    with CoscoWriter(exchange.shuffle_id, 0, metadata=metadata) as writer:
        writer.collect(0, b"row")
    assert exchange.progress().rows == 1


def test_a_look_that_fails(exchange: CoscoExchange, metadata: str) -> None:
    with (
        pytest.raises(KeyError),
        CoscoExchange.attach(exchange.shuffle_id, metadata=metadata),
    ):
        raise KeyError
    assert exchange.progress().rows == 0


def test_a_close_from_anywhere(exchange: CoscoExchange, metadata: str) -> None:
    with CoscoExchange.attach(exchange.shuffle_id, metadata=metadata) as attached:
        attached.close()
    with pytest.raises(ExchangeClosed):
        exchange.progress()


def test_the_block_of_one_who_took_it_over(name: str, metadata: str) -> None:
    exchange = CoscoExchange(name, 1, metadata=metadata)
    with CoscoExchange.attach(name, own=True, metadata=metadata) as second:
        assert second.progress().rows == 0
    with pytest.raises(ExchangeClosed):
        exchange.progress()
    exchange.close()


def test_the_block_of_an_owner_that_was_replaced(name: str, metadata: str) -> None:
    with CoscoExchange(name, 1, metadata=metadata) as exchange:
        second = CoscoExchange.attach(name, own=True, metadata=metadata)
        driver = exchange._driver
        assert driver is not None
        until(lambda: driver.is_replaced, WAIT_S)
    assert second.progress().rows == 0
    second.close()


def test_the_block_of_an_owner_that_fails(name: str, metadata: str) -> None:
    with pytest.raises(KeyError), CoscoExchange(name, 1, metadata=metadata):
        raise KeyError
    with pytest.raises(ExchangeClosed):
        CoscoExchange.attach(name, metadata=metadata)


@pytest.mark.parametrize("kind", ["exchange", "group"])
def test_no_more_threads_can_be_started(
    name: str, metadata: str, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Neither a thread nor a lease is left, and the exchange is closed."""
    before = threading.active_count()
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name == "cosco-lease":
            raise RuntimeError("can't start new thread")
        start(thread)

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            if kind == "exchange":
                CoscoExchange(name, 1, lambda mappers, reason: None, metadata=metadata)
            else:
                CoscoExchangeGroup(name, 1, 1, 1, lambda *_: None, metadata=metadata)
    until(lambda: threading.active_count() <= before, WAIT_S)
    made = name if kind == "exchange" else f"{name}/0"
    with pytest.raises(ExchangeClosed):
        CoscoExchange.attach(made, metadata=metadata)


# --- writers ----------------------------------------------------------------------------------


class Interrupted(BaseException):
    """Stands for what libraries raise to end a task."""


@pytest.mark.parametrize(
    "error",
    [
        SystemExit(0),
        KeyboardInterrupt(),
        GeneratorExit(),
        asyncio.CancelledError(),
        Interrupted("over"),
        ValueError("a bug\nof two lines"),
        InvalidArgument("of ours"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_exception_leaves_the_block_of_a_writer(
    exchange: CoscoExchange,
    metadata: str,
    caplog: pytest.LogCaptureFixture,
    error: BaseException,
) -> None:
    with pytest.raises(type(error)):
        with CoscoWriter(exchange.shuffle_id, 7, metadata=metadata) as writer:
            writer.collect(0, b"row")
            raise error
    assert exchange.progress().mappers_committed == 0
    (told,) = warnings_of(caplog)
    for word in (exchange.shuffle_id, "mapper 7", "aborted", type(error).__name__):
        assert word in told
    assert "\n" not in told


def test_sys_exit_in_a_script(exchange: CoscoExchange, metadata: str) -> None:
    told = run_code(f"""
        import sys
        from cosco import CoscoWriter
        with CoscoWriter({exchange.shuffle_id!r}, 3, metadata={metadata!r}) as writer:
            writer.collect(0, b"row")
            sys.exit(0)
    """)
    assert "mapper 3 is aborted by SystemExit: 0" in told
    assert told.count("\n") == 1


def test_a_generator_is_dropped_in_the_block_of_a_writer(
    exchange: CoscoExchange, metadata: str, caplog: pytest.LogCaptureFixture
) -> None:
    def rows() -> Iterator[int]:
        with CoscoWriter(exchange.shuffle_id, 1, metadata=metadata) as writer:
            for i in range(10):
                writer.collect(0, b"row")
                yield i

    for i in rows():
        if i == 3:
            break
    (told,) = warnings_of(caplog)
    assert "GeneratorExit" in told


def test_a_task_is_cancelled_in_the_block_of_a_writer(
    exchange: CoscoExchange, metadata: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async def write() -> None:
            with CoscoWriter(exchange.shuffle_id, 1, metadata=metadata) as writer:
                writer.collect(0, b"row")
                await asyncio.sleep(WAIT_S)

        task = asyncio.create_task(write())
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    (told,) = warnings_of(caplog)
    assert "CancelledError" in told


def test_a_writer_that_is_aborted_on_purpose_is_not_told(
    exchange: CoscoExchange, metadata: str, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        pytest.raises(ClientClosed),
        CoscoWriter(exchange.shuffle_id, 1, metadata=metadata) as writer,
    ):
        writer.abort()
        writer.collect(0, b"row")
    assert not warnings_of(caplog)


# --- interrupts -------------------------------------------------------------------------------


CLOSES: dict[str, Callable[[str, str], Any]] = {
    "exchange": lambda name, metadata: CoscoExchange(
        name, 1, lambda mappers, reason: None, lease_s=1.0, metadata=metadata
    ),
    "group": lambda name, metadata: CoscoExchangeGroup(
        name, 1, 1, 1, lease_s=1.0, metadata=metadata
    ),
}


@pytest.mark.parametrize(
    ("kind", "line"), [("exchange", 1), ("exchange", 12), ("exchange", 48), ("group", 24)]
)
def test_ctrl_c_while_it_closes(name: str, metadata: str, kind: str, line: int) -> None:
    """It is raised at some line of our code that runs in `close`. The end comes all the same: by
    another thread, or by the lease where it had not begun and the object is dropped."""
    made = CLOSES[kind](name, metadata)
    left = line

    def trace(frame: Any, event: str, _: object) -> Any:
        nonlocal left
        if "cosco/client/" in frame.f_code.co_filename:
            left -= 1
            if left == -1:
                raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        made.close()
    except KeyboardInterrupt:
        pass
    finally:
        sys.settrace(before)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        del made
        gc.collect()

    def is_closed() -> bool:
        try:
            CoscoExchange.attach(name if kind == "exchange" else f"{name}/0", metadata=metadata)
        except ExchangeClosed:
            return True
        return False

    until(is_closed, WAIT_S)
    until(lambda: not client_threads(kept=False), WAIT_S)


def test_ctrl_c_while_a_reader_waits(exchange: CoscoExchange, metadata: str) -> None:
    with CoscoReader(exchange.shuffle_id, [0], 0, metadata=metadata) as reader:
        timer = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT))
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            reader.next()
        timer.join()
        for _ in range(2):
            with pytest.raises(ClientClosed, match="broken off by KeyboardInterrupt"):
                list(reader)


def test_ctrl_c_while_a_writer_waits_for_the_service(
    exchange: CoscoExchange, metadata: str, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(KeyboardInterrupt):
        with CoscoWriter(exchange.shuffle_id, 0, metadata=metadata) as writer:
            writer.collect(0, b"row")
            timer = threading.Timer(0.0, os.kill, (os.getpid(), signal.SIGINT))
            timer.start()
            timer.join()
            writer.close()
    assert exchange.progress().mappers_committed == 0
    assert len(warnings_of(caplog)) == 1
