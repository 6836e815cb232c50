"""What is traced of a client: the names of its spans, and what they say. See docs/tracing.md."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from cosco.process.tracing.spans import Attributes, Span, begin_span
from cosco.protocol.records import Commit, ExchangeInfo, ExchangeSpec, OpenedAttempt, ReadSnapshot

WRITE_SPAN: Final = "cosco write"
READ_SPAN: Final = "cosco read"
#: A shorter wait is none, but an answer: a reader of many partitions asks often, and has many of
#: them at once.
_LEAST_WAIT_NS: Final = 10_000_000


# --- drivers ------------------------------------------------------------------------------


def begin_creation(
    spec: ExchangeSpec, *, group_size: int = 0, mappers: int = 0
) -> tuple[ExchangeSpec, Span]:
    """Begin the span of the making of an exchange, or of a group of `group_size` with `mappers`.

    Returns: what is to be asked for, which names the span, and the span. Spans of its writers, its
    readers and its daemons join the trace of it.
    """
    attributes: dict[str, str | int] = {
        "cosco.exchange.id": spec.shuffle_id,
        "cosco.exchange.partitions": spec.partitions,
        "cosco.exchange.replicas": spec.replicas,
    }
    if group_size:
        attributes |= {"cosco.group.size": group_size, "cosco.group.mappers": mappers}
    span = begin_span("cosco create", attributes)
    return replace(spec, trace=span.traceparent), span


def recompute_span(
    shuffle_id: str, number: int | None, trace: str, mappers: Sequence[int], reason: str
) -> Span:
    """Begin the span of a callback that has mappers of an exchange run again.

    number: None if it is not known here. trace: that of the exchange.
    """
    attributes: Attributes = {
        "cosco.exchange.id": shuffle_id,
        "cosco.recompute.mappers": len(mappers),
        "cosco.recompute.reason": reason,
    }
    known: Attributes = {} if number is None else {"cosco.exchange.number": number}
    return begin_span("cosco recompute", {**attributes, **known}, trace)


# --- writers ------------------------------------------------------------------------------


def opened_attributes(opened: OpenedAttempt) -> Attributes:
    """Return what a span says of an attempt from its beginning on."""
    return {
        "cosco.exchange.number": opened.info.number,
        "cosco.exchange.generation": opened.info.generation,
        "cosco.exchange.partitions": opened.info.spec.partitions,
        "cosco.mapper": opened.mapper,
        "cosco.attempt": str(opened.attempt),  # may be beyond what an attribute's integer can be
        "cosco.write.again": opened.partial,
    }


def end_committed(span: Span, began_ns: int, commit: Commit) -> None:
    """End the span of an attempt that has committed.

    began_ns: when it was closed, by the span's `now`.
    """
    found: Attributes = {
        "cosco.write.rows": commit.rows,
        "cosco.write.bytes": commit.bytes,
        "cosco.write.won": commit.won,
    }
    span.record("cosco commit", began_ns, found)
    span.set(found)
    span.end()


def end_aborted(span: Span, failure: BaseException | None = None) -> None:
    """End the span of an attempt that will not commit, if it has not ended.

    failure: None if somebody gave the attempt up.
    """
    span.set({"cosco.write.aborted": True})
    span.end(failure)


# --- readers ------------------------------------------------------------------------------


def read_attributes(info: ExchangeInfo, partitions: Sequence[int], mappers: int) -> Attributes:
    """Return what a span says of a reader of some partitions, ascending, from its beginning on.

    mappers: how many it waits for.
    """
    return {
        "cosco.exchange.number": info.number,
        "cosco.exchange.generation": info.generation,
        "cosco.read.first_partition": partitions[0],
        "cosco.read.partitions": len(partitions),
        "cosco.read.mappers": mappers,
    }


class PartitionTrace:
    """The spans of the waits of a reader, within its own."""

    def __init__(self, span: Span) -> None:
        self._span = span
        self._partition = -1
        self._began_ns = 0  # of the wait that lasts; 0: none does

    def begin(self, partition: int) -> None:
        """Go on with a partition, which is gathered from the beginning."""
        self._partition, self._began_ns = partition, 0

    def waits(self) -> None:
        """Note that mappers are waited for, to commit or to run again; harmless to repeat."""
        self._began_ns = self._began_ns or self._span.now()

    def waited(self, error: BaseException | None = None) -> None:
        """Note that the wait is over, if there was one. error: why the partition cannot be read."""
        began_ns, self._began_ns = self._began_ns, 0
        if began_ns and (error is not None or self._span.now() - began_ns >= _LEAST_WAIT_NS):
            self._span.record("cosco wait", began_ns, {"cosco.partition": self._partition}, error)

    def verified(self, snapshot: ReadSnapshot | None) -> None:
        """Note that all rows of the partition were given."""
        if snapshot is not None:
            self._span.count(
                {"cosco.read.rows": snapshot.rows, "cosco.read.bytes": snapshot.raw_bytes}
            )
