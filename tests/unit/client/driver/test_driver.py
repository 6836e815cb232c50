"""The owner's background work, against a metadata service that reports losses."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from pyroaring import BitMap

from cosco.client.driver.driver import Driver, RecomputeCallback, exchange_driver
from cosco.client.rpc import metadata_client
from cosco.errors import ExchangeClosed, InvalidArgument
from cosco.protocol import wire
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

    yield begin
    for driver in drivers:
        driver.close()
    server.stop(0).wait()


Start = Callable[[RecomputeCallback | None], Driver]


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
    assert [thread.name for thread in driver._threads] == ["cosco-lease"]
    losses.lose(1, [1])
    losses.wait(lambda: not losses.open)
    assert "no recompute_writers_callback" in losses.failed[1]


def test_polling_ends_with_the_exchange(losses: Losses, start: Start) -> None:
    driver = start(None)
    losses.is_closed = True
    driver._threads[0].join(WAIT_S)
    assert not driver._threads[0].is_alive()


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
    driver._threads[0].join(WAIT_S)
    go_on.set()
    driver._threads[1].join(WAIT_S)
    assert not any(thread.is_alive() for thread in driver._threads)
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
    for thread in driver._threads:
        thread.join(WAIT_S)
        assert not thread.is_alive()


@pytest.mark.parametrize("running", [False, True])
def test_closing_waits_for_the_thread_of_callbacks_unless_one_runs(
    losses: Losses, start: Start, monkeypatch: pytest.MonkeyPatch, running: bool
) -> None:
    called, go_on = threading.Event(), threading.Event()

    def callback(mappers: list[int], reason: str) -> None:
        called.set()
        assert go_on.wait(WAIT_S)

    driver = start(callback)
    if running:
        losses.lose(1, [1])
        assert called.wait(WAIT_S)
    joined: list[float] = []
    with monkeypatch.context() as patched:
        patched.setattr(driver._threads[1], "join", joined.append)
        driver.close()
    assert len(joined) == (0 if running else 1)
    go_on.set()
    driver._threads[1].join(WAIT_S)
    assert not any(thread.is_alive() for thread in driver._threads)


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
