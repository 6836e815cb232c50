"""What one stream of a daemon has said, in order, while parts of it are read from the store.

References are read in *pieces*, several at a time. What lies side by side in a file is one piece,
whichever partitions it is of; a chunk that is longer is several. Between the references stand the
replies that came with them, so the order stays what the daemon made it. All that is held is
bounded: a piece is cut only where there is room for it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from heapq import merge
from itertools import repeat
from typing import Final, NamedTuple

from cosco.client.read.state.direct_chunk import (
    ChunkPlace,
    DirectChunk,
    DirectFailed,
    DirectFile,
    direct_chunk,
)
from cosco.format.chunk import ALIGNMENT, CHUNK_HEADER_BYTES
from cosco.protocol import wire
from cosco.protocol.fetch_records import FetchRequest
from cosco.protocol.wire import spb

#: What is read at once.
PIECE_BYTES: Final = 4 << 20
#: Replies that wait at most, however short they are.
_MAX_REPLIES: Final = 4096


@dataclass(slots=True, eq=False)
class Piece:
    """Bytes of one file that are read at once. Both numbers are multiples of ALIGNMENT.

    data: once it was read. left: spans of it that were not given yet.
    """

    file: DirectFile
    offset: int
    length: int = 0
    data: memoryview | None = None
    failure: str = ""
    left: int = 0

    @property
    def is_done(self) -> bool:
        return self.data is not None or bool(self.failure)


class _Span(NamedTuple):
    """Where in a piece a part of a chunk is; `length` without padding."""

    piece: Piece
    start: int
    length: int


@dataclass(slots=True, eq=False)
class _Chunk:
    """A reference in the queue. cut_bytes: how much of it, padding included, has pieces."""

    chunk: DirectChunk
    cut_bytes: int = 0
    spans: deque[_Span] = field(default_factory=deque)
    is_begun: bool = False  # something of it was given

    @property
    def is_cut(self) -> bool:
        return self.cut_bytes == self.chunk.padded_bytes


_Plain = memoryview | spb.Section | spb.PartEnd


class DirectWindow:
    """The replies of one stream that were received and not given yet."""

    def __init__(self, request: FetchRequest) -> None:
        """Begin with nothing. request: what the stream answers."""
        self._request = request
        # The partition at its turn and its part, as in the reply.
        self._order = merge(
            *(zip(part.partitions, repeat(i)) for i, part in enumerate(request.parts))
        )
        self._turn = next(self._order, None)
        self._queue: deque[_Plain | _Chunk] = deque()
        self._uncut: deque[_Chunk] = deque()
        self._waiting: deque[Piece] = deque()
        self._waiting_of: dict[str, Piece] = {}  # by path, the last one that waits
        #: Pieces that somebody reads.
        self.under_way: set[Piece] = set()
        #: What pieces and replies hold, or will.
        self.held_bytes = 0
        #: What was read from the store.
        self.read_bytes = 0

    @property
    def is_empty(self) -> bool:
        return not self._queue

    @property
    def wants_more(self) -> bool:
        """Whether another reply is to be added, if there is room for what it holds.

        Whoever refers to one chunk refers to the next one at once, mostly: so that is waited for
        also where something is ready, and is read meanwhile.
        """
        if len(self._queue) >= _MAX_REPLIES or self._uncut:
            return False
        return not self.is_ready or isinstance(self._queue[-1], _Chunk)

    @property
    def is_ready(self) -> bool:
        """Whether `pop` has something to give, or to raise."""
        if not self._queue:
            return False
        first = self._queue[0]
        if not isinstance(first, _Chunk):
            return True
        return bool(first.spans) and first.spans[0].piece.is_done

    # --- coming in ------------------------------------------------------------------------

    def add(self, reply: wire.FetchReply) -> None:
        """Take the next reply of the stream; raises DirectFailed for a reference that cannot be."""
        if isinstance(reply, memoryview):
            self.held_bytes += len(reply)
        elif isinstance(reply, spb.PartEnd):
            if self._request.several:
                self._turn = next(self._order, None)
        elif (reference := wire.reference_of(reply)) is not None and not reply.error:
            chunk = _Chunk(direct_chunk(reference, reply.offset, reply.body_bytes, self._place()))
            self._queue.append(chunk)
            self._uncut.append(chunk)
            return
        self._queue.append(reply)

    def _place(self) -> ChunkPlace:
        if self._turn is None:
            raise DirectFailed("a reference came behind the last part that was asked for")
        partition, index = self._turn
        part = self._request.parts[index]
        return ChunkPlace(self._request.number, part.range_index, part.epoch, partition)

    # --- reading --------------------------------------------------------------------------

    def next_piece(self, room: int) -> Piece | None:
        """Return what is to be read next, which may take `room` bytes beside what is held.

        What the first reply waits for may always be read.
        """
        self._cut(room)
        if not self._waiting:
            return None
        piece = self._waiting.popleft()
        path = piece.file.reference.path
        if self._waiting_of.get(path) is piece:
            del self._waiting_of[path]
        self.under_way.add(piece)
        return piece

    def _cut(self, room: int) -> None:
        while self._uncut:
            item = self._uncut[0]
            chunk = item.chunk
            length = min(chunk.padded_bytes - item.cut_bytes, PIECE_BYTES)
            is_awaited = item is self._queue[0] and not item.spans
            if length > room and not is_awaited:
                return
            room -= length
            self.held_bytes += length
            piece = self._piece_at(chunk.file, chunk.offset + item.cut_bytes, length)
            start = piece.length
            piece.length += length
            piece.left += 1
            item.cut_bytes += length
            padding = chunk.padded_bytes - chunk.length if item.is_cut else 0
            item.spans.append(_Span(piece, start, length - padding))
            if item.is_cut:
                self._uncut.popleft()

    def _piece_at(self, file: DirectFile, offset: int, length: int) -> Piece:
        """Return the piece that waits and ends there, if it can be longer, or another one."""
        path = file.reference.path
        piece = self._waiting_of.get(path)
        if (
            piece is None
            or piece.file != file
            or piece.offset + piece.length != offset
            or piece.length + length > PIECE_BYTES
        ):
            piece = self._waiting_of[path] = Piece(file, offset)
            self._waiting.append(piece)
        return piece

    def was_read(self, piece: Piece, data: memoryview | None, failure: str) -> None:
        """Note what became of a piece: its bytes, or why they could not be read."""
        self.under_way.discard(piece)
        if data is not None and len(data) != piece.length:
            data, failure = None, f"{piece.file.reference.path} was cut short"
        self.read_bytes += 0 if data is None else piece.length
        piece.data, piece.failure = data, failure or ("" if data is not None else "nothing came")

    # --- giving ---------------------------------------------------------------------------

    def pop(self) -> Iterator[wire.FetchReply]:
        """Yield what is next, as if the daemon had sent its bytes; `is_ready` was asked.

        Raises: DirectFailed if it could not be read, or is not what was named.
        """
        first = self._queue[0]
        if not isinstance(first, _Chunk):
            self._queue.popleft()
            if isinstance(first, memoryview):
                self.held_bytes -= len(first)
            yield first
            return
        piece, start, length = first.spans.popleft()
        if piece.data is None:
            raise DirectFailed(piece.failure)
        data = piece.data[start : start + length]
        piece.left -= 1
        # No other span can come: what waits no more is not made longer.
        if not piece.left:
            self.held_bytes -= piece.length
            piece.data = None
        if not first.is_begun:
            first.is_begun = True
            first.chunk.check_header(data)
            data = data[CHUNK_HEADER_BYTES:]
            chunk = first.chunk
            yield spb.Section(body_bytes=chunk.body_bytes, offset=chunk.offset, stored=True)
        if first.is_cut and not first.spans:
            self._queue.popleft()
        yield data


assert PIECE_BYTES % ALIGNMENT == 0
