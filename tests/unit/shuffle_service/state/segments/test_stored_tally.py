"""What a daemon tells of the bytes that it has in stores."""

from __future__ import annotations

from cosco.protocol.records import StoredBytes
from cosco.shuffle_service.state.segments.stored_tally import StoredTally


def test_what_has_changed_is_told_until_it_was_heard() -> None:
    tally = StoredTally()
    assert not tally.to_tell()
    tally.wrote(1, 10)
    tally.wrote(2, 5)
    tally.wrote(1, 7)
    told = tally.to_tell()
    assert told == (StoredBytes(1, 17), StoredBytes(2, 5)) == tally.to_tell()
    tally.wrote(2, 1)  # before the answer came
    tally.told(told)
    assert tally.to_tell() == (StoredBytes(2, 6),)
    tally.told(tally.to_tell())
    assert not tally.to_tell()


def test_all_is_told_again_where_it_may_have_been_lost() -> None:
    tally = StoredTally()
    for number in (1, 2):
        tally.wrote(number, number)
    tally.told(tally.to_tell())
    tally.closed(1)
    tally.repeat()
    assert tally.to_tell() == (StoredBytes(2, 2),)


def test_what_was_removed_is_told_once_as_nothing() -> None:
    tally = StoredTally()
    tally.wrote(1, 10)
    tally.told(tally.to_tell())
    tally.wrote(1, -10)
    assert tally.to_tell() == (StoredBytes(1, 0),)
    tally.told(tally.to_tell())
    tally.repeat()
    assert not tally.to_tell()


def test_one_heartbeat_has_room_for_some() -> None:
    tally = StoredTally()
    for number in range(10_000):
        tally.wrote(number, 1)
    heard: list[StoredBytes] = []
    while told := tally.to_tell():
        assert len(told) <= 4096
        tally.told(told)
        heard += told
    assert [one.number for one in heard] == list(range(10_000))
