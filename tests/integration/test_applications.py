"""Applications: many exchanges with one lease, over real services."""

from __future__ import annotations

import copy
import gc
import os
import pickle
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from support.children import check_refused, fork, join
from support.exchanges import until
from support.processes import python
from support.threads import client_threads

from cosco import (
    ClientClosed,
    CoscoApplication,
    CoscoExchange,
    CoscoExchangeGroup,
    CoscoReader,
    CoscoWriter,
    ExchangeClosed,
    ExchangeExists,
    InvalidArgument,
    LocalCluster,
    NotPicklable,
)
from cosco.admin import show_exchange
from cosco.client.rpc.metadata_client import MetadataClient
from cosco.client.rpc.transport import Endpoint

WAIT_S = 30.0


def is_closed(name: str, metadata: str) -> bool:
    try:
        CoscoExchange.attach(name, metadata=metadata)
    except ExchangeClosed:
        return True
    return False


def write(exchange: CoscoExchange, mapper: int, row: bytes) -> None:
    with exchange.handle().writer(mapper) as writer:
        writer.collect(0, row)


def read(exchange: CoscoExchange, mappers: list[int] | None = None) -> list[bytes]:
    with exchange.handle().reader(0, mappers, timeout_s=WAIT_S) as reader:
        return sorted(reader.read_table().column(0).to_pylist())


def lose_all_rows(cluster: LocalCluster) -> None:
    """What the daemons have in memory, and in their store."""
    for daemon in cluster.daemons:
        daemon.stop()
    for file in (cluster.directory / "store").rglob("0-*"):
        if file.is_file():
            file.unlink()
    for daemon in cluster.daemons:
        daemon.restart()


