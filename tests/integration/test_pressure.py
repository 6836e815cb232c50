"""Full pools on every daemon, each the others' replica: slower, never stuck, never over."""

from __future__ import annotations

import random
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
from support.exchanges import assignment, by_partition, fetch_all, never, numbered, send

from cosco import CoscoExchange, CoscoReader, CoscoWriter, LocalCluster
from cosco.local.workers import peak_rss_bytes

pytestmark = pytest.mark.usefixtures("fresh_interpreters")

MIB = 1 << 20
#: What a daemon takes on top of its `--memory`: Python and libraries (56 MiB), frames of writers
#: (32 MiB) and of primaries (16 MiB) under way, reads of the store (32 MiB).
_CONSTANT_BYTES = 136 * MIB


def check_memory(cluster: LocalCluster, memory_bytes: int) -> None:
    for daemon in cluster.daemons:
        used = peak_rss_bytes(daemon.pid)
        print(f"{daemon.address}: {used / MIB:.0f} MiB at most")
        assert used < memory_bytes + _CONSTANT_BYTES


def test_many_writers_through_small_pools() -> None:
    """Ten times what the pools hold, from 120 writers, to ranges of both daemons at once."""
    writers, partitions = 120, 32
    with LocalCluster(2, memory="16MiB") as cluster:
        metadata = cluster.metadata
        noise = random.Random(1).randbytes(MIB)

        def rows_of(mapper: int) -> list[tuple[int, bytes]]:
            return [
                ((mapper + i) % partitions, b"%d.%d:" % (mapper, i) + noise[i : i + 50_000])
                for i in range(30)
            ]

        with CoscoExchange("many", partitions, never, metadata=metadata) as exchange:
            primaries = {assignment("many", metadata, i).primary for i in range(2)}
            assert len(primaries) == 2
            with ThreadPoolExecutor(writers) as pool:
                sent = [
                    pool.submit(send, "many", mapper, rows_of(mapper), metadata)
                    for mapper in range(writers)
                ]
                assert all(each.result(60).won for each in sent)
            assert exchange.progress().replicas == 2
            found = fetch_all("many", range(writers), partitions, metadata)
        everything = (pair for mapper in range(writers) for pair in rows_of(mapper))
        assert found == by_partition(everything, partitions)
        check_memory(cluster, 16 * MIB)


def test_rows_of_64_mib() -> None:
    """One row is a quarter of a pool, and each pool holds copies of the other's as well."""
    length, partitions = 64 * MIB, 2
    noise = random.Random(2).randbytes(length + 8)

    def row(mapper: int, i: int) -> memoryview:
        return memoryview(noise)[2 * mapper + i : length + 2 * mapper + i]

    with LocalCluster(2, memory="256MiB") as cluster:
        metadata = cluster.metadata

        def write(mapper: int) -> bool:
            with CoscoWriter("long", mapper, buffer_bytes=MIB, metadata=metadata) as writer:
                for i in range(2):
                    writer.collect(i, bytes(row(mapper, i)))
                return writer.close().won

        with CoscoExchange("long", partitions, never, codec="none", metadata=metadata):
            began = time.monotonic()
            with ThreadPoolExecutor(4) as pool:
                assert all(pool.map(write, range(4)))
            print(f"512 MiB in rows of 64 MiB written in {time.monotonic() - began:.1f} s")
            for partition in range(partitions):
                expected = [row(mapper, partition) for mapper in range(4)]
                with CoscoReader("long", range(4), partition, metadata=metadata) as reader:
                    for found in reader:
                        expected.remove(memoryview(found))
                assert not expected
        check_memory(cluster, 256 * MIB)


def test_memory_without_a_durable_store() -> None:
    """`memory://` gives nothing up: what does not fit any more is refused, never lost."""
    with LocalCluster(2, memory="16MiB", daemon_options=["--store", "memory://"]) as cluster:
        metadata = cluster.metadata
        rows = numbered(1, 4000, partitions=4)
        with CoscoExchange("volatile", 4, never, metadata=metadata):
            send("volatile", 1, rows, metadata)
            # Either daemon alone has everything.
            cluster.daemons[0].kill()
            found = fetch_all("volatile", [1], 4, metadata)
        assert found == by_partition(rows, 4)
        assert sum(found, Counter()).total() == 4000
