"""Segments that are stored, and not durable yet, so that their copies may not go. No IO.

There are some in a store of two tiers only (`cosco.dfs.protocol.DurableLater`): its fast tier is
this daemon's own. Segments may become durable in any order. The chunks of a partition count as
durable in theirs, as whoever waits for one of them waits for those before it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from cosco.protocol.keys import AssignmentKey
from cosco.shuffle_service.state.buffers.assignments import AssignmentBuffers
from cosco.shuffle_service.state.buffers.partition_buffer import Chunk
from cosco.shuffle_service.state.replication.replica import ReplicationLog
from cosco.shuffle_service.state.segments.segment_choice import Flush


class WaitingSegments:
    """Tells the account of forwarded frames what has become durable."""

    def __init__(self, replication: ReplicationLog) -> None:
        self._replication = replication
        #: By path: the assignment, and its chunks if there are copies of them.
        self._waiting: dict[str, tuple[AssignmentBuffers, Sequence[Chunk]]] = {}
        self._of: dict[AssignmentKey, set[str]] = {}
        #: Called with a path, or a folder, that is to become durable soon.
        self.hurry: Callable[[str], None] = lambda _: None

    def __len__(self) -> int:
        """Return how many segments are stored and not durable."""
        return len(self._waiting)

    def stored(self, held: AssignmentBuffers, flush: Flush, *, is_durable: bool) -> None:
        """Take note of a segment that is stored."""
        has_copies = held.replica is not None
        if not is_durable:
            self._waiting[flush.path] = held, flush.chunks if has_copies else ()
            self._of.setdefault(held.key, set()).add(flush.path)
            if has_copies:
                self._replication.on_their_way += 1
            if has_copies or held.sealed:
                self.hurry(flush.path)
        for chunk in flush.chunks:
            chunk.is_durable = is_durable
            if has_copies and (chunk.buffer.waiting or not is_durable):
                chunk.buffer.waiting.append(chunk)
            elif is_durable:
                self._replication.stored(chunk)

    def durable(self, path: str) -> None:
        """Let the copies go of a segment that has become durable after it was stored."""
        chunks = self._forget(path)
        for chunk in chunks:
            chunk.is_durable = True
            self._go_on(chunk)

    def lost(self, path: str) -> None:
        """Take note of a segment that never will be durable: it holds up no others.

        Copies of its own rows stay until the exchange is dropped, as they are all there is.
        """
        for chunk in self._forget(path):
            chunk.buffer.waiting.remove(chunk)
            self._go_on(chunk)

    def _go_on(self, chunk: Chunk) -> None:
        """Let copies go of what is durable, up to what is not, of the partition of a chunk."""
        waiting = chunk.buffer.waiting
        while waiting and waiting[0].is_durable:
            self._replication.stored(waiting.popleft())

    def drop(self, dropped: Sequence[AssignmentBuffers]) -> list[Chunk]:
        """Forget assignments. Returns the chunks that somebody may have waited for."""
        for held in dropped:
            for path in list(self._of.get(held.key, ())):
                self._forget(path)
        buffers = (buffer for held in dropped for buffer in held.buffers.values())
        return [chunk for buffer in buffers for chunk in buffer.waiting]

    def of(self, key: AssignmentKey) -> int:
        """Return how many segments of an assignment are stored and not durable."""
        return len(self._of.get(key, ()))

    def _forget(self, path: str) -> Sequence[Chunk]:
        """Wait for a segment no more. Returns its chunks, if there are copies of them."""
        found = self._waiting.pop(path, None)
        if found is None:
            return ()
        held, chunks = found
        self._of[held.key].discard(path)
        if not self._of[held.key]:
            del self._of[held.key]
        self._replication.on_their_way -= bool(chunks)
        return chunks
