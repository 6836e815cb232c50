"""The exchanges of an engine: one application, ended in the background, never in anybody's way."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from support.children import fork, join
from support.exchanges import until

import cosco.engine_exchanges
from cosco import InvalidArgument, LocalCluster
from cosco.admin import all_exchanges
from cosco.engine_exchanges import EngineExchanges

WAIT_S = 30.0


@pytest.fixture(scope="module")
def services() -> Iterator[LocalCluster]:
    with LocalCluster(1) as cluster:
        yield cluster


@pytest.fixture
def address(services: LocalCluster) -> Iterator[str]:
    """A service which has no exchanges before, and none after, of which no thread is left."""
    yield services.metadata
    until(lambda: not names(services.metadata), WAIT_S, "the end of all exchanges")
    until(lambda: not threads(), WAIT_S, "the end of threads")


@pytest.fixture
def exchanges() -> Iterator[EngineExchanges]:
    made = EngineExchanges(lambda: "engine")
    yield made
    made.end_all()


def names(address: str) -> list[str]:
    return [one.shuffle_id for one in all_exchanges(address) if not one.closing]


def threads() -> list[str]:
    known = ("cosco-close", "cosco-lease")
    return sorted(one.name for one in threading.enumerate() if one.name.startswith(known))


def test_many_have_one_application_and_two_threads(
    address: str, exchanges: EngineExchanges
) -> None:
    for _ in range(2):  # the second time it is another application
        made = [exchanges.make(address, 1, replicas=1) for _ in range(20)]
        assert len({one.shuffle_id.rpartition(".")[0] for one in made}) == 1
        assert sorted(names(address)) == sorted(one.shuffle_id for one in made)
        assert threads() == ["cosco-close", "cosco-lease"]
        exchanges.end(made[7])
        exchanges.end(made[7])
        until(lambda: len(names(address)) == 19, WAIT_S, "the end of one")
        for one in made:
            exchanges.end(one)
        until(lambda: not threads(), WAIT_S, "the end of the application")


def test_nobody_waits_for_a_service_that_is_away(
    services: LocalCluster,
    address: str,
    exchanges: EngineExchanges,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cosco.engine_exchanges, "END_S", 0.2)
    made = [exchanges.make(address, 1, replicas=1) for _ in range(3)]
    services.metadata_service.kill()
    began = time.monotonic()
    exchanges.end(made[0])
    exchanges.end_all()
    assert time.monotonic() - began < 5
    assert threads()
    services.metadata_service.restart()


def test_a_refused_one_leaves_no_application(address: str, exchanges: EngineExchanges) -> None:
    with pytest.raises(InvalidArgument, match="partitions"):
        exchanges.make(address, 0)
    until(lambda: not threads(), WAIT_S, "the end of the application")
    exchanges.end(exchanges.make(address, 1, replicas=1))


def test_an_application_whose_lease_ran_out_is_followed_by_another(
    address: str, exchanges: EngineExchanges
) -> None:
    first = exchanges.make(address, 1, replicas=1)
    assert first._application is not None
    first._application._metadata.close_application(  # as the service does when the lease ends
        first._application.application_id, first._owner
    )
    second = exchanges.make(address, 1, replicas=1)
    assert names(address) == [second.shuffle_id]
    exchanges.end(first)
    exchanges.end(second)


def test_they_are_made_and_ended_by_many_threads(address: str, exchanges: EngineExchanges) -> None:
    def make_and_end(_: int) -> str:
        exchange = exchanges.make(address, 1, replicas=1)
        exchanges.end(exchange)
        return exchange.shuffle_id

    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(make_and_end, range(60)))) == 60


def test_a_forked_child_has_exchanges_of_its_own(address: str, exchanges: EngineExchanges) -> None:
    mine = exchanges.make(address, 1, replicas=1)

    def child() -> None:
        exchanges.end(mine)
        own = exchanges.make(address, 1, replicas=1)
        assert set(names(address)) == {mine.shuffle_id, own.shuffle_id}
        exchanges.end_all()

    join(fork(child))
    assert names(address) == [mine.shuffle_id]
    exchanges.end(mine)
