"""Which implementation of a daemon's mechanics there is: chosen here, and nowhere else in it.

Both have the same calls and the same outcome, and no object of one is given to the other one's
calls. See docs/architecture/native.md.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Final

from cosco import mechanics
from cosco.shuffle_service.state.buffers.dedupe import DedupeIndex
from cosco.shuffle_service.state.buffers.frame_append import Appended, append_frame
from cosco.shuffle_service.state.buffers.frame_check import CheckedFrame, check_frame
from cosco.shuffle_service.state.buffers.partition_buffer import (
    Chunk,
    Layout,
    PartitionBuffer,
    end_flush,
    lay_out,
)
from cosco.shuffle_service.state.buffers.pool import PagePool
from cosco.shuffle_service.state.buffers.section_rows import SectionRows


@dataclass(frozen=True, slots=True)
class Mechanics:
    """What takes frames to pages and pages to segments, and counts rows on their way to readers.

    Each field is named after its twin.
    """

    check_frame: Callable[..., CheckedFrame]
    append_frame: Callable[..., Appended]
    lay_out: Callable[..., Layout]
    end_flush: Callable[..., list[PartitionBuffer]]
    page_pool: type[PagePool]
    dedupe_index: type[DedupeIndex]
    partition_buffer: type[PartitionBuffer]
    chunk: type[Chunk]
    section_rows: type[SectionRows]


def _of_native(native: ModuleType) -> Mechanics:
    """Return the calls of the native part. For who checks types they are those of their twins."""
    return Mechanics(
        check_frame=native.check_frame,
        append_frame=native.append_frame,
        lay_out=native.lay_out,
        end_flush=native.end_flush,
        page_pool=native.PagePool,
        dedupe_index=native.DedupeIndex,
        partition_buffer=native.PartitionBuffer,
        chunk=native.Chunk,
        section_rows=native.SectionRows,
    )


PORTABLE: Final = Mechanics(
    check_frame=check_frame,
    append_frame=append_frame,
    lay_out=lay_out,
    end_flush=end_flush,
    page_pool=PagePool,
    dedupe_index=DedupeIndex,
    partition_buffer=PartitionBuffer,
    chunk=Chunk,
    section_rows=SectionRows,
)
#: None: there is no native part here, or it is not to be used.
NATIVE: Final = None if mechanics.NATIVE is None else _of_native(mechanics.NATIVE)
#: What this process uses.
CHOSEN = NATIVE or PORTABLE
