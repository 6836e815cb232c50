"""One connection of a native server, in an asyncio event loop."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

import grpc

from cosco.process.native_grpc.call import Call
from cosco.process.native_grpc.large_messages import LargeMessages
from cosco.process.native_grpc.peer_calls import PeerTally
from cosco.protocol.peer import Peer, credential_of

log = logging.getLogger(__name__)

#: Begins to serve a call.
Begin = Callable[[Call], None]

_CALL, _MESSAGES, _LARGE, _ENDED, _BROKEN, _CANCELLED, _WRITABLE, _CLOSED = range(8)


class ServedConnection:
    """A connection and its calls; `open` to `close` once.

    native: `cosco_native.ServerConnection` of `connected`. address: `host:port` of the peer.
    is_encrypted: whether `native` carries TLS. closed: called at the end, with why TLS has failed
    if it has, else with nothing.
    """

    def __init__(
        self,
        connected: socket.socket,
        native: Any,
        *,
        address: str,
        is_encrypted: bool,
        begin: Begin,
        large: LargeMessages,
        max_message_bytes: int,
        kept: Callable[[ServedConnection, int], None],
        tally: PeerTally,
        called: Callable[[ServedConnection], None],
        closed: Callable[[ServedConnection, str], None],
    ) -> None:
        """Make one that is not open.

        kept: called with what messages that have not come whole hold, when that has changed.
        tally: where its calls are counted, each before it begins. called: called when the first
        call has come.
        """
        self._loop = asyncio.get_running_loop()
        self._socket = connected
        self._native = native
        self.address = address
        self._is_encrypted = is_encrypted
        self._peer: Peer | None = None
        self._begin = begin
        self._large = large
        self._max_message_bytes = max_message_bytes
        self._kept = kept
        self._kept_bytes = 0
        self.tally = tally
        self._counted_calls = 0
        self._called = called
        self._closed = closed
        self._calls: dict[int, Call] = {}
        self._is_pumping = self._is_due = self._is_writing = self._is_closed = False
        self._is_reading = False
        #: For who looks whether the peer lives: bytes that had come, when that was seen, and when
        #: the peer was asked since.
        self._heard_bytes = 0
        self._heard_at = self._loop.time()
        self._asked_at: float | None = None

    def open(self) -> None:
        """Begin to serve."""
        self._watch_reading(True)
        self._pump(True)

    def close(self) -> None:
        """Send what can be sent at once, and end all calls, and the connection; repeatable."""
        if self._is_closed:
            return
        if not self._is_pumping:
            self._native.advance(False)
        self._is_closed = True
        self._loop.remove_reader(self._socket)
        self._loop.remove_writer(self._socket)
        for call in list(self._calls.values()):
            self._forget(call.number)
            self._cancel(call)
        self._native.close()
        self._socket.close()
        self._note_kept(0)
        self._note_calls(0)
        self._closed(self, self._native.tls_failure)

    def stop(self) -> None:
        """Take no further calls."""
        self._native.stop()
        self._soon()

    @property
    def is_idle(self) -> bool:
        """Whether it has no calls, and its peer has taken all that was sent on them."""
        return not self._native.calls and not self._native.wants_write

    def tick(self, now: float, *, silent_s: float, answer_s: float) -> None:
        """Ask a peer that is silent whether it lives; end the connection if it does not say."""
        heard = self._native.received_bytes
        if heard != self._heard_bytes:
            self._heard_bytes, self._heard_at, self._asked_at = heard, now, None
        elif self._asked_at is None:
            if now - self._heard_at >= silent_s:
                self._asked_at = now
                self._native.ping()  # nothing, for one that has not greeted
                self._soon()
        elif now - self._asked_at >= answer_s:
            self.close()

    def end_quiet_calls(self, now: float, *, first_s: float, quiet_s: float) -> int:
        """End calls on which nothing has come for `first_s`, and those that are no use any more
        when nothing was said on them for `quiet_s`.

        Returns: how many that were. That a peer answers pings does not keep calls that say nothing.
        """
        ended = 0
        for call in list(self._calls.values()):
            quiet = now - call.quiet_since
            if call.was_heard:
                call.was_heard, call.quiet_since = False, now
            elif not call.has_spoken and quiet >= first_s:
                details = f"no message has come in {first_s:g} s"
                self.refuse(call, grpc.StatusCode.DEADLINE_EXCEEDED, details)
                ended += 1
            elif call.has_spoken and quiet >= quiet_s:
                ended += call.on_quiet()
        return ended

    # --- for calls ------------------------------------------------------------------------

    def ask(self, number: int, more_bytes: int) -> None:
        """See `Port`."""
        self._native.ask(number, more_bytes)
        self._soon()

    def allow(self, number: int, length: int) -> None:
        """See `Port`."""
        self._native.allow(number, length)
        self._soon()

    def send(self, number: int, message: bytes) -> int:
        """See `Port`."""
        unsent: int | None = self._native.send(number, message)
        self._soon()
        return unsent or 0

    def finish(self, number: int, trailers: list[tuple[str, bytes]]) -> None:
        """See `Port`."""
        self._forget(number)
        self._native.finish(number, trailers)
        self._soon()

    # --- events ---------------------------------------------------------------------------

    def _soon(self) -> None:
        """Have what calls have asked for done: once, for all that they do until then."""
        if not (self._is_pumping or self._is_due or self._is_closed):
            self._is_due = True
            self._loop.call_soon(self._pump)

    def _pump(self, is_readable: bool = False) -> None:
        """Read and write what can be, and have calls told, until nothing is left to do."""
        self._is_due = False
        if self._is_closed:
            return
        self._is_pumping = True
        try:
            while events := self._native.advance(is_readable):
                is_readable = False
                for event in events:
                    self._tell_safely(*event)
        finally:
            self._is_pumping = False
            if not self._is_closed:
                wants = self._native.wants_write
                self._watch_writing(wants)
                # Nothing is read of who takes nothing, as it could not be answered: the loop would
                # tell again and again that there is something.
                self._watch_reading(not (wants and self._native.has_unread))
        if not self._is_closed:
            self._note_kept(self._native.kept_bytes)
            self._note_calls(self._native.calls)

    def _note_calls(self, calls: int) -> None:
        """Have calls counted: also those that are answered, until their peer has taken that."""
        if self._is_closed:
            calls = 0
        if calls != self._counted_calls:
            self.tally.calls += calls - self._counted_calls
            self._counted_calls = calls

    def _note_kept(self, kept_bytes: int) -> None:
        if kept_bytes != self._kept_bytes:
            self._kept_bytes = kept_bytes
            self._kept(self, kept_bytes)

    def _watch_writing(self, wants: bool) -> None:
        if wants and not self._is_writing:
            self._loop.add_writer(self._socket, self._pump)
        elif self._is_writing and not wants:
            self._loop.remove_writer(self._socket)
        self._is_writing = wants

    def _watch_reading(self, wants: bool) -> None:
        if wants and not self._is_reading:
            self._loop.add_reader(self._socket, self._pump, True)
        elif self._is_reading and not wants:
            self._loop.remove_reader(self._socket)
        self._is_reading = wants

    def _tell_safely(self, kind: int, number: int, what: Any) -> None:
        """Tell of an event. What a handler raises ends its call alone."""
        try:
            self._tell(kind, number, what)
        except Exception as error:
            call = self._calls.get(number)
            log.exception("a call has failed: %s", call.method if call is not None else "a new one")
            if call is not None:
                with suppress(Exception):
                    call.finish(grpc.StatusCode.UNKNOWN, f"Unexpected {type(error)}")
                self._cancel(call)

    def _cancel(self, call: Call) -> None:
        try:
            call.on_cancel()
        except Exception:
            log.exception("a call of %s cannot be ended well", call.method)

    def _tell(self, kind: int, number: int, what: Any) -> None:
        if kind == _CALL:
            method, header = what
            peer = self._known_peer()
            if header is not None:
                peer = replace(peer, credential=credential_of(header))
            call = self._calls[number] = Call(self, number, method, peer)
            self._note_calls(self._counted_calls + 1)
            self._begin(call)
            return
        if kind == _CLOSED:
            self.close()
            return
        call_or_none = self._calls.get(number)
        if call_or_none is None:  # it has ended, and this crossed its end
            return
        call = call_or_none
        call.was_heard = call.has_spoken = True
        if kind == _MESSAGES:
            if self._large.leave(call):
                self._native.allow(number, 0)  # that was for this one
            call.on_messages(what)
        elif kind == _LARGE:
            self._on_large(call, what)
        elif kind == _ENDED:
            call.on_end()
        elif kind == _BROKEN:
            self.refuse(call, grpc.StatusCode.INTERNAL, what)
        elif kind == _CANCELLED:
            self._forget(number)
            call.on_cancel()
        elif kind == _WRITABLE:
            call.room()

    def _known_peer(self) -> Peer:
        """Return who is there, which is known by the first call."""
        if self._peer is None:
            self._called(self)
            names = frozenset(self._native.peer_names)
            self._peer = Peer(self.address, names, self._is_encrypted)
        return self._peer

    def _on_large(self, call: Call, length: int) -> None:
        if length > self._max_message_bytes:
            details = f"a message of {length} bytes, the limit is {self._max_message_bytes}"
            self.refuse(call, grpc.StatusCode.RESOURCE_EXHAUSTED, details)
        elif call.on_large(length):
            self._large.enter(
                call,
                length,
                self._loop.time(),
                allow=lambda: self.allow(call.number, length),
                # Which the client tries again, unlike what is too long.
                refuse=lambda why: self.refuse(call, grpc.StatusCode.UNAVAILABLE, why),
            )

    def refuse(self, call: Call, code: grpc.StatusCode, details: str) -> None:
        """End a call whose peer does what it may not."""
        call.finish(code, details)
        self._cancel(call)

    def refuse_most(self, why: str) -> None:
        """End the call that keeps most of messages that have not come whole, at once."""
        number = self._native.keeps_most()
        call = self._calls.get(number)
        if call is not None:  # else its peer has not taken its end yet
            self.refuse(call, grpc.StatusCode.UNAVAILABLE, why)
        if number is not None:
            self._native.cut(number)
        self._pump()

    def _forget(self, number: int) -> None:
        call = self._calls.pop(number, None)
        if call is not None:
            self._large.leave(call)
