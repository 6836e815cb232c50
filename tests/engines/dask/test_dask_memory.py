"""Workers use memory again that they freed, and whoever starts them may choose otherwise."""

from __future__ import annotations

import resource

import dask
import dask.dataframe as dd
import pandas as pd
import pytest
from distributed import Client, wait
from support.dask_jobs import dask_client

import cosco.dask

ROUNDS = 100
MIB = 1 << 20
PAGE = resource.getpagesize()


def touched_bytes() -> int:
    """How much memory is touched for the first time when 2 MiB are taken and freed repeatedly."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(ROUNDS):
        bytearray(b"x") * (2 * MIB)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) * PAGE


def touched_by_workers(client: Client, metadata: str) -> list[int]:
    """What each worker touches, once it has had a task of a shuffle."""
    cosco.dask.enable(client, metadata)
    frame = dd.from_pandas(pd.DataFrame({"key": range(40)}), npartitions=4)
    wait(client.persist(frame.shuffle("key")))
    return list(client.run(touched_bytes).values())


def test_freed_memory_is_used_again(metadata: str) -> None:
    with dask_client(1) as client:
        assert client.run(touched_bytes).popitem()[1] > ROUNDS * MIB, "as Dask starts workers"
        assert max(touched_by_workers(client, metadata)) < ROUNDS * MIB / 4


@pytest.mark.parametrize("name", ["MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES"])
def test_a_choice_of_who_starts_workers_stays(metadata: str, name: str) -> None:
    value = "glibc.malloc.mmap_threshold=131072" if name.startswith("G") else "131072"
    environ = {**dask.config.get("distributed.nanny.pre-spawn-environ"), name: value}
    with (
        dask.config.set({"distributed.nanny.pre-spawn-environ": environ}),
        dask_client(1) as client,
    ):
        assert min(touched_by_workers(client, metadata)) > ROUNDS * MIB
