"""The account a primary keeps of what it forwarded, over all its replicas. No IO.

Every frame of a replicated assignment is forwarded under a sequence of its own. It is *safe*
when its replica has acknowledged it, or when all its blocks are durable here; its writer is
told when it is safe and taken in. When all its blocks are durable it is *released*: its copy
may go. A frame whose writer hung up before it was told is released at once.

Chunks that hold the oldest frames not released are flushed when a replica stalls, when it asks
for fewer bytes than it was sent (`copies_max_bytes`), and when this account is full. That makes
frames safe and copies go, and needs nobody but the store. A volatile store makes nothing safe:
there only the replica does. What is said on the stream to a replica is decided in
`cosco.protocol.push.sender`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from cosco.errors import CoscoError, DataCorrupted, ExchangeClosed
from cosco.format.frame import FrameHeader
from cosco.protocol.keys import AssignmentKey
from cosco.protocol.push.answers import Answer, NotAssigned
from cosco.protocol.push.messages import Hello, PushReply, PushRequest, Refusal, RefusalCode
from cosco.protocol.push.sender import OutFrame, ProtocolBroken, PushSender
from cosco.protocol.records import DaemonRef
from cosco.shuffle_service.state.buffers.old_epochs import Going
from cosco.shuffle_service.state.buffers.partition_buffer import Chunk, ChunkState

#: A replica that has frames to answer and acknowledges none for this time is stalled.
STALL_S: Final = 0.25
#: And one that leaves the oldest frame without an answer for this time.
STALL_OLDEST_S: Final = 2.0
#: With this many segments on their way to be durable no others are flushed for their copies.
ON_THEIR_WAY_MAX: Final = 2
#: How many places in the lists of chunks cost as much as one frame.
_LISTED_PER_FRAME: Final = 128


class ReplicaReplaced(Exception):
    """Another start of the daemon answers at the replica's address."""


@dataclass(slots=True, eq=False, kw_only=True)
class Forward(OutFrame):
    """One forwarded frame, until it is released and its writer knows.

    answer: None when the writer was told, or is gone. refusal: why it will not be safe, while it
    is not taken. unstored: chunks with blocks of it that are not durable. is_mark: it has a mark
    and no rows, so nothing of it will ever be stored.
    """

    replica: Replica
    key: AssignmentKey
    since: float
    answer: Answer | None
    is_mark: bool = False
    taken: bool = False
    acknowledged: bool = False
    refusal: CoscoError | None = None
    unstored: int = 0
    is_counted: bool = False  # among the bytes sent and not released


_REFUSALS: Final[dict[RefusalCode, type[CoscoError]]] = {
    RefusalCode.NOT_ASSIGNED: NotAssigned,
    RefusalCode.EXCHANGE_CLOSED: ExchangeClosed,
    RefusalCode.BAD_FRAME: DataCorrupted,
}


def _refusal_error(refusal: Refusal) -> CoscoError:
    """Return what the writer of a refused frame is told; raises what ends the stream."""
    reason = f"the replica refused it: {' '.join(refusal.reason.split())[:300]}"
    if refusal.code is RefusalCode.WRONG_INCARNATION:
        raise ReplicaReplaced(reason)
    if refusal.code not in _REFUSALS or not refusal.sequence:
        raise ProtocolBroken(reason)
    return _REFUSALS[refusal.code](reason)


