from __future__ import annotations

import pytest
from pyroaring import BitMap

from cosco.errors import ServiceUnavailable
from cosco.metadata.state.waiting_calls import Waiting, memory_bytes

ROOM_BYTES = 1 << 20
#: Each 65,536 of these have a part of the set of their own, for each of which it has a head.
FAR_APART = range(0, 1 << 31, 1 << 16)


def test_the_last_missing_mapper_completes_all_readers_of_the_set() -> None:
    waiting: Waiting[str] = Waiting(10, ROOM_BYTES)
    named, missing = BitMap([1, 2, 3]), BitMap([2, 3])
    waiting.add_reader(1, named, missing, "a")
    waiting.add_reader(1, named, missing, "b")
    waiting.add_reader(1, BitMap([3, 4]), BitMap([3, 4]), "c")
    assert waiting.committed(1, 2) == []
    assert waiting.committed(1, 3) == ["a", "b"]
    assert waiting.committed(1, 4) == ["c"]
    assert len(waiting) == 0


def test_a_reader_that_comes_later_shares_what_is_still_missing() -> None:
    waiting: Waiting[str] = Waiting(10, ROOM_BYTES)
    named = BitMap([1, 2])
    waiting.add_reader(1, named, BitMap([1, 2]), "a")
    assert waiting.committed(1, 1) == []
    waiting.add_reader(1, named, BitMap([2]), "b")
    assert waiting.committed(1, 2) == ["a", "b"]


def test_commits_of_others_do_not_matter() -> None:
    waiting: Waiting[str] = Waiting(10, ROOM_BYTES)
    waiting.add_reader(1, BitMap([7]), BitMap([7]), "a")
    assert waiting.committed(2, 7) == []
    assert waiting.committed(1, 8) == []
    assert waiting.committed(1, 7) == ["a"]


def test_who_waits_longest_is_woken_first() -> None:
    waiting: Waiting[int] = Waiting(100, ROOM_BYTES)
    readers = list(range(40, 20, -1))  # not in the order of their hashes
    for mapper, reader in enumerate(readers):  # each by a key of its own
        waiting.add_reader(1, BitMap([mapper, 99]), BitMap([99]), reader)
    assert waiting.committed(1, 99) == readers
    for reader in readers:
        waiting.add_reader(1, BitMap([99]), BitMap([99]), reader)
    assert waiting.exchange(1) == readers


def test_the_callers_bitmap_is_left_alone() -> None:
    waiting: Waiting[str] = Waiting(10, ROOM_BYTES)
    missing = BitMap([1, 2])
    waiting.add_reader(1, missing, missing, "a")
    waiting.committed(1, 1)
    assert missing == BitMap([1, 2])


def test_closing_wakes_everyone_of_the_exchange() -> None:
    waiting: Waiting[str] = Waiting(10, ROOM_BYTES)
    waiting.add_reader(1, BitMap([1]), BitMap([1]), "a")
    waiting.add_driver(1, "driver")
    waiting.add_reader(2, BitMap([1]), BitMap([1]), "other")
    assert waiting.exchange(1) == ["a", "driver"]
    assert waiting.exchange(1) == []
    assert waiting.committed(1, 1) == []
    assert waiting.everyone() == ["other"]


def test_partitions_that_lost_rows_wait_apart() -> None:
    waiting: Waiting[str] = Waiting(10, ROOM_BYTES)
    named = BitMap([1, 2, 3])
    waiting.add_reader(1, named, BitMap([3]), "whole")
    waiting.add_reader(1, named, BitMap([1, 3]), "lost", rebuilt=0)
    waiting.add_reader(1, named, BitMap([2]), "also lost", rebuilt=7)
    assert waiting.committed(1, 1) == []
    assert waiting.committed(1, 3) == ["whole", "lost"]
    assert waiting.committed(1, 2) == ["also lost"]


def test_writers_wait_for_epochs_of_all_their_ranges() -> None:
    waiting: Waiting[str] = Waiting(10, ROOM_BYTES)
    waiting.add_writer(1, {0, 2}, "both")
    waiting.add_writer(1, [2], "one")
    waiting.add_writer(2, [0], "other")
    waiting.add_reader(1, BitMap([2]), BitMap([2]), "reader")
    assert waiting.begun(1, 2) == ["one"]
    assert waiting.begun(1, 1) == []
    assert waiting.begun(1, 0) == ["both"]
    assert waiting.committed(1, 2) == ["reader"]
    assert waiting.exchange(2) == ["other"]


def test_reports_wait_for_a_probe_whatever_number_their_daemon_has() -> None:
    waiting: Waiting[str] = Waiting(10, ROOM_BYTES)
    waiting.add_report(1, "report")
    waiting.add_driver(1, "driver")
    assert waiting.exchange(1) == ["driver"]
    assert waiting.probed(2) == []
    assert waiting.probed(1) == ["report"]
    assert not waiting._by_number


def test_commits_do_not_wake_drivers() -> None:
    waiting: Waiting[str] = Waiting(10, ROOM_BYTES)
    waiting.add_driver(1, "driver")
    assert waiting.committed(1, 0) == []
    assert waiting.exchange(2) == []
    assert waiting.exchange(1) == ["driver"]
    assert waiting.exchange(1) == []


