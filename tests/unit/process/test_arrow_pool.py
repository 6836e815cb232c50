from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from support.children import run_code
from support.packed import arrow_packer, blocks_of, row_packer

pytestmark = pytest.mark.skipif(
    "mimalloc" not in pa.supported_memory_backends()
    or not hasattr(pa.MemoryPool, "num_allocations"),
    reason="this pyarrow has not the pool, or does not count what it gives",
)


def test_a_forked_child_does_not_use_the_pool_whose_locks_do_not_survive() -> None:
    run_code("""
        import os
        import cosco
        import pyarrow as pa

        pa.set_memory_pool(pa.mimalloc_memory_pool())
        pid = os.fork()
        if not pid:
            before = pa.mimalloc_memory_pool().num_allocations()
            is_safe = pa.array(range(9)).take(pa.array([1])).to_pylist() == [1]
            is_safe &= pa.default_memory_pool().backend_name == "system"
            os._exit(not is_safe or pa.mimalloc_memory_pool().num_allocations() > before)
        assert os.waitpid(pid, 0)[1] == 0
        assert pa.default_memory_pool().backend_name == "mimalloc"
    """)


def test_a_forked_child_without_arrow_does_without() -> None:
    run_code("""
        import os, sys
        import cosco

        assert "pyarrow" not in sys.modules
        pid = os.fork()
        if not pid:
            os._exit("pyarrow" in sys.modules)
        assert os.waitpid(pid, 0)[1] == 0
    """)


def test_the_pool_that_python_has_set_is_the_only_one_on_the_way_of_a_row() -> None:
    """Arrow's own default is what is left to C++, and not to be told otherwise."""
    unused, default = pa.mimalloc_memory_pool(), pa.default_memory_pool()
    count, parts = 3000, np.arange(3000) % 2
    batch = pa.record_batch(
        {
            "n": np.arange(count),
            "text": pa.array([f"{i} of them" for i in range(count)]),
            "lists": pa.array([[{"a": i, "b": "x" * (i % 9)}] * (i % 3) for i in range(count)]),
            "codes": pa.array([str(i % 7) for i in range(count)]).dictionary_encode(),
        }
    )
    column = batch.column(1).cast(pa.binary())
    pa.set_memory_pool(pa.system_memory_pool())
    try:
        arrow = arrow_packer(batch.schema, 2, buffer_bytes=50_000)
        list(arrow.collect_batch(parts, batch))  # schemas have been compared
        rows = row_packer(2, buffer_bytes=50_000)
        used = unused.num_allocations()
        frames = [*arrow.collect_batch(parts, batch), *arrow.collect_batch(1, batch)]
        frames += arrow.drain()
        bytes_frames = [*rows.collect_batch(parts, column), *rows.collect_batch(1, column)]
        bytes_frames += [*rows.collect_batch(parts, column.to_pylist()), *rows.drain()]
        assert unused.num_allocations() == used
    finally:
        pa.set_memory_pool(default)
    assert len(blocks_of(bytes_frames, 2)[1]) > 1
    assert len(frames) > 1
