"""A collector of spans on the loopback: takes OTLP over HTTP as programs send it, and keeps all."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

_WAIT_S = 30.0


@dataclass(frozen=True)
class KeptSpan:
    """One span, by the service that sent it. ids are hexadecimal; parent: empty for none."""

    service: str
    process: str
    name: str
    trace: str
    id: str
    parent: str
    failed: bool
    message: str
    attributes: dict[str, Any]
    events: list[str]
    links: list[tuple[str, str]]
    length_ns: int


@dataclass
class Collector:
    """What came so far."""

    endpoint: str = ""
    _spans: list[KeptSpan] = field(default_factory=list)
    _changed: threading.Condition = field(default_factory=threading.Condition)

    def add(self, body: bytes) -> None:
        request = ExportTraceServiceRequest.FromString(body)
        with self._changed:
            for resource_spans in request.resource_spans:
                about = _values(resource_spans.resource.attributes)
                for scope_spans in resource_spans.scope_spans:
                    self._spans += [_kept(span, about) for span in scope_spans.spans]
            self._changed.notify_all()

    def spans(self, name: str = "") -> list[KeptSpan]:
        """All that came, or those of one name."""
        with self._changed:
            return [span for span in self._spans if name in ("", span.name)]

    def wait_for(self, count: int, name: str) -> list[KeptSpan]:
        """Return those of one name, once so many have come."""

        def has_come() -> bool:
            return sum(span.name == name for span in self._spans) >= count

        with self._changed:
            came = self._changed.wait_for(has_come, _WAIT_S)
        assert came, f"no {count} {name!r}, but {[span.name for span in self.spans()]}"
        return self.spans(name)


@contextmanager
def collector() -> Iterator[Collector]:
    """Serve one while the block lasts."""
    kept = Collector()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(kept.add))
    server.daemon_threads = True
    kept.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, name="collector")
    thread.start()
    try:
        yield kept
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _handler(add: Callable[[bytes], None]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            is_known = self.path == "/v1/traces"
            if is_known:
                add(body)
            self.send_response(200 if is_known else 404)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *arguments: Any) -> None:
            """Say nothing."""

    return Handler


def _values(attributes: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in attributes}


def _kept(span: Any, about: dict[str, Any]) -> KeptSpan:
    return KeptSpan(
        service=about["service.name"],
        process=about.get("service.instance.id", ""),
        name=span.name,
        trace=span.trace_id.hex(),
        id=span.span_id.hex(),
        parent=span.parent_span_id.hex(),
        failed=span.status.code == 2,
        message=span.status.message,
        attributes=_values(span.attributes),
        events=[event.name for event in span.events],
        links=[(link.trace_id.hex(), link.span_id.hex()) for link in span.links],
        length_ns=span.end_time_unix_nano - span.start_time_unix_nano,
    )
