"""A micro-batch engine in small: tasks of a group as processes, in every way Python has.

test_groups_processes.py runs each case in a process of its own.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import pickle
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import suppress
from functools import partial

from support.children import CHILD_TIMEOUT_S, Case, check_refused, fork, join, main
from support.exchanges import Pairs, by_partition, numbered
from support.groups import committed, put

from cosco import ClientClosed, CommitTimeout, CoscoExchangeGroup, GroupHandle
from cosco.client.groups import following
from cosco.client.write import push_streams

PARTITIONS = 4
MAPPERS = 4
ROWS = 400
#: What a process still has when it ends.
UNCLOSED: list[object] = []


def rows_of(mapper: int) -> Pairs:
    return numbered(mapper, ROWS, partitions=PARTITIONS, size=0)


EXPECTED = by_partition(itertools.chain(*map(rows_of, range(MAPPERS))), PARTITIONS)


def write(handle: GroupHandle, i: int, mapper: int) -> int:
    """Write as a task does; the process that did."""
    put(handle, i, mapper, rows_of(mapper))
    return os.getpid()


def read(handle: GroupHandle, i: int, partition: int) -> Counter[bytes]:
    with handle.reader(i, partition, timeout_s=CHILD_TIMEOUT_S) as reader:
        return Counter(reader)


def check(handle: GroupHandle, i: int) -> None:
    for partition, rows in enumerate(EXPECTED):
        assert read(handle, i, partition) == rows, (i, partition)


def group(name: str, metadata: str, size: int = 4) -> CoscoExchangeGroup:
    return CoscoExchangeGroup(name, PARTITIONS, size, MAPPERS, metadata=metadata)


def pool(metadata: str) -> None:
    """Workers of a pool that live on, and readers of the driver that wait while it forks."""
    with group("pool", metadata) as made:
        handle = made.handle()
        workers = ProcessPoolExecutor(2, multiprocessing.get_context("fork"))
        with ThreadPoolExecutor(2) as threads, workers:
            waiting = [threads.submit(read, handle, i, 0) for i in range(2)]
            reading = workers.submit(read, handle, 2, 3)
            writing = [
                workers.submit(write, handle, i, m) for i in (2, 0, 1) for m in range(MAPPERS)
            ]
            assert os.getpid() not in {one.result() for one in writing}
            assert all(one.result() == EXPECTED[0] for one in waiting)
            assert reading.result() == EXPECTED[3]
        # The pool is shut down: its workers ended in good order.
        assert [committed(handle, i) for i in range(4)] == [MAPPERS, MAPPERS, MAPPERS, 0]


def write_some(handle: GroupHandle, i: int, mappers: range) -> None:
    for mapper in mappers:
        write(handle, i, mapper)


def children(metadata: str) -> None:
    """Processes that end right after close()."""
    with group("children", metadata, size=2) as made:
        handle = made.handle()
        halves = range(MAPPERS // 2), range(MAPPERS // 2, MAPPERS)
        forked = multiprocessing.get_context("fork").Process(
            target=write_some, args=(handle, 1, halves[0])
        )
        spawned = multiprocessing.get_context("spawn").Process(
            target=write_some, args=(handle, 1, halves[1])
        )
        for child in (forked, spawned):
            child.start()
        check(handle, 1)
        for child in (forked, spawned):
            child.join()
        assert (forked.exitcode, spawned.exitcode) == (0, 0)
        assert committed(handle, 1) == MAPPERS


def flushed(metadata: str) -> None:
    """A child that is not let end in good order, and so asks for its commits first."""
    with group("flushed", metadata) as made:
        handle = made.handle()

        def work(mapper: int) -> None:
            write(handle, 0, mapper)
            handle.flush()

        write(handle, 1, 0)  # the parent has commits that wait, which are its own to send
        for mapper in range(MAPPERS):
            join(fork(partial(work, mapper)))
            assert committed(handle, 0) == mapper + 1
        handle.flush()
        assert committed(handle, 1) == 1
        check(handle, 0)


def busy(metadata: str) -> None:
    """Forks while readers wait, writers push and commits are sent, in threads of the parent."""
    rounds = 4
    with group("busy", metadata, size=rounds) as made:
        handle = made.handle()
        done = threading.Event()

        def keep_asking() -> None:
            while not done.is_set():
                with suppress(CommitTimeout), handle.reader(rounds - 1, 1, timeout_s=0.01) as one:
                    one.read_table()

        def keep_writing(i: int) -> None:
            for mapper in range(MAPPERS - 1):
                write(handle, i, mapper)

        asking = threading.Thread(target=keep_asking)
        asking.start()
        with ThreadPoolExecutor(8) as threads:
            for i in range(rounds):
                waiting = [threads.submit(read, handle, i, p) for p in range(PARTITIONS)]
                writing = threads.submit(keep_writing, i)
                # A child that reads as well, with a stream of its own.
                child = fork(partial(read, handle, i, i % PARTITIONS), soft=bool(i % 2))
                join(fork(partial(write, handle, i, MAPPERS - 1), soft=True))
                writing.result()
                for partition, one in enumerate(waiting):
                    assert one.result() == EXPECTED[partition], (i, partition)
                join(child)
        done.set()
        asking.join()
        handle.flush()
        assert [committed(handle, i) for i in range(rounds)] == [MAPPERS] * rounds


def inherited(metadata: str) -> None:
    """What a child does with its parent's objects: nothing at all."""
    with group("inherited", metadata) as made:
        handle = made.handle()
        writer = handle.writer(0, 0)
        rows = rows_of(0)
        writer.collect(*rows[0])
        reader = handle.reader(0, 0)

        def misuse() -> None:
            check_refused(
                [
                    lambda: writer.collect(0, b"x"),
                    writer.close,
                    reader.next,
                    reader.read_table,
                    made.handle,
                    made.close,
                    lambda: made.release(0),
                    lambda: made.extend(1),
                ]
            )
            writer.abort()
            reader.close()
            write(handle, 0, 1)  # the handle is its own

        join(fork(misuse, soft=True))
        join(fork(lambda: None, soft=True))  # comes out of the block as its parent does
        for pair in rows[1:]:
            writer.collect(*pair)
        writer.close()
        for mapper in range(2, MAPPERS):
            write(handle, 0, mapper)
        assert Counter(reader) == EXPECTED[0]
        reader.close()
        check(handle, 0)