@contextmanager
def dropped() -> Iterator[None]:
    """Within it an application is dropped, which is warned of once it is collected."""
    with pytest.warns(ResourceWarning, match="unclosed <CoscoApplication of 'etl'"):  # noqa: PT031
        yield
        gc.collect()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is let go is not renewed for long when nobody uses it."""
    monkeypatch.setattr("cosco.client.driver.driver.LET_GO_S", 0.2)


# --- its life -----------------------------------------------------------------------------


def test_it_names_its_exchanges_and_ends_them(metadata: str) -> None:
    with CoscoApplication("etl", metadata=metadata) as application:
        assert application.name == "etl"
        label, number = application.application_id.rsplit("-", 1)
        assert (label, number.isdecimal()) == ("etl", True)
        first = application.exchange(2, mappers=1)
        second = application.exchange(3, replicas=1, mappers=2)
        assert first.shuffle_id == f"{application.application_id}.1"
        assert second.shuffle_id == f"{application.application_id}.2"
        assert (first.partitions, second.partitions, second.mappers) == (2, 3, 2)
        write(first, 0, b"row")
        assert read(first) == [b"row"]
        first.close()
        first.close()
        assert is_closed(first.shuffle_id, metadata)
        assert not is_closed(second.shuffle_id, metadata)
        detail = show_exchange(metadata, second.shuffle_id)
        assert detail.application_id == application.application_id
    application.close()
    assert is_closed(second.shuffle_id, metadata)
    for use in (second.progress, second.handle, lambda: application.exchange(1)):
        with pytest.raises(ClientClosed):
            use()
    second.close()
    with pytest.raises(ClientClosed):
        CoscoExchange("another", 1, metadata=metadata, application=application)
    assert "cosco-lease" not in client_threads()


def test_names_that_others_have_are_passed_over(metadata: str) -> None:
    with CoscoApplication("etl", metadata=metadata) as application:
        taken = f"{application.application_id}.1"
        with CoscoExchange(taken, 1, metadata=metadata):
            exchange = application.exchange(1)
            assert exchange.shuffle_id == f"{application.application_id}.2"


def test_an_exchange_with_an_id_of_its_own(name: str, metadata: str) -> None:
    with CoscoApplication("etl", lease_s=77.0, metadata=metadata) as application:
        with CoscoExchange(name, 1, application=application) as exchange:
            assert exchange.shuffle_id == name
            detail = show_exchange(metadata, name)
            assert (detail.application_id, detail.lease_s) == (application.application_id, 77.0)
            for options in ({}, {"lease_s": 77.0}, {"metadata": metadata}):
                with pytest.raises(ExchangeExists, match=name):
                    CoscoExchange(name, 1, application=application, **options)  # type: ignore[arg-type]
        with pytest.raises(ExchangeExists, match=name):
            CoscoExchange(name, 1, application=application)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"lease_s": 300.0}, "lease_s is 300.0, and 60.0 of application 'etl-"),
        ({"metadata": "127.0.0.1:1"}, "metadata is '127.0.0.1:1', and "),
        ({"application": "etl"}, "application is 'etl', it must be a CoscoApplication"),
    ],
)
def test_options_that_are_the_applications(
    name: str, metadata: str, options: dict[str, Any], named: str
) -> None:
    with CoscoApplication("etl", lease_s=60.0, metadata=metadata) as application:
        with pytest.raises(InvalidArgument, match=named) as caught:
            CoscoExchange(name, 1, **({"application": application} | options))
        assert caught.value.shuffle_id == name


@pytest.mark.parametrize(
    ("arguments", "options", "named"),
    [
        ([""], {}, "the name of an application is 0 bytes long"),
        (["é" * 200], {}, "is 400 bytes long, it must be 1 to 256"),
        ([7], {}, "name is 7, it must be a string"),
        (["etl"], {"lease_s": 0.1}, "lease_s is 0.1, it must be at least 1"),
        (["etl"], {"lease_s": 1e9}, "lease_s is 1000000000.0, it must be 1 to 604800"),
        (["etl"], {"metadata": "nonsense"}, "nonsense"),
    ],
)
def test_what_cannot_be_an_application(
    metadata: str, arguments: list[Any], options: dict[str, Any], named: str
) -> None:
    with pytest.raises(InvalidArgument, match=named):
        CoscoApplication(*arguments, **({"metadata": metadata} | options))


def test_many_exchanges_need_one_thread_and_a_call_each(
    metadata: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    unary = Endpoint.unary

    def counting(self: Endpoint, method: str, *rest: object) -> bytes:
        calls.append(method.rpartition("/")[2])
        return unary(self, method, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(Endpoint, "unary", counting)
    with CoscoApplication("etl", metadata=metadata) as application:
        began = time.monotonic()
        for _ in range(100):
            application.exchange(1, lambda mappers, reason: None)
        took_s = time.monotonic() - began
        assert calls.count("CreateExchange") == 100
        assert calls.count("PollDriver") == 0
        assert calls.count("PollApplication") <= 2 + took_s / 9
        names = client_threads()
        assert (names.count("cosco-lease"), names.count("cosco-recompute")) == (1, 0)
    assert len(calls) == 102 + calls.count("PollApplication")


def test_it_cannot_be_pickled_or_copied(metadata: str) -> None:
    with CoscoApplication("etl", metadata=metadata) as application:
        for use in (pickle.dumps, copy.copy, copy.deepcopy):
            with pytest.raises(NotPicklable, match="pass handles of its exchanges"):
                use(application)


def test_no_more_threads_can_be_started(metadata: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody would keep the application, so it is closed."""
    made: list[tuple[str, bytes]] = []
    start, create = threading.Thread.start, MetadataClient.create_application

    def refuse(thread: threading.Thread) -> None:
        if thread.name == "cosco-lease":
            raise RuntimeError("can't start new thread")
        start(thread)

    def remember(self: MetadataClient, name: str, owner: bytes, lease_s: float) -> str:
        made.append((create(self, name, owner, lease_s), owner))
        return made[-1][0]

    with monkeypatch.context() as patched:
        patched.setattr(MetadataClient, "create_application", remember)
        patched.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            CoscoApplication("etl", metadata=metadata)
    with CoscoApplication("etl", metadata=metadata) as application:
        with pytest.raises(ExchangeClosed):
            application._metadata.poll_application(*made[0], wait_s=0.0)


# --- leases -------------------------------------------------------------------------------


def test_it_ends_with_its_process(name: str, metadata: str) -> None:
    code = """
        import sys, cosco
        application = cosco.CoscoApplication("etl", lease_s=1.0, metadata=sys.argv[1])
        made = [application.exchange(1).shuffle_id for _ in range(2)]
        made.append(cosco.CoscoExchange(sys.argv[2], 1, application=application).shuffle_id)
        print("made", flush=True)
        sys.stdin.readline()
    """
    with python(code, metadata, name):
        time.sleep(1.5)
        assert not is_closed(name, metadata)
        others = show_exchange(metadata, name).application_id
    until(lambda: is_closed(name, metadata), WAIT_S, "the end of the lease")
    for number in (1, 2):
        assert is_closed(f"{others}.{number}", metadata)


