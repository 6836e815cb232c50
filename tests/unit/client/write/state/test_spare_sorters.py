"""Native sorters that are kept for the next packers."""

from __future__ import annotations

import numpy as np
import pytest

from cosco.client.write.state import native_packing
from cosco.client.write.state.batch_arguments import RowRun
from cosco.client.write.state.native_packing import MAX_SPARE_BYTES, NativeRowSorter
from cosco.mechanics import NATIVE

MIB = 1 << 20

pytestmark = pytest.mark.skipif(NATIVE is None, reason="needs the native part")


@pytest.fixture(autouse=True)
def nothing_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native_packing, "_spare", [])


def closed(limits: list[int]) -> None:
    for sorter in [NativeRowSorter(NATIVE, 4, limit) for limit in limits]:
        sorter.close()


def kept() -> list[int]:
    return [limit for limit, _ in native_packing._spare]


def test_writers_at_the_same_time_find_a_sorter_each() -> None:
    closed([4 * MIB] * 3)
    sorters = [native for _, native in native_packing._spare]
    again = [NativeRowSorter(NATIVE, 4, 4 * MIB) for _ in range(3)]
    assert kept() == []
    assert {id(one._sorter) for one in again} == {id(one) for one in sorters}


def test_what_is_kept_is_bounded_and_the_last_is_kept_longest() -> None:
    closed([MAX_SPARE_BYTES // 4] * 6)
    assert kept() == [MAX_SPARE_BYTES // 4] * 4
    closed([MAX_SPARE_BYTES // 2])
    assert kept() == [MAX_SPARE_BYTES // 4] * 2 + [MAX_SPARE_BYTES // 2]
    closed([2 * MAX_SPARE_BYTES])
    assert kept() == []


def test_a_sorter_that_was_kept_knows_nothing_of_its_last_rows() -> None:
    sorter = NativeRowSorter(NATIVE, 4, MIB)
    rows = RowRun(np.array([0, 3]), np.frombuffer(b"old", np.uint8))
    sorter.append(np.array([1], np.uint8), rows)
    sorter.close()
    again = NativeRowSorter(NATIVE, 2, MIB)
    assert again.append_rows([0], [b"new"])
    drained = again.drain()
    assert drained.partition() == 0
    blocks = NATIVE.BlockWriter(1, 2, 3, 0, 2)
    data, count = drained.fill(blocks, 2, MIB)
    assert (count, data[-3:]) == (1, b"new")
    assert drained.partition() is None
