"""The native part of Cosco; each call has a twin in `cosco` that does the same in Python."""

from collections.abc import Sequence
from typing import Any, Final

#: Contiguous bytes: what has them is a `collections.abc.Buffer` from Python 3.12 on.
Buffer = Any

#: Which calls there are: compared by `cosco.mechanics`.
INTERFACE: Final[int]
VERSION: Final[str]

class BlockWriter:
    """Its twin is `cosco.client.write.state.block_writer.BlockWriter`."""

    def __new__(
        cls, exchange: int, mapper: int, attempt: int, codec: int, partitions: int
    ) -> BlockWriter: ...
    def add(
        self, partition: int, rows: int, content: Buffer, flags: int, fragment: int
    ) -> bytes: ...
    def fill(self, rows: SortedRows, end_partition: int, room: int) -> tuple[bytes, int]: ...
    def fill_columns(
        self, rows: SortedColumns, end_partition: int, room: int
    ) -> tuple[bytes, int]: ...
    def sums(self, first: int, end: int) -> list[bytes]: ...

class RowSorter:
    """Its twin is `cosco.client.write.state.sorting.RowSorter`."""

    def __new__(cls, partitions: int, limit: int) -> RowSorter: ...
    def reset(self, partitions: int, limit: int) -> None: ...
    def append(
        self,
        row_partitions: Buffer,
        partition_bytes: int,
        offsets: Buffer,
        offset_bytes: int,
        data: Buffer,
    ) -> list[int]: ...
    def append_sorted(
        self, partition: int, offsets: Buffer, offset_bytes: int, data: Buffer
    ) -> list[int]: ...
    def drain(self) -> SortedRows: ...
    def reuse(self, rows: SortedRows) -> None: ...

class SortedRows:
    """Its twin is `cosco.client.write.state.sorting.SortedRows`."""

    def partition(self) -> int | None: ...
    def skip_long_row(self) -> bool: ...

class ColumnSorter:
    """Its twin is `cosco.client.write.state.batch_sorting.PortableBatchSorter`."""

    def __new__(
        cls,
        partitions: int,
        limit: int,
        kinds: Sequence[int],
        template: tuple[bytes, int, int, int, int],
    ) -> ColumnSorter: ...
    def reset(self, partitions: int, limit: int) -> None: ...
    def append(
        self,
        row_partitions: Buffer,
        partition_bytes: int,
        columns: list[tuple[Buffer | None, int, Buffer | None, Buffer | None]],
    ) -> None: ...
    def append_sorted(
        self,
        partition: int,
        rows: int,
        columns: list[tuple[Buffer | None, int, Buffer | None, Buffer | None]],
    ) -> None: ...
    def drain(self, sure_bytes: int) -> SortedColumns: ...
    def reuse(self, rows: SortedColumns) -> None: ...

class SortedColumns:
    """Its twin is `cosco.client.write.state.batch_sorting.SortedBatches`."""

    def partition(self) -> int | None: ...
    def row_bytes(self) -> float: ...
    def take(self) -> tuple[int, int, int]: ...
    def encode(self, first_piece: int, pieces: int, skipped: int, rows: int) -> bytes: ...
    def plain_bytes(self, first_piece: int, pieces: int, skipped: int, rows: int) -> int: ...
