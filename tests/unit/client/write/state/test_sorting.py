"""The portable sorter of rows, where it differs from the native one."""

from __future__ import annotations

import numpy as np
import pytest

from cosco.client.write.state import sorting
from cosco.client.write.state.batch_arguments import RowRun
from cosco.client.write.state.sorting import RowSorter
from cosco.errors import CoscoError


def run_of(*lengths: int) -> RowRun:
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return RowRun(offsets, np.zeros(sum(lengths), np.uint8))


def test_a_row_that_a_table_of_lengths_cannot_tell_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its length would be told without its upper bits, and the rest of it lost."""
    assert sorting._MAX_LENGTH == 2**32 - 1
    monkeypatch.setattr(sorting, "_MAX_LENGTH", 5000)
    sorter = RowSorter(4, 4096)
    sorter.append_sorted(1, run_of(10, 5000))
    for lengths in [(5001,), (1, 5001)]:
        with pytest.raises(CoscoError, match="a row of 5001 bytes"):
            sorter.append_sorted(1, run_of(*lengths))
    monkeypatch.setattr(sorting, "_MAX_LENGTH", 4 << 20)
    longer = (4 << 20) + 1  # than a sort buffer
    with pytest.raises(CoscoError, match=f"a row of {longer} bytes"):
        sorter.append(np.zeros(1, np.uint8), run_of(longer))
