"""Cuts what a daemon sends into whole blocks, or whole headers, however it came."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from cosco.client.read.state.merge import BareHeaders
from cosco.errors import DataCorrupted
from cosco.format.block import HEADER_BYTES, parse_header
from cosco.mechanics import NATIVE


def whole_blocks(piece: memoryview, offset: int) -> tuple[int, int]:
    """Find the end of the last whole block, where one begins at `offset`.

    Returns: that end, and the length of the block that begins there; 0 if its header is cut.

    Raises: DataCorrupted.
    """
    while len(piece) - offset >= HEADER_BYTES:
        block_bytes = parse_header(piece, offset).block_bytes
        if offset + block_bytes > len(piece):
            return offset, block_bytes
        offset += block_bytes
    return offset, 0


#: The native part has it as well.
WHOLE_BLOCKS: Final[Callable[[memoryview, int], tuple[int, int]]] = (
    whole_blocks if NATIVE is None else NATIVE.whole_blocks
)


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
        offset, self._block_bytes = WHOLE_BLOCKS(piece, start)
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


class HeaderSplitter:
    """Cuts a stream of headers without blocks that arrives in arbitrary pieces into whole ones."""

    def __init__(self) -> None:
        self._partial = b""

    def feed(self, piece: memoryview) -> list[BareHeaders]:
        """Return the headers that `piece` completes."""
        if self._partial:
            piece = memoryview(self._partial + piece)
        whole = len(piece) - len(piece) % HEADER_BYTES
        self._partial = bytes(piece[whole:])
        return [BareHeaders(piece[:whole])] if whole else []

    def finish(self) -> None:
        """Raise DataCorrupted if the stream ended inside a header."""
        if self._partial:
            raise DataCorrupted(
                f"headers are cut short: {len(self._partial)} bytes of one are left"
            )
