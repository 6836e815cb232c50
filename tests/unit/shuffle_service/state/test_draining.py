"""When a draining daemon may end, by tables of what it is told and when."""

from __future__ import annotations

from cosco.protocol.records import DaemonOrders
from cosco.shuffle_service.state.draining import (
    DRAIN_ALONE_S,
    DROPS_S,
    SERVES_ON_AFTER_S,
    Drain,
    Step,
)

STORE_S = 50.0


def orders(*, may_exit: bool = False) -> DaemonOrders:
    return DaemonOrders(known=True, cluster_id="c", lease_s=10.0, may_exit=may_exit)


def begun(now: float = 100.0) -> Drain:
    drain = Drain(STORE_S)
    assert not drain.begun
    drain.begin(now)
    assert drain.begun
    return drain


def test_it_exits_when_it_may_and_everything_is_stored() -> None:
    drain = begun()
    assert drain.step(100.1, unstored_bytes=0, takes_in=False) is Step.WAIT
    drain.told(orders(may_exit=True), 100.2)
    assert drain.step(100.2, unstored_bytes=1, takes_in=False) is Step.WAIT
    assert drain.step(100.3, unstored_bytes=0, takes_in=False) is Step.EXIT


def test_it_drops_first_what_it_is_told_to_as_it_is_let_go() -> None:
    drain = begun()
    drain.told(orders(), 100.1)

    def step(now: float, *, owes_drops: bool) -> Step:
        return drain.step(now, unstored_bytes=0, takes_in=False, owes_drops=owes_drops)

    drain.told(orders(may_exit=True), 100.2)
    assert step(100.2, owes_drops=True) is Step.WAIT
    # Further answers give it no further time: a store may hang.
    drain.told(orders(may_exit=True), 100.1 + DROPS_S)
    assert step(100.1 + DROPS_S, owes_drops=True) is Step.WAIT
    assert step(100.1 + DROPS_S, owes_drops=False) is Step.EXIT
    assert step(100.2 + DROPS_S, owes_drops=True) is Step.EXIT


def test_what_the_service_takes_back_counts() -> None:
    drain = begun()
    drain.told(orders(may_exit=True), 100.2)
    drain.told(orders(), 100.3)
    assert drain.step(100.4, unstored_bytes=0, takes_in=False) is Step.WAIT


def test_an_answer_from_before_the_drain_says_nothing() -> None:
    drain = Drain(STORE_S)
    drain.told(orders(may_exit=True), 99.0)
    drain.begin(100.0)
    assert drain.step(100.0, unstored_bytes=0, takes_in=False) is Step.WAIT


def test_without_the_metadata_service_it_ends_alone_after_a_while() -> None:
    drain = begun()
    assert drain.step(99.9 + DRAIN_ALONE_S, unstored_bytes=9, takes_in=True) is Step.WAIT
    assert drain.step(100.0 + DRAIN_ALONE_S, unstored_bytes=9, takes_in=True) is Step.EXIT
    drain = begun()
    drain.told(orders(), 103.0)
    assert drain.step(102.9 + DRAIN_ALONE_S, unstored_bytes=9, takes_in=True) is Step.WAIT
    assert drain.step(103.0 + DRAIN_ALONE_S, unstored_bytes=9, takes_in=True) is Step.EXIT


def test_a_second_beginning_changes_nothing() -> None:
    drain = begun()
    drain.begin(104.0)
    assert drain.step(100.0 + DRAIN_ALONE_S, unstored_bytes=0, takes_in=False) is Step.EXIT


def serves_on_at(
    drain: Drain, now: float, *, unstored_bytes: int = 0, takes_in: bool = False
) -> bool:
    drain.told(orders(), now)
    return drain.step(now, unstored_bytes=unstored_bytes, takes_in=takes_in) is Step.SERVE_ON


def test_it_serves_on_once_all_is_stored_and_sealed_and_it_is_not_let_go() -> None:
    drain = begun()
    assert not serves_on_at(drain, 100.1)  # perhaps an answer to what was sent before
    assert not serves_on_at(drain, 100.2)
    assert not serves_on_at(drain, 100.1 + SERVES_ON_AFTER_S)
    assert serves_on_at(drain, 100.3 + SERVES_ON_AFTER_S)
    assert serves_on_at(drain, 1000.0)
    drain.told(orders(may_exit=True), 1001.0)  # its exchanges were closed
    assert drain.step(1001.0, unstored_bytes=0, takes_in=False) is Step.EXIT


