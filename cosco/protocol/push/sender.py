"""The sender's half of the push protocol: which frame may go, which must go again. No IO.

A frame is *waiting*, then *announced*, *ready* (it was granted, or fits into the loan of eager
bytes) and *sent*; it is kept until it is acknowledged or withdrawn, so also after it was refused.
When the stream breaks, everything that is kept begins anew on the next one; the frames stay the
same, so a receiver recognises what it already has. One that is withdrawn after it was announced
still has its turn: the receiver is told that it does not come.

Whoever moves the bytes asks `next_request` until there is none, and hands in what comes by
`on_reply`, one caller at a time. Payloads are never opened here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from cosco.format.frame import FRAME_HEADER_BYTES, FrameHeader
from cosco.protocol.keys import RangeEpoch
from cosco.protocol.push.messages import Hello, PushReply, PushRequest, Refusal, RefusalCode

#: A receiver that finds a frame broken gets it again this many times: the network may be
#: at fault.
MAX_RESENDS: Final = 3
#: While this many frames are announced, ready or sent, and not answered, no more are announced.
MAX_UNDER_WAY: Final = 1024
#: Sequences in one message of released ones.
MAX_RELEASED: Final = 4096
#: The first frame goes in one message with the hello if it is not longer than this.
MAX_OPENING_BYTES: Final = 64 << 10


class ProtocolBroken(Exception):
    """The receiver said something that makes no sense on this stream."""


@dataclass(slots=True, eq=False)
class OutFrame:
    """A frame on its way out, kept until it is acknowledged or withdrawn.

    payload: its blocks, as whoever carries them wants them (here: a sequence of bytes-like pieces).
    """

    header: FrameHeader
    payload: Any
    was_sent: bool = False  # on any stream
    sent_as: int = 0  # its place among the frames sent on the present stream
    is_withdrawn: bool = False
    resends: int = 0

    @property
    def sequence(self) -> int:
        """Its sequence in its header, by which it is answered."""
        return self.header.sequence

    @property
    def frame_bytes(self) -> int:
        """Length of the whole frame."""
        return FRAME_HEADER_BYTES + self.header.body_bytes

    @property
    def range_epoch(self) -> RangeEpoch:
        """What it is stamped for."""
        return RangeEpoch(self.header.range_index, self.header.epoch)


@dataclass(frozen=True, slots=True)
class Answered:
    """What a reply meant for frames that were not withdrawn.

    refused: with the frame, None where the stream as a whole is meant. A broken frame is in it only
    after it was sent often enough.
    """

    acknowledged: Sequence[OutFrame]
    refused: Sequence[tuple[OutFrame | None, Refusal]]


class PushSender:
    """All frames for one daemon, over one stream after the other."""

    def __init__(self, hello: Hello) -> None:
        self._hello = hello
        self._kept: dict[int, OutFrame] = {}  # by sequence, in the order of `add`
        # Where the kept frames are on the present stream:
        self._waiting: deque[OutFrame] = deque()
        self._announced: deque[OutFrame] = deque()
        self._ready: deque[tuple[OutFrame, bool]] = deque()  # eager?
        self._sent: dict[int, OutFrame] = {}  # and not answered, the withdrawn ones too
        self._granted = 0  # of those ready
        self._eager: dict[int, int] = {}  # sequence → bytes, of those ready or sent eagerly
        self._eager_bytes = self._eager_limit = 0
        self._has_said_hello = False
        self._may_announce = True
        # Released sequences: to be told, and told on this stream but not known to have come.
        self._to_release: deque[int] = deque()
        self._told: deque[tuple[int, list[int]]] = deque()  # frames sent before, sequences
        self._sent_count = 0

    def __len__(self) -> int:
        """Return how many frames are kept."""
        return len(self._kept)

    @property
    def is_under_way(self) -> bool:
        """Whether the receiver will say something yet about a frame that it knows of."""
        return bool(self._announced or self._granted or self._sent)

    @property
    def is_idle(self) -> bool:
        """Whether no frame is kept, and no release is to be told that was not told already."""
        return not (self._kept or self._to_release)

    @property
    def oldest(self) -> OutFrame | None:
        """The frame that has been kept longest."""
        return next(iter(self._kept.values()), None)

    def range_epochs(self) -> set[RangeEpoch]:
        """Return what the kept frames are stamped for."""
        return {frame.range_epoch for frame in self._kept.values()}

    # --- frames ---------------------------------------------------------------------------

    def add(self, frame: OutFrame) -> None:
        """Keep a new frame, and have it sent."""
        self._kept[frame.sequence] = frame
        self._waiting.append(frame)

    def withdraw(self, frames: Sequence[OutFrame]) -> None:
        """Keep these frames no longer, wherever they are: what is answered of them is ignored."""
        for frame in frames:
            if self._kept.pop(frame.sequence, None) is None:
                continue
            frame.is_withdrawn = True
            if frame.sequence not in self._sent:
                self._return_loan(frame.sequence)  # it is skipped where it is ready
        self._next_waiting()  # those in front go at once, also while nobody asks what to say

    def stamped_for(self, range_epoch: RangeEpoch) -> list[OutFrame]:
        """Return the kept frames of an assignment, in order."""
        return [frame for frame in self._kept.values() if frame.range_epoch == range_epoch]

    def release(self, sequence: int) -> None:
        """Have the receiver told that the copy of a frame may go."""
        self._to_release.append(sequence)

    def forget_all(self) -> None:
        """Drop everything: the receiver is gone for ever."""
        self._kept.clear()
        self._to_release.clear()
        self._told.clear()
        self.begin_stream()

    # --- the stream -----------------------------------------------------------------------

    def show(self, capability: str) -> None:
        """Have the receivers of streams to come shown this capability."""
        self._hello = self._hello._replace(capability=capability)

    def begin_stream(self, eager_bytes: int = 0) -> None:
        """Begin anew: say hello, then send all that is kept, in order, and release again.

        eager_bytes: what the receiver lends to this stream, as far as that is known.
        """
        self._waiting = deque(self._kept.values())
        self._announced.clear()
        self._ready.clear()
        self._sent.clear()
        self._eager.clear()
        self._granted = self._eager_bytes = 0
        self._eager_limit = eager_bytes
        self._has_said_hello = False
        self._may_announce = True
        for _, sequences in reversed(self._told):
            self._to_release.extendleft(reversed(sequences))
        self._told.clear()
        self._sent_count = 0

    def end_stream(self) -> None:
        """Note that the stream ended well, so that whatever was told has come."""
        self._told.clear()

    def next_request(self) -> PushRequest[OutFrame] | None:
        """Return what to say next, None if nothing; to be asked again after anything happened."""
        if not self._has_said_hello:
            self._has_said_hello = True
            return self._opening()
        if self._to_release:
            return PushRequest(released=self._take_released())
        self._make_eager()
        if lengths := self._announce():
            return PushRequest(announce=lengths)
        while self._ready:
            frame, eager = self._ready.popleft()
            self._granted -= not eager
            if not frame.is_withdrawn:
                return self._send(frame, eager=eager)
            if not eager:
                return PushRequest(withdrawn=True)
        return None

    def requests(self) -> Iterator[PushRequest[OutFrame]]:
        """Yield everything that is to be said now."""
        while (request := self.next_request()) is not None:
            yield request

    def on_reply(self, reply: PushReply) -> Answered:
        """Take note of what the receiver said.

        Raises: ProtocolBroken; all frames are kept then, for the next stream.
        """
        if reply.eager_bytes:
            self._eager_limit = reply.eager_bytes
        self._may_announce = True
        acknowledged = [frame for s in reply.acknowledged if (frame := self._answer(s)) is not None]
        refused: list[tuple[OutFrame | None, Refusal]] = []
        for refusal in reply.refused:
            frame = self._answer(refusal.sequence) if refusal.sequence else None
            if refusal.sequence and frame is None:
                continue  # of a frame that is somewhere else by now
            if refusal.code is not RefusalCode.BAD_FRAME or frame is None or not _again(frame):
                refused.append((frame, refusal))
            else:
                self._waiting.append(frame)
        self._grant(reply.granted)
        for done in acknowledged:
            del self._kept[done.sequence]
        return Answered(acknowledged, refused)

    # --- inside ---------------------------------------------------------------------------

    def _opening(self) -> PushRequest[OutFrame]:
        """The hello, with the first frame if that may go at once and is short."""
        first = self._next_waiting()
        if first is None or first.frame_bytes > min(self._eager_limit, MAX_OPENING_BYTES):
            return PushRequest(hello=self._hello)
        self._waiting.popleft()
        self._borrow(first)
        self._note_sent(first)
        return PushRequest(hello=self._hello, eager=True, frame=first)

    def _next_waiting(self) -> OutFrame | None:
        """The first frame that waits, where it is."""
        while self._waiting and self._waiting[0].is_withdrawn:
            self._waiting.popleft()
        return self._waiting[0] if self._waiting else None

    def _make_eager(self) -> None:
        """Make waiting frames ready, to be sent eagerly, as far as the loan reaches."""
        while (frame := self._next_waiting()) is not None:
            if self._eager_bytes + frame.frame_bytes > self._eager_limit:
                return
            self._waiting.popleft()
            self._borrow(frame)
            self._ready.append((frame, True))

    def _announce(self) -> list[int]:
        """Return the lengths of the frames to announce now.

        While others are under way, once a reply: messages cost by their number.
        """
        may_announce, self._may_announce = self._may_announce or not self.is_under_way, False
        if not may_announce:
            return []
        lengths: list[int] = []
        room = MAX_UNDER_WAY - len(self._announced) - len(self._ready) - len(self._sent)
        while len(lengths) < room and (frame := self._next_waiting()) is not None:
            self._waiting.popleft()
            self._announced.append(frame)
            lengths.append(frame.frame_bytes)
        return lengths

    def _grant(self, count: int) -> None:
        if count > len(self._announced):
            raise ProtocolBroken(f"it granted {count} frames of {len(self._announced)}")
        for _ in range(count):
            self._ready.append((self._announced.popleft(), False))
        self._granted += count

    def _send(self, frame: OutFrame, *, eager: bool) -> PushRequest[OutFrame]:
        self._note_sent(frame)
        return PushRequest(eager=eager, frame=frame)

    def _note_sent(self, frame: OutFrame) -> None:
        frame.was_sent = True
        frame.sent_as = self._sent_count
        self._sent[frame.sequence] = frame
        self._sent_count += 1

    def _take_released(self) -> list[int]:
        """Return sequences to tell now; kept until a frame that is sent after them is answered."""
        count = min(len(self._to_release), MAX_RELEASED)
        sequences = [self._to_release.popleft() for _ in range(count)]
        self._told.append((self._sent_count, sequences))
        return sequences

    def _answer(self, sequence: int) -> OutFrame | None:
        """Return the frame that is answered, None if it was withdrawn; raises ProtocolBroken."""
        frame = self._sent.pop(sequence, None)
        if frame is None:
            raise ProtocolBroken(f"it answered frame {sequence}, which was not sent")
        self._return_loan(sequence)
        while self._told and self._told[0][0] <= frame.sent_as:
            self._told.popleft()
        return None if frame.is_withdrawn else frame

    def _borrow(self, frame: OutFrame) -> None:
        self._eager[frame.sequence] = frame.frame_bytes
        self._eager_bytes += frame.frame_bytes

    def _return_loan(self, sequence: int) -> None:
        self._eager_bytes -= self._eager.pop(sequence, 0)


def _again(frame: OutFrame) -> bool:
    """Whether a broken frame is to be sent once more."""
    frame.resends += 1
    return frame.resends <= MAX_RESENDS
