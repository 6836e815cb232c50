"""Pictures and lists of partition sizes: they add up, and show what is large."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cosco.metadata.state.partition_sizes import kept_picture, size_page, size_picture
from cosco.protocol import finished_exchange

SIZES = st.lists(st.integers(0, 1 << 50), min_size=1, max_size=300)


@given(SIZES, st.integers(1, 40))
def test_bands_have_each_partition_once_and_all_bytes(sizes: list[int], bands: int) -> None:
    picture = size_picture(np.array(sizes, np.uint64), bands)
    assert len(picture.bands) == min(bands, len(sizes))
    at = 0
    for band in picture.bands:
        part = sizes[at : at + band.count]
        assert (band.first, band.raw_bytes, band.largest_bytes) == (at, sum(part), max(part))
        at += band.count
    assert at == len(sizes)
    assert picture.quantiles[0] == min(sizes)
    assert picture.quantiles[-1] == max(sizes)
    assert list(picture.quantiles) == sorted(picture.quantiles)
    assert picture.mean_bytes == pytest.approx(sum(sizes) / len(sizes))


def test_skew_is_the_largest_by_the_mean() -> None:
    assert size_picture(np.array([1, 1, 1, 9], np.uint64)).skew == 3.0
    assert size_picture(np.zeros(4, np.uint64)).skew == 0.0


@given(SIZES | st.integers(257, 1000).map(lambda count: [n * n % 997 for n in range(count)]))
def test_what_is_kept_of_an_exchange_gives_its_picture(sizes: list[int]) -> None:
    raw_bytes = np.array(sizes, np.uint64)
    kept = kept_picture(finished_exchange.size_bars(raw_bytes), len(sizes), sum(sizes))
    assert kept is not None
    whole = size_picture(raw_bytes, 1000)
    assert kept.largest_bytes == whole.largest_bytes == max(sizes)
    assert kept.mean_bytes == pytest.approx(whole.mean_bytes)
    assert kept.skew == pytest.approx(whole.skew)
    if len(sizes) <= 256:
        assert (kept.bands, kept.quantiles) == (whole.bands, whole.quantiles)
        return
    assert kept.quantiles == (None, None, None, None, max(sizes))
    at = 0
    for band in kept.bands:
        part = sizes[at : at + band.count]
        assert (band.first, band.raw_bytes, band.largest_bytes) == (at, None, max(part))
        at += band.count
    assert at == len(sizes)


def test_nothing_is_shown_of_what_was_not_kept() -> None:
    assert kept_picture((), 4, 0) is None


@given(SIZES, st.integers(1, 50), st.booleans())
def test_pages_have_each_partition_once(sizes: list[int], limit: int, by_size: bool) -> None:
    raw_bytes = np.array(sizes, np.uint64)
    rows = np.arange(len(sizes), dtype=np.uint64)
    found = []
    while page := size_page(rows, raw_bytes, len(found), limit, by_size=by_size):
        assert len(page) <= limit
        found += page
    expected = list(range(len(sizes)))
    if by_size:
        expected.sort(key=lambda partition: (-sizes[partition], partition))
    assert [one.partition for one in found] == expected
    assert all(one.rows == one.partition for one in found)
    assert [one.raw_bytes for one in found] == [sizes[p] for p in expected]
