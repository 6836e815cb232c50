"""The bookkeeping of one push stream: which frame may be sent, which must be sent again.

A frame is announced, granted, sent and acknowledged, in that order, and kept until it is
acknowledged; what fits into the bytes that a daemon allows for it is sent eagerly, without
announcement and grant. When the stream breaks, everything that is kept begins anew on the next one;
the frames stay the same, so a daemon recognises what it already has. Frames whose
assignment has ended are taken out, to go elsewhere.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

#: A daemon that finds a frame broken gets it so many times more: the fault may be the way's.
MAX_RESENDS: Final = 3


class ProtocolBroken(Exception):
    """The daemon said something that makes no sense on this stream."""


@dataclass(slots=True, eq=False)
class OutFrame:
    """A frame as it is kept until it is acknowledged.

    `message` is the serialized PushRequest, `frame_bytes` the length of the frame in it.
    """

    sequence: int
    range_index: int
    epoch: int
    frame_bytes: int
    message: bytes
    resends: int = 0


class PushWindow:
    """The unacknowledged frames for one daemon. Not safe for threads."""

    def __init__(self) -> None:
        self._kept: dict[int, OutFrame] = {}  # by sequence, in the order of `add`
        # The stages of a kept frame on the present stream:
        self._unannounced: deque[OutFrame] = deque()
        self._announced: deque[OutFrame] = deque()
        self._sent: set[int] = set()
        self._taken: set[int] = set()  # sent on the present stream, and taken since
        self._has_gap = False
        self._eager_limit = self._eager_bytes = 0
        self._eager: dict[int, int] = {}  # bytes of those among the sent and the taken

    def __len__(self) -> int:
        """The number of frames that are not acknowledged."""
        return len(self._kept)

    @property
    def is_under_way(self) -> bool:
        """Whether the daemon will say something yet about a frame that it knows of."""
        return bool(self._announced or self._sent or self._taken)

    @property
    def has_gap(self) -> bool:
        """Whether announced frames were taken: their grants would come for what is not here
        any more, so nothing goes out until a new stream begins."""
        return self._has_gap

    def pairs(self) -> set[tuple[int, int]]:
        """The (range, epoch) pairs of the frames that are not acknowledged."""
        return {(frame.range_index, frame.epoch) for frame in self._kept.values()}

    def add(self, frame: OutFrame) -> None:
        """Keep a new frame and have it announced."""
        self._kept[frame.sequence] = frame
        self._unannounced.append(frame)

    def take(self, range_index: int, epoch: int) -> list[OutFrame]:
        """Give up the unacknowledged frames of an assignment, whatever their stage, in order.

        What the daemon still says of them on the present stream is ignored.
        """
        taken = {
            sequence: frame
            for sequence, frame in self._kept.items()
            if frame.range_index == range_index and frame.epoch == epoch
        }
        for sequence in taken:
            del self._kept[sequence]
        self._unannounced = deque(f for f in self._unannounced if f.sequence not in taken)
        announced = len(self._announced)
        self._announced = deque(f for f in self._announced if f.sequence not in taken)
        self._has_gap = self._has_gap or len(self._announced) < announced
        self._taken |= self._sent & taken.keys()
        self._sent -= taken.keys()
        return list(taken.values())

    def restart(self) -> None:
        """A new stream begins: announce all that is kept again, in order."""
        self._unannounced = deque(self._kept.values())
        self._announced.clear()
        self._sent.clear()
        self._taken.clear()
        self._has_gap = False
        self._eager.clear()
        self._eager_limit = self._eager_bytes = 0

    def allow_eager(self, limit_bytes: int) -> None:
        """So many bytes of frames may be on their way eagerly on the present stream."""
        self._eager_limit = limit_bytes

    def send_eagerly(self, first_bytes: int | None = None) -> list[OutFrame]:
        """The frames to send now without asking, in order. first_bytes: the first one alone, if
        it is no longer than that."""
        frames: list[OutFrame] = []
        while self._unannounced and not self._has_gap:
            length = self._unannounced[0].frame_bytes
            if self._eager_bytes + length > self._eager_limit:
                break
            if first_bytes is not None and (frames or length > first_bytes):
                break
            frame = self._unannounced.popleft()
            self._sent.add(frame.sequence)
            self._eager[frame.sequence] = length
            self._eager_bytes += length
            frames.append(frame)
        return frames

    def announce(self) -> list[int]:
        """The lengths of the frames to announce now, in order."""
        if self._has_gap:
            return []
        lengths = [frame.frame_bytes for frame in self._unannounced]
        self._announced += self._unannounced
        self._unannounced.clear()
        return lengths

    def granted(self, count: int) -> list[OutFrame]:
        """The frames to send as `count` more of the announced ones were granted.

        Raises ProtocolBroken when fewer are announced.
        """
        if self._has_gap:
            return []
        if count > len(self._announced):
            raise ProtocolBroken(f"it granted {count} frames of {len(self._announced)}")
        frames = [self._announced.popleft() for _ in range(count)]
        self._sent.update(frame.sequence for frame in frames)
        return frames

    def acknowledged(self, sequences: Iterable[int]) -> list[OutFrame]:
        """The frames that need not be kept any more.

        Raises ProtocolBroken for one that was not sent on this stream.
        """
        answered = [sequence for sequence in sequences if self._is_answered(sequence)]
        return [self._kept.pop(sequence) for sequence in answered]

    def refused(self, sequence: int) -> OutFrame | None:
        """Note that the daemon did not take a frame; the frame, which stays kept.

        None if it was taken from here meanwhile. Raises ProtocolBroken as `acknowledged`.
        """
        return self._kept[sequence] if self._is_answered(sequence) else None

    def resend(self, frame: OutFrame) -> bool:
        """Announce a refused frame once more; False if that was done often enough."""
        if frame.resends >= MAX_RESENDS:
            return False
        frame.resends += 1
        self._unannounced.append(frame)
        return True

    def _is_answered(self, sequence: int) -> bool:
        """Note an answer to a frame that was sent; False if the frame was taken since."""
        self._eager_bytes -= self._eager.pop(sequence, 0)
        if sequence in self._sent:
            self._sent.discard(sequence)
            return True
        if sequence in self._taken:
            self._taken.discard(sequence)
            return False
        raise ProtocolBroken(f"it answered frame {sequence}, which was not sent")
