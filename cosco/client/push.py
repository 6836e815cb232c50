"""Frames of a writer on their way to daemons: one stream and one thread per daemon."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import TYPE_CHECKING, Final

from cosco import wire
from cosco.client.scope import Patience, Scope, Unreachable, retrying
from cosco.client.transport import Endpoint
from cosco.client.window import OutFrame, ProtocolBroken, PushWindow
from cosco.errors import (
    CapacityExceeded,
    ClientClosed,
    CoscoError,
    DataCorrupted,
    ExchangeClosed,
    ServiceUnavailable,
)
from cosco.frames import FRAME_HEADER_BYTES, FrameHeader, encode_frame_header
from cosco.records import Assignment, DaemonRef, OpenedAttempt
from cosco.wire import spb

if TYPE_CHECKING:
    from cosco.client.packing import PackedFrame

#: Unacknowledged frames of one writer, over all its daemons; one frame always passes.
WINDOW_BYTES: Final = 16 << 20
#: And their number: small frames cost a daemon more than their bytes.
WINDOW_FRAMES: Final = 1024
_JOIN_S: Final = 5.0
_PATH: Final = f"/{wire.SHUFFLE_SERVICE}/Push"
_LOG = logging.getLogger("cosco")


class Pusher:
    """All daemons of one writer. Methods that wait raise what the streams failed with."""

    def __init__(
        self,
        opened: OpenedAttempt,
        scope: Scope,
        service_timeout_s: float,
        on_failure: Callable[[CoscoError], None],
    ) -> None:
        """`on_failure` is called once, by a stream's thread, when no more can be pushed."""
        self._opened = opened
        self._scope = scope
        self._service_timeout_s = service_timeout_s
        self._on_failure = on_failure
        self._changed = threading.Condition()  # guards all below, and the links' windows
        self._links: dict[DaemonRef, _Link] = {}
        self._bytes = 0
        self._frames = 0
        self._failure: CoscoError | None = None
        self._acknowledged: set[tuple[int, int]] = set()

    def push(self, assignment: Assignment, packed: PackedFrame) -> None:
        """Take a frame once there is room for it in the window."""
        self._scope.check()
        link = self._links.get(assignment.primary)
        if link is None:
            link = _Link(self, assignment.primary, self._opened, self._scope)
            self._links[assignment.primary] = link
            link.start(Patience(self._service_timeout_s))
        with self._changed:
            self._wait_until(lambda: self._has_room(packed.body_bytes))
            sequence = link.next_sequence()
        header = FrameHeader(
            exchange=self._opened.info.number,
            incarnation=assignment.primary.incarnation,
            sequence=sequence,
            range_index=assignment.range_index,
            epoch=assignment.epoch,
            body_bytes=packed.body_bytes,
            blocks=packed.blocks,
        )
        frame = OutFrame(
            sequence=sequence,
            range_index=assignment.range_index,
            epoch=assignment.epoch,
            frame_bytes=FRAME_HEADER_BYTES + packed.body_bytes,
            message=wire.push_frame([encode_frame_header(header), *packed.parts]),
        )
        with self._changed:
            self._bytes += frame.frame_bytes
            self._frames += 1
            link.add(frame)

    def flush(self) -> tuple[tuple[int, int], ...]:
        """Wait until every frame is acknowledged: the (range, epoch) pairs that did so."""
        with self._changed:
            self._wait_until(lambda: not self._frames)
            return tuple(sorted(self._acknowledged))

    def close(self) -> None:
        """End all streams and their threads: in peace if nothing is under way, else at once."""
        links = list(self._links.values())
        with self._changed:
            for link in links:
                link.finish()
            self._changed.notify_all()
        if self._scope.is_closed or not all(link.join() for link in links):
            self._scope.close()
        for link in links:
            if not link.join():
                _LOG.warning("%s did not end in %g s", link.name, _JOIN_S)
            link.release()

    # --- for the links --------------------------------------------------------------------

    @property
    def changed(self) -> threading.Condition:
        """Guards the windows of all links; signalled when one of them moves."""
        return self._changed

    def settled(self, frame: OutFrame) -> None:
        """A frame was acknowledged; called with `changed` held."""
        self._bytes -= frame.frame_bytes
        self._frames -= 1
        self._acknowledged.add((frame.range_index, frame.epoch))
        self._changed.notify_all()

    def failed(self, error: CoscoError) -> None:
        """A stream cannot go on, and so the writer cannot."""
        with self._changed:
            if self._failure is not None or self._scope.is_closed:
                return
            self._failure = error
        self._on_failure(error)
        with self._changed:  # those who wait for room, and links that wait for work
            self._changed.notify_all()

    # --- waiting --------------------------------------------------------------------------

    def _has_room(self, frame_bytes: int) -> bool:
        fits = self._bytes + frame_bytes <= WINDOW_BYTES and self._frames < WINDOW_FRAMES
        return fits or not self._frames

    def _wait_until(self, reached: Callable[[], bool]) -> None:
        while True:
            if self._failure is not None:
                raise self._failure
            self._scope.check()
            if reached():
                return
            self._changed.wait()


