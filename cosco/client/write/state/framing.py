"""Blocks and frames of one attempt, their sums, and when a buffer is full.

What packers of both kinds of rows share; see `cosco.client.write.state.packing`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from array import array
from bisect import bisect_right
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, NotRequired, TypedDict, TypeVar

import numpy as np
import numpy.typing as npt

from cosco.client.content.byte_rows import MAX_ROW_BYTES
from cosco.client.write.state.batch_arguments import BATCH_ROW_OVERHEAD, Partitions, partition_array
from cosco.errors import CoscoError
from cosco.format.block import HEADER_BYTES, LENGTH_BYTES, MAX_CONTENT_BYTES, Buffer, encode_block
from cosco.format.frame import TARGET_FRAME_BYTES
from cosco.protocol.mark import Mark, encode_mark
from cosco.protocol.records import MASK64, AttemptSums, PartitionRange

#: Buffers are kept below this, so that offsets of 32 bits reach everywhere in them.
MAX_BUFFER_BYTES: Final = 1 << 30

_Batch = TypeVar("_Batch")


@dataclass(frozen=True, slots=True)
class PackedFrame:
    """A frame without its header: `blocks` blocks of one partition range.

    parts: header, stored bytes, header, stored bytes, …; body_bytes: their length.
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

    def __init__(
        self,
        *,
        exchange: int,
        mapper: int,
        attempt: int,
        ranges: Sequence[PartitionRange],
        codec: int,
        wanted: Collection[int] | None = None,
    ) -> None:
        """ranges: cover all partitions; wanted: indexes of those whose rows are, None: all."""
        self._exchange = exchange
        self._mapper = mapper
        self._attempt = attempt
        self._codec = codec
        self._ranges = sorted(ranges, key=lambda r: r.first)
        self.partitions = self._ranges[-1].first + self._ranges[-1].count
        #: Which partitions' rows are wanted; None: all.
        self.wanted: npt.NDArray[np.bool_] | None = None
        if wanted is not None:
            self.wanted = np.zeros(self.partitions, np.bool_)
            for one in self._ranges:
                self.wanted[one.first : one.first + one.count] = one.index in wanted
        # Per partition. `array` reads and writes single items faster than numpy, and smaller
        # than a list.
        zeros = bytes(8 * self.partitions)
        self._rows, self._row_bytes, self._stored_bytes, self._digests = (
            array("Q", zeros) for _ in range(4)
        )
        self._range_index = 0
        self._range_first = self._range_end = 0
        #: Ranges whose last frame is still to come, while frames end with marks.
        self._unmarked: dict[int, PartitionRange] = {}
        self._has_mark = False  # the open frame
        self._parts: list[bytes] = []
        self._body_bytes = 0
        self.rows = 0
        self.row_bytes = 0

    def add(
        self,
        partition: int,
        rows: int,
        content: Buffer,
        *,
        lengths: bool = False,
        fragment: int | None = None,
        last: bool = False,
    ) -> PackedFrame | None:
        """Make a block of the next rows of `partition`; the frame it did not go into, if any.

        Arguments are those of `blocks.encode_block`.
        """
        frame = None
        if not self._range_first <= partition < self._range_end:
            self._mark_open()
            frame = self.finish()
            self._enter_range(partition)
        elif self._body_bytes >= TARGET_FRAME_BYTES:
            frame = self.finish()
        header, stored, digest = encode_block(
            exchange=self._exchange,
            partition=partition,
            mapper=self._mapper,
            attempt=self._attempt,
            first_row=self._rows[partition],
            rows=rows,
            content=content,
            codec=self._codec,
            lengths=lengths,
            fragment=fragment,
            last=last,
        )
        self._parts += (header, stored)
        block_bytes = HEADER_BYTES + len(stored)
        self._body_bytes += block_bytes
        row_bytes = len(content) - (LENGTH_BYTES * rows if lengths else 0)
        self._rows[partition] += rows
        self._row_bytes[partition] += row_bytes
        self._stored_bytes[partition] += block_bytes
        self._digests[partition] = (self._digests[partition] + digest) & MASK64
        self.rows += rows
        self.row_bytes += row_bytes
        return frame

    def add_long_row(self, partition: int, content: memoryview) -> Iterator[PackedFrame]:
        """Cut the content of one row into fragments, a block each; raises CoscoError.

        Only a row of more than MAX_ROW_BYTES is refused, and as late as here: it is not worth
        a look at every row's length before.
        """
        if len(content) > MAX_ROW_BYTES:
            raise CoscoError(
                f"a row of {len(content)} bytes for partition {partition}, the limit is "
                f"{MAX_ROW_BYTES}: cut it in two"
            )
        cuts = range(0, len(content), MAX_CONTENT_BYTES)
        for number, start in enumerate(cuts):
            last = number == len(cuts) - 1
            part = content[start : start + MAX_CONTENT_BYTES]
            frame = self.add(partition, int(last), part, fragment=number, last=last)
            if frame is not None:
                yield frame

    def finish(self) -> PackedFrame | None:
        """The open frame, if it has any blocks."""
        parts, body_bytes = self._parts, self._body_bytes
        if not parts:
            return None
        self._parts, self._body_bytes = [], 0
        has_mark, self._has_mark = self._has_mark, False
        return PackedFrame(self._range_index, len(parts) // 2, parts, body_bytes, has_mark)

    def begin_marks(self) -> None:
        """From now on end the last frame of each range with its mark: partitions must come in
        order, and all that is to come of a range together."""
        self._unmarked = {one.index: one for one in self._ranges}

    def end(self) -> Iterator[PackedFrame]:
        """The open frame, and one for each range whose mark has no other."""
        self._mark_open()
        frame = self.finish()
        if frame is not None:
            yield frame
        for part in list(self._unmarked.values()):
            self._range_index = part.index
            self._add_mark(part)
            frame = self.finish()
            assert frame is not None
            yield frame

    def _mark_open(self) -> None:
        """Add the mark of its range to the open frame, unless that is full."""
        if self._parts and self._body_bytes < TARGET_FRAME_BYTES:
            part = self._unmarked.get(self._range_index)
            if part is not None:
                self._add_mark(part)

    def _add_mark(self, part: PartitionRange) -> None:
        del self._unmarked[part.index]
        end = part.first + part.count
        sums = [of[part.first : end] for of in (self._rows, self._row_bytes, self._digests)]
        mark = Mark(self._mapper, self._attempt, np.array(sums, np.uint64))
        parts = encode_mark(mark, self._exchange, part)
        self._parts += parts
        self._body_bytes += sum(map(len, parts))
        self._has_mark = True

    def sums(self) -> AttemptSums:
        """What all blocks made so far add up to."""
        stored = np.array(self._stored_bytes, np.uint64)
        partitions = np.flatnonzero(stored)
        return AttemptSums(
            partitions.astype(np.uint32),
            np.array(self._rows, np.uint64)[partitions],
            np.array(self._row_bytes, np.uint64)[partitions],
            stored[partitions],
            np.array(self._digests, np.uint64)[partitions],
        )

    def _enter_range(self, partition: int) -> None:
        found = self._ranges[bisect_right(self._ranges, partition, key=lambda r: r.first) - 1]
        self._range_index = found.index
        self._range_first, self._range_end = found.first, found.first + found.count


class PackerArguments(TypedDict):
    """What every packer is made with; see `Packer`."""

    exchange: int
    mapper: int
    attempt: int
    ranges: Sequence[PartitionRange]
    codec: int
    buffer_bytes: int
    shuffle_id: NotRequired[str]
    wanted: NotRequired[Collection[int] | None]


class Packer(ABC, Generic[_Batch]):
    """What packers of both kinds share: the frames, and when the buffer is full."""

    def __init__(
        self,
        *,
        exchange: int,
        mapper: int,
        attempt: int,
        ranges: Sequence[PartitionRange],
        codec: int,
        buffer_bytes: int,
        shuffle_id: str = "",
        wanted: Collection[int] | None = None,
    ) -> None:
        """Begin with an empty buffer and row 0 of every partition.

        ranges: cover all partitions; codec: one of the values of `blocks.CODECS`;
        shuffle_id: for the messages of errors; wanted: indexes of the ranges whose rows are
        wanted, None for all: rows of others are checked and dropped.
        """
        self._frames = FrameBuilder(
            exchange=exchange,
            mapper=mapper,
            attempt=attempt,
            ranges=ranges,
            codec=codec,
            wanted=wanted,
        )
        self._shuffle_id = shuffle_id
        self._limit = min(buffer_bytes, MAX_BUFFER_BYTES)
        #: Memory that buffered rows take, overhead included.
        self.buffered_bytes = 0

    @property
    def rows(self) -> int:
        """Rows in all blocks made so far."""
        return self._frames.rows

    @property
    def row_bytes(self) -> int:
        """Their length before compression, as AttemptSums counts it."""
        return self._frames.row_bytes

    def sums(self) -> AttemptSums:
        """What all blocks made so far add up to."""
        return self._frames.sums()

    def drain(self, *, marks: bool = False) -> Iterator[PackedFrame]:
        """Everything that was taken, in frames. marks: each range's last one ends with its mark,
        and nothing comes after that."""
        if marks:
            self._frames.begin_marks()
        yield from self._empty()

    @abstractmethod
    def _pack_buffered(self) -> Iterator[PackedFrame]:
        """Empty the buffer: make the blocks of all that is in it."""

    @abstractmethod
    def _append(self, numbers: Partitions, batch: _Batch) -> None:
        """Copy rows to the end of the buffer."""

    def _take(self, numbers: Partitions, batch: _Batch, batch_bytes: int) -> Iterator[PackedFrame]:
        """Buffer or pack rows, at most about a buffer full of them."""
        cost = batch_bytes + BATCH_ROW_OVERHEAD * len(numbers)
        if self.buffered_bytes + cost > self._limit:
            yield from self._empty()
        self._append(numbers, batch)
        if self._room() == self._limit:
            yield from self._empty()

    def _room(self) -> int:
        """How much to take next: what fills the buffer or, if that is little, a buffer full."""
        room = self._limit - self.buffered_bytes
        return room if room > self._limit // 8 else self._limit

    def _empty(self) -> Iterator[PackedFrame]:
        """Everything that is buffered, in frames."""
        yield from self._pack_buffered()
        yield from self._frames.end()

    def _partitions(self, partitions: Any, rows: int) -> Partitions:
        return partition_array(
            partitions,
            rows=rows,
            partitions=self._frames.partitions,
            shuffle_id=self._shuffle_id,
        )
