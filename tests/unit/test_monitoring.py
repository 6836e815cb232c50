"""The alert rules, the dashboard of Grafana and the docs name metrics that there are."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml
from prometheus_client import CollectorRegistry

from cosco.metadata.service.metadata_metrics import MetadataMetrics
from cosco.process.exposition import add_process_metrics
from cosco.shuffle_service.io.metrics import DaemonMetrics

ROOT = Path(__file__).resolve().parents[2]
RULES = yaml.safe_load((ROOT / "packaging/prometheus/cosco-alerts.yml").read_text())
DASHBOARD = json.loads((ROOT / "packaging/grafana/cosco.json").read_text())
DOCS = (ROOT / "docs/operating.md").read_text()
ALERTS = [rule for group in RULES["groups"] for rule in group["rules"]]
#: By Prometheus itself, for each target.
OTHERS = {"up"}
#: What a histogram is made of.
_ENDS = ("_bucket", "_sum", "_count", "_total", "")


def registries() -> Iterator[CollectorRegistry]:
    process = CollectorRegistry()
    add_process_metrics(process, "1")
    yield from (DaemonMetrics().registry, MetadataMetrics().registry, process)


def families() -> set[str]:
    return {metric.name for registry in registries() for metric in registry.collect()}


def there_are() -> set[str]:
    """The names of all samples, those of labels that nothing has yet included."""
    found = set(OTHERS)
    for registry in registries():
        for metric in registry.collect():
            ends = {
                "counter": ("_total",),
                "histogram": ("_bucket", "_sum", "_count"),
                "info": ("_info",),
            }
            found |= {metric.name + end for end in ends.get(metric.type, ("",))}
            found |= {sample.name for sample in metric.samples}
    return found


def selected(expression: Any) -> Iterator[tuple[str, dict[str, str]]]:
    """Each metric of a parsed expression, with the labels that are asked for."""
    if isinstance(expression, promql_parser.VectorSelector):
        yield expression.name, {one.name: one.value for one in expression.matchers.matchers}
        return
    if isinstance(expression, promql_parser.MatrixSelector):
        yield from selected(expression.vector_selector)
    for name in ("expr", "lhs", "rhs"):
        if (below := getattr(expression, name, None)) is not None:
            yield from selected(below)
    for below in getattr(expression, "args", None) or ():
        yield from selected(below)


def metrics_of(text: str) -> set[str]:
    """The metrics of an expression; raises ValueError for one that is none."""
    return {name for name, _ in selected(promql_parser.parse(text))}


PANELS = [
    (panel["title"], target["expr"]) for panel in DASHBOARD["panels"] for target in panel["targets"]
]


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: str(rule["alert"]))
def test_an_alert_asks_for_metrics_that_there_are(rule: dict[str, Any]) -> None:
    found = metrics_of(rule["expr"])
    assert found
    assert found <= there_are()
    assert rule["labels"]["severity"] in ("info", "warning", "critical")
    assert rule["annotations"].keys() == {"summary", "description"}
    assert not re.search(r"[^\d]$", rule.get("for", "1m")[:-1])


def test_labels_that_are_asked_for_are_given() -> None:
    given = {
        (sample.name, name, value)
        for registry in registries()
        for metric in registry.collect()
        for sample in metric.samples
        for name, value in sample.labels.items()
    }
    # Set when there is something to count, by the names of their states.
    given |= {
        (f"cosco_{what}", "state", state)
        for what, states in (
            ("daemons", ("serving", "draining", "dead")),
            ("exchanges", ("open", "closing")),
        )
        for state in states
    }
    for rule in ALERTS:
        for name, labels in selected(promql_parser.parse(rule["expr"])):
            if name not in OTHERS:
                assert {(name, label, value) for label, value in labels.items()} <= given, rule


@pytest.mark.parametrize(("title", "expression"), PANELS)
def test_a_panel_asks_for_metrics_that_there_are(title: str, expression: str) -> None:
    found = metrics_of(expression.replace("$__rate_interval", "5m"))
    assert found, title
    assert found <= there_are()


def test_alerts_and_docs_have_the_same_names() -> None:
    documented = re.findall(r"`(Cosco[A-Z]\w+)`", DOCS)
    assert sorted(documented) == sorted(rule["alert"] for rule in ALERTS)


def test_metrics_that_the_docs_name_are_there() -> None:
    begin = DOCS.index("## Questions, and the metrics")
    part = DOCS[begin : DOCS.index("### What each alert means", begin)]
    named = set(re.findall(r"`(cosco_\w+)(?:\{[^`]*\})?`", part))
    assert len(named) > 25
    assert named <= there_are() | families()


def test_what_is_no_expression_is_noticed() -> None:
    with pytest.raises(ValueError, match="unclosed"):
        metrics_of("sum(cosco_daemons")
    assert metrics_of("sum(rate(a[5m])) / on(x) b > 2 and c offset 1h") == {"a", "b", "c"}
