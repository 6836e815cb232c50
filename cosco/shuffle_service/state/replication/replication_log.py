"""The account a primary keeps of what it forwarded, over all its replicas. No IO.

Every frame of a replicated assignment is forwarded under a sequence of its own. It is *safe*
when its replica has acknowledged it, or when all its blocks are durable here; its writer is
told when it is safe and taken. When all its blocks are durable it is *released*: its copy
may go. A frame that nobody waits for any more is released at once.

Chunks that hold the oldest frames not released are flushed when forwards stall, or a replica
says that it has no room for more, since that makes frames safe and copies go, and needs nobody
but the store.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Final

from cosco.errors import CoscoError
from cosco.format.frame import FrameHeader
from cosco.protocol.keys import AssignmentKey
from cosco.protocol.push.answers import Answer
from cosco.protocol.records import DaemonRef
from cosco.shuffle_service.state.buffers.partition_buffer import Chunk
from cosco.shuffle_service.state.replication.replica import Forward, Replica

#: Daemons that are remembered to be gone.
_REMEMBERED_LOST: Final = 1024


class ReplicationLog:
    """All forwarded frames of one daemon, and their replicas by incarnation."""

    def __init__(self, *, incarnation: int, frames_max: int) -> None:
        """Begin with nothing forwarded.

        incarnation: of this daemon. frames_max: beyond this number of frames no more are to be
        forwarded; see `is_full`.
        """
        #: Whether what this daemon stores ends with it, so that storing makes nothing safe.
        self.volatile = False
        #: Called with a daemon that a link is to be made to.
        self.on_replica: Callable[[Replica], None] = lambda _: None
        self.replicas: dict[int, Replica] = {}
        self._incarnation = incarnation
        self._frames_max = frames_max
        self._sequence = 0
        self._lost: OrderedDict[int, None] = OrderedDict()

    def __len__(self) -> int:
        """Return the number of frames that are kept account of."""
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
            if ref.incarnation in self._lost:
                replica.lose()
            else:
                self.on_replica(replica)
        self._sequence += 1
        restamped = replace(header, incarnation=ref.incarnation, sequence=self._sequence)
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

    def drop(self, number: int, chunks: Collection[Chunk], error: CoscoError) -> None:
        """Forget a closed exchange: `error` is what writers who wait are told.

        chunks: those that are not durable.
        """
        for replica in list(self.replicas.values()):
            replica.drop(number, chunks, error)

    def lost(self, incarnation: int) -> None:
        """Note that a daemon is gone, and never comes back as this incarnation."""
        self._lost[incarnation] = None
        if len(self._lost) > _REMEMBERED_LOST:
            self._lost.popitem(last=False)
        if incarnation in self.replicas:
            self.replicas[incarnation].lose()

    def end(self, replica: Replica) -> None:
        """Note that a link has ended; a frame that comes after this begins another."""
        if self.replicas.get(replica.ref.incarnation) is replica and replica.is_idle:
            del self.replicas[replica.ref.incarnation]

    def tick(self, now: float) -> bool:
        """Return whether chunks are to be flushed since replicas are pressed; to be asked often."""
        for replica in list(self.replicas.values()):
            replica.tick(now)
            if replica.is_lost:
                self.end(replica)  # it has no link that would
        return self.oldest_chunk() is not None

    def oldest_chunk(self, *, pressed: bool = True) -> Chunk | None:
        """Return the chunk to flush so that frames become safe and copies go; None: no need.

        With `pressed` of replicas that need it, else of any.
        """
        needs_all = not pressed or self.is_full
        for replica in self.replicas.values():
            if needs_all or replica.is_pressed:
                chunk = replica.oldest_chunk()
                if chunk is not None:
                    return chunk
        return None
