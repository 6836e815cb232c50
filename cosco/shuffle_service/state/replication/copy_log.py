"""Copies: frames that primaries forwarded, kept whole in pages until they are released.

A copy costs no work per block. It goes when its primary says that its rows are durable, or
when it is settled: put through buffers of this daemon, and so to a file of its own, since
the epoch was sealed or since copies press. Frames that find no room wait in order, and are
answered when they are in; a frame released while it waits need not be stored.

Pure bookkeeping over the page pool; no IO.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from cosco.errors import CoscoError, ExchangeClosed
from cosco.shuffle_service.state.buffers.assignments import Settle
from cosco.shuffle_service.state.buffers.limits import PoolShares
from cosco.shuffle_service.state.buffers.partition_buffer import AssignmentKey
from cosco.shuffle_service.state.buffers.pool import Page, PagePool, round_up

#: Copies that have been waiting for so long have older ones settled, as their primaries
#: release nothing.
PRESSED_S: Final = 2.0

#: (incarnation of the primary, sequence on its link)
CopyId = tuple[int, int]


@dataclass(slots=True, eq=False)
class Copy:
    """One frame in pages. `next_run`: so many of its runs are in buffers already."""

    id: CopyId
    key: AssignmentKey
    pages: list[Page]
    length: int
    next_run: int = 0

    @property
    def capacity(self) -> int:
        return round_up(self.length)


@dataclass(frozen=True, slots=True)
class _Waiting:
    key: AssignmentKey
    data: memoryview
    stream: object
    settle: Settle
    since: float


class CopyLog:
    """The copies of one daemon, by primary and sequence."""

    def __init__(self, pool: PagePool, arena: memoryview, shares: PoolShares) -> None:
        self._pool = pool
        self._arena = arena
        self._shares = shares
        self._held: OrderedDict[CopyId, Copy] = OrderedDict()  # the oldest first
        self._by_key: dict[AssignmentKey, OrderedDict[CopyId, Copy]] = {}
        self._waiting: OrderedDict[CopyId, _Waiting] = OrderedDict()
        self.waiting_bytes = 0
        self._bytes_of: Counter[int] = Counter()  # pages' bytes that are held, by primary
        #: Called with an assignment whose last copy has gone, in whatever way.
        self.on_last_gone: Callable[[AssignmentKey], None] = lambda _: None

    def __len__(self) -> int:
        """The number of copies held."""
        return len(self._held)

    # --- in -------------------------------------------------------------------------------

    def offer(
        self,
        copy_id: CopyId,
        key: AssignmentKey,
        data: memoryview,
        *,
        stream: object,
        now: float,
        settle: Settle,
    ) -> None:
        """Keep a checked frame, now or when there is room; `settle` is called once.

        A frame that is held already is not stored twice. `stream` is what it came by: see
        `hung_up`.
        """
        if copy_id in self._held:
            settle(None)
            return
        self._forget_waiting(copy_id)  # it came by a stream that has broken
        self._waiting[copy_id] = _Waiting(key, data, stream, settle, now)
        self.waiting_bytes += round_up(len(data))
        self.store_waiting()

    def store_waiting(self) -> None:
        """Store what waits, in order, as far as there is room: pages may have been freed."""
        while self._waiting:
            copy_id, waiting = next(iter(self._waiting.items()))
            if round_up(len(waiting.data)) > self._shares.copies_room:
                return
            self._forget_waiting(copy_id)
            self._store(copy_id, waiting)
            waiting.settle(None)

    def _store(self, copy_id: CopyId, waiting: _Waiting) -> None:
        data = waiting.data
        pages = self._pool.allocate(len(data))
        copy = Copy(copy_id, waiting.key, pages, len(data))
        start = 0
        for page in pages:
            length = min(page.size, len(data) - start)
            self._arena[page.offset : page.offset + length] = data[start : start + length]
            start += length
        self._shares.copies += copy.capacity
        self._bytes_of[copy_id[0]] += copy.capacity
        self._held[copy_id] = copy
        self._by_key.setdefault(copy.key, OrderedDict())[copy_id] = copy

    # --- out ------------------------------------------------------------------------------

    def released(self, primary: int, sequences: Iterable[int]) -> None:
        """The rows of these frames are durable, or nobody was told that they are held."""
        for sequence in sequences:
            waiting = self._forget_waiting((primary, sequence))
            if waiting is not None:
                waiting.settle(None)
            copy = self._held.get((primary, sequence))
            if copy is not None:
                self._free(copy)
        self.store_waiting()

    def hung_up(self, stream: object) -> None:
        """A stream has ended: what waits of it comes again by another, or not at all."""
        for copy_id in [i for i, waiting in self._waiting.items() if waiting.stream is stream]:
            self._forget_waiting(copy_id)
        self.store_waiting()

    def drop(self, number: int) -> None:
        """Forget all copies of an exchange."""
        closed = ExchangeClosed(f"exchange {number} is closed")
        self.refuse({w.key: closed for w in self._waiting.values() if w.key[0] == number})
        for key in [key for key in self._by_key if key[0] == number]:
            for copy in list(self._by_key[key].values()):
                self._free(copy)
        self.store_waiting()

    def settled(self, copy: Copy) -> None:
        """All blocks of a copy are in buffers now, or it was found to be broken."""
        if self.holds(copy):
            self._free(copy)
            self.store_waiting()

    def refuse(self, errors: Mapping[AssignmentKey, CoscoError]) -> None:
        """Refuse what waits of assignments, each with its error; what is held stays."""
        for copy_id in [i for i, waiting in self._waiting.items() if waiting.key in errors]:
            waiting = self._forget_waiting(copy_id)
            if waiting is not None:
                waiting.settle(errors[waiting.key])
        self.store_waiting()

    def _forget_waiting(self, copy_id: CopyId) -> _Waiting | None:
        waiting = self._waiting.pop(copy_id, None)
        if waiting is not None:
            self.waiting_bytes -= round_up(len(waiting.data))
        return waiting

    def _free(self, copy: Copy) -> None:
        del self._held[copy.id]
        of_key = self._by_key[copy.key]
        del of_key[copy.id]
        self._pool.free(copy.pages)
        self._shares.copies -= copy.capacity
        primary, _ = copy.id
        self._bytes_of[primary] -= copy.capacity
        if not self._bytes_of[primary]:
            del self._bytes_of[primary]
        if not of_key:
            del self._by_key[copy.key]
            self.on_last_gone(copy.key)

    # --- looking --------------------------------------------------------------------------

    def has(self, key: AssignmentKey) -> bool:
        return key in self._by_key

    def holds(self, copy: Copy) -> bool:
        return self._held.get(copy.id) is copy

    def oldest(self, key: AssignmentKey | None) -> Copy | None:
        """The copy held longest, of an assignment or of all."""
        copies = self._held if key is None else self._by_key.get(key)
        return next(iter(copies.values()), None) if copies else None

    def of(self, key: AssignmentKey) -> list[Copy]:
        """The copies that are held of an assignment now."""
        return list(self._by_key.get(key, {}).values())

    def content(self, copy: Copy) -> bytes:
        """The frame that a copy is."""
        parts, left = [], copy.length
        for page in copy.pages:
            length = min(page.size, left)
            parts.append(self._arena[page.offset : page.offset + length])
            left -= length
        return b"".join(parts)

    def bytes_of(self, key: AssignmentKey) -> int:
        return sum(copy.length for copy in self._by_key.get(key, {}).values())

    @property
    def pages_wanted(self) -> int:
        """Bytes of pages that waiting copies may have and that are not free."""
        return min(self.waiting_bytes, max(0, self._shares.copies_max - self._shares.copies))

    def max_bytes_of(self, primary: int) -> int:
        """How many bytes a primary should leave here; 1 or more.

        All that is left when there is room, else its share of what is too much.
        """
        held, goal = self._bytes_of[primary], self._shares.copies_goal
        total = self._shares.copies + self.waiting_bytes
        return max(1, held + goal - total if total <= goal else held * goal // total)

    @property
    def is_over_goal(self) -> bool:
        """Whether primaries should release some."""
        return self._shares.copies + self.waiting_bytes > self._shares.copies_goal

    def pressed(self, now: float, *, patience_s: float = PRESSED_S) -> bool:
        """Whether frames have been waiting for so long because of the copies there are."""
        for waiting in self._waiting.values():  # the first of them
            need = round_up(len(waiting.data))
            is_full = self._shares.copies + need > self._shares.copies_max
            return is_full and now - waiting.since >= patience_s
        return False
