"""Spans of a service on their way to a collector: what is set how, and that it ends in time."""

from __future__ import annotations

import logging
import socket
import sys
import time
from collections.abc import Iterator

import pytest
from opentelemetry.util._once import Once
from support.span_collector import Collector, collector
from support.tracing import PROVIDER

from cosco.errors import InvalidArgument
from cosco.process.tracing import span_export
from cosco.process.tracing.span_export import start_tracing
from cosco.process.tracing.spans import begin_span

_ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"


@pytest.fixture(autouse=True)
def nothing_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program may set its provider once; a test sets it for itself."""
    monkeypatch.setattr(PROVIDER, None)
    monkeypatch.setattr("opentelemetry.trace._TRACER_PROVIDER_SET_ONCE", Once())


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    with collector() as found:
        monkeypatch.setenv(_ENDPOINT, found.endpoint)
        yield found


def test_what_is_left_is_sent_at_the_end(kept: Collector) -> None:
    end = start_tracing("cosco-test")
    assert kept.spans() == []
    with begin_span("x", {"n": 1}):
        pass
    end()
    [span] = kept.spans()
    assert (span.service, span.name, span.attributes) == ("cosco-test", "x", {"n": 1})
    assert span.process.startswith(f"{socket.gethostname()}:")


def test_the_variables_of_opentelemetry_count(
    kept: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_SERVICE_NAME", "theirs")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "service.instance.id=7")
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "otlp")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
    end = start_tracing("cosco-test")
    begin_span("x", {}).end()
    end()
    [span] = kept.spans()
    assert (span.service, span.process) == ("theirs", "7")


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("OTEL_TRACES_EXPORTER", "console", "OTEL_TRACES_EXPORTER is 'console': with --tracing"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", "_PROTOCOL is 'grpc': with --tracing spans go by"),
        ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "grpc", "_TRACES_PROTOCOL is 'grpc'"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "-1", "makes no sense: max_queue_size must be"),
    ],
)
def test_variables_that_ask_for_something_else_are_refused(
    variable: str, value: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(InvalidArgument, match=message):
        start_tracing("cosco-test")


def test_the_variable_for_traces_goes_before_the_one_for_all(
    kept: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/protobuf")
    start_tracing("cosco-test")()


@pytest.mark.parametrize("module", ["opentelemetry.sdk.trace", "opentelemetry"])
def test_without_the_packages_it_says_what_to_install(
    module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(InvalidArgument, match=r"--tracing needs opentelemetry.*cosco\[tracing\]"):
        start_tracing("cosco-test")


def test_a_collector_that_hangs_does_not_hold_up_the_end(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(span_export, "LAST_EXPORT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections, and says nothing
        monkeypatch.setenv(_ENDPOINT, f"http://127.0.0.1:{silent.getsockname()[1]}")
        end = start_tracing("cosco-test")
        begin_span("x", {}).end()
        began = time.monotonic()
        with caplog.at_level(logging.WARNING, "cosco"):
            end()
        assert time.monotonic() - began < 5.0
    assert "spans are lost: the collector has not taken them in 0.2 s" in caplog.text
