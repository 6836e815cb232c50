"""What is traced of a reader's waits, and of what it verified."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from cosco.client.exchange_spans import PartitionTrace
from cosco.errors import CommitTimeout
from cosco.process.tracing.spans import NO_SPAN, Attributes, Span
from cosco.protocol.records import ReadSnapshot

MS = 1_000_000


class Recorder(Span):
    """A span whose clock is set by hand."""

    def __init__(self) -> None:
        self.clock = MS
        self.records: list[tuple[str, int, Attributes, BaseException | None]] = []
        self.counts: list[dict[str, int]] = []

    def now(self) -> int:
        return self.clock

    def record(
        self,
        name: str,
        began_ns: int,
        attributes: Attributes,
        error: BaseException | None = None,
    ) -> None:
        self.records.append((name, began_ns, attributes, error))

    def count(self, amounts: dict[str, int]) -> None:
        self.counts.append(amounts)


@pytest.fixture
def span() -> Recorder:
    return Recorder()


@pytest.fixture
def trace(span: Recorder) -> PartitionTrace:
    made = PartitionTrace(span)
    made.begin(7)
    return made


def test_a_wait_is_one_however_often_it_is_asked(span: Recorder, trace: PartitionTrace) -> None:
    for _ in range(3):
        trace.waits()
        span.clock += 30_000 * MS
    trace.waited()
    trace.waited()
    assert span.records == [("cosco wait", MS, {"cosco.partition": 7}, None)]


def test_an_answer_that_comes_at_once_is_no_wait(span: Recorder, trace: PartitionTrace) -> None:
    trace.waits()
    span.clock += 9 * MS
    trace.waited()
    assert span.records == []
    trace.waits()
    span.clock += 10 * MS
    trace.waited()
    assert len(span.records) == 1


def test_what_ends_a_wait_is_its_error(span: Recorder, trace: PartitionTrace) -> None:
    error = CommitTimeout("late", recompute=False, mappers=[1])
    trace.waits()
    trace.waited(error)
    assert span.records == [("cosco wait", MS, {"cosco.partition": 7}, error)]
    trace.waited(error)  # of a fetch, later: nobody waits
    assert len(span.records) == 1


def test_another_partition_begins_without_a_wait(span: Recorder, trace: PartitionTrace) -> None:
    trace.waits()
    trace.begin(8)
    span.clock += 1000 * MS
    trace.waited()
    assert span.records == []


def test_what_is_verified_is_counted(span: Recorder, trace: PartitionTrace) -> None:
    none = np.zeros(0, np.uint64)
    values = dict.fromkeys((field.name for field in dataclasses.fields(ReadSnapshot)), none)
    snapshot = ReadSnapshot(**(values | {"rows": 3, "raw_bytes": 30}))
    trace.verified(snapshot)
    trace.verified(None)
    assert span.counts == [{"cosco.read.rows": 3, "cosco.read.bytes": 30}]


def test_without_a_span_nothing_is_traced() -> None:
    trace = PartitionTrace(NO_SPAN)
    trace.begin(1)
    trace.waits()
    trace.waited()
    trace.waited(ValueError())
    trace.verified(None)
