"""Daemons' decisions with a network and a store that a test moves by hand: no IO, no clock."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from support.daemon_mechanics import check_frame
from support.frame_making import EXCHANGE, frame
from support.segments import chunks_of

from cosco.errors import CoscoError
from cosco.format.block import walk_blocks
from cosco.format.chunk import CHUNK_HEADER_BYTES
from cosco.format.frame import FRAME_HEADER_BYTES, encode_frame_header
from cosco.protocol.keys import AssignmentKey
from cosco.protocol.push.answers import Answer
from cosco.protocol.push.messages import Hello, PushReply, PushRequest, Refusal, RefusalCode
from cosco.protocol.push.receiver import Intake
from cosco.protocol.push.sender import OutFrame
from cosco.protocol.records import Assignment, DaemonRef, PartitionRange
from cosco.shuffle_service.state.buffers.frame_check import CheckedFrame
from cosco.shuffle_service.state.buffers.pool import MAX_PAGE_BYTES
from cosco.shuffle_service.state.core import DaemonCore
from cosco.shuffle_service.state.intake import Found, Intakes, WriterIntake
from cosco.shuffle_service.state.replication.replica import Replica
from cosco.shuffle_service.state.segments.segment_choice import Flush

PARTITIONS = 8


@dataclass(eq=False)
class Sent:
    """A writer's frame at its primary, the only one on its stream."""

    data: bytes
    checked: CheckedFrame
    answered: bool = False
    error: CoscoError | None = None

    def answer(self, error: CoscoError | None) -> None:
        assert not self.answered, "a frame was answered twice"
        self.answered, self.error = True, error


class Stream:
    """The daemon's end of a push stream, which nothing comes by."""

    def resume(self, now: float) -> None:
        """There is nothing to read."""

    def cut_off(self) -> None:
        """It is broken anyway."""


@dataclass(eq=False)
class Link:
    """One primary's stream to its replica: messages wait in order until they are delivered."""

    replica: Replica
    intake: Intake  # at the replica
    to_replica: deque[PushRequest[OutFrame]] = field(default_factory=deque)
    to_primary: deque[PushReply] = field(default_factory=deque)
    bodies: dict[int, bytes] = field(default_factory=dict)  # of the frames to the replica


