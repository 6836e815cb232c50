"""A small engine that runs mappers and reducers as processes, in every way Python has.

test_client_processes.py runs each case in a process of its own.
"""

from __future__ import annotations

import itertools
import logging
import multiprocessing
import os
import signal
import threading
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor

from support.children import Case, check_refused, fork, join, main
from support.exchanges import Pairs, by_partition, numbered, send

from cosco import CoscoExchange, CoscoReader, CoscoWriter

PARTITIONS = 4
ROWS = 3000
#: What a process still has when it ends.
UNCLOSED: list[object] = []


def rows_of(mapper: int) -> Pairs:
    return numbered(mapper, ROWS, partitions=PARTITIONS, size=100)


def write(name: str, mapper: int, metadata: str) -> bool:
    return send(name, mapper, rows_of(mapper), metadata).won


def read(name: str, mappers: list[int], partition: int, metadata: str) -> list[bytes]:
    with CoscoReader(name, mappers, partition, timeout_s=0, metadata=metadata) as reader:
        return list(reader)


def check(name: str, mappers: list[int], metadata: str) -> None:
    expected = by_partition(itertools.chain(*map(rows_of, mappers)), PARTITIONS)
    check_rows(name, mappers, expected, metadata)


def check_rows(
    name: str, mappers: list[int], expected: list[Counter[bytes]], metadata: str
) -> None:
    for partition, rows in enumerate(expected):
        assert Counter(read(name, mappers, partition, metadata)) == rows


def pool(method: str, metadata: str) -> None:
    """A pool of workers, forked or spawned, while the driver waits in calls."""
    context = multiprocessing.get_context(method)
    with CoscoExchange(f"pool-{method}", PARTITIONS, metadata=metadata) as exchange:
        with ProcessPoolExecutor(3, mp_context=context) as workers:
            name, mappers = exchange.shuffle_id, list(range(6))
            assert all(workers.map(write, [name] * 6, mappers, [metadata] * 6))
        check(name, mappers, metadata)
        assert exchange.progress().mappers_committed == 6


def busy(metadata: str) -> None:
    """Forks while a writer pushes and a reader waits, in threads of the same process."""
    with CoscoExchange("busy", PARTITIONS, lease_s=2.0, metadata=metadata):
        found: list[list[bytes]] = []
        everyone = [0, *range(100, 110)]

        def wait_and_read() -> None:
            with CoscoReader("busy", everyone, 0, metadata=metadata) as reader:
                found.append(list(reader))

        reading = threading.Thread(target=wait_and_read)
        reading.start()
        wrote = threading.Event()

        def write_slowly() -> None:
            with CoscoWriter("busy", 0, buffer_bytes=64 << 10, metadata=metadata) as writer:
                for i, pair in enumerate(rows_of(0)):
                    writer.collect(*pair)
                    if i % 100 == 0:
                        wrote.wait(0.01)

        writing = threading.Thread(target=write_slowly)
        writing.start()
        for mapper in everyone[1:]:
            join(fork(lambda: write("busy", mapper, metadata)))  # noqa: B023
        wrote.set()
        writing.join()
        reading.join()
        assert len(found[0]) == len(everyone) * ROWS // PARTITIONS
        check("busy", everyone, metadata)


