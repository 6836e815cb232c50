"""What a reader of several partitions asks for at once: commits of all, and one fetch a daemon.

Partitions are read ascending, each by a plan of its own. `SharedReading` knows what the metadata
service told of those that are left, and `SharedPass` which of the plans' fetches one stream of each
daemon answers. `PartReplies` finds in such a stream what belongs to which of them.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from heapq import merge
from itertools import repeat
from typing import Final, NamedTuple

import numpy as np
from pyroaring import BitMap

from cosco.client.read.state.merge import mappers_to_name
from cosco.client.read.state.read_plan import Fetch, asks_for_files, by_trouble
from cosco.errors import InvalidArgument
from cosco.protocol import wire
from cosco.protocol.fetch_records import FetchPart, FetchRequest
from cosco.protocol.keys import RangeEpoch
from cosco.protocol.records import (
    CommitWait,
    DaemonRef,
    ExchangeInfo,
    RangeSnapshot,
    RangesWait,
    ReadSnapshot,
)
from cosco.protocol.wire import spb

#: Streams of one pass, if not even one partition needs more.
MAX_STREAMS: Final = 16


class Question(NamedTuple):
    """Which partitions' commits are asked for; `waits`: the service may wait for them."""

    partitions: BitMap
    waits: bool


class Place(NamedTuple):
    """Where in the reply to a shared request a fetch is answered."""

    daemon: DaemonRef
    part: int


class SharedReading:
    """What is asked for, and known, of the partitions that are left.

    Memory: the last answer of the service, which bounds it, and the partitions.
    """

    def __init__(
        self,
        info: ExchangeInfo,
        partitions: BitMap,
        mappers: BitMap,
        troubled: set[DaemonRef],
    ) -> None:
        """Begin before the first partition.

        mappers: those that are named. troubled: daemons that are asked last.
        """
        self._number = info.number
        self._capability = info.capability
        self._ends = [one.end for one in info.ranges]
        self._left = partitions.copy()
        self._mappers = mappers
        self._partition = partitions.min()
        self._troubled = troubled
        self._has_asked = self._has_taken = False  # of the partition at its turn
        # What was told of the partitions from that one on, without a gap; those of the present
        # pass are in it no more.
        self._told: deque[RangeSnapshot] = deque()
        self._snapshots: Iterator[tuple[int, ReadSnapshot]] = iter(())
        #: What is fetched together now; None: nothing is.
        self.shared_pass: SharedPass | None = None

    def come_to(self, partition: int) -> None:
        """Note that all partitions before this one are done."""
        self._left.remove_range(0, partition)
        self._partition = partition
        self._has_asked = self._has_taken = False

    def take(self) -> ReadSnapshot | None:
        """Return, once, what is known already of the partition at its turn."""
        if self._has_taken:
            return None
        found = next(self._snapshots, None)
        if found is None and self._told:
            self._begin_pass()
            found = next(self._snapshots)
        if found is None:
            return None
        assert found[0] == self._partition  # as there is no gap
        self._has_taken = True
        return found[1]

    def question(self) -> Question:
        """Return what to ask the service, since `take` had nothing."""
        self.end_pass()
        if self._has_taken:
            return Question(BitMap((self._partition,)), waits=True)
        if not self._has_asked:
            return Question(self._left, waits=False)
        end = next(end for end in self._ends if end > self._partition)
        return Question(self._left & BitMap(range(self._partition, end)), waits=True)

    def told(self, wait: RangesWait) -> CommitWait:
        """Note the answer to `question`, and return what it says of the partition at its turn."""
        self._has_asked = True
        self._told = self._next_ones(wait.ranges)
        if self._has_taken and self._told:  # its plan renews what it knew, and goes on alone
            snapshot: ReadSnapshot | None = next(self._told.popleft().snapshots())[1]
            self._told.clear()
        else:
            snapshot = self.take()
        if snapshot is not None:
            return CommitWait(snapshot)
        return CommitWait(None, wait.missing, wait.recompute)

    def end_pass(self) -> None:
        """Have everything that was told, and is not taken, asked for again."""
        self._told.clear()
        self._snapshots = iter(())
        self.shared_pass = None

    def _next_ones(self, ranges: Sequence[RangeSnapshot]) -> deque[RangeSnapshot]:
        """Return of what was told the partitions that are next, as far as there is no gap.

        An answer that has others, or is in another order, is one with a gap.
        """
        found: deque[RangeSnapshot] = deque()
        left = np.array(self._left.to_array(), dtype=np.uint32)
        for one in ranges:
            expected = left[: len(one.partitions)]
            same = one.partitions[: len(expected)] == expected
            count = int(np.argmin(same)) if not same.all() else len(same)
            if count:
                found.append(one if count == len(one.partitions) else _first(one, count))
            if count < len(one.partitions):
                break
            left = left[count:]
        return found

    def _begin_pass(self) -> None:
        """Begin a pass with what was told next."""
        chosen = _for_one_pass(self._told, self._troubled)
        for _ in chosen:
            self._told.popleft()
        self._snapshots = (pair for one in chosen for pair in one.snapshots())
        self.shared_pass = SharedPass(
            self._number, chosen, self._mappers, self._troubled, self._capability
        )


