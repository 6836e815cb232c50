"""Push to readable: one row of an exchange of a group, and a reader that waits for it.

The reader is in another process, open and waiting at the daemon. The clock, of the system and
the same in both, runs from before the writer's `collect`, through its `close`, until the
reader has the row, verified. The writer was made before that, and asked nobody.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from typing import Final

import numpy as np

from cosco import CoscoExchangeGroup, GroupHandle
from cosco.local.workers import Link, Workers
from cosco_bench.harness.quantiles import Quantiles, quantiles
from cosco_bench.harness.single_row import await_row, numbered_row

#: For the reader's thread to get from the start to its wait.
_PAUSE_S: Final = 0.002


def push_to_readable(
    metadata: str, *, rounds: int, warm_ups: int, replicas: int, on_step: Callable[[int], None]
) -> Quantiles:
    """Of `rounds` rows after `warm_ups`; raises DataCorrupted if another row comes out."""
    began = []
    with CoscoExchangeGroup(
        f"micro-row-{uuid.uuid4()}", 1, rounds + warm_ups, 1, replicas=replicas, metadata=metadata
    ) as group:
        handle = group.handle()
        with Workers("reader", await_rows, [(handle,)]) as readers:
            for index in range(handle.size):
                with handle.writer(index, 0) as writer:
                    readers.wait_until_ready()
                    readers.start()
                    time.sleep(_PAUSE_S)
                    began.append(time.monotonic_ns())
                    writer.collect(0, numbered_row(index))
                if index:
                    group.release(index - 1)
                on_step(1)
            (reader,) = readers.results()
    took = (np.array(reader.value) - np.array(began)) / 1e9
    return quantiles(took[warm_ups:].tolist())


def await_rows(link: Link, handle: GroupHandle) -> list[int]:
    """Read the row of each exchange; when it was there, on the monotonic clock in ns."""
    arrived = []
    for index in range(handle.size):
        with handle.reader(index, 0) as reader:
            arrived.append(await_row(link, reader, index))
    return arrived
