"""The records of what people ask a cluster, and tell it."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final

from pyroaring import BitMap

from cosco.protocol.records import (
    DaemonRef,
    DaemonState,
    ExchangeStatus,
    PartitionRange,
    RowKind,
)

#: Exchanges of one page of a list.
MAX_PAGE: Final = 1000
#: Losses, ranges or parties of an exchange that are shown, and its partitions with most rows.
MAX_SHOWN: Final = 100
MAX_LARGEST: Final = 10


class ExchangePhase(IntEnum):
    """Which exchanges a list is to have; 0: those that are open or closing."""

    OPEN = 1
    CLOSING = 2
    FINISHED = 3


class LossState(IntEnum):
    """What became of a loss so far."""

    OPEN = 1  #: the driver has not said how its callback ended
    ARRANGED = 2  #: its callback returned: the mappers will run
    FAILED = 3  #: nobody has them run


@dataclass(frozen=True, slots=True)
class ExchangePage:
    """Some exchanges, by number; `next` is where the next page begins, 0 after the last one."""

    exchanges: tuple[ExchangeStatus, ...]
    next: int


@dataclass(frozen=True, slots=True)
class ForgottenStore:
    """What followed from the end of a store.

    closed: exchanges that were closing for it alone. ranges: of open exchanges, whose rows are
    lost; doubtful: ranges with rows there of which copies may be left. exchanges: that `ranges`
    are of.
    """

    closed: int = 0
    ranges: int = 0
    doubtful: int = 0
    exchanges: int = 0


@dataclass(frozen=True, slots=True)
class PartitionSize:
    """Committed rows of one partition, and their bytes before compression."""

    partition: int
    rows: int
    raw_bytes: int


@dataclass(frozen=True, slots=True)
class DaemonShare:
    """What an exchange has at one start of a daemon: ranges that it is `primary` of now, or keeps
    copies of as `replica`, and its epochs that have ended."""

    ref: DaemonRef
    store_id: str
    state: DaemonState
    primary: int
    replica: int
    sealed: int


@dataclass(frozen=True, slots=True)
class RangeStatus:
    """One partition range; `waiting_for` says why it has no next epoch, if it is `sealed`."""

    partition_range: PartitionRange
    epoch: int
    build: int
    sealed: bool
    copies: int
    waiting_for: str


@dataclass(frozen=True, slots=True)
class LossStatus:
    """One loss that is not repaired. ranges: the first of the `ranges_count` that it is of; none:
    it is of all. mappers: how many must run again."""

    loss_id: int
    ranges: tuple[int, ...]
    ranges_count: int
    state: LossState
    mappers: int
    reason: str
    failure: str


@dataclass(frozen=True, slots=True)
class RangeFailure:
    """A range that has failed for good, with the name of the error that its readers are told."""

    range_index: int
    error: str
    reason: str


@dataclass(frozen=True, slots=True)
class ExchangeDetail:
    """What there is to know of an exchange that is open, closing, or finished.

    Of one that is closing there is `status` and `waiting_for` alone, and what is kept of it.
    created_s, closed_s: of the Unix clock; 0: nobody knows, or it is open. cause: why it was
    closed. rebuilds: builds of ranges beyond their first. sizes: a picture of how large partitions
    are, see `cosco.protocol.finished_exchange.size_bars`. Lists are cut to what fits
    on a page; `losses_count` counts all losses. See ShowExchangeReply in protos/cosco/v1.
    """

    status: ExchangeStatus
    group_id: str = ""
    group_mappers: int = 0
    replicas: int = 0
    min_replicas: int = 0
    codec: str = ""
    deterministic: bool = True
    kind: RowKind = RowKind.UNDECIDED
    generation: int = 0
    callback: bool = False
    lease_s: float = 0.0
    heard_s: float = 0.0
    lease_left_s: float = 0.0
    mappers_opened: int = 0
    bytes_raw: int = 0
    bytes_stored: int = 0
    copies: int = 0
    ranges: int = 0
    largest: tuple[PartitionSize, ...] = ()
    empty_partitions: int = 0
    daemons: tuple[DaemonShare, ...] = ()
    unusual: tuple[RangeStatus, ...] = ()
    losses: tuple[LossStatus, ...] = ()
    losses_count: int = 0
    failures: tuple[RangeFailure, ...] = ()
    contradicted: BitMap = field(default_factory=BitMap)
    waiting_for: tuple[str, ...] = ()
    application_id: str = ""
    direct_reads: bool = False
    tenant: str = ""
    created_s: float = 0.0
    closed_s: float = 0.0
    cause: str = ""
    rebuilds: int = 0
    sizes: tuple[int, ...] = ()