def ending(metadata: str) -> None:
    """A process that ends without waiting for anything, but with readers that wait."""
    made = group("ending", metadata)
    handle = pickle.loads(pickle.dumps(made.handle()))
    reader = handle.reader(1, 0)
    threading.Thread(target=lambda: suppress_closed(reader.read_table), daemon=True).start()
    made.release(2)
    for mapper in range(MAPPERS):
        write(handle, 0, mapper)
    UNCLOSED.extend([made, reader])


def suppress_closed(call: Callable[[], object]) -> None:
    with suppress(ClientClosed):
        call()


def crowd(metadata: str) -> None:
    """Many readers of one process at once, and few threads for it, which end some time after."""
    following.LINGER_S = push_streams.LINGER_S = 0.2  # type: ignore[misc]
    with group("crowd", metadata, size=16) as made:
        handle = made.handle()
        write(handle, 0, 0)
        before = threading.active_count()
        readers = [handle.reader(i, p) for i in range(16) for p in range(PARTITIONS)]
        # A stream to each of two daemons, and gRPC's reader of what it sends.
        assert threading.active_count() - before <= 6, threading.enumerate()
        for i in range(16):
            for mapper in range(MAPPERS):
                write(handle, i, mapper)
        for n, reader in enumerate(readers):
            assert Counter(reader) == EXPECTED[n % PARTITIONS]
            reader.close()
        handle.flush()
    deadline = time.monotonic() + 15
    while extra := [t.name for t in threading.enumerate() if t.name.startswith("cosco-")]:
        assert time.monotonic() < deadline, extra
        time.sleep(0.05)


CASES: dict[str, Case] = {
    "pool": pool,
    "children": children,
    "flushed": flushed,
    "busy": busy,
    "inherited": inherited,
    "ending": ending,
    "crowd": crowd,
}

if __name__ == "__main__":
    main(CASES)
