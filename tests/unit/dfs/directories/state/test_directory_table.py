"""Which directory takes a put, which is out, when it is tried again."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cosco.dfs.directories.state.directory_table import (
    FRESH_S,
    PROBE_MAX_S,
    STEADY_S,
    Change,
    DirectoryTable,
    NoPick,
    Pick,
    Reserve,
)

MIB, GIB = 1 << 20, 1 << 30


def table(*free: int, puts_max: int = 3, reserve: Reserve | None = None) -> DirectoryTable:
    """Directories with these free bytes, of twice as many, measured at 0."""
    made = DirectoryTable(len(free), puts_max=puts_max, reserve=reserve)
    for index, free_bytes in enumerate(free):
        made.measured(index, free_bytes, 2 * free_bytes, 0.0)
    return made


def shares(made: DirectoryTable, seconds: dict[int, float], puts: int = 400) -> Counter[int]:
    """Where puts of 1 MiB go, one after another, that take so long in each directory."""
    found: Counter[int] = Counter()
    for _ in range(puts):
        pick = made.pick(MIB, 0.0)
        assert isinstance(pick, Pick)
        assert not pick.is_stale
        put = made.began(pick.index, MIB, 0.0)
        made.ended(pick.index, put, seconds[pick.index], ok=True)
        made.measured(pick.index, made.state(pick.index).free_bytes, 0, 0.0)
        found[pick.index] += 1
    return found


def test_puts_are_shared_by_free_space() -> None:
    found = shares(table(300 * GIB, 100 * GIB), {0: 0.1, 1: 0.1})
    assert found[0] == pytest.approx(300, abs=8)


def test_puts_are_shared_by_speed() -> None:
    found = shares(table(GIB, GIB), {0: 0.1, 1: 0.3})
    assert found[0] == pytest.approx(300, abs=12)


def test_a_slow_one_is_measured_now_and_then() -> None:
    """However slow it is: else it would never be known to be fast again."""
    found = shares(table(GIB, GIB), {0: 0.001, 1: 100.0})
    assert found[1] == pytest.approx(400 / 9, abs=6)


def test_one_whose_put_takes_long_already_gets_less() -> None:
    made = table(GIB, GIB)
    for index in (0, 1):
        made.ended(index, made.began(index, MIB, 0.0), 0.1, ok=True)
    slow = made.pick(MIB, 0.1)
    assert isinstance(slow, Pick)
    made.began(slow.index, MIB, 0.1)
    for index in (0, 1):
        made.measured(index, GIB, 0, 9.9)
    picked = Counter[int]()
    for _ in range(9):
        pick = made.pick(MIB, 9.9)
        assert isinstance(pick, Pick)
        made.ended(pick.index, made.began(pick.index, MIB, 9.9), 10.0, ok=True)
        picked[pick.index] += 1
    assert picked[1 - slow.index] >= 7


def test_what_is_known_of_free_bytes_grows_old() -> None:
    made = table(GIB)
    assert made.pick(MIB, FRESH_S - 0.01) == Pick(0, is_stale=False)
    assert made.pick(MIB, FRESH_S) == Pick(0, is_stale=True)


@pytest.mark.parametrize(
    ("reserve", "total", "left"),
    [
        (Reserve(), 100 * MIB, 0),
        (Reserve(size_bytes=7 * MIB), 100 * MIB, 7 * MIB),
        (Reserve(share=0.25), 100 * MIB, 25 * MIB),
        (Reserve(size_bytes=30 * MIB, share=0.25), 100 * MIB, 30 * MIB),
    ],
)
def test_the_reserve_is_left(reserve: Reserve, total: int, left: int) -> None:
    """Also by puts that are under way together."""
    made = DirectoryTable(1, puts_max=1000, reserve=reserve)
    made.measured(0, total, total, 0.0)
    puts = 0
    while isinstance(made.pick(MIB, 0.0), Pick):
        made.began(0, MIB, 0.0)
        puts += 1
    assert puts * MIB == total - left
    assert made.pick(MIB, 0.0) is NoPick.BUSY  # one of them may fail
    assert not made.pop_changes()
    for put in range(1, puts + 1):
        made.ended(0, put, 0.1, ok=True)
    assert made.pick(MIB, 0.0) is NoPick.NONE
    [change] = made.pop_changes()
    assert (change.is_out, change.cause) == (True, "full")


def test_puts_at_a_time_are_bounded_in_each() -> None:
    made = table(100 * GIB, GIB, puts_max=2)
    for _ in range(4):
        pick = made.pick(MIB, 0.0)
        assert isinstance(pick, Pick)
        made.began(pick.index, MIB, 0.0)
    assert made.pick(MIB, 0.0) is NoPick.BUSY
    made.ended(1, 3, 0.0, ok=False)
    assert made.pick(MIB, 0.0) in (Pick(0, is_stale=False), Pick(1, is_stale=False))


def test_a_full_one_is_back_with_room() -> None:
    made = table(10 * MIB, GIB, reserve=Reserve(size_bytes=8 * MIB))
    for _ in range(2):
        assert made.pick(4 * MIB, 0.0) == Pick(1, is_stale=False)
    [change] = made.pop_changes()
    assert change.reason.startswith("10485760 bytes are free, with a reserve of 8388608")
    for free, is_back in ((12 * MIB, False), (15 * MIB, False), (16 * MIB, True)):
        made.measured(0, free, 20 * MIB, 1.0)
        assert made.has_room_again(0) == is_back
    made.probed_well(0, 1.0)
    assert list(made.pop_changes()) == [Change(0, is_out=False, cause="full", reason="")]
    assert made.state(0).is_well


def test_one_that_fails_takes_no_puts_until_it_is_back() -> None:
    made = table(GIB, GIB)
    made.failed(0, "a write failed", 0.0)
    made.failed(0, "and again", 0.0)
    assert [c.reason for c in made.pop_changes()] == ["a write failed"]
    assert set(shares(made, {1: 0.1}, 10)) == {1}
    assert made.takes_puts
    made.failed(1, "this one, too", 0.0)
    assert made.pick(MIB, 0.0) is NoPick.NONE
    assert not made.takes_puts
    made.probed_well(0, 0.1)
    assert made.pick(MIB, 0.1) == Pick(0, is_stale=False)


def test_what_was_missed_while_out_is_not_made_up_for() -> None:
    made = table(GIB, GIB)
    made.failed(0, "a write failed", 0.0)
    shares(made, {1: 0.1}, 100)
    made.probed_well(0, 0.0)
    assert shares(made, {0: 0.1, 1: 0.1}, 100)[1] == pytest.approx(50, abs=5)


def test_one_that_hangs_is_not_tried_before_all_has_ended() -> None:
    made = table(GIB, GIB)
    made.hangs(0, "a write is under way", 5.0)
    made.hangs(0, "and a read", 5.0)
    assert [c.cause for c in made.pop_changes()] == ["hangs"]
    made.answered(0)
    assert not made.may_probe(0)
    made.probed_well(0, 6.0)
    assert made.cause(0) == "hangs"
    made.answered(0)
    assert made.may_probe(0)
    made.probed_well(0, 6.0)
    assert made.cause(0) is None


def test_probes_come_later_and_later() -> None:
    made = table(GIB)
    assert made.probe_in(0) is None
    made.failed(0, "a write failed", 0.0)
    waits = []
    for _ in range(9):
        waits.append(made.probe_in(0))
        made.probe_failed(0, "still")
    assert waits == [1, 2, 4, 8, 16, 32, PROBE_MAX_S, PROBE_MAX_S, PROBE_MAX_S]
    assert made.reason(0) == "still"


@pytest.mark.parametrize(("well_s", "wait_s"), [(STEADY_S - 1, 2.0), (STEADY_S, 1.0)])
def test_one_that_fails_again_soon_is_tried_later(well_s: float, wait_s: float) -> None:
    made = table(GIB)
    made.failed(0, "a write failed", 0.0)
    made.probed_well(0, 100.0)
    made.failed(0, "again", 100.0 + well_s)
    assert made.probe_in(0) == wait_s


def test_a_put_that_does_not_fit_by_what_is_old_is_no_reason() -> None:
    made = table(MIB)
    assert made.pick(2 * MIB, FRESH_S) == Pick(0, is_stale=True)
    assert not made.pop_changes()


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["put", "end", "fail", "hang", "answer", "back", "measure"]),
        st.integers(0, 2),
        st.integers(1, 40),
        st.floats(0, 3),
    ),
    max_size=80,
)


@given(STEPS, st.integers(0, 60))
def test_whatever_happens(steps: list[tuple[str, int, int, float]], kept: int) -> None:
    """No put goes to one that is out, full or busy, nor into the reserve; changes alternate."""
    made = DirectoryTable(3, puts_max=2, reserve=Reserve(size_bytes=kept * MIB))
    disk = [100 * MIB] * 3  # free bytes that no put was promised
    puts: list[tuple[int, int, int]] = []
    hanging = [0, 0, 0]
    is_out = [False] * 3
    now = 0.0
    for what, index, count, later in steps:
        now += later
        if what == "put":
            pick = made.pick(count * MIB, now)
            if isinstance(pick, Pick) and pick.is_stale:
                under_way = sum(length for i, _, length in puts if i == pick.index)
                made.measured(pick.index, disk[pick.index] + under_way, 100 * MIB, now)
                pick = made.pick(count * MIB, now)
            if isinstance(pick, Pick) and not pick.is_stale:
                assert made.cause(pick.index) is None
                assert sum(i == pick.index for i, _, _ in puts) < 2
                put = made.began(pick.index, count * MIB, now)
                puts.append((pick.index, put, count * MIB))
                disk[pick.index] -= count * MIB
                assert disk[pick.index] >= kept * MIB
        elif what == "end" and puts:
            where, put, length = puts.pop(count % len(puts))
            ok = count % 3 > 0
            made.ended(where, put, now, ok=ok)
            disk[where] += 0 if ok else length
        elif what == "fail":
            made.failed(index, "x", now)
        elif what == "hang":
            made.hangs(index, "x", now)
            hanging[index] += 1
        elif what == "answer" and hanging[index]:
            made.answered(index)
            hanging[index] -= 1
        elif what == "back":
            made.probed_well(index, now)
            assert made.cause(index) is None or hanging[index]
        for change in made.pop_changes():
            assert change.is_out != is_out[change.index]
            is_out[change.index] = change.is_out
        assert [made.cause(i) is not None for i in range(3)] == is_out
        assert made.takes_puts == (not all(is_out))
