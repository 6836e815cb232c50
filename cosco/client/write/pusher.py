"""Frames of a writer on their way to daemons: a window over all of them, and a link to each."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

from cosco.client.rpc.metadata_client import MetadataClient
from cosco.client.rpc.scope import Scope
from cosco.client.write.daemon_link import RENEW_OUTAGE_S, Link
from cosco.client.write.state.routes import Lane, Routes
from cosco.errors import (
    CoscoError,
    ServiceUnavailable,
)
from cosco.protocol import wire
from cosco.protocol.records import Assignment, OpenedAttempt

if TYPE_CHECKING:
    from cosco.client.write.state.framing import PackedFrame

#: Unacknowledged frames of one writer, over all its daemons; one frame always passes.
WINDOW_BYTES: Final = 16 << 20
#: And their number: small frames cost a daemon more than their bytes.
WINDOW_FRAMES: Final = 1024
#: A writer that waits, and sees nothing move for so long, makes sure that somebody is there: a
#: daemon may itself wait for a metadata service that is away.
_QUIET_S: Final = 5.0
_LOG = logging.getLogger("cosco")


class Pusher:
    """All daemons of one writer. Methods that wait raise what the streams failed with."""

    def __init__(
        self,
        opened: OpenedAttempt,
        metadata: MetadataClient,
        scope: Scope,
        service_timeout_s: float,
        on_failure: Callable[[CoscoError], None],
    ) -> None:
        """`on_failure` is called once, by a stream's thread, when no more can be pushed."""
        self.opened: Final = opened
        self.metadata: Final = metadata
        self.scope: Final = scope
        self.service_timeout_s: Final = service_timeout_s
        self._on_failure = on_failure
        #: Guards `routes` with its windows, and all below; signalled when any of it moves.
        self.changed: Final = threading.Condition()
        self.routes: Final = Routes(opened.info.number, opened.info.assignments, wire.push_frame)
        self._links: dict[Lane, Link] = {}
        self._retired: dict[Link, None] = {}  # of lanes that were released, about to end
        self._failure: CoscoError | None = None

    def push(self, packed: PackedFrame) -> None:
        """Take a frame once there is room for it in the window."""
        self.scope.check()
        if packed.has_mark:  # it counts with its own frame: by then all before must be safe
            self._wait_until(lambda: self.routes.is_settled(packed.range_index))
        self._wait_until(lambda: self._has_room(packed.body_bytes))
        with self.changed:  # there is more room at most by now, as nobody else adds frames
            self._serve(self.routes.put(packed))

    def flush(self) -> tuple[tuple[int, int], ...]:
        """Wait until every frame is acknowledged: the (range, epoch) pairs that did so."""
        self._wait_until(lambda: not self.routes.frames)
        with self.changed:
            return self.routes.acknowledged()

    def close(self) -> None:
        """Give streams back on which nothing is under way; end the others, and their threads."""
        with self.changed:
            links = [*self._links.values(), *self._retired]
            for link in links:
                link.finish()
            self.changed.notify_all()
        if self.scope.is_closed or not all(link.join() for link in links):
            self.scope.close()
        for link in links:
            if not link.join():
                _LOG.warning("the push stream to %s did not end", link.address)

    # --- for the links --------------------------------------------------------------------

    def renewed(self, assignments: Iterable[Assignment]) -> bool:
        """Move frames to newer assignments; False if none of these is newer."""
        with self.changed:
            if not self.routes.renew(assignments):
                return False
            for lane in self.routes.lanes():
                if len(lane.window):
                    self._serve(lane)
            for lane in self.routes.release():
                if (link := self._links.pop(lane, None)) is not None and not link.finish():
                    self._retired[link] = None
            self.changed.notify_all()
            return True

    def failed(self, error: CoscoError) -> None:
        """A stream cannot go on, and so the writer cannot."""
        with self.changed:
            if self._failure is not None or self.scope.is_closed:
                return
            self._failure = error
        self._on_failure(error)
        with self.changed:  # those who wait for room, and links that wait for work
            self.changed.notify_all()

    def ended(self, link: Link) -> None:
        """The thread of a link ends."""
        with self.changed:
            self._retired.pop(link, None)

    # --- inside ---------------------------------------------------------------------------

    def _serve(self, lane: Lane) -> None:
        """Have the frames of a lane sent; called with `changed` held."""
        link = self._links.get(lane)
        if link is None:
            if self.scope.is_closed:
                return
            link = self._links[lane] = Link(self, lane)
            link.start()
        link.go_on()

    def _has_room(self, frame_bytes: int) -> bool:
        frames = self.routes.frames
        fits = self.routes.frame_bytes + frame_bytes <= WINDOW_BYTES and frames < WINDOW_FRAMES
        return fits or not frames

    def _wait_until(self, reached: Callable[[], bool]) -> None:
        info = self.opened.info
        away_since: float | None = None
        while (moved := self._wait(reached)) is not None:
            now = time.monotonic()
            away_since = now if moved or away_since is None else away_since
            try:  # which raises as well if the exchange is not there any more
                self.metadata.renew_assignments(
                    info.number, info.generation, (), None,
                    insist=False, wait_s=0.0, outage_s=RENEW_OUTAGE_S,
                )  # fmt: skip
            except ServiceUnavailable as error:
                if not error.retriable or now - away_since >= self.service_timeout_s:
                    raise
            else:
                away_since = None

    def _wait(self, reached: Callable[[], bool]) -> bool | None:
        """None once it is `reached`; when nothing moved for a while, whether it did before."""
        quiet_s = min(_QUIET_S, self.service_timeout_s + 0.5)
        moved = False
        with self.changed:
            while True:
                if self._failure is not None:
                    raise self._failure
                self.scope.check()
                if reached():
                    return None
                if not self.changed.wait(quiet_s):
                    return moved
                moved = True
