"""Takes frames in: those of writers into buffers, those of primaries as copies.

A frame is checked, and its assignment found (looked up where it is not known). A writer's frame
then waits for its turn, is forwarded, and is appended as pages are free; the writer is answered
once it is in and safe. No IO: what a look-up found, and that a turn has come, is told by a call.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from cosco.errors import CoscoError, DataCorrupted, ExchangeClosed, InvalidArgument
from cosco.format.frame import FRAME_HEADER_BYTES
from cosco.protocol.keys import AssignmentKey, CopyId, MapperAttempt
from cosco.protocol.push.answers import Answer, NotAssigned
from cosco.protocol.push.messages import Hello
from cosco.protocol.push.receiver import Intake, PushReceiver
from cosco.protocol.records import DaemonRef
from cosco.shuffle_service.state.buffers import mechanics_choice
from cosco.shuffle_service.state.buffers.assignments import AssignmentBuffers
from cosco.shuffle_service.state.buffers.frame_check import CheckedFrame
from cosco.shuffle_service.state.core import DaemonCore
from cosco.shuffle_service.state.page_queue import Turn
from cosco.shuffle_service.state.replication.copy_log import Copy
from cosco.shuffle_service.state.replication.replica import Forward

#: Called later with what a look-up found, or why it found nothing.
Found = Callable[[AssignmentBuffers | CoscoError, float], None]
#: Has an assignment looked up. Returns what ends that, so that nobody is told.
LookUp = Callable[[AssignmentKey, Found], Callable[[], object]]


class Intakes:
    """Where the frames of a daemon's streams go.

    count: adds to a metric, by its name.
    """

    def __init__(
        self, core: DaemonCore, count: Callable[[str, int], None], look_up: LookUp
    ) -> None:
        self.core = core
        self.count = count
        self.look_up = look_up
        self._primaries: dict[int, CopyIntake] = {}

    def open(self, hello: Hello, stream: PushReceiver, now: float) -> Intake:
        """Begin to take in what a sender sends; raises InvalidArgument.

        Another stream of the same primary is cut off: frames that are read late from it would
        be stored after they were released.
        """
        if not hello.primary:
            mapper_attempt = MapperAttempt(hello.mapper, hello.attempt)
            return WriterIntake(self, hello.number, mapper_attempt, stream)
        if hello.primary == self.core.incarnation:
            raise InvalidArgument("a daemon that forwards frames to itself")
        before = self._primaries.get(hello.primary)
        if before is not None:
            before.hung_up(now)
            before.stream.cut_off()
        intake = self._primaries[hello.primary] = CopyIntake(self, hello.primary, stream)
        return intake

    def closed(self, intake: CopyIntake) -> None:
        """Forget a primary's stream that has ended."""
        if self._primaries.get(intake.primary) is intake:
            del self._primaries[intake.primary]

    def tell_primaries(self) -> None:
        """Have primaries told how much should stay here."""
        for intake in self._primaries.values():
            intake.stream.tell()


class WriterIntake:
    """The frames of one writer on one stream, one after the other."""

    def __init__(
        self, intakes: Intakes, number: int, mapper_attempt: MapperAttempt, stream: PushReceiver
    ) -> None:
        self._core = intakes.core
        self._count = intakes.count
        self._count_mark = partial(intakes.count, "marks", 1)
        self._look_up = intakes.look_up
        self._resume = stream.resume
        self._number = number
        self._mapper_attempt = mapper_attempt
        self._keys: set[AssignmentKey] = set()
        self._unanswered: dict[Forward, None] = {}
        self._turn = Turn("memory is full and", _nothing_yet, self._end)
        # The frame that is being taken in, if any:
        self._is_pending = self._is_waited_for = False
        self._data = memoryview(b"")
        self._answer: Answer = _unheard
        self._forward: Forward | None = None
        self._next_run = 0
        self._stop_look_up: Callable[[], object] | None = None

    def take_in(self, data: memoryview, answer: Answer, now: float) -> bool:
        """See `Intake`."""
        self._data, self._answer, self._is_pending = data, answer, True
        try:
            frame = _checked(self._core, data, self._number, self._mapper_attempt)
        except CoscoError as error:
            self._end(error, now)
            return True
        held = self._core.find(frame.key)
        if held is None:
            self._stop_look_up = self._look_up(frame.key, partial(self._found, frame))
        else:
            self._found(frame, held, now)
        self._is_waited_for = self._is_pending
        return not self._is_pending

    def _found(
        self, frame: CheckedFrame, found: AssignmentBuffers | CoscoError, now: float
    ) -> None:
        self._stop_look_up = None
        try:
            if isinstance(found, CoscoError):
                raise found
            found.check_partitions(frame)
            self._answer = self._core.counting(found, frame, self._answer, self._count_mark)
        except CoscoError as error:
            self._end(error, now)
            return
        self._next_run = 0
        self._turn.length = len(self._data)
        self._turn.try_turn = partial(self._try, frame, found)
        self._core.page_queue.enter(self._turn, now)
        if self._turn.is_waiting:
            self._core.kick()  # something is to be written, so that pages are free

    def _try(self, frame: CheckedFrame, held: AssignmentBuffers, now: float) -> bool:
        """Forward the frame, append what pages are free for. Returns whether all of it is in."""
        core = self._core
        if core.is_dropped(held.key.number):
            raise ExchangeClosed(f"exchange {held.key.number} is closed")
        if held.replica is not None and self._forward is None:
            held.check_takes_in(0)
            if core.replication.is_full:
                return False
            self._forward = self._begin_forward(frame, held, held.replica, now)
        appended = core.append_frame(held, frame, self._next_run)
        self._next_run = appended.next_run
        self._count("blocks_received", appended.blocks)
        if appended.duplicates:
            self._count("duplicates_dropped", appended.duplicates)
        if appended.next_run < frame.run_count:
            return False
        self._count("bytes_received", len(self._data))
        self._keys.add(held.key)
        if self._forward is None:
            self._answer(None)
        else:
            self._forward.replica.taken(self._forward, held.unstored_chunks(frame))
        return True

    def _begin_forward(
        self, frame: CheckedFrame, held: AssignmentBuffers, replica: DaemonRef, now: float
    ) -> Forward:
        answer = self._answer

        def answered(error: CoscoError | None) -> None:
            self._unanswered.pop(forward, None)
            answer(error)

        forward = self._core.replication.forward(
            held.key,
            replica,
            frame.header,
            self._data[FRAME_HEADER_BYTES:],
            now=now,
            answer=answered,
            is_mark=not frame.run_count,
        )
        self._unanswered[forward] = None
        return forward

    def _end(self, error: CoscoError | None, now: float) -> None:
        """Go on with the next frame: this one is in buffers, or will not be."""
        forward, answer = self._forward, self._answer
        self._forget_frame()
        if error is None:
            self._core.frame_came(now)
        else:
            if forward is not None:
                self._abandon(forward)
            answer(error)
        if self._is_waited_for:
            self._is_waited_for = False
            self._resume(now)

    def _forget_frame(self) -> None:
        self._is_pending, self._forward = False, None
        self._data, self._answer = memoryview(b""), _unheard
        self._turn.try_turn = _nothing_yet

    def _abandon(self, forward: Forward) -> None:
        self._unanswered.pop(forward, None)
        forward.replica.abandon(forward)

    def released(self, sequences: Sequence[int], now: float) -> None:
        """See `Intake`; only primaries release."""
        raise InvalidArgument("a writer's stream that releases frames")

    def max_bytes(self) -> int:
        """See `Intake`."""
        return 0

    def hung_up(self, now: float) -> None:
        """See `Intake`."""
        if self._stop_look_up is not None:
            self._stop_look_up()
            self._stop_look_up = None
        for forward in list(self._unanswered):
            self._abandon(forward)
        self._core.hung_up(self._mapper_attempt, self._keys)
        self._forget_frame()
        if self._turn.is_waiting:
            self._core.page_queue.leave(self._turn)
            self._core.changed(now)  # the next in the queue may fit


