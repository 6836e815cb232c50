"""The owner's background work, against a metadata service that reports losses."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from pyroaring import BitMap
from support.exchanges import until

from cosco.client.driver import driver as module
from cosco.client.driver.driver import Driver, RecomputeCallback, exchange_driver
from cosco.client.rpc import metadata_client
from cosco.client.rpc.in_use import IN_USE
from cosco.errors import ExchangeClosed, InvalidArgument
from cosco.protocol import wire
from cosco.protocol.group_records import GroupCall
from cosco.protocol.keys import LossKey
from cosco.protocol.records import DriverOrders, ExchangeInfo, ExchangeSpec, RecomputeCall, RowKind

import grpc  # isort: skip  (after cosco, which turns its fork support on)

WAIT_S = 10.0
INFO = ExchangeInfo(
    number=5,
    spec=ExchangeSpec("x", 1, lease_s=0.15),
    generation=1,
    kind=RowKind.UNDECIDED,
    schema=b"",
    ranges=(),
    assignments=(),
)


class Losses:
    """Repeats every loss until it is told how the callback ended; counts polls."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.open: dict[int, list[int]] = {}
        self.arranged: list[int] = []
        self.failed: dict[int, str] = {}
        self.polls = 0
        self.is_closed = False
        self.owner = b"me"
        self.drop_answers = 0
        self.drop_polls = 0

    def poll(self, request: Any, context: Any) -> Any:
        with self.changed:
            assert (request.number, request.owner) == (5, b"me")
            self.polls += 1
            self.changed.notify_all()
            if self.drop_polls:
                self.drop_polls -= 1
                context.abort(grpc.StatusCode.UNAVAILABLE, "away")
            if self.is_closed or self.owner != request.owner:
                closed = ExchangeClosed("closed")
                meant = closed if self.is_closed else InvalidArgument("it has another driver")
                error = wire.error_to_bytes(meant)
                context.set_trailing_metadata(((wire.ERROR_KEY, error),))
                context.abort(grpc.StatusCode.FAILED_PRECONDITION, "refused")
            answers = [*request.arranged, *(f.loss_id for f in request.failed)]
            if answers and self.drop_answers:
                self.drop_answers -= 1
                context.abort(grpc.StatusCode.INTERNAL, "lost")
            self.arranged += request.arranged
            self.failed |= {f.loss_id: f.reason for f in request.failed}
            for loss in answers:
                self.open.pop(loss, None)
            if not self.open:
                self.changed.wait(request.wait_s)
            calls = (RecomputeCall(i, BitMap(m), f"lost {i}") for i, m in self.open.items())
            return wire.to_pb(DriverOrders(tuple(calls)))

    def lose(self, loss: int, mappers: list[int]) -> None:
        with self.changed:
            self.open[loss] = mappers
            self.changed.notify_all()

    def wait(self, reached: Callable[[], bool]) -> None:
        with self.changed:
            assert self.changed.wait_for(reached, WAIT_S)


@pytest.fixture
def losses() -> Losses:
    return Losses()


@pytest.fixture
def start(losses: Losses) -> Iterator[Callable[[RecomputeCallback | None], Driver]]:
    request_type, reply_type = wire.METADATA_METHODS["PollDriver"]
    handlers = {
        "PollDriver": grpc.unary_unary_rpc_method_handler(
            losses.poll, request_type.FromString, reply_type.SerializeToString
        )
    }
    server = grpc.server(ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(wire.METADATA_SERVICE, handlers),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    drivers: list[Driver] = []

    def begin(callback: RecomputeCallback | None) -> Driver:
        drivers.append(exchange_driver(f"127.0.0.1:{port}", INFO, b"me", callback, 10.0))
        drivers[-1].start()
        return drivers[-1]

    begin.drivers, begin.losses = drivers, losses  # type: ignore[attr-defined]
    yield begin
    for driver in drivers:
        driver.close()
    server.stop(0).wait()


Start = Callable[[RecomputeCallback | None], Driver]


def ended(driver: Driver) -> bool:
    return not driver._work.thread.is_alive() and not driver._work.callbacks.is_busy


def wait_for_end(driver: Driver) -> None:
    driver._work.thread.join(WAIT_S)
    until(lambda: ended(driver), WAIT_S)


def callback_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "cosco-recompute"]


def test_each_loss_is_called_back_once_and_answered(losses: Losses, start: Start) -> None:
    called: list[tuple[list[int], str]] = []
    start(lambda mappers, reason: called.append((mappers, reason)))
    losses.lose(1, [3, 1])
    losses.lose(2, [7])
    losses.wait(lambda: not losses.open)
    assert called == [([1, 3], "lost 1"), ([7], "lost 2")]
    assert sorted(losses.arranged) == [1, 2]


