"""Spans of a service, sent to a collector: what an application does for itself, a service does so.

All but whether it does is set by the variables of OpenTelemetry, as for any program.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Callable
from typing import Final

from cosco.errors import InvalidArgument
from cosco.process.build import VERSION

log = logging.getLogger(__name__)

#: How long what was not sent yet may hold up the end of a service.
LAST_EXPORT_S: Final = 2.0
_EXPORTER: Final = "OTEL_TRACES_EXPORTER"
_PROTOCOLS: Final = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_PROTOCOL: Final = "http/protobuf"


def start_tracing(service: str) -> Callable[[], None]:
    """Have the spans of this process sent to a collector, by a thread of their own.

    service: what the process is called there, unless the variables of OpenTelemetry say otherwise.

    Returns: what ends it, having sent what is left if that takes no longer than LAST_EXPORT_S.

    Raises: InvalidArgument without the packages, or for variables that ask for something else.
    """
    _check_variables()
    try:
        # What this imports is there with the extra alone.
        from opentelemetry import trace  # noqa: PLC0415
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # noqa: PLC0415
            OTLPSpanExporter,
        )
        from opentelemetry.sdk.resources import OTELResourceDetector, Resource  # noqa: PLC0415
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
    except ImportError as error:
        raise InvalidArgument(
            f"--tracing needs {error.name or 'a package'}, which is missing: run "
            "pip install 'cosco[tracing]'"
        ) from None
    except ValueError as error:  # of limits, which are read as the SDK is imported
        raise _senseless(error) from None
    own = {
        "service.name": service,
        "service.version": VERSION,
        "service.instance.id": f"{socket.gethostname()}:{os.getpid()}",
    }
    try:
        resource = Resource.create({**own, **OTELResourceDetector().detect().attributes})
        provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    except ValueError as error:
        raise _senseless(error) from None
    trace.set_tracer_provider(provider)

    def end() -> None:
        # A collector that hangs is waited for by this thread, which ends with the process.
        last = threading.Thread(target=provider.shutdown, name="cosco-spans", daemon=True)
        last.start()
        last.join(LAST_EXPORT_S)
        if last.is_alive():
            log.warning("spans are lost: the collector has not taken them in %g s", LAST_EXPORT_S)

    return end


def _senseless(error: ValueError) -> InvalidArgument:
    return InvalidArgument(f"a variable of OpenTelemetry (OTEL_*) makes no sense: {error}")


def _check_variables() -> None:
    """Raise InvalidArgument for what would have spans go elsewhere than somebody expects."""
    exporter = os.environ.get(_EXPORTER, "otlp").strip() or "otlp"
    if exporter != "otlp":
        raise InvalidArgument(f"{_EXPORTER} is {exporter!r}: with --tracing spans go by otlp alone")
    for name in _PROTOCOLS:
        protocol = os.environ.get(name, "").strip()
        if protocol:
            if protocol != _PROTOCOL:
                raise InvalidArgument(
                    f"{name} is {protocol!r}: with --tracing spans go by {_PROTOCOL} alone, to "
                    "port 4318 of a collector as a rule"
                )
            return
