"""What a reader makes of a partition's blocks, from any copies and in any order.

`BlockSplitter` turns the pieces of a fetch into runs of whole blocks, and `PartitionMerge`
turns those into each committed row once, with the proof: the rows, row bytes and digests of
the distinct committed blocks must add up to the sums of the reader's snapshot.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

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

#: How many reasons are kept for the message of an error; the rest is only counted.
MAX_REASONS: Final = 16


@dataclass(slots=True)
class _LongRow:
    """The fragments of one row that have arrived, by number."""

    parts: dict[int, bytes] = field(default_factory=dict)
    last: int | None = None


class PartitionMerge:
    """One partition's rows, exactly once.

    Blocks of attempts that did not commit are skipped and blocks that were seen are dropped,
    so any number of copies of any chunks may be fed, until `complete` says that nothing is
    missing. Memory: the decoded fragments of rows that are not complete, and per mapper a set
    of intervals that is one interval once all its blocks were seen.
    """

    def __init__(
        self, snapshot: ReadSnapshot, *, exchange: int, partition: int, named: BitMap
    ) -> None:
        """Begin without blocks.

        named: the mappers whose rows are yielded; those of others are only added up.
        """
        self._snapshot = snapshot
        self._exchange = exchange
        self._partition = partition
        self._named = named
        self._attempts: dict[int, int] = dict(
            zip(snapshot.mappers.tolist(), snapshot.attempts.tolist(), strict=True)
        )
        self._seen: dict[int, IntervalSet] = {}
        self._long_rows: dict[tuple[int, int], _LongRow] = {}
        #: Reasons why blocks were refused, the first MAX_REASONS of `refusals`.
        self.bad: list[str] = []
        self.refusals = 0
        #: What the distinct committed blocks add up to so far; `digest` modulo 2^64.
        self.rows = 0
        self.row_bytes = 0
        self.digest = 0

    def feed(self, data: memoryview) -> Iterator[Decoded]:
        """Read one run of whole blocks, and yield the rows of the named mappers in it.

        A block that fails its checks is recorded in `bad` and counts as absent. When its
        length cannot be trusted (its CRC fails) the rest of `data` is skipped with it. Each
        block is counted when the iterator comes to it, before its rows are yielded.
        """
        offset, end = 0, len(data)
        while offset < end:
            try:
                header = parse_header(data, offset)
                check_block(data, offset, header)
            except DataCorrupted as error:
                self.refuse(str(error))
                return
            start = offset + HEADER_BYTES
            offset += header.block_bytes
            try:
                decoded = self._accept(header, data[start:offset])
            except DataCorrupted as error:
                self.refuse(str(error))
                continue
            if decoded is not None:
                yield decoded

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

    def _accept(self, header: BlockHeader, stored: memoryview) -> Decoded | None:
        """Count a block whose CRC matched.

        Returns: its rows if they are wanted and whole.
        """
        if header.exchange != self._exchange or header.partition != self._partition:
            raise DataCorrupted(
                f"a block of exchange {header.exchange}, partition {header.partition} lies among "
                f"those of exchange {self._exchange}, partition {self._partition}"
            )
        mapper = header.mapper
        if self._attempts.get(mapper) != header.attempt:
            return None
        seen = self._seen.get(mapper)
        if seen is None:
            seen = self._seen[mapper] = IntervalSet()
        elif seen.covers(header.position, header.end):
            return None
        elif seen.overlaps(header.position, header.end):
            raise DataCorrupted(
                f"a block of mapper {mapper}, partition {self._partition}, row "
                f"{header.first_row} overlaps another one"
            )
        decoded = None
        if mapper in self._named:
            content = decode_content(header, stored)
            if header.is_fragment:
                decoded = self._join(header, content)
            else:
                lengths = bool(header.flags & FLAG_LENGTHS)
                decoded = Decoded(mapper, header.rows, content, lengths)
        seen.add(header.position, header.end)
        self.rows += header.rows
        self.row_bytes += header.row_bytes
        self.digest = (self.digest + header.digest) & MASK64
        return decoded

    def _join(self, header: BlockHeader, content: bytes) -> Decoded | None:
        """Keep a fragment.

        Returns: the row, once no fragment of it is missing.
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
        whole = b"".join(row.parts[i] for i in range(row.last + 1))
        return Decoded(header.mapper, 1, whole, lengths=False)


class BlockSplitter:
    """Cuts a stream of blocks that arrives in arbitrary pieces into runs of whole blocks.

    Keeps a copy of the beginning of a block that is not whole yet. After it raised it is of no
    more use.
    """

    def __init__(self) -> None:
        self._partial = bytearray()  # shorter than its block
        self._block_bytes = 0  # of the whole block; 0 while its header is cut

    def feed(self, piece: memoryview) -> list[memoryview]:
        """Return the blocks that `piece` completes, as runs.

        Runs lie in `piece` itself, except for a block that began in an earlier one.

        Raises: DataCorrupted.
        """
        runs: list[memoryview] = []
        start = 0
        if self._partial:
            start = self._fill(piece)
            if len(self._partial) != self._block_bytes:
                return runs
            runs.append(memoryview(self._partial))
            self._partial, self._block_bytes = bytearray(), 0
        offset, end = start, len(piece)
        while end - offset >= HEADER_BYTES:
            block_bytes = parse_header(piece, offset).block_bytes
            if offset + block_bytes > end:
                self._block_bytes = block_bytes
                break
            offset += block_bytes
        if offset > start:
            runs.append(piece[start:offset])
        self._partial += piece[offset:]
        return runs

    def finish(self) -> None:
        """Raise DataCorrupted if the stream ended inside a block."""
        if self._partial:
            raise DataCorrupted(f"blocks are cut short: {len(self._partial)} bytes of one are left")

    def _fill(self, piece: memoryview) -> int:
        """Add what `piece` has of the partial block.

        Returns: where that ends in `piece`.
        """
        offset = 0
        if not self._block_bytes:
            offset = HEADER_BYTES - len(self._partial)
            self._partial += piece[:offset]
            if len(self._partial) < HEADER_BYTES:
                return len(piece)
            self._block_bytes = parse_header(self._partial).block_bytes
        end = offset + self._block_bytes - len(self._partial)
        self._partial += piece[offset:end]
        return min(end, len(piece))
