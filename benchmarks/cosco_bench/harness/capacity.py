"""A workload that cannot fit is refused before it starts, with the figures."""

from __future__ import annotations

import shutil
import tempfile
from typing import Final

import psutil

from cosco.errors import CapacityExceeded

GB: Final = 10**9
#: An interpreter with pyarrow and grpc, and what a daemon may use beside its pool.
PROCESS_BYTES: Final = 150 << 20
#: Of a writer, as by default; it holds a sorted copy of as much.
BUFFER_BYTES: Final = 32 << 20
#: Blocks and chunks add headers and padding to rows that do not compress.
STORE_OVERHEAD: Final = 1.1


def check_room(
    what: str,
    *,
    memory: int,
    disk: int,
    directory: str | None,
    less_memory: str,
    less_disk: str,
) -> None:
    """Raise CapacityExceeded if `what` needs more than this machine has free.

    memory, disk: bytes that it may take at most, the disk below `directory` (None: where
    temporary files go). less_memory, less_disk: what to do about it.
    """
    available = psutil.virtual_memory().available
    if memory > available:
        raise CapacityExceeded(
            f"{what} need {memory / GB:.1f} GB of memory and {available / GB:.1f} GB are free: "
            f"{less_memory}"
        )
    folder = directory or tempfile.gettempdir()
    free = shutil.disk_usage(folder).free
    if disk > free:
        raise CapacityExceeded(
            f"{what} need {disk / GB:.1f} GB of disk and {folder} has {free / GB:.1f} GB free: "
            f"{less_disk}"
        )
