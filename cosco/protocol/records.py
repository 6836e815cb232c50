"""The records that pass between the parts: plain, frozen, free of gRPC and of IO.

`cosco.protocol.wire` turns them to protobuf and back; everything else in the package speaks these.
Lengths are bytes, times are seconds, and array fields are one-dimensional numpy arrays.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from enum import IntEnum

import numpy as np
import numpy.typing as npt
from pyroaring import BitMap

from cosco.protocol.capability import CapabilityKey
from cosco.protocol.daemon_figures import DaemonFigures
from cosco.protocol.html_view import facts, size, sizes_picture
from cosco.protocol.version import PROTOCOL

U32 = npt.NDArray[np.uint32]
U64 = npt.NDArray[np.uint64]

#: Attempt ids from here on are made by writers of groups, at random; below by the service.
FIRST_OWN_ATTEMPT = 1 << 63
MASK64 = (1 << 64) - 1
#: How the ids of stores begin that end with the daemon that has them.
VOLATILE_STORE = "memory:"


def pairs_array(pairs: Sequence[tuple[int, int]]) -> U32:
    """Return pairs as an array of n × 2."""
    return np.array(pairs, dtype=np.uint32).reshape(-1, 2)


def _nothing() -> U64:
    return np.zeros(0, np.uint64)


class RowKind(IntEnum):
    """What an exchange's rows are; fixed by its schema or by the first writer's rows."""

    UNDECIDED = 0
    BYTES = 1
    ARROW = 2
    #: An engine alone knows what is in a block.
    OPAQUE = 3


class DaemonState(IntEnum):
    """What the metadata service believes of a daemon."""

    SERVING = 1
    DRAINING = 2
    DEAD = 3


# --- daemons ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class DaemonRef:
    """How to reach one start of a daemon, and to know it for that start."""

    incarnation: int
    address: str


@dataclass(frozen=True, slots=True)
class DaemonRegistration:
    """What a daemon says of itself when it starts, or when it is unknown to the service.

    `exchanges` are the numbers whose files its store holds, listed before this was sent.
    """

    incarnation: int
    address: str
    host_id: str
    store_id: str
    memory_bytes: int
    free_bytes: int
    metrics_address: str = ""
    exchanges: tuple[int, ...] = ()
    draining: bool = False
    protocol: int = PROTOCOL


@dataclass(frozen=True, slots=True)
class EpochsDrop:
    """An order: the epochs of a range before `before` are of builds that have ended, and must go.

    sequence: of such orders of one exchange, ascending.
    """

    number: int
    range_index: int
    before: int
    sequence: int


@dataclass(frozen=True, slots=True)
class EpochsDropped:
    """A daemon, and its store, have nothing any more of what orders up to `sequence` named."""

    number: int
    sequence: int


@dataclass(frozen=True, slots=True)
class StoredBytes:
    """How much a start of a daemon has in stores of an exchange: what it wrote, and has not
    removed."""

    number: int
    stored_bytes: int


@dataclass(frozen=True, slots=True)
class DaemonHeartbeat:
    """A daemon's sign of life. `dropped` are exchanges it holds nothing of any more.

    `draining`: it was asked to end, by more than an order. `store_failing`: its store has taken
    nothing for a while, or hangs. `store_hangs`: a write has been under way for too long.
    `exchanges`: now and then, the numbers of those with files in its store, listed before.
    `epochs_dropped`: with these, of which of them old epochs are gone. `mechanics`: native or
    portable, and why. `stored`: of exchanges of which that has changed, and now and then of all.
    `figures`: what it has done, and has now. `version`: which build it is.
    """

    incarnation: int
    free_bytes: int
    dropped: tuple[int, ...] = ()
    draining: bool = False
    store_failing: bool = False
    exchanges: tuple[int, ...] = ()
    unstored_bytes: int = 0
    store_hangs: bool = False
    epochs_dropped: tuple[EpochsDropped, ...] = ()
    mechanics: str = ""
    stored: tuple[StoredBytes, ...] = ()
    figures: DaemonFigures | None = None
    version: str = ""


@dataclass(frozen=True, slots=True)
class DaemonOrders:
    """The answer to a registration or a heartbeat.

    `known` False: register again; also told to who registers while a daemon that had its
    address may live. `drop`: exchanges whose memory and files must go. `drain`: take nothing new
    and store everything. `may_exit`: it drains, and no open exchange needs it any more.
    `was_forgotten`: its store was, before it came back. `epochs_drop`: old epochs whose memory and
    files must go, of exchanges that it listed. `keys`: by which it checks capabilities; none:
    nobody needs one. `full_tenants`: tags of those that have as much stored as they may, so that
    nothing more of theirs is taken in.
    """

    known: bool
    cluster_id: str
    lease_s: float
    drop: tuple[int, ...] = ()
    drain: bool = False
    may_exit: bool = False
    was_forgotten: bool = False
    epochs_drop: tuple[EpochsDrop, ...] = ()
    keys: tuple[CapabilityKey, ...] = ()
    full_tenants: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class DaemonStatus:
    """One daemon as `cosco status` shows it. figures: as it told them last, if they were asked
    for."""

    ref: DaemonRef
    host_id: str
    store_id: str
    state: DaemonState
    memory_bytes: int
    free_bytes: int
    metrics_address: str
    assignments: int
    store_failing: bool = False
    store_hangs: bool = False
    mechanics: str = ""
    figures: DaemonFigures | None = None
    version: str = ""


# --- exchanges ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ExchangeSpec:
    """What a driver asks for.

    `schema` is a serialized Arrow schema, empty for none; `mappers` how many there are, with ids
    from 0 on, 0 if nobody has said; `direct_reads`: readers may read from stores themselves;
    `trace`: the span that made it, see `cosco.format.traceparent`, empty for none.
    """

    shuffle_id: str
    partitions: int
    replicas: int = 2
    min_replicas: int = 1
    codec: str = "lz4"
    deterministic: bool = True
    lease_s: float = 300.0
    schema: bytes = b""
    mappers: int = 0
    direct_reads: bool = False
    trace: str = ""


@dataclass(frozen=True, slots=True)
class PartitionRange:
    """Partitions [first, first + count): placed, and if need be rebuilt, together."""

    index: int
    first: int
    count: int

    @property
    def end(self) -> int:
        """Return the partition after its last one."""
        return self.first + self.count

    @property
    def span(self) -> slice:
        """Return its place in an array that has an entry for each partition."""
        return slice(self.first, self.end)


@dataclass(frozen=True, slots=True)
class Assignment:
    """(range, epoch) → daemons. `build` counts the times the range was begun anew."""

    range_index: int
    epoch: int
    build: int
    primary: DaemonRef
    replicas: tuple[DaemonRef, ...] = ()
    sealed: bool = False

    @property
    def daemons(self) -> tuple[DaemonRef, ...]:
        """Return the primary and the replicas, in this order."""
        return self.primary, *self.replicas

    def names(self, incarnation: int) -> bool:
        """Whether one of its daemons has this incarnation."""
        return any(ref.incarnation == incarnation for ref in self.daemons)


@dataclass(frozen=True, slots=True)
class ExchangeInfo:
    """An exchange as its clients see it; `assignments` are the current ones, by range.

    capability: lets who has it write and read; empty where nobody needs one.
    """

    number: int
    spec: ExchangeSpec
    generation: int
    kind: RowKind
    schema: bytes
    ranges: tuple[PartitionRange, ...]
    assignments: tuple[Assignment, ...]
    capability: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class OpenedAttempt:
    """A writer's licence: its mapper (given or chosen), its attempt, and where rows go.

    `partial`: the mapper has committed, and only the rows of `ranges`, which were lost, are
    wanted again.
    """

    info: ExchangeInfo
    mapper: int
    attempt: int
    partial: bool = False
    ranges: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class RenewedAssignments:
    """What a writer is told that lost a daemon.

    `assignments` are those of the ranges it asked for that are newer than what it named.
    `alive`: its suspect is, so it may try again. `waiting_for`: why a range has no daemon.
    """

    assignments: tuple[Assignment, ...] = ()
    alive: bool = False
    waiting_for: str = ""


@dataclass(frozen=True, slots=True)
class AttemptSums:
    """What one attempt wrote, by partition; `partitions` ascend and have rows or bytes.

    `raw_bytes` count rows before compression: for byte rows their lengths, for Arrow rows
    the IPC messages they travel in. `stored_bytes` count whole blocks. `digests` are the
    sums, modulo 2^64, of the digests of the attempt's blocks.
    """

    partitions: U32
    rows: U64
    raw_bytes: U64
    stored_bytes: U64
    digests: U64

    def spread(self, values: U64, partitions: int) -> U64:
        """Return one of its arrays with an entry for each partition of the exchange."""
        spread = np.zeros(partitions, np.uint64)
        spread[self.partitions] = values
        return spread


@dataclass(frozen=True, slots=True)
class CommitRequest:
    """'Attempt a of mapper m is complete'.

    acknowledged: n × 2, the (range, epoch) pairs that acknowledged blocks of it, ascending.
    partial, ranges: as of its OpenedAttempt.
    """

    number: int
    mapper: int
    attempt: int
    generation: int
    acknowledged: U32
    sums: AttemptSums
    partial: bool = False
    ranges: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Commit:
    """What `CoscoWriter.close` returns: whether this attempt counts, and what it wrote.

    `rows` and `bytes` are what this attempt wrote, also where another one won; of a mapper called
    back, what was wanted again. `bytes` are of rows before compression: for byte rows the sum of
    their lengths, for Arrow rows the messages they travel in, which depend on how rows are cut into
    blocks: no two attempts need have the same. `partition_rows` and
    `partition_bytes` are the same by partition: read-only, with an entry for each partition of the
    exchange. `bytes` is the sum of `partition_bytes`.

    Two are equal if all but the arrays are: an attempt writes its rows once.
    """

    mapper: int
    attempt: int
    won: bool
    generation: int
    rows: int
    bytes: int
    partition_rows: U64 = field(default_factory=_nothing, compare=False, repr=False)
    partition_bytes: U64 = field(default_factory=_nothing, compare=False, repr=False)

    def __post_init__(self) -> None:
        for name in ("partition_rows", "partition_bytes"):
            view = getattr(self, name).view()
            view.flags.writeable = False
            object.__setattr__(self, name, view)

    def _repr_html_(self) -> str:
        """Return what a notebook shows."""
        won = "counts" if self.won else "does not count: another attempt has committed before"
        about = {
            "attempt": f"{self.attempt}, which {won}",
            "rows": f"{self.rows:,}",
            "bytes": size(self.bytes),
        }
        return facts(f"mapper {self.mapper}", about, sizes_picture(self.partition_bytes))

    def __reduce__(self) -> tuple[type[Commit], tuple[object, ...]]:
        """Pickle as a call, since arrays come out of a pickle writable."""
        return Commit, tuple(getattr(self, one.name) for one in fields(self))


@dataclass(frozen=True, slots=True)
class Source:
    """Where the rows one assignment took can be fetched: try `daemons` in order.

    The primary comes first while it lives (it also holds what is not stored yet), then
    replicas, then others that serve their stores. None: nobody has it, nor will. `sealed`:
    more than one daemon may have written files of it. `store_ids`: the store of each of `daemons`,
    named only where readers may read from it themselves.
    """

    range_index: int
    epoch: int
    daemons: tuple[DaemonRef, ...]
    sealed: bool = False
    store_ids: tuple[str, ...] = ()

    def store_of(self, daemon: DaemonRef) -> str:
        """Return the id of a daemon's store; empty if it is not named."""
        stores = zip(self.daemons, self.store_ids, strict=False)
        return next((store_id for ref, store_id in stores if ref == daemon), "")


