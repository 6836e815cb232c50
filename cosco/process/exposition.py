"""Metrics as every service has them: of its process and its build, and their resource."""

from __future__ import annotations

import platform
from typing import Any, Final

from prometheus_client import CollectorRegistry, Gauge, make_wsgi_app
from prometheus_client.gc_collector import GCCollector
from prometheus_client.process_collector import ProcessCollector

from cosco.mechanics import DESCRIPTION
from cosco.process.http_endpoint import Answer, Request, Resource
from cosco.protocol.version import PROTOCOL

METRICS_PATH: Final = "/metrics"


def add_process_metrics(registry: CollectorRegistry, version: str) -> None:
    """Add what Prometheus expects of any process, and which build this is."""
    ProcessCollector(registry=registry)
    GCCollector(registry=registry)
    build = Gauge(
        "cosco_build_info",
        "Always 1: the version of Cosco and of Python, the protocol that it speaks, and whether "
        "mechanics are native",
        ("version", "python", "protocol", "mechanics"),
        registry=registry,
    )
    python, protocol = platform.python_version(), str(PROTOCOL)
    build.labels(version, python, protocol, DESCRIPTION).set(1)


def metrics_resource(registry: CollectorRegistry) -> Resource:
    """Return the resource of metrics, in the format that is asked for, compressed if that is."""
    application = make_wsgi_app(registry)

    def resource(request: Request) -> Answer:
        found: dict[str, Any] = {}

        def start_response(status: str, headers: list[tuple[str, str]], *_: Any) -> None:
            found["status"], found["headers"] = int(status.split(maxsplit=1)[0]), headers

        environment = {
            "REQUEST_METHOD": "GET",
            "PATH_INFO": request.path,
            "QUERY_STRING": request.query,
            "HTTP_ACCEPT": request.header("Accept") or "",
            "HTTP_ACCEPT_ENCODING": request.header("Accept-Encoding") or "",
        }
        body = b"".join(application(environment, start_response))
        headers = dict(found["headers"])
        content_type = headers.pop("Content-Type", "text/plain")
        return Answer(found["status"], body, content_type, tuple(headers.items()))

    return resource
