"""Which committed blocks of a partition have come, and what they add up to.

`BlockCount` works on bytes and decides nothing: it checks blocks, drops those of other attempts and
those that it has seen, adds up the rest, and decodes what is wanted. The native part has the same
calls (`native/mechanics/src/merging.rs`), which do the same with the interpreter's lock given up;
`cosco.client.read.state.merge` chooses.
"""

from __future__ import annotations

from array import array
from typing import Final, NamedTuple, Protocol

from pyroaring import BitMap

from cosco.errors import DataCorrupted
from cosco.format.block import (
    HEADER_BYTES,
    BlockHeader,
    check_block,
    decode_content,
    parse_header,
)
from cosco.format.intervals import IntervalSet
from cosco.protocol.records import MASK64

#: A block that was found: where it begins in its run, its mapper, its rows, its flags and its
#: content. Only of blocks that were not seen before, of mappers whose rows are wanted.
Found = tuple[int, int, int, int, bytes]


class Attempts:
    """Whose blocks count, and whose rows are wanted."""

    def __init__(self, mappers: bytes, attempts: bytes, named: bytes) -> None:
        """Take arrays of integers in memory's order.

        mappers: of 32 bits, with their committed attempts, of 64; of a mapper that is there twice
        the last one counts. named: mappers whose rows are wanted, of 32 bits.
        """
        numbers = memoryview(mappers).cast("I"), memoryview(attempts).cast("Q")
        self.committed: Final[dict[int, int]] = dict(zip(*numbers, strict=True))
        self.named: Final = BitMap(array("I", named))


class _Sums(NamedTuple):
    rows: int
    row_bytes: int
    digest: int


_NOTHING: Final = _Sums(0, 0, 0)


class BlockCount:
    """The distinct committed blocks of one partition that have come.

    Memory: per mapper a set of intervals that is one interval once all its blocks were seen.
    """

    def __init__(self, exchange: int, partition: int, attempts: Attempts) -> None:
        """Begin without blocks."""
        self._exchange = exchange
        self._partition = partition
        self._attempts = attempts
        self._seen: dict[int, IntervalSet] = {}
        self._bare_seen: dict[int, IntervalSet] = {}
        self._bare = _NOTHING
        #: What the distinct committed blocks add up to so far; `digest` modulo 2^64.
        self.rows = 0
        self.row_bytes = 0
        self.digest = 0

    @property
    def intervals(self) -> int:
        """How many intervals are kept of blocks that have come whole."""
        return sum(map(len, self._seen.values()))

    def feed(self, data: memoryview, offset: int, most: int) -> tuple[int, list[Found], list[str]]:
        """Take blocks of a run from `offset` on until their contents have `most` bytes or more.

        A block that fails its checks counts as absent. When its length cannot be trusted (its CRC
        fails) the rest of `data` is skipped with it.

        Returns: where the next call is to begin, what was found, and why blocks were refused.
        """
        found: list[Found] = []
        bad: list[str] = []
        headers, end, damage = _step(data, offset, most)
        for start, header in headers:
            try:
                check_block(data, start, header)
            except DataCorrupted as error:
                return len(data), found, [*bad, str(error)]
            try:
                content = self._accept(
                    header, data[start + HEADER_BYTES : start + header.block_bytes]
                )
            except DataCorrupted as error:
                bad.append(str(error))
                continue
            if content is not None:
                found.append((start, header.mapper, header.rows, header.flags, content))
        return end, found, bad + damage

    def feed_headers(self, data: memoryview) -> list[str]:
        """Add up headers of blocks that nobody named, until `forget_headers`.

        Returns: why some were refused.
        """
        bad = []
        for offset in range(0, len(data), HEADER_BYTES):
            try:
                self._accept_bare(parse_header(data, offset))
            except DataCorrupted as error:
                bad.append(str(error))
        return bad

    def forget_headers(self) -> None:
        """Take back what headers have added up."""
        bare, self._bare = self._bare, _NOTHING
        self._bare_seen.clear()
        self.rows -= bare.rows
        self.row_bytes -= bare.row_bytes
        self.digest = (self.digest - bare.digest) & MASK64

    def _accept(self, header: BlockHeader, stored: memoryview) -> bytes | None:
        """Count a block whose CRC matched.

        Returns: its content, if it is wanted.
        """
        if not self._is_new(header):
            return None
        content = None
        if header.mapper in self._attempts.named:
            content = decode_content(header, stored)
        self._count(self._seen, header)
        return content

    def _accept_bare(self, header: BlockHeader) -> None:
        if header.mapper in self._attempts.named:
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
        if self._attempts.committed.get(header.mapper) != header.attempt:
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


class Counts(Protocol):
    """A `BlockCount`, whoever made it."""

    @property
    def rows(self) -> int: ...

    @property
    def row_bytes(self) -> int: ...

    @property
    def digest(self) -> int: ...

    @property
    def intervals(self) -> int: ...

    def feed(
        self, data: memoryview, offset: int, most: int
    ) -> tuple[int, list[Found], list[str]]: ...

    def feed_headers(self, data: memoryview) -> list[str]: ...

    def forget_headers(self) -> None: ...


def _step(
    data: memoryview, offset: int, most: int
) -> tuple[list[tuple[int, BlockHeader]], int, list[str]]:
    """Return the blocks that `BlockCount.feed` takes at once, where they end, and what is wrong."""
    headers: list[tuple[int, BlockHeader]] = []
    content_bytes = 0
    while offset < len(data) and content_bytes < most:
        try:
            header = parse_header(data, offset)
        except DataCorrupted as error:
            return headers, len(data), [str(error)]
        headers.append((offset, header))
        content_bytes += header.raw_bytes
        offset += header.block_bytes
    return headers, offset, []