def test_an_application_whose_lease_ran_out_says_so(metadata: str) -> None:
    with CoscoApplication("etl", lease_s=1.0, metadata=metadata) as application:
        exchange = application.exchange(1)
        application._driver.close()  # as if the process had stood still
        until(lambda: is_closed(exchange.shuffle_id, metadata), WAIT_S, "the end of the lease")
        with pytest.raises(ExchangeClosed, match="was closed, or its driver's lease ran out"):
            application.exchange(1)


def test_the_metadata_service_restarts_under_it(cluster: LocalCluster) -> None:
    metadata = cluster.metadata
    called: list[tuple[str, list[int]]] = []
    with CoscoApplication("etl", lease_s=1.0, metadata=metadata) as application:
        first = application.exchange(1, lambda m, _: called.append(("first", m)), mappers=1)
        second = application.exchange(1, mappers=1)
        write(first, 0, b"first")
        cluster.metadata_service.kill()
        cluster.metadata_service.restart()
        write(second, 0, b"second")
        time.sleep(1.5)  # more than a lease: it was renewed
        assert read(first) == [b"first"]
        assert read(second) == [b"second"]
        assert show_exchange(metadata, second.shuffle_id).application_id
        third = application.exchange(1)
        assert third.shuffle_id == f"{application.application_id}.3"
    with CoscoApplication("etl", metadata=metadata) as another:
        assert another.application_id != application.application_id
    assert all(is_closed(e.shuffle_id, metadata) for e in (first, second, third))


# --- callbacks ----------------------------------------------------------------------------


def test_a_rerun_reads_an_exchange_that_lost_rows_in_the_same_death(cluster: LocalCluster) -> None:
    """The callback of each of three runs while those before it do."""
    called: list[int] = []
    exchanges: list[CoscoExchange] = []

    def run(i: int) -> None:
        rows = read(exchanges[i - 1]) if i else [b""]
        write(exchanges[i], 0, rows[0] + b"%d" % i)

    def again(i: int) -> Callable[[list[int], str], None]:
        def callback(mappers: list[int], reason: str) -> None:
            assert mappers == [0]
            called.append(i)
            run(i)

        return callback

    with CoscoApplication("etl", metadata=cluster.metadata) as application:
        for i in range(3):
            exchanges.append(application.exchange(1, again(i), mappers=1))
            run(i)
        lose_all_rows(cluster)
        assert read(exchanges[2]) == [b"012"]
        assert called == [2, 1, 0]
        assert [read(exchange) for exchange in exchanges] == [[b"0"], [b"01"], [b"012"]]
    until(lambda: "cosco-recompute" not in client_threads(), WAIT_S)


def test_a_dropped_exchange_of_it_is_called_back_still(cluster: LocalCluster) -> None:
    called: list[list[int]] = []
    with CoscoApplication("etl", metadata=cluster.metadata) as application:

        def again(mappers: list[int], reason: str) -> None:
            called.append(mappers)
            with handle.writer(0) as writer:
                writer.collect(0, b"row")

        handle = application.exchange(1, again, mappers=1).handle()
        gc.collect()  # without a warning: the application has it
        with handle.writer(0) as writer:
            writer.collect(0, b"row")
        lose_all_rows(cluster)
        with handle.reader(0, timeout_s=WAIT_S) as reader:
            assert reader.read_table().column(0).to_pylist() == [b"row"]
    assert called == [[0]]


def test_an_exchange_that_another_driver_takes_over(cluster: LocalCluster, name: str) -> None:
    metadata = cluster.metadata
    called: list[str] = []
    with CoscoApplication("etl", metadata=metadata) as application:
        with CoscoExchange(name, 1, lambda *_: called.append("application"), mappers=1,
                           application=application) as exchange:  # fmt: skip
            write(exchange, 0, b"row")

            def again(mappers: list[int], reason: str) -> None:
                called.append("another")
                write(another, 0, b"row")

            another = CoscoExchange.attach(name, again, own=True, metadata=metadata)
        assert not is_closed(name, metadata)  # leaving the block ends one's own alone
        lose_all_rows(cluster)
        assert read(another) == [b"row"]
        assert called == ["another"]
    assert not is_closed(name, metadata)
    assert not show_exchange(metadata, name).application_id
    another.close()
    assert is_closed(name, metadata)


