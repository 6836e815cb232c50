"""The buddy pool against a model: pages never overlap, and nothing gets lost."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.daemon_mechanics import page_pool

from cosco.shuffle_service.state.buffers.pool import (
    MAX_PAGE_BYTES,
    MIN_PAGE_BYTES,
    round_up,
)

CAPACITY = 4 * MAX_PAGE_BYTES


@given(st.lists(st.integers(1, CAPACITY // 2), max_size=60), st.randoms(use_true_random=False))
def test_pages_are_disjoint_aligned_and_all_come_back(lengths, random):
    pool = page_pool(CAPACITY)
    held = []
    for length in lengths:
        if held and random.random() < 0.4:
            pool.free(held.pop(random.randrange(len(held))))
        if round_up(length) > pool.free_bytes:
            with pytest.raises(MemoryError):
                pool.allocate(length)
            continue
        held.append(pool.allocate(length))
        assert sum(page.size for page in held[-1]) == round_up(length)
        everything = sorted(page for pages in held for page in pages)
        for page in everything:
            assert page.offset % page.size == 0 and page.offset + page.size <= CAPACITY
        for before, after in itertools.pairwise(everything):
            assert before.offset + before.size <= after.offset
        assert pool.free_bytes == CAPACITY - sum(page.size for page in everything)
    for pages in held:
        pool.free(pages)
    assert pool.free_bytes == CAPACITY
    assert [page.size for page in pool.allocate(CAPACITY)] == [MAX_PAGE_BYTES] * 4


def test_fragmented_memory_is_used_to_the_last_page():
    pool = page_pool(MAX_PAGE_BYTES)
    small = [pool.allocate(1) for _ in range(MAX_PAGE_BYTES // MIN_PAGE_BYTES)]
    for pages in small[::2]:
        pool.free(pages)
    half = pool.allocate(MAX_PAGE_BYTES // 2)
    assert {page.size for page in half} == {MIN_PAGE_BYTES}
    assert pool.free_bytes == 0


@pytest.mark.parametrize("capacity", [0, -MAX_PAGE_BYTES, MAX_PAGE_BYTES + 1])
def test_a_capacity_of_no_whole_pages_is_refused(capacity):
    with pytest.raises(ValueError, match="multiple"):
        page_pool(capacity)
