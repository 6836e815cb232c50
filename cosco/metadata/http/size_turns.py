"""Who looks at the sizes of many partitions: in threads, and few at a time, as each needs a copy.

Whoever waits for his turn holds nothing but his request.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, TypeVar

from cosco.protocol.records import U64

_T = TypeVar("_T")
_R = TypeVar("_R")
#: Sizes of many partitions that are looked at, and copied, at a time.
MAX_AT_ONCE: Final = 2
#: More partitions than this are many: nobody else should wait while somebody looks at them.
FEW: Final = 1 << 16


class SizeTurns:
    """Gives turns to those who look at the sizes of many partitions."""

    def __init__(self) -> None:
        self._turn = asyncio.Semaphore(MAX_AT_ONCE)

    async def look(
        self,
        partitions: int,
        now: Callable[[], tuple[_T, tuple[U64, ...]]],
        look: Callable[..., _R],
    ) -> tuple[_T, _R]:
        """Return what `now` gives beside the arrays, and what `look` finds in these.

        partitions: how many there are. now: gives the arrays as they are, only to be read; it is
        called when the turn has come, as things may have changed by then. look: gets the arrays,
        in a thread if the partitions are many.

        Raises: what these raise.
        """
        if partitions <= FEW:
            beside, arrays = now()
            return beside, look(*arrays)
        async with self._turn:
            beside, arrays = now()
            copies = [one.copy() for one in arrays]
            return beside, await asyncio.to_thread(look, *copies)
