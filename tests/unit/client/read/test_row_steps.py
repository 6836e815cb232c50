"""A chain of blocks with steps between them: it ends where it is told to, and never before."""

from __future__ import annotations

import gc
import sys
import threading
import weakref
from collections.abc import Iterator
from itertools import chain

import pytest

from cosco.client.read.row_steps import RowSteps

WAIT_S = 10.0


class Blocks:
    """Fills a chain with blocks of three rows, one after another."""

    def __init__(self, count: int) -> None:
        self._left = iter(range(count))
        self.error: BaseException | None = None

    def fill(self, steps: RowSteps) -> None:
        assert not steps.is_full
        if self.error is not None:
            raise self.error
        number = next(self._left, None)
        steps.put(None if number is None else iter([b"%d" % (3 * number + i) for i in range(3)]))


def rows_of(count: int) -> list[bytes]:
    return [b"%d" % i for i in range(3 * count)]


def test_rows_come_block_by_block_and_end() -> None:
    rows = RowSteps(Blocks(4).fill).pop_rows()
    assert list(rows) == rows_of(4)
    assert list(rows) == []


def test_a_step_that_raises_is_asked_again() -> None:
    blocks = Blocks(2)
    rows = RowSteps(blocks.fill).pop_rows()
    assert [next(rows) for _ in range(3)] == rows_of(1)
    blocks.error = KeyError("x")
    for _ in range(3):
        with pytest.raises(KeyError):
            next(rows)
    blocks.error = None
    assert list(rows) == rows_of(2)[3:]


def test_a_loop_is_under_way_until_its_end_or_until_it_is_dropped() -> None:
    steps = RowSteps(Blocks(1).fill)
    rows = steps.pop_rows()
    assert steps.sign() is not None
    assert len(list(rows)) == 3
    assert steps.sign() is None
    dropped = RowSteps(Blocks(1).fill)
    assert next(dropped.pop_rows()) == b"0"
    assert dropped.sign() is None


def test_the_reader_is_held_while_the_rows_are_and_without_a_cycle() -> None:
    class Reader:
        pass

    reader = Reader()
    alive = weakref.ref(reader)
    rows: Iterator[bytes] | None = RowSteps(Blocks(2).fill, reader).pop_rows()
    del reader
    gc.disable()  # counting references must do
    try:
        assert rows is not None
        assert next(rows) == b"0"
        assert alive() is not None
        rows = None
        assert alive() is None
    finally:
        gc.enable()


def test_a_thread_that_comes_into_a_step_gets_what_the_step_raises_there() -> None:
    inside, go_on = threading.Event(), threading.Event()
    busy = threading.Lock()

    class Busy(Exception):
        pass

    blocks = Blocks(50)

    def fill(steps: RowSteps) -> None:
        if not busy.acquire(blocking=False):
            raise Busy
        try:
            inside.set()
            assert go_on.wait(WAIT_S)
            blocks.fill(steps)
        finally:
            busy.release()

    rows = RowSteps(fill).pop_rows()
    found: list[bytes] = []
    thread = threading.Thread(target=lambda: found.extend(rows))
    thread.start()
    assert inside.wait(WAIT_S)
    for _ in range(10):
        with pytest.raises(Busy):
            next(rows)
    go_on.set()
    thread.join(WAIT_S)
    assert found == rows_of(50)


def test_threads_that_share_a_chain_get_each_row_once() -> None:
    interval = sys.getswitchinterval()
    busy = threading.Lock()

    class Busy(Exception):
        pass

    blocks = Blocks(2000)

    def fill(steps: RowSteps) -> None:
        if not busy.acquire(blocking=False):
            raise Busy
        try:
            if steps.is_full:
                raise Busy
            blocks.fill(steps)
        finally:
            busy.release()

    rows = RowSteps(fill).pop_rows()
    found: list[list[bytes]] = [[] for _ in range(4)]

    def take(mine: list[bytes]) -> None:
        while True:
            try:
                mine.extend([next(rows)])
            except Busy:
                continue
            except StopIteration:
                return

    threads = [threading.Thread(target=take, args=(mine,)) for mine in found]
    try:
        sys.setswitchinterval(1e-6)
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert sorted(chain(*found), key=int) == rows_of(2000)
