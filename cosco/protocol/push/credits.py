"""Which announced frames may be sent: one budget of bytes for many push streams.

A message that is under way costs the daemon memory outside its page pool. Senders announce
the lengths of their frames; frames are granted one at a time, while what is granted and not yet
given back (in pages and safe, or refused) stays within the budget. Tenants have the same bytes
granted, however many streams they have, and the streams of one are granted frames in turn. A grant
is always worth a whole frame, so streams cannot starve each other with parts of one.

A tenant whose buffers may have a share of the memory alone may have the same share of the budget:
what he may not put into buffers waits, and would be all there is of the budget before long.

Small frames cost more by their number than by their bytes, and the announcement and the grant
of one as much as itself. So part of the budget is lent to streams for as long as they are open,
the first ones to come: within its loan a stream sends eagerly, without announcing.

The frames of writers and of primaries are granted out of two budgets, as neither may wait for
the other.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from cosco.errors import InvalidArgument
from cosco.format.frame import MAX_FRAME_BYTES
from cosco.protocol.push.fair_order import FairOrder

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
    grant for too long. tenant: the tag of who sends; 0: it is not known.
    """

    on_grant: Callable[[], None]
    cut_off: Callable[[], object]
    tenant: int = 0
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
    """Grants announced frames within `budget_bytes`, at most a quarter to one stream.

    tenant_share: how much of it one tenant may have; of 1 or less. One frame he always may.
    """

    def __init__(self, budget_bytes: int, tenant_share: float = 1.0) -> None:
        self.budget_bytes = budget_bytes
        self.now = 0.0  # when something was heard last
        self._in_flight_bytes = 0  # of granted frames
        self._eager_bytes = 0
        self._lent_bytes = 0
        self._stream_bytes = max(budget_bytes // 4, MAX_FRAME_BYTES)
        self._tenant_share = tenant_share
        self._streams: dict[StreamCredits, None] = {}
        self._turns: FairOrder[int, StreamCredits] = FairOrder()  # streams with announced frames
        #: By tenant: bytes of granted frames, and what is lent to his streams.
        self._in_flight_of: Counter[int] = Counter()
        self._lent_to: Counter[int] = Counter()

    @property
    def in_flight_bytes(self) -> int:
        """Bytes of frames granted, or sent eagerly, and not given back."""
        return self._in_flight_bytes + self._eager_bytes

    def open(
        self, on_grant: Callable[[], None], cut_off: Callable[[], object], tenant: int = 0
    ) -> StreamCredits:
        """Count a stream in; it has a loan while there is something to lend."""
        stream = StreamCredits(on_grant, cut_off, tenant)
        loans_bytes = self.budget_bytes * _EAGER_SHARE
        his_bytes = loans_bytes * self._share_of(tenant)
        if (
            self._lent_bytes + EAGER_BYTES <= loans_bytes
            and self._lent_to[tenant] + EAGER_BYTES <= his_bytes
        ):
            stream.eager_limit = EAGER_BYTES
            self._lend(tenant, EAGER_BYTES)
        self._streams[stream] = None
        return stream

    def now_of(self, stream: StreamCredits, tenant: int) -> None:
        """Note that a stream on which nothing is under way is another tenant's from now on."""
        self._lend(stream.tenant, -stream.eager_limit)
        stream.tenant = tenant
        self._lend(tenant, stream.eager_limit)

    def _lend(self, tenant: int, bytes_: int) -> None:
        self._lent_bytes += bytes_
        _add(self._lent_to, tenant, bytes_)

    def _share_of(self, tenant: int) -> float:
        return self._tenant_share if tenant else 1.0  # those of nobody are not one

    def close(self, stream: StreamCredits) -> None:
        """Free what a stream held that has ended, and give it out to others."""
        self._streams.pop(stream, None)
        if stream.announced:
            self._turns.remove(stream.tenant, stream)
        stream.announced.clear()
        stream.granted.clear()
        stream.waiting_since = None
        self._hold(stream, -stream.in_flight_bytes)
        self._eager_bytes -= stream.eager_bytes
        self._lend(stream.tenant, -stream.eager_limit)
        stream.eager_bytes = stream.eager_limit = 0
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
            self._turns.add(stream.tenant, stream)
        stream.announced.extend(frame_bytes)

    def give_out(self) -> None:
        """Grant what fits.

        Who is next is never overtaken by a smaller frame, so all come in turn. Who has his share
        is passed over: a stream, or a tenant with all his streams.
        """
        budget_bytes, turns = self.budget_bytes - self._lent_bytes, self._turns
        while (stream := turns.first()) is not None:
            length = stream.announced[0]
            if self._has_share(stream.tenant, length):
                turns.pass_over_line()
                continue
            if self._in_flight_bytes and self._in_flight_bytes + length > budget_bytes:
                break
            if stream.in_flight_bytes and stream.in_flight_bytes + length > self._stream_bytes:
                turns.pass_over()
                continue
            stream.announced.popleft()
            turns.served(length, stays=bool(stream.announced))
            stream.granted.append(length)
            self._hold(stream, length)
            if stream.waiting_since is None and not stream.is_busy:
                stream.waiting_since = self.now
            stream.on_grant()
        turns.come_back()

    def _has_share(self, tenant: int, length: int) -> bool:
        """Whether one more frame of a tenant would be more than may be his."""
        share = self._share_of(tenant)
        if share >= 1:
            return False
        held = self._in_flight_of[tenant]
        return held > 0 and held + length > self.budget_bytes * share

    def _hold(self, stream: StreamCredits, bytes_: int) -> None:
        stream.in_flight_bytes += bytes_
        self._in_flight_bytes += bytes_
        _add(self._in_flight_of, stream.tenant, bytes_)

    def tick(self, now: float) -> None:
        """Cut off who sits on a grant; to be called every second or so."""
        self.now = now
        for stream in self.stalled(now, GRANT_PATIENCE_S):
            stream.cut_off()

    def stalled(self, now: float, patience_s: float) -> list[StreamCredits]:
        """Return the streams that sit on a grant for `patience_s` while others wait for one."""
        if not any(stream.announced and not stream.in_flight_bytes for stream in self._streams):
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
        self._hold(stream, -accounted)
        self.give_out()

    def give_back_eager(self, stream: StreamCredits, length: int) -> None:
        """Free what an eager frame held: it is in pages and safe, or refused."""
        stream.eager_bytes -= length
        self._eager_bytes -= length


def _add(counter: Counter[int], tenant: int, bytes_: int) -> None:
    counter[tenant] += bytes_
    if not counter[tenant]:
        del counter[tenant]


class FrameBudgets:
    """The budgets of a daemon: one for writers, one for primaries that forward to it.

    tenant_share: how much of that for writers one tenant may have.
    """

    def __init__(self, inflight_bytes: int, tenant_share: float = 1.0) -> None:
        self.writers = FrameBudget(inflight_bytes, tenant_share)
        self.primaries = FrameBudget(max(inflight_bytes // 2, MIN_COPIES_BYTES))

    @property
    def in_flight_bytes(self) -> int:
        """Bytes of frames granted, or sent eagerly, and not given back."""
        return self.writers.in_flight_bytes + self.primaries.in_flight_bytes

    def tick(self, now: float) -> None:
        """Cut off who sits on a grant; to be called every second or so."""
        self.writers.tick(now)
        self.primaries.tick(now)
