"""References become what the daemon would have sent, in order, whatever is read when."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace

import pytest
from pyroaring import BitMap
from support.segments import path_of, segment

from cosco.client.read.state import direct_window
from cosco.client.read.state.direct_chunk import DirectFailed
from cosco.client.read.state.direct_window import DirectWindow, Piece
from cosco.format.chunk import ALIGNMENT, padded
from cosco.format.segment import SegmentId
from cosco.protocol.fetch_records import FetchPart, FetchRequest, Reference
from cosco.protocol.wire import (
    FetchReply,
    fetch_data,
    fetch_end,
    fetch_failure,
    fetch_reference,
    fetch_reply,
    fetch_section,
    spb,
)

ID = SegmentId(7, 3, 2, 11, 1)
ROOM = 1 << 30


def body(partition: int, length: int) -> bytes:
    return random.Random(partition).randbytes(length)


class File:
    """A segment of some partitions, and references to its chunks."""

    def __init__(self, serial: int, lengths: dict[int, int]) -> None:
        one = replace(ID, serial=serial)
        self.bodies = {partition: body(partition, n) for partition, n in lengths.items()}
        self.data = segment(one, self.bodies.items())
        self.path = path_of(one, min(lengths), max(lengths))
        self.reference = Reference(f"file:///s/{self.path}", self.path, len(self.data), 5)
        self.offsets: dict[int, int] = {}
        at = 0
        for partition, length in lengths.items():
            self.offsets[partition] = at
            at += padded(64 + length)

    def refer(self, partition: int) -> FetchReply:
        length, offset = len(self.bodies[partition]), self.offsets[partition]
        return fetch_reply(fetch_reference(length, offset, self.reference))


def window_of(*partitions: int) -> DirectWindow:
    part = FetchPart(3, 2, BitMap(partitions))
    return DirectWindow(FetchRequest(7, (part,), several=len(partitions) > 1, direct=True))


def pieces(window: DirectWindow, room: int = ROOM) -> Iterator[Piece]:
    while (piece := window.next_piece(room - window.held_bytes)) is not None:
        yield piece


def read(window: DirectWindow, piece: Piece, *files: File) -> None:
    [file] = [file for file in files if file.path == piece.file.reference.path]
    data = file.data[piece.offset : piece.offset + piece.length]
    window.was_read(piece, memoryview(data), "")


class Taken:
    """What a window has given: "end", an error, or the bytes of a section."""

    def __init__(self) -> None:
        self.found: list[str | bytes] = []
        self.left = 0

    def take(self, window: DirectWindow) -> None:
        while window.is_ready:
            for reply in window.pop():
                self._add(reply)

    def _add(self, reply: FetchReply) -> None:
        if isinstance(reply, memoryview):
            self.left -= len(reply)
            last = self.found[-1]
            assert isinstance(last, bytes)
            self.found[-1] = last + bytes(reply)
            return
        assert not self.left
        if isinstance(reply, spb.PartEnd):
            self.found.append("end")
        elif reply.error:
            self.found.append(reply.error)
        else:
            self.left = reply.body_bytes
            assert not reply.HasField("reference")
            self.found.append(b"")


def given(window: DirectWindow) -> list[str | bytes]:
    """What it gives now."""
    taken = Taken()
    taken.take(window)
    return taken.found


def test_what_a_daemon_sent_comes_as_it_was() -> None:
    window = window_of(5)
    for message in (fetch_section(3, stored=True), fetch_data([memoryview(b"abc")])):
        window.add(fetch_reply(message))
    window.add(fetch_reply(fetch_failure("bad")))
    assert window.held_bytes == 3
    assert given(window) == [b"abc", "bad"]
    assert window.is_empty
    assert window.held_bytes == 0


def test_references_and_bytes_keep_their_order() -> None:
    one, two = File(1, {5: 100}), File(2, {5: 9000})
    window = window_of(5)
    window.add(one.refer(5))
    for message in (fetch_section(3, stored=False), fetch_data([memoryview(b"abc")])):
        window.add(fetch_reply(message))
    window.add(two.refer(5))
    first, second = pieces(window)
    read(window, second, two)
    assert not window.is_ready
    read(window, first, one)
    assert given(window) == [one.bodies[5], b"abc", two.bodies[5]]
    assert window.is_empty
    assert window.held_bytes == 0
    assert window.read_bytes == first.length + second.length


def test_neighbours_in_a_file_are_read_at_once() -> None:
    file = File(1, {5: 100, 6: 5000, 7: 8, 9: 70_000})
    window = window_of(5, 6, 7, 9)
    for partition in (5, 6, 7, 9):
        window.add(file.refer(partition))
        window.add(fetch_reply(fetch_end(0, partition)))
    [piece] = pieces(window)
    assert piece.length == sum(padded(64 + n) for n in (100, 5000, 8, 70_000))
    read(window, piece, file)
    expected: list[str | bytes] = []
    for partition in (5, 6, 7, 9):
        expected += [file.bodies[partition], "end"]
    assert given(window) == expected
    assert window.held_bytes == 0


def test_what_lies_apart_is_read_apart() -> None:
    file = File(1, {5: 100, 6: 5000, 7: 8})
    window = window_of(5, 7)
    for partition in (5, 7):
        window.add(file.refer(partition))
        window.add(fetch_reply(fetch_end(0, partition)))
    assert [piece.offset for piece in pieces(window)] == [0, 3 * ALIGNMENT]


def test_what_is_under_way_is_not_made_longer() -> None:
    file = File(1, {5: 100, 6: 100})
    window = window_of(5, 6)
    window.add(file.refer(5))
    [first] = pieces(window)
    window.add(fetch_reply(fetch_end(0, 5)))
    window.add(file.refer(6))
    [second] = pieces(window)
    assert (first.length, second.offset) == (ALIGNMENT, ALIGNMENT)


@pytest.mark.parametrize("piece_pages", [1, 2, 3, 100])
def test_a_long_chunk_is_read_in_pieces_as_there_is_room(
    monkeypatch: pytest.MonkeyPatch, piece_pages: int
) -> None:
    monkeypatch.setattr(direct_window, "PIECE_BYTES", piece_pages * ALIGNMENT)
    file = File(1, {5: 10 * ALIGNMENT - 64 + 1})  # one byte is in a page of its own
    window = window_of(5)
    window.add(file.refer(5))
    window.add(fetch_reply(fetch_failure("after")))
    found: list[str | bytes] = []
    data = b""
    room = 4 * ALIGNMENT
    while not window.is_empty:
        for piece in list(pieces(window, room)):
            read(window, piece, file)
        assert window.held_bytes <= max(room, min(piece_pages, 11) * ALIGNMENT)
        while window.is_ready:
            for reply in window.pop():
                if isinstance(reply, memoryview):
                    data += bytes(reply)
                elif isinstance(reply, spb.Section):
                    found.append(reply.error or str(reply.body_bytes))
    assert data == file.bodies[5]
    assert found == [str(len(data)), "after"]
    assert window.held_bytes == 0


def test_without_room_only_what_is_waited_for_is_read() -> None:
    one, two = File(1, {5: 100}), File(2, {5: 100})
    window = window_of(5)
    window.add(one.refer(5))
    window.add(two.refer(5))
    [first] = pieces(window, 0)
    assert not window.wants_more  # nothing more is received before the second has a piece
    read(window, first, one)
    assert given(window) == [one.bodies[5]]
    [second] = pieces(window, 0)
    read(window, second, two)
    assert given(window) == [two.bodies[5]]
    assert window.is_empty


def test_so_many_replies_wait_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(direct_window, "_MAX_REPLIES", 3)
    window = window_of(5)
    for serial in range(1, 4):
        assert window.wants_more
        window.add(File(serial, {5: 100}).refer(5))
        list(pieces(window))
    assert not window.wants_more


def test_more_is_received_while_something_is_read_or_referred_to() -> None:
    one = File(1, {5: 100})
    window = window_of(5)
    assert window.wants_more
    window.add(one.refer(5))
    [piece] = pieces(window)
    assert window.wants_more
    read(window, piece, one)
    assert window.wants_more  # the next reference may be there, and is read meanwhile
    window.add(fetch_reply(fetch_failure("x")))
    assert window.is_ready
    assert not window.wants_more  # what is there is given first


def test_a_piece_that_failed_fails_where_it_is_given() -> None:
    one, two = File(1, {5: 100}), File(2, {5: 100})
    window = window_of(5)
    window.add(one.refer(5))
    window.add(two.refer(5))
    first, second = pieces(window)
    window.was_read(second, None, "it is gone")
    assert not window.is_ready
    read(window, first, one)
    assert window.is_ready
    with pytest.raises(DirectFailed, match="it is gone"):
        given(window)


@pytest.mark.parametrize("kept", [0, 63, 5000])
def test_a_piece_that_is_cut_short_is_no_end(kept: int) -> None:
    file = File(1, {5: 9000})
    window = window_of(5)
    window.add(file.refer(5))
    [piece] = pieces(window)
    window.was_read(piece, memoryview(file.data[:kept]), "")
    with pytest.raises(DirectFailed, match="was cut short"):
        given(window)


def test_the_chunk_of_another_place_fails() -> None:
    file = File(1, {5: 9000, 6: 9000})
    window = window_of(5)
    window.add(file.refer(5))
    [piece] = pieces(window)
    other = file.offsets[6]
    window.was_read(piece, memoryview(file.data[other : other + piece.length]), "")
    with pytest.raises(DirectFailed, match="another chunk"):
        given(window)


def test_references_are_of_the_partition_at_its_turn() -> None:
    file = File(1, {5: 100, 6: 100})
    window = window_of(5, 6)
    window.add(fetch_reply(fetch_end(0, 5)))
    window.add(file.refer(6))
    window.add(fetch_reply(fetch_end(0, 6)))
    with pytest.raises(DirectFailed, match="behind the last part"):
        window.add(file.refer(6))
    one = File(1, {5: 100, 9: 100})
    two = window_of(6, 7)
    two.add(one.refer(5))  # its name spans 6, so its header tells
    [piece] = pieces(two)
    read(two, piece, one)
    with pytest.raises(DirectFailed, match="another chunk"):
        given(two)


@pytest.mark.parametrize("seed", range(40))
def test_any_stream_read_in_any_order(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(seed)
    monkeypatch.setattr(direct_window, "PIECE_BYTES", rng.choice((1, 3, 64)) * ALIGNMENT)
    partitions = sorted(rng.sample(range(40), rng.randint(2, 12)))
    files = [
        File(serial, {p: rng.choice((1, 4032, 4033, 30_000)) for p in partitions})
        for serial in range(1, rng.randint(2, 5))
    ]
    replies: list[FetchReply] = []
    expected: list[str | bytes] = []
    for partition in partitions:
        for file in files:
            if rng.random() < 0.3:
                text = rng.randbytes(rng.randint(1, 5000))
                replies.append(fetch_reply(fetch_section(len(text), stored=False)))
                replies.append(fetch_reply(fetch_data([memoryview(text)])))
                expected.append(text)
            replies.append(file.refer(partition))
            expected.append(file.bodies[partition])
        replies.append(fetch_reply(fetch_end(0, partition)))
        expected.append("end")
    room = rng.choice((0, 10, 1000)) * ALIGNMENT
    window, under_way = window_of(*partitions), list[Piece]()
    taken = Taken()
    while replies or not window.is_empty:
        if rng.random() < 0.5 and replies and window.wants_more:
            window.add(replies.pop(0))
        under_way += pieces(window, room)
        if under_way and rng.random() < 0.5:
            read(window, under_way.pop(rng.randrange(len(under_way))), *files)
        taken.take(window)
    assert taken.found == expected, seed
    assert (window.held_bytes, len(window.under_way)) == (0, 0)
