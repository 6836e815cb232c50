"""What runs in Ray's workers: the tasks that write shards to an exchange and read them from it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import ray

from cosco import CommitTimeout, DataLost, ExchangeClosed, ExchangeHandle
from cosco.ray.private_parts_of_ray import (
    Schemas,
    partition_blocks,
    promoted,
    reduce_partition,
    with_rows_everywhere,
)
from cosco.ray.shards import ShardWriter, read_shards

#: How long a reduce task waits for lost rows before it gives its CPU to others.
PATIENCE_S: Final = 5.0
_BATCH_BYTES: Final = 16 << 20
_LOG: Final = logging.getLogger("cosco.ray")


@dataclass(frozen=True, slots=True)
class Outputs:
    """What reduce tasks need to read what the map tasks of one operator wrote."""

    handle: ExchangeHandle
    mappers: int
    #: Rows of each partition, as Ray counts them; None: nobody has counted.
    rows: npt.NDArray[np.int64] | None
    schemas: Schemas


# --- map ------------------------------------------------------------------------------------------


def write_partitions(
    handle: ExchangeHandle, mapper: int, arguments: dict[str, Any], *blocks: Any
) -> Any:
    """Partition blocks as Ray's map task does, and write the shards that have rows.

    Returns: what Ray's task tells of it.
    """
    told, tables = partition_blocks(blocks, arguments)
    with handle.writer(mapper) as writer:
        shards = ShardWriter(writer, mapper)
        for partition in range(len(tables)):
            table, tables[partition] = tables[partition], None  # its memory may go
            if table.num_rows:
                shards.add(partition, table)
        shards.flush()
    if writer.close().won:
        return told
    # Another run counts, whose worker died before it told. It may have cut its rows otherwise.
    return with_rows_everywhere(told, len(tables))


def write_slices(
    handle: ExchangeHandle,
    mapper: int,
    function: Callable[..., Any],
    block: Any,
    *arguments: Any,
) -> Any:
    """Cut a block as `function`, of an exchange of Ray's, does, and write the parts with rows.

    Returns: the metadata that `function` returned last.
    """
    *slices, metadata = function(mapper, block, *arguments)
    with handle.writer(mapper) as writer:
        shards = ShardWriter(writer, mapper)
        for partition, part in enumerate(slices):
            if len(part):
                shards.add(partition, part)
        shards.flush()
    return metadata


# --- reduce ---------------------------------------------------------------------------------------


def reduce_tables(*arguments: Any) -> Iterator[Any]:
    """Reduce a partition as Ray's reduce task does.

    Yields: blocks, and the pickled metadata of each.
    """
    return (yield from reduce_partition(_tables_of, arguments))  # which is told how long each took


def merge_slices(
    outputs: Outputs, partition: int, function: Callable[..., Any], *arguments: Any
) -> Any:
    """Merge what map tasks cut for a partition, as `function`, of an exchange of Ray's, does.

    Returns: the block and its metadata.
    """
    return function(*arguments, *_blocks_of(outputs, partition))


def wait_for_rows(outputs: Outputs, partition: int) -> None:
    """Wait until the rows of a partition are there again."""
    with outputs.handle.reader(partition, range(outputs.mappers)) as reader:
        try:
            next(reader.read_batches(), None)
        except DataLost as error:
            if not error.retriable:  # else whoever waits for this reads anew, and sees
                raise


def _tables_of(references: list[Any], partition: int) -> list[pa.Table]:
    """Return the tables of a partition that one operator's map tasks wrote, by mapper."""
    if not references:  # it had nothing to map
        return []
    [reference] = references
    outputs: Outputs = ray.get(reference)
    tables = _blocks_of(outputs, partition)
    return promoted(tables) if len(outputs.schemas.found) > 1 else tables


def _blocks_of(outputs: Outputs, partition: int) -> list[Any]:
    """Return the blocks of a partition, by mapper.

    There is one of each schema, though it be without rows: they decide on the schema of the whole.
    """
    shards: list[tuple[int, Any]] | None = None
    if outputs.rows is not None and not outputs.rows[partition]:
        shards = []
    while shards is None:
        shards = _shards_of(outputs, partition)
    mappers = {mapper for mapper, _ in shards}
    shards += [
        (mapper, _empty_block(schema))
        for mapper, schema in outputs.schemas.found
        if mapper not in mappers and schema is not None
    ]
    return [block for _, block in sorted(shards, key=lambda shard: shard[0])]


def _shards_of(outputs: Outputs, partition: int) -> list[tuple[int, Any]] | None:
    """Return the shards of a partition, verified, or None if they are to be read once more."""
    mappers = range(outputs.mappers)
    try:
        with outputs.handle.reader(partition, mappers, timeout_s=PATIENCE_S) as reader:
            return read_shards(reader.read_batches(max_bytes=_BATCH_BYTES))
    except CommitTimeout as error:
        # While it waits for another task, Ray lets others have its CPU: those that bring back
        # what map tasks need to run again, for example.
        _LOG.info("partition %d waits for lost rows of mappers %s", partition, error.mappers)
        ray.get(ray.remote(num_cpus=0)(wait_for_rows).remote(outputs, partition))
    except DataLost as error:
        if not error.retriable:
            raise
        _LOG.info("partition %d is read again: %s", partition, error)
    except ExchangeClosed as error:
        raise ExchangeClosed(
            f"{error}; it goes with the run of its dataset, after which Ray cannot compute blocks"
            " again that came out of the shuffle and died with a node: run the dataset again",
            shuffle_id=error.shuffle_id,
            partition=partition,
        ) from error
    return None


def _empty_block(schema: Any) -> Any:
    if isinstance(schema, pa.Schema):
        return schema.empty_table()
    return pd.DataFrame(
        {name: pd.Series(dtype=kind) for name, kind in zip(schema.names, schema.types, strict=True)}
    )
