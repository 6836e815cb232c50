"""The conversion of records whose messages have the same fields under the same names.

Nothing is said twice: what becomes of a field follows from its type in the record. Numbers,
text and bytes stay as they are; records, enums, sets of mappers, arrays of uint64 and errors
are converted; tuples are repeated fields; a record or error that may be None is a message that
may be absent.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from enum import IntEnum
from functools import partial
from types import UnionType
from typing import Any, Final, TypeVar, get_args, get_origin, get_type_hints

from google.protobuf.message import Message
from pyroaring import BitMap

from cosco.errors import CoscoError, InvalidArgument
from cosco.protocol.records import U64
from cosco.protocol.wire.arrays import bitmap_bytes, bitmap_from_bytes, bytes64, u64
from cosco.protocol.wire.error_detail import error_from_pb, error_to_pb

_Record = TypeVar("_Record")
_Convert = Callable[[Any], Any]

_SCALARS: Final = (int, float, str, bytes, bool)
#: How a record becomes its message, and how it comes back.
TO_PB: Final[dict[Any, _Convert]] = {CoscoError: error_to_pb}
FROM_PB: Final[dict[Any, _Convert]] = {CoscoError: error_from_pb}


def to_pb(record: object) -> Any:
    """Return the message of a record."""
    return TO_PB[type(record)](record)


def from_pb(record: type[_Record], pb: Message) -> _Record:
    """Return the record that a message says; raises InvalidArgument for one that cannot be."""
    found: _Record = FROM_PB[record](pb)
    return found


def plain(
    record: type[_Record],
    message: type[Message],
    *,
    apart: Collection[str] = (),
    check: Callable[[_Record], None] | None = None,
) -> None:
    """Have `to_pb` and `from_pb` convert a record; records that are part of it come first.

    apart: fields of the message that the record does not have. check: raises InvalidArgument
    for a record that came and cannot be.

    Both ways are compiled, as `dataclass` compiles its methods: messages come by the thousand,
    and a loop over their fields takes twice as long.

    Raises TypeError where one of the two has another field that the other lacks, or an enum
    other members than the message's.
    """
    hints = get_type_hints(record)
    described = message.DESCRIPTOR.fields_by_name
    if hints.keys() | set(apart) != set(described):
        raise TypeError(f"{record.__name__} and {message.__name__} differ in their fields")
    known: dict[str, Any] = {"record": record, "message": message}
    to_fields, from_fields = [], []
    for name, hint in hints.items():
        to, back = f"to_{name}", f"from_{name}"
        known[to], known[back] = _converters(described[name], hint)
        to_field = f"{to}(it.{name})" if known[to] else f"it.{name}"
        from_field = f"{back}(it.{name})" if known[back] else f"it.{name}"
        if get_origin(hint) is UnionType:
            to_field += f" if it.{name} is not None else None"
            from_field += f" if it.HasField({name!r}) else None"
        to_fields.append(f"{name}={to_field}")
        from_fields.append(from_field)
    # The names in it are those of the record's fields.
    TO_PB[record] = eval(f"lambda it: message({', '.join(to_fields)})", known)  # noqa: S307
    convert = eval(f"lambda it: record({', '.join(from_fields)})", known)  # noqa: S307

    def checked(pb: Message) -> Any:
        found = convert(pb)
        if check:
            check(found)
        return found

    FROM_PB[record] = checked if check else convert


def _converters(field: Any, hint: Any) -> tuple[_Convert | None, _Convert | None]:
    """Return how a field of this type goes into its message and comes back; None: as it is."""
    name = field.name
    if get_origin(hint) is UnionType:
        [hint] = set(get_args(hint)) - {type(None)}
    to: _Convert | None = None
    back: _Convert | None = None
    if hint in TO_PB:
        to, back = TO_PB[hint], FROM_PB[hint]
    elif hint == U64:
        to, back = bytes64, lambda data: u64(data, name)
    elif hint is BitMap:
        to, back = bitmap_bytes, lambda data: bitmap_from_bytes(data, name)
    elif get_origin(hint) is tuple:
        to_one, one_back = _converters(field, get_args(hint)[0])
        to, back = None, tuple
        if to_one and one_back:
            to, back = partial(map, to_one), lambda values: tuple(map(one_back, values))
    elif hint not in _SCALARS and issubclass(hint, IntEnum):
        back = _enum_from_pb(field, hint)
    elif hint not in _SCALARS:
        raise TypeError(f"no conversion of {name}, a {hint}")
    return to, back


def _enum_from_pb(field: Any, members: type[IntEnum]) -> _Convert:
    numbers = field.enum_type.values_by_number
    if not all(m in numbers and numbers[m].name.endswith(f"_{m.name}") for m in members):
        raise TypeError(f"{members.__name__} and {field.enum_type.name} differ in their members")

    def convert(value: int) -> IntEnum:
        try:
            return members(value)
        except ValueError:
            raise InvalidArgument(f"{field.name}: {value} is no {members.__name__}") from None

    return convert
