"""Events as lines for people and, one object in each, for programs."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final

from cosco.admin import ShownEvent, list_events
from cosco.cli.text_table import printable
from cosco.errors import ServiceUnavailable
from cosco.protocol.events import Severity

_WAIT_S: Final = 20.0
#: Between two tries while the service is away.
_RETRY_S: Final = 1.0


def run_events(
    metadata: str, severity: Severity, limit: int, timeout_s: float, follow: bool
) -> Iterator[ShownEvent]:
    """Yield the newest events, and with `follow` those that come after them, for ever.

    Raises: what `list_events` does; ServiceUnavailable only of the first call: who follows goes on
    once the service is back.
    """
    found, last = list_events(metadata, severity=severity, limit=limit, timeout_s=timeout_s)
    yield from found
    while follow:
        try:
            found, last = list_events(
                metadata,
                after=last,
                severity=severity,
                limit=1000,
                wait_s=_WAIT_S,
                timeout_s=timeout_s,
            )
        except ServiceUnavailable:
            time.sleep(_RETRY_S)
            continue
        yield from found


def event_line(event: ShownEvent, *, as_json: bool) -> str:
    """Return one event as a line."""
    at = datetime.fromtimestamp(event.time_s, UTC)
    if as_json:
        about = {"time": at.isoformat(timespec="milliseconds"), "sequence": event.sequence}
        return json.dumps(about | {"severity": event.severity.name.lower()} | event.fields)
    name, *rest = event.fields.items()
    fields = " ".join(f"{key}={_value(value)}" for key, value in rest)
    line = f"{at:%Y-%m-%d %H:%M:%S} {event.severity.name.lower():<7} {printable(str(name[1]))}"
    return f"{line} {fields}".rstrip()


def _value(value: object) -> str:
    text = printable(str(value))
    return f'"{text}"' if " " in text else text
