"""One push stream: grants, frames in, acknowledgements out."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Final, Protocol

from cosco.errors import (
    CapacityExceeded,
    CoscoError,
    DataCorrupted,
    ExchangeClosed,
    InvalidArgument,
)
from cosco.format.frame import MAX_FRAME_BYTES
from cosco.protocol.push.credits import FrameCredits, StreamCredits
from cosco.protocol.push.messages import PUSH_PROTOCOL, Hello
from cosco.protocol.wire import push_request_from_bytes, spb
from cosco.shuffle_service.io.metrics import DaemonMetrics
from cosco.shuffle_service.io.push.take_copies import Copies
from cosco.shuffle_service.io.push.take_in import TakeIn, WriterFrames
from cosco.shuffle_service.state.buffers.assignments import NotAssigned, Settle

#: A sender that sits on a grant for so long, while others wait for one, is cut off.
GRANT_PATIENCE_S: Final = 10.0
#: A sender that so many settled frames could not be told of yet is not read from meanwhile.
MAX_UNTOLD: Final = 1024
#: The least budget of frames that primaries forward: two of the longest.
MIN_COPIES_BYTES: Final = 2 * MAX_FRAME_BYTES

_CODES: Final[dict[type[CoscoError], Any]] = {
    NotAssigned: spb.REFUSAL_CODE_NOT_ASSIGNED,
    ExchangeClosed: spb.REFUSAL_CODE_EXCHANGE_CLOSED,
    CapacityExceeded: spb.REFUSAL_CODE_NO_CAPACITY,
    DataCorrupted: spb.REFUSAL_CODE_BAD_FRAME,
}


class GrantBoard:
    """Shares the credits between the daemon's streams."""

    def __init__(self, budget_bytes: int) -> None:
        self.credits = FrameCredits(budget_bytes)
        self._streams: dict[StreamCredits, PushStream] = {}

    def open(self, stream: PushStream) -> StreamCredits:
        share = self.credits.open()
        self._streams[share] = stream
        return share

    def close(self, share: StreamCredits) -> None:
        self.credits.close(share)
        del self._streams[share]
        self.give_out()

    def give_out(self) -> None:
        """Tell each stream what was granted to it; cut off those that sit on theirs."""
        now = time.monotonic()
        for share, frames in self.credits.grant(now):
            self._streams[share].granted(frames)
        for share in self.credits.stalled(now, GRANT_PATIENCE_S):
            self._streams[share].cut_off()


