"""The span that made an exchange, as text: how spans of several processes come to be one trace.

It is the `traceparent` header of W3C Trace Context in version 00, 55 characters and no others:

    00-TRACE-SPAN-FLAGS

    TRACE  32 lower-case hexadecimal digits, not all 0: the trace
    SPAN   16 of them, not all 0: the span
    FLAGS  2 of them; bit 0: the span is kept (it was sampled)

Whoever makes an exchange says it, so it may be anything: what is not exactly like this is no
traceparent, and where one was read nothing but three bounded numbers is used of it.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

_SAMPLED: Final = 1
#: ASCII alone: `\d` and `int` know other digits.
_TRACEPARENT: Final = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")


class SpanPlace(NamedTuple):
    """A span by its trace, its own id there, and flags."""

    trace_id: int
    span_id: int
    flags: int

    @property
    def is_sampled(self) -> bool:
        """Whether the span is kept, and others of its trace are to be."""
        return bool(self.flags & _SAMPLED)


def parse_traceparent(text: str) -> SpanPlace | None:
    """Return what a traceparent says; None if it is none."""
    match = _TRACEPARENT.fullmatch(text)
    if match is None:
        return None
    trace_id, span_id, flags = (int(digits, 16) for digits in match.groups())
    return SpanPlace(trace_id, span_id, flags) if trace_id and span_id else None


def format_traceparent(place: SpanPlace) -> str:
    """Return a span as text.

    Flags that version 00 does not know are left out.
    """
    return f"00-{place.trace_id:032x}-{place.span_id:016x}-{place.flags & _SAMPLED:02x}"
