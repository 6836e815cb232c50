"""What lies on flash, what moves on next, and what goes from it. No IO.

docs/architecture/tiers.md says why. Times are seconds on one clock that never goes back.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from heapq import heappop, heappush
from itertools import islice
from typing import Final, Literal

from cosco.dfs.directories.state.directory_table import Reserve
from cosco.dfs.protocol import MoveTrouble

#: Why a segment moves: somebody waits, it is old, flash is full, an earlier start left it, or all
#: of them move.
Reason = Literal["waited", "age", "room", "left", "all"]

#: Segments move on when flash has more than this share of what it may have, down to the second one.
HIGH_SHARE: Final = 0.8
LOW_SHARE: Final = 0.6
#: How long what has moved stays on flash at least, for reads that are under way.
GRACE_S: Final = 10.0
#: Moves under way at a time, and their bytes; one that is longer moves alone.
MOVES_MAX: Final = 2
MOVES_BYTES_MAX: Final = 128 << 20
#: Files of which it is known that they are on flash, at about 400 bytes each.
FILES_MAX: Final = 1 << 17
RETRY_MIN_S: Final = 0.2
RETRY_MAX_S: Final = 30.0


class _State(Enum):
    WAITS = 1
    MOVES = 2
    MOVED = 3
    DAMAGED = 4


@dataclass(slots=True, eq=False)
class _File:
    """One file on flash.

    is_urgent: somebody waits for its move. is_dropped: it is to be deleted, and moves no more.
    """

    path: str
    length: int
    put_at: float
    state: _State = _State.WAITS
    is_urgent: bool = False
    is_dropped: bool = False
    was_left: bool = False
    failures: int = 0
    retry_at: float = -math.inf
    goes_at: float = math.inf


@dataclass(frozen=True, slots=True, kw_only=True)
class TierOptions:
    """How segments move.

    age_s: what is older moves on. flash_bytes: what flash may have at most. flash_is_durable:
    whether what is on flash alone counts as durable. timeout_s: a call that is under way for longer
    hangs. reserve: what stays free on the disk of flash.
    """

    age_s: float = 300.0
    flash_bytes: float = math.inf
    flash_is_durable: bool = False
    timeout_s: float = math.inf
    reserve: Reserve | None = None


@dataclass(slots=True, eq=False)
class Move:
    """One move that is under way."""

    path: str
    length: int
    reason: Reason


@dataclass(frozen=True, slots=True)
class TierFigures:
    """What operators see. `pending_bytes`: on flash alone, and to move some day.

    damaged: files of flash that were found to be damaged, and stay there.
    """

    flash_bytes: int
    pending_bytes: int
    files: int
    damaged: int


class TierTable:
    """The files of one flash."""

    def __init__(self, options: TierOptions) -> None:
        self._age_s = options.age_s
        self._flash_bytes = options.flash_bytes
        self._room_bytes = math.inf  # by the file system, beyond what is there
        self._folders: dict[str, dict[str, _File]] = {}
        self._depth = 1  # the most folders that one is in, itself included
        #: What waits or moves, oldest first, and those of it that somebody waits for.
        self._waiting: OrderedDict[str, _File] = OrderedDict()
        self._urgent: OrderedDict[str, _File] = OrderedDict()
        self._moved: dict[str, _File] = {}
        self._going: list[tuple[float, int, _File]] = []  # a heap of those, and of what has gone
        self._next_going = 0
        self._unread: dict[str, _File] = {}  # of what waits, what flash has not given
        self._moving: dict[Move, _File] = {}
        self._moved_bytes = 0
        self._files = 0
        self._used_bytes = 0
        self._pending_bytes = 0
        self._damaged = 0
        self._makes_room = False
        #: Whether all that there is moves on, and what is put from now on.
        self.moves_all = False
        #: Since when no move has succeeded though one was tried, and why; None while they do.
        self._failing_since: float | None = None
        self._failure = ""
        self._failures = 0
        self._retry_at = -math.inf
        self._hanging: set[Move] = set()

    # --- what is seen ----------------------------------------------------------------------

    @property
    def figures(self) -> TierFigures:
        return TierFigures(self._used_bytes, self._pending_bytes, self._files, self._damaged)

    def has(self, path: str) -> bool:
        """Whether a file is on flash."""
        return self._find(path) is not None

    def has_moved(self, path: str) -> bool:
        """Whether the slow tier has a file that is on flash as well."""
        file = self._find(path)
        return file is not None and file.state is _State.MOVED

    def under(self, prefix: str) -> Iterator[tuple[str, int]]:
        """Yield (path, length) of the files on flash whose path begins with `prefix`."""
        for file in self._under(prefix):
            yield file.path, file.length

    def folders(self, prefix: str) -> set[str]:
        """Return the names of the folders of flash right below `prefix`."""
        below = (folder[len(prefix) :] for folder in self._folders if folder.startswith(prefix))
        return {rest.partition("/")[0] for rest in below if rest}

    @property
    def trouble(self) -> MoveTrouble | None:
        """Since when nothing moves on that somebody waits for, and why; None if all is well."""
        if self._failing_since is None or not (self._urgent or self.moves_all):
            return None
        return MoveTrouble(self._failing_since, self._failure, bool(self._hanging))

    @property
    def failure(self) -> str | None:
        """Why the slow tier has not taken what was tried last; None while it takes all."""
        return self._failure if self._failing_since is not None else None

    # --- puts ------------------------------------------------------------------------------

    def takes(self, length: int) -> bool:
        """Whether flash has room for this many bytes more, by what it may have."""
        return self._files < FILES_MAX and self._used_bytes + length <= self._capacity

    def measured(self, free_bytes: int) -> None:
        """Note how many bytes the file system has, above its reserve, beside what is there."""
        self._room_bytes = self._used_bytes + max(0, free_bytes)

    def put(self, path: str, length: int, now: float) -> None:
        """Note that a file is on flash, whole; another put of the same has the same bytes."""
        self._add(_File(path, length, now, is_urgent=self.moves_all))

    def found(self, path: str, length: int, now: float) -> None:
        """Note what an earlier start left on flash: nobody knows who waits for it, so it moves."""
        self._add(_File(path, length, now, is_urgent=True, was_left=True))

    # --- moves -----------------------------------------------------------------------------

    def hurry(self, prefix: str) -> None:
        """Note that somebody waits for what is below a folder, or for one file, to move."""
        for file in self._under(prefix):
            if file.state in (_State.WAITS, _State.MOVES) and not file.is_dropped:
                file.is_urgent = True
                self._urgent[file.path] = file

    def next_move(self, now: float) -> Move | None:
        """Begin the next move; None if there is nothing to move now."""
        if len(self._moving) >= MOVES_MAX or now < self._retry_at:
            return None
        if self._failing_since is not None and self._moving:
            return None  # one after the other until it works again
        under_way = sum(move.length for move in self._moving)
        for file, reason in self._candidates(now):
            if self._moving and under_way + file.length > MOVES_BYTES_MAX:
                return None
            move = Move(file.path, file.length, reason)
            file.state = _State.MOVES
            self._moving[move] = file
            return move
        return None

    def is_wanted(self, move: Move) -> bool:
        """Whether a move is to go on: its file was not dropped meanwhile."""
        return not self._moving[move].is_dropped

    def hangs(self, move: Move, what: str, now: float) -> None:
        """Note that the slow tier takes a move for too long; it may land yet."""
        self._hanging.add(move)
        self._fails(what, now)

    def moved(self, move: Move, now: float) -> bool:
        """Note that the slow tier has a file, durably. Returns whether anybody wants it still."""
        file = self._end(move)
        self._failures, self._retry_at = 0, -math.inf
        if not self._hanging:
            self._failing_since = None
        if not file.is_dropped:
            self._set_moved(file, now)
        return not file.is_dropped

    def move_failed(self, move: Move, why: str, now: float) -> None:
        """Note that the slow tier has not taken a file; nothing moves for a while."""
        self._end(move).state = _State.WAITS
        self._fails(why, now)
        self._retry_at = now + min(RETRY_MIN_S * 2.0 ** min(self._failures, 10), RETRY_MAX_S)
        self._failures += 1

    def read_failed(self, move: Move, now: float) -> None:
        """Note that flash has not given a file; that one is tried again later."""
        file = self._end(move)
        file.state = _State.WAITS
        file.retry_at = now + min(RETRY_MIN_S * 2.0 ** min(file.failures, 10), RETRY_MAX_S)
        file.failures += 1
        self._unread[file.path] = file

    def damaged(self, move: Move) -> bool:
        """Note that a file is not as it was written: it never moves.

        Returns: whether that is news, and nobody dropped it meanwhile.
        """
        file = self._end(move)
        if file.is_dropped:
            return False
        self._settle(file)
        file.state = _State.DAMAGED
        self._damaged += 1
        return True

    def given_up(self, move: Move) -> None:
        """Note that a move has ended whose file was dropped."""
        self._end(move).state = _State.WAITS

    def wait_s(self, now: float) -> float:
        """Return the seconds after which there may be a move, though nothing else happens."""
        if len(self._moving) >= MOVES_MAX:
            return math.inf
        if now < self._retry_at:
            return self._retry_at - now
        times = [file.retry_at for file in self._unread.values()]
        oldest = (f for f in self._waiting.values() if f.state is _State.WAITS and not f.is_dropped)
        times += [file.put_at + self._age_s for file in islice(oldest, 1)]
        return min((at - now for at in times if at > now), default=math.inf)

    # --- what goes from flash ----------------------------------------------------------------

    def next_removal(self, now: float) -> str | None:
        """Return the path of a file to delete from flash, as the slow tier has it.

        It stays for reads while it is young, and there is room.
        """
        file = self._first_to_go()
        if file is not None and (now >= file.goes_at or self._used_bytes > self._high):
            return file.path
        return None

    def removal_wait_s(self, now: float) -> float:
        """Return the seconds after which there may be a removal, though nothing else happens."""
        file = self._first_to_go()
        return max(0.0, file.goes_at - now) if file is not None else math.inf

    def removed(self, path: str) -> None:
        """Note that a file is not on flash any more."""
        file = self._find(path)
        if file is not None and file.state is not _State.MOVES:
            self._forget(file)

    def gone(self, path: str) -> bool:
        """Note that a read has not found a file on flash.

        Returns: whether it was nowhere else, and is lost; what moves is left to its move.
        """
        file = self._find(path)
        if file is None or file.is_dropped or file.state is _State.MOVES:
            return False
        self._forget(file)
        return file.state is _State.WAITS

    def lost(self, move: Move) -> bool:
        """Note that a file which was to move is not on flash any more.

        Returns: whether nobody dropped it.
        """
        file = self._end(move)
        self._forget(file)
        return not file.is_dropped

    def drop(self, prefix: str) -> list[Move]:
        """Have nothing below a folder move from now on, as it is to be deleted.

        Returns: the moves that are under way there, whose end is to be awaited.
        """
        for file in self._under(prefix):
            file.is_dropped = True
            self._urgent.pop(file.path, None)
        return [move for move, file in self._moving.items() if file.path.startswith(prefix)]

    def dropped(self, prefix: str) -> tuple[int, int]:
        """Note that what is below a folder was deleted from flash.

        Returns: the number and the bytes of the files that never came to the slow tier.
        """
        files = [file for file in self._under(prefix) if file.is_dropped]
        saved = [file for file in files if file.state is _State.WAITS]
        for file in files:
            self._forget(file)
        return len(saved), sum(file.length for file in saved)

    # --- inside ------------------------------------------------------------------------------

    @property
    def _capacity(self) -> float:
        return min(self._flash_bytes, self._room_bytes)

    @property
    def _high(self) -> float:
        return HIGH_SHARE * self._capacity

    def _candidates(self, now: float) -> Iterator[tuple[_File, Reason]]:
        """Yield what may move, and why: what somebody waits for, then what is oldest."""
        for file in self._urgent.values():
            if self._may_move(file, now):
                yield file, "left" if file.was_left else "all" if self.moves_all else "waited"
        if self.moves_all:
            for file in self._waiting.values():
                if self._may_move(file, now):
                    yield file, "all"
        moving_bytes = sum(move.length for move in self._moving)
        left_bytes = self._used_bytes - self._moved_bytes - moving_bytes
        self._makes_room = left_bytes > LOW_SHARE * self._capacity and (
            self._makes_room or self._used_bytes > self._high
        )
        for file in self._waiting.values():
            if not self._makes_room and now < file.put_at + self._age_s:
                return  # those behind it are younger
            if self._may_move(file, now):
                yield file, "room" if self._makes_room else "age"

    def _may_move(self, file: _File, now: float) -> bool:
        return file.state is _State.WAITS and not file.is_dropped and now >= file.retry_at

    def _fails(self, why: str, now: float) -> None:
        if self._failing_since is None:
            self._failing_since = now
        self._failure = why

    def _add(self, file: _File) -> None:
        before = self._find(file.path)
        if before is not None:
            is_same = before.state is _State.WAITS and before.length == file.length
            if is_same or before.state is _State.MOVES:
                return
            self._forget(before)
        self._folders.setdefault(_folder(file.path), {})[file.path] = file
        self._depth = max(self._depth, file.path.count("/"))
        self._files += 1
        self._used_bytes += file.length
        self._pending_bytes += file.length
        self._waiting[file.path] = file
        if file.is_urgent:
            self._urgent[file.path] = file

    def _settle(self, file: _File) -> None:
        """Wait for a move of the file no more."""
        if self._waiting.pop(file.path, None) is not None:
            self._pending_bytes -= file.length
        self._urgent.pop(file.path, None)
        self._unread.pop(file.path, None)

    def _set_moved(self, file: _File, now: float) -> None:
        self._settle(file)
        file.state, file.goes_at = _State.MOVED, max(now + GRACE_S, file.put_at + self._age_s)
        self._moved[file.path] = file
        self._next_going += 1
        heappush(self._going, (file.goes_at, self._next_going, file))
        self._moved_bytes += file.length

    def _first_to_go(self) -> _File | None:
        while self._going:
            file = self._going[0][2]
            if self._moved.get(file.path) is file and not file.is_dropped:
                return file
            heappop(self._going)
        return None

    def _forget(self, file: _File) -> None:
        self._settle(file)
        if self._moved.pop(file.path, None) is not None:
            self._moved_bytes -= file.length
        self._damaged -= file.state is _State.DAMAGED
        self._files -= 1
        self._used_bytes -= file.length
        folder = _folder(file.path)
        del self._folders[folder][file.path]
        if not self._folders[folder]:
            del self._folders[folder]

    def _end(self, move: Move) -> _File:
        self._hanging.discard(move)
        return self._moving.pop(move)

    def _find(self, path: str) -> _File | None:
        return self._folders.get(_folder(path), {}).get(path)

    def _under(self, prefix: str) -> list[_File]:
        if prefix.endswith("/") and prefix.count("/") >= self._depth:  # no folders are in it
            return list(self._folders.get(prefix, {}).values())
        if (file := self._find(prefix)) is not None:
            return [file]
        return [
            file
            for folder, files in self._folders.items()
            if folder.startswith(prefix) or prefix.startswith(folder)
            for file in files.values()
            if file.path.startswith(prefix)
        ]


def _folder(path: str) -> str:
    above, slash, _ = path.rpartition("/")
    return above + slash
