"""Frames of a writer on their way to daemons: one window over all of them, a link to each.

What goes where, and what counts, is decided in `cosco.client.write.state.routes`; what is said on
a stream, in `cosco.protocol.push.sender`; what to do about a daemon that fails, in
`cosco.client.write.state.trouble`. Here are the lock around them, the messages and the waits.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Iterable
from typing import Final

from cosco.client.rpc.metadata_client import MetadataClient
from cosco.client.rpc.scope import Scope, Unreachable
from cosco.client.write.push_streams import STREAMS, Outbox, Stream
from cosco.client.write.state.framing import PackedFrame
from cosco.client.write.state.routes import Lane, Routes
from cosco.client.write.state.trouble import LinkTrouble, Question
from cosco.errors import (
    AccessDenied,
    CoscoError,
    DataCorrupted,
    ExchangeClosed,
    IncompatibleVersion,
    ServiceUnavailable,
)
from cosco.protocol import wire
from cosco.protocol.keys import RangeEpoch
from cosco.protocol.push.messages import Refusal, RefusalCode
from cosco.protocol.push.sender import OutFrame, ProtocolBroken
from cosco.protocol.records import Assignment, OpenedAttempt, RenewedAssignments

#: A writer that waits, and sees nothing move for this time, asks the metadata service for its
#: exchange: if that is away, the daemon may be waiting for it too.
_QUIET_S: Final = 5.0
#: How long the metadata service is asked to wait for a newer assignment, each time.
_RENEW_WAIT_S: Final = 2.0
#: How long it may be out of reach before the daemon is tried again.
_RENEW_OUTAGE_S: Final = 1.0
_LOG = logging.getLogger("cosco")


class Pusher:
    """All daemons of one writer. Methods that wait raise what the streams failed with."""

    def __init__(
        self,
        opened: OpenedAttempt,
        metadata: MetadataClient,
        scope: Scope,
        service_timeout_s: float,
        on_failure: Callable[[CoscoError], None],
    ) -> None:
        """`on_failure` is called once, by a stream's thread, when no more can be pushed."""
        self.scope: Final = scope
        self.service_timeout_s: Final = service_timeout_s
        #: By which files of TLS daemons are reached.
        self.tls: Final = metadata.connection.tls
        self._info: Final = opened.info
        self._metadata = metadata
        self._on_failure = on_failure
        #: Guards `routes` with its senders, and all below; signalled when any of it moves.
        self.changed: Final = threading.Condition()
        self.routes: Final = Routes(opened)
        self._links: dict[Lane, _DaemonLink] = {}
        self._retired: dict[_DaemonLink, None] = {}  # of lanes that were retired, about to end
        self._failure: CoscoError | None = None
        #: Whether little but waits will follow.
        self.is_ending = False

    def begin_end(self) -> None:
        """Have those who wait take the replies themselves, as little but waits will follow."""
        self.is_ending = True

    def push(self, packed: PackedFrame) -> None:
        """Take a frame once there is room for it in the window."""
        with self.changed:
            link = self._link_to_take()
        if link is not None:
            link.take_replies(lambda: False, 0.0)  # what has come since the last frame
        while not self._put(packed):
            self._wait_until(lambda: self._may_put(packed))

    def flush(self) -> tuple[RangeEpoch, ...]:
        """Wait until every frame is acknowledged, and return the epochs in which they were."""
        self._wait_until(lambda: not self.routes.frames)
        with self.changed:
            return self.routes.acknowledged()

    def close(self) -> None:
        """Give streams back on which nothing is under way; end the others, and their threads."""
        with self.changed:
            links = [*self._links.values(), *self._retired]
            for link in links:
                link.finish()
            self.changed.notify_all()
        if self.scope.is_closed or not all(link.join() for link in links):
            self.scope.close()
        for link in links:
            if not link.join():
                _LOG.warning("the push stream to %s did not end", link.address)

    # --- for the links --------------------------------------------------------------------

    def renew(
        self, question: Question, *, wait_s: float, outage_s: float
    ) -> tuple[RenewedAssignments, bool]:
        """Ask the metadata service who takes over, and move frames to newer assignments.

        Returns: what it answered, and whether frames have moved. Raises ServiceUnavailable when it
        does not answer within `outage_s`, and whatever ends the exchange.
        """
        answer = self._metadata.renew_assignments(
            self._info.number,
            self._info.generation,
            question.stale,
            question.suspect,
            insist=question.insist,
            wait_s=wait_s,
            outage_s=outage_s,
        )
        return answer, self.renewed(answer.assignments)

    def renewed(self, assignments: Iterable[Assignment]) -> bool:
        """Move frames to newer assignments, and return whether any of these is newer."""
        with self.changed:
            if not self.routes.renew(assignments):
                return False
            for lane in self.routes.lanes():
                if len(lane.sender):
                    self._serve(lane)
            for lane in self.routes.retire():
                if (link := self._links.pop(lane, None)) is not None and not link.finish():
                    self._retired[link] = None
            self._call_threads()
            self.changed.notify_all()
            return True

    def failed(self, error: CoscoError) -> None:
        """Fail: a stream cannot go on, and so the writer cannot."""
        with self.changed:
            if self._failure is not None or self.scope.is_closed:
                return
            self._failure = error
        self._on_failure(error)
        with self.changed:  # those who wait for room, and links that wait for work
            self.changed.notify_all()

    def ended(self, link: _DaemonLink) -> None:
        """Note that the thread of a link ends."""
        with self.changed:
            self._retired.pop(link, None)

    def wants_threads(self) -> bool:
        """Whether replies are to be taken by the threads of streams."""
        with self.changed:
            if self._link_to_take() is None:
                return True
            self.changed.notify_all()  # whoever waits for what the thread takes
            return False

    # --- inside ---------------------------------------------------------------------------

    def _may_put(self, packed: PackedFrame) -> bool:
        """Whether a frame may go out. A mark counts as soon as it is there: so all frames before
        it must be safe."""
        routes = self.routes
        return routes.has_room(packed.body_bytes) and (
            not packed.has_mark or routes.is_acknowledged(packed.range_index)
        )

    def _put(self, packed: PackedFrame) -> bool:
        """Have a frame sent, if it may go out now."""
        with self.changed:
            self._check()
            may = self._may_put(packed)
            if may:
                self._serve(self.routes.put(packed))
                if self._link_to_take() is None:
                    self._call_threads()
            return may

    def _check(self) -> None:
        """Raise what the writer failed with; called with `changed` held."""
        if self._failure is not None:
            raise self._failure
        self.scope.check()

    def _serve(self, lane: Lane) -> None:
        """Have the frames of a lane sent; called with `changed` held."""
        link = self._links.get(lane)
        if link is None:
            if self.scope.is_closed:
                return
            link = self._links[lane] = _DaemonLink(self, lane)
            link.start()
        link.go_on()

    def _wait_until(self, reached: Callable[[], bool]) -> None:
        away_since: float | None = None
        while (moved := self._wait(reached)) is not None:
            now = time.monotonic()
            away_since = now if moved or away_since is None else away_since
            try:  # which raises as well if the exchange is not there any more
                self.renew(Question((), None, insist=False), wait_s=0.0, outage_s=_RENEW_OUTAGE_S)
            except ServiceUnavailable as error:
                if not error.retriable or now - away_since >= self.service_timeout_s:
                    raise
            else:
                away_since = None

    def _wait(self, reached: Callable[[], bool]) -> bool | None:
        """Wait until it is `reached`, or nothing moves for a while.

        Returns: None if it is reached, else whether anything moved before that while.
        """
        quiet_s = min(_QUIET_S, self.service_timeout_s + 0.5)
        moved, took, may_take = False, None, True
        while True:
            with self.changed:
                self._check()
                if reached():
                    return None
                if took == 0:
                    return moved
                link = self._link_to_take() if may_take else None
                if link is None:
                    self._call_threads()
                    if not self.changed.wait(quiet_s):
                        return moved
                    moved = may_take = True
                    continue
            took = link.take_replies(lambda: self._is_over(reached), quiet_s)
            may_take = took is not None
            moved = moved or bool(took)

    def _is_over(self, reached: Callable[[], bool]) -> bool:
        with self.changed:
            return self._failure is not None or reached()

    # Called with `changed` held.

    def _busy_links(self) -> list[_DaemonLink]:
        return [link for link in (*self._links.values(), *self._retired) if link.is_busy]

    def _link_to_take(self) -> _DaemonLink | None:
        """Return the link whose replies a wait may take: the one on which something is under way.
        Who takes those of one does not see those of others."""
        busy = self._busy_links() if self.is_ending else []
        return busy[0] if len(busy) == 1 else None

    def _call_threads(self) -> None:
        """Have threads take the replies, where those do not anyway."""
        if self.is_ending:
            for link in self._busy_links():
                link.call_thread()


