"""How many streams of a kind each tenant has open. No IO.

A writer has a stream to each of its daemons, and keeps it while it has nothing to send. Were it
left to, writers who lack one stream each would wait for each other for ever, at several daemons. So
a stream that rests makes room for who comes; its sender opens another one when it has more.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from cosco.errors import ServiceUnavailable

#: Streams that are asked to make room for one that comes, at most; the next ones after that.
_ASKED: Final = 32


class TenantStream(Protocol):
    """One stream, as it is counted."""

    def make_room(self, now: float) -> bool:
        """End if nothing is under way, nor was a moment ago. Returns whether it ends, soon at
        least."""
        ...


class TenantStreams:
    """The streams of one kind by tenant; those of nobody, whose tag is 0, are not counted.

    streams_max: that one tenant may have; 0: any number. count_refused: called for each one more.
    """

    def __init__(
        self, streams_max: int = 0, count_refused: Callable[[], object] = lambda: None
    ) -> None:
        """Begin with none open."""
        self._streams_max = streams_max
        self._count_refused = count_refused
        self._open: dict[int, dict[TenantStream, None]] = {}

    def of(self, tenant: int) -> int:
        """Return how many a tenant has open."""
        return len(self._open.get(tenant, ()))

    def enter(self, tenant: int, stream: TenantStream, now: float) -> None:
        """Count one more stream of a tenant; raises ServiceUnavailable if he has all he may."""
        if not tenant:
            return
        if self.is_full(tenant):
            self._make_room(tenant, now)
        if self.is_full(tenant):
            self._count_refused()
            raise ServiceUnavailable(
                f"this tenant has {self._streams_max} streams open at this daemon "
                "(--tenant-streams); try again"
            )
        self._open.setdefault(tenant, {})[stream] = None

    def leave(self, tenant: int, stream: TenantStream) -> None:
        """Note that a stream has ended, or is another tenant's now. Repeatable."""
        streams = self._open.get(tenant)
        if streams is not None:
            streams.pop(stream, None)
            if not streams:
                del self._open[tenant]

    def is_full(self, tenant: int) -> bool:
        """Whether a tenant has as many as he may."""
        return 0 < self._streams_max <= self.of(tenant)

    def _make_room(self, tenant: int, now: float) -> None:
        """Ask some streams to end, the one first that was not asked for longest."""
        streams = self._open[tenant]
        for stream in list(streams)[:_ASKED]:
            del streams[stream]
            streams[stream] = None
            if stream.make_room(now):
                return
