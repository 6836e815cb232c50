"""What a driver or writer asks for, checked option by option."""

from __future__ import annotations

from typing import Final

from cosco.errors import (
    GenerationChanged,
    InvalidArgument,
    PartitionOutOfRange,
    SchemaMismatch,
)
from cosco.format.block import CODECS
from cosco.protocol.records import MAX_MAPPER, MAX_PARTITIONS, ExchangeSpec, RowKind

MAX_SHUFFLE_ID_BYTES: Final = 1024
MAX_REPLICAS: Final = 2
MIN_LEASE_S: Final = 1.0
MAX_LEASE_S: Final = 7 * 86400.0
#: A schema travels in every writer's licence.
MAX_SCHEMA_BYTES: Final = 8 << 20
OWNER_BYTES: Final = 16

_SHOWN_CHARACTERS: Final = 100


def shown(shuffle_id: str) -> str:
    """A shuffle id as messages name it: quoted, on one line, and not too long."""
    if len(shuffle_id) > _SHOWN_CHARACTERS:
        shuffle_id = shuffle_id[:_SHOWN_CHARACTERS] + "…"
    return repr(shuffle_id)


def check_spec(spec: ExchangeSpec) -> None:
    """Raise InvalidArgument naming the option that is out of its range."""
    try:
        id_bytes = len(spec.shuffle_id.encode())
    except UnicodeEncodeError:
        raise InvalidArgument("shuffle_id is no text that UTF-8 can encode") from None
    if not 1 <= id_bytes <= MAX_SHUFFLE_ID_BYTES:
        raise InvalidArgument(
            f"shuffle_id is {id_bytes} bytes long, it must be 1 to {MAX_SHUFFLE_ID_BYTES}"
        )
    bounds: tuple[tuple[str, float, float, float], ...] = (
        ("partitions", spec.partitions, 1, MAX_PARTITIONS),
        ("replicas", spec.replicas, 1, MAX_REPLICAS),
        ("min_replicas", spec.min_replicas, 1, spec.replicas),
        ("lease_s", spec.lease_s, MIN_LEASE_S, MAX_LEASE_S),
    )
    for option, value, low, high in bounds:
        if not low <= value <= high:  # also so for a NaN
            raise InvalidArgument(
                f"{option} is {value}, it must be {low:g} to {high:.7g}",
                shuffle_id=spec.shuffle_id,
            )
    if spec.codec not in CODECS:
        raise InvalidArgument(
            f"codec is {spec.codec[:_SHOWN_CHARACTERS]!r}, it must be one of {', '.join(CODECS)}",
            shuffle_id=spec.shuffle_id,
        )
    check_schema(spec.schema)


def check_schema(schema: bytes) -> None:
    """Raise InvalidArgument for a serialized schema that is too long to hand out."""
    if len(schema) > MAX_SCHEMA_BYTES:
        raise InvalidArgument(
            f"schema is {len(schema)} bytes long, it must be at most {MAX_SCHEMA_BYTES}"
        )


def check_owner(owner: bytes) -> None:
    """Raise InvalidArgument unless `owner` can be a driver's token."""
    if len(owner) != OWNER_BYTES:
        raise InvalidArgument(f"owner is {len(owner)} bytes long, it must be {OWNER_BYTES}")


def check_mapper(mapper: int, mappers: int = MAX_MAPPER + 1) -> None:
    """Raise InvalidArgument for a mapper id out of its range, where there are so many."""
    if not 0 <= mapper < mappers:
        raise InvalidArgument(f"mapper is {mapper}, it must be 0 to {mappers - 1}")


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


def check_kind(
    spec: ExchangeSpec, given: tuple[RowKind, bytes], decided: tuple[RowKind, bytes]
) -> None:
    """Raise SchemaMismatch unless (kind, schema) of rows are the exchange's, byte for byte."""
    if given == decided:
        return
    if given[0] is not decided[0]:
        difference = f"{decided[0].name} rows, not {given[0].name} rows"
    else:
        difference = "Arrow rows of another schema"
    raise SchemaMismatch(
        f"exchange {shown(spec.shuffle_id)} carries {difference}; write all its rows with the "
        "schema it was created with, or that of its first writer",
        shuffle_id=spec.shuffle_id,
    )
