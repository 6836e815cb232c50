"""What a driver asks for, for an exchange or for each one of a group: checks of its options."""

from __future__ import annotations

import pyarrow as pa

from cosco.client.argument_checks import seconds, shuffle_name, switch, whole_number
from cosco.client.content.arrow_binding import binding_schema
from cosco.client.content.arrow_schema import normalize_schema
from cosco.client.content.arrow_transport import transport
from cosco.client.content.arrow_types import first_line
from cosco.errors import CoscoError, InvalidArgument
from cosco.protocol.api_limits import (
    MAX_MAPPER,
    MAX_PARTITIONS,
    MAX_REPLICAS,
    MIN_LEASE_S,
    check_codec,
    check_group_spec,
    check_spec,
    shown_value,
)
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
    mappers: int | None = None,
    direct_reads: bool = False,
    is_group: bool = False,
) -> ExchangeSpec:
    """Return what a driver asks for, checked as the service will check it.

    Raises: InvalidArgument, or SchemaMismatch for a schema that cannot be shuffled.
    """
    shuffle_id = shuffle_name(shuffle_id)
    check_codec(codec, shuffle_id)
    partitions = whole_number("partitions", partitions, 1, MAX_PARTITIONS, shuffle_id)
    replicas = whole_number("replicas", replicas, 1, MAX_REPLICAS, shuffle_id)
    min_replicas = 1 if min_replicas is None else min_replicas
    spec = ExchangeSpec(
        shuffle_id=shuffle_id,
        partitions=partitions,
        replicas=replicas,
        min_replicas=whole_number("min_replicas", min_replicas, 1, replicas, shuffle_id),
        codec=str(codec),
        deterministic=switch("deterministic", deterministic, shuffle_id),
        lease_s=seconds("lease_s", lease_s, MIN_LEASE_S, shuffle_id),
        schema=b"" if schema is None else _schema_bytes(schema, shuffle_id),
        mappers=_mapper_count(mappers, shuffle_id),
        direct_reads=switch("direct_reads", direct_reads, shuffle_id),
    )
    try:
        (check_group_spec if is_group else check_spec)(spec)
    except InvalidArgument as error:
        error.place(shuffle_id)
        raise
    return spec


def _mapper_count(mappers: object, shuffle_id: str) -> int:
    """Return how many mappers there are to be; 0: nobody has said."""
    if mappers is None:
        return 0
    return whole_number("mappers", mappers, 1, MAX_MAPPER + 1, shuffle_id)


def _schema_bytes(schema: object, shuffle_id: str) -> bytes:
    """Return the message of a declared schema, which may be of another library that has Arrow's."""
    try:
        if not isinstance(schema, pa.Schema):
            schema = _arrow_schema(schema)
        message = binding_schema(schema)
        transport(normalize_schema(schema))  # which refuses what cannot be shuffled
    except CoscoError as error:
        error.place(shuffle_id)
        raise
    return message


def _arrow_schema(schema: object) -> pa.Schema:
    problem = f"schema is a {type(schema).__name__}, it must be a pyarrow.Schema or export one"
    # The types of columns have the method as well.
    is_type = isinstance(schema, pa.DataType | pa.Field | type)
    if is_type or not hasattr(schema, "__arrow_c_schema__"):
        raise InvalidArgument(f"{problem} by __arrow_c_schema__")
    try:
        return pa.schema(schema)
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise InvalidArgument(f"{problem}: {first_line(error)}") from error


def check_callback(callback: object, shuffle_id: str) -> None:
    if callback is not None and not callable(callback):
        raise InvalidArgument(
            f"recompute_writers_callback is {shown_value(callback)}, it must be callable",
            shuffle_id=shuffle_id,
        )
