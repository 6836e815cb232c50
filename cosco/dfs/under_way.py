"""Calls of a store that are under way: waited for to their end, unless they are abandoned."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar

T = TypeVar("T")


class CallsUnderWay:
    """Calls that use memory of their caller, and others that a store waits for when it closes.

    Used from one event loop.
    """

    def __init__(self) -> None:
        self._calls: set[asyncio.Future[Any]] = set()
        self._abandoned = asyncio.Event()

    def add(self, call: asyncio.Future[T]) -> asyncio.Future[T]:
        """Have `wait` wait for this call, too.

        Returns: the call.
        """
        self._calls.add(call)
        call.add_done_callback(self._calls.discard)
        return call

    @asynccontextmanager
    async def waited_for(self) -> AsyncIterator[None]:
        """Have `wait` wait for what is in this block."""
        ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.add(ended)
        try:
            yield
        finally:
            ended.set_result(None)

    async def to_the_end(self, call: asyncio.Future[T]) -> T:
        """Wait for a call that uses the caller's memory. A cancelled wait ends after it, too.

        Or once the calls are abandoned: then the memory stays in use.
        """
        try:
            return await asyncio.shield(call)
        except asyncio.CancelledError:
            given_up = asyncio.ensure_future(self._abandoned.wait())
            ends: list[asyncio.Future[Any]] = [call, given_up]
            while not (call.done() or self._abandoned.is_set()):
                with suppress(asyncio.CancelledError):
                    await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            given_up.cancel()
            if call.done() and not call.cancelled():
                call.exception()  # which nobody asks for any more
            raise

    async def wait(self, more: Iterable[asyncio.Future[Any]] = ()) -> None:
        """Wait for all calls, and `more`; when this is cancelled, or has ended, abandon them."""
        try:
            more = list(more)
            while calls := [call for call in (*self._calls, *more) if not call.done()]:
                for call in (await asyncio.wait(calls))[0]:
                    if not call.cancelled():
                        call.exception()  # told to whoever made the call
        finally:
            self._abandoned.set()
