"""One trace of an exchange, of spans that several processes sent to a collector."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import nullcontext

import pytest
from opentelemetry.trace import StatusCode
from support.exchanges import until
from support.processes import python
from support.span_collector import Collector, KeptSpan, collector
from support.tracing import Traced, traced

from cosco import (
    CommitTimeout,
    CoscoApplication,
    CoscoError,
    CoscoExchange,
    CoscoExchangeGroup,
    CoscoReader,
    CoscoWriter,
    LocalCluster,
    ServiceUnavailable,
)
from cosco.format.traceparent import parse_traceparent
from cosco.observe import fetch_status

WAIT_S = 30.0

#: What an application does that wants to be traced.
SET_UP = """
import sys
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from cosco import CoscoExchange, CoscoReader, CoscoWriter

provider = TracerProvider(resource=Resource.create({"service.name": sys.argv[1]}))
provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
trace.set_tracer_provider(provider)
name, metadata = sys.argv[2:4]
"""
DRIVER = SET_UP + textwrap.dedent("""
    with CoscoExchange(name, 3, replicas=1, metadata=metadata):
        print("made", flush=True)
        sys.stdin.readline()
    provider.shutdown()
    print("ended", flush=True)
    sys.stdin.readline()
""")
MAPPER = SET_UP + textwrap.dedent("""
    class Broken(Exception):
        pass

    try:
        with CoscoWriter(name, 1, metadata=metadata) as writer:
            raise Broken("of an engine")
    except Broken:
        pass
    with trace.get_tracer("engine").start_as_current_span("task"):
        with CoscoWriter(name, 1, metadata=metadata) as writer:
            writer.collect(1, b"of the task")
    with CoscoWriter(name, 0, metadata=metadata) as writer:
        for n in range(1000):
            writer.collect(n % 3, bytes(100))
    provider.shutdown()
    print("ended", flush=True)
    sys.stdin.readline()
""")
READER = SET_UP + textwrap.dedent("""
    with CoscoReader(name, [0, 1], range(3), metadata=metadata) as reader:
        print("begun", flush=True)
        rows = len(list(reader))
    provider.shutdown()
    print(rows, flush=True)
    sys.stdin.readline()
""")
FORKING = SET_UP + textwrap.dedent("""
    import os

    with CoscoExchange(name, 1, replicas=1, metadata=metadata):
        open_writer = CoscoWriter(name, 0, metadata=metadata)
        child = os.fork()
        if not child:
            with CoscoWriter(name, 1, metadata=metadata) as writer:
                writer.collect(0, b"of the child")
            provider.force_flush()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        open_writer.abort()
    provider.shutdown()
    print("ended", flush=True)
    sys.stdin.readline()
