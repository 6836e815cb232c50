"""Records whose messages have the same fields under the same names, both ways."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, Generic, TypeVar

from google.protobuf.message import Message

_Record = TypeVar("_Record")
_Message = TypeVar("_Message", bound=Message)


class Plain(Generic[_Record, _Message]):
    """A dataclass and its message; a repeated field of the message is a tuple of the record.

    Not for what comes by the thousand: those are written out.
    """

    def __init__(self, record: type[_Record], message: type[_Message]) -> None:
        """Raises TypeError where one of the two has a field that the other lacks."""
        found: Any = fields(record)  # type: ignore[arg-type]  # of any dataclass
        self._record = record
        self._message = message
        self._is_tuple = {field.name: str(field.type).startswith("tuple[") for field in found}
        if self._is_tuple.keys() != set(message.DESCRIPTOR.fields_by_name):
            raise TypeError(f"{record.__name__} and {message.__name__} differ in their fields")

    def to_pb(self, record: _Record) -> _Message:
        return self._message(**{name: getattr(record, name) for name in self._is_tuple})

    def from_pb(self, pb: _Message) -> _Record:
        return self._record(
            **{
                name: tuple(getattr(pb, name)) if is_tuple else getattr(pb, name)
                for name, is_tuple in self._is_tuple.items()
            }
        )
