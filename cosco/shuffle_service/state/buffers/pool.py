"""A buddy pool of pages: which parts of a fixed arena are free. Knows offsets, not memory.

Pages are 4 KiB to 256 KiB, powers of two, aligned to their size, so that a small buffer
holds little and a large one is written with few segments. Freed buddies join again
(Knowlton, "A fast storage allocator", CACM 1965).

Invariant: the free pages and the allocated ones are disjoint and cover the arena.
"""

from __future__ import annotations

from typing import Final, NamedTuple

MIN_PAGE_BYTES: Final = 4 << 10
MAX_PAGE_BYTES: Final = 256 << 10
_MIN_SHIFT: Final = MIN_PAGE_BYTES.bit_length() - 1
_ORDERS: Final = (MAX_PAGE_BYTES // MIN_PAGE_BYTES).bit_length()


class Page(NamedTuple):
    """An allocated piece of the arena: `offset` and `size`, in bytes."""

    offset: int
    size: int


def round_up(length: int) -> int:
    """Return `length` rounded up to whole pages of the smallest size."""
    return -(-length // MIN_PAGE_BYTES) * MIN_PAGE_BYTES


class PagePool:
    """Allocates pages of an arena of `capacity_bytes`, a multiple of MAX_PAGE_BYTES."""

    def __init__(self, capacity_bytes: int) -> None:
        if capacity_bytes <= 0 or capacity_bytes % MAX_PAGE_BYTES:
            raise ValueError(f"{capacity_bytes} bytes are no multiple of {MAX_PAGE_BYTES}")
        self.capacity_bytes = capacity_bytes
        self.free_bytes = capacity_bytes
        # Dicts as sets with an order: the page freed last is used next, as its memory is
        # warm and untouched memory stays untouched.
        self._free: list[dict[int, None]] = [{} for _ in range(_ORDERS)]
        for offset in range(capacity_bytes - MAX_PAGE_BYTES, -1, -MAX_PAGE_BYTES):
            self._free[-1][offset] = None

    def allocate(self, length: int) -> list[Page]:
        """Allocate pages of `round_up(length)` bytes in total, large ones first.

        Raises MemoryError if less than that is free, and allocates nothing then. It never fails
        by fragmentation, as the smallest pages add up.
        """
        rest = round_up(length)
        if rest > self.free_bytes:
            raise MemoryError(f"{rest} bytes of pages asked for, {self.free_bytes} are free")
        self.free_bytes -= rest
        pages = []
        while rest:
            order = min(rest >> _MIN_SHIFT, MAX_PAGE_BYTES >> _MIN_SHIFT).bit_length() - 1
            page = self._page_of(order)
            pages.append(page)
            rest -= page.size
        return pages

    def _page_of(self, order: int) -> Page:
        """Return a page of `order`, split off a larger one if need be, or else a smaller one."""
        for found in range(order, _ORDERS):
            if self._free[found]:
                offset, _ = self._free[found].popitem()
                for split in range(found - 1, order - 1, -1):
                    self._free[split][offset + (MIN_PAGE_BYTES << split)] = None
                return Page(offset, MIN_PAGE_BYTES << order)
        for found in range(order - 1, -1, -1):
            if self._free[found]:
                offset, _ = self._free[found].popitem()
                return Page(offset, MIN_PAGE_BYTES << found)
        raise AssertionError("free_bytes counts pages that are not there")

    def free(self, pages: list[Page]) -> None:
        """Give pages back; each exactly as it was allocated."""
        for page in pages:
            offset, size = page
            self.free_bytes += size
            order = (size >> _MIN_SHIFT).bit_length() - 1
            while order < _ORDERS - 1:
                buddy = offset ^ (MIN_PAGE_BYTES << order)
                if buddy not in self._free[order]:
                    break
                del self._free[order][buddy]
                offset = min(offset, buddy)
                order += 1
            self._free[order][offset] = None
