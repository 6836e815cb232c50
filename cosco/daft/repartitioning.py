"""`repartition`: a frame through an exchange, and the frame that comes out."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from typing import Final

from daft import DataFrame, DataType, Schema
from pyroaring import BitMap

from cosco import Connection, InvalidArgument
from cosco.daft.partition_source import Owner, PartitionSource, WrittenRows
from cosco.daft.row_sink import RowSink
from cosco.engine_exchanges import EngineExchanges, connection_to

#: Those of all frames of this process.
EXCHANGES: Final = EngineExchanges(lambda: "daft")
_INNER: Final = ("dtype", "key_type", "value_type")


def repartition(
    df: DataFrame,
    partitions: int,
    *keys: str,
    metadata: Connection | str | None = None,
    replicas: int = 2,
) -> DataFrame:
    """Run `df`, send its rows through Cosco, and return them by hash of the keys.

    All rows with the same values of `keys` are in one partition of the result, and Daft knows it:
    a `groupby`, `distinct` or window over these keys, and a join on them, needs no other shuffle.
    A join with a frame that was not repartitioned shuffles that one alone. Daft takes frames from
    sources for small, and a join sends them whole to every worker: say `strategy="hash"` there.

    The rows stay with the daemons until Python collects the result, and all that was made of it,
    or until this process ends. Nothing of `df` is run again: with `replicas=1` rows that only the
    memory of a daemon had are gone when it dies.

    metadata: `host:port` of the metadata service, as Daft's workers reach it, or a
    `cosco.Connection`; None: what COSCO_METADATA says here. A token is needed here alone.

    Raises: InvalidArgument, for keys that are no names of columns, each once, and for columns of
    Python objects; ServiceUnavailable, CapacityExceeded. What fails while `df` runs is raised as
    Daft raises it.
    """
    if not isinstance(df, DataFrame):
        raise InvalidArgument(f"df is a {type(df).__name__}, it must be a DataFrame of Daft")
    schema = df.schema()
    _check(schema, keys)
    exchange = EXCHANGES.make(
        connection_to(metadata),
        partitions,
        schema=schema.to_pyarrow_schema(),
        replicas=replicas,
    )
    try:
        sink = RowSink(exchange.handle(may="write"), keys, schema.to_pyarrow_schema())
        mappers = df.write_sink(sink).to_pydict()["mapper"]
    except BaseException:
        EXCHANGES.end(exchange)
        raise
    owner = Owner()
    # Python may collect it at any moment, on any thread; the end of the process ends them all.
    weakref.finalize(owner, EXCHANGES.end, exchange).atexit = False
    return PartitionSource(
        WrittenRows(exchange.handle(may="read"), BitMap(mappers), keys, schema, owner)
    ).read()


def _check(schema: Schema, keys: tuple[str, ...]) -> None:
    """Look at what would fail later, on a worker.

    Raises: InvalidArgument.
    """
    columns = schema.column_names()
    if not keys:
        raise InvalidArgument("keys are missing: name the columns that rows go by")
    for place, key in enumerate(keys):
        if not isinstance(key, str):
            raise InvalidArgument(
                f"keys has {key!r}, it must be the name of a column: give an expression one first,"
                " by with_column"
            )
        if key in keys[:place]:
            raise InvalidArgument(f"keys has {key!r} twice")
        if key not in columns:
            raise InvalidArgument(f"keys has {key!r}, which is no column: there are {columns}")
    for name in columns:
        kind = schema[name].dtype
        if any(inner.is_python() for inner in _types_in(kind)):
            raise InvalidArgument(
                f"column {name!r} has Python objects ({kind}), which are not sent over the network:"
                " give it a type that Arrow knows, or make it bytes"
            )


def _types_in(kind: DataType) -> Iterator[DataType]:
    """Yield a type, and those of the values inside its values."""
    yield kind
    inner = [getattr(kind, name, None) for name in _INNER]
    for one in (*inner, *(getattr(kind, "fields", None) or {}).values()):
        if isinstance(one, DataType):
            yield from _types_in(one)
