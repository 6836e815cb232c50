"""Daemons' decisions with a network and a store that a test moves by hand: no IO, no clock."""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass, field
from functools import partial

from support.frame_making import EXCHANGE, frame

from cosco.errors import CoscoError
from cosco.format.block import walk_blocks
from cosco.format.chunk import CHUNK_HEADER_BYTES, parse_chunk_header
from cosco.format.frame import FRAME_HEADER_BYTES, encode_frame_header
from cosco.protocol.push.messages import PushReply, PushRequest, Refusal, RefusalCode
from cosco.protocol.push.sender import OutFrame
from cosco.protocol.records import Assignment, DaemonRef, PartitionRange
from cosco.shuffle_service.state.buffers.assignments import NotAssigned
from cosco.shuffle_service.state.buffers.frame_check import CheckedFrame, check_frame
from cosco.shuffle_service.state.buffers.pool import MAX_PAGE_BYTES
from cosco.shuffle_service.state.core import DaemonCore, Flush
from cosco.shuffle_service.state.replication.replica import Forward, Replica

PARTITIONS = 8


@dataclass(eq=False)
class Sent:
    """A writer's frame at its primary."""

    data: bytes
    checked: CheckedFrame
    forward: Forward | None = None
    next_run: int = 0
    settled: bool = False
    error: CoscoError | None = None

    def settle(self, error: CoscoError | None) -> None:
        assert not self.settled, "a frame was settled twice"
        self.settled, self.error = True, error


@dataclass(eq=False)
class Link:
    """One primary's stream to its replica: messages wait in order until they are delivered."""

    replica: Replica
    to_replica: deque[PushRequest[OutFrame]] = field(default_factory=deque)
    to_primary: deque[PushReply] = field(default_factory=deque)
    bodies: dict[int, bytes] = field(default_factory=dict)  # of the frames to the replica


