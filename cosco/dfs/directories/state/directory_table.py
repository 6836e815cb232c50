"""Which directory takes a put, which is taken out, when it is tried again. No IO.

docs/architecture/directories.md says why. Times are seconds on one clock that never goes back.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Final, Literal

Cause = Literal["errs", "hangs", "full", "missing"]

#: What is known of free bytes is believed for this time.
FRESH_S: Final = 1.0
PROBE_MIN_S: Final = 1.0
PROBE_MAX_S: Final = 60.0
#: One that was well for this long is tried again soon when it is out the next time.
STEADY_S: Final = 60.0
#: Between directories the speed counts for this factor at most.
SPEEDS_MAX: Final = 8.0
#: How much of the average the last put is.
_LAST_SHARE: Final = 0.2
#: Shorter puts are taken for this long: a seek costs as much.
_LEAST_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Reserve:
    """What must stay free in each directory: bytes, and a share of all its bytes."""

    size_bytes: int = 0
    share: float = 0.0

    def of(self, total_bytes: int) -> int:
        """Return the bytes to leave free in a file system of `total_bytes`."""
        return max(self.size_bytes, math.ceil(self.share * total_bytes))


@dataclass(frozen=True, slots=True)
class Change:
    """A directory is out, or back: then `cause` is why it was out, and `reason` empty."""

    index: int
    is_out: bool
    cause: Cause
    reason: str


@dataclass(frozen=True, slots=True)
class Pick:
    """The directory for a put; `is_stale`: its free bytes are to be measured, then ask again."""

    index: int
    is_stale: bool


class NoPick(Enum):
    """Why there is no directory for a put now: all are busy, or none is well."""

    BUSY = "busy"
    NONE = "none"


@dataclass(slots=True)
class _Out:
    """Why a directory is out; `needed_bytes`: what was too much for one that is full."""

    cause: Cause
    reason: str
    needed_bytes: int = 0


@dataclass(slots=True)
class _Put:
    length: int
    began_at: float


@dataclass(slots=True)
class _Directory:
    """What is known of one directory."""

    free_bytes: int = 0
    total_bytes: int = 0
    measured_at: float = -math.inf
    #: Bytes of puts that ended well since the free bytes were measured.
    written_bytes: int = 0
    puts: dict[int, _Put] = field(default_factory=dict)
    s_per_byte: float | None = None
    #: The bytes of its puts, each over the weight that it had then.
    given: float = 0.0
    out: _Out | None = None
    back_at: float = -math.inf
    hanging: int = 0
    failures: int = 0

    def pace(self, now: float) -> float | None:
        """Return the seconds a byte takes; None if that is not known."""
        oldest = min(self.puts.values(), key=lambda put: put.began_at, default=None)
        if oldest is None:
            return self.s_per_byte
        age = (now - oldest.began_at) / max(oldest.length, _LEAST_BYTES)
        return age if self.s_per_byte is None else max(age, self.s_per_byte)


@dataclass(frozen=True, slots=True)
class DirectoryState:
    """What operators see of a directory; `room_bytes` are free above the reserve."""

    free_bytes: int
    room_bytes: int
    is_well: bool


class DirectoryTable:
    """The directories of one store, by their index.

    puts_max: puts that may be under way in one of them.
    """

    def __init__(self, count: int, *, puts_max: int, reserve: Reserve | None = None) -> None:
        self._all = [_Directory() for _ in range(count)]
        self._puts_max = puts_max
        self._reserve = reserve or Reserve()
        self._next_put = 0
        self._changes: list[Change] = []

    # --- what is seen -----------------------------------------------------------------------

    def state(self, index: int) -> DirectoryState:
        """Return what operators see of a directory."""
        one = self._all[index]
        return DirectoryState(one.free_bytes, max(0, self._room(one)), one.out is None)

    def cause(self, index: int) -> Cause | None:
        """Return why a directory is out; None if it is well."""
        out = self._all[index].out
        return out.cause if out is not None else None

    def reason(self, index: int) -> str:
        """Return in words why a directory is out; empty if it is well."""
        out = self._all[index].out
        return out.reason if out is not None else ""

    def is_hanging(self, index: int) -> bool:
        """Whether a call of it is under way for too long."""
        return self._all[index].hanging > 0

    @property
    def takes_puts(self) -> bool:
        """Whether any directory is well."""
        return any(one.out is None for one in self._all)

    def pop_changes(self) -> Sequence[Change]:
        """Return what was taken out and came back since the last call, in order."""
        changes, self._changes = self._changes, []
        return changes

    # --- puts -------------------------------------------------------------------------------

    def pick(self, length: int, now: float, but: Collection[int] = ()) -> Pick | NoPick:
        """Return the directory for a put of `length` bytes, but for those in `but`.

        One without room for it, by what was measured just now, is taken out.
        """
        fits: list[int] = []
        is_busy = False
        for index, one in enumerate(self._all):
            if one.out is not None or index in but:
                continue
            is_fresh = self._is_fresh(one, now)
            if not is_fresh and self._room(one) < length:
                return Pick(index, is_stale=True)
            if self._room(one) >= length:
                fits.append(index)
            elif self._room(one) + self._under_way(one) >= length:
                is_busy = True  # for want of room: puts that fail give theirs back
            else:
                self._take_out(index, "full", self._full_reason(one, length), now, length)
        free = [index for index in fits if len(self._all[index].puts) < self._puts_max]
        if not free:
            return NoPick.BUSY if fits or is_busy else NoPick.NONE
        weights = self._weights(free, now)
        best = min(free, key=lambda i: self._all[i].given + length / weights[i])
        return Pick(best, is_stale=not self._is_fresh(self._all[best], now))

    def began(self, index: int, length: int, now: float) -> int:
        """Note that a put has begun.

        Returns: what `ended` is to be called with.
        """
        one = self._all[index]
        weights = self._weights([i for i, o in enumerate(self._all) if o.out is None], now)
        one.given += length / weights.get(index, 1.0)
        self._next_put += 1
        one.puts[self._next_put] = _Put(length, now)
        return self._next_put

    def ended(self, index: int, put: int, now: float, *, ok: bool) -> None:
        """Note that a put is not under way any more; `ok`: the file is durable."""
        one = self._all[index]
        done = one.puts.pop(put)
        if not ok:
            return
        one.written_bytes += done.length
        pace = (now - done.began_at) / max(done.length, _LEAST_BYTES)
        before = pace if one.s_per_byte is None else one.s_per_byte
        one.s_per_byte = before + _LAST_SHARE * (pace - before)

    # --- out and back -----------------------------------------------------------------------

    def measured(self, index: int, free_bytes: int, total_bytes: int, now: float) -> None:
        """Note what the file system says of a directory."""
        one = self._all[index]
        one.free_bytes, one.total_bytes = free_bytes, total_bytes
        one.measured_at, one.written_bytes = now, 0

    def failed(self, index: int, reason: str, now: float, *, cause: Cause = "errs") -> None:
        """Take a directory out."""
        self._take_out(index, cause, reason, now)

    def filled(self, index: int, length: int, reason: str, now: float) -> None:
        """Take a directory out that had no room for a put of `length` bytes."""
        self._take_out(index, "full", reason, now, length)

    def hangs(self, index: int, reason: str, now: float) -> None:
        """Note that a call is under way for too long, and take the directory out."""
        one = self._all[index]
        one.hanging += 1
        if one.out is not None and one.out.cause == "full":  # how it comes back is another way now
            one.out.cause, one.out.reason = "hangs", reason
        self._take_out(index, "hangs", reason, now)

    def answered(self, index: int) -> None:
        """Note that a call that was said to hang has ended."""
        self._all[index].hanging -= 1

    def probe_in(self, index: int) -> float | None:
        """Return the seconds to wait before a directory that is out is tried; None: it is well."""
        one = self._all[index]
        if one.out is None:
            return None
        return min(PROBE_MIN_S * 2.0 ** min(one.failures, 10), PROBE_MAX_S)

    def may_probe(self, index: int) -> bool:
        """Whether it may be tried now: nothing of it hangs."""
        return not self._all[index].hanging

    def has_room_again(self, index: int) -> bool:
        """Whether a directory that was full has twice the room that it lacked."""
        one = self._all[index]
        needed_bytes = one.out.needed_bytes if one.out is not None else 0
        return self._room(one) >= 2 * needed_bytes

    def probe_failed(self, index: int, reason: str) -> None:
        """Note that it is not well yet; the next probe comes later."""
        one = self._all[index]
        if one.out is not None:
            one.out.reason = reason
            if one.out.cause != "full":  # a look at free bytes costs nothing
                one.failures += 1

    def probed_well(self, index: int, now: float) -> None:
        """Have a directory back."""
        one = self._all[index]
        if one.out is None or one.hanging:
            return
        self._changes.append(Change(index, is_out=False, cause=one.out.cause, reason=""))
        one.out, one.back_at, one.s_per_byte = None, now, None
        one.failures += 1  # forgotten once it has been well for long enough
        given = [o.given for i, o in enumerate(self._all) if o.out is None and i != index]
        one.given = max(one.given, min(given, default=0.0))

    # --- inside -----------------------------------------------------------------------------

    def _is_fresh(self, one: _Directory, now: float) -> bool:
        return now - one.measured_at < FRESH_S

    def _under_way(self, one: _Directory) -> int:
        return sum(put.length for put in one.puts.values())

    def _room(self, one: _Directory) -> int:
        """Return the bytes above the reserve that are free and not promised to puts under way."""
        kept = self._reserve.of(one.total_bytes)
        return one.free_bytes - kept - one.written_bytes - self._under_way(one)

    def _weights(self, indexes: Collection[int], now: float) -> dict[int, float]:
        """Return room times speed of each; one that was not measured is as fast as the mean."""
        paces = {index: self._all[index].pace(now) for index in indexes}
        known = [pace for pace in paces.values() if pace is not None and pace > 0]
        usual = sum(known) / len(known) if known else 1.0
        fastest = min(known, default=usual)
        weights = {}
        for index, pace in paces.items():
            slowness = min((pace or usual) / fastest, SPEEDS_MAX)
            weights[index] = max(self._room(self._all[index]), 1) / max(slowness, 1.0)
        return weights

    def _full_reason(self, one: _Directory, length: int) -> str:
        kept = self._reserve.of(one.total_bytes)
        return (
            f"{one.free_bytes - one.written_bytes} bytes are free, with a reserve of {kept}, and "
            f"{length} are to be written"
        )

    def _take_out(
        self, index: int, cause: Cause, reason: str, now: float, needed_bytes: int = 0
    ) -> None:
        one = self._all[index]
        if one.out is not None:
            return
        if now - one.back_at >= STEADY_S:
            one.failures = 0
        one.out = _Out(cause, reason, needed_bytes)
        self._changes.append(Change(index, is_out=True, cause=cause, reason=reason))
