"""Which announced frames may be sent: one budget of bytes for all push streams.

A message that is under way costs the daemon memory outside its page pool. Senders announce
the lengths of their frames; frames are granted one at a time, streams in turn, while what is
granted and not yet settled (in pages and safe, or refused) stays within the budget. A grant
is always worth a whole frame, so streams cannot starve each other with parts of one.

Small frames cost more by their number than by their bytes, and the announcement and the grant
of one as much as itself. So part of the budget is lent to streams for as long as they are open,
the first ones to come: within its loan a stream sends eagerly, without announcing.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from cosco.errors import InvalidArgument
from cosco.format.frame import MAX_FRAME_BYTES

#: Frames one stream may have announced and not been granted.
MAX_ANNOUNCED_FRAMES = 4096
#: Lent to a stream, and the share of the budget that all loans together may take.
EAGER_BYTES = 512 << 10
_EAGER_SHARE = 1 / 4


@dataclass(slots=True, eq=False)
class StreamCredits:
    """One stream's share; lengths are frames' bytes."""

    announced: deque[int] = field(default_factory=deque)
    granted: deque[int] = field(default_factory=deque)
    unsettled_bytes: int = 0
    #: The loan, and what came within it and is not settled.
    eager_limit: int = 0
    eager_bytes: int = 0
    is_busy: bool = False  # the daemon is taking a frame of it
    #: Since when the sender may send and does not; None if it may not, or the daemon is
    #: still busy with the frame before.
    waiting_since: float | None = None

    @property
    def is_idle(self) -> bool:
        """Whether nothing was announced that has not come."""
        return not (self.announced or self.granted)


class FrameCredits:
    """Grants announced frames within `budget_bytes`, at most a quarter to one stream."""

    def __init__(self, budget_bytes: int) -> None:
        self.budget_bytes = budget_bytes
        self.unsettled_bytes = 0  # of granted frames
        self.eager_bytes = 0  # of eager ones
        self._lent_bytes = 0
        self._stream_bytes = max(budget_bytes // 4, MAX_FRAME_BYTES)
        self._streams: dict[StreamCredits, None] = {}
        self._turns: deque[StreamCredits] = deque()  # streams with announced frames

    def open(self) -> StreamCredits:
        stream = StreamCredits()
        if self._lent_bytes + EAGER_BYTES <= self.budget_bytes * _EAGER_SHARE:
            stream.eager_limit = EAGER_BYTES
            self._lent_bytes += EAGER_BYTES
        self._streams[stream] = None
        return stream

    def announce(self, stream: StreamCredits, frame_bytes: list[int]) -> None:
        """A sender has frames of these lengths; raises InvalidArgument."""
        if len(stream.announced) + len(frame_bytes) > MAX_ANNOUNCED_FRAMES:
            raise InvalidArgument(f"more than {MAX_ANNOUNCED_FRAMES} frames announced")
        for length in frame_bytes:
            if not 0 < length <= MAX_FRAME_BYTES:
                raise InvalidArgument(
                    f"a frame of {length} bytes announced, the limit is {MAX_FRAME_BYTES}"
                )
        if frame_bytes and not stream.announced:
            self._turns.append(stream)
        stream.announced.extend(frame_bytes)

    def grant(self, now: float) -> list[tuple[StreamCredits, int]]:
        """Give out what fits: (stream, number of its frames), each stream at most once.

        The head of the queue is never overtaken by a smaller frame, so all come in turn.
        """
        budget_bytes = self.budget_bytes - self._lent_bytes
        grants: dict[StreamCredits, int] = {}
        parked: list[StreamCredits] = []
        while self._turns:
            stream = self._turns[0]
            length = stream.announced[0]
            if self.unsettled_bytes and self.unsettled_bytes + length > budget_bytes:
                break
            self._turns.popleft()
            if stream.unsettled_bytes and stream.unsettled_bytes + length > self._stream_bytes:
                parked.append(stream)  # at its share: the others go on without it
                continue
            stream.announced.popleft()
            stream.granted.append(length)
            stream.unsettled_bytes += length
            self.unsettled_bytes += length
            if stream.waiting_since is None and not stream.is_busy:
                stream.waiting_since = now
            grants[stream] = grants.get(stream, 0) + 1
            if stream.announced:
                self._turns.append(stream)
        self._turns.extendleft(reversed(parked))
        return list(grants.items())

    def received(self, stream: StreamCredits, length: int) -> int:
        """A granted frame has come; raises InvalidArgument if it was not, or is longer.

        Returns the bytes that are accounted to it until it is `settled`.
        """
        if not stream.granted:
            raise InvalidArgument("a frame that was not granted")
        if length > stream.granted[0]:
            raise InvalidArgument(
                f"a frame of {length} bytes where one of {stream.granted[0]} was announced"
            )
        stream.waiting_since = None
        stream.is_busy = True
        return stream.granted.popleft()  # what it was announced with

    def received_eagerly(self, stream: StreamCredits, length: int) -> None:
        """A frame has come that was not announced; raises InvalidArgument if the stream has
        not been lent so much. To be told of by `settled_eagerly`."""
        if stream.eager_bytes + length > stream.eager_limit:
            raise InvalidArgument(
                f"a frame of {length} bytes that was neither announced nor granted"
            )
        stream.eager_bytes += length
        self.eager_bytes += length
        stream.waiting_since = None
        stream.is_busy = True

    def settled_eagerly(self, stream: StreamCredits, length: int) -> None:
        """An eager frame is in pages and safe, or refused."""
        stream.eager_bytes -= length
        self.eager_bytes -= length

    def taken(self, stream: StreamCredits, now: float) -> None:
        """The frame received last keeps the sender from nothing any more."""
        stream.is_busy = False
        stream.waiting_since = now if stream.granted else None

    def settled(self, stream: StreamCredits, accounted: int) -> None:
        """A frame received is in pages and safe, or refused."""
        stream.unsettled_bytes -= accounted
        self.unsettled_bytes -= accounted

    def close(self, stream: StreamCredits) -> None:
        """The stream has ended: what it held is free again."""
        self._streams.pop(stream, None)
        if stream.announced:
            self._turns.remove(stream)
        stream.announced.clear()
        stream.granted.clear()
        stream.waiting_since = None
        self.unsettled_bytes -= stream.unsettled_bytes
        self.eager_bytes -= stream.eager_bytes
        self._lent_bytes -= stream.eager_limit
        stream.unsettled_bytes = stream.eager_bytes = stream.eager_limit = 0

    def stalled(self, now: float, patience_s: float) -> list[StreamCredits]:
        """Streams that sit on a grant for `patience_s` while others wait for one."""
        if not any(stream.unsettled_bytes == 0 for stream in self._turns):
            return []
        return [
            stream
            for stream in self._streams
            if stream.waiting_since is not None and now - stream.waiting_since > patience_s
        ]
