"""The picture of how large partitions are."""

from __future__ import annotations

import numpy as np
import pytest

from cosco.protocol.finished_exchange import SIZES_MAX, size_bars


def test_few_partitions_are_shown_each() -> None:
    sizes = np.array([3, 0, 2**64 - 1], dtype=np.uint64)
    assert size_bars(sizes) == (3, 0, 2**64 - 1)
    assert size_bars(sizes[:0]) == ()


@pytest.mark.parametrize("partitions", [SIZES_MAX, SIZES_MAX + 1, 1000, 4096, 1 << 20])
@pytest.mark.parametrize("large", [0, 0.5, 1])
def test_a_large_one_is_seen_among_many(partitions: int, large: float) -> None:
    sizes = np.ones(partitions, dtype=np.uint64)
    at = round((partitions - 1) * large)
    sizes[at] = 1 << 40
    picture = size_bars(sizes)
    assert SIZES_MAX / 2 < len(picture) <= SIZES_MAX
    each = -(-partitions // SIZES_MAX)
    assert [index for index, size in enumerate(picture) if size > 1] == [at // each]
    assert set(picture) == {1, 1 << 40}
