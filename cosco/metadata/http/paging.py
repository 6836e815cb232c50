"""Cursors: where a list goes on. They are for the interface alone to read."""

from __future__ import annotations

import base64
import binascii
from typing import Final

from cosco.errors import InvalidArgument
from cosco.protocol.api_limits import INT64, MAX_SHUFFLE_ID_BYTES

DEFAULT_PAGE: Final = 100
#: Characters of the longest cursor: of the longest id, and what says of which list it is.
MAX_CURSOR: Final = 4 * (MAX_SHUFFLE_ID_BYTES + 16) // 3 + 4
#: The longest page, and how many exchanges are looked through for one: each takes a few
#: milliseconds, in which nobody else is answered.
LIMIT_MAX: Final = 500
LOOKED_AT: Final = 2000
#: Incarnations have 64 bits.
_MAX_NUMBER: Final = 2 * INT64 + 1


def cursor_after(of: str, place: int | str) -> str:
    """Return what a list of this name goes on by after a place."""
    return base64.urlsafe_b64encode(f"{of}:{place}".encode()).decode().rstrip("=")


def number_after(of: str, cursor: str, first: int = 0) -> int:
    """Return the number that a cursor stands for; an empty one: `first`.

    Raises InvalidArgument for one that this list has not given.
    """
    if not cursor:
        return first
    text = text_after(of, cursor)
    if not (text.isascii() and text.isdigit()) or int(text[:20]) > _MAX_NUMBER or len(text) > 20:
        raise _bad(of)
    return int(text)


def text_after(of: str, cursor: str) -> str:
    """Return the text that a cursor stands for; an empty one: nothing.

    Raises InvalidArgument for one that this list has not given.
    """
    if not cursor:
        return ""
    try:
        padded = cursor.encode("ascii") + b"=" * (-len(cursor) % 4)
        name, colon, place = base64.b64decode(padded, b"-_", validate=True).decode().partition(":")
    except (ValueError, binascii.Error):
        raise _bad(of) from None
    if name != of or not colon:
        raise _bad(of)
    return place


def _bad(of: str) -> InvalidArgument:
    return InvalidArgument(
        f"the cursor is none of this list of {of}: give the `next` of a page before, as it is"
    )
