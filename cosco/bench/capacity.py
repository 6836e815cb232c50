"""A workload that cannot fit is refused before it starts, with the figures."""

from __future__ import annotations

import shutil
import tempfile

import psutil

from cosco.errors import CapacityExceeded

_GB = 10**9


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
            f"{what} need {memory / _GB:.1f} GB of memory and {available / _GB:.1f} GB are free: "
            f"{less_memory}"
        )
    folder = directory or tempfile.gettempdir()
    free = shutil.disk_usage(folder).free
    if disk > free:
        raise CapacityExceeded(
            f"{what} need {disk / _GB:.1f} GB of disk and {folder} has {free / _GB:.1f} GB free: "
            f"{less_disk}"
        )
