"""Has a worker's process use memory again that it has freed, where Dask's settings prevent it.

Dask starts workers with `MALLOC_TRIM_THRESHOLD_` (`distributed.nanny.pre-spawn-environ`), so that
the C library gives free memory back to the kernel early. With any threshold that is set, the
library no longer adapts the others to what a program does (mallopt(3)): whatever has 128 KiB or
more is mapped for itself, unmapped when it is freed, and each of its pages is a page fault the next
time. Blocks, frames and messages of gRPC all are that long: a GB that is shuffled cost 2.4 million
page faults, half of the processor time.
"""

from __future__ import annotations

import ctypes
import os
from functools import cache
from typing import Final

#: What is longer is rare, and goes back at once as before.
THRESHOLD_BYTES: Final = 4 << 20
_PINNED_BY: Final = "MALLOC_TRIM_THRESHOLD_"
_OWN_CHOICE: Final = ("MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")
#: Names of options in malloc.h.
_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3


@cache
def reuse_freed_memory() -> bool:
    """Have up to 4 MiB be kept and used again, for each heap of the C library and each buffer.

    Does nothing where the library adapts by itself, where whoever started the process has chosen a
    threshold of the other kind, or where the library is not glibc.

    Returns: whether it has changed anything.
    """
    trim_bytes = os.environ.get(_PINNED_BY, "")
    if not trim_bytes.isdecimal() or any(name in os.environ for name in _OWN_CHOICE):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    kept = mallopt(_M_MMAP_THRESHOLD, THRESHOLD_BYTES)
    if int(trim_bytes) < THRESHOLD_BYTES:
        mallopt(_M_TRIM_THRESHOLD, THRESHOLD_BYTES)
    return bool(kept)
