"""What each tenant's buffers hold of the pool, and how much of it they may. No IO.

Who has no more room waits, and his own buffers are flushed for it. Copies that are absorbed are
counted, and wait for nothing: they were in the pool before, and go from there. Those of nobody,
whose tag is 0, are not one tenant, and have no bound.
"""

from __future__ import annotations

from collections.abc import Iterable, KeysView
from typing import Final

from cosco.errors import CapacityExceeded
from cosco.shuffle_service.state.buffers.frame_append import Room
from cosco.shuffle_service.state.buffers.limits import PoolShares
from cosco.shuffle_service.state.buffers.partition_buffer import Chunk
from cosco.shuffle_service.state.buffers.pool import MIN_PAGE_BYTES, PagePool

#: Once no more than this part of what he may have is left to a tenant, his largest are flushed.
_LOW_WATER_SHARE: Final = 1 / 8


class TenantMemory:
    """The pages of each tenant's buffers, counted; all figures are bytes.

    share: how much of a pool of `capacity_bytes` one tenant may have, of 1 or less; with 1 there is
    no bound.
    """

    def __init__(self, shares: PoolShares, capacity_bytes: int, share: float = 1.0) -> None:
        """Begin with nothing held. shares: of the pool."""
        self._shares = shares
        self._limit = int(capacity_bytes * share) if share < 1 else None
        self._held: dict[int, int] = {}
        self._flushing: dict[int, int] = {}
        self._nearly_full: dict[int, None] = {}
        self._full: frozenset[int] = frozenset()

    def set_full(self, tenants: Iterable[int]) -> None:
        """Have nothing more taken of these: they have as much in stores as they may."""
        self._full = frozenset(tenants)

    def check_may_store(self, tenant: int) -> None:
        """Raise CapacityExceeded if nothing more of a tenant is taken."""
        if tenant in self._full:
            raise CapacityExceeded(
                "the tenant of this exchange has as many bytes stored as it may have "
                "(--tenant-stored-bytes of cosco-metadata): close others, and run the mapper again"
            )

    @property
    def is_bounded(self) -> bool:
        """Whether there is a bound of tenants."""
        return self._limit is not None

    @property
    def held_bytes(self) -> dict[int, int]:
        """Return what each tenant's buffers hold, being written or not, by tag."""
        return dict(self._held)

    @property
    def nearly_full(self) -> KeysView[int]:
        """Return the tenants to whom little is left of what they may have."""
        return self._nearly_full.keys()

    def room(self, tenant: int) -> Room:
        """Return what a tenant's buffers may have beside what they have."""
        room, left = self._shares.room, self._left(tenant)
        if self._limit is None or not tenant:
            return room
        if left is None:
            return Room(room.bytes, min(room.ahead, self._limit))
        return Room(min(room.bytes, left), min(room.ahead, left))

    def holds_up(self, tenant: int) -> bool:
        """Whether a tenant has less room than the pool has, so that others may have theirs."""
        left = self._left(tenant)
        return left is not None and left < self._shares.buffers_room

    def is_low(self, tenant: int, waiting_bytes: int, *, hanging_bytes: int) -> bool:
        """Whether a tenant's buffers are to be flushed, counting what is being written as free.

        waiting_bytes: what waits for room. hanging_bytes: of what is being written, that whose
        write hangs.
        """
        if self._limit is None or not tenant:
            return False
        flushing = self._flushing.get(tenant, 0)
        soon_left = self._limit - self._held.get(tenant, 0) + flushing - hanging_bytes
        # The next run may need its length, the header of its chunk, and the rest of a page.
        wanted = waiting_bytes + 2 * MIN_PAGE_BYTES if waiting_bytes else 0
        return soon_left < self._limit * _LOW_WATER_SHARE + wanted

    def took(self, tenant: int, bytes_: int) -> None:
        """Note that a tenant's buffers have this many more bytes of pages."""
        if bytes_:
            self._hold(tenant, bytes_)

    def freed(self, tenant: int, bytes_: int) -> None:
        """Note that pages are free again that were not being written."""
        self._hold(tenant, -bytes_)

    def release(self, tenant: int, chunks: Iterable[Chunk], pool: PagePool) -> None:
        """Give the pages of a tenant's chunks back to the pool, none of which is being written."""
        for chunk in chunks:
            self.freed(tenant, chunk.capacity)
            chunk.release(pool)

    def begin_flush(self, tenant: int, bytes_: int) -> None:
        """Note that pages are being written."""
        self._shares.flushing += bytes_
        _add(self._flushing, tenant, bytes_)

    def end_flush(self, tenant: int, bytes_: int) -> None:
        """Note that pages which were being written are free again."""
        self._shares.flushing -= bytes_
        _add(self._flushing, tenant, -bytes_)
        self._hold(tenant, -bytes_)

    def _left(self, tenant: int) -> int | None:
        """Return what is left to a tenant; None if nothing bounds him. Who holds nothing may have
        what the pool has, as a frame may need more than all that is his."""
        if self._limit is None or not tenant:
            return None
        held = self._held.get(tenant)
        return self._limit - held if held else None

    def _hold(self, tenant: int, bytes_: int) -> None:
        held = _add(self._held, tenant, bytes_)
        if self._limit is None:
            return
        if tenant and held > self._limit * (1 - _LOW_WATER_SHARE):
            self._nearly_full[tenant] = None
        else:
            self._nearly_full.pop(tenant, None)


def _add(counts: dict[int, int], tenant: int, bytes_: int) -> int:
    """Add to a count, which is not kept at 0. Returns it."""
    count = counts.get(tenant, 0) + bytes_
    if count:
        counts[tenant] = count
    else:
        counts.pop(tenant, None)
    return count
