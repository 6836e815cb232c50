"""Which committed rows are lost, who is asked to bring them back, and what became of that.

A *loss* is a set of mappers that must run again, for one range, or for all when a generation
ends or when mappers of a group died before they committed. Its mappers leave it when they
commit what was lost; without any it is forgotten. A mapper is in at most one loss of a range.
The driver is told of a loss until it has said how its callback ended; a loss that failed is
still repaired by commits of its mappers.

Some failures are for good: those of a range whose rows cannot be told right from wrong.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from functools import partial
from typing import Any, Final, NamedTuple

from pyroaring import BitMap

from cosco.errors import CoscoError, DataCorrupted, DataLost, RecomputeMismatch
from cosco.metadata.state.records.changes import ChangeLog, Row
from cosco.protocol.api_limits import shown
from cosco.protocol.records import RecomputeCall

#: Times that a range is built anew; the next time its loss has failed.
MAX_BUILDS: Final = 8
#: Attempts of a called-back mapper, for each of its losses, without a commit.
MAX_TRIES: Final = 16

_NO_CALLBACK: Final = "the exchange's driver has no callback to have mappers run again"
_REASON_CHARACTERS: Final = 300
_FINAL: Final[dict[str, type[CoscoError]]] = {
    error.__name__: error for error in (DataCorrupted, RecomputeMismatch)
}


class LossState(IntEnum):
    OPEN = 1  #: the driver has not said how its callback ended
    ARRANGED = 2  #: its callback returned: the mappers will run
    FAILED = 3  #: nobody has them run


@dataclass(slots=True)
class Loss:
    """`range_index` None: of all ranges. `failure` says why it failed, else it is empty.

    `told`: the driver may know it with the mappers it has, and is not told of more.
    """

    range_index: int | None
    mappers: BitMap
    reason: str
    state: LossState = LossState.OPEN
    failure: str = ""
    told: bool = False


class _Tries(NamedTuple):
    """Attempts of a called-back mapper so far, and the latest one."""

    attempts: int
    latest: int


class Verdict(NamedTuple):
    """What readers of a range are told for good."""

    error: type[CoscoError]
    reason: str


class Losses:
    """The losses of an exchange; changed rows are named in `changes`."""

    def __init__(self, number: int, changes: ChangeLog, *, callback: bool) -> None:
        self.callback = callback
        #: Grows whenever readers or the driver would be told something else than before.
        self.news = 0
        #: The highest loss id that was given; the exchange keeps it.
        self.highest = 0
        self._number = number
        self._changes = changes
        self._losses: dict[int, Loss] = {}
        #: range, None for a generation → ids of its losses, and all mappers in them
        self._ids: defaultdict[int | None, set[int]] = defaultdict(set)
        self._pending: dict[int | None, BitMap] = {}
        #: Called-back mapper → how often it was opened since.
        self._tries: dict[int, _Tries] = {}
        self._verdicts: dict[int, Verdict] = {}

    # --- what is lost ----------------------------------------------------------------------

    def pending(self, index: int | None) -> BitMap:
        """Return the mappers that were called back for a range (None: for a generation)."""
        return self._pending.get(index) or BitMap()

    def ranges_of(self, mapper: int) -> tuple[int, ...]:
        """Return the ranges that `mapper` was called back for, ascending."""
        return tuple(sorted(i for i in self._indexes_of(mapper) if i is not None))

    def condemned(self, index: int) -> bool:
        """Whether the range has failed for good."""
        return index in self._verdicts

    def check_readable(self, index: int, mappers: BitMap, partition: int, shuffle_id: str) -> None:
        """Raise what a reader of `partition`, in range `index`, who names `mappers` is told.

        DataLost if one of them must run again and nobody has it run; DataCorrupted or
        RecomputeMismatch for a range that has failed for good.
        """
        verdict = self._verdicts.get(index)
        if verdict is not None:
            raise verdict.error(
                f"exchange {shown(shuffle_id)}: {verdict.reason}; run its stage again with a new "
                "exchange",
                shuffle_id=shuffle_id,
                partition=partition,
            )
        for key in (index, None):
            for loss in map(self._losses.__getitem__, sorted(self._ids.get(key, ()))):
                if loss.state is LossState.FAILED and not loss.mappers.isdisjoint(mappers):
                    raise DataLost(
                        f"exchange {shown(shuffle_id)}: {loss.reason}; nobody brings them back, "
                        f"as {loss.failure}; run writers of these mappers again, then read again",
                        shuffle_id=shuffle_id,
                        partition=partition,
                        mappers=self.pending(key),
                    )

    def begin(self, index: int | None, mappers: BitMap, reason: str, failure: str = "") -> None:
        """Call `mappers` back, and those that were pending: a build, or a generation, ended.

        failure: why the new loss has failed at once; empty: it has not.
        """
        mappers = mappers | self.pending(index)
        for ended in list(self._ids) if index is None else (index,):
            self._forget_all(ended)
        self._add(index, mappers, reason, failure)

    def call_back(self, mappers: BitMap, reason: str) -> None:
        """Have mappers run again though they never committed.

        Also those for which a re-run was arranged before. Passed over are those that the driver
        has not answered for yet, or failed to have run.
        """
        due = mappers - self.pending(None)
        for loss_id in list(self._ids.get(None, ())):
            loss = self._losses[loss_id]
            if loss.state is LossState.ARRANGED:
                again = loss.mappers & mappers
                due |= again
                for mapper in again:
                    self._leave(loss_id, mapper)
        if due:
            self._add(None, due, reason)

    def join(self, index: int, mapper: int, reason: str) -> None:
        """Add a mapper that has committed rows that are lost already."""
        self._pending.setdefault(index, BitMap()).add(mapper)
        for loss_id in self._ids[index]:
            loss = self._losses[loss_id]
            if not loss.told:
                loss.mappers.add(mapper)
                self._put(loss_id)
                self.news += 1
                return
        self._add(index, BitMap([mapper]), reason)

    def in_vain(self, index: int, mapper: int, attempt: int) -> None:
        """Note that an attempt of a pending mapper sent what was lost to a build that ended.

        The driver may take this for the re-run that it arranged, so unless a later one has
        begun it is told of the mapper again.
        """
        loss_id = self._loss_of(index, mapper)
        loss = self._losses[loss_id]
        if not loss.told or loss.state is LossState.FAILED:
            return
        if mapper not in self._tries or self._tries[mapper].latest == attempt:
            self._leave(loss_id, mapper)
            self.join(index, mapper, loss.reason)

    def repair(self, index: int | None, mapper: int) -> bool:
        """Note that a pending mapper has committed what was lost.

        Returns: whether it was the last one.
        """
        pending = self._pending.get(index)
        if pending is None or mapper not in pending:
            return False
        pending.discard(mapper)
        if mapper in self._tries:
            self._forget_tries(mapper)
        loss_id = self._loss_of(index, mapper)
        self._leave(loss_id, mapper)
        if not pending:
            self._forget_all(index)
        return not pending

    def condemn(self, index: int, error: type[CoscoError], reason: str) -> None:
        """Let a range fail for good: nobody need run again for it."""
        self._verdicts[index] = Verdict(error, reason)
        self._forget_all(index)
        for mapper in [m for m in self._tries if not self._indexes_of(m)]:
            self._forget_tries(mapper)
        self._put_range(index)
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

    def answer(self, arranged: Iterable[int], failed: Iterable[tuple[int, str]]) -> None:
        """Take how callbacks ended, by loss id; losses that are no more are passed over."""
        for loss_id in arranged:
            loss = self._losses.get(loss_id)
            if loss is not None and loss.state is LossState.OPEN:
                loss.state = LossState.ARRANGED
                self._put(loss_id)
        for loss_id, reason in failed:
            if loss_id in self._losses:
                self._fail(loss_id, f"the driver's callback failed: {one_line(reason)}")

    def take_over(self, *, callback: bool) -> None:
        """Tell another driver of every loss, if it can do something about them."""
        self.callback = callback
        for mapper in list(self._tries):
            self._forget_tries(mapper)
        for loss_id, loss in self._losses.items():
            if callback:
                loss.state, loss.failure = LossState.OPEN, ""
                self._put(loss_id)
                self.news += 1
            else:
                self._fail(loss_id, _NO_CALLBACK)

    def try_again(self, mapper: int, attempt: int) -> None:
        """Note that an attempt begins: a called-back mapper has MAX_TRIES for each loss."""
        indexes = self._indexes_of(mapper)
        if not indexes:
            return
        count = self._tries[mapper].attempts + 1 if mapper in self._tries else 1
        if count > MAX_TRIES * len(indexes):
            for index in indexes:
                failure = f"mapper {mapper} ran {count - 1} times without a commit"
                self._fail(self._loss_of(index, mapper), failure)
            count = 0
        tries = self._tries[mapper] = _Tries(count, attempt)
        self._changes.put("tries", (self._number, mapper), lambda: tries)

    # --- inside ----------------------------------------------------------------------------

    def _add(self, index: int | None, mappers: BitMap, reason: str, failure: str = "") -> None:
        failure = failure or ("" if self.callback else _NO_CALLBACK)
        state = LossState.FAILED if failure else LossState.OPEN
        self.highest += 1
        self._losses[self.highest] = Loss(index, mappers, reason, state, failure)
        self._ids[index].add(self.highest)
        self._pending[index] = self.pending(index) | mappers
        self._put(self.highest)
        self.news += 1

    def _fail(self, loss_id: int, failure: str) -> None:
        loss = self._losses[loss_id]
        if loss.state is not LossState.FAILED:
            loss.state, loss.failure = LossState.FAILED, failure
            self._put(loss_id)
            self.news += 1

    def _loss_of(self, index: int | None, mapper: int) -> int:
        return next(i for i in self._ids[index] if mapper in self._losses[i].mappers)

    def _indexes_of(self, mapper: int) -> list[int | None]:
        return [index for index, mappers in self._pending.items() if mapper in mappers]

    def _leave(self, loss_id: int, mapper: int) -> None:
        self._losses[loss_id].mappers.discard(mapper)
        if self._losses[loss_id].mappers:
            self._put(loss_id)
        else:
            self._forget(loss_id)
            self.news += 1

    def _forget_tries(self, mapper: int) -> None:
        del self._tries[mapper]
        self._changes.delete("tries", (self._number, mapper))

    def _forget(self, loss_id: int) -> None:
        self._ids[self._losses.pop(loss_id).range_index].discard(loss_id)
        self._changes.delete("losses", (self._number, loss_id))

    def _forget_all(self, index: int | None) -> None:
        for loss_id in list(self._ids.get(index, ())):
            self._forget(loss_id)
        self._ids.pop(index, None)
        self._pending.pop(index, None)

    # --- the database ----------------------------------------------------------------------

    def _put(self, loss_id: int) -> None:
        self._changes.put("losses", (self._number, loss_id), partial(self._row, loss_id))

    def _row(self, loss_id: int) -> Row:
        loss = self._losses[loss_id]
        mappers = loss.mappers.serialize()
        return loss.range_index, mappers, int(loss.state), loss.reason, loss.failure

    def _put_range(self, index: int) -> None:
        verdict = self._verdicts[index]
        row = verdict.error.__name__, verdict.reason
        self._changes.put("failures", (self._number, index), lambda: row)

    def restore(self, loss_id: int, index: int | None, mappers: bytes, *rest: Any) -> None:
        """Take a loss back from the columns of its row; the driver may know of it."""
        state, reason, failure = rest
        found = BitMap.deserialize(mappers)
        loss = Loss(index, found, reason, LossState(state), failure, told=True)
        self._losses[loss_id] = loss
        self._ids[index].add(loss_id)
        self._pending[index] = self.pending(index) | found

    def restore_failure(self, index: int, error: str, reason: str) -> None:
        self._verdicts[index] = Verdict(_FINAL[error], reason)

    def restore_tries(self, mapper: int, tries: int, attempt: int) -> None:
        self._tries[mapper] = _Tries(tries, attempt)


def one_line(reason: str) -> str:
    """Return what somebody else gave as a reason, fit for a message."""
    return " ".join(reason.split())[:_REASON_CHARACTERS]
