"""What is told later, in batches: who flushes waits quietly, and nothing is left untold."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from cosco.client.groups.commit_outbox import Batches


class _Sends:
    """What was sent; holds every batch back until `go`."""

    def __init__(self) -> None:
        self.began = threading.Event()
        self.go = threading.Event()
        self.items: list[int] = []
        self.was_daemon: bool | None = None

    def __call__(self, items: Sequence[int], _try_s: float) -> None:
        self.was_daemon = threading.current_thread().daemon
        self.began.set()
        assert self.go.wait(10)
        self.items += items


def test_those_who_flush_at_once_do_not_wake_each_other() -> None:
    sends = _Sends()
    batches: Batches[int] = Batches("test", sends, within_s=0.0, patience_s=1.0)
    waits: list[None] = []
    wait = batches._changed.wait

    def counted(timeout: float | None = None) -> bool:
        waits.append(None)
        return wait(timeout)

    batches._changed.wait = counted  # type: ignore[method-assign]
    batches.add(1)
    assert sends.began.wait(10)
    flushes = [threading.Thread(target=batches.flush) for _ in range(3)]
    for thread in flushes:
        thread.start()
    threading.Event().wait(0.1)  # what they would use to wake each other thousands of times
    sends.go.set()
    for thread in flushes:
        thread.join(10)
    assert sends.items == [1]
    assert len(waits) <= 3 * len(flushes)


def test_what_a_daemon_thread_adds_is_sent_before_the_process_ends() -> None:
    sends = _Sends()
    sends.go.set()
    batches: Batches[int] = Batches("test", sends, within_s=0.0, patience_s=1.0)

    def add() -> None:
        batches.add(1)
        batches.flush()

    adding = threading.Thread(target=add, daemon=True)
    adding.start()
    adding.join(10)
    assert sends.items == [1]
    assert sends.was_daemon is False  # the interpreter waits for it