@dataclass(frozen=True, slots=True)
class ReadSnapshot:
    """One partition's committed state at one version of the exchange.

    mappers, attempts: uint32 and uint64, parallel, ascending by mapper: the committed
        attempt of every mapper that wrote to the partition's range.
    rows, raw_bytes, digest: what the partition's committed blocks add up to.
    """

    version: int
    generation: int
    build: int
    mappers: U32
    attempts: U64
    rows: int
    raw_bytes: int
    digest: int
    sources: tuple[Source, ...]


@dataclass(frozen=True, slots=True)
class RangeSnapshot:
    """The committed state of some partitions of one range, at one version of the exchange.

    common: what they share; its sums are 0. The arrays are parallel, ascending by partition: what
    the committed blocks of each add up to.
    """

    common: ReadSnapshot
    partitions: U32
    rows: U64
    raw_bytes: U64
    digests: U64

    def snapshots(self) -> Iterator[tuple[int, ReadSnapshot]]:
        """Yield each partition with a snapshot of its own."""
        arrays = self.partitions, self.rows, self.raw_bytes, self.digests
        for partition, *sums in zip(*(array.tolist() for array in arrays), strict=True):
            rows, raw_bytes, digest = sums
            yield partition, replace(self.common, rows=rows, raw_bytes=raw_bytes, digest=digest)


