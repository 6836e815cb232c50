"""One push stream: grants, frames in, acknowledgements out."""

from __future__ import annotations

import asyncio
import time
from typing import Any, Final

from cosco.errors import (
    CapacityExceeded,
    CoscoError,
    DataCorrupted,
    ExchangeClosed,
    InvalidArgument,
)
from cosco.shuffle_service.buffers import AssignmentKey
from cosco.shuffle_service.credits import FrameCredits, StreamCredits
from cosco.shuffle_service.dedupe import Sender
from cosco.shuffle_service.intake import CheckedFrame, check_frame
from cosco.shuffle_service.take_in import NotAssigned, TakeIn
from cosco.wire import PUSH_PROTOCOL, push_request, spb

#: A sender that sits on a grant for so long, while others wait for one, is cut off.
GRANT_PATIENCE_S: Final = 10.0
#: A sender that so many settled frames could not be told of yet is not read from meanwhile.
MAX_UNTOLD: Final = 1024

_BAD_FRAME: Final = spb.REFUSAL_CODE_BAD_FRAME
_CODES: Final[dict[type[CoscoError], Any]] = {
    NotAssigned: spb.REFUSAL_CODE_NOT_ASSIGNED,
    ExchangeClosed: spb.REFUSAL_CODE_EXCHANGE_CLOSED,
    CapacityExceeded: spb.REFUSAL_CODE_NO_CAPACITY,
    DataCorrupted: _BAD_FRAME,
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


class PushStream:
    """Serves one call of Push from its first message to its last."""

    def __init__(self, context: Any, board: GrantBoard, take_in: TakeIn) -> None:
        self._context = context
        self._board = board
        self._take_in = take_in
        self._reply = spb.PushReply()
        self._has_reply = asyncio.Event()
        self._told = asyncio.Event()
        self._reading: asyncio.Task[None] | None = None
        self._share: StreamCredits | None = None
        self._number = 0
        self._sender: Sender = (0, 0)
        self._keys: set[AssignmentKey] = set()
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
        if self._share is not None:
            self._board.close(self._share)
            self._share = None
            self._take_in.hung_up(self._sender, self._keys)

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
            request = push_request(message)
            if isinstance(request, memoryview):
                await self._on_frame(request)
            elif request.HasField("hello"):
                self._on_hello(request.hello)
            elif request.HasField("announce"):
                self._on_announce(list(request.announce.frame_bytes))
            else:
                raise InvalidArgument("a push message of no known kind")

    def _on_hello(self, hello: spb.Hello) -> None:
        if self._share is not None:
            raise InvalidArgument("a second hello on one stream")
        if hello.protocol != PUSH_PROTOCOL:
            raise InvalidArgument(
                f"push protocol {hello.protocol}, this daemon speaks {PUSH_PROTOCOL}"
            )
        self._number = hello.number
        self._sender = (hello.mapper, hello.attempt)
        self._share = self._board.open(self)
        if hello.incarnation != self._take_in.incarnation:
            reason = "this daemon was started again since; ask for the assignment again"
            self._refuse(0, spb.REFUSAL_CODE_WRONG_INCARNATION, reason)

    def _on_announce(self, frame_bytes: list[int]) -> None:
        self._board.credits.announce(self._open_share(), frame_bytes)
        self._board.give_out()

    async def _on_frame(self, data: memoryview) -> None:
        share = self._open_share()
        self._board.credits.received(share, len(data))
        sequence = 0
        try:
            frame = self._check(data)
            sequence = frame.header.sequence
            self._keys.add(await self._take_in.take(frame, len(data)))
        except (NotAssigned, ExchangeClosed, CapacityExceeded, DataCorrupted) as error:
            code = next(code for kind, code in _CODES.items() if isinstance(error, kind))
            self._refuse(sequence or _sequence_of(data), code, str(error))
        else:
            self._reply.acknowledged.append(sequence)
            self._has_reply.set()
        finally:
            if self._share is not None:  # the stream has not left the board meanwhile
                self._board.credits.settled(share, time.monotonic())
                self._board.give_out()

    def _check(self, data: memoryview) -> CheckedFrame:
        frame = check_frame(data, self._number, self._sender)
        if frame.header.incarnation != self._take_in.incarnation:
            raise NotAssigned("the frame is meant for another start of this daemon")
        return frame

    def _open_share(self) -> StreamCredits:
        if self._share is None:
            raise InvalidArgument("a push stream that does not begin with hello")
        return self._share

    # --- replies --------------------------------------------------------------------------

    def _refuse(self, sequence: int, code: Any, reason: str) -> None:
        self._take_in.count_refusal(spb.RefusalCode.Name(code))
        self._reply.refused.append(spb.Refusal(sequence=sequence, code=code, reason=reason))
        self._has_reply.set()

    async def _send_replies(self) -> None:
        """What gathered while the last reply was on its way goes out as one."""
        while not self._ended or self._has_reply.is_set():
            await self._has_reply.wait()
            self._has_reply.clear()
            reply, self._reply = self._reply, spb.PushReply()
            self._told.set()
            if reply.ByteSize():
                await self._context.write(reply.SerializeToString())


def _sequence_of(data: memoryview) -> int:
    """The sequence a broken frame names, so that its sender knows which; 0 if it has none."""
    return int.from_bytes(data[24:32], "little") if len(data) >= 32 else 0
