"""Keeps glibc from giving large blocks back to the kernel after each use.

By default every allocation of a megabyte is a fresh mapping: the kernel zeroes its pages at
first touch and takes them away at free. A process that moves megabyte messages spends more
on that than on copying them (measured: 0.8 s of CPU per GB without this, 0.3 s with it; a
reader that makes tables takes half the time).

Daemons set it at their start, clients with their first connection. Daemons also have all their
threads share one arena: each keeps free blocks of its own, and a daemon's memory is bounded
(measured: 112 to 196 MiB above `--memory` without this, 94 to 108 MiB with it). Who has set one of
glibc's own variables has decided already.
"""

from __future__ import annotations

import ctypes
import os
import sys
from typing import Final

_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_M_ARENA_MAX: Final = -8
#: glibc takes no more than half an arena's heap here.
_MMAP_THRESHOLD_BYTES: Final = 32 << 20
#: What the heap may keep free at its top.
_TRIM_THRESHOLD_BYTES: Final = 64 << 20
#: How users of glibc set the same, or other things with it.
_VARIABLES: Final = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES")


def keep_large_blocks(*, one_arena: bool = False) -> bool:
    """Set it for this process; return False where the C library is not glibc, or its user has.

    one_arena: for all threads, which wait for each other's allocations then.
    """
    if not sys.platform.startswith("linux") or any(name in os.environ for name in _VARIABLES):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(
        mallopt(_M_MMAP_THRESHOLD, _MMAP_THRESHOLD_BYTES)
        and mallopt(_M_TRIM_THRESHOLD, _TRIM_THRESHOLD_BYTES)
        and (not one_arena or mallopt(_M_ARENA_MAX, 1))
    )
