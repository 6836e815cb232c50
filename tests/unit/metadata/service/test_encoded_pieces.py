from __future__ import annotations

from cosco.metadata.service.encoded_pieces import EncodedPieces


class Thing:
    """Encoded as many bytes as times so far, of a length of its own."""

    def __init__(self, length: int) -> None:
        self.length, self.times = length, 0

    def encode(self) -> bytes:
        self.times += 1
        return bytes([self.times]) * self.length


def test_an_object_is_encoded_once_and_its_equal_again() -> None:
    parts = EncodedPieces(100)
    one, other = Thing(10), Thing(20)
    assert [parts.get(one, one.encode) for _ in range(3)] == [b"\1" * 10] * 3
    assert parts.get(other, other.encode) == b"\1" * 20
    assert parts.get(one, one.encode) == b"\1" * 10


def test_those_that_were_not_asked_for_go_first() -> None:
    parts = EncodedPieces(100)
    things = [Thing(40) for _ in range(3)]
    for at in (0, 1, 0, 2, 0):  # the third puts out the second
        parts.get(things[at], things[at].encode)
    assert [thing.times for thing in things] == [1, 1, 1]
    parts.get(things[1], things[1].encode)
    assert things[1].times == 2


def test_what_is_too_large_is_kept_until_another_comes() -> None:
    parts = EncodedPieces(10)
    large, small = Thing(50), Thing(1)
    for thing in (large, large, small, large):
        parts.get(thing, thing.encode)
    assert (large.times, small.times) == (2, 1)
