"""What the public classes share: they stay in their process, and leave nothing behind."""

from __future__ import annotations

import copy
import gc
import pickle
import threading
from collections.abc import Callable

import pytest

from cosco.client.live_object import LiveObject, weakly
from cosco.client.rpc.in_use import IN_USE
from cosco.client.rpc.scope import inherit_scopes
from cosco.client.rpc.transport import _channels
from cosco.errors import InvalidArgument, NotPicklable

NOWHERE = "127.0.0.1:1"


class Thing(LiveObject):
    """Counts how often it was closed."""

    def __init__(
        self,
        *,
        fails: bool = False,
        timeout_s: float = 1.0,
        leftover: Callable[[], None] = lambda: None,
        name: str = "x",
    ) -> None:
        self.closed = 0
        self._connect(name, NOWHERE, timeout_s)
        with self._opening():
            if fails:
                raise KeyError
        self._begin_life(leftover, is_user=True)

    def close(self) -> None:
        self.closed += 1
        self._metadata.close()
        self._end_life()


def test_it_cannot_be_pickled_nor_copied() -> None:
    with Thing() as thing:
        for attempt in (pickle.dumps, copy.copy, copy.deepcopy):
            with pytest.raises(NotPicklable, match="a Thing cannot be pickled"):
                attempt(thing)


def test_what_cannot_be_opened_leaves_no_connection() -> None:
    with pytest.raises(KeyError):
        Thing(fails=True)
    assert NOWHERE not in _channels._table


def test_leaving_its_block_closes_it_but_not_in_a_forked_child() -> None:
    with Thing() as thing:
        pass
    assert thing.closed == 1
    with Thing() as thing:
        inherit_scopes()  # as if this were a child
    assert thing.closed == 0
    thing.close()


def test_its_timeout_is_checked() -> None:
    with pytest.raises(InvalidArgument, match="service_timeout_s"):
        Thing(timeout_s=-1.0)


WAIT_S = 10.0


def test_what_is_dropped_is_ended_by_another_thread_and_warned_of() -> None:
    ended, threads = threading.Event(), []

    def leftover() -> None:
        threads.append(threading.current_thread())
        ended.set()

    thing = Thing(leftover=leftover, name="dropped")
    assert IN_USE.is_used("dropped")
    with pytest.warns(ResourceWarning, match="unclosed <Thing of 'dropped', open>"):
        del thing
    assert ended.wait(WAIT_S)
    assert threads[0] is not threading.current_thread()
    assert not IN_USE.is_used("dropped")


def test_what_is_dropped_in_a_cycle_is_ended_too() -> None:
    ended = threading.Event()
    thing = Thing(leftover=ended.set)
    thing.itself = thing  # type: ignore[attr-defined]
    del thing
    with pytest.warns(ResourceWarning):
        gc.collect()
    assert ended.wait(WAIT_S)


def test_what_was_closed_or_never_opened_is_dropped_quietly() -> None:
    ended: list[int] = []
    for thing in (Thing(leftover=lambda: ended.append(1)), Thing.__new__(Thing)):
        if ended is not None and hasattr(thing, "closed"):
            thing.close()
        repr(thing)
    del thing
    with pytest.raises(KeyError):
        Thing(fails=True, leftover=lambda: ended.append(1))
    gc.collect()
    assert not ended


def test_what_a_forked_child_drops_is_its_parents() -> None:
    ended: list[int] = []
    thing = Thing(leftover=lambda: ended.append(1))
    inherit_scopes()  # as if this were a child
    del thing
    gc.collect()
    assert not ended


def test_an_end_that_is_interrupted_goes_on_in_another_thread() -> None:
    done = threading.Event()
    calls: list[threading.Thread] = []

    def end() -> None:
        calls.append(threading.current_thread())
        if len(calls) == 1:
            raise KeyboardInterrupt
        done.set()

    thing = Thing()
    with pytest.raises(KeyboardInterrupt):
        thing._finish(end)
    assert done.wait(WAIT_S)
    assert calls[1] is not calls[0]
    del thing  # which is no longer missed
    gc.collect()


def test_a_weak_method_keeps_nothing_alive() -> None:
    told: list[int] = []

    class Told:
        def tell(self, what: int) -> None:
            told.append(what)

    one = Told()
    tell = weakly(one.tell)
    tell(1)
    del one
    tell(2)
    assert told == [1]