class _Link:
    """One daemon: a window of frames, and a thread that connects, reads and connects again.

    What is sent goes through a SimpleQueue to the thread of gRPC that sends it: that one may
    run while the process is about to fork and must not meet a lock of ours.
    """

    def __init__(self, pusher: Pusher, ref: DaemonRef, opened: OpenedAttempt, scope: Scope) -> None:
        self.name = f"cosco-push-{ref.address}"
        self._pusher = pusher
        self._scope = scope
        self._ref = ref
        self._hello = spb.PushRequest(
            hello=spb.Hello(
                protocol=wire.PUSH_PROTOCOL,
                number=opened.info.number,
                mapper=opened.mapper,
                attempt=opened.attempt,
                incarnation=ref.incarnation,
            )
        ).SerializeToString()
        self._endpoint = Endpoint(ref.address)
        self._window = PushWindow()
        self._sequence = 0
        self._outbox: SimpleQueue[bytes | None] | None = None  # of the present stream
        self._is_finishing = False
        self._thread: threading.Thread | None = None

    def start(self, patience: Patience) -> None:
        self._thread = threading.Thread(
            target=self._run, args=(patience,), name=self.name, daemon=True
        )
        self._thread.start()

    def join(self) -> bool:
        """Whether the thread has ended, waiting a little for it."""
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(_JOIN_S)
            return not self._thread.is_alive()
        return True

    def release(self) -> None:
        """Give up the connection."""
        self._endpoint.close()

    # --- called with `changed` held -------------------------------------------------------

    def next_sequence(self) -> int:
        self._sequence += 1
        return self._sequence

    def add(self, frame: OutFrame) -> None:
        is_under_way = self._window.is_under_way
        self._window.add(frame)
        if not is_under_way:  # else with others, at the next reply: messages cost by their number
            self._announce()
        self._pusher.changed.notify_all()

    def finish(self) -> None:
        """Nothing more will be added: the stream may end."""
        self._is_finishing = True
        if self._outbox is not None:
            self._outbox.put(None)

    def _announce(self) -> None:
        if self._outbox is not None and (lengths := self._window.announce()):
            request = spb.PushRequest(announce=spb.Announce(frame_bytes=lengths))
            self._outbox.put(request.SerializeToString())

    # --- the thread -----------------------------------------------------------------------

    def _run(self, patience: Patience) -> None:
        try:
            while self._wait_for_work():
                retrying(self._scope, patience)(self._stream, patience)
        except ClientClosed:
            pass  # whoever closed the writer knows
        except CoscoError as error:
            self._pusher.failed(error)
        except Unreachable as error:
            self._pusher.failed(
                self._error(ServiceUnavailable, f"does not answer; run the mapper again ({error})")
            )
        except BaseException as error:  # noqa: BLE001  a thread's error must reach its writer
            _LOG.exception("pushing failed")
            self._pusher.failed(self._error(CoscoError, f"cannot be pushed to: {error!r}"))

    def _wait_for_work(self) -> bool:
        """Wait for a frame to push; False when the link is to end."""
        with self._pusher.changed:
            self._pusher.changed.wait_for(
                lambda: len(self._window) or self._is_finishing or self._scope.is_closed
            )
            return bool(len(self._window)) and not self._scope.is_closed

    def _stream(self, patience: Patience) -> None:
        """One stream, until it ends with nothing left to push; raises Unreachable else."""
        outbox: SimpleQueue[bytes | None] = SimpleQueue()
        outbox.put(self._hello)
        call = self._endpoint.duplex_stream(_PATH, iter(outbox.get, None), self._scope)
        call.on_end(lambda: outbox.put(None))
        try:
            with self._pusher.changed:
                self._window.restart()
                self._outbox = outbox
                self._announce()
                if self._is_finishing and not len(self._window):
                    outbox.put(None)
            for reply in call:
                patience.renew()
                self._on_reply(spb.PushReply.FromString(reply), outbox)
        finally:
            with self._pusher.changed:
                self._outbox = None
            call.cancel()
        with self._pusher.changed:
            if len(self._window):
                raise Unreachable(f"the daemon at {self._ref.address} ended the stream")

    def _on_reply(self, reply: spb.PushReply, outbox: SimpleQueue[bytes | None]) -> None:
        try:
            with self._pusher.changed:
                for frame in self._window.acknowledged(reply.acknowledged):
                    self._pusher.settled(frame)
                for refusal in reply.refused:
                    self._on_refusal(refusal)
                for frame in self._window.granted(reply.granted):
                    outbox.put(frame.message)
                self._announce()
        except ProtocolBroken as error:
            raise self._error(ServiceUnavailable, f"breaks the protocol: {error}") from None

    def _on_refusal(self, refusal: spb.Refusal) -> None:
        """Take note of a refusal; raises the error that ends the writer, if it is one."""
        frame = self._window.refused(refusal.sequence) if refusal.sequence else None
        reason = f"refused: {' '.join(refusal.reason.split())[:300]}"
        match refusal.code:
            case spb.REFUSAL_CODE_BAD_FRAME:
                if frame is None or not self._window.resend(frame):
                    raise self._error(DataCorrupted, reason)
            case spb.REFUSAL_CODE_EXCHANGE_CLOSED:
                raise self._error(ExchangeClosed, reason)
            case spb.REFUSAL_CODE_NO_CAPACITY:
                raise self._error(CapacityExceeded, reason)
            case spb.REFUSAL_CODE_WRONG_INCARNATION | spb.REFUSAL_CODE_NOT_ASSIGNED:
                raise self._lost_assignment(reason)
            case _:
                error = self._error(ServiceUnavailable, reason)
                error.retriable = False
                raise error

    def _lost_assignment(self, reason: str) -> CoscoError:
        """What becomes of frames whose daemon does not hold their assignment any more."""
        return self._error(
            ServiceUnavailable,
            f"was started again and cannot go on with this exchange; create another ({reason})",
        )

    def _error(self, kind: type[CoscoError], what: str) -> CoscoError:
        shuffle_id = self._scope.shuffle_id
        return kind(
            f"exchange {shuffle_id!r}: the shuffle daemon at {self._ref.address} {what}",
            shuffle_id=shuffle_id,
        )
