"""What callers may ask for: the limits of the API, and the checks that hold a request to them.

Defined once for both sides. Clients check what they are given, so that a mistake is reported
where it was made; the metadata service checks again, as it trusts no client. Every check
raises InvalidArgument, which names the option and its bounds.
"""

from __future__ import annotations

from typing import Final

from cosco.errors import InvalidArgument
from cosco.format.block import CODECS
from cosco.format.traceparent import parse_traceparent
from cosco.protocol.records import ExchangeSpec

#: Mapper ids are 0 to MAX_MAPPER.
MAX_MAPPER: Final = 2**31 - 1
#: Mappers that one reader waits for. Those that are missing are named one by one in its errors.
MAX_NAMED_MAPPERS: Final = 1 << 22
#: Epochs that a writer may ask about at once: one of each range is what there can be.
MAX_STALE_EPOCHS: Final = 1 << 16
#: Partitions of one exchange. Block headers carry them in 32 bits; the bound keeps a hostile
#: request from asking for arrays of gigabytes.
MAX_PARTITIONS: Final = 1 << 20
#: The largest integer of a call's arguments that have no bound of their own.
INT64: Final = 2**63 - 1
#: Length of a shuffle id in UTF-8.
MAX_SHUFFLE_ID_BYTES: Final = 1024
#: Copies of a row in memory.
MAX_REPLICAS: Final = 2
MIN_LEASE_S: Final = 1.0
MAX_LEASE_S: Final = 7 * 86400.0
#: A schema is sent to every writer.
MAX_SCHEMA_BYTES: Final = 8 << 20
#: Length of the secret by which the service knows a driver, in bytes.
OWNER_BYTES: Final = 16

#: Exchanges that one call of a driver's program may ask for.
MAX_GROUP_SIZE: Final = 10_000
#: Exchanges that one call of the metadata service makes, which answers nobody else meanwhile.
MAX_PART_SIZE: Final = 1_000
#: Exchanges that a group ever has.
MAX_GROUP_EXCHANGES: Final = 1 << 31
#: Mappers of each exchange of a group: each has a mark at each daemon of the exchange.
MAX_GROUP_MAPPERS: Final = 1 << 16
#: A group's id, to which its exchanges add a slash and their index.
MAX_GROUP_ID_BYTES: Final = MAX_SHUFFLE_ID_BYTES - len(f"/{MAX_GROUP_EXCHANGES - 1}")

#: An application's label, to which the service adds a number.
MAX_LABEL_BYTES: Final = 256

_SHOWN_CHARACTERS: Final = 100


def printable(text: object) -> str:
    """Return a text in one line, in which no character moves a cursor or begins a line."""
    text = str(text)
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def shown(shuffle_id: str) -> str:
    """Return a shuffle id as messages name it: quoted, on one line, and not too long."""
    if len(shuffle_id) > _SHOWN_CHARACTERS:
        shuffle_id = shuffle_id[:_SHOWN_CHARACTERS] + "…"
    return repr(shuffle_id)


def shown_value(value: object) -> str:
    """Return any value as messages quote it: on one line, and not too long."""
    try:
        text = " ".join(repr(value).split())
    except Exception:  # noqa: BLE001 (whatever a foreign object raises, or an integer too long)
        return f"a {type(value).__name__}"
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}…"


def check_shuffle_id(shuffle_id: str) -> None:
    """Refuse an id that is empty, too long or no text."""
    try:
        length = len(shuffle_id.encode())
    except UnicodeEncodeError:
        raise InvalidArgument("shuffle_id is no text that UTF-8 can encode") from None
    if not 1 <= length <= MAX_SHUFFLE_ID_BYTES:
        raise InvalidArgument(
            f"shuffle_id is {length} bytes long, it must be 1 to {MAX_SHUFFLE_ID_BYTES}"
        )


def check_named_count(mappers: int, shuffle_id: str | None = None) -> None:
    """Refuse a reader that names more mappers than anybody may."""
    if mappers > MAX_NAMED_MAPPERS:
        raise InvalidArgument(
            f"mappers are more than {MAX_NAMED_MAPPERS}: name those that have run, or will run",
            shuffle_id=shuffle_id,
        )


def check_stale_count(epochs: int) -> None:
    """Refuse a writer that asks about more epochs than it can have."""
    if epochs > MAX_STALE_EPOCHS:
        raise InvalidArgument(f"{epochs} epochs are asked about, at most {MAX_STALE_EPOCHS}")


