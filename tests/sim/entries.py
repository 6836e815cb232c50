"""Calls that a server serves as the native one does: what has come enters at a time.

How many messages do is drawn, and so is when the server looks: it may be busy. A seed decides
which servers do so; others take one message after the other, as gRPC's own server does.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any, Final

import grpc

from cosco.process.native_grpc import call as native_call
from cosco.process.native_grpc.server import Direct

from .network import Call, Trailers
from .world import World, current

#: Of servers, those that serve so; in the first of these shares of the seeds there is none.
_NONE_SHARE: Final = 1 / 3
_SERVERS_SHARE: Final = 0.6
#: Of looks, those that come late, and how late; of messages, those that leave no room.
_BUSY_SHARE: Final = 0.3
_BUSY_S: Final = 0.004
_FULL_SHARE: Final = 0.05
_FULL_S: Final = 0.05
_CODES: Final = {code.value[0]: code for code in grpc.StatusCode}


def serves_directly(world: World) -> bool:
    """Whether the next server does."""
    return _rng(world).random() < _SERVERS_SHARE


def _rng(world: World) -> random.Random:
    """Return what decides here, apart from the world's own; of some seeds it only ever says no."""
    if world.entries_rng is None:
        rng = random.Random(f"entries {world.seed}")
        world.entries_rng = _Never() if rng.random() < _NONE_SHARE else rng
    return world.entries_rng


class _Never(random.Random):
    def random(self) -> float:
        return 1.0


class DirectCall:
    """The connection of one call, for the handler that serves it without a task."""

    def __init__(self, call: Call, serve: Direct, over: Callable[[], None]) -> None:
        self._world = current()
        self._rng = _rng(self._world)
        self._loop = self._world.loop
        self._call = call
        self._over = over
        self._asked: int | None = None
        self._allowed = 0
        self._is_due = self._was_told_large = False
        ended: asyncio.Future[None] = self._loop.create_future()
        ended.add_done_callback(self._ended)
        call.task = ended
        call.on_inbox = self._soon
        self._served = native_call.Call(self, self._world.next_number(), call.method)
        self._safely(serve, self._served)
        self._soon()

    # --- for the handler: see `native_call.Port` ---------------------------------------------

    def ask(self, number: int, more_bytes: int) -> None:
        assert self._asked is None
        self._asked = more_bytes
        self._soon()

    def allow(self, number: int, length: int) -> None:
        self._allowed = length
        self._soon()

    def send(self, number: int, message: bytes) -> int:
        self._call.send_back(message)
        if self._rng.random() >= _FULL_SHARE:
            return 0
        self._loop.call_later(self._rng.random() * _FULL_S, self._safely, self._served.room)
        return native_call.HIGH_WATER_BYTES

    def finish(self, number: int, trailers: list[tuple[str, bytes]]) -> None:
        said = dict(trailers)
        code = _CODES[int(said.pop("grpc-status"))]
        details = said.pop("grpc-message", b"").decode()
        rest: Trailers = tuple(said.items())
        self._call.finish(code, details, rest)
        self._end()

    # --- what comes --------------------------------------------------------------------------

    def _soon(self) -> None:
        if self._is_due or self._is_over:
            return
        self._is_due = True
        if self._rng.random() < _BUSY_SHARE:
            self._loop.call_later(self._rng.random() * _BUSY_S, self._look)
        else:
            self._loop.call_soon(self._look)

    @property
    def _is_over(self) -> bool:
        assert self._call.task is not None
        return self._call.task.done()

    def _look(self) -> None:
        self._is_due = False
        inbox = self._call.inbox
        if self._is_over or self._asked is None or not inbox:
            return
        first = inbox[0]
        if first is None:
            self._call.take()
            self._asked = None
            self._safely(self._served.on_end)
            return
        if self._is_long(first) and len(first) > self._allowed and not self._was_told_large:
            self._was_told_large = True  # its turn among long ones comes at once
            if not self._served.on_large(len(first)):
                return
        self._was_told_large = False
        messages = self._take(self._asked)
        self._asked = None
        if len(messages) > 1:
            self._world.count("messages entered together")
        self._safely(self._served.on_messages, messages)

    def _take(self, more_bytes: int) -> list[bytes]:
        """Take the first message, and as many behind it as may come, or fewer."""
        inbox = self._call.inbox
        messages = [self._call.take() or b""]
        while not self._is_long(messages[0]) and inbox and inbox[0] is not None:
            more_bytes -= len(inbox[0]) + native_call.MESSAGE_COST_BYTES
            if more_bytes < 0 or self._is_long(inbox[0]) or self._rng.random() < 0.1:
                break
            messages.append(self._call.take() or b"")
        return messages

    def _is_long(self, message: bytes) -> bool:
        return len(message) > native_call.SMALL_BYTES

    # --- the end -----------------------------------------------------------------------------

    def _safely(self, tell: Callable[..., object], *what: Any) -> None:
        """Tell the handler. What it raises ends the call, and is a fault."""
        if self._is_over:
            return
        try:
            tell(*what)
        except Exception as error:  # noqa: BLE001  as the server does
            self._world.problem_of_exception(f"{self._call.method} raised", error)
            self._call.finish(grpc.StatusCode.UNKNOWN, f"{type(error).__name__}: {error}")
            self._end()
            self._served.on_cancel()

    def _end(self) -> None:
        ended = self._call.task
        if isinstance(ended, asyncio.Future) and not ended.done():
            ended.set_result(None)

    def _ended(self, ended: asyncio.Future[None]) -> None:
        self._over()
        if ended.cancelled():  # the client is gone, or the server ends
            self._call.finish(grpc.StatusCode.CANCELLED, "the call was cancelled")
            self._served.on_cancel()
