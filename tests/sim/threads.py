"""Threads of simulated processes: the part of `threading` that the client uses, on greenlets.

One runs at a time, and another one only when it waits: for a lock, a condition, an event, a
queue or a call. A thread belongs to the process that started it, and stops with it; a process
that ends in good order waits for those that are no daemons.
"""

from __future__ import annotations

import traceback
from collections import deque
from collections.abc import Callable, Iterable
from contextvars import copy_context
from queue import Empty
from typing import Any, Final

import greenlet  # type: ignore[import-untyped]

from .loop import PROCESS, Process, VirtualLoop
from .world import current

_HUB_NAME: Final = "MainThread"


class _Parked:
    """A greenlet that waits: whoever comes first wakes it, once."""

    __slots__ = ("_context", "_greenlet", "_timer", "is_woken", "timed_out")

    def __init__(self) -> None:
        self._greenlet = greenlet.getcurrent()
        self._context = copy_context()
        self._timer: Any = None
        self.is_woken = False
        self.timed_out = False

    def wait(self, timeout: float | None) -> bool:
        """Let others run until `wake`; False when `timeout` seconds were over first."""
        if current().is_over:
            raise greenlet.GreenletExit
        hub = self._greenlet.parent
        if hub is None:
            raise RuntimeError("the world itself cannot wait")
        if timeout is not None:
            self._timer = _loop().call_later(
                max(timeout, 0.0), self._time_out, context=self._context
            )
        hub.switch()
        return not self.timed_out

    def wake(self) -> bool:
        """False if it was woken before."""
        if self.is_woken:
            return False
        self.is_woken = True
        if self._timer is not None:
            self._timer.cancel()
        _loop().call_soon(self._greenlet.switch, context=self._context)
        return True

    def _time_out(self) -> None:
        if not self.is_woken:
            self.is_woken = self.timed_out = True
            self._greenlet.switch()


def _loop() -> VirtualLoop:
    return current().loop


class Thread:
    def __init__(
        self,
        group: None = None,
        target: Callable[..., object] | None = None,
        name: str | None = None,
        args: Iterable[Any] = (),
        kwargs: dict[str, Any] | None = None,
        *,
        daemon: bool | None = None,
    ) -> None:
        self._target = target
        self._args = tuple(args)
        self._kwargs = kwargs or {}
        self.name = name or "Thread"
        self.daemon = current_thread().daemon if daemon is None else daemon
        self._ended = Event()
        self._started = False

    def start(self) -> None:
        process = PROCESS.get()
        assert process is not None
        runner = greenlet.greenlet(self._run, parent=current().hub)
        runner.gr_context = process.context.copy()
        runner.thread = self
        process.kept.append(runner)
        self._started = True
        _loop().call_soon(runner.switch, context=process.context.copy())

    def _run(self) -> None:
        try:
            if self._target is not None:
                self._target(*self._args, **self._kwargs)
        except greenlet.GreenletExit:
            raise
        except BaseException:  # noqa: BLE001  the world's problem, not the hub's
            current().problem(f"thread {self.name} died:\n{traceback.format_exc()}")
        finally:
            self._ended.set()

    def join(self, timeout: float | None = None) -> None:
        self._ended.wait(timeout)

    def is_alive(self) -> bool:
        return self._started and not self._ended.is_set()


class _Hub:
    name = _HUB_NAME
    daemon = False


def current_thread() -> Any:
    return getattr(greenlet.getcurrent(), "thread", _Hub)


def get_ident() -> int:
    return id(greenlet.getcurrent())


class _Main:
    """The thread that the process began with."""

    def is_alive(self) -> bool:
        process = PROCESS.get()
        return process is None or not process.is_ending


def main_thread() -> _Main:
    return _Main()


def join_all(process: Process) -> None:
    """Wait for the other threads of a process whose main thread is at its end."""
    process.is_ending = True
    me = greenlet.getcurrent()
    while threads := [
        kept.thread
        for kept in process.kept
        if isinstance(kept, greenlet.greenlet)
        and kept is not me
        and not kept.thread.daemon
        and kept.thread.is_alive()
    ]:
        threads[0].join()


