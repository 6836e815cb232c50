"""The indexes that are kept: those asked for last, and never more than there is room for."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cosco.format.segment import ENTRY_BYTES, SegmentIndex
from cosco.shuffle_service.state.segments.segment_indexes import KeptIndexes


def index_of(chunks: int) -> SegmentIndex:
    index = SegmentIndex()
    for n in range(chunks):
        index.add(n, 1, 4096 * n, 1)
    return index


COST = index_of(10).cost_bytes

PATHS = st.sampled_from("abcde")
SIZES = st.sampled_from([4096, 8192])
STEPS = st.lists(
    st.tuples(st.just("put"), PATHS, SIZES, st.integers(0, 60))
    | st.tuples(st.sampled_from(["get", "forget"]), PATHS, SIZES, st.just(0)),
    max_size=40,
)


@given(STEPS, st.integers(0, 5000))
def test_it_keeps_those_asked_for_last_up_to_its_bound(
    steps: list[tuple[str, str, int, int]], bytes_max: int
) -> None:
    kept = KeptIndexes(bytes_max)
    known: dict[tuple[str, int], SegmentIndex] = {}  # the one asked for last is last
    for action, path, size_bytes, chunks in steps:
        key = (path, size_bytes)
        if action == "put":
            known.pop(key, None)
            known[key] = index_of(chunks)
            kept.put(path, size_bytes, known[key])
            while sum(index.cost_bytes for index in known.values()) > bytes_max:
                del known[next(iter(known))]
        elif action == "forget":
            known.pop(key, None)
            kept.forget(path, size_bytes)
        else:
            found = kept.get(path, size_bytes)
            assert found is known.get(key)
            if found is not None:
                known[key] = known.pop(key)
        assert len(kept) == len(known)
        assert kept.used_bytes == sum(index.cost_bytes for index in known.values()) <= bytes_max


def test_a_file_of_another_length_is_another_one() -> None:
    kept = KeptIndexes(10 * COST)
    kept.put("a", 4096, index := index_of(10))
    assert kept.get("a", 8192) is None
    assert kept.get("a", 4096) is index


def test_one_that_is_larger_than_all_the_room_is_not_kept() -> None:
    kept = KeptIndexes(COST)
    kept.put("a", 4096, index_of(11))
    assert (len(kept), kept.used_bytes) == (0, 0)


def test_what_is_asked_for_stays_and_the_others_go() -> None:
    kept = KeptIndexes(2 * COST)
    for path in "ab":
        kept.put(path, 4096, index_of(10))
    assert kept.get("a", 4096) is not None
    kept.put("c", 4096, index_of(10))
    assert [kept.get(path, 4096) is not None for path in "abc"] == [True, False, True]


def test_the_cost_of_an_index_grows_with_its_chunks() -> None:
    """It is what holds the bound, so it must not be less than what its arrays take."""
    costs = [index_of(n).cost_bytes for n in (0, 1, 1000)]
    assert costs[1] - costs[0] == ENTRY_BYTES
    index = index_of(1000)
    arrays = (index.partitions, index.blocks, index.offsets, index.body_bytes)
    assert sum(one.itemsize * len(one) for one in arrays) == 1000 * ENTRY_BYTES
