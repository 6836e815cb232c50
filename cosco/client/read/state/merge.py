"""What a reader makes of a partition's blocks, from any copies and in any order.

A `BlockMerge` takes each committed block once, with the proof: the rows, row bytes and digests of
the distinct committed blocks must add up to the sums of the reader's snapshot. `PartitionMerge`
makes rows of them at once, `StoredMerge` leaves them as they are.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, Generic, NamedTuple, TypeVar

from pyroaring import BitMap

from cosco.client.content import Decoded
from cosco.errors import CoscoError, DataCorrupted, DataLost
from cosco.format.block import (
    FLAG_LAST,
    FLAG_LENGTHS,
    HEADER_BYTES,
    MAX_FRAGMENTS,
    BlockHeader,
    check_block,
    decode_content,
    parse_header,
)
from cosco.format.intervals import IntervalSet
from cosco.protocol.records import MASK64, ReadSnapshot

_T = TypeVar("_T")

#: How many reasons are kept for the message of an error; the rest is only counted.
MAX_REASONS: Final = 16


class Attempts:
    """Whose blocks count in a snapshot. Partitions of one range may share it."""

    def __init__(self, snapshot: ReadSnapshot, named: BitMap) -> None:
        """Begin. named: the mappers whose blocks are wanted."""
        #: The committed attempt of each mapper that wrote to the range.
        self.of: Final[dict[int, int]] = dict(
            zip(snapshot.mappers.tolist(), snapshot.attempts.tolist(), strict=True)
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


class _Sums(NamedTuple):
    rows: int
    row_bytes: int
    digest: int


_NOTHING: Final = _Sums(0, 0, 0)


@dataclass(slots=True)
class _LongRow:
    """The fragments of one row that have arrived, by number."""

    parts: dict[int, bytes] = field(default_factory=dict)
    last: int | None = None


class BlockMerge(ABC, Generic[_T]):
    """One partition's committed blocks, exactly once.

    Blocks of attempts that did not commit are skipped and blocks that were seen are dropped,
    so any number of copies of any chunks may be fed, until `complete` says that nothing is
    missing. Memory: per mapper a set of intervals that is one interval once all its blocks were
    seen.
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
        self._exchange = exchange
        self._partition = partition
        self._named = named
        attempts = attempts or Attempts(snapshot, named)
        self._attempts = attempts.of
        #: The mappers that a fetch is to name; nobody, if all blocks are wanted.
        self.to_name: Final = attempts.to_name
        self._seen: dict[int, IntervalSet] = {}
        self._bare_seen: dict[int, IntervalSet] = {}
        self._long_rows: dict[tuple[int, int], _LongRow] = {}
        #: Reasons why blocks were refused, the first MAX_REASONS of `refusals`.
        self.bad: list[str] = []
        self.refusals = 0
        #: What the distinct committed blocks add up to so far; `digest` modulo 2^64.
        self.rows = 0
        self.row_bytes = 0
        self.digest = 0
        self._bare = _NOTHING

    def feed(self, data: memoryview) -> Iterator[_T]:
        """Read one run of whole blocks, and yield what is made of the named mappers' in it.

        A block that fails its checks is recorded in `bad` and counts as absent. When its
        length cannot be trusted (its CRC fails) the rest of `data` is skipped with it. Each
        block is counted when the iterator comes to it, before it is yielded.
        """
        offset, end = 0, len(data)
        while offset < end:
            try:
                header = parse_header(data, offset)
                check_block(data, offset, header)
            except DataCorrupted as error:
                self.refuse(str(error))
                return
            start = offset
            offset += header.block_bytes
            try:
                made = self._accept(header, data[start:offset])
            except DataCorrupted as error:
                self.refuse(str(error))
                continue
            if made is not None:
                yield made

    def feed_headers(self, bare: BareHeaders) -> None:
        """Add up headers of blocks that nobody named, until `forget_headers`.

        They have no checksum of their own. What is wrong with one is recorded in `bad`, or shows
        in the sums.
        """
        for offset in range(0, len(bare.data), HEADER_BYTES):
            try:
                self._accept_bare(parse_header(bare.data, offset))
            except DataCorrupted as error:
                self.refuse(str(error))

    def forget_headers(self) -> None:
        """Take back what headers have added up: their blocks are fed whole from here on."""
        bare, self._bare = self._bare, _NOTHING
        self._bare_seen.clear()
        self.rows -= bare.rows
        self.row_bytes -= bare.row_bytes
        self.digest = (self.digest - bare.digest) & MASK64

    def refuse(self, reason: str) -> None:
        """Record why something that was to be fed is bad, and so absent."""
        self.refusals += 1
        if len(self.bad) < MAX_REASONS:
            self.bad.append(reason)

    def complete(self) -> bool:
        """Whether everything committed was seen, as the sums are the snapshot's."""
        return (
            self.rows == self._snapshot.rows
            and self.row_bytes == self._snapshot.raw_bytes
            and self.digest == self._snapshot.digest & MASK64
            and not self._long_rows
        )

    def failure(self) -> CoscoError:
        """Say what is wrong while this is not `complete`.

        Returns: DataCorrupted if blocks failed their checks or those that passed contradict the
        committed sums, DataLost if blocks are only missing; its `mappers` are all that wrote to
        the partition's range.
        """
        expected = self._snapshot
        message = (
            f"found {self.rows} of {expected.rows} committed rows "
            f"({self.row_bytes} of {expected.raw_bytes} bytes)"
        )
        # Fewer of both is what missing blocks look like; no missing block explains the rest.
        missing = self.row_bytes < expected.raw_bytes or self.rows < expected.rows
        contradiction = self.row_bytes > expected.raw_bytes or self.rows > expected.rows
        if self.bad:
            message += f"; {self.bad[0]}"
        elif contradiction or not missing:
            message += "; what was found contradicts the committed sums"
        else:
            message += "; run its mappers again"
        error = DataCorrupted if self.bad or contradiction or not missing else DataLost
        return error(message, mappers=expected.mappers.tolist())

    @abstractmethod
    def _make(self, header: BlockHeader, content: bytes, whole: memoryview) -> _T | None:
        """Return what is yielded of a block that was not seen before, if anything."""

    def _accept(self, header: BlockHeader, whole: memoryview) -> _T | None:
        """Count a block whose CRC matched.

        Returns: what is made of it, if it is wanted.
        """
        if not self._is_new(header):
            return None
        made = None
        if header.mapper in self._named:
            made = self._make(header, decode_content(header, whole[HEADER_BYTES:]), whole)
        self._count(self._seen, header)
        return made

    def _accept_bare(self, header: BlockHeader) -> None:
        if header.mapper in self._named:
            raise DataCorrupted(f"a block of mapper {header.mapper} came as its header alone")
        if self._is_new(header):
            self._count(self._bare_seen, header)
            rows, row_bytes, digest = self._bare
            self._bare = _Sums(
                rows + header.rows, row_bytes + header.row_bytes, digest + header.digest
            )

    def _is_new(self, header: BlockHeader) -> bool:
        """Whether a block is of a committed attempt, and was not seen.

        Raises: DataCorrupted.
        """
        if header.exchange != self._exchange or header.partition != self._partition:
            raise DataCorrupted(
                f"a block of exchange {header.exchange}, partition {header.partition} lies among "
                f"those of exchange {self._exchange}, partition {self._partition}"
            )
        if header.is_mark:
            raise DataCorrupted(f"a mark of mapper {header.mapper} lies among blocks")
        if self._attempts.get(header.mapper) != header.attempt:
            return False
        return self._is_unseen(self._seen, header) and (
            not self._bare_seen or self._is_unseen(self._bare_seen, header)
        )

    def _is_unseen(self, all_seen: dict[int, IntervalSet], header: BlockHeader) -> bool:
        seen = all_seen.get(header.mapper)
        if seen is None or not seen.overlaps(header.position, header.end):
            return True
        if seen.covers(header.position, header.end):
            return False
        raise DataCorrupted(
            f"a block of mapper {header.mapper}, partition {self._partition}, row "
            f"{header.first_row} overlaps another one"
        )

    def _count(self, all_seen: dict[int, IntervalSet], header: BlockHeader) -> None:
        seen = all_seen.get(header.mapper)
        if seen is None:
            seen = all_seen[header.mapper] = IntervalSet()
        seen.add(header.position, header.end)
        self.rows += header.rows
        self.row_bytes += header.row_bytes
        self.digest = (self.digest + header.digest) & MASK64

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

    def _make(self, header: BlockHeader, content: bytes, whole: memoryview) -> Decoded | None:
        """See `BlockMerge`: its rows, those of fragments once they are all there."""
        if header.is_fragment:
            parts = self._with_fragment(header, content)
            if parts is None:
                return None
            return Decoded(header.mapper, 1, b"".join(parts), lengths=False)
        return Decoded(
            header.mapper, header.rows, content, lengths=bool(header.flags & FLAG_LENGTHS)
        )


class StoredMerge(BlockMerge[CheckedBlock]):
    """One partition's blocks of the named mappers, fragments as they are, exactly once."""

    def _make(self, header: BlockHeader, content: bytes, whole: memoryview) -> CheckedBlock:
        """See `BlockMerge`: the block."""
        if header.is_fragment:
            self._with_fragment(header, b"")  # so that it is known that none is missing
        return CheckedBlock(header, content, whole)