def test_a_callback_may_block_and_runs_alone_while_the_lease_is_renewed(
    losses: Losses, start: Start
) -> None:
    go_on, running = threading.Event(), []

    def callback(mappers: list[int], reason: str) -> None:
        running.append(mappers)
        assert go_on.wait(WAIT_S)

    start(callback)
    losses.lose(1, [1])
    losses.lose(2, [2])
    losses.wait(lambda: len(running) == 1)
    seen = losses.polls
    losses.wait(lambda: losses.polls >= seen + 3)
    assert running == [[1]]
    go_on.set()
    losses.wait(lambda: not losses.open)
    assert running == [[1], [2]]


def test_an_answer_that_got_lost_is_told_again(losses: Losses, start: Start) -> None:
    called: list[list[int]] = []
    losses.drop_answers = 2
    start(lambda mappers, reason: called.append(mappers))
    losses.lose(1, [1])
    losses.wait(lambda: not losses.open)
    assert called == [[1]]


def test_a_callback_that_raises_is_a_failure(losses: Losses, start: Start) -> None:
    def callback(mappers: list[int], reason: str) -> None:
        raise SystemExit("no workers")

    start(callback)
    losses.lose(1, [1])
    losses.wait(lambda: not losses.open)
    assert losses.failed == {1: "recompute_writers_callback raised SystemExit: no workers"}


def test_without_a_callback_every_loss_fails(losses: Losses, start: Start) -> None:
    driver = start(None)
    losses.lose(1, [1])
    losses.wait(lambda: not losses.open)
    assert "no recompute_writers_callback" in losses.failed[1]
    assert not driver._work.callbacks.is_busy


def test_polling_ends_with_the_exchange(losses: Losses, start: Start) -> None:
    driver = start(None)
    losses.is_closed = True
    driver._work.thread.join(WAIT_S)
    assert not driver._work.thread.is_alive()


def test_a_driver_that_was_replaced_calls_nobody_back_any_more(
    losses: Losses, start: Start
) -> None:
    running, go_on, called = threading.Event(), threading.Event(), []

    def callback(mappers: list[int], reason: str) -> None:
        called.append(mappers)
        running.set()
        assert go_on.wait(WAIT_S)

    driver = start(callback)
    with losses.changed:
        losses.open = {1: [1], 2: [2]}
        losses.changed.notify_all()
    assert running.wait(WAIT_S)
    with losses.changed:
        losses.owner = b"another"
        losses.changed.notify_all()
    driver._work.thread.join(WAIT_S)
    go_on.set()
    wait_for_end(driver)
    assert called == [[1]]
    assert sorted(losses.open) == [1, 2]  # for the other one


def test_a_callback_may_close_and_closing_does_not_wait_for_it(
    losses: Losses, start: Start
) -> None:
    closed, go_on = threading.Event(), threading.Event()

    def callback(mappers: list[int], reason: str) -> None:
        driver.close()
        closed.set()
        assert go_on.wait(WAIT_S)

    driver = start(callback)
    losses.lose(1, [1])
    assert closed.wait(WAIT_S)
    driver.close()
    go_on.set()
    wait_for_end(driver)


def test_no_callback_begins_after_closing(losses: Losses, start: Start) -> None:
    running, go_on, called = threading.Event(), threading.Event(), []

    def callback(mappers: list[int], reason: str) -> None:
        called.append(mappers)
        running.set()
        assert go_on.wait(WAIT_S)

    driver = start(callback)
    with losses.changed:
        losses.open = {1: [1], 2: [2]}
        losses.changed.notify_all()
    assert running.wait(WAIT_S)
    driver.close()
    go_on.set()
    wait_for_end(driver)
    assert called == [[1]]


def test_callbacks_have_a_thread_while_there_are_any(losses: Losses, start: Start) -> None:
    driver = start(lambda mappers, reason: None)
    for loss in (1, 2):
        assert not callback_threads()
        losses.lose(loss, [loss])
        losses.wait(lambda: not losses.open)
        until(lambda: not callback_threads(), WAIT_S)
    assert driver._work.thread.is_alive()


