"""Warnings of which there may be a flood: one of a kind in some seconds, the others are counted."""

from __future__ import annotations

import logging
from typing import Final

#: At most one warning of a kind is told in this time.
TELL_AGAIN_S: Final = 10.0


class RareWarnings:
    """Tells warnings of some kinds. Kinds are few: none is made of what others send."""

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        #: By kind: when one was told last, and how many there were since.
        self._told: dict[str, tuple[float, int]] = {}

    def untold(self, kind: str) -> int:
        """Return how many of a kind there were since one was told."""
        return self._told.get(kind, (0.0, 0))[1]

    def tell(self, kind: str, now: float, text: str, *values: object) -> None:
        """Log a text with its values, unless one of the kind was told a moment ago."""
        told_at, untold = self._told.get(kind, (now - TELL_AGAIN_S, 0))
        if now < told_at + TELL_AGAIN_S:
            self._told[kind] = told_at, untold + 1
            return
        more = f" (and {untold} times since this was told last)" if untold else ""
        self._told[kind] = now, 0
        self._log.warning(text + "%s", *values, more)
