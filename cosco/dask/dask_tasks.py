"""What runs on workers: transfers that write, a barrier, and unpacks that read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Final

import pandas as pd
import pyarrow as pa
from distributed import Reschedule

from cosco import ExchangeHandle, __version__
from cosco.dask.dask_frames import joined, split
from cosco.dask.private_parts_of_dask import (
    ask_scheduler,
    current_key,
    dumps,
    guard_profiler,
    loads,
)
from cosco.dask.state.shuffle_record import NOTHING
from cosco.dask.worker_memory import reuse_freed_memory
from cosco.errors import CommitTimeout

#: An unpack whose rows are lost waits this long for them, then it gives its thread back.
WAIT_S: Final = 0.25
#: A partition becomes one frame: it is the worker's memory that bounds it.
_MAX_HELD_BYTES: Final = 1 << 40


@dataclass(frozen=True, slots=True)
class Settings:
    """What `enable` was told: where the metadata service is, and how many copies to keep."""

    metadata: Any
    replicas: int


@dataclass(frozen=True, slots=True)
class ShuffleSpec:
    """What all tasks of one shuffle have in common.

    column: of the frames, where each row's partition is. wanted: those partitions that somebody
    asked for, or None for all.
    """

    token: str
    mappers: int
    partitions: int
    column: str
    wanted: tuple[int, ...] | None
    settings: Settings


@dataclass(frozen=True, slots=True)
class Stored:
    """An exchange that holds what some mappers of a shuffle wrote: rows of one schema."""

    handle: ExchangeHandle
    mappers: range | tuple[int, ...]
    schema: pa.Schema


def transfer(frame: pd.DataFrame, spec: ShuffleSpec, mapper: int, meta: pd.DataFrame) -> int:
    """Write one partition of the input.

    Returns: the index of the exchange that has its rows among those of the shuffle, or NOTHING.
    """
    reuse_freed_memory()
    row_partitions, table = split(frame, spec.column, spec.wanted, meta)
    del frame
    answer = ask_scheduler(
        "cosco_open",
        spec=dumps(spec),
        mapper=mapper,
        key=current_key(),
        version=__version__,
        schema=dumps(table.schema) if table.num_rows else None,
    )
    if answer["is_stale"]:  # nobody waits for this run any more
        raise Reschedule
    if not table.num_rows:
        return NOTHING
    with loads(answer["handle"]).writer(mapper) as writer:
        writer.collect_batch(row_partitions, table)
    return int(answer["index"])


def barrier(token: str, *results: int) -> tuple[Stored, ...]:
    """Return where the rows of a shuffle are, now that all are written."""
    answer = ask_scheduler("cosco_barrier", token=token, results=list(results))
    if answer["is_stale"]:
        raise Reschedule
    return loads(answer["stored"])  # type: ignore[no-any-return]


def again(value: Any, *_: Any) -> Any:
    """Return what a task returned before: the work of a stand-in."""
    return value


def unpack(stored: Sequence[Stored], partition: int, meta: pd.DataFrame) -> pd.DataFrame:
    """Read one partition of the output: by mapper, and as each mapper wrote them."""
    guard_profiler()
    reuse_freed_memory()
    try:
        tables = [_read(*run, partition) for run in _runs(stored)]
    except CommitTimeout:  # rows were lost; who writes them again may need this thread
        raise Reschedule from None
    return joined(tables, meta)


def _read(stored: Stored, mappers: Sequence[int], partition: int) -> pa.Table:
    with stored.handle.reader(
        partition, mappers, timeout_s=WAIT_S, max_held_bytes=_MAX_HELD_BYTES
    ) as reader:
        table = reader.read_table(order="mapper")
    return table.replace_schema_metadata(stored.schema.metadata)


def _runs(stored: Sequence[Stored]) -> list[tuple[Stored, Sequence[int]]]:
    """Return which mappers to read from where, in the order of mappers."""
    if len(stored) == 1:
        return [(stored[0], stored[0].mappers)]
    owners = sorted((mapper, place) for place, one in enumerate(stored) for mapper in one.mappers)
    return [
        (stored[place], [mapper for mapper, _ in run])
        for place, run in groupby(owners, key=lambda owner: owner[1])
    ]
