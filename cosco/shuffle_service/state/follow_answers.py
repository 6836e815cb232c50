"""What a reader that follows marks is told: one look at the assignment, at that moment.

No IO. Rows are copied out of pages here, so nothing is awaited between the look and the copy.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from pyroaring import BitMap

from cosco.format.chunk import CHUNK_HEADER_BYTES
from cosco.protocol.group_records import Follow, Followed, FollowOutcome
from cosco.protocol.keys import AssignmentKey
from cosco.protocol.records import U64
from cosco.shuffle_service.state.buffers.assignments import AssignmentBuffers
from cosco.shuffle_service.state.buffers.mark_boards import MarkBoard
from cosco.shuffle_service.state.core import DaemonCore

#: Longer rows are fetched, however many a reader would take.
MAX_DATA_BYTES: Final = 1 << 20

_NONE: Final[U64] = np.empty(0, dtype=np.uint64)


def key_of(ask: Follow) -> AssignmentKey:
    """Return the assignment that is asked about."""
    return AssignmentKey(ask.number, ask.range_index, ask.epoch)


def is_unknown(core: DaemonCore, ask: Follow) -> bool:
    """Whether the metadata service is to be asked first."""
    is_here = ask.incarnation == core.incarnation and not core.is_dropped(ask.number)
    return is_here and core.find(key_of(ask)) is None


def board_to_wait_at(core: DaemonCore, ask: Follow) -> MarkBoard | None:
    """Return where the last mark that is asked for will come, None if there is an answer now."""
    if ask.now or isinstance(found := _look(core, ask), Followed):
        return None
    _, board = found
    return None if board.is_complete else board


def answer(core: DaemonCore, ask: Follow) -> Followed:
    """Return what is to be told now."""
    found = _look(core, ask)
    if isinstance(found, Followed):
        return found
    held, board = found
    if ask.now or not board.is_complete:
        outcome = FollowOutcome.READY if board.is_complete else FollowOutcome.WAITING
        return Followed(ask.id, outcome, _NONE, done=_marked(core, held, board, ask))
    rows, raw_bytes, digest = board.sums(ask.partition - held.partition_range.first)
    data = _rows(core, ask)
    return Followed(
        ask.id,
        FollowOutcome.READY,
        board.attempts(),
        rows=rows,
        raw_bytes=raw_bytes,
        digest=digest,
        fetch=data is None,
        data=data or b"",
    )


def refused(ask: Follow, outcome: FollowOutcome, reason: str = "") -> Followed:
    """Return an answer that says no more than why there is none."""
    return Followed(ask.id, outcome, _NONE, reason=reason)


def _look(core: DaemonCore, ask: Follow) -> tuple[AssignmentBuffers, MarkBoard] | Followed:
    """Return the board to answer from, or why there is none."""
    if core.is_dropped(ask.number):
        return refused(ask, FollowOutcome.CLOSED, f"exchange {ask.number} is closed")
    held = core.find(key_of(ask))
    if ask.incarnation != core.incarnation:
        reason = "this daemon was started again since"
    elif held is None:
        reason = "the assignment is not this daemon's"
    elif not 0 <= ask.partition - held.partition_range.first < held.partition_range.count:
        reason = f"partition {ask.partition} is not of range {ask.range_index}"
    elif held.copied_from and not ask.now:
        reason = "another daemon is the primary"
    elif held.board is None:
        reason = "no marks are kept of the assignment here"
    elif held.sealed and not (ask.now or held.board.is_complete):
        reason = f"the range is sealed in epoch {ask.epoch}"
    else:
        return held, held.board
    return refused(ask, FollowOutcome.ELSEWHERE, reason)


def _marked(core: DaemonCore, held: AssignmentBuffers, board: MarkBoard, ask: Follow) -> BitMap:
    """Return the mappers with a mark here, in this epoch of the range or in one before it."""
    done = board.done()
    for epoch in range(1, held.key.epoch):
        earlier = core.assignment(held.key._replace(epoch=epoch))
        if earlier is None or earlier.board is None:
            continue
        if not ask.same_build or earlier.build == held.build:
            done |= earlier.board.done()
    return done


def _rows(core: DaemonCore, ask: Follow) -> bytes | None:
    """Return all blocks of the partition, None if they are too long or not all in memory."""
    snapshot = core.snapshot(key_of(ask), ask.partition)
    if snapshot is None:
        return b""
    pieces = snapshot.pieces
    if snapshot.segments:
        return None
    if sum(piece.body_bytes for piece in pieces) > min(ask.max_bytes, MAX_DATA_BYTES):
        return None
    return b"".join(
        part
        for piece in pieces
        for part in piece.chunk.memory(
            core.arena, CHUNK_HEADER_BYTES, CHUNK_HEADER_BYTES + piece.body_bytes
        )
    )