def test_nobody_polls_for_one_exchange_of_it(name: str, metadata: str) -> None:
    with CoscoApplication("etl", metadata=metadata) as application:
        exchange = CoscoExchange(name, 1, application=application)
        with pytest.raises(InvalidArgument, match="is of application 'etl-"):
            exchange._metadata.poll_driver(exchange._info.number, exchange._owner, wait_s=0.0)


def test_groups_have_leases_of_their_own(name: str, metadata: str) -> None:
    with CoscoApplication("etl", metadata=metadata):
        with CoscoExchangeGroup(name, 1, 1, 1, metadata=metadata):
            assert show_exchange(metadata, f"{name}/0").application_id == ""


# --- dropped, and forked ------------------------------------------------------------------


@pytest.mark.usefixtures("quick")
def test_a_dropped_application(metadata: str) -> None:
    application = CoscoApplication("etl", lease_s=1.0, metadata=metadata)
    shuffle_id = application.exchange(1).shuffle_id
    with dropped():
        del application
    until(lambda: is_closed(shuffle_id, metadata), WAIT_S, "the end of the lease")


@pytest.mark.usefixtures("quick")
def test_an_exchange_holds_its_application(metadata: str) -> None:
    exchange = CoscoApplication("etl", lease_s=1.0, metadata=metadata).exchange(1)
    gc.collect()
    time.sleep(1.5)
    assert exchange.progress().rows == 0
    with dropped():
        shuffle_id = exchange.shuffle_id
        del exchange
    until(lambda: is_closed(shuffle_id, metadata), WAIT_S, "the end of the lease")


@pytest.mark.usefixtures("quick")
def test_a_dropped_application_lives_while_a_handle_of_an_exchange_does(metadata: str) -> None:
    def handle_of() -> Any:
        application = CoscoApplication("etl", lease_s=1.0, metadata=metadata)
        return application.exchange(1, mappers=1).handle()

    with dropped():
        handle = handle_of()
    time.sleep(1.5)
    with handle.writer(0) as writer:
        writer.collect(0, b"row")
    with handle.reader(0) as reader:
        assert list(reader) == [b"row"]
    shuffle_id = handle.shuffle_id
    del handle, writer, reader
    gc.collect()
    until(lambda: is_closed(shuffle_id, metadata), WAIT_S, "the end of the lease")


@pytest.mark.usefixtures("quick")
def test_an_application_whose_callback_holds_it_is_collected(metadata: str) -> None:
    class Owner:
        def __init__(self) -> None:
            self.application = CoscoApplication("etl", lease_s=1.0, metadata=metadata)
            self.exchange = self.application.exchange(1, self.again)

        def again(self, mappers: list[int], reason: str) -> None:
            raise AssertionError

    owner = Owner()
    shuffle_id = owner.exchange.shuffle_id
    with dropped():
        del owner
    until(lambda: is_closed(shuffle_id, metadata), WAIT_S, "the end of the lease")


def test_a_forked_child_leaves_it_to_its_parent(name: str, metadata: str) -> None:
    with CoscoApplication("etl", lease_s=1.0, metadata=metadata) as application:
        exchange = application.exchange(1, mappers=1)
        own = exchange.shuffle_id

        def child() -> None:
            check_refused(
                [
                    lambda: application.exchange(1),
                    lambda: CoscoExchange(name, 1, application=application),
                    application.close,
                    exchange.close,
                    exchange.handle,
                ]
            )
            with application, exchange:  # which it leaves without a word
                pass
            with CoscoApplication("child", metadata=metadata) as mine:
                mine.exchange(1)
            with CoscoWriter(own, 0, metadata=metadata) as writer:
                writer.collect(0, b"from the child")
            os._exit(0)

        join(fork(child))
        time.sleep(1.5)  # more than a lease
        with CoscoReader(own, [0], 0, metadata=metadata) as reader:
            assert list(reader) == [b"from the child"]
        assert application.exchange(1).shuffle_id == f"{application.application_id}.2"
