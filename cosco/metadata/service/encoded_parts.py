"""Parts of replies that many calls are given alike, encoded once."""

from __future__ import annotations

from collections.abc import Callable


class EncodedParts:
    """The encoded form of objects that never change, while it is asked for.

    They are told apart by identity: another object of equal content is encoded again.
    """

    def __init__(self, max_bytes: int) -> None:
        """Keep `max_bytes` at most, and always the latest."""
        self._max_bytes = max_bytes
        self._bytes = 0
        # By id, which stays the object's as it is kept; the latest asked for last.
        self._parts: dict[int, tuple[object, bytes]] = {}

    def get(self, whole: object, encode: Callable[[], bytes]) -> bytes:
        """Return what `encode` gives for `whole`, or gave before."""
        kept = self._parts.pop(id(whole), None)
        if kept is None:
            kept = whole, encode()
            self._bytes += len(kept[1])
        self._parts[id(whole)] = kept
        while self._bytes > self._max_bytes and len(self._parts) > 1:
            _, part = self._parts.pop(next(iter(self._parts)))
            self._bytes -= len(part)
        return kept[1]
