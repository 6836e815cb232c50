"""What to write next, and whether the store takes it. No IO.

A buffer is flushed when its assignment is sealed, when it holds the oldest forwarded frames and
a replica is stalled or pressed, when it is full, when it is the largest of a tenant who has little
left of what may be his, and when memory is short the largest there is.
Which others are written with it is chosen by `cosco.shuffle_service.state.segments.segment_choice`.

A write that fails is repeated, the same bytes; the chunks' pages keep the rows meanwhile, so
nothing acknowledged is lost by a full disk. What waits for pages gives up by the time the store
has been failing.

A write that is under way for longer than a bound *hangs*, and counts as a failure from then on.
It is not repeated while it hangs: it may yet land, and the kernel still reads its pages.
"""

from __future__ import annotations

import heapq
import math
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable
from operator import attrgetter
from typing import Final

from cosco.dfs.protocol import MoveTrouble
from cosco.shuffle_service.state.buffers.old_epochs import Going
from cosco.shuffle_service.state.buffers.partition_buffer import Chunk, PartitionBuffer
from cosco.shuffle_service.state.replication.replica import ReplicationLog
from cosco.shuffle_service.state.segments.segment_choice import Flush

#: A store that takes nothing for this long is said to be failing.
FAILING_AFTER_S: Final = 2.0
_RETRY_MIN_S: Final = 0.05
_RETRY_MAX_S: Final = 2.0
#: A write that hangs is looked at again after this time, as who waits for pages may give up.
_HANGS_STILL_S: Final = 0.5


