"""Copies: frames that primaries forwarded, kept whole in pages until they are released.

A copy costs no work per block. It goes when its primary says that its rows are durable, or
when it is absorbed: put through buffers of this daemon, and so to a file of its own, since
the epoch was sealed or since copies press. Frames that find no room wait in order, and are
answered when they are in; a frame released while it waits need not be kept.

Pure bookkeeping over the page pool; no IO.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from cosco.errors import CoscoError, DataCorrupted
from cosco.protocol.keys import AssignmentKey, CopyId
from cosco.protocol.push.answers import Answer
from cosco.shuffle_service.state.buffers.limits import PoolShares
from cosco.shuffle_service.state.buffers.old_epochs import Going
from cosco.shuffle_service.state.buffers.pool import Page, PagePool, round_up

#: Copies that have been waiting for this long have older ones absorbed, as their primaries
#: release nothing.
PRESSED_S: Final = 2.0


@dataclass(slots=True, eq=False)
class Copy:
    """One forwarded frame: it waits for room, or is held in pages.

    data: the frame, while it waits. stream: what it came by. since: when it came. answer: called
    once, when it is held or will not be. next_run: the first of its runs that is not in buffers.
    """

    id: CopyId
    key: AssignmentKey
    length: int
    data: memoryview
    stream: object
    since: float
    answer: Answer
    pages: list[Page] = field(default_factory=list)
    next_run: int = 0

    @property
    def capacity(self) -> int:
        """Return what it takes of the pool."""
        return round_up(self.length)


class CopyLog:
    """The copies of one daemon, by primary and sequence."""

    def __init__(self, pool: PagePool, arena: memoryview, shares: PoolShares) -> None:
        self._pool = pool
        self._arena = arena
        self._shares = shares
        self._held: OrderedDict[CopyId, Copy] = OrderedDict()  # the oldest first
        self._by_key: dict[AssignmentKey, OrderedDict[CopyId, Copy]] = {}
        self._waiting: OrderedDict[CopyId, Copy] = OrderedDict()
        self.waiting_bytes = 0
        self._bytes_of: Counter[int] = Counter()  # pages' bytes that are held, by primary
        #: Called with an assignment whose last copy has gone, in whatever way.
        self.on_last_gone: Callable[[AssignmentKey], None] = lambda _: None

    def __len__(self) -> int:
        """Return how many copies are held."""
        return len(self._held)

    # --- in -------------------------------------------------------------------------------

    def offer(self, copy: Copy) -> None:
        """Keep a checked frame, now or when there is room.

        One that is held already is not kept twice.
        """
        if copy.id in self._held:
            copy.answer(None)
            return
        before = self._forget_waiting(copy.id)  # mostly by a stream that has broken
        if before is not None and before.stream is copy.stream:
            before.answer(DataCorrupted("a frame that came again before it was answered"))
        self._waiting[copy.id] = copy
        self.waiting_bytes += copy.capacity
        self.keep_waiting()

    def keep_waiting(self) -> None:
        """Keep what waits, in order, as far as there is room: pages may have been freed."""
        while self._waiting:
            copy = next(iter(self._waiting.values()))
            if copy.capacity > self._shares.copies_room:
                return
            self._forget_waiting(copy.id)
            self._keep(copy)
            copy.answer(None)

    def _keep(self, copy: Copy) -> None:
        data, start = copy.data, 0
        copy.pages = self._pool.allocate(copy.length)
        for page in copy.pages:
            length = min(page.size, copy.length - start)
            self._arena[page.offset : page.offset + length] = data[start : start + length]
            start += length
        copy.data, copy.stream = _NOTHING, None
        self._shares.copies += copy.capacity
        self._bytes_of[copy.id.primary] += copy.capacity
        self._held[copy.id] = copy
        self._by_key.setdefault(copy.key, OrderedDict())[copy.id] = copy

    # --- out ------------------------------------------------------------------------------

    def released(self, primary: int, sequences: Iterable[int]) -> None:
        """Let frames go: their rows are durable, or nobody was told that they are held."""
        for sequence in sequences:
            copy_id = CopyId(primary, sequence)
            waiting = self._forget_waiting(copy_id)
            if waiting is not None:
                waiting.answer(None)
            copy = self._held.get(copy_id)
            if copy is not None:
                self._free(copy)
        self.keep_waiting()

    def hung_up(self, stream: object) -> None:
        """Forget what waits of a stream that ended: it comes again by another, or not at all."""
        for copy in [copy for copy in self._waiting.values() if copy.stream is stream]:
            self._forget_waiting(copy.id)
        self.keep_waiting()

    def drop(self, going: Going, error: CoscoError) -> None:
        """Forget all copies of assignments; what waits is refused with `error`."""
        keys = {copy.key for copy in self._waiting.values() if copy.key in going}
        self.refuse(dict.fromkeys(keys, error))
        for key in [key for key in self._by_key if key in going]:
            for copy in self.of(key):
                self._free(copy)
        self.keep_waiting()

    def absorbed(self, copy: Copy) -> None:
        """Let a copy go: all its blocks are in buffers now, or it was found to be broken."""
        if self.holds(copy):
            self._free(copy)
            self.keep_waiting()

    def refuse(self, errors: Mapping[AssignmentKey, CoscoError]) -> None:
        """Refuse what waits of assignments, each with its error; what is held stays."""
        for copy in [copy for copy in self._waiting.values() if copy.key in errors]:
            if self._forget_waiting(copy.id) is not None:
                copy.answer(errors[copy.key])
        self.keep_waiting()

    def _forget_waiting(self, copy_id: CopyId) -> Copy | None:
        copy = self._waiting.pop(copy_id, None)
        if copy is not None:
            self.waiting_bytes -= copy.capacity
        return copy

    def _free(self, copy: Copy) -> None:
        del self._held[copy.id]
        of_key = self._by_key[copy.key]
        del of_key[copy.id]
        self._pool.free(copy.pages)
        self._shares.copies -= copy.capacity
        primary = copy.id.primary
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
        """Return the copy held longest, of an assignment or of all."""
        copies = self._held if key is None else self._by_key.get(key)
        return next(iter(copies.values()), None) if copies else None

    def of(self, key: AssignmentKey) -> list[Copy]:
        """Return the copies that are held of an assignment now."""
        return list(self._by_key.get(key, {}).values())

    def content(self, copy: Copy) -> bytes:
        """Return the frame that a copy is."""
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
        """Return the bytes of pages that waiting copies may have and that are not free."""
        if not self.waiting_bytes:  # as nearly always, and this is asked for each frame
            return 0
        return min(self.waiting_bytes, max(0, self._shares.copies_max - self._shares.copies))

    def max_bytes_of(self, primary: int) -> int:
        """Return how many bytes a primary should leave here; 1 or more.

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
        """Whether a frame has waited for `patience_s` because of the copies there are."""
        copy = next(iter(self._waiting.values()), None)
        if copy is None or self._shares.copies + copy.capacity <= self._shares.copies_max:
            return False
        return now - copy.since >= patience_s


#: Where the frame was before it was in pages.
_NOTHING: Final = memoryview(b"")