def test_a_loss_is_told_again_for_which_no_thread_can_be_started(
    losses: Losses, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusals = [RuntimeError("can't start new thread")] * 2
    begin = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name == "cosco-recompute" and refusals:
            raise refusals.pop()
        begin(thread)

    called: list[list[int]] = []
    warned: list[str] = []
    monkeypatch.setattr(module._LOG, "warning", lambda text, *_: warned.append(text))
    start(lambda mappers, reason: called.append(mappers))
    monkeypatch.setattr(threading.Thread, "start", refuse)
    losses.lose(1, [1])
    losses.wait(lambda: not losses.open)
    assert called == [[1]]
    assert warned == ["mappers of %r are called back later: %s"] * 2


def test_a_service_that_is_away_by_the_first_poll_is_waited_for(
    losses: Losses, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metadata_client, "FIRST_CONTACT_S", 0.0)
    called: list[list[int]] = []
    losses.drop_polls = 3
    warned: list[object] = []
    monkeypatch.setattr(
        "cosco.client.driver.driver._LOG.warning", lambda *told: warned.append(told)
    )
    start(lambda mappers, reason: called.append(mappers))
    losses.lose(1, [1])
    losses.wait(lambda: not losses.open)
    assert called == [[1]]
    assert not warned


# --- of an application ------------------------------------------------------------------------


class ApplicationLosses:
    """Repeats losses of exchanges until it is told how their callbacks ended; counts polls."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.open: dict[tuple[int, int], list[int]] = {}
        self.failed: dict[tuple[int, int], str] = {}
        self.polls_with_answers = 0

    def poll(
        self, metadata: object, outcomes: Mapping[LossKey, str], wait_s: float
    ) -> list[GroupCall]:
        with self.changed:
            self.polls_with_answers += bool(outcomes)
            for (number, loss), failure in outcomes.items():
                self.open.pop((number, loss), None)
                if failure:
                    self.failed[number, loss] = failure
            self.changed.notify_all()
            if not self.open:
                self.changed.wait(min(wait_s, 0.05))
            return [
                GroupCall(number, RecomputeCall(loss, BitMap(mappers), "lost"))
                for (number, loss), mappers in self.open.items()
            ]

    def wait(self, reached: Callable[[], bool]) -> None:
        with self.changed:
            assert self.changed.wait_for(reached, WAIT_S)


def test_callbacks_of_an_application_wait_for_none_of_another_exchange() -> None:
    """The re-run of exchange 2 reads exchange 1, which lost rows in the same death."""
    losses = ApplicationLosses()
    done: list[tuple[int, list[int]]] = []
    first_is_whole = threading.Event()

    def callback(number: int, mappers: list[int], reason: str) -> None:
        if number == 2:
            assert first_is_whole.wait(WAIT_S)
        else:
            assert not done or done[-1][0] == 1, "two at once of one exchange"
        done.append((number, mappers))
        if len(done) == 3:
            first_is_whole.set()

    driver = Driver(
        "127.0.0.1:1", "etl-1", 0.15, losses.poll, callback, 1.0, owns={"a"}.__contains__
    )
    losses.open = {(2, 1): [9], (1, 1): [3], (1, 2): [4], (1, 3): [5]}
    driver.start()
    losses.wait(lambda: not losses.open)
    driver.close()
    assert done == [(1, [3]), (1, [4]), (1, [5]), (2, [9])]
    assert not losses.failed


def test_ends_of_many_callbacks_are_told_together() -> None:
    losses = ApplicationLosses()
    all_run = threading.Barrier(100)

    def callback(number: int, mappers: list[int], reason: str) -> None:
        all_run.wait(WAIT_S)
        if number == 7:
            raise ValueError("no workers")

    def poll(metadata: object, outcomes: Mapping[LossKey, str], wait_s: float) -> list[GroupCall]:
        if outcomes:  # a call takes its time
            until(lambda: len(driver._work._outcomes) == len(losses.open), WAIT_S)
        return losses.poll(metadata, outcomes, wait_s)

    driver = Driver("127.0.0.1:1", "etl-1", 60.0, poll, callback, 1.0, owns=bool)
    losses.open = {(number, 1): [number] for number in range(100)}
    driver.start()
    losses.wait(lambda: not losses.open)
    until(lambda: not driver._work.callbacks.is_busy, WAIT_S)
    driver.close()
    assert losses.failed == {(7, 1): "recompute_writers_callback raised ValueError: no workers"}
    assert losses.polls_with_answers <= 3


@pytest.mark.usefixtures("quick")
def test_an_application_that_is_let_go_lives_while_an_exchange_of_it_is_used() -> None:
    losses = ApplicationLosses()
    driver = Driver(
        "127.0.0.1:1", "etl-1", 100.0, losses.poll, lambda *_: None, 1.0, owns={"a"}.__contains__
    )
    driver.start()
    use = IN_USE.add("a", user := User())
    driver.let_go()
    assert not ended(driver)
    IN_USE.remove(use)
    wait_for_end(driver)
    use = IN_USE.add("a", user)
    assert not ended(driver)
    IN_USE.remove(use)
    wait_for_end(driver)


# --- without an owner -------------------------------------------------------------------------


class User:
    """Uses the exchange, as a writer does."""


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A driver that is let go rests as soon as nobody uses its exchange."""
    monkeypatch.setattr(module, "LET_GO_S", 0.0)
    monkeypatch.setattr(module, "_LET_GO_POLL_S", 0.02)


def test_no_thread_holds_the_callback(start: Start) -> None:
    class Owner:
        def again(self, mappers: list[int], reason: str) -> None:
            raise AssertionError

    owner = Owner()
    driver = start(owner.again)
    gone = weakref.ref(owner)
    work = driver._work
    start.drivers.clear()  # type: ignore[attr-defined]
    del owner, driver
    gc.collect()
    assert gone() is None
    work.close()


@pytest.mark.usefixtures("quick")
def test_a_driver_that_is_let_go_rests_when_nobody_uses_the_exchange(start: Start) -> None:
    driver = start(lambda mappers, reason: None)
    user = User()
    use = IN_USE.add("x", user)
    driver.let_go()
    seen = start.losses.polls  # type: ignore[attr-defined]
    start.losses.wait(lambda: start.losses.polls > seen + 3)  # type: ignore[attr-defined]
    assert not ended(driver)
    IN_USE.remove(use)
    wait_for_end(driver)


@pytest.mark.usefixtures("quick")
def test_a_driver_at_rest_goes_on_for_the_next_user(losses: Losses, start: Start) -> None:
    called: list[list[int]] = []
    driver = start(lambda mappers, reason: called.append(mappers))
    driver._work._lease_s = 100.0  # so that it still lasts
    driver.let_go()
    for _ in range(2):
        wait_for_end(driver)
        user = User()
        use = IN_USE.add("x", user)
        assert not ended(driver)
        losses.lose(len(called) + 1, [7])
        losses.wait(lambda: not losses.open)
        IN_USE.remove(use)
    assert called == [[7], [7]]


@pytest.mark.usefixtures("quick")
def test_a_driver_at_rest_whose_lease_ran_out_does_not_go_on(start: Start) -> None:
    driver = start(None)
    driver._work._lease_s = 0.0
    driver.let_go()
    driver._work.thread.join(WAIT_S)
    user = User()
    IN_USE.add("x", user)
    assert ended(driver)


def test_a_poll_under_way_ends_when_its_driver_is_let_go(losses: Losses, start: Start) -> None:
    driver = start(None)
    driver._work._lease_s = 300.0
    user = User()
    use = IN_USE.add("x", user)
    seen = losses.polls
    losses.wait(lambda: losses.polls > seen)  # one that waits for 10 s
    seen = losses.polls
    began = time.monotonic()
    driver.let_go()
    losses.wait(lambda: losses.polls > seen)
    assert time.monotonic() - began < 5.0
    IN_USE.remove(use)


@pytest.mark.usefixtures("quick")
def test_a_callback_that_runs_keeps_its_driver(losses: Losses, start: Start) -> None:
    running, go_on = threading.Event(), threading.Event()

    def callback(mappers: list[int], reason: str) -> None:
        running.set()
        assert go_on.wait(WAIT_S)

    driver = start(callback)
    losses.lose(1, [1])
    assert running.wait(WAIT_S)
    driver.let_go()
    seen = losses.polls
    losses.wait(lambda: losses.polls > seen + 3)
    assert not ended(driver)
    go_on.set()
    losses.wait(lambda: not losses.open)
    assert losses.arranged == [1]


def test_a_driver_that_is_told_of_another_one_says_so(losses: Losses, start: Start) -> None:
    driver = start(None)
    assert not driver.is_replaced
    with losses.changed:
        losses.owner = b"another"
        losses.changed.notify_all()
    driver._work.thread.join(WAIT_S)
    assert driver.is_replaced


def test_a_driver_that_no_other_replaced_does_not_say_so(losses: Losses, start: Start) -> None:
    driver = start(None)
    losses.wait(lambda: losses.polls > 0)
    losses.is_closed = True
    with losses.changed:
        losses.changed.notify_all()
    driver._work.thread.join(WAIT_S)
    assert not driver._work.thread.is_alive()
    assert not driver.is_replaced
