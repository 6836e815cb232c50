"""Which stores a process reads from itself: not those where that has failed a moment ago."""

from __future__ import annotations

from typing import Final

#: For this time after a failure daemons of the store are asked for bytes.
PAUSE_S: Final = 60.0
#: Stores that are remembered. There is one to each cluster, or one to each of its hosts.
_MAX_STORES: Final = 4096


class DirectStores:
    """Remembers where reading directly has failed. Single operations, which need no lock.

    A failure says nothing about rows: what cannot be read here a daemon is asked for.
    """

    def __init__(self) -> None:
        self._paused_until: dict[str, float] = {}

    def allows(self, store_id: str, now: float) -> bool:
        """Whether a store is to be read from; never one that nobody has named."""
        return bool(store_id) and now >= self._paused_until.get(store_id, now)

    def failed(self, store_id: str, now: float) -> bool:
        """Leave a store alone for a while.

        Returns: whether that is news, which somebody should be told.
        """
        is_news = self.allows(store_id, now)
        self._paused_until.pop(store_id, None)
        self._paused_until[store_id] = now + PAUSE_S
        for oldest in list(self._paused_until)[:-_MAX_STORES]:
            self._paused_until.pop(oldest, None)
        return is_news
