"""What is answered to a frame: that it is held, or why it is not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from cosco.errors import (
    AccessDenied,
    CapacityExceeded,
    CoscoError,
    DataCorrupted,
    ExchangeClosed,
    IncompatibleVersion,
)
from cosco.protocol.push.messages import RefusalCode

#: Tells whoever sent a frame what became of it: None if it is in and safe, or why it is not.
Answer = Callable[[CoscoError | None], None]


class NotAssigned(CoscoError):
    """The assignment is not this daemon's, or it is sealed."""


_CODES: Final[dict[type[CoscoError], RefusalCode]] = {
    NotAssigned: RefusalCode.NOT_ASSIGNED,
    ExchangeClosed: RefusalCode.EXCHANGE_CLOSED,
    CapacityExceeded: RefusalCode.NO_CAPACITY,
    DataCorrupted: RefusalCode.BAD_FRAME,
    AccessDenied: RefusalCode.ACCESS_DENIED,
    IncompatibleVersion: RefusalCode.INCOMPATIBLE,
}


def refusal_code(error: CoscoError) -> RefusalCode:
    """Return the code by which a frame, or a stream, is refused for `error`."""
    codes = (code for kind, code in _CODES.items() if isinstance(error, kind))
    return next(codes, RefusalCode.PROTOCOL)
