"""One call that a native server serves, as its handler sees it."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, Final, NoReturn, Protocol
from urllib.parse import quote

import grpc

from cosco.protocol.peer import NOBODY, Peer

#: Who has sent this much that the peer has not taken waits until it has.
HIGH_WATER_BYTES: Final = 1 << 20
#: Messages up to this length come without being allowed; as in native/transport/src/stream.rs.
SMALL_BYTES: Final = 16 << 10
#: What each further message of an entry counts beside its length; as in stream.rs.
MESSAGE_COST_BYTES: Final = 64
#: Names of metadata that end so carry bytes.
_BINARY: Final = "-bin"
#: The characters of details that need not be escaped, beside letters and digits.
_PLAIN: Final = " !\"#$&'()*+,-./:;<=>?@[\\]^_`{|}~"

Metadata = Sequence[tuple[str, str | bytes]]


class Port(Protocol):
    """The connection of a call."""

    def ask(self, number: int, more_bytes: int) -> None:
        """Ask for the next message of a call, and for short ones that are there by then."""

    def allow(self, number: int, length: int) -> None:
        """Let messages of a call come that are up to `length` bytes long."""

    def send(self, number: int, message: bytes) -> int:
        """Send a message. Returns the bytes of the call that its peer has not taken yet."""

    def finish(self, number: int, trailers: list[tuple[str, bytes]]) -> None:
        """End a call, after what was sent."""


class Aborted(Exception):
    """Raised by `Call.abort`, so that the handler ends."""

    def __init__(self, code: grpc.StatusCode, details: str, trailers: Metadata) -> None:
        super().__init__(details)
        self.code, self.details, self.trailers = code, details, trailers


class Call:
    """A call: what a handler is given as its context, and what its connection tells it.

    peer: who calls.
    """

    def __init__(self, port: Port, number: int, method: str, peer: Peer = NOBODY) -> None:
        self.number = number
        self.method = method
        self.peer = peer
        self._port = port
        self._unsent_bytes = 0
        self._is_over = False
        self._messages: list[bytes] = []
        self._has_ended = False
        self._news: asyncio.Future[None] | None = None
        self._room: asyncio.Future[None] | None = None
        #: For who looks whether its peer says anything: whether something was said since the last
        #: look, whether ever, and since when nothing was.
        self.was_heard, self.has_spoken, self.quiet_since = True, False, 0.0
        #: Called with what each `ask` was for, in the place of `next_message`.
        self.on_messages: Callable[[list[bytes]], None] = self._keep
        #: Called when no message will follow.
        self.on_end: Callable[[], None] = self._note_end
        #: Called when the peer, or the connection, is gone; nothing can be sent any more.
        self.on_cancel: Callable[[], None] = _nothing
        #: Called with the length of a message that is longer than was allowed; says whether it may
        #: come all the same, in its turn.
        self.on_large: Callable[[int], bool] = _always
        #: Called when nothing was said for long; says whether it has ended the call for that.
        self.on_quiet: Callable[[], bool] = _goes_on
        #: Called when more can be sent again.
        self.on_room: Callable[[], None] = self._note_room

    # --- messages that come ----------------------------------------------------------------

    def ask(self, more_bytes: int = 0) -> None:
        """Ask for the next message, which `on_messages` is called with.

        more_bytes: of further messages that are there by then. They come with it if they are short:
        a long one comes alone. Each counts MESSAGE_COST_BYTES more than its length.
        """
        self._port.ask(self.number, more_bytes)

    def allow(self, length: int) -> None:
        """Let messages come that are up to `length` bytes long."""
        self._port.allow(self.number, length)

    async def next_message(self) -> bytes | None:
        """Return the next message; None if there is no further one."""
        if not self._messages and not self._has_ended:
            self.ask()
            self._news = asyncio.get_running_loop().create_future()
            await self._news
        return self._messages.pop() if self._messages else None

    async def messages(self) -> AsyncIterator[bytes]:
        """Yield the messages as they come."""
        while (message := await self.next_message()) is not None:
            yield message

    def _keep(self, messages: list[bytes]) -> None:
        self._messages += messages
        self._note_news()

    def _note_end(self) -> None:
        self._has_ended = True
        self._note_news()

    def _note_news(self) -> None:
        if self._news is not None and not self._news.done():
            self._news.set_result(None)

    # --- messages that go -------------------------------------------------------------------

    @property
    def has_room(self) -> bool:
        """Whether its peer takes what it is sent."""
        return self._unsent_bytes < HIGH_WATER_BYTES

    def send(self, message: bytes) -> None:
        """Send a message, however much the peer has not taken."""
        self._unsent_bytes = self._port.send(self.number, message)

    async def write(self, message: bytes) -> None:
        """Send a message once the peer takes it."""
        self.send(message)
        while not self.has_room:
            self._room = asyncio.get_running_loop().create_future()
            await self._room

    def room(self) -> None:
        """Note that the peer has taken most of what it was sent."""
        self._unsent_bytes = 0
        self.on_room()

    def _note_room(self) -> None:
        if self._room is not None and not self._room.done():
            self._room.set_result(None)

    # --- the end ----------------------------------------------------------------------------

    async def abort(
        self, code: grpc.StatusCode, details: str = "", trailing_metadata: Metadata = ()
    ) -> NoReturn:
        """End the call with an error, by raising Aborted."""
        raise Aborted(code, details, trailing_metadata)

    def finish(self, code: grpc.StatusCode, details: str = "", trailers: Metadata = ()) -> None:
        """End the call, after what was sent; repeatable."""
        if not self._is_over:
            self._is_over = True
            self._port.finish(self.number, encoded_trailers(code, details, trailers))


def encoded_trailers(
    code: grpc.StatusCode, details: str, trailers: Metadata
) -> list[tuple[str, bytes]]:
    """Return what ends a call as HTTP/2 carries it."""
    number: Any = code.value[0]
    found = [("grpc-status", b"%d" % number)]
    if details:
        found.append(
            ("grpc-message", quote(details, safe=_PLAIN, errors="replace").encode("ascii"))
        )
    for name, value in trailers:
        raw = value.encode() if isinstance(value, str) else value
        if name.endswith(_BINARY):
            raw = base64.b64encode(raw).rstrip(b"=")
        found.append((name, raw))
    return found


def _always(_length: int) -> bool:
    return True


def _goes_on() -> bool:
    return False


def _nothing() -> None:
    """Nobody is told."""
