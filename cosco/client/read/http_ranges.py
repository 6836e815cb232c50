"""Ranges of single objects over HTTP, by URLs that are good for nothing else; blocks.

By the standard library: a URL is used as it was given, byte for byte, as it is signed; redirects
are not followed; and a reader needs no library of a store. `HTTPS_PROXY` and its like are not used.
"""

from __future__ import annotations

import http.client
import mmap
import socket
import ssl
import threading
import time
from contextlib import suppress
from typing import Final
from urllib.parse import SplitResult

from cosco.client.read.state.direct_chunk import DirectFailed
from cosco.protocol.fetch_records import Reference

#: How long a range may take, repetitions included.
READ_S: Final = 15.0
#: How long a server may be silent.
_SILENT_S: Final = 5.0
_ATTEMPTS: Final = 3
_PAUSE_S: Final = 0.2
#: Statuses after which the same may be asked for again: too much is asked, or something failed.
_AGAIN: Final = frozenset({429, 500, 502, 503, 504})
#: Connections that are kept for the next range.
_KEPT: Final = 4
#: What is received between two looks at the clock.
_RECEIVED_BYTES: Final = 256 << 10


class _Again(Exception):
    """A range that may be asked for once more."""


class HttpRanges:
    """Reads for one reader, and keeps connections between two ranges; from several threads."""

    def __init__(self) -> None:
        """Begin without connections."""
        self._lock = threading.Lock()
        self._kept: list[tuple[tuple[str, str], http.client.HTTPConnection]] = []
        self._in_use: set[http.client.HTTPConnection] = set()
        self._tls: ssl.SSLContext | None = None
        self._is_closed = False

    def read(
        self, parts: SplitResult, reference: Reference, offset: int, length: int
    ) -> memoryview:
        """Return `length` bytes of an object from `offset` on.

        Raises: DirectFailed, which says no more than the status or the kind of failure.
        """
        until = time.monotonic() + READ_S
        pause_s = _PAUSE_S
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                return self._attempt(parts, reference, offset, length, until)
            except _Again as error:
                left_s = until - time.monotonic() - pause_s
                if attempt == _ATTEMPTS or left_s <= 0 or self._is_closed:
                    raise DirectFailed(f"{reference.path}: {error}") from None
            time.sleep(pause_s)
            pause_s *= 2
        raise AssertionError("the last attempt returns or raises")

    def close(self) -> None:
        """Close the connections that are kept, and have those in use fail."""
        with self._lock:
            self._is_closed = True
            kept, self._kept = self._kept, []
            for connection in self._in_use:
                if connection.sock is not None:
                    with suppress(OSError):  # it may be closed at this moment
                        connection.sock.shutdown(socket.SHUT_RDWR)
        for _, connection in kept:
            connection.close()

    # --- one request ----------------------------------------------------------------------

    def _attempt(
        self, parts: SplitResult, reference: Reference, offset: int, length: int, until: float
    ) -> memoryview:
        connection, is_kept = self._connection(parts, until)
        with self._lock:
            self._in_use.add(connection)
        try:
            data = _range(connection, parts, reference, offset, length, until)
        except (http.client.HTTPException, OSError, ValueError) as error:
            connection.close()
            if is_kept:  # the server has closed it meanwhile, as it may at any time
                return self._attempt(parts, reference, offset, length, until)
            if isinstance(error, ssl.SSLCertVerificationError | ValueError):
                raise DirectFailed(f"{reference.path}: {type(error).__name__}") from None
            raise _Again(_kind(error)) from None
        except BaseException:
            connection.close()
            raise
        finally:
            with self._lock:
                self._in_use.discard(connection)
        self._keep(parts, connection)
        return data

    def _connection(
        self, parts: SplitResult, until: float
    ) -> tuple[http.client.HTTPConnection, bool]:
        """Return a connection, and whether it was used before."""
        key = parts.scheme, parts.netloc
        with self._lock:
            for index, (found, connection) in enumerate(self._kept):
                if found == key:
                    del self._kept[index]
                    return connection, True
        try:
            host, port = parts.hostname, parts.port
        except ValueError:
            host = port = None
        if not host or parts.username is not None:
            raise DirectFailed("a URL was given that names no server")
        timeout = max(0.1, min(_SILENT_S, until - time.monotonic()))
        if parts.scheme == "http":
            return http.client.HTTPConnection(host, port, timeout=timeout), False
        return http.client.HTTPSConnection(
            host, port, timeout=timeout, context=self._context()
        ), False

    def _context(self) -> ssl.SSLContext:
        with self._lock:
            if self._tls is None:
                self._tls = ssl.create_default_context()
            return self._tls

    def _keep(self, parts: SplitResult, connection: http.client.HTTPConnection) -> None:
        with self._lock:
            if not self._is_closed and len(self._kept) < _KEPT:
                self._kept.append(((parts.scheme, parts.netloc), connection))
                return
        connection.close()


def _range(
    connection: http.client.HTTPConnection,
    parts: SplitResult,
    reference: Reference,
    offset: int,
    length: int,
    until: float,
) -> memoryview:
    target = f"{parts.path}?{parts.query}" if parts.query else parts.path
    last = offset + length - 1
    connection.request("GET", target, headers={"Range": f"bytes={offset}-{last}"})
    response = connection.getresponse()
    if response.status in _AGAIN:
        raise _Again(f"its server answers {response.status}")
    if response.status != http.client.PARTIAL_CONTENT:
        raise DirectFailed(f"{reference.path}: its server answers {response.status}")
    expected = f"bytes {offset}-{last}/{reference.file_bytes}"
    if response.headers.get("Content-Range", "") != expected or response.length != length:
        raise DirectFailed(f"{reference.path}: its server answers another range than was asked for")
    memory = memoryview(mmap.mmap(-1, length))
    got = 0
    while got < length:
        if time.monotonic() > until:
            raise DirectFailed(f"{reference.path}: its server took longer than {READ_S:g} s")
        count = response.readinto(memory[got : got + _RECEIVED_BYTES])
        if not count:
            raise _Again("its server has answered a part")
        got += count
    response.read()  # so that the connection can be used again
    return memory


def _kind(error: Exception) -> str:
    """Return what failed, without what a server has said."""
    if isinstance(error, TimeoutError):
        return "its server is silent"
    if isinstance(error, socket.gaierror | ConnectionError):
        return f"its server cannot be reached: {type(error).__name__}"
    return f"its server answers nonsense: {type(error).__name__}"
