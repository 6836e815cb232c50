"""The indexes of segments that are kept in memory: those asked for last, up to a bound. No IO."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from cosco.format.segment import SegmentIndex
from cosco.shuffle_service.state.buffers.stored_segment import StoredSegment


class KeptIndexes:
    """Indexes by the path and the length of their segment, of at most `bytes_max` together."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._kept: OrderedDict[tuple[str, int], SegmentIndex] = OrderedDict()
        self.used_bytes = 0

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, path: str, size_bytes: int) -> SegmentIndex | None:
        """Return one that is kept, which then goes last."""
        index = self._kept.get((path, size_bytes))
        if index is not None:
            self._kept.move_to_end((path, size_bytes))
        return index

    def put(self, path: str, size_bytes: int, index: SegmentIndex) -> None:
        """Keep one; others go that were not asked for lately."""
        self.forget(path, size_bytes)
        self._kept[path, size_bytes] = index
        self.used_bytes += index.cost_bytes
        while self.used_bytes > self._bytes_max:
            _, gone = self._kept.popitem(last=False)
            self.used_bytes -= gone.cost_bytes

    def forget(self, path: str, size_bytes: int) -> None:
        """Keep one no longer, if it is kept."""
        index = self._kept.pop((path, size_bytes), None)
        if index is not None:
            self.used_bytes -= index.cost_bytes

    def forget_all(self, segments: Iterable[StoredSegment]) -> None:
        """Keep the indexes of segments no longer that are not wanted any more."""
        for segment in segments:
            self.forget(segment.path, segment.size_bytes)
