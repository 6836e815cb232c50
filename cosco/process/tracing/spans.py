"""Spans of OpenTelemetry, where a program has it set up; else nothing, and that costs nothing.

A program that is traced has imported the API of OpenTelemetry and set a tracer provider. So nothing
is imported here: where that module is not there already, or has no provider, a `Span` is one that
does nothing. This is looked up once for an exchange, a writer or a reader, never for a row.

What the program has set up may fail in any way: whoever is traced does not notice, and the first
failure is logged. How spans of several processes come to be one trace is in docs/tracing.md.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any, Final, Self

from cosco.errors import CoscoError
from cosco.format.traceparent import SpanPlace, format_traceparent, parse_traceparent
from cosco.process.build import VERSION

log = logging.getLogger(__name__)

Attributes = Mapping[str, str | int | float | bool]

_API: Final = "opentelemetry.trace"
_SCOPE: Final = "cosco"


class Span:
    """What is traced of one thing that is done; this one does nothing, as nobody traces.

    In a `with` block it is the current span, and ends with the block.
    """

    __slots__ = ()

    @property
    def traceparent(self) -> str:
        """Return where it is, for other processes (`cosco.format.traceparent`); empty: nowhere."""
        return ""

    def now(self) -> int:
        """Return the time as `record` takes it."""
        return 0

    def set(self, attributes: Attributes) -> None:
        """Note something of it; after its end nothing."""

    def count(self, amounts: Mapping[str, int]) -> None:
        """Add to attributes that are sums, which are noted at its end."""

    def record(
        self,
        name: str,
        began_ns: int,
        attributes: Attributes,
        error: BaseException | None = None,
    ) -> None:
        """Make a span within it, which began at a time of `now` and has just ended."""

    def end(self, error: BaseException | None = None) -> None:
        """End it, as failed if there is an `error`; harmless to repeat, by any thread."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        self.end(error)


NO_SPAN: Final = Span()


class _Harmless:
    """In its `with` block: lets what OpenTelemetry raises, or who extends it, go no further."""

    def __init__(self) -> None:
        self.is_told = False

    def __enter__(self) -> None:
        """Begin the block."""

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> bool:
        if not isinstance(error, Exception):
            return False
        if not self.is_told:
            self.is_told = True
            log.warning("tracing has failed, and goes on: this is told once", exc_info=error)
        return True


_HARMLESS: Final = _Harmless()


class _Tracer:
    """Makes spans by the API of OpenTelemetry."""

    __slots__ = ("api", "tracer")

    def __init__(self, api: Any) -> None:
        self.api = api
        self.tracer = api.get_tracer(_SCOPE, VERSION)

    def begin(
        self, name: str, trace: str, attributes: Attributes, began_ns: int | None = None
    ) -> Span:
        """Begin a span within the current one, or without one within that of the exchange.

        trace: the traceparent of the exchange; what is none counts as empty.
        """
        place = parse_traceparent(trace) if trace else None
        context, links = None, []
        with _HARMLESS:
            if place is not None:
                remote = self._remote(place)
                if self.api.get_current_span().get_span_context().is_valid:
                    links.append(self.api.Link(remote))
                else:
                    context = self.api.set_span_in_context(self.api.NonRecordingSpan(remote))
            return self._start(name, context, attributes, began_ns, links)
        return NO_SPAN

    def within_remote(
        self, name: str, place: SpanPlace, attributes: Attributes, began_ns: int
    ) -> Span:
        """Begin a span within one of another process."""
        with _HARMLESS:
            remote = self.api.NonRecordingSpan(self._remote(place))
            return self._start(name, self.api.set_span_in_context(remote), attributes, began_ns)
        return NO_SPAN

    def within(self, parent: Any, name: str, attributes: Attributes, began_ns: int) -> Span:
        """Begin a span within one of this process."""
        with _HARMLESS:
            return self._start(name, self.api.set_span_in_context(parent), attributes, began_ns)
        return NO_SPAN

    def _start(
        self,
        name: str,
        context: Any,
        attributes: Attributes,
        began_ns: int | None,
        links: Any = None,
    ) -> Span:
        span = self.tracer.start_span(
            name, context=context, attributes=attributes, links=links, start_time=began_ns
        )
        return _OpenSpan(self, span)

    def _remote(self, place: SpanPlace) -> Any:
        return self.api.SpanContext(
            place.trace_id,
            place.span_id,
            is_remote=True,
            trace_flags=self.api.TraceFlags(place.flags),
        )


