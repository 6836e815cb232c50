"""One replica of a primary: which frames it has, which it may let go, what to send it.

Pure bookkeeping; no IO. `cosco.shuffle_service.io.push.forward` sends and receives what is said
here.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from cosco.errors import CoscoError
from cosco.format.frame import FRAME_HEADER_BYTES, FrameHeader
from cosco.protocol.push.window import MAX_RESENDS, OutFrame, PushWindow
from cosco.protocol.records import DaemonRef
from cosco.shuffle_service.state.buffers.assignments import Settle
from cosco.shuffle_service.state.buffers.partition_buffer import AssignmentKey, Chunk, ChunkState

#: A replica that has frames to answer and answers none for so long is stalled.
STALL_S: Final = 0.25
#: And one that leaves a single frame unanswered for so long.
STALL_OLDEST_S: Final = 2.0
#: Frames announced to a replica, or sent and not answered.
MAX_UNDER_WAY: Final = 1024
#: Sequences in one Released message.
MAX_RELEASED: Final = 4096
#: So many places in the lists of chunks cost what one frame does.
_LISTED_PER_FRAME: Final = 128


@dataclass(slots=True, eq=False)
class Forward:
    """One forwarded frame, until it is released and its writer knows.

    header: as it is sent to the replica. body: its blocks; None when they need not be sent
    (again). settle: None when the writer was told, or is gone. refusal: why it will not be
    safe, while it is not taken. unstored: chunks with blocks of it that are not durable.
    is_mark: it has a mark and no rows, so nothing of it will ever be stored.
    """

    replica: Replica
    key: AssignmentKey
    header: FrameHeader
    body: memoryview | None
    since: float
    settle: Settle | None
    is_mark: bool = False
    taken: bool = False
    acknowledged: bool = False
    refusal: CoscoError | None = None
    unstored: int = 0
    was_sent: bool = False
    resends: int = 0

    @property
    def sequence(self) -> int:
        return self.header.sequence


class Replica:
    """One daemon that copies are forwarded to, as one link to it needs to know it.

    Life of a link: `begin_stream`, then `send_eagerly`, `announce`, `granted`, `acknowledged`,
    `refused` and `take_released` as messages come and go; again from the start when the stream
    breaks. A sequence is of this primary for ever, so what was sent twice is kept once.
    """

    def __init__(self, ref: DaemonRef, *, volatile: bool) -> None:
        """`volatile`: what this daemon stores ends with it, so storing makes nothing safe."""
        self.ref = ref
        self.is_lost = False
        self.is_stalled = False
        #: Called when there is something to announce or to release.
        self.wake: Callable[[], None] = lambda: None
        self._volatile = volatile
        self._frames: dict[int, Forward] = {}  # not released, or not told to their writer
        self._of_number: dict[int, dict[int, Forward]] = {}  # the same, by exchange
        self._unanswered: OrderedDict[int, Forward] = OrderedDict()  # with a body to send
        self._unannounced: OrderedDict[int, Forward] = OrderedDict()
        self._chunks: OrderedDict[Chunk, list[Forward]] = OrderedDict()  # not durable
        self._listed = 0  # in all those lists
        self._window = PushWindow()
        self._answered_at = 0.0
        self._max_bytes = 0  # of what was sent and is not released; 0: not known
        self._sent_bytes = 0  # of that, what there is
        # Released sequences: to be told, and told on this stream but not known to have come.
        self._to_release: deque[int] = deque()
        self._told: deque[tuple[int, list[int]]] = deque()  # after so many sent frames
        self._sent = 0  # frames sent on this stream
        self._sent_as: dict[int, int] = {}  # sequence → number among them

    def __len__(self) -> int:
        """The number of frames that are kept account of."""
        return len(self._frames)

    @property
    def cost(self) -> int:
        """What its bookkeeping costs, in frames."""
        return len(self._frames) + self._listed // _LISTED_PER_FRAME

    @property
    def is_idle(self) -> bool:
        """Whether nothing is to be said to it, now or later, but for what was told already."""
        return not (self._frames or self._to_release)

    @property
    def is_under_way(self) -> bool:
        """Whether it will say something yet about a frame that it knows of."""
        return self._window.is_under_way

    # --- frames ---------------------------------------------------------------------------

    def add(self, frame: Forward) -> None:
        self._frames[frame.sequence] = frame
        self._of_number.setdefault(frame.key[0], {})[frame.sequence] = frame
        if self.is_lost:
            frame.body = None
            return
        if not self._unanswered:
            self._answered_at = frame.since  # it was not asked anything
        self._unanswered[frame.sequence] = frame
        self._unannounced[frame.sequence] = frame
        self.wake()

    def taken(self, frame: Forward, chunks: Iterable[Chunk]) -> None:
        """All blocks of the frame are in buffers here, or were; the rest is in `chunks`."""
        frame.taken = True
        if frame.refusal is not None:
            self._settle(frame, frame.refusal)
        elif frame.sequence in self._frames:
            if not self._volatile:
                for chunk in chunks:
                    self._chunks.setdefault(chunk, []).append(frame)
                    frame.unstored += 1
                self._listed += frame.unstored
            self._advance(frame)

    def stored(self, chunk: Chunk) -> None:
        """A chunk has become durable."""
        frames = self._chunks.pop(chunk, [])
        self._listed -= len(frames)
        for frame in frames:
            frame.unstored -= 1
            if frame.sequence in self._frames:
                self._advance(frame)

    def refuse(self, frame: Forward, error: CoscoError) -> None:
        """The frame will not be safe: its writer is told, and its copy may go."""
        if frame.taken:
            self._settle(frame, error)
        else:
            frame.refusal = error  # told when it is taken, or by whoever fails to take it
        self._release(frame)

    def abandon(self, frame: Forward) -> None:
        """Nobody waits for the frame any more, nor was told that it is held."""
        frame.settle = None
        if frame.sequence in self._frames:
            self._release(frame)

    def unsafe(self) -> Iterator[Forward]:
        """The frames whose writers wait."""
        return (frame for frame in list(self._frames.values()) if frame.settle is not None)

    def drop(self, number: int, chunks: Iterable[Chunk], error: CoscoError) -> None:
        """An exchange was dropped, and so were its chunks; writers who wait are told why.

        `chunks`: those of it that are not durable.
        """
        frames = list(self._of_number.get(number, {}).values())
        for frame in frames:
            if frame.settle is not None:
                self.refuse(frame, error)
        for chunk in chunks:
            self._listed -= len(self._chunks.pop(chunk, ()))
        for frame in frames:
            if frame.sequence in self._frames:
                self._release(frame)

    def _advance(self, frame: Forward) -> None:
        if not frame.taken:
            return
        durable = not frame.unstored and not self._volatile
        if frame.is_mark:  # rows before it may be durable; it is there if the replica has it
            durable = durable and self.is_stalled
        if frame.acknowledged or durable:
            self._settle(frame, None)
            if durable or frame.is_mark:  # the replica has counted it
                self._release(frame)
            elif self._volatile:  # it is never released: the replica keeps it
                self._forget(frame)

    def _settle(self, frame: Forward, error: CoscoError | None) -> None:
        settle, frame.settle = frame.settle, None
        if settle is not None:
            settle(error)

    def _release(self, frame: Forward) -> None:
        self._forget(frame)
        if frame.was_sent and not self.is_lost:
            self._to_release.append(frame.sequence)
            self.wake()

    def _forget(self, frame: Forward) -> None:
        frame.body = None
        if self._frames.pop(frame.sequence, None) is not None:
            of_number = self._of_number[frame.key[0]]
            del of_number[frame.sequence]
            if not of_number:
                del self._of_number[frame.key[0]]
            if frame.was_sent:
                self._sent_bytes -= frame.header.body_bytes
        self._unanswered.pop(frame.sequence, None)
        self._unannounced.pop(frame.sequence, None)

    # --- its link -------------------------------------------------------------------------

    def begin_stream(self) -> None:
        """A new stream: what was not answered is announced again, what was told is told again."""
        self._window = PushWindow()
        self._unannounced = OrderedDict(self._unanswered)
        for _, sequences in reversed(self._told):
            self._to_release.extendleft(reversed(sequences))
        self._told.clear()
        self._sent_as.clear()
        self._sent = 0

    def end_stream(self) -> None:
        """The stream ended well, and whatever was told has come."""
        self._told.clear()

    def allow_eager(self, limit_bytes: int) -> None:
        """Of frames sent without asking so many bytes may be on their way on this stream."""
        self._window.allow_eager(limit_bytes)

    def send_eagerly(self) -> list[tuple[FrameHeader, memoryview]]:
        """What to send now without asking: (header, blocks)."""
        self._fill_window()
        sent = map(self._send, self._window.send_eagerly())
        return [frame for frame in sent if frame is not None]

    def announce(self) -> list[int]:
        """Lengths of the frames to announce now, in order."""
        self._fill_window()
        return self._window.announce()

    def _fill_window(self) -> None:
        while self._unannounced and len(self._window) < MAX_UNDER_WAY:
            sequence, frame = self._unannounced.popitem(last=False)
            length = FRAME_HEADER_BYTES + frame.header.body_bytes
            _, range_index, epoch = frame.key
            self._window.add(OutFrame(sequence, range_index, epoch, length, b""))

    def granted(self, count: int) -> list[tuple[FrameHeader, memoryview] | None]:
        """What to send as so many more of the announced frames may be: (header, blocks).

        None stands for a frame that is not to be sent any more: an empty one takes its place,
        which is not answered. Raises ProtocolBroken.
        """
        return [self._send(out) for out in self._window.granted(count)]

    def _send(self, out: OutFrame) -> tuple[FrameHeader, memoryview] | None:
        frame = self._frames.get(out.sequence)
        if frame is None or frame.body is None:
            self._window.acknowledged([out.sequence])
            return None
        if not frame.was_sent:
            frame.was_sent = True
            self._sent_bytes += frame.header.body_bytes
        self._sent_as[out.sequence] = self._sent
        self._sent += 1
        return frame.header, frame.body

    def bounded(self, max_bytes: int) -> None:
        """The replica asks to release frames until so many bytes are left; 0: as it said before."""
        self._max_bytes = max_bytes or self._max_bytes

    def acknowledged(self, sequences: Iterable[int], now: float) -> None:
        """The replica holds copies of these frames. Raises ProtocolBroken."""
        self._answered_at = now
        self.is_stalled = self.is_lost
        for sequence in sequences:
            self._window.acknowledged([sequence])
            self._confirm(sequence)
            self._unanswered.pop(sequence, None)
            frame = self._frames.get(sequence)
            if frame is not None:
                frame.acknowledged = True
                frame.body = None
                self._advance(frame)

    def refused(self, sequence: int) -> Forward | None:
        """The frame that the replica refused, if anybody still wants it. Raises ProtocolBroken.

        It is not sent again unless `resend` says so.
        """
        self._window.acknowledged([sequence])
        self._confirm(sequence)
        self._unanswered.pop(sequence, None)
        return self._frames.get(sequence)

    def resend(self, frame: Forward) -> bool:
        """Send a refused frame once more; False if that was done often enough."""
        if frame.resends >= MAX_RESENDS:
            return False
        frame.resends += 1
        if frame.body is not None:
            self._unanswered[frame.sequence] = self._unannounced[frame.sequence] = frame
        return True

    def take_released(self) -> list[int]:
        """Sequences to tell the replica of now, at most MAX_RELEASED.

        They are kept until the replica answers a frame that was sent after them.
        """
        count = min(len(self._to_release), MAX_RELEASED)
        sequences = [self._to_release.popleft() for _ in range(count)]
        if sequences:
            self._told.append((self._sent, sequences))
        return sequences

    def _confirm(self, sequence: int) -> None:
        sent_as = self._sent_as.pop(sequence)
        while self._told and self._told[0][0] <= sent_as:
            self._told.popleft()

    def lose(self) -> None:
        """It is gone, and with it all copies: frames become safe by storing alone."""
        self.is_lost = self.is_stalled = True
        for frame in self._frames.values():
            frame.body = None
            frame.acknowledged = False  # if its writer was not told yet, it is not
        self._unanswered.clear()
        self._unannounced.clear()
        self._to_release.clear()
        self._told.clear()
        self._sent_as.clear()
        self._window = PushWindow()

    # --- stalling -------------------------------------------------------------------------

    def tick(self, now: float) -> None:
        """See whether it keeps frames waiting."""
        self.is_stalled = self.is_lost
        for frame in self._unanswered.values():  # the first of them
            silent_since = max(self._answered_at, frame.since)
            is_silent = now - silent_since >= STALL_S or now - frame.since >= STALL_OLDEST_S
            self.is_stalled = self.is_stalled or is_silent
            break
        if self.is_stalled:  # marks need it no more
            for frame in list(self._frames.values()):
                self._advance(frame)

    @property
    def is_pressed(self) -> bool:
        """Whether chunks are to be flushed so that it can let copies go."""
        return self.is_stalled or bool(self._max_bytes and self._sent_bytes > self._max_bytes)

    def oldest_chunk(self) -> Chunk | None:
        """The chunk to flush first: of the oldest frame not released, if it can be flushed."""
        for chunk in self._chunks:
            if chunk.state is ChunkState.OPEN and chunk.buffer.flushing is None:
                return chunk
        return None
