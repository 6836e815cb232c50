"""Arrow tables that mappers write, a part each, and what a reader makes of them."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from cosco import CoscoExchange, CoscoReader, CoscoWriter


def write(name: str, metadata: str, mapper: int, *parts: pa.Table) -> None:
    """One attempt of a mapper, all of it to partition 0."""
    with CoscoWriter(name, mapper, metadata=metadata) as writer:
        for part in parts:
            writer.collect_batch([0] * part.num_rows, part)


def read(name: str, metadata: str, mappers: int, partition: int = 0) -> pa.Table:
    """What mappers from 0 on wrote, fully valid; `read_batches` has to give the same."""
    batches = []
    with CoscoReader(name, range(mappers), partition, metadata=metadata) as reader:
        batches = list(reader.read_batches(max_bytes=1))
    with CoscoReader(name, range(mappers), partition, metadata=metadata) as reader:
        table = reader.read_table()
    table.validate(full=True)
    rows = [row for batch in batches for row in batch.to_pylist()]
    assert sorted(map(repr, rows)) == sorted(map(repr, table.to_pylist()))
    assert all(batch.schema.equals(table.schema) for batch in batches)
    return table


def shuffled(
    name: str, metadata: str, *parts: pa.Table | list[pa.Table], schema: Any = None
) -> pa.Table:
    """Have mappers 0, 1, … write a part each, or several, and read them."""
    with CoscoExchange(name, 1, schema=schema, replicas=1, metadata=metadata):
        for mapper, part in enumerate(parts):
            write(name, metadata, mapper, *(part if isinstance(part, list) else [part]))
        return read(name, metadata, len(parts))