class _OpenSpan(Span):
    """A span of OpenTelemetry."""

    __slots__ = ("_counts", "_current", "_left", "_span", "_tracer")

    def __init__(self, tracer: _Tracer, span: Any) -> None:
        self._tracer = tracer
        self._span = span
        self._left = [span]  # whoever pops it ends it
        self._counts: dict[str, int] = {}
        self._current: AbstractContextManager[Any] | None = None

    @property
    def traceparent(self) -> str:
        with _HARMLESS:
            place = self._span.get_span_context()
            if place.is_valid:  # where the SDK is switched off it is not
                flags = int(place.trace_flags)
                return format_traceparent(SpanPlace(place.trace_id, place.span_id, flags))
        return ""

    def now(self) -> int:
        return time.time_ns()

    def set(self, attributes: Attributes) -> None:
        with _HARMLESS:
            for span in self._left:
                span.set_attributes(attributes)

    def count(self, amounts: Mapping[str, int]) -> None:
        for name, amount in amounts.items():
            self._counts[name] = self._counts.get(name, 0) + amount

    def record(
        self,
        name: str,
        began_ns: int,
        attributes: Attributes,
        error: BaseException | None = None,
    ) -> None:
        self._tracer.within(self._span, name, attributes, began_ns).end(error)

    def end(self, error: BaseException | None = None) -> None:
        try:
            span = self._left.pop()
        except IndexError:  # it has ended
            return
        with _HARMLESS:
            span.set_attributes(self._counts)
            if error is not None:
                self._note(span, error)
        with _HARMLESS:
            span.end()

    def _note(self, span: Any, error: BaseException) -> None:
        """Note why it has failed: of errors that are neither ours nor the system's the class
        alone, as rows may be in what they say."""
        api, kind = self._tracer.api, type(error).__name__
        span.set_attribute("error.type", kind)
        told = kind
        if isinstance(error, CoscoError | OSError):
            span.record_exception(error)
            told = f"{kind}: {error}"
        span.set_status(api.Status(api.StatusCode.ERROR, told))

    def __enter__(self) -> Self:
        # What fails is recorded here, once.
        with _HARMLESS:
            current = self._tracer.api.use_span(
                self._span, record_exception=False, set_status_on_exception=False
            )
            current.__enter__()
            self._current = current
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        with _HARMLESS:
            if self._current is not None:
                self._current.__exit__(None, None, None)
        self.end(error)


class SpanStart:
    """The start of something that is to be a span once it is known of which exchange.

    What fails in its `with` block makes the span a failed one.
    """

    __slots__ = ("_attributes", "_began_ns", "_name", "_span", "_tracer")

    def __init__(self, name: str, shuffle_id: str) -> None:
        self._tracer = _tracer()
        self._name = name
        self._attributes = {"cosco.exchange.id": shuffle_id}
        self._span = NO_SPAN
        self._began_ns = 0 if self._tracer is None else time.time_ns()

    def begin(self, trace: str, attributes: Attributes) -> Span:
        """Return the span, which began when this object was made."""
        if self._tracer is not None:
            self._span = self._tracer.begin(
                self._name, trace, {**self._attributes, **attributes}, self._began_ns
            )
        return self._span

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if error is not None and self._tracer is not None:
            (self._span if self._span is not NO_SPAN else self.begin("", {})).end(error)


def begin_span(name: str, attributes: Attributes, trace: str = "") -> Span:
    """Begin a span within the current one, or without one within that of an exchange.

    trace: the traceparent of the exchange, which the span is linked to if it is within another one.

    Returns: one that does nothing where nobody traces.
    """
    tracer = _tracer()
    return NO_SPAN if tracer is None else tracer.begin(name, trace, attributes)


def record_for_exchange(
    name: str,
    trace: str,
    began_ns: int,
    attributes: Attributes,
    error: BaseException | None = None,
) -> None:
    """Make a span of what a service has just done for an exchange, within that of the exchange.

    trace: the traceparent of the exchange. began_ns: by the Unix clock. Nothing is made where
    nobody traces, or the exchange's own span is not kept.
    """
    tracer = _tracer() if trace else None
    if tracer is not None:
        place = parse_traceparent(trace)
        if place is not None and place.is_sampled:
            tracer.within_remote(name, place, attributes, began_ns).end(error)


def _tracer() -> _Tracer | None:
    """Return what makes spans, if this program has set a tracer provider."""
    api = sys.modules.get(_API)
    provider = getattr(api, "get_tracer_provider", None)  # or it is just being imported
    if api is None or provider is None:
        return None
    with _HARMLESS:
        if not isinstance(provider(), (api.ProxyTracerProvider, api.NoOpTracerProvider)):
            return _Tracer(api)
    return None
