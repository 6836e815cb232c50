"""A writer at its end, against a metadata service that takes every commit."""

from __future__ import annotations

import io
import sys
import threading
from array import array
from collections.abc import Iterator
from typing import Any

import pytest
from support.packed import blocks_of

from cosco.client import live_object
from cosco.client.access.service_connection import Connection
from cosco.client.write.state.framing import PackedFrame
from cosco.client.write.state.packing import RowPacker
from cosco.client.write.writer import CoscoWriter
from cosco.errors import ClientClosed
from cosco.format.block import HEADER_BYTES, LENGTH_BYTES, decode_content, parse_header
from cosco.protocol.records import (
    Commit,
    CommitRequest,
    ExchangeInfo,
    ExchangeSpec,
    OpenedAttempt,
    PartitionRange,
    RowKind,
)

pytestmark = pytest.mark.usefixtures("packing_way")

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
    connection = Connection("127.0.0.1:1")
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


def rows_of_block(block: bytes) -> list[bytes]:
    header = parse_header(block)
    content = io.BytesIO(decode_content(header, block[HEADER_BYTES:]))
    lengths = array("I", content.read(LENGTH_BYTES * header.rows))
    return [content.read(length) for length in lengths]


@pytest.fixture
def writer(monkeypatch: pytest.MonkeyPatch) -> Iterator[CoscoWriter]:
    monkeypatch.setattr(live_object, "MetadataClient", Metadata)
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
    frames: list[PackedFrame] = []
    monkeypatch.setattr(writer._pusher, "push", frames.append)
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
    rows = [row for block in blocks_of(frames, 1)[0] for row in rows_of_block(block)]
    assert sorted(rows) == sorted(b"%d.%d" % (t, n) for t in range(4) for n in range(taken[t]))
    with pytest.raises(ClientClosed):
        writer.collect(0, b"late")


def test_a_row_that_comes_too_late_is_refused_and_one_that_just_made_it_is_not(
    writer: CoscoWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What threads find that were paused right after they had added equal rows."""
    monkeypatch.setattr(writer._pusher, "push", lambda frame: None)
    monkeypatch.setattr(writer._pusher, "flush", lambda: ())
    row = b"row"
    writer.collect(0, row)
    pairs = writer._pairs
    assert writer.close().rows == 1
    writer._join_pending(0, row)
    pairs += [0, row, 0, row]
    for _ in range(2):
        with pytest.raises(ClientClosed):
            writer._join_pending(0, row)
    writer._join_pending(0, row)


def test_a_row_that_is_added_while_the_writer_closes_is_refused(
    writer: CoscoWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread that found the writer open and is paused before it adds its row."""
    monkeypatch.setattr(writer._pusher, "push", lambda frame: None)
    monkeypatch.setattr(writer._pusher, "flush", lambda: ())

    class Paused(list[Any]):
        def extend(self, items: Any) -> None:
            assert writer.close().rows == 1
            super().extend(items)

    writer.collect(0, b"in time")
    packer = writer._packer
    assert isinstance(packer, RowPacker)
    paused = Paused(packer.pending.pairs)
    monkeypatch.setattr(packer.pending, "pairs", paused)
    writer._pairs = paused
    with pytest.raises(ClientClosed):
        writer.collect(0, b"late")
    assert not paused
