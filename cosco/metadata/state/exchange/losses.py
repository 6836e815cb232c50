"""Which committed rows are lost, who is asked to bring them back, and what became of that.

Two things are kept apart. A mapper is *pending* for a range, or for a generation that has ended,
until it has committed what was lost there. A *loss* is a set of mappers that are called back
together: one call of the driver's callback. A mapper that is pending for anything is in one loss,
whatever it is pending for, as one run of it brings back all of that; any other mapper is in none.

The driver is told of a loss until it has said how its callback ended; a loss that failed is
still repaired by commits of its mappers. Without mappers it is forgotten.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from pyroaring import BitMap

from cosco.errors import CoscoError, DataLost
from cosco.metadata.state.exchange.tries import Tries
from cosco.metadata.state.exchange.verdicts import Verdicts
from cosco.metadata.state.records.changes import ChangeLog, Row
from cosco.protocol.admin_records import MAX_SHOWN, LossState, LossStatus
from cosco.protocol.api_limits import shown
from cosco.protocol.events import Event, EventKind
from cosco.protocol.records import RecomputeCall

#: Times that a range is built anew; the next time nobody is called back for it.
MAX_BUILDS: Final = 8
#: Attempts of a mapper since it was called back, without a commit.
MAX_TRIES: Final = 16

_NO_CALLBACK: Final = "the exchange's driver has no callback to have mappers run again"
_REASON_CHARACTERS: Final = 300


@dataclass(slots=True)
class Loss:
    """Mappers that are called back together. `failure` says why it failed, else it is empty.

    ranges: for whose sake, None: for that of a generation. It is for people; what a mapper is to
    bring back is what it is pending for.
    told: the driver may know it with the mappers it has, and is not told of more.
    """

    ranges: BitMap | None
    mappers: BitMap
    reason: str
    state: LossState = LossState.OPEN
    failure: str = ""
    told: bool = False

    @property
    def may_grow(self) -> bool:
        """Whether the driver will be told of mappers that are added now."""
        return self.state is LossState.OPEN and not self.told


class Losses:
    """The losses of an exchange; changed rows are named in `changes`."""

    def __init__(
        self, number: int, changes: ChangeLog, *, callback: bool, shuffle_id: str = ""
    ) -> None:
        self.callback = callback
        self._shuffle_id = shuffle_id
        #: Grows whenever readers or the driver would be told something else than before.
        self.news = 0
        #: The highest loss id that was given; the exchange keeps it.
        self.highest = 0
        self._number = number
        self._changes = changes
        self._losses: dict[int, Loss] = {}
        #: Range, None for a generation → the mappers that are pending for it; no empty ones.
        #: Those of a generation have committed nothing in it, so they are pending for no range.
        self._pending: dict[int | None, BitMap] = {}
        self.tries = Tries(number, changes)
        #: Which ranges have failed for good.
        self.verdicts = Verdicts(number, changes, self._tell)

    # --- what is lost ----------------------------------------------------------------------

    def pending(self, index: int | None) -> BitMap:
        """Return the mappers that are pending for a range (None: for a generation)."""
        return self._pending.get(index) or BitMap()

    def ranges_of(self, mapper: int) -> tuple[int, ...]:
        """Return the ranges that `mapper` is pending for, ascending."""
        return tuple(
            sorted(i for i, mappers in self._pending.items() if i is not None and mapper in mappers)
        )

    def is_whole(self, index: int) -> bool:
        """Whether nothing of a range is lost: its readers wait for first commits alone."""
        return not (self.pending(index) or self.pending(None) or index in self.verdicts)

    def check_readable(self, index: int, mappers: BitMap, partition: int, shuffle_id: str) -> None:
        """Raise what a reader of `partition`, in range `index`, who names `mappers` is told.

        DataLost if one of them must run again and nobody has it run; DataCorrupted or
        RecomputeMismatch for a range that has failed for good.
        """
        self.verdicts.check(index, partition, shuffle_id)
        for key in (index, None):
            missing = self.pending(key) & mappers
            if not missing:
                continue
            for _, loss in sorted(self._losses.items()):
                if loss.state is LossState.FAILED and not loss.mappers.isdisjoint(missing):
                    ranges = None if key is None else [index]
                    reason = f"{loss.reason}; {loss.failure}"
                    self._tell(EventKind.DATA_LOST, ranges, loss.mappers, reason, DataLost.__name__)
                    raise DataLost(
                        f"exchange {shown(shuffle_id)}: {loss.reason}; nobody brings them back, "
                        f"as {loss.failure}; run writers of these mappers again, then read again",
                        shuffle_id=shuffle_id,
                        partition=partition,
                        mappers=self.pending(key),
                    )

    def begin(
        self, lost: Mapping[int, BitMap], reason: str, failures: Mapping[int, str] | None = None
    ) -> None:
        """Have mappers run again, as builds of ranges have ended at once.

        They are those of each range in `lost`, and those that were pending for it. Nobody is
        called back for the sake of a range that `failures` says why of. Passed over are mappers
        that will run anyway: they were called back already and have not begun.
        """
        failures = failures or {}
        called, ranges = BitMap(), BitMap()
        left, left_ranges, failure = BitMap(), BitMap(), ""
        for index, mappers in lost.items():
            pending = self._pend(index, mappers)
            if index in failures:
                left |= pending
                left_ranges.add(index)
                failure = failures[index]
            else:
                called |= pending
                ranges.add(index)
        self._call(called, ranges, reason)
        self._call(left - called, left_ranges, reason, failure)

    def begin_generation(self, mappers: BitMap, reason: str, failure: str = "") -> None:
        """Have mappers run again, and those that were pending for the generation that ended.

        failure: why nobody is called back; empty: they are.
        """
        mappers = mappers | self.pending(None)
        for loss_id in list(self._losses):
            self._forget(loss_id)
        for index in list(self._pending):
            self._settle(index)
        self._pend(None, mappers)
        self._add(None, mappers, reason, failure)

    def call_back(self, mappers: BitMap, reason: str) -> None:
        """Have mappers run again though they never committed.

        Also those for which a re-run was arranged before. Passed over are those that the driver
        has not answered for yet, or failed to have run.
        """
        due = mappers - self.pending(None)
        for loss_id, loss in list(self._losses.items()):
            if loss.ranges is None and loss.state is LossState.ARRANGED:
                due |= self._take_out(loss_id, loss.mappers & mappers)
        if due:
            self._tell(EventKind.MAPPERS_CALLED_BACK, None, due, reason)
            self._pend(None, due)
            self._add(None, due, reason)

    def call_again(self, index: int, mappers: BitMap, reason: str) -> None:
        """Have mappers run again that are pending for a range, and whose re-run was arranged
        before; others are passed over."""
        for loss_id, loss in list(self._losses.items()):
            due = self.pending(index) & loss.mappers & mappers
            if due and loss.state is LossState.ARRANGED:
                self._tell(EventKind.MAPPERS_CALLED_BACK, loss.ranges, due, reason)
                self._add(BitMap(loss.ranges or ()), self._take_out(loss_id, due), reason)

    def join(self, indexes: Collection[int], mapper: int, reason: str) -> None:
        """Have a mapper run again that has just committed rows of ranges that had lost them."""
        for index in indexes:
            self._pend(index, BitMap([mapper]))
        self._add_to_untold(BitMap(indexes), mapper, reason)

    def in_vain(self, mapper: int, attempt: int) -> None:
        """Note that an attempt of a pending mapper sent some that was lost to a build that ended.

        The driver may take this for the re-run that it arranged, so unless a later one has
        begun it is told of the mapper again.
        """
        loss_id = self._loss_of(mapper)
        loss = self._losses[loss_id]
        if not loss.told or loss.state is LossState.FAILED:
            return
        if self.tries.is_latest(mapper, attempt):
            ranges = BitMap(loss.ranges or ())
            self._take_out(loss_id, BitMap([mapper]))
            self._add_to_untold(ranges, mapper, loss.reason)

    def repair(self, indexes: Collection[int | None], mapper: int) -> list[int | None]:
        """Note that a mapper has committed what was lost of ranges; others are passed over.

        Returns: those for which it was the last one.
        """
        found = [i for i in indexes if mapper in self._pending.get(i, ())]
        if not found:
            return []
        complete = []
        for index in found:
            pending = self._pending[index]
            pending.discard(mapper)
            self._put_pending(index)
            if not pending:
                self._settle(index)
                complete.append(index)
        if not any(mapper in pending for pending in self._pending.values()):
            self._take_out(self._loss_of(mapper), BitMap([mapper]))
            self.tries.forget(mapper)
        self.news += bool(complete)
        return complete

    def condemn(self, index: int, error: type[CoscoError], reason: str) -> None:
        """Let a range fail for good: nobody need run again for it."""
        self.verdicts.add(index, error, reason)
        free = self.pending(index)
        self._settle(index)
        for pending in self._pending.values():
            free = free - pending
        for loss_id, loss in list(self._losses.items()):
            self._take_out(loss_id, loss.mappers & free)
        for mapper in free:
            self.tries.forget(mapper)
        self.news += 1

    # --- who brings it back ----------------------------------------------------------------

    @property
    def unanswered(self) -> bool:
        """Whether `calls` has any."""
        return any(loss.state is LossState.OPEN for loss in self._losses.values())

    def calls(self) -> tuple[RecomputeCall, ...]:
        """Return the losses that the driver has not answered, with the mappers that are missing."""
        calls = []
        for loss_id, loss in sorted(self._losses.items()):
            if loss.state is LossState.OPEN:
                loss.told = True
                calls.append(RecomputeCall(loss_id, loss.mappers.copy(), loss.reason))
        return tuple(calls)

    def __len__(self) -> int:
        """Losses that are not repaired."""
        return len(self._losses)

    def shown(self, most: int) -> tuple[LossStatus, ...]:
        """Return the oldest losses, at most `most`, for people."""
        return tuple(
            LossStatus(
                loss_id=loss_id,
                ranges=tuple((loss.ranges or BitMap())[:MAX_SHOWN]),
                ranges_count=len(loss.ranges or ()),
                state=loss.state,
                mappers=len(loss.mappers),
                reason=loss.reason,
                failure=loss.failure,
            )
            for loss_id, loss in sorted(self._losses.items())[:most]
        )

    def answer(self, arranged: Iterable[int], failed: Iterable[tuple[int, str]]) -> None:
        """Take how callbacks ended, by loss id; losses that are no more are passed over."""
        for loss_id in arranged:
            loss = self._losses.get(loss_id)
            if loss is not None and loss.state is LossState.OPEN:
                loss.state = LossState.ARRANGED
                self._tell(EventKind.RECOMPUTE_ARRANGED, loss.ranges, loss.mappers)
                self._put(loss_id)
        for loss_id, reason in failed:
            if loss_id in self._losses:
                self._fail(loss_id, f"the driver's callback failed: {one_line(reason)}")

    def take_over(self, *, callback: bool) -> None:
        """Tell another driver of every loss, if it can do something about them."""
        self.callback = callback
        self.tries.forget_all()
        for loss_id, loss in self._losses.items():
            if callback:
                loss.state, loss.failure, loss.told = LossState.OPEN, "", False
                self._put(loss_id)
                self.news += 1
            else:
                self._fail(loss_id, _NO_CALLBACK)

    def try_again(self, mapper: int, attempt: int) -> None:
        """Note that an attempt begins: a mapper that was called back has MAX_TRIES.

        Then it is in a loss of its own that has failed; others of its loss may succeed.
        """
        if not any(mapper in pending for pending in self._pending.values()):
            return
        ran = self.tries.add(mapper, attempt, MAX_TRIES)
        if ran:
            failure = f"mapper {mapper} ran {ran} times without a commit"
            loss_id = self._loss_of(mapper)
            loss = self._losses[loss_id]
            if loss.state is not LossState.FAILED and len(loss.mappers) > 1:
                alone = self._take_out(loss_id, BitMap([mapper]))
                ranges = None if loss.ranges is None else loss.ranges.copy()
                self._add(ranges, alone, loss.reason, failure)
            else:
                self._fail(loss_id, failure)

    # --- inside ----------------------------------------------------------------------------

    def _tell(
        self,
        kind: EventKind,
        ranges: Iterable[int] | None,
        mappers: BitMap | None = None,
        reason: str | None = None,
        cause: str | None = None,
    ) -> None:
        self._changes.tell(
            Event(
                kind=kind,
                exchange=self._shuffle_id,
                number=self._number,
                range_indexes=None if ranges is None else tuple(ranges),
                mappers=None if mappers is None else len(mappers),
                cause=cause,
                reason=reason,
            )
        )

    def _pend(self, index: int | None, mappers: BitMap) -> BitMap:
        """Have mappers be pending for a range. Returns all that are."""
        pending = self.pending(index) | mappers
        if pending:
            self._pending[index] = pending
            self._put_pending(index)
            self.news += 1
        return pending.copy()

    def _settle(self, index: int | None) -> None:
        """Have nobody be pending for a range any more."""
        if self._pending.pop(index, None) is not None and index is not None:
            self._changes.delete("pending", (self._number, index))

    def _call(self, mappers: BitMap, ranges: BitMap, reason: str, failure: str = "") -> None:
        """Put mappers into a loss of their own, but those that will run anyway.

        A loss that the driver knows nothing of yet becomes part of it. failure: why these are not
        called back.
        """
        mappers, ranges = mappers.copy(), ranges.copy()
        begun = self.tries.begun()
        for loss_id, loss in list(self._losses.items()):
            here = loss.mappers & mappers
            if loss.ranges is None or not here:
                continue
            stays = BitMap()
            if loss.may_grow and failure:
                stays = here
            elif loss.may_grow:
                here = loss.mappers.copy()
            elif loss.state is not LossState.FAILED:
                stays = here - begun
            if stays:
                mappers -= stays
                loss.ranges |= ranges
                self._put(loss_id)
            if moves := here - stays:
                ranges = ranges | loss.ranges
                mappers |= self._take_out(loss_id, moves)
        if mappers:
            self._add(ranges, mappers, reason, failure)

    def _add_to_untold(self, ranges: BitMap, mapper: int, reason: str) -> None:
        """Put a mapper into a loss of some of its ranges that the driver does not know yet, or
        into another one."""
        for loss_id, loss in self._losses.items():
            if loss.ranges is None or loss.told:
                continue
            if (loss.may_grow and loss.ranges & ranges) or ranges <= loss.ranges:
                loss.ranges |= ranges
                loss.mappers.add(mapper)
                self._put(loss_id)
                self.news += 1
                return
        self._add(ranges, BitMap([mapper]), reason)

    def _add(self, ranges: BitMap | None, mappers: BitMap, reason: str, failure: str = "") -> None:
        failure = failure or ("" if self.callback else _NO_CALLBACK)
        state = LossState.FAILED if failure else LossState.OPEN
        self.highest += 1
        self._losses[self.highest] = Loss(ranges, mappers, reason, state, failure)
        if failure:
            self._tell(EventKind.RECOMPUTE_FAILED, ranges, mappers, failure)
        self._put(self.highest)
        self.tries.called_back(mappers)
        self.news += 1

    def _fail(self, loss_id: int, failure: str) -> None:
        loss = self._losses[loss_id]
        if loss.state is not LossState.FAILED:
            loss.state, loss.failure = LossState.FAILED, failure
            self._tell(EventKind.RECOMPUTE_FAILED, loss.ranges, loss.mappers, failure)
            self._put(loss_id)
            self.news += 1

    def _loss_of(self, mapper: int) -> int:
        return next(i for i, loss in self._losses.items() if mapper in loss.mappers)

    def _take_out(self, loss_id: int, mappers: BitMap) -> BitMap:
        """Have mappers leave their loss. Returns them."""
        if mappers:
            self._losses[loss_id].mappers -= mappers
            if self._losses[loss_id].mappers:
                self._put(loss_id)
            else:
                self._forget(loss_id)
                self.news += 1
        return mappers

    def _forget(self, loss_id: int) -> None:
        del self._losses[loss_id]
        self._changes.delete("losses", (self._number, loss_id))

    # --- the database ----------------------------------------------------------------------

    def _put(self, loss_id: int) -> None:
        self._changes.put("losses", (self._number, loss_id), partial(self._row, loss_id))

    def _row(self, loss_id: int) -> Row:
        loss = self._losses[loss_id]
        ranges = None if loss.ranges is None else loss.ranges.serialize()
        return ranges, loss.mappers.serialize(), int(loss.state), loss.reason, loss.failure

    def _put_pending(self, index: int | None) -> None:
        if index is not None:  # those of a generation are in its losses
            key = self._number, index
            self._changes.put("pending", key, lambda: (self.pending(index).serialize(),))

    def restore(self, loss_id: int, ranges: bytes | None, mappers: bytes, *rest: Any) -> None:
        """Take a loss back from the columns of its row; the driver may know of it."""
        state, reason, failure = rest
        found = BitMap.deserialize(mappers)
        of = None if ranges is None else BitMap.deserialize(ranges)
        self._losses[loss_id] = Loss(of, found, reason, LossState(state), failure, told=True)
        if of is None:
            self._pending[None] = self.pending(None) | found

    def restore_pending(self, index: int, mappers: bytes) -> None:
        self._pending[index] = BitMap.deserialize(mappers)


def one_line(reason: str) -> str:
    """Return what somebody else gave as a reason, fit for a message."""
    return " ".join(reason.split())[:_REASON_CHARACTERS]
