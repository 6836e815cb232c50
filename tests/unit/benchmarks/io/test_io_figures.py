from __future__ import annotations

from typing import Literal

import pytest
from cosco_bench.io.io_figures import ShuffleIo, histogram, ratios

from cosco.dfs import IOEvent

MIB = 1 << 20


def ios(kind: Literal["read", "write"], *lengths: int) -> list[IOEvent]:
    """IOs that no rule joins."""
    return [IOEvent(kind, f"f{n}", 0, length, float(n), 0.1) for n, length in enumerate(lengths)]


SORT = ShuffleIo(
    writes=ios("write", 2 * MIB, 2 * MIB),
    reads=ios("read", MIB, MIB, MIB, MIB),
    spill_writes=ios("write", 2 * MIB, 2 * MIB),
    spill_reads=ios("read", 4 * MIB),
    bytes_raw=8 * MIB,
    bytes_stored=4 * MIB,
)
COSCO = ShuffleIo(
    writes=ios("write", 4 * MIB), reads=ios("read", 4 * MIB), bytes_raw=8 * MIB,
    bytes_stored=4 * MIB,
)  # fmt: skip


def test_a_histogram_has_powers_of_two_that_include_their_end() -> None:
    assert histogram([]) == []
    assert histogram([0, 1, 4096, 4097, 8192, 8193, MIB]) == [
        {"up_to_bytes": 4096, "count": 3, "bytes": 4097},
        {"up_to_bytes": 8192, "count": 2, "bytes": 12289},
        {"up_to_bytes": 16384, "count": 1, "bytes": 8193},
        {"up_to_bytes": MIB, "count": 1, "bytes": MIB},
    ]


def test_spills_count_as_written_and_stand_apart() -> None:
    shown = SORT.to_json()
    assert shown["write_amplification"] == 2.0
    assert shown["write_amplification_raw"] == 1.0
    assert (shown["writes"]["count"], shown["reads"]["count"]) == (2, 4)
    assert shown["reads"]["mean_bytes"] == MIB
    assert shown["spills"]["writes"]["bytes"] == 4 * MIB
    times = shown["service_time_s"]
    assert times["reads"] == pytest.approx(4 * 0.0082 + 4 / 180)
    assert times["writes"] == pytest.approx(2 * 0.0082 + 4 / 180)
    assert times["spills"] == pytest.approx(3 * 0.0082 + 8 / 180)
    assert times["total"] == pytest.approx(times["reads"] + times["writes"] + times["spills"])
    assert times == pytest.approx(shown["service_time_without_coalescing_s"])


def test_ratios_say_how_many_times_better_the_first_is() -> None:
    found = ratios(COSCO.to_json(), SORT.to_json())
    assert found["mean_write_bytes"] == 2
    assert found["mean_read_bytes"] == 4
    assert found["write_amplification"] == 2
    total = (9 * 0.0082 + 16 / 180) / (2 * 0.0082 + 8 / 180)
    assert found["service_time"] == pytest.approx(total)


def test_no_io_has_a_mean_of_zero() -> None:
    shown = COSCO.to_json()
    assert shown["spills"]["reads"] == {
        "count": 0, "bytes": 0, "mean_bytes": 0.0, "histogram": [],
    }  # fmt: skip
    assert shown["service_time_s"]["spills"] == 0
