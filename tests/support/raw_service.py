"""A service that speaks HTTP/2 byte by byte, so that it can break its rules."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from support.raw_http2 import (
    ACK,
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    PREFACE,
    SETTINGS,
    WINDOW_UPDATE,
    Frame,
    frame,
    literal,
    message,
)

#: What a service does with one connection.
Script = Callable[["RawService"], None]


class RawService:
    """The service's end of a connection. Each wait ends after `timeout_s`."""

    def __init__(self, connected: socket.socket, timeout_s: float = 10.0) -> None:
        self._socket = connected
        self._socket.settimeout(timeout_s)
        self._received = b""
        #: What is sent is cut into pieces of this length.
        self.cut_bytes = 1 << 30

    def send(self, *parts: bytes) -> None:
        whole = b"".join(parts)
        for start in range(0, len(whole), self.cut_bytes):
            self._socket.sendall(whole[start : start + self.cut_bytes])
            if len(whole) > self.cut_bytes:
                time.sleep(0.001)  # so that it arrives so

    def greet(self) -> None:
        """Begin as HTTP/2 wants it, and hear the same."""
        self.send(frame(SETTINGS, 0, 0))
        assert self._take(len(PREFACE)) == PREFACE
        self.until(SETTINGS)
        self.send(frame(SETTINGS, ACK, 0))

    def reply(self, stream: int, *contents: bytes, status: int = 0) -> None:
        """Answer a call: some messages, and its end."""
        self.head(stream)
        for content in contents:
            self.data(stream, message(content))
        self.end(stream, status)

    def head(self, stream: int, status: str = "200", kind: str = "application/grpc") -> None:
        fields = literal(":status", status) + literal("content-type", kind)
        self.send(frame(HEADERS, END_HEADERS, stream, fields))

    def data(self, stream: int, payload: bytes) -> None:
        for start in range(0, len(payload), 16384):
            self.send(frame(DATA, 0, stream, payload[start : start + 16384]))

    def end(self, stream: int, status: int = 0) -> None:
        trailers = literal("grpc-status", str(status))
        self.send(frame(HEADERS, END_HEADERS | END_STREAM, stream, trailers))

    def next(self) -> Frame:
        """Return the next frame; raises EOFError at the end of the connection."""
        head = self._take(9)
        kind, flags, stream = struct.unpack(">BBI", head[3:])
        return Frame(kind, flags, stream, self._take(int.from_bytes(head[:3], "big")))

    def until(self, kind: int) -> Frame:
        """Return the next frame of a kind."""
        while (found := self.next()).kind != kind:
            pass
        return found

    def call(self) -> int:
        """Return the stream of the next call, once it has its request."""
        stream = self.until(HEADERS).stream
        while not self.until(DATA).flags & END_STREAM:
            pass
        return stream

    def granted(self, stream: int, wait_s: float) -> int:
        """Return what is added to the window of a stream until the peer is silent."""
        added, timeout_s = 0, self._socket.gettimeout()
        self._socket.settimeout(wait_s)
        try:
            while True:
                found = self.next()
                if found.kind == WINDOW_UPDATE and found.stream == stream:
                    added += int.from_bytes(found.payload, "big")
        except TimeoutError:
            self._socket.settimeout(timeout_s)
        return added

    def hear_all(self) -> None:
        """Pass over what comes until the peer ends the connection."""
        try:
            while True:
                self.next()
        except (EOFError, OSError):
            return

    def _take(self, count: int) -> bytes:
        while len(self._received) < count:
            more = self._socket.recv(1 << 16)
            if not more:
                raise EOFError
            self._received += more
        taken, self._received = self._received[:count], self._received[count:]
        return taken


@contextmanager
def raw_service(*scripts: Script) -> Iterator[str]:
    """Serve the first connection by the first script, and so on. Yields the address."""
    failed: list[BaseException] = []
    threads: list[threading.Thread] = []

    def serve(connected: socket.socket, script: Script) -> None:
        try:
            with connected:
                script(RawService(connected))
        except BaseException as error:  # noqa: BLE001  raised below
            failed.append(error)

    def accept(listener: socket.socket) -> None:
        for script in scripts:
            connected, _ = listener.accept()
            threads.append(threading.Thread(target=serve, args=(connected, script), daemon=True))
            threads[-1].start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(10.0)
        threads.append(threading.Thread(target=accept, args=(listener,), daemon=True))
        threads[0].start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        for thread in threads:  # the first one adds others
            thread.join(20.0)
            assert not thread.is_alive()
    if failed:
        raise failed[0]
