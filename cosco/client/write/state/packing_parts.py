"""What packers are made of: native where the native part is there, else portable.

The frames are the same, byte for byte; for Arrow batches see `native_batches`.
"""

from __future__ import annotations

from cosco.client.content.arrow_transport import Transport
from cosco.client.write.state.batch_sorting import BatchSorter, PortableBatchSorter
from cosco.client.write.state.block_writer import Blocks, BlockWriter
from cosco.client.write.state.native_batches import native_batch_sorter
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


def batch_sorter(way: Transport, partitions: int, limit: int) -> BatchSorter:
    """Return what sorts plain batches that travel in this way by partition, about `limit` bytes."""
    native = None if NATIVE is None else native_batch_sorter(NATIVE, way, partitions, limit)
    return PortableBatchSorter(way.plain) if native is None else native