""")


@pytest.fixture(scope="module")
def kept() -> Iterator[Collector]:
    with collector() as found, pytest.MonkeyPatch.context() as patched:
        patched.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", found.endpoint)
        patched.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
        yield found


@pytest.fixture(scope="module")
def started(kept: Collector) -> Iterator[LocalCluster]:
    options = ("--tracing", "--store-idle-s", "0.1")
    with LocalCluster(1, memory="16MiB", daemon_options=options) as cluster:
        yield cluster


@pytest.fixture
def spans() -> Iterator[Traced]:
    with traced() as found:
        yield found


def of(found: list[KeptSpan], service: str, name: str, **attributes: object) -> list[KeptSpan]:
    """Those of a process, with attributes whose dots are underscores here."""
    wanted = {f"cosco.{key.replace('_', '.')}": value for key, value in attributes.items()}
    return [
        span
        for span in found
        if (span.service, span.name) == (service, name)
        and span.attributes.items() >= wanted.items()
    ]


def test_the_spans_of_four_processes_are_one_trace(
    started: LocalCluster, kept: Collector, name: str
) -> None:
    metadata = started.metadata
    with python(DRIVER, "driver", name, metadata) as driver:
        assert driver.stdin is not None
        with python(READER, "reader", name, metadata) as reader:  # which has to wait
            with python(MAPPER, "mapper", name, metadata):
                assert reader.stdout is not None
                assert reader.stdout.readline() == "1001\n"
        kept.wait_for(1, "cosco flush")
        driver.stdin.write("\n")
        driver.stdin.flush()
        assert driver.stdout is not None
        driver.stdout.readline()
    found = kept.spans()
    [create] = of(found, "driver", "cosco create", exchange_id=name)
    number = create.attributes["cosco.exchange.number"]
    flushes = of(found, "cosco-shuffled", "cosco flush", exchange_number=number)
    assert flushes
    assert (create.parent, create.failed) == ("", False)

    # Without a span of its own, a process has the exchange's for its parent.
    [write] = of(found, "mapper", "cosco write", mapper=0)
    [read] = of(found, "reader", "cosco read", exchange_id=name)
    for span in (write, read, *flushes):
        assert (span.trace, span.parent, span.failed) == (create.trace, create.id, False)
        assert span.attributes["cosco.exchange.number"] == number
    assert {span.service for span in flushes} == {"cosco-shuffled"}
    assert write.attributes["cosco.write.rows"] == 1000
    assert write.attributes["cosco.write.won"] is True
    assert read.attributes["cosco.read.rows"] == 1001
    assert read.attributes["cosco.read.bytes"] == 100_011

    # The commit is within the write, and the wait within the read.
    [commit] = [span for span in of(found, "mapper", "cosco commit") if span.parent == write.id]
    assert commit.trace == create.trace
    assert commit.length_ns <= write.length_ns
    [wait] = of(found, "reader", "cosco wait", partition=0)
    assert (wait.trace, wait.parent) == (create.trace, read.id)
    assert wait.length_ns <= read.length_ns

    # What fails says so; why an error of a user's is not told, as rows may be in that.
    [broken] = [span for span in of(found, "mapper", "cosco write", mapper=1) if span.failed]
    assert (broken.message, broken.events) == ("Broken", [])
    assert "cosco.write.won" not in broken.attributes

    # A task of an engine has a trace of its own: the exchange is linked to.
    [task] = [span for span in of(found, "mapper", "cosco write", mapper=1) if not span.failed]
    assert task.trace != create.trace
    assert task.links == [(create.trace, create.id)]


def test_a_forked_process_sends_its_own_spans_and_none_of_its_parents(
    started: LocalCluster, kept: Collector, name: str
) -> None:
    with python(FORKING, name, name, started.metadata):
        pass  # it has ended when it says something
    found = [span for span in kept.spans() if span.service == name]
    [create] = of(found, name, "cosco create")
    writes = {span.attributes["cosco.mapper"]: span for span in of(found, name, "cosco write")}
    assert len(of(found, name, "cosco write")) == 2
    assert "cosco.write.aborted" in writes[0].attributes
    assert writes[1].attributes["cosco.write.rows"] == 1
    assert {span.trace for span in found} == {create.trace}
    assert not any(span.failed for span in found)


@pytest.fixture
def none_yet(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    """A collector that no other test's services send to, and these at their end alone."""
    with collector() as found:
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "3600000")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", found.endpoint)
        yield found


def test_a_daemon_that_is_not_asked_to_sends_nothing(
    none_yet: Collector, spans: Traced, name: str
) -> None:
    with LocalCluster(1, memory="16MiB") as cluster:
        with CoscoExchange(name, 1, replicas=1, metadata=cluster.metadata):
            write(cluster, name)
            cluster.daemons[0].stop()  # which stores all it has
    assert spans.only("cosco create").status.status_code is StatusCode.UNSET
    assert none_yet.spans() == []


@pytest.mark.parametrize("is_traced", [False, True])
def test_a_daemon_sends_what_it_has_at_its_end_of_exchanges_that_are_traced(
    none_yet: Collector, name: str, is_traced: bool
) -> None:
    options = ["--tracing", "--sweep-s", "0.1"]
    with LocalCluster(1, memory="16MiB", daemon_options=options) as cluster:
        [daemon] = cluster.daemons
        with traced() if is_traced else nullcontext():
            with CoscoExchange(name, 1, replicas=1, metadata=cluster.metadata):
                write(cluster, name)
                daemon.stop()  # which stores all it has; it serves on until the exchange is closed
        daemon.restart()  # and ends first
        assert len(none_yet.spans("cosco flush")) == is_traced
    assert len(none_yet.spans()) == is_traced


def write(cluster: LocalCluster, name: str, mapper: int = 0) -> None:
    with CoscoWriter(name, mapper, metadata=cluster.metadata) as writer:
        writer.collect(0, b"x")


