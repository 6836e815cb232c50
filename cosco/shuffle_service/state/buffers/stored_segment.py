"""What a daemon keeps in memory of a segment that is in the store."""

from __future__ import annotations

from dataclasses import dataclass

from cosco.format.segment import SegmentId


@dataclass(frozen=True, slots=True)
class StoredSegment:
    """A segment that is durable, and the first and the last partition that it holds."""

    id: SegmentId
    path: str
    size_bytes: int
    first: int
    last: int
