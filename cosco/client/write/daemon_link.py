"""One daemon of a writer: what is said to it, and what is done when it fails.

What goes where, and what counts, is decided in `cosco.client.write.state.routes`; what to do about
a daemon that fails, in `cosco.client.write.state.trouble`.
"""

from __future__ import annotations

import logging
import random
import time
from typing import TYPE_CHECKING, Final

from cosco.client.rpc.scope import Unreachable
from cosco.client.write.push_streams import STREAMS, Outbox, Stream
from cosco.client.write.state.routes import Lane
from cosco.client.write.state.trouble import LinkTrouble, Question
from cosco.errors import (
    CoscoError,
    DataCorrupted,
    ExchangeClosed,
    ServiceUnavailable,
)
from cosco.protocol import wire
from cosco.protocol.push.window import ProtocolBroken
from cosco.protocol.wire import spb

if TYPE_CHECKING:
    from cosco.client.write.pusher import Pusher

#: How long the metadata service is asked to wait for a newer assignment, each time.
_RENEW_WAIT_S: Final = 2.0
#: How long it may be out of reach before the daemon is tried again.
RENEW_OUTAGE_S: Final = 1.0
#: A frame of up to so many bytes travels with the hello; a longer one would be copied for it.
_OPENING_BYTES: Final = 64 << 10
_LOG = logging.getLogger("cosco")


