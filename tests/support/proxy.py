"""A TCP proxy that a daemon is put behind (`--advertise`), whose path can fail.

It tells connections apart by the gRPC methods called on them, so that the path of rows can
fail while the metadata service still reaches the daemon, or the other way round.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Self

from cosco.protocol import wire

_PIECE_BYTES = 256 << 10
#: Calls that are told apart, by what is in the first request of a connection.
_METHODS = {"Push", "Fetch", "Probe", "Seal"}
#: Of RFC 7541, appendix B, what is in these paths.
_CODES = {
    ".": "010111", "/": "011000", "1": "00001", "F": "1100001", "P": "1101011", "S": "1101110",
    "a": "00011", "b": "100011", "c": "00100", "e": "00101", "f": "100101", "h": "100111",
    "l": "101000", "o": "00111", "r": "101100", "s": "01000", "t": "01001", "u": "101101",
    "v": "1110111",
}  # fmt: skip
_SNIFFED_BYTES = 16 << 10
_RESET_WHEN_CLOSED = struct.pack("ii", 1, 0)


class Proxy:
    """Forwards connections to `target`, host:port, which may be set later.

    A fault applies to connections on which one of `methods` (e.g. "Push") was called; with none
    named to all, those to come included. Methods may be called from any thread.
    """

    def __init__(self, target: str = "") -> None:
        self.target = target
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._thread.start()
        self._links: set[_Link] = set()
        self._stalled: set[str] = set()
        self._refused: set[str] = set()
        self._delay_s = 0.0
        self._mute = False
        self._is_ending = False
        self._changed: asyncio.Event = self._call(self._new_event)
        self._server: asyncio.Server = self._call(self._listen)
        port = self._server.sockets[0].getsockname()[1]
        #: host:port to connect to.
        self.address = f"127.0.0.1:{port}"

    # --- faults ---------------------------------------------------------------------------

    def stall(self, *methods: str) -> None:
        """Nothing gets through any more, in either direction, and nobody is told."""
        self._call(self._set, self._stalled, methods)

    def refuse(self, *methods: str) -> None:
        """Reset what is there, and whatever comes, as long as it lasts."""
        self._call(self._set, self._refused, methods)
        self._call(self._reset, methods)

    def cut(self, *methods: str) -> int:
        """Reset the connections that are there; returns how many. Others may come at once."""
        cut: int = self._call(self._reset, methods)
        return cut

    def delay(self, seconds: float) -> None:
        """Every piece of at most 256 KiB takes so long."""
        self._delay_s = seconds

    def mute(self) -> None:
        """Requests get through, and answers do not come back."""
        self._mute = True

    def resume(self) -> None:
        """Let everything through again: what was stalled goes on where it was."""
        self._delay_s = 0.0
        self._mute = False
        self._call(self._clear)

    def connections(self, *methods: str) -> int:
        """How many there are."""
        count: int = self._call(self._count, methods)
        return count

    def close(self) -> None:
        """End everything; repeatable."""
        if self._loop.is_closed():
            return
        self._call(self._end)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # --- on the loop ----------------------------------------------------------------------

    def _call(self, function: Callable[..., Awaitable[Any]], *args: object) -> Any:
        async def run() -> Any:
            return await function(*args)

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(10)

    async def _new_event(self) -> asyncio.Event:
        return asyncio.Event()

    async def _listen(self) -> asyncio.Server:
        return await asyncio.start_server(self._serve, "127.0.0.1", 0)

    async def _set(self, fault: set[str], methods: tuple[str, ...]) -> None:
        fault.update(methods or {"*"})

    async def _clear(self) -> None:
        self._stalled.clear()
        self._refused.clear()
        self._changed.set()
        self._changed = asyncio.Event()

    async def _reset(self, methods: tuple[str, ...]) -> int:
        wanted = set(methods or {"*"})
        links = [link for link in self._links if link.is_one_of(wanted)]
        for link in links:
            link.reset()
        return len(links)

    async def _count(self, methods: tuple[str, ...]) -> int:
        return sum(link.is_one_of(set(methods or {"*"})) for link in self._links)

    async def _end(self) -> None:
        self._is_ending = True
        # Also what was accepted and is not a link yet: it ends as soon as it has begun. The server
        # is closed after them, since asyncio gives up, open, what it accepted just before that.
        while others := asyncio.all_tasks() - {asyncio.current_task()}:
            for link in self._links:
                link.task.cancel()
            await asyncio.wait(others)
        self._server.close()
        await asyncio.sleep(0)  # transports that were aborted close at the next turn

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        link = _Link(task, [writer])
        self._links.add(link)
        try:
            if self._is_ending or "*" in self._refused:
                return
            host, _, port = self.target.rpartition(":")
            far_reader, far_writer = await asyncio.open_connection(host, int(port))
            link.writers.append(far_writer)
            async with asyncio.TaskGroup() as pumps:
                pumps.create_task(self._pump(link, reader, far_writer, from_client=True))
                pumps.create_task(self._pump(link, far_reader, writer, from_client=False))
        except (OSError, _Ended, ExceptionGroup):
            pass  # of no interest to the other side, which is reset below
        except asyncio.CancelledError:
            # The end of the proxy: asyncio's server would log the cancellation of its task.
            pass
        finally:
            link.reset()
            self._links.discard(link)

    async def _pump(
        self,
        link: _Link,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        from_client: bool,
    ) -> None:
        while data := await reader.read(_PIECE_BYTES):
            if from_client:
                link.sniff(data)
            while link.is_one_of(self._stalled) or (self._mute and not from_client):
                await self._changed.wait()
            if link.is_one_of(self._refused):
                break
            if self._delay_s:
                await asyncio.sleep(self._delay_s)
            writer.write(data)
            await writer.drain()
        raise _Ended


def _paths(method: str) -> tuple[bytes, bytes]:
    """How the path of a method may look in a header: plain, or in the code of HPACK."""
    path = f"/{wire.SHUFFLE_SERVICE}/{method}"
    bits = "".join(_CODES[character] for character in path)
    bits = bits[: len(bits) // 8 * 8]  # what stands behind it is in the last byte, too
    return path.encode(), int(bits, 2).to_bytes(len(bits) // 8, "big")


class _Ended(Exception):
    """One side has closed: so must the other."""


class _Link:
    """One connection through the proxy, and what is called on it."""

    def __init__(self, task: asyncio.Task[None], writers: list[asyncio.StreamWriter]) -> None:
        self.task = task
        self.writers = writers
        self._methods: set[str] = set()
        self._seen = 0
        self._tail = b""

    def sniff(self, data: bytes) -> None:
        if self._seen < _SNIFFED_BYTES:
            beginning = self._tail + data[:_SNIFFED_BYTES]
            for method in _METHODS:
                if any(path in beginning for path in _paths(method)):
                    self._methods.add(method)
            self._seen += len(data)
            self._tail = beginning[-32:]

    def is_one_of(self, methods: set[str]) -> bool:
        return "*" in methods or bool(methods & self._methods)

    def reset(self) -> None:
        for writer in self.writers:
            sock = writer.get_extra_info("socket")
            with suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_WHEN_CLOSED)
            writer.transport.abort()