def read(cluster: LocalCluster, name: str, mappers: list[int]) -> int:
    with CoscoReader(name, mappers, 0, timeout_s=WAIT_S, metadata=cluster.metadata) as reader:
        return len(list(reader))


def test_a_service_that_was_restarted_tells_the_trace_still(
    cluster: LocalCluster, kept: Collector, spans: Traced, name: str
) -> None:
    with (
        CoscoExchange(name, 1, replicas=1, metadata=cluster.metadata),
        CoscoExchangeGroup(f"{name}-g", 1, 1, 1, replicas=1, metadata=cluster.metadata) as group,
    ):
        before = len(kept.spans("cosco flush"))
        cluster.metadata_service.kill()
        cluster.metadata_service.restart()
        write(cluster, name)
        with group.handle().writer(0, 0) as writer:
            writer.collect(0, b"x")
        flushes = kept.wait_for(before + 2, "cosco flush")[before:]
    made = {one.get_span_context().trace_id for one in spans.spans("cosco create")}
    assert len(made) == 2
    assert {one.get_span_context().trace_id for one in spans.spans("cosco write")} == made
    assert {int(span.trace, 16) for span in flushes} == made


def test_a_wait_that_is_too_long_has_failed(
    cluster: LocalCluster, spans: Traced, name: str
) -> None:
    with CoscoExchange(name, 1, replicas=1, metadata=cluster.metadata):
        with CoscoReader(name, [0], 0, timeout_s=0.05, metadata=cluster.metadata) as reader:
            with pytest.raises(CommitTimeout):
                reader.next()
    for span in (spans.only("cosco wait"), spans.only("cosco read")):
        assert span.status.status_code is StatusCode.ERROR
        assert (span.attributes or {})["error.type"] == "CommitTimeout"


def test_an_attempt_that_is_given_up_has_ended_without_an_error(
    cluster: LocalCluster, spans: Traced, name: str
) -> None:
    with CoscoExchange(name, 1, replicas=1, metadata=cluster.metadata):
        writer = CoscoWriter(name, 0, metadata=cluster.metadata)
        writer.abort()
        span = spans.only("cosco write")
        assert (span.attributes or {})["cosco.write.aborted"] is True
        assert span.status.status_code is StatusCode.UNSET
        writer.abort()
        with pytest.warns(ResourceWarning, match="unclosed"):
            CoscoWriter(name, 1, metadata=cluster.metadata)
        until(lambda: len(spans.spans("cosco write")) == 2, WAIT_S, "the end of a dropped writer")
    assert spans.spans("cosco commit") == []


def test_a_commit_that_fails_is_a_failed_span_of_a_failed_write(
    cluster: LocalCluster, spans: Traced, name: str
) -> None:
    with CoscoExchange(name, 1, replicas=1, metadata=cluster.metadata):
        writer = CoscoWriter(name, 0, metadata=cluster.metadata)
        writer.collect(0, b"x")
    for _ in range(2):
        with pytest.raises(CoscoError):
            writer.close()
    commit, write = spans.only("cosco commit"), spans.only("cosco write")
    assert commit.parent is not None
    assert commit.parent.span_id == write.get_span_context().span_id
    for span in (commit, write):
        assert (span.attributes or {})["error.type"] == "ExchangeClosed"
        assert span.status.status_code is StatusCode.ERROR


def test_what_a_stream_failed_with_is_that_of_the_write(
    cluster: LocalCluster, spans: Traced, name: str
) -> None:
    with CoscoExchange(name, 1, replicas=1, metadata=cluster.metadata):
        writer = CoscoWriter(name, 0, metadata=cluster.metadata)
        writer._fail(ServiceUnavailable("as the thread of a stream says"))
        with pytest.raises(ServiceUnavailable):
            writer.collect(0, b"x")
        assert (spans.only("cosco write").attributes or {})["error.type"] == "ServiceUnavailable"
        writer.abort()
    assert len(spans.spans("cosco write")) == 1