class GrantBoards:
    """The budgets of a daemon: one for writers, one for primaries that forward to it."""

    def __init__(self, inflight_bytes: int, metrics: DaemonMetrics) -> None:
        self.writers = GrantBoard(inflight_bytes)
        self.primaries = GrantBoard(max(inflight_bytes // 2, MIN_COPIES_BYTES))
        self._metrics = metrics

    @property
    def unsettled_bytes(self) -> int:
        """Bytes of frames granted, or sent eagerly, and not settled."""
        boards = (self.writers.credits, self.primaries.credits)
        return sum(board.unsettled_bytes + board.eager_bytes for board in boards)

    def give_out(self) -> None:
        """To be called now and then, as streams that sit on a grant are found by the time."""
        self.writers.give_out()
        self.primaries.give_out()

    def count_refusal(self, reason: str) -> None:
        """A frame or stream was refused, for the reason that the code of this name is."""
        label = reason.removeprefix("REFUSAL_CODE_").lower()
        self._metrics.frames_refused.labels(label).inc()


class Frames(Protocol):
    """Where the frames of one stream go."""

    async def take(self, data: memoryview, settle: Settle) -> None:
        """Check a frame and take it; `settle` is called once it is held, or will not be.

        Raises NotAssigned, ExchangeClosed, CapacityExceeded or DataCorrupted, and does not
        call `settle` then. The next frame of the stream is read when this returns.
        """
        ...

    def released(self, sequences: list[int]) -> None:
        """These frames need not be held any more; raises InvalidArgument."""
        ...

    def max_bytes(self) -> int:
        """So many bytes of its frames should stay held until they are released; 0: any."""
        ...

    def hung_up(self) -> None:
        """The stream has ended: `settle` need not be called any more."""
        ...


class PushStream:
    """Serves one call of Push from its first message to its last.

    Frames of writers go to `take_in`, those of primaries that forward to `copies`; each kind
    is granted out of a budget of its own, as neither may wait for the other.
    """

    def __init__(
        self,
        context: Any,
        boards: GrantBoards,
        take_in: TakeIn,
        copies: Copies,
    ) -> None:
        self._context = context
        self._boards = boards
        self._take_in = take_in
        self._copies = copies
        self._reply = spb.PushReply()
        self._has_reply = asyncio.Event()
        self._told = asyncio.Event()
        self._reading: asyncio.Task[None] | None = None
        self._board = boards.writers
        self._share: StreamCredits | None = None
        self._frames: Frames | None = None
        self._under_way = 0
        self._has_settled = asyncio.Event()
        self._ended = False

    async def run(self, requests: Any) -> None:
        """Read and answer until the sender is done, or breaks the rules."""
        sending = asyncio.create_task(self._send_replies(), name="push-replies")
        self._reading = asyncio.create_task(self._read(requests), name="push-requests")
        try:
            await asyncio.wait((self._reading, sending), return_when=asyncio.FIRST_COMPLETED)
            self._leave_board()
            if self._reading.done() and not self._reading.cancelled():
                error = self._reading.exception()
                if isinstance(error, InvalidArgument):
                    self._refuse(0, spb.REFUSAL_CODE_PROTOCOL, str(error))
                elif error is not None:
                    raise error
            self._ended = True
            self._has_reply.set()
            await sending
        finally:
            self._leave_board()
            for task in (self._reading, sending):
                task.cancel()
            await asyncio.gather(self._reading, sending, return_exceptions=True)

    def _leave_board(self) -> None:
        share, self._share = self._share, None
        if share is not None:
            self._board.close(share)
            assert self._frames is not None
            self._frames.hung_up()

    def granted(self, frames: int) -> None:
        self._reply.granted += frames
        self._has_reply.set()

    def cut_off(self) -> None:
        """End the stream from this side; the sender connects again when it wakes."""
        if self._reading is not None:
            self._reading.cancel()

    # --- requests -------------------------------------------------------------------------

    async def _read(self, requests: Any) -> None:
        async for message in requests:
            while len(self._reply.acknowledged) + len(self._reply.refused) >= MAX_UNTOLD:
                self._told.clear()
                await self._told.wait()
            request = push_request_from_bytes(message)
            if request.hello is not None:
                self._on_hello(request.hello)
            share, frames = self._opened()
            if request.released:
                frames.released(list(request.released))
            if request.announce:
                self._board.credits.announce(share, list(request.announce))
                self._board.give_out()
            if request.withdrawn:
                await self._on_frame(memoryview(b""), eager=False)
            if request.frame is not None:
                await self._on_frame(request.frame, eager=request.eager)
        while self._under_way:  # the sender has no more, and waits for what becomes of these
            self._has_settled.clear()
            await self._has_settled.wait()

    def _on_hello(self, hello: Hello) -> None:
        if hello.protocol != PUSH_PROTOCOL:
            raise InvalidArgument(
                f"push protocol {hello.protocol}, this daemon speaks {PUSH_PROTOCOL}"
            )
        if self._share is not None:
            self._end_sender(self._share, hello)
        if hello.primary:
            self._board = self._boards.primaries
            self._frames = self._copies.open(hello.primary, self.cut_off, self._has_reply.set)
        else:
            sender = (hello.mapper, hello.attempt)
            self._frames = WriterFrames(self._take_in, hello.number, sender)
        if self._share is None:
            self._share = self._board.open(self)
            if self._share.eager_limit:
                self._reply.eager_bytes = self._share.eager_limit
                self._has_reply.set()
        if hello.incarnation != self._take_in.incarnation:
            reason = "this daemon was started again since; ask for the assignment again"
            self._refuse(0, spb.REFUSAL_CODE_WRONG_INCARNATION, reason)

    def _end_sender(self, share: StreamCredits, hello: Hello) -> None:
        """Another writer goes on with the stream of one that has nothing under way."""
        if hello.primary or not isinstance(self._frames, WriterFrames):
            raise InvalidArgument("a second hello on the stream of a primary")
        if self._under_way or not share.is_idle:
            raise InvalidArgument("a second hello while frames are under way")
        self._frames.hung_up()

    async def _on_frame(self, data: memoryview, eager: bool) -> None:
        share, frames = self._opened()
        board = self._board.credits
        if eager:
            board.received_eagerly(share, len(data))
            settled = partial(board.settled_eagerly, share, len(data))
        else:
            settled = partial(board.settled, share, board.received(share, len(data)))
        self._under_way += 1
        sequence = _sequence_of(data)

        def settle(error: CoscoError | None) -> None:
            self._answer(sequence, error)
            self._settled(settled)

        try:
            if data:
                await frames.take(data, settle)
            else:  # in the place of a frame that is not to be sent any more: not answered
                self._settled(settled)
        except (NotAssigned, ExchangeClosed, CapacityExceeded, DataCorrupted) as error:
            settle(error)
        finally:
            if self._share is not None:  # the stream has not left the board meanwhile
                board.taken(share, time.monotonic())

    def _settled(self, settled: Callable[[], None]) -> None:
        self._under_way -= 1
        self._has_settled.set()
        if self._share is not None:
            settled()
            self._board.give_out()

    def _opened(self) -> tuple[StreamCredits, Frames]:
        if self._share is None or self._frames is None:
            raise InvalidArgument("a push stream that does not begin with hello")
        return self._share, self._frames

    # --- replies --------------------------------------------------------------------------

    def _answer(self, sequence: int, error: CoscoError | None) -> None:
        if error is None:
            self._reply.acknowledged.append(sequence)
            self._has_reply.set()
        else:
            code = next(code for kind, code in _CODES.items() if isinstance(error, kind))
            self._refuse(sequence, code, str(error))

    def _refuse(self, sequence: int, code: Any, reason: str) -> None:
        self._boards.count_refusal(spb.RefusalCode.Name(code))
        self._reply.refused.append(spb.Refusal(sequence=sequence, code=code, reason=reason))
        self._has_reply.set()

    async def _send_replies(self) -> None:
        """What gathered while the last reply was on its way goes out as one."""
        while not self._ended or self._has_reply.is_set():
            await self._has_reply.wait()
            self._has_reply.clear()
            reply, self._reply = self._reply, spb.PushReply()
            self._told.set()
            if self._frames is not None:
                reply.copies_max_bytes = self._frames.max_bytes()
            if reply.ByteSize():
                await self._context.write(reply.SerializeToString())


def _sequence_of(data: memoryview) -> int:
    """The sequence a frame names, broken or not, so that its sender knows which; 0 if none."""
    return int.from_bytes(data[24:32], "little") if len(data) >= 32 else 0
