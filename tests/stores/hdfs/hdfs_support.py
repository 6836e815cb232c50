"""What the tests of faults of HDFS need: moments, and a namenode that can be cut off."""

from __future__ import annotations

import socket
import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import overload

_WAIT_S = 60.0


class Gate(Sequence[memoryview]):
    """Parts of memory for a put or a read, which stops before it uses part `stop`, for once."""

    def __init__(self, parts: Sequence[memoryview], stop: int) -> None:
        self._parts = parts
        self._stop = stop
        self.reached = threading.Event()
        self.go = threading.Event()

    def __len__(self) -> int:
        return len(self._parts)

    @overload
    def __getitem__(self, index: int) -> memoryview: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[memoryview]: ...
    def __getitem__(self, index: int | slice) -> memoryview | Sequence[memoryview]:
        if index == self._stop and not self.reached.is_set():
            self.reached.set()
            assert self.go.wait(_WAIT_S)
        return self._parts[index]

    def __iter__(self):  # type: ignore[no-untyped-def]  # as a list: this is no use of a part
        return iter(self._parts)


class Wire:
    """A TCP proxy on a port of this host, whose connections can be made to hang, and to go on."""

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._open = threading.Event()
        self._open.set()
        self._sockets: list[socket.socket] = [self._listener]
        self._threads: list[threading.Thread] = []
        self._start(self._accept)

    def hang(self) -> threading.Event:
        """Pass nothing on for the connections there are; those to come are not concerned.

        Returns: what they wait for before they go on.
        """
        hanging, self._open = self._open, threading.Event()
        self._open.set()
        hanging.clear()
        return hanging

    def stop(self) -> None:
        """Cut all connections, and end."""
        for one in self._sockets:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        for thread in self._threads:
            thread.join(_WAIT_S)

    def _start(self, function, *args) -> None:  # type: ignore[no-untyped-def]
        thread = threading.Thread(target=function, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                self._sockets.append(near)
                far = socket.create_connection(("127.0.0.1", self._target_port))
                self._sockets.append(far)
                self._start(self._pump, near, far, self._open)
                self._start(self._pump, far, near, self._open)

    @staticmethod
    def _pump(source: socket.socket, target: socket.socket, is_open: threading.Event) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 16):
                is_open.wait(_WAIT_S)
                target.sendall(data)
        with suppress(OSError):
            target.shutdown(socket.SHUT_WR)
