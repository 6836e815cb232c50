"""An asyncio event loop in virtual time, for many simulated processes at once.

Whatever a process schedules carries the process in its context, so the loop knows whose turn
each callback is: those of a paused process are kept until it goes on, those of a dead one are
dropped, as if its memory were gone. Nothing here reads a clock or waits: when nobody can go
on, time jumps to the next timer. Callbacks due at one time run in the order of their calls.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import itertools
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar, copy_context
from enum import Enum
from typing import Any


class RunState(Enum):
    RUNNING = 1
    PAUSED = 2
    DEAD = 3


class Process:
    """Whatever dies together. `context` is what its first callback runs in."""

    def __init__(self, name: str, host: str) -> None:
        self.name = name
        self.host = host
        self.state = RunState.RUNNING
        self.parked: deque[asyncio.Handle] = deque()
        self.context: Context = copy_context()
        self.context.run(PROCESS.set, self)
        #: Called when the process dies, or ends: connections that break, writes that tear.
        self.on_death: dict[Callable[[], None], None] = {}
        self.is_ending = False  # in good order: its main thread is at its end
        #: What must not be collected while the world goes on, as that would run its code.
        self.kept: list[object] = []

    @property
    def runs(self) -> bool:
        return self.state is RunState.RUNNING

    def __repr__(self) -> str:
        return self.name


#: The process that the running code belongs to; None for the world itself.
PROCESS: ContextVar[Process | None] = ContextVar("PROCESS", default=None)


class _Future(asyncio.Future[Any]):
    """Hashed by its number rather than its address: sets keep one order in every run."""

    def __init__(self, number: int, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop=loop)
        self._number = number

    def __hash__(self) -> int:
        return self._number


class _Task(asyncio.Task[Any]):
    def __init__(self, number: int, coro: Coroutine[Any, Any, Any], **options: Any) -> None:
        self._number = number  # first, as it is hashed while it is made
        super().__init__(coro, **options)

    def __hash__(self) -> int:
        return self._number


class VirtualLoop(asyncio.AbstractEventLoop):
    """Just what asyncio's tasks, futures, locks and timeouts ask of a loop."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.steps = 0
        self.errors: list[str] = []
        self._ready: deque[asyncio.Handle] = deque()
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._order = itertools.count()

    # --- what asyncio calls ----------------------------------------------------------------

    def time(self) -> float:
        return self.now

    def call_soon(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        self._ready.append(handle)
        return handle

    def call_later(  # type: ignore[override]
        self,
        delay: float,
        callback: Callable[..., object],
        *args: Any,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        return self.call_at(self.now + delay, callback, *args, context=context)

    def call_at(  # type: ignore[override]
        self,
        when: float,
        callback: Callable[..., object],
        *args: Any,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        timer = asyncio.TimerHandle(when, callback, args, self, context)
        heapq.heappush(self._timers, (when, next(self._order), timer))
        return timer

    def create_future(self) -> asyncio.Future[Any]:
        return _Future(next(self._order), self)

    def create_task(  # type: ignore[override]
        self,
        coro: Coroutine[Any, Any, Any],
        *,
        name: str | None = None,
        context: Context | None = None,
        **_: Any,
    ) -> asyncio.Task[Any]:
        return _Task(next(self._order), coro, loop=self, name=name, context=context)

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return False

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """It stays where it is and is skipped."""

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        error = context.get("exception")
        self.errors.append(f"{context.get('message')}: {error!r}")

    # --- running ---------------------------------------------------------------------------

    def run(self, until: Callable[[], bool], deadline: float, max_steps: int) -> bool:
        """Run until `until`, asked whenever time goes on; False when it is `deadline` first.

        Raises RuntimeError after `max_steps` callbacks: somebody is busy for ever.
        """
        asyncio._set_running_loop(self)
        try:
            while True:
                self._run_ready(max_steps)
                if until():
                    return True
                if not self._next_timer(deadline):
                    return False
        finally:
            asyncio._set_running_loop(None)

    def _run_ready(self, max_steps: int) -> None:
        ready = self._ready
        while ready:
            handle = ready.popleft()
            if handle._cancelled:
                continue
            process = handle._context.get(PROCESS)  # type: ignore[attr-defined]
            if process is not None and process.state is not RunState.RUNNING:
                if process.state is RunState.PAUSED:
                    process.parked.append(handle)
                continue
            self.steps += 1
            if self.steps > max_steps:
                raise RuntimeError(f"no end after {max_steps} steps, at {self.now:.3f} s")
            handle._run()

    def _next_timer(self, deadline: float) -> bool:
        """Go to the time of the next timer, and make all that are due then ready."""
        timers = self._timers
        while timers and timers[0][2]._cancelled:
            heapq.heappop(timers)
        if not timers or timers[0][0] > deadline:
            return False
        self.now = max(self.now, timers[0][0])
        while timers and timers[0][0] <= self.now:
            self._ready.append(heapq.heappop(timers)[2])
        return True

    def clear(self) -> None:
        """Forget what was still to come, and whoever waits for it."""
        for task in sorted(asyncio.all_tasks(self), key=hash):
            _close(task.get_coro())
        self._ready.clear()
        self._timers.clear()

    # --- processes -------------------------------------------------------------------------

    def pause(self, process: Process) -> None:
        if process.state is RunState.RUNNING:
            process.state = RunState.PAUSED

    def resume(self, process: Process) -> None:
        if process.state is RunState.PAUSED:
            process.state = RunState.RUNNING
            self._ready.extend(process.parked)
            process.parked.clear()

    def kill(self, process: Process) -> None:
        """Nothing of it ever runs again."""
        if process.state is RunState.DEAD:
            return
        process.state = RunState.DEAD
        process.parked.clear()
        callbacks = list(process.on_death)
        process.on_death.clear()
        for callback in callbacks:
            callback()


def _close(coroutine: Any) -> None:
    """End a coroutine, however often it waits on its way out."""
    for _ in range(20):
        with contextlib.suppress(BaseException):
            coroutine.close()
            return