@pytest.mark.parametrize("kind", ["exchange", "application", "group"])
def test_mappers_that_run_again_are_within_a_span_of_the_driver(
    cluster: LocalCluster, spans: Traced, name: str, kind: str
) -> None:
    metadata = cluster.metadata

    def again(mappers: list[int], reason: str) -> None:
        for mapper in mappers:
            write(cluster, exchange_name, mapper)

    with CoscoApplication("etl", metadata=metadata) as application:
        if kind == "group":
            group = CoscoExchangeGroup(
                name, 1, 1, 1, lambda _, mappers, reason: again(mappers, reason), replicas=1,
                metadata=metadata,
            )  # fmt: skip
            exchange_name = f"{name}/0"
        else:
            owner = application if kind == "application" else None
            where = {} if owner else {"metadata": metadata}
            group = CoscoExchange(name, 1, again, replicas=1, application=owner, **where)
            exchange_name = name
        with group:
            write(cluster, exchange_name)
            lose_all_rows(cluster)
            assert read(cluster, exchange_name, [0]) == 1
    create, recompute = spans.only("cosco create"), spans.only("cosco recompute")
    place = create.get_span_context()
    assert recompute.parent is not None
    assert (recompute.parent.trace_id, recompute.parent.span_id) == (
        place.trace_id,
        place.span_id,
    )
    about = recompute.attributes or {}
    assert about["cosco.exchange.id"] == exchange_name
    assert about["cosco.recompute.mappers"] == 1
    # What the callback writes is within it.
    first, second = spans.spans("cosco write")
    assert second.parent is not None
    assert second.parent.span_id == recompute.get_span_context().span_id
    assert ((first.attributes or {})["cosco.write.again"]) is False
    assert ((second.attributes or {})["cosco.write.again"]) is True


def lose_all_rows(cluster: LocalCluster) -> None:
    """What the daemon has in memory, and in its store."""
    [daemon] = cluster.daemons
    daemon.stop()
    for file in (cluster.directory / "store").rglob("0-*"):
        if file.is_file():
            file.unlink()
    daemon.restart()


def test_a_callback_that_fails_is_a_failed_span(
    cluster: LocalCluster, spans: Traced, name: str
) -> None:
    def never(mappers: list[int], reason: str) -> None:
        raise RuntimeError("no workers")

    with CoscoExchange(name, 1, never, replicas=1, metadata=cluster.metadata):
        write(cluster, name)
        lose_all_rows(cluster)
        with pytest.raises(Exception, match="no workers"):
            read(cluster, name, [0])
    span = spans.only("cosco recompute")
    assert span.status.description == "RuntimeError"  # what it says may be of rows


def test_a_whole_exchange_imports_nothing_of_it(cluster: LocalCluster, name: str) -> None:
    code = """
        import sys
        from cosco import CoscoExchange
        with CoscoExchange(sys.argv[1], 1, mappers=1, replicas=1, metadata=sys.argv[2]) as exchange:
            with exchange.handle().writer(0) as writer:
                writer.collect(0, b"x")
            with exchange.handle().reader(0) as reader:
                assert list(reader) == [b"x"]
        print([module for module in sys.modules if "opentelemetry" in module])
    """
    command = [sys.executable, "-c", textwrap.dedent(code), name, cluster.metadata]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=WAIT_S)
    assert done.stdout == "[]\n"


def test_the_trace_is_told_to_who_attaches(cluster: LocalCluster, spans: Traced, name: str) -> None:
    with CoscoExchange(name, 1, replicas=1, metadata=cluster.metadata) as exchange:
        again = CoscoExchange.attach(name, metadata=cluster.metadata)
        with again:
            told = parse_traceparent(again._info.spec.trace)
        assert told is not None
        place = spans.only("cosco create").get_span_context()
        assert (told.trace_id, told.span_id) == (place.trace_id, place.span_id)
        assert exchange._info.spec.trace == again._info.spec.trace


def test_a_failed_creation_has_failed(cluster: LocalCluster, spans: Traced, name: str) -> None:
    with CoscoExchange(name, 1, replicas=1, metadata=cluster.metadata):
        with pytest.raises(Exception, match="exists"):
            CoscoExchange(name, 1, replicas=1, metadata=cluster.metadata)
    failed = [s for s in spans.spans("cosco create") if s.status.status_code is StatusCode.ERROR]
    assert [(s.attributes or {})["error.type"] for s in failed] == ["ExchangeExists"]
    assert len(fetch_status(cluster.metadata).daemons) == 1