class Replica:
    """One daemon that copies are forwarded to, as one link to it needs to know it.

    Life of a link: `begin_stream`, then `next_request` and `on_reply` as messages go and come;
    again from the start when the stream breaks. A primary never uses a sequence again, so a replica
    knows what was sent twice and keeps it once.
    """

    def __init__(self, ref: DaemonRef, *, primary: int, volatile: bool) -> None:
        """Begin an account with nothing forwarded.

        primary: the incarnation of this daemon. volatile: what it stores ends with it, so storing
        makes nothing safe.
        """
        self.ref = ref
        self.is_gone = False
        self.is_stalled = False
        #: Called when there is something to say.
        self.wake: Callable[[], None] = lambda: None
        self._volatile = volatile
        self._sender = PushSender(Hello(0, 0, 0, ref.incarnation, primary))
        self._frames: dict[int, Forward] = {}  # not released, or not told to their writer
        self._of_number: dict[int, dict[int, Forward]] = {}  # the same, by exchange
        self._chunks: OrderedDict[Chunk, list[Forward]] = OrderedDict()  # not durable
        self._listed = 0  # in all those lists
        self._answered_at = 0.0
        self._max_bytes = 0  # of what was sent and is not released; 0: not known
        self._sent_bytes = 0  # of that, what there is

    def __len__(self) -> int:
        """Return how many frames are kept account of."""
        return len(self._frames)

    @property
    def cost(self) -> int:
        """What its bookkeeping costs, in frames."""
        return len(self._frames) + self._listed // _LISTED_PER_FRAME

    @property
    def is_idle(self) -> bool:
        """Whether no frame is kept account of, and no release is to be told."""
        return not self._frames and self._sender.is_idle

    # --- frames ---------------------------------------------------------------------------

    def add(self, frame: Forward) -> None:
        """Have a frame forwarded."""
        self._frames[frame.sequence] = frame
        self._of_number.setdefault(frame.key.number, {})[frame.sequence] = frame
        if self.is_gone:
            frame.payload = None
            return
        if self._sender.oldest is None:
            self._answered_at = frame.since  # it was not asked anything
        self._sender.add(frame)
        self.wake()

    def taken(self, frame: Forward, chunks: Iterable[Chunk]) -> None:
        """Note that all blocks of a frame are in buffers here, or were.

        chunks: those that are not durable.
        """
        frame.taken = True
        if frame.refusal is not None:
            self._answer(frame, frame.refusal)
        elif frame.sequence in self._frames:
            if not self._volatile:
                for chunk in chunks:
                    self._chunks.setdefault(chunk, []).append(frame)
                    frame.unstored += 1
                self._listed += frame.unstored
            self._advance(frame)

    def stored(self, chunk: Chunk) -> None:
        """Note that a chunk has become durable."""
        frames = self._chunks.pop(chunk, [])
        self._listed -= len(frames)
        for frame in frames:
            frame.unstored -= 1
            if frame.sequence in self._frames:
                self._advance(frame)

    def refuse(self, frame: Forward, error: CoscoError) -> None:
        """Give a frame up, as it will not be safe: its writer is told, and its copy may go."""
        if frame.taken:
            self._answer(frame, error)
        else:
            frame.refusal = error  # told when it is taken, or by whoever fails to take it
        self._release(frame)

    def abandon(self, frame: Forward) -> None:
        """Forget who waits for a frame; nobody was told that it is held."""
        frame.answer = None
        if frame.sequence in self._frames:
            self._release(frame)

    def unsafe(self) -> Iterator[Forward]:
        """Return the frames whose writers wait."""
        return (frame for frame in list(self._frames.values()) if frame.answer is not None)

    def drop(self, going: Going, chunks: Iterable[Chunk], error: CoscoError) -> None:
        """Forget dropped assignments with their chunks; writers who wait are told why.

        chunks: those that are not durable.
        """
        of_number = self._of_number.get(going.number, {}).values()
        frames = [frame for frame in of_number if frame.key in going]
        for frame in frames:
            if frame.answer is not None:
                self.refuse(frame, error)
        for chunk in chunks:
            self._listed -= len(self._chunks.pop(chunk, ()))
        for frame in frames:
            if frame.sequence in self._frames:
                self._release(frame)

    def _advance(self, frame: Forward) -> None:
        if not frame.taken:
            return
        durable = not frame.unstored and not self._volatile
        if frame.is_mark:  # it is never stored: its replica must have it, if that one answers
            durable = durable and self.is_stalled
        if frame.acknowledged or durable:
            self._answer(frame, None)
            if durable or frame.is_mark:  # the replica has counted it
                self._release(frame)
            elif self._volatile:  # it is never released: the replica keeps it
                self._forget(frame)

    def _answer(self, frame: Forward, error: CoscoError | None) -> None:
        answer, frame.answer = frame.answer, None
        if answer is not None:
            answer(error)

    def _release(self, frame: Forward) -> None:
        self._forget(frame)
        if frame.was_sent and not self.is_gone:
            self._sender.release(frame.sequence)
            self.wake()

    def _forget(self, frame: Forward) -> None:
        frame.payload = None
        if self._frames.pop(frame.sequence, None) is not None:
            of_number = self._of_number[frame.key.number]
            del of_number[frame.sequence]
            if not of_number:
                del self._of_number[frame.key.number]
            if frame.is_counted:
                self._sent_bytes -= frame.header.body_bytes
        self._sender.withdraw([frame])

    # --- its link -------------------------------------------------------------------------

    def begin_stream(self, capability: str = "") -> None:
        """Begin a new stream: what was not answered is sent again, what was told is told again.

        capability: is shown to the replica.
        """
        self._sender.show(capability)
        self._sender.begin_stream()

    def end_stream(self) -> None:
        """Note that the stream ended well, so that whatever was told has come."""
        self._sender.end_stream()

    def next_request(self) -> PushRequest[OutFrame] | None:
        """Return what to say next; None if there is nothing until `wake` is called."""
        request = self._sender.next_request()
        frame = None if request is None else request.frame
        if isinstance(frame, Forward) and not frame.is_counted:
            frame.is_counted = True
            self._sent_bytes += frame.header.body_bytes
        return request

    def on_reply(self, reply: PushReply, now: float) -> list[AssignmentKey]:
        """Take note of what the replica said.

        Returns: assignments that are sealed there, and so are to be sealed here. Raises
        ReplicaReplaced, and ProtocolBroken for what makes no sense.
        """
        answered = self._sender.on_reply(reply)
        if reply.acknowledged:
            self._answered_at = now
            self.is_stalled = self.is_gone
        for frame in answered.acknowledged:
            assert isinstance(frame, Forward)
            frame.acknowledged = True
            frame.payload = None
            self._advance(frame)
        self._max_bytes = reply.copies_max_bytes or self._max_bytes
        # All of them before any is told: what is raised leaves the others to the next stream.
        errors = [(out, _refusal_error(refusal)) for out, refusal in answered.refused]
        sealed: list[AssignmentKey] = []
        for out, error in errors:
            forward = self._frames.get(out.sequence) if out is not None else None
            if forward is not None:
                self.refuse(forward, error)
                if isinstance(error, NotAssigned):
                    sealed.append(forward.key)
        return sealed

    def gone(self) -> None:
        """Forget all copies, as it is gone: frames become safe by storing alone."""
        self.is_gone = self.is_stalled = True
        for frame in self._frames.values():
            frame.payload = None
            frame.acknowledged = False  # that copy is gone: it is not safe by it
        self._sender.forget_all()

    # --- stalling -------------------------------------------------------------------------

    def tick(self, now: float) -> None:
        """Find out whether it keeps frames waiting."""
        self.is_stalled = self.is_gone
        oldest = self._sender.oldest
        if oldest is not None:
            assert isinstance(oldest, Forward)
            silent_s = now - max(self._answered_at, oldest.since)
            is_silent = silent_s >= STALL_S or now - oldest.since >= STALL_OLDEST_S
            self.is_stalled = self.is_stalled or is_silent
        if self.is_stalled:  # marks need it no more
            for frame in list(self._frames.values()):
                self._advance(frame)

    @property
    def is_pressed(self) -> bool:
        """Whether chunks are to be flushed so that it can let copies go."""
        return self.is_stalled or bool(self._max_bytes and self._sent_bytes > self._max_bytes)

    def oldest_chunk(self) -> Chunk | None:
        """Return the chunk of the oldest frame not released that can be flushed."""
        for chunk in self._chunks:
            if chunk.state is ChunkState.OPEN and chunk.buffer.flushing is None:
                return chunk
        return None


