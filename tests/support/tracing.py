"""A tracer provider for a test, whose spans are kept in memory, in the place of the program's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import Sampler

#: Where the API keeps the provider, which a program may set once and tests must take back.
PROVIDER = "opentelemetry.trace._TRACER_PROVIDER"


class Traced:
    """The spans of this process that have ended."""

    def __init__(self, sampler: Sampler | None) -> None:
        self._kept = InMemorySpanExporter()
        self.provider = TracerProvider(sampler=sampler, shutdown_on_exit=False)
        self.provider.add_span_processor(SimpleSpanProcessor(self._kept))
        #: For spans that are none of Cosco's.
        self.tracer = self.provider.get_tracer("test")

    def spans(self, name: str = "") -> list[ReadableSpan]:
        """All of them, or those of one name, in the order of their ends."""
        return [one for one in self._kept.get_finished_spans() if name in ("", one.name)]

    def only(self, name: str) -> ReadableSpan:
        """The only one of a name."""
        [span] = self.spans(name)
        return span


@contextmanager
def traced(sampler: Sampler | None = None) -> Iterator[Traced]:
    """Have this process traced while the block lasts."""
    found = Traced(sampler)
    assert trace.get_tracer_provider() is not found.provider  # the API has been imported
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(PROVIDER, found.provider)
        yield found
    found.provider.shutdown()
