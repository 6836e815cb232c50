"""Attempts as the metadata service opens them, for writers that have none."""

from __future__ import annotations

from collections.abc import Iterable

from cosco.protocol.records import (
    Assignment,
    DaemonRef,
    ExchangeInfo,
    ExchangeSpec,
    OpenedAttempt,
    RowKind,
)


def opened_by(assignments: Iterable[Assignment], number: int = 7) -> OpenedAttempt:
    """An attempt of mapper 1 at an exchange with these assignments."""
    spec = ExchangeSpec("orders", 1)
    info = ExchangeInfo(number, spec, 1, RowKind.BYTES, b"", (), tuple(assignments))
    return OpenedAttempt(info, mapper=1, attempt=1)


def opened_at(*primaries: DaemonRef) -> OpenedAttempt:
    """An attempt whose range i is with primaries[i], in epoch 1."""
    return opened_by(Assignment(index, 1, 1, ref) for index, ref in enumerate(primaries))
