"""Blocks and frames of one attempt, and their sums; fed by `cosco.client.write.state.packing`."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cosco.client.content.byte_rows import MAX_ROW_BYTES
from cosco.client.write.state.batch_sorting import Batches
from cosco.client.write.state.packing_parts import block_writer
from cosco.client.write.state.sorting import Rows
from cosco.errors import CoscoError
from cosco.format.block import CODECS, MAX_CONTENT_BYTES, Buffer
from cosco.format.frame import TARGET_FRAME_BYTES
from cosco.protocol.records import AttemptSums, OpenedAttempt, PartitionRange


@dataclass(frozen=True, slots=True)
class PackedFrame:
    """A frame without its header: `blocks` blocks of one partition range.

    parts: the blocks one behind the other, in pieces; body_bytes: their length.
    has_mark: it ends with the mark of its range, and is the last one to it.
    """

    range_index: int
    blocks: int
    parts: list[bytes]
    body_bytes: int
    has_mark: bool = False


class FrameBuilder:
    """Makes blocks of one attempt, gathers them into frames, and keeps the attempt's sums.

    An attempt may be wanted for some ranges only: rows of others must not be added.
    """

    def __init__(self, opened: OpenedAttempt) -> None:
        info = opened.info
        self._ranges = sorted(info.ranges, key=lambda one: one.first)
        self.partitions = self._ranges[-1].first + self._ranges[-1].count
        #: Which partitions' rows are wanted; None: all.
        self.wanted: npt.NDArray[np.bool_] | None = None
        if opened.partial:
            self.wanted = np.zeros(self.partitions, np.bool_)
            for one in self._ranges:
                self.wanted[one.first : one.first + one.count] = one.index in opened.ranges
        self._writer = block_writer(
            info.number, opened.mapper, opened.attempt, CODECS[info.spec.codec], self.partitions
        )
        self._range_index = 0
        self._range_first = self._range_end = 0
        #: Ranges whose last frame is still to come, while frames end with marks.
        self._unmarked: dict[int, PartitionRange] = {}
        self._has_mark = False  # the open frame
        self._parts: list[bytes] = []
        self._blocks = self._body_bytes = 0

    def add(
        self,
        partition: int,
        rows: int,
        content: Buffer,
        *,
        fragment: int | None = None,
        last: bool = False,
    ) -> tuple[PackedFrame, ...]:
        """Make a block of the next rows of `partition`, with the arguments of `encode_block`.

        Returns: the frame that came to its end before this block, if one did.
        """
        ended = self._make_room(partition)
        self._take(self._writer.add(partition, rows, content, fragment=fragment, last=last), 1)
        return ended

    def add_sorted(self, rows: Rows | Batches) -> Iterator[PackedFrame]:
        """Make blocks of sorted rows, up to the end or to rows that may be too long for a block,
        and yield the frames that came to their ends."""
        while (partition := rows.partition()) is not None:
            ended = self._make_room(partition)
            room = TARGET_FRAME_BYTES - self._body_bytes
            parts, blocks = self._writer.fill(rows, self._range_end, room)
            self._take(parts, blocks)
            yield from ended
            if not blocks:
                return

    def add_long_row(self, partition: int, content: memoryview) -> Iterator[PackedFrame]:
        """Cut the content of one row into fragments, and make a block of each.

        Raises: CoscoError for a row of more than MAX_ROW_BYTES, as late as here: to look at the
        length of every row before is not worth it.
        """
        if len(content) > MAX_ROW_BYTES:
            raise CoscoError(
                f"a row of {len(content)} bytes for partition {partition}, the limit is "
                f"{MAX_ROW_BYTES}: cut it in two"
            )
        cuts = range(0, len(content), MAX_CONTENT_BYTES)
        for fragment, start in enumerate(cuts):
            last = fragment == len(cuts) - 1
            part = content[start : start + MAX_CONTENT_BYTES]
            yield from self.add(partition, int(last), part, fragment=fragment, last=last)

    def finish(self) -> tuple[PackedFrame, ...]:
        """End the open frame.

        Returns: the frame, if it has any blocks.
        """
        parts, blocks, body_bytes = self._parts, self._blocks, self._body_bytes
        if not blocks:
            return ()
        self._parts, self._blocks, self._body_bytes = [], 0, 0
        has_mark, self._has_mark = self._has_mark, False
        return (PackedFrame(self._range_index, blocks, parts, body_bytes, has_mark),)

    def begin_marks(self) -> None:
        """End the last frame of each range with its mark from now on.

        Partitions must come in order, and all that is to come of a range together.
        """
        self._unmarked = {one.index: one for one in self._ranges}

    def end(self) -> Iterator[PackedFrame]:
        """End the open frame, and make one for each range whose mark has no other."""
        self._mark_open()
        yield from self.finish()
        for partition_range in list(self._unmarked.values()):
            self._range_index = partition_range.index
            self._add_mark(partition_range)
            yield from self.finish()

    def _mark_open(self) -> None:
        """Add the mark of its range to the open frame, unless that is full."""
        if self._parts and self._body_bytes < TARGET_FRAME_BYTES:
            partition_range = self._unmarked.get(self._range_index)
            if partition_range is not None:
                self._add_mark(partition_range)

    def _add_mark(self, partition_range: PartitionRange) -> None:
        del self._unmarked[partition_range.index]
        self._take(self._writer.mark(partition_range), 1)
        self._has_mark = True

    def sums(self) -> AttemptSums:
        """Return what all blocks made so far add up to."""
        return self._writer.sums()

    def _make_room(self, partition: int) -> tuple[PackedFrame, ...]:
        """End the open frame if it is full, or of another range than that of `partition`.

        Returns: the frame, if it ended.
        """
        ended: tuple[PackedFrame, ...] = ()
        if not self._range_first <= partition < self._range_end:
            self._mark_open()
            ended = self.finish()
            self._enter_range(partition)
        elif self._body_bytes >= TARGET_FRAME_BYTES:
            ended = self.finish()
        return ended

    def _take(self, parts: Sequence[bytes], blocks: int) -> None:
        self._parts += parts
        self._blocks += blocks
        self._body_bytes += sum(map(len, parts))

    def _enter_range(self, partition: int) -> None:
        found = self._ranges[bisect_right(self._ranges, partition, key=lambda r: r.first) - 1]
        self._range_index = found.index
        self._range_first, self._range_end = found.first, found.first + found.count
