"""What flash has saved, by IOs of two tiers that are given."""

from __future__ import annotations

import pytest
from cosco_bench.io.spindle import SPINDLE
from cosco_bench.io.tier_figures import tier_io

from cosco.dfs import IOEvent, IOKind

MIB = 1 << 20


def io(kind: IOKind, path: str, offset: int, length: int, start: float) -> IOEvent:
    return IOEvent(kind, path, offset, length, start, 0.1)


EVENTS = [
    io("write", "flash:a", 0, 4 * MIB, 0.0),
    io("write", "flash:b", 0, 4 * MIB, 1.0),
    io("write", "c", 0, 2 * MIB, 2.0),  # past flash
    io("read", "flash:a", 0, 4 * MIB, 3.0),  # by the move
    io("write", "a", 0, 4 * MIB, 4.0),
    io("read", "flash:a", 0, MIB, 5.0),
    io("read", "a", 2 * MIB, MIB, 6.0),
    io("read", "flash:b", 0, MIB, 7.0),
    IOEvent("list", "x/", 0, 0, 8.0, 0.1, 3),
]


def test_what_never_got_to_the_slow_tier_is_saved() -> None:
    found = tier_io(EVENTS).to_json()
    assert found["flash"]["writes"]["bytes"] == 8 * MIB
    assert found["flash"]["reads"]["count"] == 2
    assert (found["moved"]["count"], found["moved"]["bytes"]) == (1, 4 * MIB)
    assert (found["slow"]["write"]["count"], found["slow"]["read"]["count"]) == (2, 1)
    assert found["without_flash"]["write"]["bytes"] == 10 * MIB
    assert found["without_flash"]["read"]["count"] == 3
    saved = found["saved"]
    assert saved["written_bytes"] == 4 * MIB
    assert saved["bytes"] == 6 * MIB
    assert saved["requests"] == {"list": 0, "read": 2, "write": 1}
    assert saved["service_time_s"] == pytest.approx(SPINDLE.service_s(3, 6 * MIB))


def test_without_flash_nothing_is_saved() -> None:
    found = tier_io([event for event in EVENTS if not event.path.startswith("flash:")]).to_json()
    assert found["saved"]["bytes"] == found["saved"]["service_time_s"] == 0
    assert set(found["saved"]["requests"].values()) == {0}
