from __future__ import annotations

from cosco.protocol.wire import fetch_end, fetch_replies, spb
from cosco.shuffle_service.state.reply_pack import HOLD_S, MAX_REPLIES, ReplyPack


def ends(messages: list[bytes]) -> list[list[int]]:
    """By message: the partitions whose ends it has."""
    found = [list(fetch_replies(message)) for message in messages]
    return [[one.partition for one in of if isinstance(one, spb.PartEnd)] for of in found]


def test_what_waits_goes_in_one_message_in_order() -> None:
    pack = ReplyPack(packs=True)
    assert pack.pop() == []
    for partition in (3, 1, 2):
        assert pack.has_room(10, 1000)
        pack.add(fetch_end(0, partition), 0.0)
    assert ends(pack.pop()) == [[3, 1, 2]]
    assert pack.pop() == []


def test_without_packing_nothing_waits() -> None:
    pack = ReplyPack(packs=False)
    assert pack.has_room(10, 1000)
    assert not pack.is_due(0.0)
    pack.add(fetch_end(0, 3), 0.0)
    pack.add(fetch_end(0, 4), 0.0)
    assert not pack.has_room(10, 1000)
    assert pack.is_due(0.0)
    assert ends(pack.pop()) == [[3], [4]]


def test_there_is_room_up_to_the_limit_and_for_anything_where_nothing_waits() -> None:
    pack = ReplyPack(packs=True)
    assert pack.has_room(5000, 100)
    pack.add(bytes(40), 0.0)
    pack.add(bytes(40), 0.0)
    assert pack.has_room(20, 100)
    assert not pack.has_room(21, 100)
    assert not pack.has_room(1, 50)  # there are more readers by now
    pack.pop()
    assert pack.has_room(100, 100)


def test_a_message_has_so_many_replies_however_small() -> None:
    pack = ReplyPack(packs=True)
    for _ in range(MAX_REPLIES):
        assert pack.has_room(0, 1 << 20)
        pack.add(b"", 0.0)
    assert not pack.has_room(0, 1 << 20)


def test_what_has_waited_is_due() -> None:
    pack = ReplyPack(packs=True)
    assert not pack.is_due(100.0)
    pack.add(fetch_end(0, 1), 5.0)
    pack.add(fetch_end(0, 2), 5.0 + HOLD_S)
    assert not pack.is_due(5.0 + HOLD_S / 2)
    assert pack.is_due(5.0 + HOLD_S)
    pack.pop()
    assert not pack.is_due(5.0 + HOLD_S)