class LossCause(IntEnum):
    """Why a reader says that rows are lost."""

    GONE = 1  # no daemon alive has a source, a file is gone, or a chunk is bad
    MISSING = 2  # everything there is was read, and rows are missing


@dataclass(frozen=True, slots=True)
class LossReport:
    """'I read `partition` of the range's `build` from everyone, and rows are missing.'"""

    number: int
    generation: int
    build: int
    partition: int
    cause: LossCause
    reason: str


@dataclass(frozen=True, slots=True)
class CommitWait:
    """The answer to a reader: a snapshot, or the mappers that are missing.

    `recompute` tells that they are missing because they were called back.
    """

    snapshot: ReadSnapshot | None
    missing: BitMap = field(default_factory=BitMap)
    recompute: bool = False


@dataclass(frozen=True, slots=True)
class RangesWait:
    """The answer to a reader of several partitions, at one version of the exchange.

    ranges: those of which every named mapper has committed. `waiting`: partitions that wait for
    the mappers that are `missing`, or whose range has failed. `recompute`: some of those are
    missing as they were called back. `failed`: a range has, and asking for its partitions alone
    gives the error. What is in neither was left out, and is asked for again.
    """

    ranges: tuple[RangeSnapshot, ...] = ()
    waiting: BitMap = field(default_factory=BitMap)
    missing: BitMap = field(default_factory=BitMap)
    recompute: bool = False
    failed: bool = False


@dataclass(frozen=True, slots=True)
class RecomputeCall:
    """One loss as it is told to the driver: these mappers must run again."""

    loss_id: int
    mappers: BitMap
    reason: str


@dataclass(frozen=True, slots=True)
class DriverOrders:
    """The answer to a driver's poll, which also renews the exchange's lease."""

    calls: tuple[RecomputeCall, ...] = ()


@dataclass(frozen=True, slots=True)
class ExchangeProgress:
    """How far an exchange is. Arrays have one entry per partition.

    All count committed attempts only. `bytes_raw` and `partition_bytes` are of rows before
    compression (for byte rows the sum of their lengths), `bytes_stored` of the blocks that
    carry them, compressed, one copy. `replicas`: the copies that new rows get now, where they
    get fewest; below what was asked for while hosts are missing, 0 while rows must wait.
    """

    mappers_committed: int
    rows: int
    bytes_raw: int
    bytes_stored: int
    partition_rows: U64
    partition_bytes: U64
    replicas: int = 0


@dataclass(frozen=True, slots=True)
class ExchangeStatus:
    """One exchange as `cosco status` shows it."""

    shuffle_id: str
    number: int
    partitions: int
    mappers_committed: int
    rows: int
    closing: bool
    finished: bool = False
