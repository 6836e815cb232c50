"""URLs by which readers get at single files of the store, each for a while."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final

from cosco.dfs import GivesAccess, Store

log = logging.getLogger(__name__)

#: How long a URL can be used after it was made.
ACCESS_S: Final = 900.0
#: One is given again for this share of that: a reader has the rest of it to come to its turn.
_GIVEN_AGAIN: Final = 1 / 3
#: URLs that are remembered, of up to some kilobytes each.
_KEPT: Final = 1024
#: Longer ones, which no provider makes, are not given.
_MAX_CHARACTERS: Final = 8192
#: After a failure none is asked for during this time.
_PAUSE_S: Final = 30.0


class StoreAccess:
    """Gives URLs of files, if the store does.

    now: a clock, in seconds.
    """

    def __init__(
        self,
        store: Store,
        *,
        expires_s: float = ACCESS_S,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store if isinstance(store, GivesAccess) else None
        self._expires_s = expires_s
        self._now = now
        self._kept: dict[str, tuple[float, str]] = {}  # path → when it was made, the URL
        self._paused_until = 0.0

    async def url(self, path: str) -> str | None:
        """Return a URL of one file; None if there is none, so that its bytes are to be sent."""
        now = self._now()
        if self._store is None or now < self._paused_until:
            return None
        kept = self._kept.get(path)
        if kept is not None and now - kept[0] < self._expires_s * _GIVEN_AGAIN:
            return kept[1]
        try:
            url = await self._store.access(path, self._expires_s)
        except Exception as error:  # noqa: BLE001  bytes can be sent whatever it is
            log.warning("readers are sent bytes, as the store gives no access: %s", error)
            self._paused_until = self._now() + _PAUSE_S
            return None
        if url is None or len(url) > _MAX_CHARACTERS:
            self._paused_until = self._now() + _PAUSE_S
            return None
        self._kept.pop(path, None)
        self._kept[path] = now, url
        while len(self._kept) > _KEPT:
            del self._kept[next(iter(self._kept))]
        return url
