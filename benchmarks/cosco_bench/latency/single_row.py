"""Push to readable: one row, and a reader in another process that is open and waits for it.

The clock (of the system, the same in both processes) runs from before the writer's `collect`,
through its `close`, until the reader has the row in its hands, verified. The writer was made
before that.
"""

from __future__ import annotations

import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from typing import Final

import numpy as np

from cosco import CoscoExchange, CoscoExchangeGroup, CoscoReader, CoscoWriter, GroupHandle
from cosco.errors import DataCorrupted
from cosco.local.workers import Link, Workers
from cosco_bench.harness.capacity import ROW_BYTES
from cosco_bench.harness.measuring import Quantiles, quantiles

#: For the reader's thread to get from the start to its wait.
_PAUSE_S: Final = 0.002


def _row(index: int) -> bytes:
    return index.to_bytes(8, "little").ljust(ROW_BYTES, b"x")


def _collect(writer: CoscoWriter, index: int) -> int:
    """Collect the row of a round and return when that began, on the monotonic clock in ns."""
    began = time.monotonic_ns()
    writer.collect(0, _row(index))
    return began


def _await_row(link: Link, reader: CoscoReader, index: int) -> int:
    """Wait for the one row of a round.

    Returns: when it was there, on the monotonic clock in ns.
    Raises: DataCorrupted if it is none, or another than was written.
    """
    link.wait_for_start()
    if not reader.next():
        raise DataCorrupted(f"round {index} has no row")
    arrived = time.monotonic_ns()
    if reader.row() != _row(index) or reader.next():
        raise DataCorrupted(f"round {index} has another row than was written")
    return arrived


def _latencies(readers: Workers, began: list[int], warm_ups: int) -> Quantiles:
    (reader,) = readers.results()
    took = (np.array(reader.value) - np.array(began)) / 1e9
    return quantiles(took[warm_ups:].tolist())


# --- exchanges ----------------------------------------------------------------------------


def exchange_rows(
    metadata: str, *, rounds: int, warm_ups: int, replicas: int, on_step: Callable[[int], None]
) -> Quantiles:
    """Measure `rounds` rows after `warm_ups`, each through an exchange of its own."""
    shuffle_id = f"latency-{uuid.uuid4()}"
    began = []
    with ExitStack() as stack:
        # The reader opens the next exchange as soon as it is done with this one.
        exchanges = deque([_exchange(shuffle_id, 0, replicas, metadata)])
        stack.callback(_close_all, exchanges)
        task = metadata, shuffle_id, warm_ups + rounds
        readers = stack.enter_context(Workers("reader", await_exchange_rows, [task]))
        for index in range(warm_ups + rounds):
            exchanges.append(_exchange(shuffle_id, index + 1, replicas, metadata))
            with CoscoWriter(_name(shuffle_id, index), 0, metadata=metadata) as writer:
                readers.wait_until_ready()
                if index:  # nobody needs the exchange of the last round any more
                    exchanges.popleft().close()
                readers.start()
                # A round trip: time for the reader's call to get there before the row does.
                exchanges[0].progress()
                began.append(_collect(writer, index))
            on_step(1)
        return _latencies(readers, began, warm_ups)


def await_exchange_rows(link: Link, metadata: str, shuffle_id: str, rounds: int) -> list[int]:
    """Read the row of each exchange and return when each was there."""
    arrived = []
    for index in range(rounds):
        with CoscoReader(_name(shuffle_id, index), [0], 0, metadata=metadata) as reader:
            arrived.append(_await_row(link, reader, index))
    return arrived


def _exchange(shuffle_id: str, index: int, replicas: int, metadata: str) -> CoscoExchange:
    return CoscoExchange(_name(shuffle_id, index), 1, replicas=replicas, metadata=metadata)


def _close_all(exchanges: Iterable[CoscoExchange]) -> None:
    for exchange in exchanges:
        exchange.close()


def _name(shuffle_id: str, index: int) -> str:
    return f"{shuffle_id}/{index}"


# --- exchanges of a group -----------------------------------------------------------------


def group_rows(
    metadata: str, *, rounds: int, warm_ups: int, replicas: int, on_step: Callable[[int], None]
) -> Quantiles:
    """Measure `rounds` rows after `warm_ups`; readers wait at a daemon, writers ask nobody."""
    began = []
    with CoscoExchangeGroup(
        f"micro-row-{uuid.uuid4()}", 1, rounds + warm_ups, 1, replicas=replicas, metadata=metadata
    ) as group:
        handle = group.handle()
        with Workers("reader", await_group_rows, [(handle,)]) as readers:
            for index in range(handle.size):
                with handle.writer(index, 0) as writer:
                    readers.wait_until_ready()
                    readers.start()
                    time.sleep(_PAUSE_S)
                    began.append(_collect(writer, index))
                if index:
                    group.release(index - 1)
                on_step(1)
            handle.flush()  # commits go in batches, and the service may end soon
            return _latencies(readers, began, warm_ups)


def await_group_rows(link: Link, handle: GroupHandle) -> list[int]:
    """Read the row of each exchange and return when each was there."""
    arrived = []
    for index in range(handle.size):
        with handle.reader(index, 0) as reader:
            arrived.append(_await_row(link, reader, index))
    return arrived