#: How many daemons that are gone are remembered.
_REMEMBERED_GONE: Final = 1024


class ReplicationLog:
    """All forwarded frames of one daemon, and their replicas by incarnation."""

    def __init__(self, *, incarnation: int, frames_max: int) -> None:
        """Begin with nothing forwarded.

        incarnation: of this daemon. frames_max: beyond this cost, in frames, no more are to be
        forwarded; see `is_full`.
        """
        #: Whether what this daemon stores ends with it, so that storing makes nothing safe.
        self.volatile = False
        #: Segments with copies that are stored and not durable yet. If there are some, what presses
        #: goes with them: to flush more would only make small segments.
        self.on_their_way = 0
        #: Called with a daemon that a link is to be made to.
        self.on_replica: Callable[[Replica], None] = lambda _: None
        self.replicas: dict[int, Replica] = {}
        self._incarnation = incarnation
        self._frames_max = frames_max
        self._sequence = 0
        self._gone: OrderedDict[int, None] = OrderedDict()

    def __len__(self) -> int:
        """Return how many frames are kept account of."""
        return sum(map(len, self.replicas.values()))

    @property
    def is_full(self) -> bool:
        """Whether frames must wait until others are released; they are being flushed."""
        return sum(replica.cost for replica in self.replicas.values()) >= self._frames_max

    def forward(
        self,
        key: tuple[int, int, int],
        ref: DaemonRef,
        header: FrameHeader,
        body: memoryview,
        *,
        now: float,
        answer: Answer,
        is_mark: bool = False,
    ) -> Forward:
        """Have a frame forwarded to a replica; `answer` is called when it is safe and taken.

        It is not called any more once `abandon` was. `is_mark`: the frame has a mark alone.
        """
        replica = self.replicas.get(ref.incarnation)
        if replica is None:
            replica = Replica(ref, primary=self._incarnation, volatile=self.volatile)
            self.replicas[ref.incarnation] = replica
            if ref.incarnation in self._gone:
                replica.gone()
            else:
                self.on_replica(replica)
        self._sequence += 1
        restamped = header._replace(incarnation=ref.incarnation, sequence=self._sequence)
        frame = Forward(
            header=restamped,
            payload=(body,),
            replica=replica,
            key=AssignmentKey(*key),
            since=now,
            answer=answer,
            is_mark=is_mark,
        )
        replica.add(frame)
        return frame

    def stored(self, chunk: Chunk) -> None:
        """Note that a chunk has become durable."""
        for replica in self.replicas.values():
            replica.stored(chunk)

    def refuse(self, errors: Mapping[AssignmentKey, CoscoError]) -> None:
        """Refuse the frames of assignments whose writers wait, each with its error."""
        for replica in list(self.replicas.values()):
            for frame in replica.unsafe():
                if frame.key in errors:
                    replica.refuse(frame, errors[frame.key])

    def give_up(self, before: float, error: CoscoError) -> None:
        """Refuse the frames whose writers have been waiting since `before` or longer."""
        for replica in list(self.replicas.values()):
            for frame in replica.unsafe():
                if frame.since <= before:
                    replica.refuse(frame, error)

    def drop(self, going: Going, chunks: Collection[Chunk], error: CoscoError) -> None:
        """Forget dropped assignments: `error` is what writers who wait are told.

        chunks: those that are not durable.
        """
        for replica in list(self.replicas.values()):
            replica.drop(going, chunks, error)

    def gone(self, incarnation: int) -> None:
        """Note that a daemon is gone, and never comes back as this incarnation."""
        self._gone[incarnation] = None
        if len(self._gone) > _REMEMBERED_GONE:
            self._gone.popitem(last=False)
        if incarnation in self.replicas:
            self.replicas[incarnation].gone()

    def end(self, replica: Replica) -> None:
        """Note that a link has ended; a frame that comes after this begins another."""
        if self.replicas.get(replica.ref.incarnation) is replica and replica.is_idle:
            del self.replicas[replica.ref.incarnation]

    def tick(self, now: float) -> bool:
        """Return whether chunks are to be flushed since replicas are pressed; to be asked often."""
        for replica in list(self.replicas.values()):
            replica.tick(now)
            if replica.is_gone:
                self.end(replica)  # it has no link that would
        return self.oldest_chunk() is not None

    def oldest_chunk(self, *, pressed: bool = True) -> Chunk | None:
        """Return the chunk to flush so that frames become safe and copies go; None: no need.

        With `pressed` of replicas that are pressed, or of any when this account is full.
        """
        if pressed and self.on_their_way >= ON_THEIR_WAY_MAX:
            return None
        needs_all = not pressed or self.is_full
        for replica in self.replicas.values():
            if needs_all or replica.is_pressed:
                chunk = replica.oldest_chunk()
                if chunk is not None:
                    return chunk
        return None