class FlushPlan:
    """The buffers of one daemon that have something to flush, and how writing goes.

    idle_s: everything is written when no frame came for this long; 0: never for that.
    timeout_s: a write that is under way for this long hangs.
    """

    def __init__(
        self, replication: ReplicationLog, idle_s: float, timeout_s: float = math.inf
    ) -> None:
        self._replication = replication
        self._ready: OrderedDict[PartitionBuffer, None] = OrderedDict()  # segment_bytes or more
        self._open: dict[PartitionBuffer, int] = {}  # with the tenant whose rows they are
        self._open_of: dict[int, dict[PartitionBuffer, None]] = {}  # by tenant
        #: Candidates of the last search: of all, which is None, and of tenants.
        self._largest: dict[int | None, list[Chunk]] = {}
        #: Tenants for whom something is flushed: when it was whose turn last.
        self._turn_of: dict[int, int] = {}
        self._turns = 0
        self._urgent: OrderedDict[PartitionBuffer, None] = OrderedDict()  # sealed
        #: Whether whatever there is is to be written, however little.
        self.everything = False
        self.idle_s = idle_s
        self._is_idle = False
        self._came_at: float | None = None  # the last frame; None since the rest began
        #: Since when no write has succeeded, and why; None while it works.
        self.failing_since: float | None = None
        self._failure = ""
        #: Says why nothing moves on from the fast of two tiers that somebody waits for.
        self.moves: Callable[[], MoveTrouble | None] = lambda: None
        self._timeout_s = timeout_s
        self._under_way: dict[Flush, None] = {}

    def __len__(self) -> int:
        """Return how many buffers have something to flush."""
        return len(self._ready) + len(self._open) + len(self._urgent)

    # --- buffers --------------------------------------------------------------------------

    def opened(self, buffer: PartitionBuffer, tenant: int = 0) -> None:
        """Note that it has an open chunk, of the rows of a tenant."""
        self._open[buffer] = tenant
        self._open_of.setdefault(tenant, {})[buffer] = None

    def filled(self, buffer: PartitionBuffer) -> None:
        """Note that its open chunk fills a segment, and none of its is being written."""
        self._ready[buffer] = None

    def hurry(self, buffer: PartitionBuffer) -> None:
        """Have its open chunk, if it has one, stored now."""
        if buffer.open is not None:
            self._urgent[buffer] = None

    def forget(self, buffer: PartitionBuffer) -> None:
        """Note that it has no open chunk any more."""
        self._urgent.pop(buffer, None)
        self._ready.pop(buffer, None)
        tenant = self._open.pop(buffer, None)
        if tenant is not None:
            of_tenant = self._open_of[tenant]
            del of_tenant[buffer]
            if not of_tenant:
                del self._open_of[tenant]
                self._largest.pop(tenant, None)

    # --- what to write --------------------------------------------------------------------

    @property
    def writes_all(self) -> bool:
        """Whether small buffers are written as well, though there is memory."""
        return self.everything or self._is_idle

    def has_work(self, *, pressed: bool, tenants: Iterable[int] = ()) -> bool:
        """Whether a writer should look for the next buffer; it may find that there is none.

        tenants: those who have little left of what may be theirs.
        """
        if self._urgent or self._ready or (pressed and self._open):
            return True
        if any(tenant in self._open_of for tenant in tenants):
            return True
        return self._replication.oldest_chunk() is not None

    def next_buffer(
        self, *, pressed: bool, tenants: Collection[int] = ()
    ) -> PartitionBuffer | None:
        """Return the one to write next. `pressed`: any, since memory is short.

        tenants: those of whom one is to be written, as they have little left; in turn.
        """
        if self._urgent:
            return next(iter(self._urgent))
        if (chunk := self._replication.oldest_chunk()) is not None:
            return chunk.buffer
        if self._ready:
            return next(iter(self._ready))
        # Which makes room for others as well, so these come first.
        return self._pick_of(tenants) or (self._pick() if pressed else None)

    def _pick_of(self, tenants: Collection[int]) -> PartitionBuffer | None:
        """Return the largest of the tenant who has waited longest for that."""
        if not tenants:
            self._turn_of.clear()
            return None
        self._turn_of = {tenant: self._turn_of.get(tenant, 0) for tenant in tenants}
        for tenant in sorted(self._turn_of, key=self._turn_of.__getitem__):
            if (buffer := self._pick_largest(tenant)) is not None:
                self._turns += 1
                self._turn_of[tenant] = self._turns
                return buffer
        return None

    def _pick(self) -> PartitionBuffer | None:
        """Return the largest, or one half as large with the oldest forwarded frames.

        Frames share chunks with their neighbours, so their copies go when chunks are flushed
        in turn.
        """
        largest, oldest = self._pick_largest(), self._replication.oldest_chunk(pressed=False)
        if largest is None or oldest is None or largest.open is None:
            return largest
        return oldest.buffer if 2 * oldest.length >= largest.open.length else largest

    def _pick_largest(self, tenant: int | None = None) -> PartitionBuffer | None:
        """Return the largest, of all or of a tenant; one search serves many picks, as sizes change
        little meanwhile."""
        for _ in range(2):
            largest = self._largest.get(tenant, [])
            while largest:
                chunk = largest.pop()
                buffer = chunk.buffer
                if buffer.open is chunk and buffer.flushing is None:
                    return buffer
            among = self._open if tenant is None else self._open_of.get(tenant, ())
            candidates = (b.open for b in among if b.flushing is None and b.open)
            largest = heapq.nlargest(64, candidates, key=attrgetter("length"))
            largest.reverse()
            if largest:
                self._largest[tenant] = largest
            else:
                self._largest.pop(tenant, None)
        return None

    # --- idleness -------------------------------------------------------------------------

    def frame_came(self, now: float) -> None:
        """Note that a frame was taken in: the daemon is not idle."""
        self._is_idle = False
        self._came_at = now

    def tick(self, now: float) -> float:
        """See whether the daemon is idle. Returns the seconds until that is to be asked again."""
        if self._came_at is None:
            return self.idle_s
        left_s = self._came_at + self.idle_s - now
        if left_s > 0:
            return left_s
        self._is_idle, self._came_at = True, None
        return self.idle_s

    # --- writes ---------------------------------------------------------------------------

    def began(self, flush: Flush, now: float) -> float:
        """Note that the store was given a write, again or for the first time.

        Returns: the seconds after which `waits` is to be called, if it is under way still.
        """
        flush.began_at = now
        self._under_way[flush] = None
        return self._timeout_s

    def waits(self, flush: Flush, now: float) -> float:
        """Note that a write is under way still: it hangs if that has been for too long.

        Returns: the seconds after which this is to be called again.
        """
        assert flush.began_at is not None
        left_s = flush.began_at + self._timeout_s - now
        if left_s > 0:
            return left_s
        flush.hangs = True
        if self.failing_since is None:
            self.failing_since = now
        self._failure = f"a write has been under way for {now - flush.began_at:.0f} s"
        return _HANGS_STILL_S

    def returned(self, flush: Flush) -> None:
        """Note that a write is not under way any more, however it went."""
        flush.began_at, flush.hangs = None, False
        del self._under_way[flush]

    def failed(self, flush: Flush, error: OSError, now: float) -> None:
        """Note that a write has failed; it is to be tried again after `retry_s`."""
        if self.failing_since is None:
            self.failing_since = now
        self._failure = error.strerror or str(error)
        flush.retry_s = min(max(_RETRY_MIN_S, 2 * flush.retry_s), _RETRY_MAX_S)

    def ended(self) -> None:
        """Note that a write has succeeded, or is of no use any more."""
        self.failing_since = None  # if it fails still, the next write finds out

    @property
    def failure(self) -> str:
        """Why writes, or moves, fail."""
        moves = self.moves()
        return moves.reason if moves is not None and self.failing_since is None else self._failure

    @property
    def hangs(self) -> bool:
        """Whether a write hangs, or a move that somebody waits for."""
        moves = self.moves()
        return self.hanging > 0 or (moves is not None and moves.hangs)

    @property
    def hanging(self) -> int:
        """Return how many writes hang."""
        return sum(flush.hangs for flush in self._under_way)

    @property
    def hanging_bytes(self) -> int:
        """Return the bytes of pages whose writes hang."""
        return sum(flush.capacity for flush in self._under_way if flush.hangs)

    def hanging_bytes_of(self, tenant: int) -> int:
        """Return the bytes of a tenant's pages whose writes hang."""
        mine = (flush for flush in self._under_way if flush.hangs and flush.tenant == tenant)
        return sum(flush.capacity for flush in mine)

    def is_writing(self, going: Going) -> bool:
        """Whether a write of any of these assignments is under way, be it dropped or not."""
        return any(flush.key in going for flush in self._under_way)

    def failing(self, now: float) -> bool:
        """Whether nothing should come here, as what is taken in may not be stored.

        The store has taken nothing for a while, or a write hangs, though others succeed.
        """
        return self.hangs or self.takes_nothing(now, FAILING_AFTER_S)

    def takes_nothing(self, now: float, patience_s: float) -> bool:
        """Whether no write has succeeded for `patience_s`, and some have failed; or no move."""
        moves = self.moves()
        since = [self.failing_since, moves.since if moves is not None else None]
        return any(began is not None and now - began >= patience_s for began in since)
