"""What packers are made of: native where the native part is there, else portable.

The frames are the same, byte for byte.
"""

from __future__ import annotations

from cosco.client.write.state.block_writer import Blocks, BlockWriter
from cosco.client.write.state.native_packing import NativeBlockWriter, NativeRowSorter
from cosco.client.write.state.sorting import RowSorter, Sorter
from cosco.mechanics import NATIVE


def block_writer(exchange: int, mapper: int, attempt: int, codec: int, partitions: int) -> Blocks:
    """Return what makes the blocks of an attempt, from row 0 of every partition."""
    if NATIVE is None:
        return BlockWriter(exchange, mapper, attempt, codec, partitions)
    return NativeBlockWriter(NATIVE, exchange, mapper, attempt, codec, partitions)


def row_sorter(partitions: int, limit: int) -> Sorter:
    """Return what sorts at most about `limit` bytes of rows by partition."""
    if NATIVE is None:
        return RowSorter(partitions, limit)
    return NativeRowSorter(NATIVE, partitions, limit)
