"""The figures of daemons, as their metrics and their heartbeats tell them."""

from __future__ import annotations

from dataclasses import astuple, fields, replace

import pytest

from cosco.errors import InvalidArgument
from cosco.protocol import wire
from cosco.protocol.daemon_figures import (
    COUNTERS,
    MAX_S,
    SAMPLES,
    DaemonFigures,
    figures_from,
)
from cosco.shuffle_service.io.metrics import DaemonMetrics


def test_every_figure_is_a_sample_of_the_metrics() -> None:
    there = {
        sample.name: metric.type
        for metric in DaemonMetrics().registry.collect()
        for sample in metric.samples
        if not sample.labels
    }
    assert list(SAMPLES) == [field.name for field in fields(DaemonFigures)]
    assert set(SAMPLES.values()) <= there.keys()
    assert {name for name, sample in SAMPLES.items() if there[sample] != "gauge"} == COUNTERS


def test_figures_are_what_the_metrics_have() -> None:
    metrics = DaemonMetrics()
    assert metrics.figures() == DaemonFigures()
    metrics.count("bytes_received", 7)
    for size in (5_000, 1 << 20):
        metrics.store_write_bytes.observe(size)
    metrics.store_write_seconds.observe(0.25)
    metrics.pages_used_bytes.set(1 << 16)
    metrics.frames_refused.labels("closed").inc()  # one of several: its sum is no figure
    wanted = DaemonFigures(
        bytes_received=7, writes=2, write_bytes=5_000 + (1 << 20), write_s=0.25,
        pages_used_bytes=1 << 16,
    )  # fmt: skip
    assert metrics.figures() == wanted


def test_what_is_not_told_is_none() -> None:
    assert figures_from({"cosco_bytes_received_total": 1.0, "other": 5.0}).bytes_received == 1
    assert not any(astuple(figures_from({})))


@pytest.mark.parametrize("name", ["write_s", "read_s", "waited_s"])
@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf"), 1.1e12, 1e308])
def test_seconds_that_cannot_be_are_refused(name: str, value: float) -> None:
    figures = replace(DaemonFigures(), **{name: value})
    with pytest.raises(InvalidArgument, match=name):
        wire.from_pb(DaemonFigures, wire.to_pb(figures))


def test_the_most_seconds_that_may_be() -> None:
    figures = DaemonFigures(write_s=MAX_S, read_s=MAX_S, waited_s=MAX_S)
    assert wire.from_pb(DaemonFigures, wire.to_pb(figures)) == figures
