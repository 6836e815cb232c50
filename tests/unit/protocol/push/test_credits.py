"""Grants: bounded, in turn, and never worth less than a frame."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cosco.errors import InvalidArgument
from cosco.format.frame import MAX_FRAME_BYTES
from cosco.protocol.push.credits import (
    EAGER_BYTES,
    GRANT_PATIENCE_S,
    MAX_ANNOUNCED_FRAMES,
    MIN_COPIES_BYTES,
    FrameBudget,
    FrameBudgets,
    StreamCredits,
)

MIB = 1 << 20


class Budget(FrameBudget):
    """A budget whose streams are told nothing: what they were granted is looked at."""

    def __init__(self, budget_bytes: int, tenant_share: float = 1.0) -> None:
        super().__init__(budget_bytes, tenant_share)
        self._told: dict[StreamCredits, int] = {}
        self.cut_off: list[StreamCredits] = []

    def enter(self, tenant: int = 0) -> StreamCredits:
        def on_grant() -> None:
            self._told[stream] = self._told.get(stream, 0) + 1

        stream = self.open(on_grant, lambda: self.cut_off.append(stream), tenant)
        return stream

    def told(self, now: float = 0.0) -> dict[StreamCredits, int]:
        """Give out what there is. Returns the frames that were granted since the last look."""
        self.now = now
        self.give_out()
        told, self._told = self._told, {}
        return told


def test_what_is_granted_stays_within_the_budget_and_comes_back():
    budget = Budget(4 * MIB + 2 * EAGER_BYTES)  # a loan to each
    stream, other = budget.enter(), budget.enter()
    budget.announce(stream, [MIB] * 8)
    budget.announce(other, [MIB] * 8)
    assert budget.told(0.0) == {stream: 2, other: 2}
    assert budget.told(0.0) == {}
    accounted = budget.received(stream, MIB)
    assert budget.told(0.0) == {}  # in hand is not given back
    budget.give_back(stream, accounted)
    # The streams take turns, and it is the turn of the one announced first.
    assert budget.told(0.0) == {stream: 1}
    budget.close(other)
    assert budget.told(0.0) == {}  # at its share, a quarter, or one frame at least
    budget.give_back(stream, budget.received(stream, MIB))
    budget.taken_in(stream, 0.0)
    assert budget.told(0.0) == {stream: 1}


def test_a_large_frame_is_not_overtaken_for_ever_by_small_ones():
    budget = Budget(2 * MIB)
    small, large = budget.enter(), budget.enter()
    budget.announce(small, [MIB])
    budget.announce(large, [MAX_FRAME_BYTES])
    assert budget.told(0.0) == {small: 1}
    budget.announce(small, [MIB])
    assert budget.told(0.0) == {}
    budget.give_back(small, budget.received(small, MIB))
    budget.taken_in(small, 0.0)
    assert budget.told(0.0) == {large: 1}  # larger than the budget, so alone
    budget.give_back(large, budget.received(large, MAX_FRAME_BYTES))
    budget.taken_in(large, 0.0)
    assert budget.told(0.0) == {small: 1}


@pytest.mark.parametrize(
    ("announced", "sent", "what"),
    [([], 1, "not granted"), ([100], 101, "announced"), ([0], 0, "limit"),
     ([MAX_FRAME_BYTES + 1], 0, "limit"), ([1] * (MAX_ANNOUNCED_FRAMES + 1), 0, "more than")],
)  # fmt: skip
def test_a_sender_that_breaks_the_rules_is_refused(announced, sent, what):
    budget = Budget(MIB)
    stream = budget.enter()

    def misbehave() -> None:
        budget.announce(stream, announced)
        budget.told(0.0)
        budget.received(stream, sent)

    with pytest.raises(InvalidArgument, match=what):
        misbehave()


def test_who_sits_on_a_grant_is_found_only_while_others_wait():
    budget = Budget(MIB)
    idle, other = [budget.enter() for _ in range(20)], budget.enter()
    for stream in reversed(idle):
        budget.announce(stream, [MIB // len(idle)])
    budget.told(10.0)
    assert budget.stalled(100.0, 5.0) == []
    budget.announce(other, [MIB])
    budget.told(100.0)
    assert budget.stalled(14.0, 5.0) == []
    assert budget.stalled(16.0, 5.0) == idle  # in the order in which they came
    for stream in idle:
        budget.close(stream)
    assert budget.told(16.0) == {other: 1}


def test_frames_are_given_back_in_any_order_and_keep_the_sender_from_nothing():
    budget = Budget(16 * MIB)
    stream = budget.enter()
    budget.announce(stream, [3, 2 * MIB, 5])
    assert budget.told(0.0) == {stream: 3}
    first = budget.received(stream, 1)
    assert stream.waiting_since is None
    budget.taken_in(stream, 7.0)
    assert stream.waiting_since == 7.0  # it may send the next one, whatever the first waits for
    second = budget.received(stream, 2 * MIB)
    budget.taken_in(stream, 8.0)
    budget.give_back(stream, second)
    assert budget.in_flight_bytes == stream.in_flight_bytes == 8
    budget.give_back(stream, first)
    assert budget.in_flight_bytes == stream.in_flight_bytes == 5
    budget.close(stream)
    assert budget.in_flight_bytes == 0


@given(st.data())
def test_every_announced_frame_is_granted_in_the_end(data):
    most = data.draw(st.integers(1, 8)) * MIB
    budget = Budget(most)
    frames = {
        budget.enter(): data.draw(st.lists(st.integers(1, MAX_FRAME_BYTES), max_size=20))
        for _ in range(data.draw(st.integers(1, 6)))
    }
    left = {stream: list(lengths) for stream, lengths in frames.items()}
    for stream, lengths in frames.items():
        budget.announce(stream, lengths)
    ready = []
    while any(left.values()) or ready:
        for stream, count in budget.told().items():
            ready.extend((stream, left[stream].pop(0)) for _ in range(count))
        lent = sum(stream.eager_limit for stream in frames)
        assert lent <= most // 4
        assert budget.in_flight_bytes <= max(most - lent, MAX_FRAME_BYTES)
        assert ready, "nothing is granted although frames wait"
        stream, length = ready.pop(0)
        budget.give_back(stream, budget.received(stream, length))
        budget.taken_in(stream, 0.0)
    assert budget.in_flight_bytes == 0


def test_a_stream_sends_eagerly_within_its_loan_whatever_others_hold():
    budget = Budget(4 * MIB)
    first, second, third = (budget.enter() for _ in range(3))
    assert [stream.eager_limit for stream in (first, second, third)] == [EAGER_BYTES] * 2 + [0]
    budget.announce(third, [MIB] * 4)
    budget.told(0.0)
    budget.received_eagerly(first, EAGER_BYTES - 1)
    budget.received_eagerly(second, EAGER_BYTES)
    for stream, length in ((first, 2), (second, 1), (third, 1)):
        with pytest.raises(InvalidArgument, match="neither announced nor granted"):
            budget.received_eagerly(stream, length)
    assert budget.in_flight_bytes == 2 * MIB + 2 * EAGER_BYTES - 1
    budget.give_back_eager(first, EAGER_BYTES - 1)
    budget.received_eagerly(first, EAGER_BYTES)
    for stream in (first, second, third):
        budget.close(stream)
    assert budget.in_flight_bytes == 0
    assert budget.enter().eager_limit == EAGER_BYTES  # what was lent has come back


def test_a_sender_whose_eager_frame_is_being_taken_does_not_sit_on_its_grant():
    budget = Budget(4 * MIB)
    stream, waiting = budget.enter(), budget.enter()
    budget.announce(stream, [3 * MIB // 2])
    budget.told(0.0)
    budget.received_eagerly(stream, 100)
    budget.announce(waiting, [2 * MIB])
    assert budget.told(0.0) == {}
    assert stream not in budget.stalled(100.0, 10.0)
    budget.taken_in(stream, 100.0)
    assert stream in budget.stalled(111.0, 10.0)


def test_who_sits_on_a_grant_is_cut_off_in_time():
    budget = Budget(MIB)
    stream, other = budget.enter(), budget.enter()
    budget.announce(stream, [MIB])
    budget.told(10.0)
    budget.announce(other, [MIB])
    budget.tick(10.0 + GRANT_PATIENCE_S)
    assert budget.cut_off == []
    budget.tick(10.1 + GRANT_PATIENCE_S)
    assert budget.cut_off == [stream]


def test_a_stream_that_ends_leaves_its_grants_to_others():
    budget = Budget(MIB)
    stream, other = budget.enter(), budget.enter()
    budget.announce(stream, [MIB])
    budget.announce(other, [MIB])
    assert budget.told() == {stream: 1}
    budget.close(stream)
    assert budget.told() == {other: 1}


def test_writers_and_primaries_have_a_budget_each():
    budgets = FrameBudgets(MIB)
    assert budgets.primaries.budget_bytes == MIN_COPIES_BYTES
    assert FrameBudgets(8 * MIN_COPIES_BYTES).primaries.budget_bytes == 4 * MIN_COPIES_BYTES
    granted: list[int] = []
    for budget in (budgets.writers, budgets.primaries):
        stream = budget.open(lambda: granted.append(1), lambda: None)
        budget.announce(stream, [1000])
        budget.give_out()
    assert granted == [1, 1]
    assert budgets.in_flight_bytes == 2000


def test_tiny_frames_that_are_granted_at_once_are_bounded_by_their_number():
    budget = Budget(64 * MIB)
    stream = budget.enter()
    budget.announce(stream, [1] * MAX_ANNOUNCED_FRAMES)
    assert budget.told() == {stream: MAX_ANNOUNCED_FRAMES}
    with pytest.raises(InvalidArgument, match="announced"):
        budget.announce(stream, [1])
    budget.received(stream, 1)
    budget.announce(stream, [1])


# --- tenants ------------------------------------------------------------------------------


def lent(budget: Budget) -> int:
    """What is lent, of the budget, to all streams there are."""
    return sum(stream.eager_limit for stream in budget._streams)


def test_tenants_are_granted_the_same_however_many_streams_they_have():
    budget = Budget(64 * MIB)
    many, one = [budget.enter(1) for _ in range(30)], budget.enter(2)
    for stream in (*many, one):
        budget.announce(stream, [MIB] * 16)
    budget.told()
    assert one.in_flight_bytes == 16 * MIB  # a quarter, which one stream may have
    room = budget.budget_bytes - lent(budget) - one.in_flight_bytes
    assert sum(stream.in_flight_bytes for stream in many) == room // MIB * MIB
    for _ in range(4):  # what is given back by either goes to both
        stream = next(stream for stream in many if stream.granted)
        budget.give_back(stream, budget.received(stream, MIB))
        budget.give_back(one, budget.received(one, MIB))
        budget.announce(one, [MIB])
        budget.give_out()
    assert one.in_flight_bytes >= 14 * MIB


def test_long_frames_of_one_and_short_ones_of_another_are_the_same_bytes():
    budget = Budget(20 * MIB)
    budget._stream_bytes = 64 * MIB  # one stream alone could have all of it
    long, short = budget.enter(1), budget.enter(2)
    for stream, length in ((long, MIB), (short, 64 << 10)):
        budget.announce(stream, [length] * 200)
    budget.told()
    assert abs(long.in_flight_bytes - short.in_flight_bytes) <= MIB + (64 << 10)
    assert budget.in_flight_bytes > budget.budget_bytes - lent(budget) - MIB


def test_who_has_his_share_of_the_budget_holds_up_nobody():
    budget = Budget(32 * MIB, tenant_share=0.25)
    hogs, other = [budget.enter(1) for _ in range(8)], budget.enter(2)
    for stream in (*hogs, other):
        budget.announce(stream, [2 * MIB] * 4)
    budget.told()
    assert sum(stream.in_flight_bytes for stream in hogs) == 8 * MIB
    assert other.in_flight_bytes == 8 * MIB
    assert sum(stream.eager_limit for stream in hogs) <= 8 * MIB / 4
    stream = next(stream for stream in hogs if stream.granted)
    budget.give_back(stream, budget.received(stream, 2 * MIB))
    assert sum(stream.in_flight_bytes for stream in hogs) == 8 * MIB


def test_a_share_that_is_less_than_a_frame_is_worth_one():
    budget = Budget(32 * MIB, tenant_share=0.001)
    stream = budget.enter(1)
    budget.announce(stream, [2 * MIB] * 3)
    for _ in range(3):
        budget.give_out()
        assert stream.in_flight_bytes == 2 * MIB
        assert len(stream.granted) == 1
        budget.give_back(stream, budget.received(stream, 2 * MIB))
    assert budget.in_flight_bytes == 0


def test_streams_of_nobody_have_no_share_to_keep_to():
    budget = Budget(32 * MIB, tenant_share=0.001)
    stream = budget.enter()
    budget.announce(stream, [2 * MIB] * 4)
    assert budget.told() == {stream: 4}
    assert stream.eager_limit == EAGER_BYTES


def test_a_stream_that_another_tenant_goes_on_with_counts_as_his():
    budget = Budget(32 * MIB, tenant_share=0.1)  # a loan of 0.8 MiB: one
    stream = budget.enter(1)
    assert stream.eager_limit == EAGER_BYTES
    assert budget.enter(1).eager_limit == 0
    budget.now_of(stream, 2)
    assert budget.enter(1).eager_limit == EAGER_BYTES
    assert budget.enter(2).eager_limit == 0
    budget.announce(stream, [MIB])
    budget.give_out()
    assert budget._in_flight_of == {2: MIB}
    for one in list(budget._streams):
        budget.close(one)
    assert not budget._in_flight_of
    assert not budget._lent_to
