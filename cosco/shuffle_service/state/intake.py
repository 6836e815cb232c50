"""Takes frames in: those of writers into buffers, those of primaries as copies.

A frame is checked, and its assignment found (looked up where it is not known). A writer's frame
then waits for its turn, is forwarded, and is appended as pages are free; the writer is answered
once it is in and safe. No IO: what a look-up found, and that a turn has come, is told by a call.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

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
from cosco.shuffle_service.state.tenants.tenant_streams import TenantStreams

#: A stream on which no frame came for this long, and nothing is under way, makes room for another
#: one of its tenant.
RESTS_AFTER_S: Final = 1.0
#: Called later with what a look-up found, or why it found nothing.
Found = Callable[[AssignmentBuffers | CoscoError, float], None]
#: Has an assignment looked up. Returns what ends that, so that nobody is told.
LookUp = Callable[[AssignmentKey, Found], Callable[[], object]]


class Intakes:
    """Where the frames of a daemon's streams go.

    count: adds to a metric, by its name. streams: of writers, by tenant.
    """

    def __init__(
        self,
        core: DaemonCore,
        count: Callable[[str, float], None],
        look_up: LookUp,
        streams: TenantStreams | None = None,
    ) -> None:
        self.core = core
        self.streams = streams or TenantStreams()
        self.count = count
        self.look_up = look_up
        self._primaries: dict[int, CopyIntake] = {}

    def open(self, hello: Hello, stream: PushReceiver, now: float, tenant: int = 0) -> Intake:
        """Begin to take in what a sender sends.

        tenant: the tag of a writer's; 0: it is not known. Raises InvalidArgument, and
        ServiceUnavailable if the tenant has as many streams as he may.

        Another stream of the same primary is cut off: frames that are read late from it would
        be stored after they were released.
        """
        if not hello.primary:
            mapper_attempt = MapperAttempt(hello.mapper, hello.attempt)
            writer = WriterIntake(self, hello.number, mapper_attempt, stream, tenant)
            writer.opened(now)
            return writer
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
        self,
        intakes: Intakes,
        number: int,
        mapper_attempt: MapperAttempt,
        stream: PushReceiver,
        tenant: int = 0,
    ) -> None:
        self.tenant = tenant
        self._streams = intakes.streams
        self._stream = stream
        self._used_at = -math.inf
        self._core = intakes.core
        self._count = intakes.count
        #: What is to be counted: frames that are in, their bytes, blocks and rows.
        self._frames = self._bytes = self._blocks = self._duplicates = self._rows = 0
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
        self._waits_since: float | None = None
        self._data = memoryview(b"")
        self._answer: Answer = _unheard
        self._forward: Forward | None = None
        self._next_run = 0
        self._stop_look_up: Callable[[], object] | None = None

    def opened(self, now: float) -> None:
        """Count the stream as its tenant's; raises ServiceUnavailable if he has all he may."""
        self._streams.enter(self.tenant, self, now)
        self._used_at = now

    def make_room(self, now: float) -> bool:
        """See `TenantStream`."""
        if now - self._used_at < RESTS_AFTER_S or not self._stream.rests:
            return False
        self._stream.cut_off()
        return True

    def take_in(self, data: memoryview, answer: Answer, now: float) -> bool:
        """See `Intake`."""
        self._used_at = now
        try:
            frame = _checked(self._core, data, self._number, self._mapper_attempt)
        except CoscoError as error:
            answer(error)
            return True
        self._data, self._answer, self._is_pending = data, answer, True
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
            self._core.tenants.check_may_store(found.tenant)
            found.check_partitions(frame)
            self._answer = self._core.counting(found, frame, self._answer, self._count_mark)
        except CoscoError as error:
            self._end(error, now)
            return
        self._next_run = 0
        queue, turn = self._core.page_queue, self._turn
        if queue.is_empty and self._is_in_at_once(frame, found, now):
            return
        turn.length, turn.tenant = len(self._data), found.tenant
        turn.try_turn = partial(self._try, frame, found)
        queue.enter(turn, now)
        if turn.is_waiting:
            self._waits_since = now
            self._core.kick()  # something is to be written, so that pages are free

    def _is_in_at_once(self, frame: CheckedFrame, held: AssignmentBuffers, now: float) -> bool:
        """Take a frame in that has nobody before it. Returns False if it has to wait."""
        try:
            if not self._try(frame, held, now):
                return False
        except CoscoError as error:
            self._end(error, now)
        else:
            self._end(None, now)
        return True

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
        self._blocks += appended.blocks
        self._duplicates += appended.duplicates
        self._rows += appended.rows
        if appended.next_run < frame.run_count:
            return False
        self._frames += 1
        self._bytes += len(self._data)
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
        self._count_wait(now)
        self._forget_frame()
        if error is not None:
            if forward is not None:
                self._abandon(forward)
            answer(error)
        if self._is_waited_for:
            self._is_waited_for = False
            self.settle(now)
            self._resume(now)

    def _count_wait(self, now: float) -> None:
        if self._waits_since is not None:
            self._count("writers_waited_seconds", max(0.0, now - self._waits_since))
            self._waits_since = None

    def settle(self, now: float) -> None:
        """See `Intake`: count what is in, and look for something to flush."""
        if self._blocks:
            self._count("blocks_received", self._blocks)
            self._count("rows_received", self._rows)
            if self._duplicates:
                self._count("duplicates_dropped", self._duplicates)
            self._blocks = self._duplicates = self._rows = 0
        if self._frames:
            self._count("bytes_received", self._bytes)
            self._frames = self._bytes = 0
            self._core.frame_came(now)

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
        self._streams.leave(self.tenant, self)
        for forward in list(self._unanswered):
            self._abandon(forward)
        self._count_wait(now)
        self.settle(now)
        self._core.hung_up(self._mapper_attempt, self._keys)
        self._forget_frame()
        if self._turn.is_waiting:
            self._core.page_queue.leave(self._turn)
            self._core.changed(now)  # the next in the queue may fit


class CopyIntake:
    """The frames of one primary on one stream. No frame waits for another one.

    Behind a frame there may be the release of what it would wait for. It is no tenant's.
    """

    tenant: Final = 0

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
        held = self._core.find(frame.key)
        if held is None:
            found = partial(self._found, frame, data, answer)
            stop = self._intakes.look_up(frame.key, found)
            self._looking[frame.header.sequence] = answer, stop
        else:
            self._keep(frame, data, answer, held, now)
        return True

    def settle(self, now: float) -> None:
        """See `Intake`: have something flushed if copies wait for pages."""
        if self._core.copies.pages_wanted:
            self._core.kick()

    def _found(
        self,
        frame: CheckedFrame,
        data: memoryview,
        answer: Answer,
        found: AssignmentBuffers | CoscoError,
        now: float,
    ) -> None:
        self._looking.pop(frame.header.sequence, None)
        if isinstance(found, CoscoError):
            answer(found)
        else:
            self._keep(frame, data, answer, found, now)
        self.settle(now)

    def _keep(
        self,
        frame: CheckedFrame,
        data: memoryview,
        answer: Answer,
        held: AssignmentBuffers,
        now: float,
    ) -> None:
        try:
            copy_id = CopyId(self.primary, frame.header.sequence)
            copy = Copy(copy_id, held.key, len(data), data, self, now, answer)
            self._core.keep_copy(held, frame, copy)
        except CoscoError as error:
            answer(error)

    def released(self, sequences: Sequence[int], now: float) -> None:
        """See `Intake`."""
        for sequence in sequences:
            looking = self._looking.pop(sequence, None)
            if looking is not None:  # it need not be stored, wherever
                answer, stop = looking
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
