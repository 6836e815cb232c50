"""What a run takes of this machine: a run that cannot fit is refused before it starts."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from typing import Final

from cosco.errors import CapacityExceeded

GB: Final = 10**9
#: The length of every row of every benchmark.
ROW_BYTES: Final = 100
#: Rows that are handed to `collect_batch` at a time.
#: About a writer's buffer: smaller batches are copied once more before they are sorted
#: (65,536 rows a batch: a tenth slower end to end).
BATCH_ROWS: Final = 250_000
#: The rows that a process makes once and uses again, where making them must not be measured.
STOCK_ROWS: Final = 2 * BATCH_ROWS
STOCK_BYTES: Final = STOCK_ROWS * ROW_BYTES
#: An interpreter with pyarrow and grpc, and what a daemon may use beside its pool.
PROCESS_BYTES: Final = 150 << 20
#: A writer's buffer, as by default; it holds a sorted copy of as much.
BUFFER_BYTES: Final = 32 << 20
#: Blocks and chunks add headers and padding to rows that do not compress.
STORE_OVERHEAD: Final = 1.1


@dataclass(frozen=True, slots=True)
class Needs:
    """What a part of a run may take at most, in bytes; and, for its user, how to need less."""

    what: str
    memory: int
    disk: int
    less_memory: str
    less_disk: str


def check_room(needs: Needs, directory: str | None) -> None:
    """Raise CapacityExceeded if this machine has less free than is needed, with the figures.

    directory: where files go, None for where temporary files go.
    """
    import psutil  # noqa: PLC0415  an extra: only who measures has it

    available = psutil.virtual_memory().available
    if needs.memory > available:
        raise CapacityExceeded(
            f"{needs.what} need {needs.memory / GB:.1f} GB of memory and {available / GB:.1f} GB "
            f"are free: {needs.less_memory}"
        )
    folder = directory or tempfile.gettempdir()
    free = shutil.disk_usage(folder).free
    if needs.disk > free:
        raise CapacityExceeded(
            f"{needs.what} need {needs.disk / GB:.1f} GB of disk and {folder} has "
            f"{free / GB:.1f} GB free: {needs.less_disk}"
        )


def even_parts(total: int, parts: int) -> list[range]:
    """Cut `range(total)` into `parts` ranges as equal as can be, one behind the other."""
    bounds = [total * i // parts for i in range(parts + 1)]
    return [range(bounds[i], bounds[i + 1]) for i in range(parts)]