class _DaemonLink:
    """One daemon of a writer: the user of a stream to it; asks who takes over when it fails."""

    def __init__(self, pusher: Pusher, lane: Lane) -> None:
        self.scope: Final = pusher.scope
        self._pusher = pusher
        self._lane = lane
        self._sender = lane.sender
        # Touched by whoever takes a reply, and by the stream's thread after a call.
        self._trouble = LinkTrouble(lane.ref, pusher.service_timeout_s)
        self._stream: Stream | None = None  # from the first frame until it is given back
        self._outbox: Outbox | None = None  # of the present call
        self._is_used_stream = False  # another writer had it, and nothing was heard on it since
        self._is_finishing = False

    @property
    def address(self) -> str:
        """Where the daemon is, as host:port."""
        return self._lane.ref.address

    def join(self) -> bool:
        """Whether its stream has ended or was given back, waiting a little for it."""
        return self._stream is None or self._stream.join()

    def take_replies(self, is_enough: Callable[[], bool], timeout_s: float) -> int | None:
        """Take replies in the place of the stream's thread; see `ReplyTurns.take`."""
        stream = self._stream
        return None if stream is None else stream.take_replies(is_enough, timeout_s)

    # --- called with `changed` held -------------------------------------------------------

    @property
    def is_busy(self) -> bool:
        """Whether something is under way, or is to be."""
        return bool(len(self._sender)) or self._sender.is_under_way

    def call_thread(self) -> None:
        """Have the stream's thread take the replies."""
        if self._stream is not None:
            self._stream.call_thread()

    def start(self) -> None:
        """Have a stream, another writer's that is done or a new one."""
        self._stream = STREAMS.borrow(self._lane.ref, self, self._pusher.tls)

    def go_on(self) -> None:
        """Say what is to be said, as frames were added or withdrawn."""
        self._say()
        self._pusher.changed.notify_all()
        if not self._pusher.is_ending:
            self.call_thread()

    def _say(self) -> None:
        if self._outbox is not None:
            for request in self._sender.requests():
                self._outbox.say(request)

    def finish(self) -> bool:
        """Give the stream back, as nothing more will be added, or have it end.

        Returns: whether it was given back.
        """
        self._is_finishing = True
        stream = self._stream
        if stream is not None and not self.is_busy and stream.give_back(self):
            self._stream = self._outbox = None
        if self._outbox is not None:
            self._outbox.end()  # the daemon ends it when it has answered what it was sent
            self.call_thread()
        return self._stream is None

    # --- for its stream: see `push_streams.User` -------------------------------------------

    def begin(self, stream: Stream, outbox: Outbox, *, used: bool) -> None:
        with self._pusher.changed:
            self._stream = stream
            self._outbox = outbox
            self._is_used_stream = used
            self._sender.begin_stream(stream.eager_bytes)
            self._say()
            if self._is_finishing and not len(self._sender):
                outbox.end()

    def wants_thread(self) -> bool:
        return self._is_finishing or self.scope.is_closed or self._pusher.wants_threads()

    def wait_for_work(self) -> bool:
        with self._pusher.changed:
            self._pusher.changed.wait_for(
                lambda: len(self._sender) or self._is_finishing or self.scope.is_closed
            )
            return bool(len(self._sender)) and not self.scope.is_closed

    def on_reply(self, message: bytes) -> bool:
        reply = wire.push_reply_from_bytes(message)
        self._trouble.heard(time.monotonic())
        try:
            with self._pusher.changed:
                if self._outbox is None or self._stream is None:
                    return False  # all was said to a writer that is done
                self._is_used_stream = False
                self._stream.eager_bytes = reply.eager_bytes or self._stream.eager_bytes
                answered = self._pusher.routes.on_reply(self._lane, reply)
                if answered.acknowledged:
                    self._trouble.acknowledged()
                    self._pusher.changed.notify_all()
                for frame, refusal in answered.refused:
                    self._on_refusal(frame, refusal)
                if self._trouble.is_refused:
                    return False
                self._say()
        except ProtocolBroken as error:
            raise self._error(ServiceUnavailable, f"breaks the protocol: {error}") from None
        return True

    def on_end(self, error: Unreachable | None) -> None:
        with self._pusher.changed:
            self._outbox = None
            was_used, self._is_used_stream = self._is_used_stream, False
            is_cut = bool(len(self._sender)) and not self._trouble.is_refused
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
        if isinstance(error, CoscoError):
            error.place(self.scope.shuffle_id)
        else:
            _LOG.error("pushing failed", exc_info=error)
            error = self._error(CoscoError, f"cannot be pushed to: {error!r}")
        self._pusher.failed(error)

    def over(self) -> None:
        self._pusher.ended(self)

    # --- the failures of its daemon -------------------------------------------------------

    def _on_refusal(self, frame: OutFrame | None, refusal: Refusal) -> None:
        """Take note of a refusal; raises the error that ends the writer, if it is one."""
        reason = f"refused: {' '.join(refusal.reason.split())[:300]}"
        now = time.monotonic()
        match refusal.code:
            case RefusalCode.BAD_FRAME:
                raise self._error(DataCorrupted, reason)
            case RefusalCode.EXCHANGE_CLOSED:
                raise self._error(ExchangeClosed, reason)
            case RefusalCode.ACCESS_DENIED:
                raise self._error(AccessDenied, reason)
            case RefusalCode.INCOMPATIBLE:
                raise self._error(IncompatibleVersion, reason)
            case RefusalCode.WRONG_INCARNATION:
                self._trouble.replaced(reason, now)
            case RefusalCode.NOT_ASSIGNED | RefusalCode.NO_CAPACITY:
                full = refusal.code is RefusalCode.NO_CAPACITY
                epochs = self._sender.range_epochs() if frame is None else {frame.range_epoch}
                for range_epoch in epochs:
                    self._trouble.refused(range_epoch, reason, now, full=full)
            case _:
                error = self._error(ServiceUnavailable, reason)
                error.retriable = False
                raise error

    def _overcome(self) -> None:
        """After a stream: ask who takes over what the daemon failed at, until frames have
        moved or it is to be tried again. Raises what the writer fails with."""
        while True:
            with self._pusher.changed:
                if not len(self._sender):
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
        """Return whether frames have moved, and whether to try the daemon again."""
        remaining_s = self._trouble.remaining_s(time.monotonic())
        wait_s, outage_s = min(_RENEW_WAIT_S, remaining_s), min(_RENEW_OUTAGE_S, remaining_s)
        try:
            answer, moved = self._pusher.renew(question, wait_s=wait_s, outage_s=outage_s)
        except ServiceUnavailable as error:
            if not error.retriable:
                raise
            self._trouble.unanswered(str(error))
            return False, True
        return moved, self._trouble.answered(answer, moved=moved)

    def _error(self, kind: type[CoscoError], what: str) -> CoscoError:
        shuffle_id = self.scope.shuffle_id
        return kind(
            f"exchange {shuffle_id!r}: the shuffle daemon at {self.address} {what}",
            shuffle_id=shuffle_id,
        )
