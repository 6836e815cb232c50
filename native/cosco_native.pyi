"""The native part of Cosco; each call has a twin in `cosco` that does the same in Python."""

from collections.abc import Sequence
from typing import Final

from cosco.client.content import Decoded

#: Which calls there are: compared by `cosco.mechanics`.
INTERFACE: Final[int]
VERSION: Final[str]

class Attempts:
    """Of `cosco.client.read.state.block_count`."""

    def __init__(self, mappers: bytes, attempts: bytes, named: bytes) -> None: ...

class BlockCount:
    """Of `cosco.client.read.state.block_count`."""

    def __init__(self, exchange: int, partition: int, attempts: Attempts) -> None: ...
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
    ) -> tuple[int, list[tuple[int, int, int, int, bytes]], list[str]]: ...
    def feed_headers(self, data: memoryview) -> list[str]: ...
    def forget_headers(self) -> None: ...

def whole_blocks(piece: memoryview, offset: int) -> tuple[int, int]:
    """Of `cosco.client.read.state.block_splitter`."""

def split_rows(decoded: Decoded) -> list[bytes]:
    """Of `cosco.client.content.byte_rows`."""

def join_rows(decoded: Sequence[Decoded]) -> tuple[bytes, bytes]:
    """Of `cosco.client.content.byte_rows`."""
