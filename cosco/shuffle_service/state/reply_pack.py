"""Puts small replies to a fetch together, as messages cost by their number."""

from __future__ import annotations

from typing import Final

from cosco.protocol.wire import fetch_packed

#: Replies of one message at most: making them takes no longer than a few milliseconds.
MAX_REPLIES: Final = 256
#: A message that waits for more, while the store is read, is sent after this time.
HOLD_S: Final = 0.01


class ReplyPack:
    """Replies that wait for others to be sent with them.

    Before one is made there must be room for it; what waits is sent first if there is none.
    """

    def __init__(self, *, packs: bool) -> None:
        """Begin with nothing; without `packs` every reply is a message of its own."""
        self._packs = packs
        self._replies: list[bytes] = []
        self._bytes = 0
        self._since = 0.0

    def has_room(self, length: int, limit: int) -> bool:
        """Whether `length` bytes can be added to a message of up to `limit` bytes.

        There always is where nothing waits.
        """
        if not self._replies:
            return True
        return self._packs and self._bytes + length <= limit and len(self._replies) < MAX_REPLIES

    def is_due(self, now: float) -> bool:
        """Whether something has waited for HOLD_S, or is not to wait at all."""
        return bool(self._replies) and not (self._packs and now < self._since + HOLD_S)

    def add(self, reply: bytes, now: float) -> None:
        """Have a reply wait."""
        if not self._replies:
            self._since = now
        self._replies.append(reply)
        self._bytes += len(reply)

    def pop(self) -> list[bytes]:
        """Return the messages of all that waits, in order."""
        replies, self._replies, self._bytes = self._replies, [], 0
        return [fetch_packed(replies)] if replies and self._packs else replies
