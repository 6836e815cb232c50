"""Memory stays within its bounds, whatever passes through it."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from cosco import CoscoExchange, CoscoReader, CoscoWriter, LocalCluster
from cosco.local.workers import Link, Workers, peak_rss_bytes

pytestmark = pytest.mark.usefixtures("fresh_interpreters")

MIB = 1 << 20
ROW_BYTES = 1024
BATCH_ROWS = 1024
PARTITIONS = 64
BUFFER_BYTES = 32 * MIB


def write(link: Link, metadata: str, shuffle_id: str, mapper: int, batches: int) -> None:
    """Random rows, which do not compress; the same batch again and again."""
    rng = np.random.default_rng(mapper)
    data = rng.integers(0, 256, BATCH_ROWS * ROW_BYTES, np.uint8)
    offsets = np.arange(0, len(data) + 1, ROW_BYTES, np.int32)
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(data)]
    rows = pa.Array.from_buffers(pa.binary(), BATCH_ROWS, buffers)
    partitions = rng.integers(0, PARTITIONS, BATCH_ROWS)
    writer = CoscoWriter(shuffle_id, mapper, buffer_bytes=BUFFER_BYTES, metadata=metadata)
    with writer:
        for _ in range(batches):
            writer.collect_batch(partitions, rows)


def test_two_gib_through_a_daemon_of_256_mib() -> None:
    mappers, batches = 2, 1024
    with (
        LocalCluster(1, memory="256MiB") as cluster,
        CoscoExchange("bounds", PARTITIONS, replicas=1, metadata=cluster.metadata) as exchange,
    ):
        tasks = [(cluster.metadata, "bounds", mapper, batches) for mapper in range(mappers)]
        with Workers("writer", write, tasks) as writers:
            results = writers.results()
        assert exchange.progress().bytes_raw == mappers * batches * BATCH_ROWS * ROW_BYTES
        pid = cluster.daemons[0].pid
        assert peak_rss_bytes(pid) < (256 + 150) * MIB
        for result in results:
            assert result.peak_rss_bytes < 2 * BUFFER_BYTES + 150 * MIB
        # Readers are served within the same bound.
        rows = 0
        for partition in range(0, PARTITIONS, 8):
            with CoscoReader(
                "bounds", range(mappers), partition, metadata=cluster.metadata
            ) as reader:
                rows += sum(batch.num_rows for batch in reader.read_batches())
        assert rows == int(exchange.progress().partition_rows[::8].sum())
        assert peak_rss_bytes(pid) < (256 + 150) * MIB
