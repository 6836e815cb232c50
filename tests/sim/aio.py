"""gRPC as the programs under test know it, over the simulated network.

`Server` and `Channel` stand for those of `grpc.aio`, `SyncChannel` for that of `grpc`: they
have the methods that Cosco calls and behave like the real ones there.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Generator, Iterator, Mapping
from contextvars import copy_context
from typing import Any

import grpc
import grpc.aio

from . import entries, threads
from .loop import PROCESS, RunState
from .network import Call, Ghost, Trailers
from .world import current

_Bytes = Callable[[Any], bytes]


def _same(message: Any) -> Any:
    return message


# --- servers ------------------------------------------------------------------------------


class Aborted(Exception):
    """`context.abort` was called."""


class ServerContext:
    """What a handler is given."""

    def __init__(self, call: Call | Ghost, serializer: _Bytes) -> None:
        self._call = call
        self._serializer = serializer

    async def write(self, message: Any) -> None:
        await self._call.reply(self._serializer(message))

    async def abort(
        self, code: grpc.StatusCode, details: str = "", trailing_metadata: Trailers = ()
    ) -> None:
        self._call.finish(code, details, trailing_metadata)
        raise Aborted(details)

    def peer(self) -> str:
        return "simulated"

    def invocation_metadata(self) -> Trailers:
        return ()


class _Details:
    def __init__(self, method: str) -> None:
        self.method = method
        self.invocation_metadata = ()


def new_server(*, direct: Mapping[str, Any] | None = None, **_: Any) -> Server:
    """Stands for `server_choice.new_server`: the server of a daemon may be as the native one is."""
    return Server(direct=direct if direct and entries.serves_directly(current()) else None)


class Server:
    """`grpc.aio.Server` of the process that makes it.

    direct: by method, who serves a call of a stream without a task; see `entries`.
    """

    def __init__(self, *_: Any, direct: Mapping[str, Any] | None = None, **__: Any) -> None:
        self._direct = direct or {}
        process = PROCESS.get()
        assert process is not None
        self.process = process
        self._world = current()
        self._handlers: list[Any] = []
        self._addresses: list[str] = []
        self.calls: dict[Call | Ghost, None] = {}  # as a set that keeps its order
        self._ended = asyncio.Event()

    def add_generic_rpc_handlers(self, handlers: Any) -> None:
        self._handlers += handlers

    def add_insecure_port(self, address: str) -> int:
        taken = self._world.network.servers.get(address)
        if taken is not None and taken.process.state is not RunState.DEAD:
            raise RuntimeError(f"{address} is in use")
        self._addresses.append(address)
        return int(address.rpartition(":")[2])

    async def start(self) -> None:
        for address in self._addresses:
            self._world.network.servers[address] = self
        self.process.on_death[self._leave] = None

    async def stop(self, grace: float | None) -> None:
        self._leave()
        tasks = [call.task for call in self.calls if call.task is not None]
        if tasks and grace:
            await asyncio.wait(tasks, timeout=grace)
        for call in list(self.calls):
            call.finish(grpc.StatusCode.UNAVAILABLE, "the server was stopped")
            if call.task is not None:
                call.task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=1.0)
        self._ended.set()

    async def wait_for_termination(self) -> None:
        await self._ended.wait()

    def _leave(self) -> None:
        servers = self._world.network.servers
        for address in self._addresses:
            if servers.get(address) is self:
                del servers[address]

    def accept(self, call: Call | Ghost) -> None:
        """Begin a handler, when the process has its turn."""
        context = self.process.context.copy()
        self._world.loop.call_soon(self._begin, call, context=context)

    def _begin(self, call: Call | Ghost) -> None:
        if isinstance(call, Call) and call.ended and not call.inbox:
            return
        self.calls[call] = None
        serve = self._direct.get(call.method)
        if serve is not None and isinstance(call, Call):
            entries.DirectCall(call, serve, lambda: self.calls.pop(call, None))
            return
        call.task = self._world.loop.create_task(self._handle(call), context=copy_context())

    async def _handle(self, call: Call | Ghost) -> None:
        try:
            handler = self._find(call.method)
            if handler is None:
                call.finish(grpc.StatusCode.UNIMPLEMENTED, f"no method {call.method}")
                return
            await self._answer(call, handler)
        except Aborted:
            pass
        except asyncio.CancelledError:
            call.finish(grpc.StatusCode.CANCELLED, "the call was cancelled")
        except Exception as error:  # noqa: BLE001  as gRPC does
            call.finish(grpc.StatusCode.UNKNOWN, f"unexpected {type(error).__name__}: {error}")
            self._world.problem_of_exception(f"{self.process.name}: {call.method} raised", error)
        else:
            call.finish(grpc.StatusCode.OK)
        finally:
            self.calls.pop(call, None)

    def _find(self, method: str) -> Any:
        for handler in self._handlers:
            found = handler.service(_Details(method))
            if found is not None:
                return found
        return None

    async def _answer(self, call: Call | Ghost, handler: Any) -> None:
        decode = handler.request_deserializer or _same
        encode = handler.response_serializer or _same
        context = ServerContext(call, encode)
        request: Any
        if handler.request_streaming:
            request = _requests(call, decode)
        else:
            message = await call.read()
            assert message is not None
            request = decode(message)
        if not handler.response_streaming:
            method = handler.stream_unary if handler.request_streaming else handler.unary_unary
            await call.reply(encode(await method(request, context)))
            return
        method = handler.stream_stream if handler.request_streaming else handler.unary_stream
        result = method(request, context)
        if not hasattr(result, "__aiter__"):
            await result
            return
        try:
            async for reply in result:
                await call.reply(encode(reply))
        finally:
            await result.aclose()


async def _requests(call: Call | Ghost, decode: Callable[[bytes], Any]) -> AsyncIterator[Any]:
    while (message := await call.read()) is not None:
        yield decode(message)


# --- clients in event loops ---------------------------------------------------------------


class Channel:
    """`grpc.aio.Channel`."""

    def __init__(self, address: str, *_: Any, **__: Any) -> None:
        self._address = address
        self._calls: dict[_AioCall, None] = {}

    def unary_unary(
        self,
        method: str,
        request_serializer: _Bytes | None = None,
        response_deserializer: Callable[[bytes], Any] | None = None,
    ) -> Callable[..., _AioCall]:
        return self._multi(method, request_serializer, response_deserializer, "unary")

    def unary_stream(
        self,
        method: str,
        request_serializer: _Bytes | None = None,
        response_deserializer: Callable[[bytes], Any] | None = None,
    ) -> Callable[..., _AioCall]:
        return self._multi(method, request_serializer, response_deserializer, "server")

    def stream_stream(
        self,
        method: str,
        request_serializer: _Bytes | None = None,
        response_deserializer: Callable[[bytes], Any] | None = None,
    ) -> Callable[..., _AioCall]:
        return self._multi(method, request_serializer, response_deserializer, "both")

    def _multi(
        self,
        method: str,
        encode: _Bytes | None,
        decode: Callable[[bytes], Any] | None,
        kind: str,
    ) -> Callable[..., _AioCall]:
        def begin(request: Any = None, *, timeout: float | None = None, **_: Any) -> _AioCall:
            call = _AioCall(
                self._address, method, kind, request, timeout, encode or _same, decode or _same
            )
            self._calls[call] = None
            call.add_done_callback(lambda ended: self._calls.pop(ended, None))
            return call

        return begin

    async def close(self, grace: float | None = None) -> None:
        for call in list(self._calls):
            call.cancel()

    async def __aenter__(self) -> Channel:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()


class _AioCall:
    """A call under way; `kind` says which sides stream."""

    def __init__(
        self,
        address: str,
        method: str,
        kind: str,
        request: Any,
        timeout: float | None,
        encode: _Bytes,
        decode: Callable[[bytes], Any],
    ) -> None:
        self._encode = encode
        self._decode = decode
        self._received: deque[bytes] = deque()
        self._status: tuple[grpc.StatusCode, str, Trailers] | None = None
        self._changed: list[asyncio.Future[None]] = []
        self._callbacks: list[Callable[[Any], object]] = []
        self._feeding: asyncio.Task[None] | None = None
        self._call = Call(
            current().network,
            address,
            method,
            unary=kind == "unary",
            timeout=timeout,
            on_message=self._on_message,
            on_end=self._on_end,
        )
        if kind != "both":
            message = encode(request)
            self._call.send(message)
            self._call.send(None)
            if kind == "unary":
                self._call.repeat(message)
        elif request is not None:
            self._feeding = asyncio.ensure_future(self._feed(request))

    async def _feed(self, requests: Any) -> None:
        if hasattr(requests, "__aiter__"):
            async for request in requests:
                await self.write(request)
        else:
            for request in requests:
                await self.write(request)
        await self.done_writing()

    def _on_message(self, message: bytes) -> None:
        self._received.append(message)
        self._wake()

    def _on_end(self, code: grpc.StatusCode, details: str, trailers: Trailers) -> None:
        self._status = code, details, trailers
        self._wake()
        callbacks, self._callbacks = self._callbacks, []
        context = self._call.client.context
        for callback in callbacks:
            self._call.loop.call_soon(callback, self, context=context.copy())
        if self._feeding is not None:
            self._call.loop.call_soon(self._feeding.cancel, context=context.copy())

    def _wake(self) -> None:
        waiting, self._changed = self._changed, []
        for future in waiting:
            if not future.done():
                future.set_result(None)

    async def _wait(self) -> None:
        future = self._call.loop.create_future()
        self._changed.append(future)
        await future

    def __await__(self) -> Generator[Any, None, Any]:
        return self._result().__await__()

    async def _result(self) -> Any:
        try:
            while self._status is None:
                await self._wait()
        except asyncio.CancelledError:
            self.cancel()
            raise
        self._check()
        return self._decode(self._received.popleft())

    def _check(self) -> None:
        assert self._status is not None
        code, details, trailers = self._status
        if code is grpc.StatusCode.CANCELLED and details.startswith("Locally"):
            raise asyncio.CancelledError
        if code is not grpc.StatusCode.OK:
            raise grpc.aio.AioRpcError(
                code, grpc.aio.Metadata(), grpc.aio.Metadata(*trailers), details
            )

    async def read(self) -> Any:
        try:
            while not self._received:
                if self._status is not None:
                    self._check()
                    return grpc.aio.EOF
                await self._wait()
        except asyncio.CancelledError:
            self.cancel()
            raise
        return self._decode(self._received.popleft())

    async def __aiter__(self) -> AsyncIterator[Any]:
        while (message := await self.read()) is not grpc.aio.EOF:
            yield message

    async def write(self, request: Any) -> None:
        if self._status is not None:
            self._check()
            raise asyncio.InvalidStateError("RPC is done")
        self._call.send(self._encode(request))

    async def done_writing(self) -> None:
        self._call.send(None)

    def cancel(self) -> bool:
        if self._status is not None:
            return False
        self._call.cancel()
        return True

    def cancelled(self) -> bool:
        return self._status is not None and self._status[0] is grpc.StatusCode.CANCELLED

    def done(self) -> bool:
        return self._status is not None

    async def code(self) -> grpc.StatusCode:
        while self._status is None:
            await self._wait()
        return self._status[0]

    async def details(self) -> str:
        await self.code()
        assert self._status is not None
        return self._status[1]

    async def trailing_metadata(self) -> Trailers:
        await self.code()
        assert self._status is not None
        return self._status[2]

    async def wait_for_connection(self) -> None:
        await asyncio.sleep(0.001)

    def add_done_callback(self, callback: Callable[[Any], object]) -> None:
        if self._status is not None:
            callback(self)
        else:
            self._callbacks.append(callback)


# --- clients with threads -----------------------------------------------------------------


class SyncChannel:
    """`grpc.Channel`."""

    def __init__(self, address: str, *_: Any, **__: Any) -> None:
        self._address = address

    def unary_unary(self, method: str, *_: Any) -> _SyncUnary:
        return _SyncUnary(self._address, method)

    def unary_stream(self, method: str, *_: Any) -> Callable[..., SyncCall]:
        def begin(request: bytes, timeout: float | None = None, **_: Any) -> SyncCall:
            return SyncCall(self._address, method, timeout, request, unary=False)

        return begin

    def stream_stream(self, method: str, *_: Any) -> Callable[..., SyncCall]:
        def begin(requests: Iterator[bytes], timeout: float | None = None, **_: Any) -> SyncCall:
            call = SyncCall(self._address, method, timeout, None, unary=False)
            call.feed(requests)
            return call

        return begin

    def close(self) -> None:
        pass


class _SyncUnary:
    def __init__(self, address: str, method: str) -> None:
        self._address = address
        self._method = method

    def future(self, request: bytes, timeout: float | None = None, **_: Any) -> SyncCall:
        return SyncCall(self._address, self._method, timeout, request, unary=True)

    def __call__(self, request: bytes, timeout: float | None = None, **_: Any) -> bytes:
        return self.future(request, timeout).result()


class SyncCall:
    """A future and an iterator, as gRPC's calls are."""

    def __init__(
        self,
        address: str,
        method: str,
        timeout: float | None,
        request: bytes | None,
        *,
        unary: bool,
    ) -> None:
        self.number = current().next_number()
        self._received: deque[bytes] = deque()
        self._status: tuple[grpc.StatusCode, str, Trailers] | None = None
        self._changed = threads.Event()
        self._callbacks: list[Callable[[], object]] = []
        self._call = Call(
            current().network,
            address,
            method,
            unary=unary,
            timeout=timeout,
            on_message=self._on_message,
            on_end=self._on_end,
        )
        if request is not None:
            self._call.send(request)
            self._call.send(None)
            if unary:
                self._call.repeat(request)

    def feed(self, requests: Iterator[bytes]) -> None:
        """Send what `requests` yields, on a thread, as gRPC does."""

        def run() -> None:
            for request in requests:
                if self._status is not None:
                    return
                self._call.send(request)
            self._call.send(None)

        threads.Thread(target=run, name="grpc-requests", daemon=True).start()

    def _on_message(self, message: bytes) -> None:
        self._received.append(message)
        self._changed.set()

    def _on_end(self, code: grpc.StatusCode, details: str, trailers: Trailers) -> None:
        self._status = code, details, trailers
        self._changed.set()
        callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            self._call.loop.call_soon(callback, context=self._call.client.context.copy())

    def add_callback(self, callback: Callable[[], object]) -> bool:
        if self._status is not None:
            return False
        self._callbacks.append(callback)
        return True

    def _check(self) -> None:
        assert self._status is not None
        if self._status[0] is not grpc.StatusCode.OK:
            raise grpc.RpcError(self._status[1])

    def result(self) -> bytes:
        while self._status is None:
            self._changed.clear()
            self._changed.wait()
        self._check()
        return self._received.popleft()

    def __iter__(self) -> SyncCall:
        return self

    def __next__(self) -> bytes:
        while not self._received:
            if self._status is not None:
                self._check()
                raise StopIteration
            self._changed.clear()
            self._changed.wait()
        return self._received.popleft()

    def code(self) -> grpc.StatusCode | None:
        return self._status[0] if self._status is not None else None

    def details(self) -> str | None:
        return self._status[1] if self._status is not None else None

    def trailing_metadata(self) -> Trailers | None:
        return self._status[2] if self._status is not None else None

    def cancel(self) -> bool:
        self._call.cancel()
        return True

    def cancelled(self) -> bool:
        return self.code() is grpc.StatusCode.CANCELLED

    def done(self) -> bool:
        return self._status is not None