def test_whoever_goes_away_leaves_nothing_behind() -> None:
    waiting: Waiting[str] = Waiting(10, ROOM_BYTES)
    waiting.add_reader(1, BitMap([1]), BitMap([1]), "a")
    waiting.add_reader(1, BitMap([1]), BitMap([1]), "b")
    waiting.remove("a")
    waiting.remove("a")
    assert len(waiting) == 1
    waiting.remove("b")
    assert len(waiting) == 0
    assert not waiting._entries
    assert not waiting._by_number
    assert waiting.committed(1, 1) == []


def test_calls_are_bounded() -> None:
    waiting: Waiting[int] = Waiting(2, ROOM_BYTES)
    waiting.add_driver(1, 1)
    waiting.add_driver(1, 2)
    with pytest.raises(ServiceUnavailable, match="2 calls wait"):
        waiting.add_driver(2, 3)
    assert waiting.refused == {"waiting_calls": 1}
    waiting.remove(1)
    waiting.add_driver(2, 3)


def test_readers_of_several_partitions_wait_for_what_these_miss() -> None:
    waiting: Waiting[str] = Waiting(10, ROOM_BYTES)
    named, lost = BitMap([1, 2, 3]), BitMap([1, 2])
    waiting.add_reader(1, named, lost, "both", BitMap([4, 9]))
    waiting.add_reader(1, named, BitMap([1]), "four", 4)
    waiting.add_reader(1, named, BitMap([2]), "nine", BitMap([9]))
    waiting.add_reader(1, named, BitMap([3]), "elsewhere")
    assert waiting.committed(1, 1) == ["four"]
    assert waiting.committed(1, 2) == ["both", "nine"]
    assert waiting.committed(1, 3) == ["elsewhere"]


def test_before_any_loss_readers_of_one_and_of_several_partitions_share_what_is_missing() -> None:
    waiting: Waiting[str] = Waiting(10, ROOM_BYTES)
    named = BitMap([1, 2])
    waiting.add_reader(1, named, named, "one")
    assert waiting.committed(1, 1) == []
    waiting.add_reader(1, named, BitMap([2]), "several")
    assert waiting.committed(1, 2) == ["one", "several"]


def test_what_waits_is_bounded_by_its_bytes() -> None:
    waiting: Waiting[int] = Waiting(1000, ROOM_BYTES)
    some = BitMap(FAR_APART[:1000])
    waiters = 0
    with pytest.raises(ServiceUnavailable, match="--waiting-bytes") as caught:
        for waiters in range(1000):
            waiting.add_reader(1, some | BitMap([waiters]), some, waiters)
    assert caught.value.retriable
    assert waiting.refused == {"waiting_bytes": 1}
    assert 3 < waiters < 20
    assert ROOM_BYTES // 2 < waiting.held_bytes <= ROOM_BYTES
    waiting.remove(0)
    waiting.add_reader(1, some, some, 0)


def test_readers_of_the_same_mappers_hold_them_once() -> None:
    waiting: Waiting[int] = Waiting(1000, ROOM_BYTES)
    some = BitMap(FAR_APART[:1000])
    for reader in range(100):
        waiting.add_reader(1, some, some, reader)


def test_what_calls_hold_themselves_counts() -> None:
    waiting: Waiting[int] = Waiting(1000, ROOM_BYTES)
    waiting.add_driver(1, 1)
    waiting.hold(1, ROOM_BYTES // 2)
    waiting.add_driver(1, 2)
    with pytest.raises(ServiceUnavailable, match="--waiting-bytes"):
        waiting.hold(2, ROOM_BYTES // 2)
    waiting.remove(1)
    waiting.hold(2, ROOM_BYTES // 2)


def test_nothing_is_held_when_nobody_waits() -> None:
    waiting: Waiting[int] = Waiting(1000, ROOM_BYTES)
    waiting.add_reader(1, BitMap([1, 2]), BitMap([1, 2]), 1, BitMap([7]))
    waiting.add_reader(1, BitMap([1, 2]), BitMap([2]), 2)
    waiting.add_writer(1, [4], 3)
    waiting.add_group("g", 4)
    waiting.add_application("a", 5)
    waiting.add_report(9, 6)
    for waiter in range(1, 7):
        waiting.hold(waiter, 1000)
    waiting.committed(1, 1)
    waiting.committed(1, 2)
    waiting.remove(3)
    waiting.group("g")
    waiting.everyone()
    assert waiting.held_bytes == 0


def test_what_a_set_takes_is_not_what_its_members_say() -> None:
    assert memory_bytes(BitMap(range(1 << 22))) < 10_000
    assert memory_bytes(BitMap(FAR_APART)) > 2_000_000
    assert memory_bytes(BitMap()) == 0


def test_who_waits_for_the_next_commit_is_woken_by_any_of_the_exchange() -> None:
    waiting: Waiting[str] = Waiting(10, ROOM_BYTES)
    waiting.add_watcher(1, "a")
    waiting.add_watcher(1, "b")
    waiting.add_reader(1, BitMap([7]), BitMap([7]), "c")
    assert waiting.committed(2, 7) == []
    assert waiting.committed(1, 3) == ["a", "b"]
    assert waiting.committed(1, 7) == ["c"]
    waiting.add_watcher(1, "d")
    assert waiting.exchange(1) == ["d"]
    assert (len(waiting), waiting.held_bytes) == (0, 0)
