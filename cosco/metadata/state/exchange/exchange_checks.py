"""What calls say of an exchange, held against it: commits above all."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from cosco.errors import (
    DataCorrupted,
    GenerationChanged,
    InvalidArgument,
    PartitionOutOfRange,
    SchemaMismatch,
)
from cosco.metadata.state.exchange.attempts import Attempts
from cosco.metadata.state.exchange.builds import Builds
from cosco.metadata.state.exchange.epochs import Epochs
from cosco.protocol.api_limits import check_mapper, shown
from cosco.protocol.records import CommitRequest, ExchangeSpec, RowKind


def check_partition(spec: ExchangeSpec, partition: int) -> None:
    """Raise PartitionOutOfRange for a partition the exchange does not have."""
    if not 0 <= partition < spec.partitions:
        raise PartitionOutOfRange(
            f"partition {partition} is out of range: exchange {shown(spec.shuffle_id)} has "
            f"partitions 0 to {spec.partitions - 1}",
            shuffle_id=spec.shuffle_id,
            partition=partition,
        )


def check_generation(spec: ExchangeSpec, generation: int, present: int) -> None:
    """Raise GenerationChanged for a generation before the `present` one of the exchange, and
    InvalidArgument for one that there never was."""
    if 0 < generation < present:
        raise GenerationChanged(
            f"exchange {shown(spec.shuffle_id)} is at generation {present}, not {generation}: it "
            "lost rows and began anew; begin anew as well",
            shuffle_id=spec.shuffle_id,
        )
    if generation != present:
        raise InvalidArgument(
            f"exchange {shown(spec.shuffle_id)}: there is no generation {generation} yet",
            shuffle_id=spec.shuffle_id,
        )


def check_driver(spec: ExchangeSpec, owner: bytes, caller: bytes) -> None:
    """Raise InvalidArgument unless the caller is the `owner` of the exchange."""
    if caller != owner:
        raise _invalid(
            spec, "it has another driver, one attached to it with own=True; stop polling here"
        )


def contradiction(spec: ExchangeSpec, mapper: int, partition: int | None = None) -> DataCorrupted:
    """Return what is raised for a mapper of which an attempt said two things, to whoever commits
    for it, or reads it in `partition`."""
    return DataCorrupted(
        f"exchange {shown(spec.shuffle_id)}: an attempt of mapper {mapper} committed twice, with "
        "different sums, and nobody can tell which of them is right; run its stage again with a "
        "new exchange",
        shuffle_id=spec.shuffle_id,
        mappers=(mapper,),
        partition=partition,
    )


def mismatch(spec: ExchangeSpec, decided: RowKind, kind: RowKind) -> SchemaMismatch:
    """Return what is raised for rows of a kind, or a schema, that was not decided on."""
    difference = "Arrow rows of another schema"
    if kind is not decided:
        difference = f"{decided.name} rows, not {kind.name} rows"
    return SchemaMismatch(
        f"exchange {shown(spec.shuffle_id)} carries {difference}; write all its rows with the "
        "schema it was created with, or that of its first writer",
        shuffle_id=spec.shuffle_id,
    )


class Written(NamedTuple):
    """The ranges that an attempt wrote to: those that have all of it in their present build, and
    the others. with_rows: by range, whether it has rows of the attempt, and no mark alone."""

    present: list[int]
    lost: set[int]
    with_rows: npt.NDArray[np.bool_]


def check_commit(
    request: CommitRequest,
    spec: ExchangeSpec,
    attempts: Attempts,
    epochs: Epochs,
    builds: Builds,
) -> Written:
    """Return where the rows of a commit went.

    Raises InvalidArgument, PartitionOutOfRange or GenerationChanged for one that cannot be
    counted, whatever became of those rows. What it names is looked at by arrays, as most
    mappers write to most ranges.
    """
    check_generation(spec, request.generation, attempts.generation)
    mapper, attempt = request.mapper, request.attempt
    check_mapper(mapper, attempts.mappers)
    if not attempts.was_opened(mapper, attempt):
        raise _invalid(
            spec,
            f"attempt {attempt} of mapper {mapper} was never opened; open one before it writes",
        )
    if len(request.sums.partitions):
        check_partition(spec, int(request.sums.partitions[-1]))
    try:
        present = epochs.present(request.acknowledged, builds.present)
    except InvalidArgument as error:
        raise _invalid(spec, str(error)) from None
    ranges = request.acknowledged[:, 0]
    acknowledged = np.zeros(len(builds.present), dtype=np.bool_)
    acknowledged[ranges] = True
    with_rows = builds.written(request.sums.partitions)
    _check_ranges(request, spec, acknowledged, with_rows)
    lost = ranges[~present]
    acknowledged[lost] = False
    written = Written(np.flatnonzero(acknowledged).tolist(), set(lost.tolist()), with_rows)
    if mapper not in attempts.committed:
        _check_first(request, spec, written)
    return written


def _check_ranges(
    request: CommitRequest,
    spec: ExchangeSpec,
    acknowledged: npt.NDArray[np.bool_],
    written: npt.NDArray[np.bool_],
) -> None:
    """Refuse rows of ranges that no daemon acknowledged, and, from a partial attempt, of ranges
    that it was not asked for."""
    unheld = written & ~acknowledged
    if unheld.any():
        raise _invalid(
            spec,
            f"mapper {request.mapper} commits rows of partition range {int(np.argmax(unheld))} "
            "that no daemon acknowledged",
        )
    if not request.partial:
        return
    if foreign := set(np.flatnonzero(acknowledged).tolist()).difference(request.ranges):
        raise _invalid(
            spec,
            f"mapper {request.mapper} commits partition range {min(foreign)}, and its attempt "
            "was for others",
        )


def _check_first(request: CommitRequest, spec: ExchangeSpec, written: Written) -> None:
    """Refuse a first commit that is not of all rows of its mapper, in the generation it names."""
    mapper, attempt = request.mapper, request.attempt
    if request.partial:
        raise _invalid(
            spec,
            f"attempt {attempt} sent a part of the rows of mapper {mapper}, which has not "
            "committed; open an attempt that sends all",
        )
    if written.lost and not spec.deterministic:
        raise GenerationChanged(
            f"exchange {shown(spec.shuffle_id)} began generation {request.generation} while "
            f"attempt {attempt} of mapper {mapper} began; run it again",
            shuffle_id=spec.shuffle_id,
        )


def _invalid(spec: ExchangeSpec, reason: str) -> InvalidArgument:
    return InvalidArgument(
        f"exchange {shown(spec.shuffle_id)}: {reason}", shuffle_id=spec.shuffle_id
    )