class Pair:
    """Two daemons, 1 and 2: range 0 is of 1 and copied at 2, range 1 the other way round."""

    def __init__(self, *, pages: int = 4, segment_bytes: int = 1 << 20, volatile: bool = False):
        self.now = 0.0
        self.cores: dict[int, DaemonCore] = {}
        self.files: dict[str, bytes] = {}
        self.links: dict[int, Link] = {}  # by primary
        self.intakes: dict[int, Intakes] = {}
        self.flushes: list[tuple[DaemonCore, Flush]] = []
        refs = {1: DaemonRef(1, "one"), 2: DaemonRef(2, "two")}
        for me in (1, 2):
            core = DaemonCore(
                arena=memoryview(bytearray(pages * MAX_PAGE_BYTES)),
                incarnation=me,
                segment_bytes=segment_bytes,
            )
            core.cluster_id = "c"
            core.replication.volatile = volatile
            core.replication.on_replica = partial(self._connect, me)
            for index, primary, replica in ((0, 1, 2), (1, 2, 1)):
                assignment = Assignment(index, 1, 1, refs[primary], (refs[replica],))
                core.admit(EXCHANGE, assignment, PartitionRange(index, 0, PARTITIONS))
            self.cores[me] = core
            self.intakes[me] = Intakes(core, lambda *_: None, _look_up)

    def _connect(self, primary: int, replica: Replica) -> None:
        replica.begin_stream()
        hello = Hello(0, 0, 0, 3 - primary, primary)
        stream: Any = Stream()
        intake = self.intakes[3 - primary].open(hello, stream, self.now)
        self.links[primary] = Link(replica, intake)

    @staticmethod
    def key(primary: int) -> AssignmentKey:
        return AssignmentKey(EXCHANGE, primary - 1, 1)

    # --- writers --------------------------------------------------------------------------

    def push(self, primary: int, blocks: list[bytes]) -> Sent:
        """A writer's frame comes in; it is taken when its turn comes and pages are free."""
        data = frame(blocks, incarnation=primary, range_index=primary - 1)
        sent = Sent(data, check_frame(memoryview(data)))
        stream: Any = Stream()
        mapper_attempt = sent.checked.mapper_attempt
        intake = WriterIntake(self.intakes[primary], EXCHANGE, mapper_attempt, stream)
        # By the attribute that it is when it is called.
        answer: Answer = lambda error: sent.answer(error)  # noqa: E731, PLW0108
        intake.take_in(memoryview(data), answer, self.now)
        return sent

    def take_in(self, primary: int) -> None:
        """Pages were freed, as far as anybody knows."""
        self.cores[primary].changed(self.now)

    # --- links ----------------------------------------------------------------------------

    def talk(self, primary: int) -> None:
        """The primary sends what it may."""
        link = self.links.get(primary)
        if link is None:
            return
        while (request := link.replica.next_request()) is not None:
            link.to_replica.append(request)
            if (frame := request.frame) is not None:  # its payload may go before it is delivered
                link.bodies[frame.sequence] = b"".join(frame.payload)
            if request.announce:  # granted at once: credits have their own tests
                link.replica.on_reply(PushReply(granted=len(request.announce)), self.now)

    def deliver_request(self, primary: int) -> bool:
        """The replica gets the next message of a primary."""
        link = self.links.get(primary)
        if link is None or not link.to_replica:
            return False
        request = link.to_replica.popleft()
        if request.released:
            link.intake.released(request.released, self.now)
        if request.frame is not None:
            sequence = request.frame.sequence
            data = encode_frame_header(request.frame.header) + link.bodies.pop(sequence)

            def answer(error: CoscoError | None) -> None:
                refused = [Refusal(sequence, RefusalCode.NOT_ASSIGNED, str(error))]
                reply = PushReply(refused=refused) if error else PushReply([sequence])
                link.to_primary.append(reply)

            assert link.intake.take_in(memoryview(data), answer, self.now)
        return True

    def deliver_reply(self, primary: int) -> bool:
        """The primary gets the next message of its replica."""
        link = self.links.get(primary)
        if link is None or not link.to_primary:
            return False
        reply = link.to_primary.popleft()
        self.cores[primary].seal(link.replica.on_reply(reply, self.now))
        return True

    def break_link(self, primary: int) -> None:
        """What is under way is lost, and a new stream begins."""
        link = self.links[primary]
        link.intake.hung_up(self.now)
        self._connect(primary, link.replica)

    # --- stores ---------------------------------------------------------------------------

    def begin_flush(self, daemon: int) -> bool:
        core = self.cores[daemon]
        flush = core.next_flush()
        if flush is None:
            return False
        self.flushes.append((core, flush))
        return True

    def end_flush(self, index: int = 0) -> bool:
        if not self.flushes:
            return False
        core, flush = self.flushes.pop(index)
        if not flush.is_dropped():
            assert flush.path not in self.files  # no name is used twice
            self.files[flush.path] = b"".join(flush.parts) + flush.index_bytes
        core.end_flush(flush, self.now)
        return True

    def store_all(self, daemon: int) -> None:
        self.cores[daemon].flushes.everything = True
        while self.begin_flush(daemon) or self.end_flush():
            pass
        self.cores[daemon].flushes.everything = False

    # --- looking --------------------------------------------------------------------------

    def stored_blocks(self, daemon: int) -> set[bytes]:
        """Every block in the segments that a daemon has written."""
        found: set[bytes] = set()
        for path, file in self.files.items():
            if f"-{daemon:016x}-" in path:
                for body in chunks_of(file).values():
                    found |= blocks_of(body)
        return found

    def buffered_blocks(self, daemon: int, key: AssignmentKey) -> set[bytes]:
        """Every block that a daemon has in the pages of an assignment's buffers."""
        core = self.cores[daemon]
        found = set()
        for partition in range(PARTITIONS):
            snapshot = core.snapshot(key, partition)
            for piece in snapshot.pieces if snapshot is not None else ():
                end = CHUNK_HEADER_BYTES + piece.body_bytes
                if piece.chunk.pages:
                    body = piece.chunk.memory(core.arena, CHUNK_HEADER_BYTES, end)
                    found |= blocks_of(b"".join(body))
        return found

    def copied_blocks(self, daemon: int, key: AssignmentKey) -> set[bytes]:
        """Every block of the copies that a daemon holds of an assignment."""
        log = self.cores[daemon].copies
        found = set()
        for copy in log._by_key.get(key, OrderedDict()).values():
            found |= blocks_of(log.content(copy)[FRAME_HEADER_BYTES:])
        return found


def _look_up(key: AssignmentKey, _: Found) -> Callable[[], object]:
    raise AssertionError(f"{key} is not known")


def blocks_of(body: bytes) -> set[bytes]:
    return {
        body[offset : offset + header.block_bytes]
        for offset, header in walk_blocks(memoryview(body))
    }
