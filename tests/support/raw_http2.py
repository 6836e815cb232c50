"""A peer that speaks HTTP/2 byte by byte, so that it can break its rules."""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
END_STREAM, END_HEADERS, ACK = 1, 4, 1


@dataclass(frozen=True)
class Frame:
    kind: int
    flags: int
    stream: int
    payload: bytes


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def literal(name: str, value: str) -> bytes:
    """A header that no table has."""
    return b"\0" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()


def call_headers(path: str) -> bytes:
    return b"".join(
        literal(name, value)
        for name, value in [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", path),
            (":authority", "x"),
            ("content-type", "application/grpc"),
            ("te", "trailers"),
        ]
    )


def message(content: bytes, *, length: int | None = None, compressed: bool = False) -> bytes:
    """What gRPC sends of a message. length: what is said of it."""
    said = len(content) if length is None else length
    return struct.pack(">BI", compressed, said) + content


class RawPeer:
    """A connection of a client. Each wait ends after `timeout_s`.

    source: the address that it comes from: each of 127.0.0.0/8 is another peer.
    """

    def __init__(self, address: str, timeout_s: float = 10.0, source: str = "127.0.0.1") -> None:
        host, _, port = address.rpartition(":")
        self._socket = socket.create_connection(
            (host, int(port)), timeout=timeout_s, source_address=(source, 0)
        )
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._received = b""
        self._stream = -1
        self._window = 65_535

    def __enter__(self) -> RawPeer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def greet(self) -> None:
        self.send(PREFACE + frame(SETTINGS, 0, 0))

    def call(self, path: str) -> int:
        """Begin a call; returns its stream."""
        self._stream += 2
        self.send(frame(HEADERS, END_HEADERS, self._stream, call_headers(path)))
        return self._stream

    def data(self, stream: int, payload: bytes, *, last: bool = False) -> None:
        for start in range(0, len(payload), 16384):
            part = payload[start : start + 16384]
            is_last = last and start + 16384 >= len(payload)
            self.send(frame(DATA, END_STREAM if is_last else 0, stream, part))

    def data_within(self, stream: int, payload: bytes) -> bool:
        """Send one frame once the connection's window lets it. Returns whether that is open."""
        while self._window < len(payload):
            found = self.next()
            if found is None:
                return False
            if found.kind == WINDOW_UPDATE and found.stream == 0:
                self._window += int.from_bytes(found.payload, "big")
        self._window -= len(payload)
        self.send(frame(DATA, 0, stream, payload))
        return True

    def data_at_once(self, stream: int, payload: bytes, *, last: bool = False) -> None:
        """The same, in one write."""
        parts = [payload[start : start + 16384] for start in range(0, len(payload), 16384)]
        flags = [0] * (len(parts) - 1) + [END_STREAM if last else 0]
        frames = (frame(DATA, flag, stream, part) for flag, part in zip(flags, parts, strict=True))
        self.send(b"".join(frames))

    def next(self) -> Frame | None:
        """Return the next frame; None at the end of the connection."""
        while len(self._received) < 9 or len(self._received) < 9 + self._length():
            try:
                more = self._socket.recv(1 << 16)
            except ConnectionResetError:
                return None
            if not more:
                return None
            self._received += more
        length = self._length()
        kind, flags, stream = struct.unpack(">BBI", self._received[3:9])
        found = Frame(kind, flags, stream, self._received[9 : 9 + length])
        self._received = self._received[9 + length :]
        return found

    def _length(self) -> int:
        return int.from_bytes(self._received[:3], "big")

    def until(self, kind: int) -> Frame | None:
        """Return the next frame of a kind; None if the connection ends before."""
        while (found := self.next()) is not None and found.kind != kind:
            pass
        return found

    def until_taken(self) -> list[Frame]:
        """Wait until the server has read all that was sent; returns the frames that came before."""
        self.send(frame(PING, 0, 0, bytes(8)))
        found = []
        while (one := self.next()) is not None and not (one.kind == PING and one.flags & ACK):
            found.append(one)
        return found

    def window(self, wait_s: float) -> int:
        """Return what the server adds to the connection's window until it says nothing."""
        added = 0
        self._socket.settimeout(wait_s)
        try:
            while (found := self.next()) is not None:
                if found.kind == WINDOW_UPDATE and found.stream == 0:
                    added += int.from_bytes(found.payload, "big")
        except TimeoutError:
            pass
        return added
