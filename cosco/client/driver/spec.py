"""What a driver asks for, for an exchange or for each one of a group: checks of its options."""

from __future__ import annotations

import pyarrow as pa

from cosco.client.argument_checks import seconds, shuffle_name, whole_number
from cosco.client.content.arrow import normalize_schema, schema_to_bytes, transport
from cosco.errors import InvalidArgument, SchemaMismatch
from cosco.protocol.api_limits import MAX_PARTITIONS, MAX_REPLICAS, MIN_LEASE_S, check_codec
from cosco.protocol.records import ExchangeSpec


def new_spec(
    shuffle_id: str,
    partitions: int,
    *,
    schema: pa.Schema | None,
    replicas: int,
    min_replicas: int | None,
    codec: str,
    lease_s: float,
    deterministic: bool = True,
) -> ExchangeSpec:
    """Return what a driver asks for, checked.

    Raises: InvalidArgument, or SchemaMismatch for a schema that cannot be shuffled.
    """
    check_codec(codec, shuffle_id)
    return ExchangeSpec(
        shuffle_id=shuffle_name(shuffle_id),
        partitions=whole_number("partitions", partitions, 1, MAX_PARTITIONS, shuffle_id),
        replicas=whole_number("replicas", replicas, 1, MAX_REPLICAS, shuffle_id),
        min_replicas=1
        if min_replicas is None
        else whole_number("min_replicas", min_replicas, 1, replicas, shuffle_id),
        codec=codec,
        deterministic=bool(deterministic),
        lease_s=seconds("lease_s", lease_s, MIN_LEASE_S, shuffle_id),
        schema=b"" if schema is None else _schema_bytes(schema, shuffle_id),
    )


def _schema_bytes(schema: object, shuffle_id: str) -> bytes:
    if not isinstance(schema, pa.Schema):
        raise InvalidArgument(
            f"schema is a {type(schema).__name__}, it must be a pyarrow.Schema",
            shuffle_id=shuffle_id,
        )
    normal = normalize_schema(schema)
    try:
        transport(normal)  # which refuses what cannot be shuffled
    except SchemaMismatch as error:
        error.place(shuffle_id)
        raise
    return schema_to_bytes(normal)


def check_callback(callback: object, shuffle_id: str) -> None:
    if callback is not None and not callable(callback):
        raise InvalidArgument(
            f"recompute_writers_callback is {callback!r}, it must be callable",
            shuffle_id=shuffle_id,
        )