class CopyIntake:
    """The frames of one primary on one stream. No frame waits for another one.

    Behind a frame there may be the release of what it would wait for.
    """

    def __init__(self, intakes: Intakes, primary: int, stream: PushReceiver) -> None:
        self.primary = primary
        self.stream = stream
        self._intakes = intakes
        self._core = intakes.core
        #: By sequence: whom to answer, and what ends the look-up.
        self._looking: dict[int, tuple[Answer, Callable[[], object]]] = {}

    def take_in(self, data: memoryview, answer: Answer, now: float) -> bool:
        """See `Intake`."""
        try:
            frame = _checked(self._core, data)
            if frame.header.sequence in self._looking:
                raise DataCorrupted("a frame that came again before it was answered")
        except CoscoError as error:
            answer(error)
            return True
        found = partial(self._found, frame, data, answer)
        held = self._core.find(frame.key)
        if held is None:
            stop = self._intakes.look_up(frame.key, found)
            self._looking[frame.header.sequence] = answer, stop
        else:
            found(held, now)
        return True

    def _found(
        self,
        frame: CheckedFrame,
        data: memoryview,
        answer: Answer,
        found: AssignmentBuffers | CoscoError,
        now: float,
    ) -> None:
        self._looking.pop(frame.header.sequence, None)
        try:
            if isinstance(found, CoscoError):
                raise found
            copy_id = CopyId(self.primary, frame.header.sequence)
            copy = Copy(copy_id, found.key, len(data), data, self, now, answer)
            self._core.keep_copy(found, frame, copy)
        except CoscoError as error:
            answer(error)
        if self._core.copies.pages_wanted:
            self._core.kick()

    def released(self, sequences: Sequence[int], now: float) -> None:
        """See `Intake`."""
        for sequence in [one for one in sequences if one in self._looking]:
            answer, stop = self._looking.pop(sequence)  # it need not be stored, wherever
            stop()
            answer(None)
        self._core.copies.released(self.primary, sequences)
        self._core.changed(now)

    def max_bytes(self) -> int:
        """See `Intake`."""
        return self._core.copies.max_bytes_of(self.primary)

    def hung_up(self, now: float) -> None:
        """See `Intake`."""
        for _, stop in self._looking.values():
            stop()
        self._looking.clear()
        self._core.copies.hung_up(self)
        self._intakes.closed(self)
        self._core.changed(now)


def _checked(
    core: DaemonCore,
    data: memoryview,
    number: int | None = None,
    mapper_attempt: MapperAttempt | None = None,
) -> CheckedFrame:
    """Check a frame, and that it is meant for this start of the daemon.

    Raises DataCorrupted or NotAssigned.
    """
    frame = mechanics_choice.CHOSEN.check_frame(data, number, mapper_attempt)
    if frame.header.incarnation != core.incarnation:
        raise NotAssigned("the frame is meant for another start of this daemon")
    return frame


def _unheard(_: CoscoError | None) -> None:
    """Nobody waits for an answer."""


def _nothing_yet(_: float) -> bool:
    raise AssertionError("there is no frame to take in")