class RLock:
    """Also stands for Lock, whose users here never take it twice."""

    def __init__(self) -> None:
        self._owner: object | None = None
        self._count = 0
        self._queue: deque[_Parked] = deque()

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        me = greenlet.getcurrent()
        if self._owner is me:
            self._count += 1
            return True
        deadline = None if timeout < 0 else _loop().now + timeout
        while self._owner is not None:
            if not blocking or timeout == 0:
                return False
            parked = _Parked()
            self._queue.append(parked)
            left = None if deadline is None else deadline - _loop().now
            if not parked.wait(left) and self._owner is not None:
                return False
        self._owner, self._count = me, 1
        return True

    def release(self) -> None:
        if self._owner is not greenlet.getcurrent():
            raise RuntimeError("released by another thread than the one that has it")
        self._count -= 1
        if not self._count:
            self._owner = None
            self._wake_next()

    def _is_owned(self) -> bool:
        return self._owner is greenlet.getcurrent()

    def _wake_next(self) -> None:
        while self._queue and not self._queue.popleft().wake():
            pass

    def release_all(self) -> int:
        count, self._count, self._owner = self._count, 0, None
        self._wake_next()
        return count

    def acquire_again(self, count: int) -> None:
        self.acquire()
        self._count = count

    def is_mine(self) -> bool:
        return self._owner is greenlet.getcurrent()

    def locked(self) -> bool:
        return self._owner is not None

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *exc: object) -> None:
        self.release()


Lock = RLock


class Condition:
    def __init__(self, lock: RLock | None = None) -> None:
        self._lock = lock or RLock()
        self._waiting: deque[_Parked] = deque()
        self.acquire = self._lock.acquire
        self.release = self._lock.release

    def __enter__(self) -> bool:
        return self._lock.acquire()

    def __exit__(self, *exc: object) -> None:
        self._lock.release()

    def wait(self, timeout: float | None = None) -> bool:
        if not self._lock.is_mine():
            raise RuntimeError("waits without the lock")
        parked = _Parked()
        self._waiting.append(parked)
        count = self._lock.release_all()
        try:
            return parked.wait(timeout)
        finally:
            self._lock.acquire_again(count)

    def wait_for(self, predicate: Callable[[], Any], timeout: float | None = None) -> Any:
        deadline = None if timeout is None else _loop().now + timeout
        result = predicate()
        while not result:
            left = None if deadline is None else deadline - _loop().now
            if left is not None and left <= 0:
                break
            self.wait(left)
            result = predicate()
        return result

    def notify(self, n: int = 1) -> None:
        while n and self._waiting:
            n -= self._waiting.popleft().wake()

    def notify_all(self) -> None:
        self.notify(len(self._waiting))


class Event:
    def __init__(self) -> None:
        self._set = False
        self._waiting: list[_Parked] = []

    def is_set(self) -> bool:
        return self._set

    def set(self) -> None:
        self._set = True
        waiting, self._waiting = self._waiting, []
        for parked in waiting:
            parked.wake()

    def clear(self) -> None:
        self._set = False

    def wait(self, timeout: float | None = None) -> bool:
        if not self._set:
            parked = _Parked()
            self._waiting.append(parked)
            parked.wait(timeout)
        return self._set


class SimpleQueue:
    """`queue.SimpleQueue`."""

    def __init__(self) -> None:
        self._items: deque[Any] = deque()
        self._waiting: deque[_Parked] = deque()

    def put(self, item: Any) -> None:
        self._items.append(item)
        while self._waiting and not self._waiting.popleft().wake():
            pass

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        while not self._items:
            if not block:
                raise Empty
            parked = _Parked()
            self._waiting.append(parked)
            if not parked.wait(timeout):
                raise Empty
        return self._items.popleft()

    def empty(self) -> bool:
        return not self._items

    def qsize(self) -> int:
        return len(self._items)


def sleep(seconds: float) -> None:
    """`time.sleep` of a simulated thread."""
    _Parked().wait(seconds)
