"""How much of long messages may come at a time, over all calls of a server."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable


class LargeMessages:
    """A budget of bytes; whoever does not fit waits in turn.

    One message always fits, however long.
    """

    def __init__(self, budget_bytes: int) -> None:
        self._budget_bytes = budget_bytes
        self._used_bytes = 0
        self._coming: dict[object, int] = {}
        self._waiting: OrderedDict[object, tuple[int, Callable[[], None]]] = OrderedDict()

    def enter(self, call: object, length: int, allow: Callable[[], None]) -> None:
        """Have `allow` called once there is room for a message of `length` bytes of a call."""
        self._waiting[call] = length, allow
        self._serve()

    def leave(self, call: object) -> None:
        """Note that the message of a call has come, or never will; repeatable."""
        if call in self._waiting:
            del self._waiting[call]
        else:
            self._used_bytes -= self._coming.pop(call, 0)
        self._serve()

    def _serve(self) -> None:
        while self._waiting:
            call, (length, allow) = next(iter(self._waiting.items()))
            if self._used_bytes and self._used_bytes + length > self._budget_bytes:
                return
            del self._waiting[call]
            self._coming[call] = length
            self._used_bytes += length
            allow()
