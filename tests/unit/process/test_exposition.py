"""The metrics as they are served: in the format that is asked for."""

from __future__ import annotations

import gzip

import pytest
from prometheus_client import CollectorRegistry, Counter
from prometheus_client.parser import text_string_to_metric_families

from cosco.mechanics import DESCRIPTION
from cosco.process.build import VERSION
from cosco.process.exposition import add_process_metrics, metrics_resource
from cosco.process.http_endpoint import Answer, Request


@pytest.fixture
def registry() -> CollectorRegistry:
    made = CollectorRegistry()
    add_process_metrics(made, VERSION)
    Counter("cosco_things", "Things", registry=made).inc(3)
    return made


def answer(registry: CollectorRegistry, query: str = "", **headers: str) -> Answer:
    found = {name.lower().replace("_", "-"): value for name, value in headers.items()}
    request = Request("/metrics", query, lambda name: found.get(name.lower()))
    return metrics_resource(registry)(request)


def test_the_plain_format(registry: CollectorRegistry) -> None:
    given = answer(registry)
    assert given.status == 200
    assert given.content_type.startswith("text/plain")
    samples = {
        sample.name: (sample.value, sample.labels)
        for family in text_string_to_metric_families(given.body.decode())
        for sample in family.samples
    }
    assert samples["cosco_things_total"][0] == 3
    assert samples["process_resident_memory_bytes"][0] > 1 << 20
    value, labels = samples["cosco_build_info"]
    assert value == 1
    assert labels["version"] == VERSION
    assert labels["mechanics"] == DESCRIPTION
    assert set(labels) == {"version", "python", "protocol", "mechanics"}


def test_open_metrics(registry: CollectorRegistry) -> None:
    given = answer(registry, accept="application/openmetrics-text; version=1.0.0")
    assert given.content_type.startswith("application/openmetrics-text")
    assert given.body.endswith(b"# EOF\n")


def test_compressed(registry: CollectorRegistry) -> None:
    given = answer(registry, accept_encoding="gzip")
    assert ("Content-Encoding", "gzip") in given.headers
    assert b"cosco_things_total 3.0" in gzip.decompress(given.body)


def test_some_by_name(registry: CollectorRegistry) -> None:
    given = answer(registry, "name[]=cosco_things_total")
    assert b"cosco_things_total 3.0" in given.body
    assert b"process_" not in given.body
