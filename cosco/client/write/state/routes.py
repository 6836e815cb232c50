"""Where a writer's frames go, what of them is acknowledged, and by whom: no IO, no threads.

Every range has one current assignment. A frame is stamped for it and kept in the lane of its
primary until that daemon acknowledges it. A newer assignment takes over whatever the one
before has not acknowledged: the same blocks under a new header. So a frame counts once, by
the epoch that was current when it was acknowledged; what older epochs say later is ignored.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

from cosco.client.write.state.framing import PackedFrame
from cosco.format.frame import (
    FRAME_HEADER_BYTES,
    FrameHeader,
    encode_frame_header,
    parse_frame_header,
)
from cosco.protocol.push.window import OutFrame, PushWindow
from cosco.protocol.records import Assignment, DaemonRef

#: Makes the message to send of a frame's parts, its header first, and ends it with them.
Wrap = Callable[[Sequence[bytes | memoryview]], bytes]

Pair = tuple[int, int]  # (range, epoch)


@dataclass(slots=True, eq=False)
class Lane:
    """The frames for one daemon. A lane that was released is never used again."""

    ref: DaemonRef
    window: PushWindow = field(default_factory=PushWindow)
    sequence: int = 0  # of the latest frame


class Routes:
    """The current assignment of each range, and the frames on their way."""

    def __init__(self, number: int, assignments: Iterable[Assignment], wrap: Wrap) -> None:
        """`number` is the exchange's; `assignments` are the current ones of all ranges."""
        self._number = number
        self._wrap = wrap
        self._current = {a.range_index: a for a in assignments}
        self._lanes: dict[DaemonRef, Lane] = {}
        self._acknowledged: set[Pair] = set()
        self._unacknowledged: Counter[int] = Counter()  # frames, by range
        #: Frames that are not acknowledged, and their bytes, headers included.
        self.frames = 0
        self.frame_bytes = 0

    def current(self, range_index: int) -> Assignment:
        return self._current[range_index]

    def lanes(self) -> list[Lane]:
        """Those that have frames, or got some and are still routed to."""
        return list(self._lanes.values())

    def put(self, packed: PackedFrame) -> Lane:
        """Stamp a frame for the current assignment of its range; the lane it is in now."""
        assignment = self._current[packed.range_index]
        lane = self._lane(assignment.primary)
        header = FrameHeader(
            exchange=self._number,
            incarnation=assignment.primary.incarnation,
            sequence=lane.sequence + 1,
            range_index=assignment.range_index,
            epoch=assignment.epoch,
            body_bytes=packed.body_bytes,
            blocks=packed.blocks,
        )
        frame = self._add(lane, header, packed.parts)
        self.frames += 1
        self.frame_bytes += frame.frame_bytes
        self._unacknowledged[packed.range_index] += 1
        return lane

    def acknowledge(self, lane: Lane, sequences: Iterable[int]) -> int:
        """A daemon holds frames: how many of them are settled by that.

        Frames that were moved elsewhere are not. Raises ProtocolBroken.
        """
        settled = lane.window.acknowledged(sequences)
        for frame in settled:
            self.frames -= 1
            self.frame_bytes -= frame.frame_bytes
            self._unacknowledged[frame.range_index] -= 1
            self._acknowledged.add((frame.range_index, frame.epoch))
        return len(settled)

    def is_settled(self, range_index: int) -> bool:
        """Whether every frame to a range is acknowledged."""
        return not self._unacknowledged[range_index]

    def acknowledged(self) -> tuple[Pair, ...]:
        """The pairs that acknowledged frames while they were current: what a commit names."""
        return tuple(sorted(self._acknowledged))

    def renew(self, assignments: Iterable[Assignment]) -> list[Pair]:
        """Take note of assignments, and move frames to the newer ones; the pairs that ended.

        What is not newer than what is known, or of no range of the exchange, does nothing.
        """
        stale: list[Pair] = []
        for assignment in assignments:
            old = self._current.get(assignment.range_index)
            if old is None or assignment.epoch <= old.epoch:
                continue
            self._current[assignment.range_index] = assignment
            stale.append((old.range_index, old.epoch))
            lane = self._lanes.get(old.primary)
            if lane is not None:
                for frame in lane.window.take(old.range_index, old.epoch):
                    self._restamp(frame, assignment)
        return stale

    def stale(self, pairs: Iterable[Pair]) -> set[Pair]:
        """Those of `pairs` whose range has a newer assignment."""
        return {(index, epoch) for index, epoch in pairs if self._current[index].epoch > epoch}

    def routed_to(self, ref: DaemonRef) -> set[Pair]:
        """The current pairs whose primary is `ref`; frames in its lane have no other."""
        return {(a.range_index, a.epoch) for a in self._current.values() if a.primary == ref}

    def release(self) -> list[Lane]:
        """Forget the lanes without frames that nothing is routed to any more; them."""
        needed = {a.primary for a in self._current.values()}
        idle = [
            lane for ref, lane in self._lanes.items() if ref not in needed and not len(lane.window)
        ]
        for lane in idle:
            del self._lanes[lane.ref]
        return idle

    def _lane(self, ref: DaemonRef) -> Lane:
        lane = self._lanes.get(ref)
        if lane is None:
            lane = self._lanes[ref] = Lane(ref)
        return lane

    def _restamp(self, frame: OutFrame, assignment: Assignment) -> None:
        """Put the blocks of a frame under a header for another assignment of its range."""
        data = memoryview(frame.message)[-frame.frame_bytes :]
        lane = self._lane(assignment.primary)
        header = replace(
            parse_frame_header(data),
            incarnation=assignment.primary.incarnation,
            sequence=lane.sequence + 1,
            epoch=assignment.epoch,
        )
        self._add(lane, header, (data[FRAME_HEADER_BYTES:],))

    def _add(self, lane: Lane, header: FrameHeader, body: Sequence[bytes | memoryview]) -> OutFrame:
        lane.sequence = header.sequence
        frame = OutFrame(
            sequence=header.sequence,
            range_index=header.range_index,
            epoch=header.epoch,
            frame_bytes=FRAME_HEADER_BYTES + header.body_bytes,
            message=self._wrap((encode_frame_header(header), *body)),
        )
        lane.window.add(frame)
        return frame
