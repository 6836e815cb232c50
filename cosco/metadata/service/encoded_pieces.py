"""What many callers are told alike, encoded once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

#: Bound of what the service keeps for further replies.
MAX_ENCODED_BYTES: Final = 32 << 20


class EncodedPieces:
    """The encoded form of objects that never change: those asked for last, up to `max_bytes`.

    They are told apart by identity: another object of equal content is encoded again.
    """

    def __init__(self, max_bytes: int) -> None:
        """Keep `max_bytes` at most, and always the latest."""
        self._max_bytes = max_bytes
        self._bytes = 0
        # By id(), which no other object gets while this one is kept; the last asked for is last.
        self._pieces: dict[int, tuple[object, bytes]] = {}

    def get(self, whole: object, encode: Callable[[], bytes]) -> bytes:
        """Return what `encode` gives for `whole`, or gave before."""
        kept = self._pieces.pop(id(whole), None)
        if kept is None:
            kept = whole, encode()
            self._bytes += len(kept[1])
        self._pieces[id(whole)] = kept
        while self._bytes > self._max_bytes and len(self._pieces) > 1:
            _, piece = self._pieces.pop(next(iter(self._pieces)))
            self._bytes -= len(piece)
        return kept[1]
