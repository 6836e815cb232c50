"""`CoscoShuffle`: a shuffle through Cosco in an expression of Dask DataFrame."""

from __future__ import annotations

import functools
from typing import Any

import pandas as pd

from cosco.dask.dask_frames import check_types
from cosco.dask.dask_tasks import Settings, ShuffleSpec, barrier, transfer, unpack
from cosco.dask.private_parts_of_dask import ExchangeTask, SimpleShuffle, TaskRef
from cosco.dask.state.shuffle_record import barrier_key, transfer_key


class CoscoShuffle(SimpleShuffle):
    """Transfers write the input's partitions, and behind a barrier unpacks read the output's."""

    _parameters = [  # noqa: RUF012  as its base has it
        "frame",
        "partitioning_index",
        "npartitions_out",
        "ignore_index",
        "options",
        "original_partitioning_index",
        "settings",
        "_partitions",
    ]
    #: What the tasks are called that give the output's partitions.
    _funcname = "cosco-unpack"

    @functools.cached_property
    def _meta(self) -> pd.DataFrame:
        return self.frame._meta.drop(columns=self.partitioning_index)

    def _layer(self) -> dict[Any, Any]:
        meta = self.frame._meta
        spec = ShuffleSpec(
            token=self._name.rpartition("-")[2],
            mappers=self.frame.npartitions,
            partitions=self.npartitions_out,
            column=self.partitioning_index,
            wanted=tuple(map(int, self._partitions)) if self._filtered else None,
            settings=self.settings,
        )
        tasks = []
        for mapper in range(spec.mappers):
            key = transfer_key(spec.token, mapper)
            rows = TaskRef((self.frame._name, mapper))
            tasks.append(ExchangeTask(key, transfer, rows, spec, mapper, meta))
        written = [task.ref() for task in tasks]
        stored = ExchangeTask(barrier_key(spec.token), barrier, spec.token, *written)
        tasks.append(stored)
        for place, partition in enumerate(self._partitions):
            key = (self._name, place)
            tasks.append(ExchangeTask(key, unpack, stored.ref(), int(partition), self._meta))
        return {task.key: task for task in tasks}


def lowered(shuffle: Any, settings: Settings) -> CoscoShuffle:
    """Return what a shuffle of Dask becomes.

    Raises: TypeError for columns that Arrow has no type for.
    """
    check_types(shuffle.frame._meta)
    return CoscoShuffle(
        shuffle.frame,
        shuffle.partitioning_index,
        shuffle.npartitions_out,
        shuffle.ignore_index,
        shuffle.options,
        shuffle.original_partitioning_index,
        settings,
    )
