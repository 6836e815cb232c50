"""Spans as the API of OpenTelemetry is given them, and that nothing is done without it."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON
from opentelemetry.trace import StatusCode
from support.tracing import PROVIDER, Traced, traced

from cosco.errors import DataLost
from cosco.format.traceparent import parse_traceparent
from cosco.process.tracing import spans as module
from cosco.process.tracing.spans import (
    NO_SPAN,
    Span,
    SpanStart,
    begin_span,
    record_for_exchange,
)

TRACE_ID, SPAN_ID = 0x0AF7651916CD43DD8448EB211C80319C, 0xB7AD6B7169203331
PARENT = f"00-{TRACE_ID:032x}-{SPAN_ID:016x}-01"
NOT_KEPT = PARENT[:-1] + "0"
HOSTILE = ["", "00-ab", PARENT + "\r\nx", f"00-{'0' * 32}-{SPAN_ID:016x}-01", "\0" * 55, "é" * 55]


@pytest.fixture
def spans() -> Iterator[Traced]:
    with traced() as found:
        yield found


def place(span: ReadableSpan) -> tuple[int, int]:
    return span.get_span_context().trace_id, span.get_span_context().span_id


def parent(span: ReadableSpan) -> tuple[int, int] | None:
    return span.parent and (span.parent.trace_id, span.parent.span_id)


# --- nobody traces ------------------------------------------------------------------------


def is_nothing() -> bool:
    record_for_exchange("x", PARENT, 1, {})
    with SpanStart("x", "name") as start:
        begun = start.begin(PARENT, {})
    return begin_span("x", {}, PARENT) is NO_SPAN and begun is NO_SPAN


def test_without_the_package_there_is_no_span(
    spans: Traced, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not is_nothing()
    before = len(spans.spans())
    monkeypatch.delitem(sys.modules, "opentelemetry.trace")
    assert is_nothing()
    assert len(spans.spans()) == before
    assert "opentelemetry.trace" not in sys.modules


@pytest.mark.parametrize("provider", [None, trace.NoOpTracerProvider()])
def test_without_a_provider_there_is_no_span(
    provider: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PROVIDER, provider)
    assert is_nothing()


def test_while_the_package_is_being_imported_there_is_no_span(
    spans: Traced, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.trace", type(sys)("opentelemetry.trace"))
    assert is_nothing()


def test_a_span_that_is_none_can_do_all_that_spans_can() -> None:
    with NO_SPAN as span:
        assert span is NO_SPAN
    assert (NO_SPAN.traceparent, NO_SPAN.now()) == ("", 0)
    NO_SPAN.set({"a": 1})
    NO_SPAN.count({"a": 1})
    NO_SPAN.record("x", 0, {}, ValueError())
    NO_SPAN.end(ValueError())
    with pytest.raises(ValueError, match="through"), NO_SPAN:
        raise ValueError("through")


@pytest.mark.parametrize(
    "module", ["cosco", "cosco.demo.job", "cosco.cli.shuffled", "cosco.shuffle_service.server"]
)
def test_an_import_does_not_import_it(module: str) -> None:
    code = f"import {module}, sys; print([m for m in sys.modules if 'opentelemetry' in m])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == "[]\n"


# --- whose it is --------------------------------------------------------------------------


def test_a_span_without_another_one_is_a_root(spans: Traced) -> None:
    begin_span("x", {"a": 1}).end()
    span = spans.only("x")
    assert (span.parent, span.links, dict(span.attributes or {})) == (None, (), {"a": 1})
    assert span.status.status_code is StatusCode.UNSET
    assert span.instrumentation_scope is not None
    assert span.instrumentation_scope.name == "cosco"


def test_without_a_current_span_the_parent_is_that_of_the_exchange(spans: Traced) -> None:
    begin_span("x", {}, PARENT).end()
    span = spans.only("x")
    assert parent(span) == (TRACE_ID, SPAN_ID)
    assert span.parent is not None
    assert span.parent.is_remote
    assert place(span)[0] == TRACE_ID
    assert span.links == ()


def test_a_current_span_is_the_parent_and_the_exchange_is_linked(spans: Traced) -> None:
    with spans.tracer.start_as_current_span("task") as task:
        begin_span("x", {}, PARENT).end()
        begin_span("y", {}).end()
    own = task.get_span_context()
    span = spans.only("x")
    assert parent(span) == (own.trace_id, own.span_id)
    [link] = span.links
    assert (link.context.trace_id, link.context.span_id) == (TRACE_ID, SPAN_ID)
    assert spans.only("y").links == ()


@pytest.mark.parametrize("hostile", HOSTILE)
def test_what_is_no_traceparent_is_none(spans: Traced, hostile: str) -> None:
    begin_span("x", {}, hostile).end()
    record_for_exchange("z", hostile, 1, {})
    with SpanStart("y", "name") as start:
        start.begin(hostile, {}).end()
    assert [(span.name, span.parent, span.links) for span in spans.spans()] == [
        ("x", None, ()),
        ("y", None, ()),
    ]


def test_a_trace_that_is_not_kept_has_no_spans(spans: Traced) -> None:
    span = begin_span("x", {}, NOT_KEPT)
    found = parse_traceparent(span.traceparent)
    assert found is not None
    assert (found.trace_id, found.is_sampled) == (TRACE_ID, False)
    span.record("y", span.now(), {})
    span.end()
    record_for_exchange("z", NOT_KEPT, 1, {})
    assert spans.spans() == []


def test_a_service_makes_no_span_of_what_is_not_kept_whatever_its_sampler() -> None:
    with traced(ALWAYS_ON) as spans:
        record_for_exchange("x", NOT_KEPT, 1, {})
        begin_span("y", {}, NOT_KEPT).end()
    assert [span.name for span in spans.spans()] == ["y"]  # the sampler would have kept it


def test_others_are_told_where_a_span_is(spans: Traced) -> None:
    span = begin_span("x", {})
    found = parse_traceparent(span.traceparent)
    assert found is not None
    assert found.is_sampled
    span.end()
    assert (found.trace_id, found.span_id) == place(spans.only("x"))
    assert parse_traceparent(span.traceparent) == found


def test_a_span_that_a_sampler_drops_is_told_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PROVIDER, TracerProvider(sampler=ALWAYS_OFF, shutdown_on_exit=False))
    assert begin_span("x", {}).traceparent.endswith("-00")


# --- what it says -------------------------------------------------------------------------


def test_in_a_block_it_is_the_current_one_and_what_fails_is_recorded_once(spans: Traced) -> None:
    with begin_span("x", {}):
        with spans.tracer.start_as_current_span("within"):
            pass
    assert parent(spans.only("within")) == place(spans.only("x"))
    assert not trace.get_current_span().get_span_context().is_valid
    with pytest.raises(KeyError), begin_span("y", {}):
        raise KeyError("gone")
    assert not trace.get_current_span().get_span_context().is_valid
    span = spans.only("y")
    # The class alone: what an error of a user's says may be of rows.
    assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, "KeyError")
    assert (span.attributes or {})["error.type"] == "KeyError"
    assert not span.events


class _Failing(SpanProcessor):
    """Raises whatever it is told."""

    def on_start(self, span: object, parent_context: object = None) -> None:
        if self.fails_at_start:
            raise RuntimeError("at its start")

    def on_end(self, span: object) -> None:
        raise RuntimeError("at its end")

    def __init__(self, *, fails_at_start: bool) -> None:
        self.fails_at_start = fails_at_start


class _Failed(TracerProvider):
    def get_tracer(self, *args: object, **kwargs: object) -> trace.Tracer:
        raise RuntimeError("there is none")


def _failing(*, fails_at_start: bool) -> TracerProvider:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(_Failing(fails_at_start=fails_at_start))
    return provider


@pytest.mark.parametrize(
    "provider",
    [
        _Failed(shutdown_on_exit=False),
        _failing(fails_at_start=True),
        _failing(fails_at_start=False),
    ],
    ids=["no tracer", "at the start", "at the end"],
)
def test_what_opentelemetry_raises_goes_no_further(
    provider: TracerProvider, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(PROVIDER, provider)
    monkeypatch.setattr(module._HARMLESS, "is_told", False)
    with pytest.raises(KeyError), begin_span("x", {"a": 1}, PARENT) as span:
        assert len(span.traceparent) in (0, 55)
        span.set({"b": 2})
        span.count({"c": 3})
        span.record("part", span.now(), {}, DataLost("gone"))
        raise KeyError
    with SpanStart("y", "z") as start:
        start.begin(PARENT, {}).end(DataLost("gone"))
    record_for_exchange("w", PARENT, 1, {})
    assert [one.getMessage() for one in caplog.records] == [
        "tracing has failed, and goes on: this is told once"
    ]


def test_where_the_sdk_is_switched_off_there_is_no_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    monkeypatch.setattr(PROVIDER, TracerProvider(shutdown_on_exit=False))
    assert begin_span("x", {}).traceparent == ""


def check_failed(span: ReadableSpan, kind: str, message: str) -> None:
    assert span.status.status_code is StatusCode.ERROR
    assert span.status.description == message
    assert span.attributes is not None
    assert span.attributes["error.type"] == kind
    [event] = span.events
    assert event.name == "exception"
    assert event.attributes is not None
    assert str(event.attributes["exception.type"]).endswith(kind)


def test_the_first_end_counts(spans: Traced, caplog: pytest.LogCaptureFixture) -> None:
    span = begin_span("x", {})
    span.count({"rows": 1, "bytes": 10})
    span.count({"rows": 2})
    span.end()
    span.set({"late": True})
    span.end(ValueError("late"))
    span.end()
    found = spans.only("x")
    assert dict(found.attributes or {}) == {"rows": 3, "bytes": 10}
    assert found.status.status_code is StatusCode.UNSET
    assert caplog.messages == []  # the SDK warns of calls after the end


def test_a_part_is_recorded_when_it_is_over(spans: Traced) -> None:
    span = begin_span("x", {})
    began_ns = span.now()
    span.record("part", began_ns, {"n": 1})
    span.record("bad", began_ns, {}, DataLost("no"))
    span.end()
    found = spans.only("part")
    assert parent(found) == place(spans.only("x"))
    assert found.start_time == began_ns
    assert dict(found.attributes or {}) == {"n": 1}
    check_failed(spans.only("bad"), "DataLost", "DataLost: no")


def test_what_a_service_did_is_within_the_exchange(spans: Traced) -> None:
    began_ns = time.time_ns()
    record_for_exchange("x", PARENT, began_ns, {"n": 1})
    record_for_exchange("y", PARENT, began_ns, {}, OSError(28, "full"))
    found = spans.only("x")
    assert parent(found) == (TRACE_ID, SPAN_ID)
    assert found.start_time == began_ns
    check_failed(spans.only("y"), "OSError", "OSError: [Errno 28] full")


# --- before the exchange is known ---------------------------------------------------------


def test_a_span_began_before_its_exchange_was_known(spans: Traced) -> None:
    before_ns = time.time_ns()
    with SpanStart("x", "name") as start:
        begun_ns = time.time_ns()
        span = start.begin(PARENT, {"n": 1})
    assert isinstance(span, Span)
    assert spans.spans() == []  # it goes on
    span.end()
    found = spans.only("x")
    assert before_ns <= (found.start_time or 0) <= begun_ns
    assert parent(found) == (TRACE_ID, SPAN_ID)
    assert dict(found.attributes or {}) == {"cosco.exchange.id": "name", "n": 1}


def test_what_fails_before_its_exchange_is_known_has_a_span_too(spans: Traced) -> None:
    with pytest.raises(DataLost, match="unknown"), SpanStart("x", "name"):
        raise DataLost("unknown")
    found = spans.only("x")
    check_failed(found, "DataLost", "DataLost: unknown")
    assert dict(found.attributes or {})["cosco.exchange.id"] == "name"
    with pytest.raises(DataLost, match="known"), SpanStart("y", "name") as start:
        start.begin(PARENT, {})
        raise DataLost("known")
    check_failed(spans.only("y"), "DataLost", "DataLost: known")
    assert parent(spans.only("y")) == (TRACE_ID, SPAN_ID)
