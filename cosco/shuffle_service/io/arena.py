"""Memory that is page-aligned for direct IO: the one mapping behind the page pool, and copies."""

from __future__ import annotations

import asyncio
import logging
import mmap
from contextlib import suppress
from typing import Final

from cosco.errors import CapacityExceeded

log = logging.getLogger(__name__)

#: Linux 5.14 and later; not named by the mmap module.
_MADV_POPULATE_WRITE: Final = 23
_POPULATE_STEP_BYTES: Final = 4 << 20


def aligned(data: bytes) -> memoryview:
    """Return a copy of some bytes in memory that direct IO takes, which goes with the view."""
    memory = memoryview(mmap.mmap(-1, len(data)))
    memory[:] = data
    return memory


class Arena:
    """`length` bytes of memory, reserved at once; the kernel gives pages as they are touched."""

    def __init__(self, length: int) -> None:
        try:
            self._map = mmap.mmap(-1, length, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        except OSError as error:
            raise CapacityExceeded(
                f"--memory: the system does not give {length} bytes ({error}); ask for less"
            ) from error
        with suppress(OSError):  # a kernel without huge pages faults more often, that is all
            self._map.madvise(mmap.MADV_HUGEPAGE)
        self.memory = memoryview(self._map)

    async def populate(self) -> None:
        """Have the kernel give all pages now, in steps of some milliseconds.

        The first touch of a page costs several times the copy to it (measured: 1.1 s of CPU
        per GB), so the first rows should not pay for it.
        """
        for offset in range(0, len(self.memory), _POPULATE_STEP_BYTES):
            length = min(_POPULATE_STEP_BYTES, len(self.memory) - offset)
            try:
                self._map.madvise(_MADV_POPULATE_WRITE, offset, length)
            except OSError as error:  # an older kernel, or no memory now: pages come later
                log.info("memory is not populated ahead: %s", error)
                return
            await asyncio.sleep(0)

    def close(self) -> None:
        """Give the memory back; views of it that are still in use keep it alive."""
        self.memory.release()
        with suppress(BufferError):  # a read or write that was cut off still holds a view
            self._map.close()