def check_spec(spec: ExchangeSpec) -> None:
    """Refuse an exchange with an option that is out of its bounds."""
    check_shuffle_id(spec.shuffle_id)
    bounds: tuple[tuple[str, float, float, float], ...] = (
        ("partitions", spec.partitions, 1, MAX_PARTITIONS),
        ("replicas", spec.replicas, 1, MAX_REPLICAS),
        ("min_replicas", spec.min_replicas, 1, spec.replicas),
        ("lease_s", spec.lease_s, MIN_LEASE_S, MAX_LEASE_S),
        ("mappers", spec.mappers, 0, MAX_MAPPER + 1),
    )
    for option, value, low, high in bounds:
        if not low <= value <= high:  # also so for a NaN
            raise InvalidArgument(
                f"{option} is {shown_value(value)}, it must be {low:g} to {high:.10g}",
                shuffle_id=spec.shuffle_id,
            )
    check_codec(spec.codec, spec.shuffle_id)
    check_schema(spec.schema)
    if spec.trace and parse_traceparent(spec.trace) is None:
        raise InvalidArgument(
            f"trace is {shown_value(spec.trace)}, it must be a traceparent of version 00",
            shuffle_id=spec.shuffle_id,
        )


def check_group_spec(spec: ExchangeSpec) -> None:
    """Refuse a group with an option that is out of its bounds; its shuffle_id is the group's."""
    check_spec(spec)
    id_bytes = len(spec.shuffle_id.encode())
    if id_bytes > MAX_GROUP_ID_BYTES:
        raise InvalidArgument(
            f"group_id is {id_bytes} bytes long, it must be 1 to {MAX_GROUP_ID_BYTES}"
        )
    if not spec.deterministic:
        raise InvalidArgument(
            f"group {shown(spec.shuffle_id)} is to have deterministic=False: groups are for "
            "mappers that give each partition the same rows when they run again",
            shuffle_id=spec.shuffle_id,
        )
    if spec.direct_reads:
        raise InvalidArgument(
            f"group {shown(spec.shuffle_id)} is to have direct_reads=True: rows of groups are in "
            "the memory of daemons when they are read, make an exchange of its own",
            shuffle_id=spec.shuffle_id,
        )


def check_application(label: str, lease_s: float) -> None:
    """Refuse an application whose label or lease is out of its bounds."""
    try:
        length = len(label.encode())
    except UnicodeEncodeError:
        raise InvalidArgument(
            "the name of an application is no text that UTF-8 can encode"
        ) from None
    if not 1 <= length <= MAX_LABEL_BYTES:
        raise InvalidArgument(
            f"the name of an application is {length} bytes long, it must be 1 to {MAX_LABEL_BYTES}"
        )
    if not MIN_LEASE_S <= lease_s <= MAX_LEASE_S:
        raise InvalidArgument(
            f"lease_s is {shown_value(lease_s)}, it must be {MIN_LEASE_S:g} to {MAX_LEASE_S:g}"
        )


def check_part(first: int, size: int, mappers: int) -> None:
    """Refuse a part of a group: `size` exchanges from index `first` on, with `mappers` each."""
    if not 1 <= size <= MAX_PART_SIZE:
        raise InvalidArgument(f"a group of {size} exchanges; give 1 to {MAX_PART_SIZE}")
    if first + size > MAX_GROUP_EXCHANGES:
        raise InvalidArgument(
            f"a group of {first + size} exchanges; it has {MAX_GROUP_EXCHANGES} at most"
        )
    if not 1 <= mappers <= MAX_GROUP_MAPPERS:
        raise InvalidArgument(f"a group of {mappers} mappers; give 1 to {MAX_GROUP_MAPPERS}")


def check_codec(codec: object, shuffle_id: str) -> None:
    """Refuse a codec that blocks cannot have."""
    if not isinstance(codec, str) or codec not in CODECS:
        raise InvalidArgument(
            f"codec is {shown_value(codec)}, it must be one of {', '.join(CODECS)}",
            shuffle_id=shuffle_id,
        )


def check_schema(schema: bytes) -> None:
    """Refuse a serialized schema that is too long to hand out."""
    if len(schema) > MAX_SCHEMA_BYTES:
        raise InvalidArgument(
            f"schema is {len(schema)} bytes long, it must be at most {MAX_SCHEMA_BYTES}"
        )


def check_owner(owner: bytes) -> None:
    """Refuse what cannot be a driver's secret."""
    if len(owner) != OWNER_BYTES:
        raise InvalidArgument(f"owner is {len(owner)} bytes long, it must be {OWNER_BYTES}")


def check_mapper(mapper: int, mappers: int = MAX_MAPPER + 1) -> None:
    """Refuse a mapper id that is not among the `mappers` of an exchange."""
    if not 0 <= mapper < mappers:
        raise InvalidArgument(f"mapper is {mapper}, it must be 0 to {mappers - 1}")
