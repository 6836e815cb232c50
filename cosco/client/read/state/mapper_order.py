"""The rows of a partition by (mapper, row_id), made of its blocks when all of them are there.

Blocks come in any order and know whose they are and where they begin, so nothing else is needed.
They are held as they came, compressed. Those that were decoded for their digest first stay decoded,
up to a constant: most partitions are shorter, and need not be decoded twice.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from operator import itemgetter
from typing import Final

from cosco.client.content import Decoded
from cosco.client.read.state.merge import CheckedBlock
from cosco.errors import CapacityExceeded
from cosco.format.block import FLAG_LENGTHS, HEADER_BYTES, decode_content, parse_header

#: What a block takes beside its bytes while it is held.
HELD_BLOCK_BYTES: Final = 256
#: How much is kept decoded.
DECODED_BYTES: Final = 32 << 20
#: Positions are shorter than this many bits.
_POSITION_BITS: Final = 64


class MapperOrder:
    """Holds the blocks of one partition, each given once, and gives their rows in order.

    Memory: at most `max_held_bytes`, and DECODED_BYTES.
    """

    def __init__(self, max_held_bytes: int) -> None:
        """Begin without blocks."""
        self._max_held_bytes = max_held_bytes
        self._held_bytes = 0
        self._decoded_bytes = 0
        # By mapper and position, as one number: the rows, or the block.
        self._blocks: list[tuple[int, Decoded | bytes]] = []

    def add(self, block: CheckedBlock) -> None:
        """Hold a block.

        Raises: CapacityExceeded.
        """
        header = block.header
        self._held_bytes += header.block_bytes + HELD_BLOCK_BYTES
        if self._held_bytes > self._max_held_bytes:
            raise CapacityExceeded(
                "the blocks that must be held to put its rows in the order of their mappers are "
                f"more than max_held_bytes, {self._max_held_bytes} bytes: give more, shuffle to "
                "more partitions, or read without an order"
            )
        held: Decoded | bytes
        if self._decoded_bytes + header.raw_bytes <= DECODED_BYTES:
            self._decoded_bytes += header.raw_bytes
            lengths = bool(header.flags & FLAG_LENGTHS)
            held = Decoded(header.mapper, header.rows, block.content, lengths)
        else:
            held = bytes(block.whole)
        self._blocks.append((header.mapper << _POSITION_BITS | header.position, held))

    def rows(self) -> Iterator[Decoded]:
        """Yield the rows by (mapper, row_id), once all blocks were added, and keep nothing.

        Raises: DataCorrupted.
        """
        self._blocks.sort(key=itemgetter(0))
        blocks, self._blocks = deque(self._blocks), []
        fragments: list[bytes | memoryview] = []
        while blocks:
            held = blocks.popleft()[1]
            rows = _decoded(held) if isinstance(held, bytes) else held
            if not rows.rows:  # a fragment that others follow
                fragments.append(rows.content)
            elif fragments:
                fragments.append(rows.content)
                yield Decoded(rows.mapper, 1, b"".join(fragments), lengths=False)
                fragments.clear()
            else:
                yield rows


def _decoded(block: bytes) -> Decoded:
    """Return the rows of a block; of a fragment that is not the last one of its row, no row."""
    header = parse_header(block)
    content = decode_content(header, memoryview(block)[HEADER_BYTES:])
    lengths = bool(header.flags & FLAG_LENGTHS)
    return Decoded(header.mapper, header.rows, content, lengths)
