"""What the services need of gRPC to call each other: channels, and calls on them.

For event loops: the client, whose callers are threads, has its own in `cosco.client.rpc`. Messages
are bytes here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Protocol

#: A stream that has this much to send has no room: its caller is to wait for `on_room`.
HIGH_WATER_BYTES = 1 << 20


class CallFailed(Exception):
    """A call has failed.

    code: gRPC's name for how. details: what this end, or the peer, says of it. error: what stands
    under `wire.ERROR_KEY`, if the service has said which error it means; empty if not.
    """

    def __init__(self, code: str, details: str, error: bytes = b"") -> None:
        super().__init__(code, details)
        self.code, self.details, self.error = code, details, error

    def __str__(self) -> str:
        """Return it in one line, as of a peer that may say what it wants."""
        return f"{self.code.lower()}: {' '.join(self.details.split())[:200]}"


class StreamListener(Protocol):
    """Who is told what comes of a stream. What it raises ends the stream, as a failure."""

    def on_message(self, message: bytes) -> None:
        """Take a message that came."""

    def on_room(self) -> None:
        """Note that there is room to send again."""

    def on_end(self, failure: CallFailed | None) -> None:
        """Note that the stream is over, once: None if the service has ended it well."""


class ServiceStream(ABC):
    """A call on which both sides say much. Nobody waits in its calls."""

    @property
    @abstractmethod
    def has_room(self) -> bool:
        """Whether the peer takes what it is sent."""

    @abstractmethod
    def send(self, message: bytes) -> None:
        """Have a message sent, in order; nothing happens once the stream is over."""

    @abstractmethod
    def half_close(self) -> None:
        """Send nothing further, after what was sent."""

    @abstractmethod
    def cancel(self) -> None:
        """End it at once; its listener is told nothing more. Repeatable."""


class ServiceChannel(ABC):
    """A connection to one address, made at the first call and again when it was lost.

    It belongs to the event loop in which calls are made. While an attempt to connect has just
    failed, calls fail at once.
    """

    @abstractmethod
    async def unary(self, method: str, request: bytes, timeout_s: float) -> bytes:
        """Call `/service/method`, and return its reply; raises CallFailed."""

    @abstractmethod
    def stream(self, method: str, listener: StreamListener) -> ServiceStream:
        """Begin a stream of `/service/method`. The listener is told nothing before this returns."""

    @abstractmethod
    async def close(self) -> None:
        """End all calls, which fail, and the connection, for good."""