class Link:
    """One daemon of a writer: the user of a stream to it; asks who takes over when it fails."""

    def __init__(self, pusher: Pusher, lane: Lane) -> None:
        ref, opened = lane.ref, pusher.opened
        self.scope: Final = pusher.scope
        self._pusher = pusher
        self._lane = lane
        self._trouble = LinkTrouble(ref, pusher.service_timeout_s)  # the stream's thread's own
        self._hello = spb.Hello(
            protocol=wire.PUSH_PROTOCOL,
            number=opened.info.number,
            mapper=opened.mapper,
            attempt=opened.attempt,
            incarnation=ref.incarnation,
        )
        self._stream: Stream | None = None  # from the first frame until it is given back
        self._outbox: Outbox | None = None  # of the present call
        self._is_used_stream = False  # by others before, and nothing was heard on it since
        self._is_finishing = False

    @property
    def address(self) -> str:
        return self._lane.ref.address

    def join(self) -> bool:
        """Whether its stream has ended or was given back, waiting a little for it."""
        return self._stream is None or self._stream.join()

    # --- called with `changed` held -------------------------------------------------------

    def start(self) -> None:
        self._stream = STREAMS.lease(self._lane.ref, self)

    def go_on(self) -> None:
        """Frames were added or taken."""
        if self._lane.window.has_gap:
            self._end_stream()
        elif self._outbox is not None:
            self._send_eagerly(self._outbox)
            if not self._lane.window.is_under_way:
                # Else with others, at the next reply: messages cost by their number.
                self._announce(self._outbox)
        self._pusher.changed.notify_all()

    def finish(self) -> bool:
        """Nothing more will be added: give the stream back, or have it end; whether it was
        given back."""
        self._is_finishing = True
        stream, window = self._stream, self._lane.window
        is_clean = not (len(window) or window.is_under_way or window.has_gap)
        if stream is not None and is_clean and stream.give_back(self):
            self._stream = self._outbox = None
        self._end_stream()
        return self._stream is None

    def _open(self, outbox: Outbox) -> None:
        """Say who writes, with the first frame if it may go at once and is short."""
        frames = self._lane.window.send_eagerly(_OPENING_BYTES)
        if frames:
            outbox.put(wire.opening(self._hello, frames[0].message))
        else:
            outbox.put(spb.PushRequest(hello=self._hello).SerializeToString())

    def _send_eagerly(self, outbox: Outbox) -> None:
        for frame in self._lane.window.send_eagerly():
            outbox.put(wire.eager_frame(frame.message))

    def _announce(self, outbox: Outbox) -> None:
        self._send_eagerly(outbox)
        if lengths := self._lane.window.announce():
            request = spb.PushRequest(announce=spb.Announce(frame_bytes=lengths))
            outbox.put(request.SerializeToString())

    def _end_stream(self) -> None:
        """Have the daemon end the stream, when it has answered what it was sent."""
        if self._outbox is not None:
            self._outbox.put(None)

    # --- for its stream -------------------------------------------------------------------

    def begin(self, stream: Stream, outbox: Outbox, *, used: bool) -> None:
        """See `streams.User`."""
        with self._pusher.changed:
            self._stream = stream
            self._lane.window.restart()
            self._lane.window.allow_eager(stream.eager_bytes)
            self._outbox = outbox
            self._is_used_stream = used
            self._open(outbox)
            self._announce(outbox)
            if self._is_finishing and not len(self._lane.window):
                outbox.put(None)

    def wait_for_work(self) -> bool:
        """See `streams.User`: for a frame to push."""
        window = self._lane.window
        with self._pusher.changed:
            self._pusher.changed.wait_for(
                lambda: len(window) or self._is_finishing or self.scope.is_closed
            )
            return bool(len(window)) and not self.scope.is_closed

    def on_reply(self, message: bytes) -> bool:
        """See `streams.User`."""
        reply = spb.PushReply.FromString(message)
        self._trouble.heard(time.monotonic())
        try:
            with self._pusher.changed:
                outbox = self._outbox
                if outbox is None or self._stream is None:
                    return False  # all was said to a writer that is done
                self._is_used_stream = False
                if reply.eager_bytes:
                    self._stream.eager_bytes = reply.eager_bytes
                    self._lane.window.allow_eager(reply.eager_bytes)
                if self._pusher.routes.acknowledge(self._lane, reply.acknowledged):
                    self._trouble.acknowledged()
                    self._pusher.changed.notify_all()
                for refusal in reply.refused:
                    self._on_refusal(refusal)
                if self._trouble.is_refused:
                    return False
                for frame in self._lane.window.granted(reply.granted):
                    outbox.put(frame.message)
                self._announce(outbox)
        except ProtocolBroken as error:
            raise self._error(ServiceUnavailable, f"breaks the protocol: {error}") from None
        return True

    def on_end(self, error: Unreachable | None) -> None:
        """See `streams.User`: ask who takes over, unless nothing is left to push, or frames
        were taken from the stream."""
        window = self._lane.window
        with self._pusher.changed:
            self._outbox = None
            was_used, self._is_used_stream = self._is_used_stream, False
            is_cut = bool(len(window)) and not (window.has_gap or self._trouble.is_refused)
        self.scope.check()
        if was_used or (error is not None and error.for_fork):
            return
        if error is not None:
            self._trouble.out_of_reach(str(error), time.monotonic())
        elif is_cut:
            reason = f"the daemon at {self.address} ended the stream"
            self._trouble.out_of_reach(reason, time.monotonic())
        self._overcome()

    def failed(self, error: BaseException) -> None:
        """See `streams.User`."""
        if isinstance(error, CoscoError):
            error.shuffle_id = error.shuffle_id or self.scope.shuffle_id
        else:
            _LOG.error("pushing failed", exc_info=error)
            error = self._error(CoscoError, f"cannot be pushed to: {error!r}")
        self._pusher.failed(error)

    def over(self) -> None:
        """See `streams.User`."""
        self._pusher.ended(self)

    # --- the failures of its daemon -------------------------------------------------------

    def _on_refusal(self, refusal: spb.Refusal) -> None:
        """Take note of a refusal; raises the error that ends the writer, if it is one."""
        window = self._lane.window
        frame = None
        if refusal.sequence and (frame := window.refused(refusal.sequence)) is None:
            return  # of a frame that is somewhere else by now
        reason = f"refused: {' '.join(refusal.reason.split())[:300]}"
        now = time.monotonic()
        match refusal.code:
            case spb.REFUSAL_CODE_BAD_FRAME:
                if frame is None or not window.resend(frame):
                    raise self._error(DataCorrupted, reason)
            case spb.REFUSAL_CODE_EXCHANGE_CLOSED:
                raise self._error(ExchangeClosed, reason)
            case spb.REFUSAL_CODE_WRONG_INCARNATION:
                self._trouble.replaced(reason, now)
            case spb.REFUSAL_CODE_NOT_ASSIGNED | spb.REFUSAL_CODE_NO_CAPACITY:
                full = refusal.code == spb.REFUSAL_CODE_NO_CAPACITY
                pairs = window.pairs() if frame is None else [(frame.range_index, frame.epoch)]
                for pair in pairs:
                    self._trouble.refused(pair, reason, now, full=full)
            case _:
                error = self._error(ServiceUnavailable, reason)
                error.retriable = False
                raise error

    def _overcome(self) -> None:
        """After a stream: ask who takes over what the daemon failed at, until frames have
        moved or it is to be tried again. Raises what the writer fails with."""
        while True:
            with self._pusher.changed:
                if not len(self._lane.window):
                    self._trouble.over()
                    return
                question = self._trouble.question(self._pusher.routes, time.monotonic())
            if question is None:
                return
            moved, again = self._ask(question)
            if moved:
                continue
            if self._trouble.remaining_s(time.monotonic()) <= 0:
                raise self._trouble.error(self.scope.shuffle_id)
            self.scope.sleep(self._trouble.pause_s() * random.uniform(0.5, 1.0))  # noqa: S311
            if again:
                return

    def _ask(self, question: Question) -> tuple[bool, bool]:
        """Whether frames have moved, and whether to try the daemon again."""
        info = self._pusher.opened.info
        remaining_s = self._trouble.remaining_s(time.monotonic())
        try:
            answer = self._pusher.metadata.renew_assignments(
                info.number,
                info.generation,
                question.stale,
                question.suspect,
                insist=question.insist,
                wait_s=min(_RENEW_WAIT_S, remaining_s),
                outage_s=min(RENEW_OUTAGE_S, remaining_s),
            )
        except ServiceUnavailable as error:
            if not error.retriable:
                raise
            self._trouble.unanswered(str(error))
            return False, True
        moved = self._pusher.renewed(answer.assignments)
        return moved, self._trouble.answered(answer, moved=moved)

    def _error(self, kind: type[CoscoError], what: str) -> CoscoError:
        shuffle_id = self.scope.shuffle_id
        return kind(
            f"exchange {shuffle_id!r}: the shuffle daemon at {self.address} {what}",
            shuffle_id=shuffle_id,
        )