def inherited(metadata: str) -> None:
    """What a child does with its parent's objects: nothing at all."""
    with CoscoExchange("inherited", PARTITIONS, metadata=metadata) as exchange:
        with CoscoWriter("inherited", 0, buffer_bytes=64 << 10, metadata=metadata) as writer:
            reader = CoscoReader("inherited", [0], 0, metadata=metadata)
            rows = rows_of(0)
            for pair in rows[: ROWS // 2]:
                writer.collect(*pair)

            def misuse() -> None:
                check_refused(
                    [
                        lambda: writer.collect(0, b"x"),
                        lambda: writer.collect_batch([0], [b"x"]),
                        writer.close,
                        reader.next,
                        lambda: list(reader),
                        reader.read_table,
                        exchange.progress,
                        exchange.close,
                    ]
                )
                writer.abort()
                reader.close()

            join(fork(misuse))
            # These leave the `with` blocks above, and end with the interpreter.
            join(fork(lambda: None, soft=True))
            join(fork(lambda: write("inherited", 7, metadata), soft=True))
            for pair in rows[ROWS // 2 :]:
                writer.collect(*pair)
        check("inherited", [0, 7], metadata)
        assert list(reader)
        reader.close()


def kept(metadata: str) -> None:
    """Forks between its writers, whose streams are kept: children have none of them."""
    with CoscoExchange("kept", PARTITIONS, metadata=metadata):
        mappers = itertools.count()
        for soft in (False, True) * 4:
            assert write("kept", next(mappers), metadata)
            mapper = next(mappers)
            join(fork(lambda: write("kept", mapper, metadata), soft=soft))  # noqa: B023
        check("kept", list(range(next(mappers))), metadata)


def left(metadata: str) -> None:
    """A child that comes out of its parent's `with` blocks like the parent does."""
    with CoscoExchange("left", PARTITIONS, metadata=metadata):
        with CoscoWriter("left", 0, metadata=metadata) as writer:
            for pair in rows_of(0):
                writer.collect(*pair)
            pid = os.fork()
        if pid:
            join(pid)
            check("left", [0], metadata)
    if not pid:
        os._exit(0)


def interrupted(metadata: str) -> None:
    """A signal handler forks, wherever the writer is at that moment."""
    children: list[int] = []
    forking = threading.Lock()

    def on_alarm(*_: object) -> None:
        # A fork in the middle of another's handlers, gRPC's among them, can hang (2 of 8 tries).
        if forking.acquire(blocking=False):
            mapper = 1000 + len(children)
            children.append(fork(lambda: write("interrupted", mapper, metadata)))
            forking.release()

    with CoscoExchange("interrupted", PARTITIONS, metadata=metadata):
        with CoscoWriter("interrupted", 0, buffer_bytes=64 << 10, metadata=metadata) as writer:
            signal.signal(signal.SIGALRM, on_alarm)
            signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
            wrote: Pairs = []
            for pair in itertools.cycle(rows_of(0)):
                if len(wrote) >= ROWS and len(children) >= 8:
                    break
                writer.collect(*pair)
                wrote.append(pair)
            signal.setitimer(signal.ITIMER_REAL, 0)
        for pid in children:
            join(pid)
        check_rows("interrupted", [0], by_partition(wrote, PARTITIONS), metadata)
        check("interrupted", [1000, 1000 + len(children) - 1], metadata)


def unclosed(metadata: str) -> None:
    """A process that ends without closing anything."""
    logging.getLogger("cosco").addHandler(logging.NullHandler())  # it says so of the writer
    exchange = CoscoExchange("unclosed", PARTITIONS, metadata=metadata)
    writer = CoscoWriter("unclosed", 0, buffer_bytes=64 << 10, metadata=metadata)
    for pair in rows_of(0):
        writer.collect(*pair)
    reader = CoscoReader("unclosed", [0], 0, metadata=metadata)
    threading.Thread(target=reader.next, daemon=True).start()
    time.sleep(0.1)
    assert exchange.partitions == PARTITIONS
    UNCLOSED.extend([exchange, writer, reader])


CASES: dict[str, Case] = {
    "fork": lambda metadata: pool("fork", metadata),
    "spawn": lambda metadata: pool("spawn", metadata),
    "forkserver": lambda metadata: pool("forkserver", metadata),
    "busy": busy,
    "inherited": inherited,
    "kept": kept,
    "left": left,
    "interrupted": interrupted,
    "unclosed": unclosed,
}

if __name__ == "__main__":
    main(CASES)
