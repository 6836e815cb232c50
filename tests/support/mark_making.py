"""Marks as writers would make them, and daemons that count them."""

from __future__ import annotations

import numpy as np
from support.frame_making import EXCHANGE, INCARNATION

from cosco.protocol.group_records import Alike, FoundAssignment
from cosco.protocol.mark import Mark, encode_mark
from cosco.protocol.records import Assignment, DaemonRef, PartitionRange

PARTITIONS = PartitionRange(0, 0, 8)


def sums(**of: tuple[int, int, int]) -> np.ndarray:
    """Rows, raw bytes and digest by partition `p0`, `p1`, …; else zeros."""
    made = np.zeros((3, PARTITIONS.count), dtype=np.uint64)
    for name, values in of.items():
        made[:, int(name[1:])] = values
    return made


def mark(
    mapper: int,
    attempt: int = 1,
    *,
    exchange: int = EXCHANGE,
    part: PartitionRange = PARTITIONS,
    **of: tuple[int, int, int],
) -> bytes:
    """The block of a mark."""
    made = sums(**of) if of else np.zeros((3, part.count), dtype=np.uint64)
    return b"".join(encode_mark(Mark(mapper, attempt, made), exchange, part))


def found(
    mappers: int = 2,
    *,
    first: int = EXCHANGE,
    size: int = 0,
    without: tuple[int, ...] = (),
    epoch: int = 1,
    build: int = 1,
    sealed: bool = False,
    primary: int = INCARNATION,
    replicas: tuple[int, ...] = (),
) -> FoundAssignment:
    """What the metadata service answers to a look-up; `size` 0: of no further exchange."""
    assignment = Assignment(
        0, epoch, build, DaemonRef(primary, "a"), tuple(DaemonRef(r, "b") for r in replicas), sealed
    )
    alike = None
    if size:
        alike = Alike(first, size)
        alike.without.update(without)
    return FoundAssignment(assignment, PARTITIONS, mappers, alike)
