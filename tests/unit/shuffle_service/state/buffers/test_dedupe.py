"""What a daemon remembers of the blocks it holds."""

from __future__ import annotations

from support.daemon_mechanics import dedupe_index

from cosco.shuffle_service.state.buffers.dedupe import DedupeBound

A, B = (0, 1), (0, 2)  # two attempts of one mapper


def test_only_what_is_held_whole_is_a_duplicate():
    index = dedupe_index()
    index.claim(A, 3, 0, 10)
    assert not index.claim(A, 3, 0, 10)
    assert not index.claim(A, 3, 2, 5)
    assert index.claim(A, 3, 5, 11)
    assert index.claim(A, 4, 0, 10)
    assert index.claim(B, 3, 0, 10)


def test_memory_grows_with_gaps_not_with_rows():
    index = dedupe_index()
    for start in range(0, 10_000, 10):
        index.claim(A, 0, start, start + 10)
    assert index.entries == 1
    assert not index.claim(A, 0, 0, 10_000)


def test_a_forgotten_sender_is_no_longer_counted():
    index = dedupe_index()
    for partition in range(5):
        index.claim(A, partition, 0, 1)
    index.claim(B, 0, 0, 1)
    assert index.oldest() == A
    index.forget(A)
    assert index.entries == 1
    assert index.claim(A, 0, 0, 1)
    assert not index.claim(B, 0, 0, 1)
    index.forget(A)
    assert index.entries == 1


def test_nothing_is_kept_of_a_dropped_assignment_though_its_senders_hung_up():
    bound, other, dropped = DedupeBound(1000), dedupe_index(), dedupe_index()
    for index in (other, dropped):
        for partition in range(100):
            index.claim(A, partition, 0, 1)
        bound.grew(index, 100)
        bound.hung_up(A, [index])
    bound.dropped(dropped)
    assert bound.entries == other.entries == 100
    assert dropped.entries == 0
    assert not dropped.knows(A)
