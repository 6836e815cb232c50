"""Which announced frames may be sent: one budget of bytes for many push streams.

A message that is under way costs the daemon memory outside its page pool. Senders announce
the lengths of their frames; frames are granted one at a time, streams in turn, while what is
granted and not yet given back (in pages and safe, or refused) stays within the budget. A grant
is always worth a whole frame, so streams cannot starve each other with parts of one.

Small frames cost more by their number than by their bytes, and the announcement and the grant
of one as much as itself. So part of the budget is lent to streams for as long as they are open,
the first ones to come: within its loan a stream sends eagerly, without announcing.

The frames of writers and of primaries are granted out of two budgets, as neither may wait for
the other.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from cosco.errors import InvalidArgument
from cosco.format.frame import MAX_FRAME_BYTES

#: Frames one stream may have announced and not sent.
MAX_ANNOUNCED_FRAMES: Final = 4096
#: Lent to a stream, and the share of the budget that all loans together may take.
EAGER_BYTES: Final = 512 << 10
_EAGER_SHARE: Final = 1 / 4
#: A sender that sits on a grant for this long, while others wait for one, is cut off.
GRANT_PATIENCE_S: Final = 10.0
#: The least budget of frames that primaries forward: two of the longest.
MIN_COPIES_BYTES: Final = 2 * MAX_FRAME_BYTES


@dataclass(slots=True, eq=False)
class StreamCredits:
    """One stream's share; lengths are frames' bytes.

    on_grant: called for each frame that is granted. cut_off: called when the sender sat on a
    grant for too long.
    """

    on_grant: Callable[[], None]
    cut_off: Callable[[], object]
    announced: deque[int] = field(default_factory=deque)
    granted: deque[int] = field(default_factory=deque)
    in_flight_bytes: int = 0  # granted, and not given back
    #: The loan, and what came within it and is not given back.
    eager_limit: int = 0
    eager_bytes: int = 0
    is_busy: bool = False  # the daemon is taking in a frame of it
    #: Since when the sender may send and does not; None if it may not, or the daemon is
    #: still busy with the frame before.
    waiting_since: float | None = None

    @property
    def is_idle(self) -> bool:
        """Whether nothing was announced that has not come."""
        return not (self.announced or self.granted)


class FrameBudget:
    """Grants announced frames within `budget_bytes`, at most a quarter to one stream."""

    def __init__(self, budget_bytes: int) -> None:
        self.budget_bytes = budget_bytes
        self.now = 0.0  # when something was heard last
        self._in_flight_bytes = 0  # of granted frames
        self._eager_bytes = 0
        self._lent_bytes = 0
        self._stream_bytes = max(budget_bytes // 4, MAX_FRAME_BYTES)
        self._streams: dict[StreamCredits, None] = {}
        self._turns: deque[StreamCredits] = deque()  # streams with announced frames

    @property
    def in_flight_bytes(self) -> int:
        """Bytes of frames granted, or sent eagerly, and not given back."""
        return self._in_flight_bytes + self._eager_bytes

    def open(self, on_grant: Callable[[], None], cut_off: Callable[[], object]) -> StreamCredits:
        """Count a stream in; it has a loan while there is something to lend."""
        stream = StreamCredits(on_grant, cut_off)
        if self._lent_bytes + EAGER_BYTES <= self.budget_bytes * _EAGER_SHARE:
            stream.eager_limit = EAGER_BYTES
            self._lent_bytes += EAGER_BYTES
        self._streams[stream] = None
        return stream

    def close(self, stream: StreamCredits) -> None:
        """Free what a stream held that has ended, and give it out to others."""
        self._streams.pop(stream, None)
        if stream.announced:
            self._turns.remove(stream)
        stream.announced.clear()
        stream.granted.clear()
        stream.waiting_since = None
        self._in_flight_bytes -= stream.in_flight_bytes
        self._eager_bytes -= stream.eager_bytes
        self._lent_bytes -= stream.eager_limit
        stream.in_flight_bytes = stream.eager_bytes = stream.eager_limit = 0
        self.give_out()

    # --- grants ---------------------------------------------------------------------------

    def announce(self, stream: StreamCredits, frame_bytes: Sequence[int]) -> None:
        """Note that a sender has frames of these lengths; raises InvalidArgument."""
        waiting = len(stream.announced) + len(stream.granted)
        if waiting + len(frame_bytes) > MAX_ANNOUNCED_FRAMES:
            raise InvalidArgument(f"more than {MAX_ANNOUNCED_FRAMES} frames announced")
        for length in frame_bytes:
            if not 0 < length <= MAX_FRAME_BYTES:
                raise InvalidArgument(
                    f"a frame of {length} bytes announced, the limit is {MAX_FRAME_BYTES}"
                )
        if frame_bytes and not stream.announced:
            self._turns.append(stream)
        stream.announced.extend(frame_bytes)

    def give_out(self) -> None:
        """Grant what fits.

        The head of the queue is never overtaken by a smaller frame, so all come in turn.
        """
        budget_bytes = self.budget_bytes - self._lent_bytes
        parked: list[StreamCredits] = []
        while self._turns:
            stream = self._turns[0]
            length = stream.announced[0]
            if self._in_flight_bytes and self._in_flight_bytes + length > budget_bytes:
                break
            self._turns.popleft()
            if stream.in_flight_bytes and stream.in_flight_bytes + length > self._stream_bytes:
                parked.append(stream)  # at its share: the others go on without it
                continue
            stream.announced.popleft()
            stream.granted.append(length)
            stream.in_flight_bytes += length
            self._in_flight_bytes += length
            if stream.waiting_since is None and not stream.is_busy:
                stream.waiting_since = self.now
            stream.on_grant()
            if stream.announced:
                self._turns.append(stream)
        self._turns.extendleft(reversed(parked))

    def tick(self, now: float) -> None:
        """Cut off who sits on a grant; to be called every second or so."""
        self.now = now
        for stream in self.stalled(now, GRANT_PATIENCE_S):
            stream.cut_off()

    def stalled(self, now: float, patience_s: float) -> list[StreamCredits]:
        """Return the streams that sit on a grant for `patience_s` while others wait for one."""
        if not any(stream.in_flight_bytes == 0 for stream in self._turns):
            return []
        return [
            stream
            for stream in self._streams
            if stream.waiting_since is not None and now - stream.waiting_since > patience_s
        ]

    # --- frames ---------------------------------------------------------------------------

    def received(self, stream: StreamCredits, length: int) -> int:
        """Note that a granted frame has come; raises InvalidArgument if it may not.

        Returns: the bytes that are accounted to it until `give_back`.
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
        """Note that a frame has come that was not announced.

        It counts until `give_back_eager`. Raises InvalidArgument if it exceeds the loan.
        """
        if stream.eager_bytes + length > stream.eager_limit:
            raise InvalidArgument(
                f"a frame of {length} bytes that was neither announced nor granted"
            )
        stream.eager_bytes += length
        self._eager_bytes += length
        stream.waiting_since = None
        stream.is_busy = True

    def taken_in(self, stream: StreamCredits, now: float) -> None:
        """Note that the frame received last keeps the sender from nothing any more."""
        stream.is_busy = False
        stream.waiting_since = now if stream.granted else None

    def give_back(self, stream: StreamCredits, accounted: int) -> None:
        """Free what a granted frame held: it is in pages and safe, or refused."""
        stream.in_flight_bytes -= accounted
        self._in_flight_bytes -= accounted
        self.give_out()

    def give_back_eager(self, stream: StreamCredits, length: int) -> None:
        """Free what an eager frame held: it is in pages and safe, or refused."""
        stream.eager_bytes -= length
        self._eager_bytes -= length


class FrameBudgets:
    """The budgets of a daemon: one for writers, one for primaries that forward to it."""

    def __init__(self, inflight_bytes: int) -> None:
        self.writers = FrameBudget(inflight_bytes)
        self.primaries = FrameBudget(max(inflight_bytes // 2, MIN_COPIES_BYTES))

    @property
    def in_flight_bytes(self) -> int:
        """Bytes of frames granted, or sent eagerly, and not given back."""
        return self.writers.in_flight_bytes + self.primaries.in_flight_bytes

    def tick(self, now: float) -> None:
        """Cut off who sits on a grant; to be called every second or so."""
        self.writers.tick(now)
        self.primaries.tick(now)
