"""A writer at its end, against a metadata service that takes every commit."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from cosco.client import writer as module
from cosco.client.writer import CoscoWriter
from cosco.errors import ClientClosed
from cosco.records import (
    Commit,
    CommitRequest,
    ExchangeInfo,
    ExchangeSpec,
    OpenedAttempt,
    PartitionRange,
    RowKind,
)

INFO = ExchangeInfo(
    number=5,
    spec=ExchangeSpec("x", 1),
    generation=1,
    kind=RowKind.BYTES,
    schema=b"",
    ranges=(PartitionRange(0, 0, 1),),
    assignments=(),
)


class Metadata:
    commits = 0
    interrupted = False

    def __init__(self, *arguments: Any) -> None:
        pass

    def open_attempt(self, shuffle_id: str, mapper: int) -> OpenedAttempt:
        return OpenedAttempt(INFO, mapper, 3)

    def commit(self, request: CommitRequest) -> bool:
        if Metadata.interrupted:
            raise KeyboardInterrupt
        Metadata.commits += 1
        return True

    def close(self) -> None:
        pass


@pytest.fixture
def writer(monkeypatch: pytest.MonkeyPatch) -> Iterator[CoscoWriter]:
    monkeypatch.setattr(module, "MetadataClient", Metadata)
    monkeypatch.setattr(Metadata, "commits", 0)
    monkeypatch.setattr(Metadata, "interrupted", False)
    writer = CoscoWriter("x", 1, metadata="127.0.0.1:1")
    yield writer
    writer.abort()


def test_a_close_that_is_interrupted_after_its_commit_gives_the_same_answer_again(
    writer: CoscoWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(writer._pusher, "close", interrupt)
        with pytest.raises(KeyboardInterrupt):
            writer.close()
    assert writer.close() == Commit(1, 3, won=True, generation=1, rows=0, bytes=0)
    assert Metadata.commits == 1
    with pytest.raises(ClientClosed):
        writer.collect(0, b"late")


def test_a_close_that_is_interrupted_before_its_commit_gives_up(writer: CoscoWriter) -> None:
    Metadata.interrupted = True
    with pytest.raises(KeyboardInterrupt):
        writer.close()
    Metadata.interrupted = False
    with pytest.raises(ClientClosed):
        writer.close()
    assert Metadata.commits == 0


@pytest.mark.parametrize("attempt", range(5))
def test_what_threads_collect_while_the_writer_closes_is_committed_or_refused(
    writer: CoscoWriter, monkeypatch: pytest.MonkeyPatch, attempt: int
) -> None:
    monkeypatch.setattr(writer._pusher, "push", lambda frame: None)
    monkeypatch.setattr(writer._pusher, "flush", lambda: ())
    interval = sys.getswitchinterval()
    taken = [0] * 4
    busy = threading.Barrier(5)

    def collect(thread: int) -> None:
        for number in range(1_000_000):
            if number == 1000 * attempt:
                busy.wait()
            try:
                writer.collect(0, b"%d.%d" % (thread, number))
            except ClientClosed:
                return
            taken[thread] += 1

    threads = [threading.Thread(target=collect, args=(n,)) for n in range(4)]
    try:
        sys.setswitchinterval(1e-6)
        for thread in threads:
            thread.start()
        busy.wait()
        commit = writer.close()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert commit.rows == sum(taken)
    with pytest.raises(ClientClosed):
        writer.collect(0, b"late")


def test_a_row_that_comes_too_late_is_refused_and_one_that_just_made_it_is_not(
    writer: CoscoWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a thread finds that was paused right after it had added its row."""
    monkeypatch.setattr(writer._pusher, "push", lambda frame: None)
    monkeypatch.setattr(writer._pusher, "flush", lambda: ())
    row = b"in time"
    writer.collect(0, row)
    pairs = writer._pairs
    assert writer.close().rows == 1
    writer._settle(0, row)
    late = b"late"
    pairs.extend((0, late))
    with pytest.raises(ClientClosed):
        writer._settle(0, late)