class SharedPass:
    """Some partitions, and the one request for them that goes to each daemon."""

    def __init__(
        self,
        number: int,
        ranges: Sequence[RangeSnapshot],
        mappers: BitMap,
        troubled: set[DaemonRef],
        capability: str,
    ) -> None:
        """Decide whom to ask for what.

        mappers: those that are named. capability: what daemons are shown.
        """
        parts: dict[DaemonRef, list[FetchPart]] = {}
        to_name = BitMap()
        self._places: dict[RangeEpoch, Place] = {}
        for one in ranges:
            to_name |= mappers_to_name(one.common, mappers)
            wanted = BitMap(one.partitions[one.rows > 0].tolist())
            for source in one.common.sources if wanted else ():
                for daemon in by_trouble(source, troubled)[:1]:
                    key = RangeEpoch(source.range_index, source.epoch)
                    of_daemon = parts.setdefault(daemon, [])
                    self._places[key] = Place(daemon, len(of_daemon))
                    files = asks_for_files(source, daemon)
                    of_daemon.append(FetchPart(*key, wanted, files))
        #: What each daemon is asked for.
        self.requests: Final = {
            daemon: FetchRequest(number, tuple(of_daemon), to_name, capability=capability)
            for daemon, of_daemon in parts.items()
        }

    def place(self, fetch: Fetch) -> Place | None:
        """Return where a plan's fetch is answered, if it is."""
        place = self._places.get(RangeEpoch(fetch.source.range_index, fetch.source.epoch))
        if fetch.whole or place is None or place.daemon != fetch.daemon:
            return None
        part = self.requests[place.daemon].parts[place.part]
        return place if part.files == fetch.files else None


class PartReplies:
    """The replies of one daemon to a request of several parts, cut at their ends."""

    def __init__(self, parts: Sequence[FetchPart], replies: Iterator[wire.FetchReply]) -> None:
        """Begin. replies: raises if the call fails."""
        self._parts = parts
        self._replies = replies
        # The ends that are still to come, as a daemon sends them: by partition, then by part.
        self._order = merge(*(zip(part.partitions, repeat(i)) for i, part in enumerate(parts)))
        self._next = next(self._order, None)
        self._begun: tuple[int, int] | None = None

    def has(self, part: int, partition: int) -> bool:
        """Whether the replies of one partition of one part are all to come."""
        place = partition, part
        return (
            partition in self._parts[part].partitions
            and self._next is not None
            and self._next <= place != self._begun
        )

    def of(self, part: int, partition: int) -> Iterator[memoryview | spb.Section]:
        """Yield the replies of one partition of one part, which are to come.

        Those before are passed over.

        Raises: InvalidArgument where they do not follow each other as they must.
        """
        while self._next != (partition, part):
            for _ in self._until_end():
                pass
        self._begun = self._next
        yield from self._until_end()

    def _until_end(self) -> Iterator[memoryview | spb.Section]:
        """Yield what comes before the next end."""
        for reply in self._replies:
            if not isinstance(reply, spb.PartEnd):
                yield reply
                continue
            if (reply.partition, reply.part) != self._next:
                raise InvalidArgument(
                    f"part {reply.part} of partition {reply.partition} ends out of its turn"
                )
            self._next = next(self._order, None)
            return
        raise InvalidArgument("the stream ended before its last part did")


def _for_one_pass(told: Iterable[RangeSnapshot], troubled: set[DaemonRef]) -> list[RangeSnapshot]:
    """Return of what was told as much as goes into one pass, from the first one on."""
    chosen: list[RangeSnapshot] = []
    parts: Counter[DaemonRef] = Counter()
    partitions = 0
    for one in told:
        sources = one.common.sources
        parts.update(d for source in sources for d in by_trouble(source, troubled)[:1])
        partitions += len(one.partitions) * len(sources)
        fits = (
            len(parts) <= MAX_STREAMS
            and max(parts.values(), default=0) <= wire.MAX_FETCH_PARTS
            and partitions <= wire.MAX_FETCH_PARTITIONS
        )
        if chosen and not fits:
            break
        chosen.append(one)
    return chosen


def _first(one: RangeSnapshot, count: int) -> RangeSnapshot:
    """Return what is told of the first partitions alone."""
    return replace(
        one,
        partitions=one.partitions[:count],
        rows=one.rows[:count],
        raw_bytes=one.raw_bytes[:count],
        digests=one.digests[:count],
    )
