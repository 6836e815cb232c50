"""Where a writer's frames go, what of them is acknowledged, and by whom: no IO, no threads.

Every range has one current assignment. A frame is stamped for it and kept in the lane of its
primary until that daemon acknowledges it. A newer assignment takes over whatever the one
before has not acknowledged: the same blocks under a new header. So a frame counts once, by
the epoch that was current when it was acknowledged; what older epochs say later is ignored.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from cosco.client.write.state.framing import PackedFrame
from cosco.format.frame import FrameHeader
from cosco.protocol.keys import RangeEpoch
from cosco.protocol.push.messages import Hello, PushReply
from cosco.protocol.push.sender import Answered, OutFrame, PushSender
from cosco.protocol.records import Assignment, DaemonRef, OpenedAttempt

#: Unacknowledged frames of one writer, over all its daemons; one frame always passes.
WINDOW_BYTES: Final = 16 << 20
#: And their number: small frames cost a daemon more than their bytes.
WINDOW_FRAMES: Final = 1024


@dataclass(slots=True, eq=False)
class Lane:
    """The frames for one daemon. A lane that was released is never used again."""

    ref: DaemonRef
    sender: PushSender
    sequence: int = 0  # of the latest frame


class Routes:
    """The current assignment of each range, and the frames on their way."""

    def __init__(self, opened: OpenedAttempt) -> None:
        self._opened = opened
        self._current = {a.range_index: a for a in opened.info.assignments}
        self._lanes: dict[DaemonRef, Lane] = {}
        self._acknowledged: set[RangeEpoch] = set()
        self._unacknowledged: Counter[int] = Counter()  # frames, by range
        #: Frames that are not acknowledged, and their bytes, headers included.
        self.frames = 0
        self.frame_bytes = 0

    def current(self, range_index: int) -> Assignment:
        """Return the newest assignment of a range that is known."""
        return self._current[range_index]

    def lanes(self) -> list[Lane]:
        """Return the lanes that have frames, or got some and are still routed to."""
        return list(self._lanes.values())

    def has_room(self, frame_bytes: int) -> bool:
        """Whether one more frame of this length fits into the writer's window."""
        fits = self.frame_bytes + frame_bytes <= WINDOW_BYTES and self.frames < WINDOW_FRAMES
        return fits or not self.frames

    def put(self, packed: PackedFrame) -> Lane:
        """Stamp a frame for the current assignment of its range.

        Returns: the lane it is in now.
        """
        assignment = self._current[packed.range_index]
        lane = self._lane(assignment.primary)
        header = FrameHeader(
            exchange=self._opened.info.number,
            incarnation=assignment.primary.incarnation,
            sequence=lane.sequence + 1,
            range_index=assignment.range_index,
            epoch=assignment.epoch,
            body_bytes=packed.body_bytes,
            blocks=packed.blocks,
        )
        frame = _add(lane, header, packed.parts)
        self.frames += 1
        self.frame_bytes += frame.frame_bytes
        self._unacknowledged[packed.range_index] += 1
        return lane

    def on_reply(self, lane: Lane, reply: PushReply) -> Answered:
        """Take note of what a daemon said: what it acknowledged counts; raises ProtocolBroken.

        Returns: what was answered of frames that were not moved elsewhere.
        """
        answered = lane.sender.on_reply(reply)
        for frame in answered.acknowledged:
            self.frames -= 1
            self.frame_bytes -= frame.frame_bytes
            self._unacknowledged[frame.header.range_index] -= 1
            self._acknowledged.add(frame.range_epoch)
        return answered

    def is_acknowledged(self, range_index: int) -> bool:
        """Whether every frame to a range is acknowledged."""
        return not self._unacknowledged[range_index]

    def acknowledged(self) -> tuple[RangeEpoch, ...]:
        """Return the epochs that acknowledged frames while they were current, for the commit."""
        return tuple(sorted(self._acknowledged))

    def renew(self, assignments: Iterable[Assignment]) -> list[RangeEpoch]:
        """Take note of assignments, and move frames to the newer ones.

        What is not newer than what is known, or of no range of the exchange, does nothing.
        Returns: the epochs that ended.
        """
        ended: list[RangeEpoch] = []
        for assignment in assignments:
            old = self._current.get(assignment.range_index)
            if old is None or assignment.epoch <= old.epoch:
                continue
            self._current[assignment.range_index] = assignment
            ended.append(RangeEpoch(old.range_index, old.epoch))
            if (lane := self._lanes.get(old.primary)) is not None:
                frames = lane.sender.stamped_for(ended[-1])
                lane.sender.withdraw(frames)
                for frame in frames:
                    self._restamp(frame, assignment)
        return ended

    def stale(self, range_epochs: Iterable[RangeEpoch]) -> set[RangeEpoch]:
        """Return those whose range has a newer assignment."""
        return {one for one in range_epochs if self._current[one.range_index].epoch > one.epoch}

    def routed_to(self, ref: DaemonRef) -> set[RangeEpoch]:
        """Return the current epochs whose primary is `ref`; frames in its lane have no other."""
        current = (a for a in self._current.values() if a.primary == ref)
        return {RangeEpoch(a.range_index, a.epoch) for a in current}

    def retire(self) -> list[Lane]:
        """Forget the lanes without frames that nothing is routed to any more, and return them."""
        needed = {a.primary for a in self._current.values()}
        idle = [
            lane for ref, lane in self._lanes.items() if ref not in needed and not len(lane.sender)
        ]
        for lane in idle:
            del self._lanes[lane.ref]
        return idle

    def _lane(self, ref: DaemonRef) -> Lane:
        lane = self._lanes.get(ref)
        if lane is None:
            opened = self._opened
            info = opened.info
            hello = Hello(
                info.number,
                opened.mapper,
                opened.attempt,
                ref.incarnation,
                capability=info.capability,
            )
            lane = self._lanes[ref] = Lane(ref, PushSender(hello))
        return lane

    def _restamp(self, frame: OutFrame, assignment: Assignment) -> None:
        """Put the blocks of a frame under a header for another assignment of its range."""
        lane = self._lane(assignment.primary)
        header = frame.header._replace(
            incarnation=assignment.primary.incarnation,
            sequence=lane.sequence + 1,
            epoch=assignment.epoch,
        )
        _add(lane, header, frame.payload)


def _add(lane: Lane, header: FrameHeader, payload: object) -> OutFrame:
    lane.sequence = header.sequence
    frame = OutFrame(header, payload)
    lane.sender.add(frame)
    return frame