def test_silence_ends_none_that_readers_need() -> None:
    drain = begun()
    assert not serves_on_at(drain, 100.1)
    assert not serves_on_at(drain, 100.2)
    assert serves_on_at(drain, 100.3 + SERVES_ON_AFTER_S)
    silent = 200.0 + DRAIN_ALONE_S
    assert drain.step(silent, unstored_bytes=0, takes_in=False) is Step.SERVE_ON
    drain.told(orders(may_exit=True), silent)
    assert drain.step(silent, unstored_bytes=0, takes_in=False) is Step.EXIT


def test_silence_does_not_say_that_it_is_needed() -> None:
    drain = begun()
    assert not serves_on_at(drain, 100.1)
    assert not serves_on_at(drain, 100.2)
    later = 100.2 + SERVES_ON_AFTER_S + 1
    assert drain.step(later, unstored_bytes=0, takes_in=False) is Step.WAIT
    later = 100.2 + DRAIN_ALONE_S
    assert drain.step(later, unstored_bytes=0, takes_in=False) is Step.EXIT


def test_it_does_not_serve_on_while_there_is_something_to_store_or_to_seal() -> None:
    for busy in ({"unstored_bytes": 1}, {"takes_in": True}):
        drain = begun()
        for tenth in range(1, 30):
            assert not serves_on_at(drain, 100.0 + tenth / 10, **busy)
        assert not serves_on_at(drain, 103.0)  # the time counts from here
        assert serves_on_at(drain, 103.0 + SERVES_ON_AFTER_S)


def test_what_cannot_be_stored_ends_it_after_its_time() -> None:
    drain = begun()
    drain.told(orders(), 120.0)
    assert drain.step(120.0, unstored_bytes=0, takes_in=True) is Step.WAIT  # all was stored here
    for now in (140.0, 160.0, 169.9):
        drain.told(orders(), now)
        assert drain.step(now, unstored_bytes=9, takes_in=True) is Step.WAIT
        assert drain.store_left_s(now) == max(5.0, 170.0 - now)
    drain.told(orders(), 170.0)
    assert drain.step(170.0, unstored_bytes=9, takes_in=True) is Step.EXIT
    assert drain.store_left_s(170.0) == 5.0


def test_one_that_was_not_asked_to_drain_has_all_its_time_to_store() -> None:
    assert Drain(STORE_S).store_left_s(12345.0) == STORE_S


def test_a_drain_that_is_taken_back_leaves_nothing_to_the_next_one() -> None:
    drain = begun()
    for at in (100.1, 100.2):
        drain.told(orders(), at)
    assert drain.step(100.3, unstored_bytes=0, takes_in=False) is Step.WAIT
    drain.told(orders(), 100.3 + SERVES_ON_AFTER_S)
    assert drain.step(102.0, unstored_bytes=0, takes_in=False) is Step.SERVE_ON
    drain.told(orders(may_exit=True), 102.0)
    drain.cancel()
    assert not drain.begun
    drain.begin(200.0)
    assert drain.step(200.1, unstored_bytes=0, takes_in=False) is Step.WAIT
    assert drain.step(200.0 + DRAIN_ALONE_S, unstored_bytes=0, takes_in=False) is Step.EXIT


def test_a_store_that_hangs_is_not_waited_for_at_the_end() -> None:
    assert Drain(STORE_S).store_left_s(100.0, store_hangs=True) == 1.0
    assert begun().store_left_s(101.0, store_hangs=True) == 1.0


def test_what_is_on_flash_alone_has_time_while_it_becomes_less() -> None:
    drain = begun()
    drain.told(orders(), 100.0)
    for n in range(5):
        now = 100.0 + n * (STORE_S - 1)
        drain.told(orders(), now)
        step = drain.step(now, unstored_bytes=0, takes_in=False, unmoved_bytes=1000 - n)
        assert step is Step.WAIT
    drain.told(orders(may_exit=True), now)
    assert drain.step(now + 1, unstored_bytes=0, takes_in=False, unmoved_bytes=996) is Step.WAIT
    assert drain.step(now + 2, unstored_bytes=0, takes_in=False) is Step.EXIT


def test_what_is_on_flash_alone_and_does_not_move_is_given_up() -> None:
    drain = begun()
    drain.step(100.0, unstored_bytes=0, takes_in=False, unmoved_bytes=7)
    drain.told(orders(), 99.9 + STORE_S)
    step = drain.step(99.9 + STORE_S, unstored_bytes=0, takes_in=False, unmoved_bytes=7)
    assert step is Step.WAIT
    step = drain.step(100.1 + STORE_S, unstored_bytes=0, takes_in=False, unmoved_bytes=7)
    assert step is Step.EXIT