class Pair:
    """Two daemons, 1 and 2: range 0 is of 1 and copied at 2, range 1 the other way round."""

    def __init__(self, *, pages: int = 4, chunk_bytes: int = 1 << 20, volatile: bool = False):
        self.now = 0.0
        self.cores: dict[int, DaemonCore] = {}
        self.files: dict[str, bytearray] = {}
        self.links: dict[int, Link] = {}  # by primary
        self.waiting: dict[int, deque[Sent]] = {1: deque(), 2: deque()}  # for pages
        self.flushes: list[tuple[DaemonCore, Flush]] = []
        refs = {1: DaemonRef(1, "one"), 2: DaemonRef(2, "two")}
        for me in (1, 2):
            core = DaemonCore(
                arena=memoryview(bytearray(pages * MAX_PAGE_BYTES)),
                incarnation=me,
                chunk_bytes=chunk_bytes,
            )
            core.cluster_id = "c"
            core.replication.volatile = volatile
            core.replication.on_replica = partial(self._connect, me)
            for index, primary, replica in ((0, 1, 2), (1, 2, 1)):
                assignment = Assignment(index, 1, 1, refs[primary], (refs[replica],))
                core.admit(EXCHANGE, assignment, PartitionRange(index, 0, PARTITIONS))
            self.cores[me] = core

    def _connect(self, primary: int, replica: Replica) -> None:
        replica.begin_stream()
        self.links[primary] = Link(replica)

    @staticmethod
    def key(primary: int) -> tuple[int, int, int]:
        return (EXCHANGE, primary - 1, 1)

    # --- writers --------------------------------------------------------------------------

    def push(self, primary: int, blocks: list[bytes]) -> Sent:
        """A writer's frame comes in; it is taken when its turn comes and pages are free."""
        data = frame(blocks, incarnation=primary, range_index=primary - 1)
        sent = Sent(data, check_frame(memoryview(data)))
        self.waiting[primary].append(sent)
        self.take_in(primary)
        return sent

    def take_in(self, primary: int) -> None:
        """What TakeIn does whenever pages were freed."""
        core, waiting = self.cores[primary], self.waiting[primary]
        held = core.assignment(self.key(primary))
        while waiting:
            assert held is not None and held.replica is not None
            sent = waiting[0]
            if sent.forward is None:
                if core.replication.is_full:
                    return
                sent.forward = core.replication.forward(
                    held.key, held.replica, sent.checked.header,
                    memoryview(sent.data)[FRAME_HEADER_BYTES:], now=self.now, answer=sent.settle,
                )  # fmt: skip
            try:
                sent.next_run = core.take(held, sent.checked, sent.next_run).next_run
            except NotAssigned as error:
                sent.forward.replica.abandon(sent.forward)
                sent.settle(error)
            else:
                if sent.next_run < len(sent.checked.runs):
                    return
                sent.forward.replica.taken(sent.forward, held.unstored_chunks(sent.checked))
            waiting.popleft()

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
        core = self.cores[3 - primary]
        if request.released:
            core.copies.released(primary, request.released)
        if request.frame is not None:
            header = request.frame.header
            body = link.bodies.pop(header.sequence)
            data = memoryview(encode_frame_header(header) + body)

            def settle(error: CoscoError | None) -> None:
                sequence = header.sequence
                refused = [Refusal(sequence, RefusalCode.NOT_ASSIGNED, str(error))]
                reply = PushReply(refused=refused) if error else PushReply([sequence])
                link.to_primary.append(reply)

            held = core.assignment((header.exchange, header.range_index, header.epoch))
            assert held is not None
            try:
                core.take_copy(
                    held, check_frame(data), data, primary,
                    stream=link, now=self.now, settle=settle,
                )  # fmt: skip
            except NotAssigned as error:
                settle(error)
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
        self.cores[3 - primary].copies.hung_up(link)
        link.replica.begin_stream()
        self.links[primary] = Link(link.replica)

    # --- stores ---------------------------------------------------------------------------

    def begin_flush(self, daemon: int, **kwargs: bool) -> bool:
        core = self.cores[daemon]
        flush = core.next_flush(
            waiting_bytes=sum(len(sent.data) for sent in self.waiting[daemon]), **kwargs
        )
        if flush is None:
            return False
        data = b"".join(flush.parts)
        assert parse_chunk_header(data).offset == flush.chunk.offset
        self.flushes.append((core, flush))
        return True

    def end_flush(self, index: int = 0) -> bool:
        if not self.flushes:
            return False
        core, flush = self.flushes.pop(index)
        if not flush.chunk.is_dropped():
            file = self.files.setdefault(flush.buffer.path, bytearray())
            assert len(file) == flush.chunk.offset
            file += b"".join(flush.parts)
        core.end_flush(flush)
        self.take_in(core.incarnation)
        return True

    def store_all(self, daemon: int) -> None:
        while self.begin_flush(daemon, everything=True) or self.end_flush():
            pass

    # --- looking --------------------------------------------------------------------------

    def stored_blocks(self, daemon: int) -> set[bytes]:
        """Every block in the files that a daemon has written."""
        found = set()
        for path, file in self.files.items():
            if not path.endswith(f"-{daemon:016x}"):
                continue
            offset = 0
            while offset < len(file):
                header = parse_chunk_header(file[offset : offset + CHUNK_HEADER_BYTES])
                start = offset + CHUNK_HEADER_BYTES
                found |= blocks_of(bytes(file[start : start + header.body_bytes]))
                offset += header.padded_bytes
        return found

    def buffered_blocks(self, daemon: int, key: tuple[int, int, int]) -> set[bytes]:
        """Every block that a daemon has in the pages of an assignment's buffers."""
        core = self.cores[daemon]
        found = set()
        for partition in range(PARTITIONS):
            for piece in core.snapshot(key, partition) or ():
                end = CHUNK_HEADER_BYTES + piece.body_bytes
                if piece.chunk.pages:
                    body = piece.chunk.memory(core.arena, CHUNK_HEADER_BYTES, end)
                    found |= blocks_of(b"".join(body))
        return found

    def copied_blocks(self, daemon: int, key: tuple[int, int, int]) -> set[bytes]:
        """Every block of the copies that a daemon holds of an assignment."""
        log = self.cores[daemon].copies
        found = set()
        for copy in log._by_key.get(key, OrderedDict()).values():
            found |= blocks_of(log.content(copy)[FRAME_HEADER_BYTES:])
        return found


def blocks_of(body: bytes) -> set[bytes]:
    return {
        body[offset : offset + header.block_bytes]
        for offset, header in walk_blocks(memoryview(body))
    }
