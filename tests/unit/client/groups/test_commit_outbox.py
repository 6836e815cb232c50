"""What is sent in batches arrives once, in order and in time, or whoever waits is told."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Sequence

import pytest

from cosco.client.groups import commit_outbox
from cosco.client.groups.commit_outbox import MAX_BATCH, MAX_WAITING, BatchOutbox
from cosco.errors import InvalidArgument, ServiceUnavailable

LONG_S = 60.0
_PATIENCE_S = 20.0


class Service:
    """Takes batches; fails as often as it is told, and can be held up."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.failures: list[Exception] = []
        self.is_open = threading.Event()
        self.is_open.set()
        self.called = threading.Semaphore(0)

    def __call__(self, batch: Sequence[int], _try_s: float) -> None:
        self.called.release()
        assert self.is_open.wait(_PATIENCE_S)
        if self.failures:
            raise self.failures.pop(0)
        self.batches.append(list(batch))

    @property
    def items(self) -> list[int]:
        return [item for batch in self.batches for item in batch]


@pytest.fixture
def service() -> Service:
    return Service()


def made(send: Service, *, within_s: float = 0.01, patience_s: float = LONG_S) -> BatchOutbox[int]:
    return BatchOutbox("a-test", send, within_s=within_s, patience_s=patience_s)


def thread_of() -> threading.Thread | None:
    return next((t for t in threading.enumerate() if t.name == "a-test"), None)


def ended(thread: threading.Thread | None) -> bool:
    if thread is not None:
        thread.join(_PATIENCE_S)
    return thread_of() is None


def test_what_is_added_together_is_sent_together_and_the_thread_ends(service: Service) -> None:
    some = made(service, within_s=0.2)
    for item in range(10):
        some.add(item)
    thread = thread_of()
    assert ended(thread)  # nobody flushes
    assert service.batches == [list(range(10))]
    some.add(10)
    assert ended(thread_of())
    assert service.items == list(range(11))


def test_flush_waits_for_nothing_but_the_answer(service: Service) -> None:
    some = made(service, within_s=0.5)
    some.flush()
    assert thread_of() is None
    some.add(1)
    began = time.monotonic()
    some.flush()
    assert service.items == [1]
    assert time.monotonic() - began < 0.5
    assert ended(thread_of())


def test_a_full_batch_goes_at_once_and_more_than_one_in_order(service: Service) -> None:
    some = made(service, within_s=0.5)
    service.is_open.clear()
    for item in range(2 * MAX_BATCH + 1):
        some.add(item)
    assert service.called.acquire(timeout=0.4)
    service.is_open.set()
    some.flush()
    assert [len(batch) for batch in service.batches] == [MAX_BATCH, MAX_BATCH, 1]
    assert service.items == list(range(2 * MAX_BATCH + 1))
    assert ended(thread_of())


def test_a_batch_is_no_longer_than_a_message_may_be(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commit_outbox, "MAX_BATCH_BYTES", 10)
    some = commit_outbox.BatchOutbox(
        "a-test", service, within_s=0.2, patience_s=0.0, bytes_of=lambda item: item
    )
    for item in (3, 3, 3, 3, 15):
        some.add(item)
    some.flush()
    assert service.batches == [[3, 3, 3], [3], [15]]
    service.failures = [InvalidArgument("nonsense")]
    some.add(7)
    with pytest.raises(InvalidArgument):
        some.flush()
    some.add(4)
    some.flush()
    assert service.batches[3:] == [[7], [4]]
    assert ended(thread_of())
    assert some._bytes == 0


def test_add_waits_when_what_waits_is_too_long(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commit_outbox, "MAX_WAITING_BYTES", 30)
    service.is_open.clear()
    some = commit_outbox.BatchOutbox(
        "a-test", service, within_s=0.0, patience_s=LONG_S, bytes_of=lambda item: item
    )
    some.add(9)
    assert service.called.acquire(timeout=_PATIENCE_S)  # it is under way and not waiting
    for _ in range(3):
        some.add(10)
    adding = threading.Thread(target=some.add, args=(1,))
    adding.start()
    adding.join(0.1)
    assert adding.is_alive()
    service.is_open.set()
    adding.join(_PATIENCE_S)
    some.flush()
    assert service.items == [9, 10, 10, 10, 1]
    assert ended(thread_of())


def test_an_outage_is_waited_for(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commit_outbox, "_PAUSE_S", 0.001)
    service.failures = [ServiceUnavailable("away") for _ in range(5)]
    some = made(service)
    for item in range(3):
        some.add(item)
    some.flush()
    assert service.batches == [[0, 1, 2]]
    assert ended(thread_of())


