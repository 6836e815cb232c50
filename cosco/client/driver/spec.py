"""What a driver asks for, for an exchange or for each one of a group: checks of its options."""

from __future__ import annotations

from typing import Final

import pyarrow as pa

from cosco.client.argument_checks import seconds, shuffle_name, whole_number
from cosco.client.content.arrow import normalize_schema, schema_to_bytes, transport
from cosco.errors import InvalidArgument
from cosco.format.block import CODECS
from cosco.protocol.records import MAX_PARTITIONS, ExchangeSpec

MAX_REPLICAS: Final = 2
MIN_LEASE_S: Final = 1.0
#: Of the secret by which the service knows a driver.
OWNER_BYTES: Final = 16


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
    return ExchangeSpec(
        shuffle_id=shuffle_name(shuffle_id),
        partitions=whole_number("partitions", partitions, 1, MAX_PARTITIONS, shuffle_id),
        replicas=whole_number("replicas", replicas, 1, MAX_REPLICAS, shuffle_id),
        min_replicas=1
        if min_replicas is None
        else whole_number("min_replicas", min_replicas, 1, replicas, shuffle_id),
        codec=_codec(codec, shuffle_id),
        deterministic=bool(deterministic),
        lease_s=seconds("lease_s", lease_s, MIN_LEASE_S, shuffle_id),
        schema=b"" if schema is None else _schema_bytes(schema, shuffle_id),
    )


def _codec(codec: object, shuffle_id: str) -> str:
    if not isinstance(codec, str) or codec not in CODECS:
        raise InvalidArgument(
            f"codec is {codec!r}, it must be one of {', '.join(CODECS)}", shuffle_id=shuffle_id
        )
    return codec


def _schema_bytes(schema: object, shuffle_id: str) -> bytes:
    if not isinstance(schema, pa.Schema):
        raise InvalidArgument(
            f"schema is a {type(schema).__name__}, it must be a pyarrow.Schema",
            shuffle_id=shuffle_id,
        )
    normal = normalize_schema(schema)
    transport(normal)  # raises SchemaMismatch for what cannot be shuffled
    return schema_to_bytes(normal)


def check_callback(callback: object, shuffle_id: str) -> None:
    if callback is not None and not callable(callback):
        raise InvalidArgument(
            f"recompute_writers_callback is {callback!r}, it must be callable",
            shuffle_id=shuffle_id,
        )
