"""When a read counts as slow, and how many may be asked for twice."""

from __future__ import annotations

import pytest

from cosco.dfs.objects.hedging import Hedging

MIB = 1 << 20


def after(*seconds: float, length: int = MIB) -> Hedging:
    hedging = Hedging()
    for one in seconds:
        hedging.read_took(length, one)
    return hedging


def test_nothing_is_slow_before_enough_is_known() -> None:
    assert Hedging().delay_s(MIB) is None
    assert after(*[0.1] * 19).delay_s(MIB) is None
    assert after(*[0.1] * 20).delay_s(MIB) == pytest.approx(0.1)


def test_the_delay_follows_what_most_reads_take() -> None:
    hedging = after(*[0.1] * 95, *[9.0] * 5)
    assert hedging.delay_s(MIB) == pytest.approx(9.0)
    hedging = after(*[0.1] * 97, *[9.0] * 3)
    assert hedging.delay_s(MIB) == pytest.approx(0.1)
    for _ in range(200):
        hedging.read_took(MIB, 0.5)
    assert hedging.delay_s(MIB) == pytest.approx(0.5), "what was long ago is forgotten"
    assert after(*[0.001] * 50).delay_s(MIB) == pytest.approx(0.02), "never at once"


def test_lengths_are_not_mixed() -> None:
    hedging = after(*[1.0] * 50, length=8 * MIB)
    assert hedging.delay_s(8 * MIB) == pytest.approx(1.0)
    assert hedging.delay_s(8 * MIB - 4096) == pytest.approx(1.0)
    assert hedging.delay_s(4096) is None
    assert hedging.delay_s(64 * MIB) is None
    assert hedging.delay_s(0) is None


def test_one_request_in_twenty_may_be_added() -> None:
    hedging = after(*[0.1] * 19)
    assert not hedging.take()
    hedging.read_took(MIB, 0.1)
    assert hedging.take()
    assert not hedging.take()
    taken = 0
    for _ in range(1000):
        hedging.read_took(MIB, 0.1)
        taken += hedging.take()
    assert taken == 50


def test_a_quiet_time_saves_a_few_and_no_more() -> None:
    hedging = after(*[0.1] * 10_000)
    assert sum(hedging.take() for _ in range(100)) == 8