@pytest.mark.parametrize(
    ("failure", "raised"),
    [
        (ServiceUnavailable("away"), ServiceUnavailable),
        (ServiceUnavailable("never", retriable=False), ServiceUnavailable),
        (InvalidArgument("nonsense"), InvalidArgument),
        (ZeroDivisionError("a bug"), ServiceUnavailable),
    ],
    ids=["outage", "for good", "refused", "unexpected"],
)
def test_who_flushes_is_told_and_nothing_is_forgotten(
    service: Service, failure: Exception, raised: type[Exception]
) -> None:
    service.failures = [failure]
    some = made(service, patience_s=0.0)
    some.add(1)
    with pytest.raises(raised, match=str(failure)):
        some.flush()
    assert ended(thread_of())
    some.add(2)
    some.flush()
    assert service.items == [1, 2]
    assert ended(thread_of())


def test_add_waits_when_too_many_wait_and_goes_on(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commit_outbox, "MAX_WAITING", 20)
    service.is_open.clear()
    some = made(service, within_s=0.0)
    some.add(-1)
    assert service.called.acquire(timeout=_PATIENCE_S)  # it is under way and not waiting
    added = threading.Semaphore(0)

    def add_all() -> None:
        for item in range(21):
            some.add(item)
            added.release()

    adding = threading.Thread(target=add_all)
    adding.start()
    for _ in range(20):
        assert added.acquire(timeout=_PATIENCE_S)
    assert not added.acquire(timeout=0.1)  # the last one waits
    service.is_open.set()
    adding.join(_PATIENCE_S)
    some.flush()
    assert service.items == list(range(-1, 21))
    assert ended(thread_of())


def test_add_fails_when_too_many_wait_and_the_service_stays_away(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert MAX_WAITING >= MAX_BATCH
    monkeypatch.setattr(commit_outbox, "MAX_WAITING", 1)
    service.is_open.clear()
    service.failures = [ServiceUnavailable("away")]
    some = made(service, within_s=0.0, patience_s=0.0)
    some.add(0)
    assert service.called.acquire(timeout=_PATIENCE_S)
    some.add(1)
    threading.Timer(0.05, service.is_open.set).start()
    with pytest.raises(ServiceUnavailable):
        some.add(2)
    some.flush()
    assert service.items == [0, 1]  # 2 was refused
    assert ended(thread_of())


def test_many_threads_add_and_flush(service: Service) -> None:
    some = made(service, within_s=0.001)

    def work(first: int) -> None:
        for item in range(first, first + 200):
            some.add(item)
            if item % 7 == 0:
                some.flush()
                assert item in service.items

    threads = [threading.Thread(target=work, args=(1000 * n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(_PATIENCE_S)
    some.flush()
    expected = [1000 * n + item for n in range(6) for item in range(200)]
    assert sorted(service.items) == expected
    assert ended(thread_of())


ENDING = """
    import sys, threading
    from cosco.client.groups import commit_outbox
    from cosco.errors import ServiceUnavailable

    commit_outbox._EXIT_PATIENCE_S = 0.3

    def send(batch, try_s):
        assert try_s < 5  # the process ends
        if sys.argv[1] == "away":
            raise ServiceUnavailable("away")
        print(*batch)

    some = commit_outbox.BatchOutbox("a-test", send, within_s=0.1, patience_s=60.0)
    some.add(1)
    threading.Thread(target=some.add, args=(2,)).start()
"""


@pytest.mark.parametrize(
    ("case", "printed", "said"), [("there", "1 2\n", ""), ("away", "", "away")]
)
def test_a_process_that_ends_sends_the_rest_or_gives_it_up_soon(
    case: str, printed: str, said: str
) -> None:
    code = textwrap.dedent(ENDING)
    process = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, case],
        capture_output=True,
        text=True,
        timeout=_PATIENCE_S,
        check=True,
    )
    assert process.stdout == printed
    assert said in process.stderr


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
    batches: BatchOutbox[int] = BatchOutbox("test", sends, within_s=0.0, patience_s=1.0)
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
    batches: BatchOutbox[int] = BatchOutbox("test", sends, within_s=0.0, patience_s=1.0)

    def add() -> None:
        batches.add(1)
        batches.flush()

    adding = threading.Thread(target=add, daemon=True)
    adding.start()
    adding.join(10)
    assert sends.items == [1]
    assert sends.was_daemon is False  # the interpreter waits for it


def test_each_of_those_who_wait_is_told_by_an_error_of_its_own(service: Service) -> None:
    """Each says of its own exchange that it failed."""
    outbox = made(service)
    service.is_open.clear()
    service.failures = [InvalidArgument("no")]
    told: list[InvalidArgument] = []

    def flush() -> None:
        with pytest.raises(InvalidArgument) as raised:
            outbox.flush()
        told.append(raised.value.place(f"g/{threading.get_ident()}"))

    outbox.add(1)
    service.called.acquire()
    threads = [threading.Thread(target=flush) for _ in range(2)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + _PATIENCE_S
    while len(outbox._changed._waiters) < 2:  # type: ignore[attr-defined]
        assert time.monotonic() < deadline
        time.sleep(0.001)
    service.is_open.set()
    for thread in threads:
        thread.join(_PATIENCE_S)
    assert len({error.shuffle_id for error in told}) == 2
