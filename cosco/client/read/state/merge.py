"""What a reader makes of a partition's blocks, from any copies and in any order.

A `BlockMerge` takes each committed block once, with the proof: the rows, row bytes and digests of
the distinct committed blocks must add up to the sums of the reader's snapshot. `PartitionMerge`
makes rows of them at once, `StoredMerge` leaves them as they are. A `BlockCount` checks and counts
the blocks; the native part has it as well.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final, Generic, NamedTuple, TypeVar

from pyroaring import BitMap

from cosco.client.content import Decoded
from cosco.client.read.state import block_count
from cosco.client.read.state.block_count import Counts, Found
from cosco.errors import CoscoError, DataCorrupted, DataLost
from cosco.format.block import (
    FLAG_FRAGMENT,
    FLAG_LAST,
    FLAG_LENGTHS,
    MAX_FRAGMENTS,
    BlockHeader,
    parse_header,
)
from cosco.mechanics import NATIVE
from cosco.protocol.records import MASK64, ReadSnapshot

_T = TypeVar("_T")

#: How many reasons are kept for the message of an error; the rest is only counted.
MAX_REASONS: Final = 16
#: How much content is decoded at once. What was decoded is made rows of while it is in the cache.
STEP_BYTES: Final = 1 << 20

#: Has `Attempts` and `BlockCount`.
COUNTING: Any = block_count if NATIVE is None else NATIVE


class Attempts:
    """Whose blocks count in a snapshot. Partitions of one range may share it."""

    def __init__(self, snapshot: ReadSnapshot, named: BitMap) -> None:
        """Begin. named: the mappers whose blocks are wanted."""
        self.counted: Final = COUNTING.Attempts(
            snapshot.mappers.tobytes(), snapshot.attempts.tobytes(), named.to_array().tobytes()
        )
        self.to_name: Final = mappers_to_name(snapshot, named)


def mappers_to_name(snapshot: ReadSnapshot, named: BitMap) -> BitMap:
    """Return the mappers that a fetch is to name: those wanted, or nobody if no others wrote."""
    wrote = BitMap(array("I", snapshot.mappers.tobytes()))
    return BitMap() if wrote.issubset(named) else named


class BareHeaders(NamedTuple):
    """Headers of whole blocks, one behind the other, that came without what the blocks store."""

    data: memoryview


class CheckedBlock(NamedTuple):
    """A committed block of a named mapper, whose checksum and digest are right."""

    header: BlockHeader
    content: bytes
    #: All of it, header included, as long as the message that it came in is there.
    whole: memoryview


@dataclass(slots=True)
class _LongRow:
    """The fragments of one row that have arrived, by number."""

    parts: dict[int, bytes] = field(default_factory=dict)
    last: int | None = None


class BlockMerge(ABC, Generic[_T]):
    """One partition's committed blocks, exactly once.

    Blocks of attempts that did not commit are skipped and blocks that were seen are dropped,
    so any number of copies of any chunks may be fed, until `complete` says that nothing is
    missing. Memory: that of a `BlockCount`, and what is decoded at once.
    """

    def __init__(
        self,
        snapshot: ReadSnapshot,
        *,
        exchange: int,
        partition: int,
        named: BitMap,
        attempts: Attempts | None = None,
    ) -> None:
        """Begin without blocks.

        named: the mappers whose blocks are yielded; those of others are only added up. attempts:
        those of the snapshot, if another partition of its range has them already.
        """
        self._snapshot = snapshot
        self._named = named
        attempts = attempts or Attempts(snapshot, named)
        #: The mappers that a fetch is to name; nobody, if all blocks are wanted.
        self.to_name: Final = attempts.to_name
        #: What has come so far.
        self.count: Final[Counts] = COUNTING.BlockCount(exchange, partition, attempts.counted)
        self._long_rows: dict[tuple[int, int], _LongRow] = {}
        #: Reasons why blocks were refused, the first MAX_REASONS of `refusals`.
        self.bad: list[str] = []
        self.refusals = 0

    def feed(self, data: memoryview) -> Iterator[_T]:
        """Read one run of whole blocks, and yield what is made of the named mappers' in it.

        A block that fails its checks is recorded in `bad` and counts as absent. When its
        length cannot be trusted (its CRC fails) the rest of `data` is skipped with it. Blocks
        are counted some at a time, before any of them is yielded: whoever does not take all that
        is yielded may not ask whether this is complete.
        """
        offset = 0
        while offset < len(data):
            offset, found, bad = self.count.feed(data, offset, STEP_BYTES)
            for reason in bad:
                self.refuse(reason)
            yield from self._make(found, data)

    def feed_headers(self, bare: BareHeaders) -> None:
        """Add up headers of blocks that nobody named, until `forget_headers`.

        They have no checksum of their own. What is wrong with one is recorded in `bad`, or shows
        in the sums.
        """
        for reason in self.count.feed_headers(bare.data):
            self.refuse(reason)

    def forget_headers(self) -> None:
        """Take back what headers have added up: their blocks are fed whole from here on."""
        self.count.forget_headers()

    def refuse(self, reason: str) -> None:
        """Record why something that was to be fed is bad, and so absent."""
        self.refusals += 1
        if len(self.bad) < MAX_REASONS:
            self.bad.append(reason)

    def complete(self) -> bool:
        """Whether everything committed was seen, as the sums are the snapshot's."""
        count, expected = self.count, self._snapshot
        return (
            count.rows == expected.rows
            and count.row_bytes == expected.raw_bytes
            and count.digest == expected.digest & MASK64
            and not self._long_rows
        )

    def failure(self) -> CoscoError:
        """Say what is wrong while this is not `complete`.

        Returns: DataCorrupted if blocks failed their checks or those that passed contradict the
        committed sums, DataLost if blocks are only missing; its `mappers` are all that wrote to
        the partition's range.
        """
        rows, row_bytes = self.count.rows, self.count.row_bytes
        expected = self._snapshot
        message = (
            f"found {rows} of {expected.rows} committed rows "
            f"({row_bytes} of {expected.raw_bytes} bytes)"
        )
        # Fewer of both is what missing blocks look like; no missing block explains the rest.
        missing = row_bytes < expected.raw_bytes or rows < expected.rows
        contradiction = row_bytes > expected.raw_bytes or rows > expected.rows
        if self.bad:
            message += f"; {self.bad[0]}"
        elif contradiction or not missing:
            message += "; what was found contradicts the committed sums"
        else:
            message += "; run its mappers again"
        error = DataCorrupted if self.bad or contradiction or not missing else DataLost
        return error(message, mappers=expected.mappers.tolist())

    @abstractmethod
    def _make(self, found: list[Found], data: memoryview) -> Iterator[_T]:
        """Yield what is made of blocks that were not seen before. data: their run."""

    def _with_fragment(self, header: BlockHeader, content: bytes) -> list[bytes] | None:
        """Keep a fragment of a long row.

        Returns: all of them, in order, once none is missing.
        """
        key = header.mapper, header.first_row
        row = self._long_rows.setdefault(key, _LongRow())
        fragment = header.position & (MAX_FRAGMENTS - 1)
        row.parts[fragment] = content
        if header.flags & FLAG_LAST:
            row.last = fragment
        if row.last is None or len(row.parts) <= row.last:
            return None
        # The last fragment covers every later position, so there are exactly 0 .. last.
        del self._long_rows[key]
        return [row.parts[i] for i in range(row.last + 1)]


class PartitionMerge(BlockMerge[Decoded]):
    """One partition's rows, exactly once.

    Memory, besides: the decoded fragments of rows that are not complete.
    """

    def _make(self, found: list[Found], data: memoryview) -> Iterator[Decoded]:
        """See `BlockMerge`: their rows, those of fragments once they are all there."""
        for start, mapper, rows, flags, content in found:
            if not flags & FLAG_FRAGMENT:
                yield Decoded(mapper, rows, content, bool(flags & FLAG_LENGTHS))
                continue
            parts = self._with_fragment(parse_header(data, start), content)
            if parts is not None:
                yield Decoded(mapper, 1, b"".join(parts), lengths=False)


class StoredMerge(BlockMerge[CheckedBlock]):
    """One partition's blocks of the named mappers, fragments as they are, exactly once."""

    def _make(self, found: list[Found], data: memoryview) -> Iterator[CheckedBlock]:
        """See `BlockMerge`: the blocks."""
        for start, _, _, _, content in found:
            header = parse_header(data, start)
            if header.is_fragment:
                self._with_fragment(header, b"")  # so that it is known that none is missing
            yield CheckedBlock(header, content, data[start : start + header.block_bytes])
