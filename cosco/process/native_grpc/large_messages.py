"""How much of long messages may come at a time, over all calls of a server."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

#: A message that was allowed comes within this time, or is refused if others wait.
PATIENCE_S: Final = 10.0


@dataclass(slots=True)
class _Message:
    """A long message. allow: lets it come. refuse: called with why it may not any more."""

    length: int
    since: float
    allow: Callable[[], None]
    refuse: Callable[[str], None]


class LargeMessages:
    """A budget of bytes; whoever does not fit waits in turn. Used from one event loop.

    One message always fits, however long.
    """

    def __init__(self, budget_bytes: int) -> None:
        self._budget_bytes = budget_bytes
        self._used_bytes = 0
        self._now = 0.0  # when something was heard last
        self._coming: dict[object, _Message] = {}
        self._waiting: OrderedDict[object, _Message] = OrderedDict()

    def enter(
        self,
        call: object,
        length: int,
        now: float,
        *,
        allow: Callable[[], None],
        refuse: Callable[[str], None],
    ) -> None:
        """Have `allow` called once there is room for a message of `length` bytes of a call."""
        self._now = now
        self._waiting[call] = _Message(length, now, allow, refuse)
        self._serve()

    def leave(self, call: object) -> bool:
        """Note that the message of a call has come, or never will; repeatable.

        Returns: whether it had been allowed.
        """
        came = self._coming.pop(call, None)
        if came is not None:
            self._used_bytes -= came.length
        else:
            self._waiting.pop(call, None)
        self._serve()
        return came is not None

    def tick(self, now: float) -> None:
        """Refuse what does not come while others wait; to be called every few seconds."""
        self._now = now
        if self._waiting:
            for call, message in list(self._coming.items()):
                if now - message.since > PATIENCE_S:
                    self.leave(call)
                    message.refuse(f"a long message has not come in {PATIENCE_S:g} s")

    def _serve(self) -> None:
        while self._waiting:
            call, message = next(iter(self._waiting.items()))
            if self._used_bytes and self._used_bytes + message.length > self._budget_bytes:
                return
            del self._waiting[call]
            message.since = self._now
            self._coming[call] = message
            self._used_bytes += message.length
            message.allow()
