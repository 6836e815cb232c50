"""The records of exchange groups; like those of `cosco.protocol.records`, which this adds to."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final

from pyroaring import BitMap

from cosco.errors import CoscoError
from cosco.protocol.api_limits import MAX_GROUP_EXCHANGES
from cosco.protocol.records import U64, Assignment, ExchangeInfo, PartitionRange, RecomputeCall

_INDEX_DIGITS: Final = len(str(MAX_GROUP_EXCHANGES - 1))


def member_name(group_id: str, index: int) -> str:
    """Return the shuffle id of a group's exchange."""
    return f"{group_id}/{index}"


def group_of(shuffle_id: str) -> tuple[str, int] | None:
    """Return the group and the index that an id would name, if it is like one of `member_name`."""
    group_id, slash, digits = shuffle_id.rpartition("/")
    if not (group_id and slash and digits.isdecimal() and digits.isascii()):
        return None
    if len(digits) > _INDEX_DIGITS or (digits[0] == "0" and digits != "0"):
        return None
    return group_id, int(digits)


@dataclass(frozen=True, slots=True)
class GroupPart:
    """Exchanges of a group that one call has made: `size` of them, with indexes from `first` on.

    mappers: of each, with ids from 0 on. info: of the first exchange; the numbers of the others
    follow its own, and but for their ids all else is alike.
    """

    group_id: str
    first: int
    size: int
    mappers: int
    info: ExchangeInfo


@dataclass(frozen=True, slots=True)
class Alike:
    """Exchanges with the same assignment of a range in one epoch: `size` numbers from
    `first_number` on, but for those at the offsets `without`."""

    first_number: int
    size: int
    without: BitMap = field(default_factory=BitMap)


@dataclass(frozen=True, slots=True)
class FoundAssignment:
    """What a daemon learns of an assignment that is its own.

    mappers: of each exchange of its group, 0 for one that is of none. alike: other exchanges
    for which the same answer holds. tenant: the tag of the tenant whose exchange it is, see
    `cosco.protocol.capability.tenant_tag`; 0: nobody's. trace: the span that made it, as of its
    `ExchangeSpec`.
    """

    assignment: Assignment
    partition_range: PartitionRange
    mappers: int = 0
    alike: Alike | None = None
    tenant: int = 0
    trace: str = ""

    @property
    def told(self) -> tuple[Assignment, PartitionRange, int, int, str]:
        """Return all of it but for which exchanges else it holds."""
        return self.assignment, self.partition_range, self.mappers, self.tenant, self.trace


@dataclass(frozen=True, slots=True)
class GroupCall:
    """A loss of the group's exchange `index`, as it is told to the driver."""

    index: int
    call: RecomputeCall


@dataclass(frozen=True, slots=True)
class GroupAnswer:
    """How the callback of a loss ended: why it failed, empty if re-runs are arranged."""

    index: int
    loss_id: int
    failure: str = ""


@dataclass(frozen=True, slots=True)
class CommitResult:
    """What became of one commit of a batch: `error` is why it was refused."""

    won: bool
    error: CoscoError | None = None


class FollowOutcome(IntEnum):
    """What a daemon answers to a reader that waits for marks."""

    READY = 1  # all mappers are done
    WAITING = 2  # some are not: an answer to `now` alone
    ELSEWHERE = 3  # not to be learned here: ask the metadata service
    CLOSED = 4  # the exchange is closed
    DENIED = 5  # what was shown does not let its reader read


@dataclass(frozen=True, slots=True)
class Follow:
    """A reader's question to a daemon; see FollowRequest in protos/cosco/v1/shuffle.proto."""

    id: int
    incarnation: int
    number: int
    range_index: int
    epoch: int
    partition: int
    max_bytes: int = 0
    now: bool = False
    leave: bool = False
    same_build: bool = False
    capability: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Followed:
    """A daemon's answer to a `Follow`.

    attempts: uint64, the attempt that counts of mapper 0, 1, …, if all are done; rows,
    raw_bytes and digest are their sums in the partition. data: whole blocks, of any attempts;
    `fetch`: they are to be fetched instead. done: the mappers that are, in an answer to `now`.
    """

    id: int
    outcome: FollowOutcome
    attempts: U64
    rows: int = 0
    raw_bytes: int = 0
    digest: int = 0
    fetch: bool = False
    data: bytes = b""
    done: BitMap = field(default_factory=BitMap)
    reason: str = ""
