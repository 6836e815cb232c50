"""What a daemon knows of assignments that it does not hold: which ended, and which may begin.

One look-up answers for many exchanges of a group (`Alike`), so most of them are admitted without
asking. No answer may open what was sealed or dropped after it was asked for: that is remembered
with what was answered already, and for the answers that are still to come. What is forgotten
here, as the least used, only costs a look-up, as the metadata service knows all of it.

Pure bookkeeping; no IO.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections import OrderedDict
from dataclasses import dataclass, field, replace
from typing import Final

from pyroaring import BitMap

from cosco.protocol.group_records import FoundAssignment
from cosco.protocol.keys import AssignmentKey, RangeEpoch
from cosco.shuffle_service.state.buffers.old_epochs import Going

#: Dropped exchanges that are remembered, to refuse what still comes for them.
REMEMBERED_DROPS: Final = 4096
#: Answers that are kept.
MAX_RECORDS: Final = 512
#: Exchanges that ended during the look-ups of one (range, epoch), and are remembered for their
#: answers; when it is more these speak for no other exchange.
MAX_ENDED: Final = 4096


@dataclass(slots=True)
class _Record:
    """An answer for `size` numbers from `first` on, but for those at the offsets `without`."""

    first: int
    size: int
    without: BitMap
    found: FoundAssignment

    @property
    def end(self) -> int:
        return self.first + self.size

    def ended(self, number: int) -> None:
        if self.first <= number < self.end:
            self.without.add(number - self.first)


@dataclass(slots=True)
class _UnderWay:
    """The look-ups of one (range, epoch), and what ended since the first of them began."""

    look_ups: int = 0
    ended: set[int] | None = field(default_factory=set)  # None: more than can be remembered


class AlikeAssignments:
    """The answers of one daemon's look-ups that hold for further exchanges."""

    def __init__(self, *, records_max: int = MAX_RECORDS) -> None:
        self._records_max = records_max
        #: By range, epoch and first number.
        self._records: OrderedDict[tuple[RangeEpoch, int], _Record] = OrderedDict()
        self._firsts: dict[RangeEpoch, list[int]] = {}  # sorted; the records do not overlap
        self._under_way: dict[RangeEpoch, _UnderWay] = {}
        self._looked_up: dict[AssignmentKey, bool] = {}  # was it sealed meanwhile?
        self._dropped: OrderedDict[int, None] = OrderedDict()

    def __len__(self) -> int:
        """Return how many answers are kept."""
        return len(self._records)

    # --- look-ups -------------------------------------------------------------------------

    def begin_look_up(self, key: AssignmentKey) -> None:
        """Note that the metadata service is asked for an assignment that is not known here.

        Its answer may be older than a seal or a drop that comes before it is admitted.
        """
        self._looked_up[key] = False
        self._under_way.setdefault(key.range_epoch, _UnderWay()).look_ups += 1

    def end_look_up(self, key: AssignmentKey) -> None:
        """Note that no answer to come can be older than what ended until now."""
        del self._looked_up[key]
        under_way = self._under_way[key.range_epoch]
        under_way.look_ups -= 1
        if not under_way.look_ups:
            del self._under_way[key.range_epoch]

    def learn(self, key: AssignmentKey, found: FoundAssignment) -> None:
        """Keep an answer of a look-up that is under way for the others it speaks for."""
        place, alike = key.range_epoch, found.alike
        under_way = self._under_way.get(place)
        if alike is None or under_way is None or under_way.ended is None:
            return
        new = _Record(
            alike.first_number, alike.size, BitMap(alike.without), replace(found, alike=None)
        )
        for number in under_way.ended:
            new.ended(number)
        for old in self._overlapping(place, new):
            for offset in old.without:
                new.ended(old.first + offset)
            self._forget(place, old.first)
        for number in self._dropped:
            new.ended(number)
        self._records[place, new.first] = new
        insort(self._firsts.setdefault(place, []), new.first)
        self._forget_if_empty(place, new)
        while len(self._records) > self._records_max:
            self._forget(*next(iter(self._records)))

    def forget(self) -> None:
        """Forget all answers, and keep none of those that are under way: exchanges that they speak
        for may end without a word to this daemon, as it registers again."""
        self._records.clear()
        self._firsts.clear()
        for under_way in self._under_way.values():
            under_way.ended = None

    def _overlapping(self, place: RangeEpoch, new: _Record) -> list[_Record]:
        records = (self._records[place, first] for first in self._firsts.get(place, ()))
        return [old for old in records if old.first < new.end and new.first < old.end]

    def find(self, key: AssignmentKey) -> FoundAssignment | None:
        """Return what was answered for an assignment, None if nothing or it has ended since."""
        number, place = key.number, key.range_epoch
        record = self._covering(place, number)
        if record is None or number - record.first in record.without:
            return None
        self._records.move_to_end((place, record.first))
        return record.found

    def _covering(self, place: RangeEpoch, number: int) -> _Record | None:
        firsts = self._firsts.get(place)
        if not firsts or not (index := bisect_right(firsts, number)):
            return None
        record = self._records[place, firsts[index - 1]]
        return record if number < record.end else None

    # --- what ends ------------------------------------------------------------------------

    def sealed(self, key: AssignmentKey) -> None:
        """Never admit an assignment as open, which is not held."""
        if key in self._looked_up:
            self._looked_up[key] = True
        self._end(key.range_epoch, key.number)

    def was_sealed(self, key: AssignmentKey) -> bool:
        """Whether it was sealed since the look-up of it began that is under way."""
        return self._looked_up.get(key, False)

    def drop(self, number: int) -> None:
        """Never admit anything of an exchange: it is dropped."""
        self._dropped[number] = None
        if len(self._dropped) > REMEMBERED_DROPS:
            self._dropped.popitem(last=False)
        self.end(Going(number))

    def end(self, going: Going) -> None:
        """Never admit assignments as open that are dropped, held or not."""
        for place in {*self._firsts, *self._under_way}:
            if AssignmentKey(going.number, *place) in going:
                self._end(place, going.number)
        for key in self._looked_up:
            if key in going:  # its answer may come when the drop is forgotten
                self._looked_up[key] = True

    def is_dropped(self, number: int) -> bool:
        """Whether an exchange was dropped, of the last that were."""
        return number in self._dropped

    def _end(self, place: RangeEpoch, number: int) -> None:
        under_way = self._under_way.get(place)
        if under_way is not None and under_way.ended is not None:
            under_way.ended.add(number)
            if len(under_way.ended) > MAX_ENDED:
                under_way.ended = None
        record = self._covering(place, number)
        if record is not None:
            record.ended(number)
            self._forget_if_empty(place, record)

    def _forget_if_empty(self, place: RangeEpoch, record: _Record) -> None:
        if record.without.range_cardinality(0, record.size) == record.size:
            self._forget(place, record.first)

    def _forget(self, place: RangeEpoch, first: int) -> None:
        del self._records[place, first]
        firsts = self._firsts[place]
        firsts.remove(first)
        if not firsts:
            del self._firsts[place]
