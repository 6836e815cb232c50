"""What a sender and a receiver of frames say to each other on one push stream.

The sender announces the lengths of its frames and sends each when it is granted; what fits into
the loan that the receiver gave its stream is sent eagerly, without asking. The receiver answers
each frame once: acknowledged when every copy has it, or refused. Fields, units and bounds are those
of protos/cosco/v1/shuffle.proto; `cosco.protocol.wire` turns these records to bytes and back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Generic, NamedTuple, TypeVar

from cosco.protocol.version import PROTOCOL

#: How a frame is carried: the sender's `OutFrame`, or the bytes that came.
Carried = TypeVar("Carried")


class RefusalCode(IntEnum):
    """Why a frame, or the stream as a whole, is refused."""

    BAD_FRAME = 1  # malformed, too large, or a checksum fails
    WRONG_INCARNATION = 2  # meant for another start of the daemon
    NOT_ASSIGNED = 3  # no such assignment here, or it is sealed
    EXCHANGE_CLOSED = 4
    NO_CAPACITY = 5  # memory stays full because the store takes nothing
    PROTOCOL = 6  # the sender broke the rules of the stream
    ACCESS_DENIED = 7  # what it has shown does not let it do that
    INCOMPATIBLE = 8  # the protocol of its hello is not understood


class Hello(NamedTuple):
    """Who sends, and whom it believes to talk to.

    primary: 0 for a writer. Else the incarnation of a primary that forwards frames, of any
    exchange and mapper: the first three fields are 0 then. capability: lets a writer write to the
    exchange, or shows that a primary is a service of the cluster; empty where nobody needs one.
    """

    number: int
    mapper: int
    attempt: int
    incarnation: int
    primary: int = 0
    protocol: int = PROTOCOL
    capability: str = ""

    def __repr__(self) -> str:
        shown = self._asdict()
        del shown["capability"]  # who reads a log may not read rows
        return f"Hello({', '.join(f'{name}={value}' for name, value in shown.items())})"


class PushRequest(NamedTuple, Generic[Carried]):
    """What a sender says; the parts count in the order of the fields.

    A named tuple, as one is made for each message.
    """

    hello: Hello | None = None
    released: Sequence[int] = ()
    announce: Sequence[int] = ()
    withdrawn: bool = False
    eager: bool = False
    frame: Carried | None = None


class Refusal(NamedTuple):
    """One frame that was not taken, or, with sequence 0, the stream as a whole."""

    sequence: int
    code: RefusalCode
    reason: str


@dataclass(frozen=True, slots=True)
class PushReply:
    """What a receiver says.

    acknowledged: sequences of frames that every copy has. granted: of the announced frames this
    many more may be sent. copies_max_bytes: to a primary, how many bytes of its frames may stay
    unreleased before it should store the oldest of them; 0: as it was told before. eager_bytes:
    from now on this many bytes of frames, sent and not answered, need no grant on this stream;
    0: as it was told before.
    """

    acknowledged: Sequence[int] = ()
    granted: int = 0
    refused: Sequence[Refusal] = ()
    copies_max_bytes: int = 0
    eager_bytes: int = 0
