"""Boards of marks: which mappers of a group's exchange have put all their rows of a range here.

One attempt a mapper counts, that of the first mark that came, and the sums of these marks are
kept by partition: that is all readers need, so marks themselves are not kept. Those who wait
for the last mark are told once, also when it will not come.

Pure bookkeeping; no IO.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt
from pyroaring import BitMap

from cosco.protocol.mark import MARK_FIELDS, Mark
from cosco.protocol.records import U64

#: What a board costs beside its arrays, and with its place in the assignment.
_BOARD_BYTES: Final = 768
#: What one who waits costs: the question, its places in dicts.
_FOLLOWER_BYTES: Final = 640
_ATTEMPT_BYTES: Final = 8


class MarkBoards:
    """What all boards of a daemon, and all who wait at them, may cost together."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self.used_bytes = 0
        self.followers = 0

    def open(self, mappers: int, partitions: int) -> MarkBoard | None:
        """Make a board for a range of an exchange; None if there is no room for it."""
        if not self._reserve(_cost_bytes(mappers, partitions)):
            return None
        return MarkBoard(mappers, partitions)

    def close(self, board: MarkBoard) -> None:
        """End a board whose assignment is dropped."""
        board.end()
        self.used_bytes -= _cost_bytes(board.mappers, board.partitions)

    def add_follower(self) -> bool:
        """Count one more who waits. Returns False if there is no room for it."""
        if not self._reserve(_FOLLOWER_BYTES):
            return False
        self.followers += 1
        return True

    def remove_follower(self) -> None:
        """Count one less who waits."""
        self.used_bytes -= _FOLLOWER_BYTES
        self.followers -= 1

    def _reserve(self, length: int) -> bool:
        if self.used_bytes + length > self._bytes_max:
            return False
        self.used_bytes += length
        return True


def _cost_bytes(mappers: int, partitions: int) -> int:
    return _BOARD_BYTES + (_ATTEMPT_BYTES + 1) * mappers + MARK_FIELDS * 8 * partitions


class MarkBoard:
    """The marks of one assignment."""

    __slots__ = ("_attempts", "_done", "_followers", "_sums", "ended", "mappers", "partitions")

    def __init__(self, mappers: int, partitions: int) -> None:
        """mappers, partitions: of the exchange, and of the range."""
        self.mappers = mappers
        self.partitions = partitions
        #: Whether no mark counts any more, and nobody waits.
        self.ended = False
        # Made at the first mark: a board may be admitted long before its exchange begins.
        self._done: BitMap | None = None
        self._attempts: U64 | None = None
        self._sums: npt.NDArray[np.uint64] | None = None
        self._followers: dict[Callable[[], None], None] | None = None

    @property
    def is_complete(self) -> bool:
        """Whether all mappers are done."""
        return self._done is not None and len(self._done) == self.mappers

    def add(self, mark: Mark) -> bool:
        """Count a mark of this range and of a mapper there is.

        The last one tells all who wait. Returns False if one of its mapper came before.
        """
        if self._done is None or self._attempts is None or self._sums is None:
            self._done = BitMap()
            self._attempts = np.zeros(self.mappers, dtype=np.uint64)
            self._sums = np.zeros((MARK_FIELDS, self.partitions), dtype=np.uint64)
        if self.ended or mark.mapper in self._done:
            return False
        self._done.add(mark.mapper)
        self._attempts[mark.mapper] = mark.attempt
        self._sums += mark.sums  # modulo 2^64
        if self.is_complete:
            self._tell()
        return True

    def end(self) -> None:
        """Count no mark any more: the assignment is sealed or dropped."""
        self.ended = True
        self._tell()

    def _tell(self) -> None:
        followers, self._followers = self._followers, None
        for tell in followers or ():
            tell()

    # --- looking --------------------------------------------------------------------------

    def done(self) -> BitMap:
        """Return the mappers that are done."""
        return BitMap() if self._done is None else self._done.copy()

    def attempts(self) -> U64:
        """Return the attempt that counts of each mapper, once the board is complete."""
        assert self._attempts is not None
        return self._attempts

    def sums(self, index: int) -> tuple[int, int, int]:
        """Return rows, raw bytes and digest by the marks, of partition `index` of the range."""
        assert self._sums is not None
        rows, raw_bytes, digest = self._sums[:, index].tolist()
        return rows, raw_bytes, digest

    # --- waiting --------------------------------------------------------------------------

    def follow(self, tell: Callable[[], None]) -> None:
        """Have `tell` called once, when the board is complete or has ended, which it is not."""
        if self._followers is None:
            self._followers = {}
        self._followers[tell] = None

    def leave(self, tell: Callable[[], None]) -> None:
        """Do not call `tell` any more."""
        if self._followers is not None:
            self._followers.pop(tell, None)
            if not self._followers:
                self._followers = None
