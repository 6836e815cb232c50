"""Streams with references: read by a few threads, in order, bounded, and ended in time."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import replace

import pytest
from pyroaring import BitMap
from support.segments import path_of, segment

from cosco.client.read import direct_reads, store_files
from cosco.client.read.direct_reads import AT_ONCE, DirectReads, note_failure
from cosco.client.read.state import direct_window
from cosco.client.read.state.direct_chunk import DirectFailed, DirectFile
from cosco.client.read.state.direct_stores import DirectStores
from cosco.client.rpc.scope import Scope
from cosco.errors import ClientClosed, InvalidArgument
from cosco.format.chunk import ALIGNMENT
from cosco.format.segment import SegmentId
from cosco.protocol.fetch_records import FetchPart, FetchRequest, Reference
from cosco.protocol.wire import FetchReply, fetch_reference, fetch_reply

pytestmark = pytest.mark.usefixtures("read_mechanics")

ID = SegmentId(7, 3, 2, 11, 1)
BODY = b"x" * (2 * ALIGNMENT - 64)
REQUEST = FetchRequest(7, (FetchPart(3, 2, BitMap([5])),), several=False, direct=True)


class Files:
    """Stands for `StoreFiles`: one segment under each name, and what is done before it is read."""

    made: list[Files]

    def __init__(self) -> None:
        self.made.append(self)
        self.is_closed = False
        self.lock = threading.Lock()
        self.at_once = self.most_at_once = 0
        self.stores: set[str] = set()

    before: Callable[[DirectFile], None] = staticmethod(lambda file: None)

    def read(self, store_id: str, file: DirectFile, offset: int, length: int) -> memoryview:
        with self.lock:
            self.stores.add(store_id)
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            self.before(file)
            data = segment(file.segment, [(5, BODY)])
            return memoryview(data)[offset : offset + length]
        finally:
            with self.lock:
                self.at_once -= 1

    def close(self) -> None:
        self.is_closed = True


@pytest.fixture
def files(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Files]]:
    class OwnFiles(Files):
        made: list[Files] = []  # noqa: RUF012

    monkeypatch.setattr(store_files, "StoreFiles", OwnFiles)
    yield OwnFiles
    until(lambda: not names())  # whatever came of it


def names() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "cosco-direct"]


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60.0
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def reference(serial: int) -> FetchReply:
    path = path_of(replace(ID, serial=serial), 5, 5)
    named = Reference(f"file:///s/{path}", path, 3 * ALIGNMENT, 0)
    return fetch_reply(fetch_reference(len(BODY), 0, named))


def sent(*replies: FetchReply) -> Generator[FetchReply, None, None]:
    yield from replies


def data_of(replies: Iterator[FetchReply]) -> list[int]:
    return [len(reply) for reply in replies if isinstance(reply, memoryview)]


def test_references_become_bytes_and_the_threads_end(files: type[Files]) -> None:
    reads = DirectReads(Scope("a reader", "x"))
    found = data_of(reads.replies(sent(*map(reference, range(1, 40))), REQUEST, "s"))
    assert found == [len(BODY)] * 39
    assert reads.bytes_read == 39 * 2 * ALIGNMENT
    [made] = files.made
    assert made.is_closed
    assert made.stores == {"s"}
    until(lambda: not names())


def test_without_references_nothing_is_begun(files: type[Files]) -> None:
    reads = DirectReads(Scope("a reader", "x"))
    assert data_of(reads.replies(sent(memoryview(b"abc")), REQUEST, "s")) == [3]
    assert not files.made
    assert not names()


def test_so_many_are_read_at_once(files: type[Files], monkeypatch: pytest.MonkeyPatch) -> None:
    full = threading.Barrier(AT_ONCE)
    monkeypatch.setattr(files, "before", staticmethod(lambda file: full.wait(60) and None))
    reads = DirectReads(Scope("a reader", "x"))
    count = 5 * AT_ONCE
    found = data_of(reads.replies(sent(*map(reference, range(1, count + 1))), REQUEST, "s"))
    assert len(found) == count
    assert files.made[0].most_at_once == AT_ONCE


def test_streams_of_a_reader_share_threads_and_room(
    files: type[Files], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(direct_reads, "WINDOW_BYTES", 4 * 2 * ALIGNMENT)
    reads = DirectReads(Scope("a reader", "x"))
    held = []

    def watched(first: int) -> Generator[FetchReply, None, None]:
        for serial in range(first, first + 10):
            held.append(sum(window.held_bytes for window in reads._windows))
            yield reference(serial)

    one = reads.replies(watched(1), REQUEST, "s")
    two = reads.replies(watched(100), REQUEST, "s")
    with closing(one), closing(two):
        for each in (one, two, one, two, two, two, one):
            next(each)
        assert len(names()) <= AT_ONCE
        assert data_of(one) + data_of(two)
    assert max(held) <= (4 + 2) * 2 * ALIGNMENT
    assert len(files.made) == 1


def test_a_stream_that_is_given_up_leaves_nothing(
    files: type[Files], monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = threading.Event()
    monkeypatch.setattr(
        files, "before", staticmethod(lambda file: file.segment.serial > 1 and gate.wait(60))
    )
    was_closed = []

    def replies() -> Generator[FetchReply, None, None]:
        try:
            yield from map(reference, range(1, 9))
        finally:
            was_closed.append(True)

    reads = DirectReads(Scope("a reader", "x"))
    stream = reads.replies(replies(), REQUEST, "s")
    next(stream)
    assert names()
    stream.close()
    assert was_closed
    assert files.made[0].is_closed
    assert not reads._windows
    gate.set()
    until(lambda: not names())


def test_what_hangs_is_given_up(files: type[Files], monkeypatch: pytest.MonkeyPatch) -> None:
    gate = threading.Event()
    monkeypatch.setattr(direct_reads, "WAIT_S", 0.02)
    monkeypatch.setattr(files, "before", staticmethod(lambda file: gate.wait(60)))
    reads = DirectReads(Scope("a reader", "x"))
    with pytest.raises(DirectFailed, match=r"nothing came from it for 0\.02 s"):
        list(reads.replies(sent(reference(1)), REQUEST, "s"))
    gate.set()


def test_closing_the_reader_wakes_who_waits(
    files: type[Files], monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, began = threading.Event(), threading.Event()

    def before(file: DirectFile) -> None:
        began.set()
        gate.wait(60)

    monkeypatch.setattr(files, "before", staticmethod(before))
    scope = Scope("a reader", "x")

    def close() -> None:
        began.wait(60)
        scope.close()

    closer = threading.Thread(target=close)
    closer.start()
    with pytest.raises(ClientClosed):
        list(DirectReads(scope).replies(sent(reference(1)), REQUEST, "s"))
    closer.join()
    gate.set()


def test_a_reader_that_was_closed_before_it_waits(
    files: type[Files], monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = threading.Event()
    monkeypatch.setattr(files, "before", staticmethod(lambda file: gate.wait(60)))
    scope = Scope("a reader", "x")

    def replies() -> Generator[FetchReply, None, None]:
        yield reference(1)
        scope.close()
        yield reference(2)

    began = time.monotonic()
    with pytest.raises(ClientClosed):
        list(DirectReads(scope).replies(replies(), REQUEST, "s"))
    assert time.monotonic() - began < direct_reads.WAIT_S / 2
    gate.set()


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (FileNotFoundError(2, "No such file or directory"), "FileNotFoundError: No such file"),
        (PermissionError(13, "Permission denied"), "PermissionError: Permission denied"),
        (DirectFailed("another store"), "another store"),
        (RuntimeError("whatever"), "RuntimeError: whatever"),
    ],
)
def test_whatever_goes_wrong_is_a_failure(
    files: type[Files], monkeypatch: pytest.MonkeyPatch, error: Exception, message: str
) -> None:
    def before(file: DirectFile) -> None:
        if file.segment.serial == 3:
            raise error

    monkeypatch.setattr(files, "before", staticmethod(before))
    reads = DirectReads(Scope("a reader", "x"))
    found = []
    with pytest.raises(DirectFailed, match=message):
        for reply in reads.replies(sent(*map(reference, range(1, 9))), REQUEST, "s"):
            found.append(reply)  # noqa: PERF402  until it raises
    assert len(data_of(iter(found))) == 2


def test_what_the_stream_raises_is_raised(files: type[Files]) -> None:
    def broken() -> Generator[FetchReply, None, None]:
        yield reference(1)
        raise InvalidArgument("nonsense")

    with pytest.raises(InvalidArgument):
        list(DirectReads(Scope("a reader", "x")).replies(broken(), REQUEST, "s"))


def test_a_process_that_may_have_no_threads(
    files: type[Files], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refused)
    with pytest.raises(DirectFailed, match="no thread"):
        list(DirectReads(Scope("a reader", "x")).replies(sent(reference(1)), REQUEST, "s"))


def test_pieces_are_cut_as_long_as_they_say() -> None:
    assert direct_window.PIECE_BYTES < direct_reads.WINDOW_BYTES


def test_a_failure_is_told_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(direct_reads, "DIRECT_STORES", DirectStores())
    with caplog.at_level(logging.WARNING, "cosco"):
        for _ in range(3):
            note_failure("s", "it is gone")
    assert [record.getMessage() for record in caplog.records] == [
        "rows are not read directly from store s for 60 s, daemons send them: it is gone"
    ]
