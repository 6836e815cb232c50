"""What the interface answers, and takes, as the OpenAPI document describes it."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from cosco.protocol.admin_records import LossState
from cosco.protocol.peer import Role
from cosco.protocol.records import DaemonState, ExchangeStatus

#: Numbers of 64 bits, which scripts of browsers cannot keep, are texts.
Incarnation = Annotated[str, Field(description="one start of a daemon", examples=["17"])]
Next = Annotated[
    str | None, Field(description="the cursor of the page that follows; null after the last one")
]
DaemonStateName = Literal["serving", "draining", "dead"]
#: By what daemons are listed; a test compares it with those that the state knows.
DaemonOrder = Literal[
    "incarnation",
    "memory_used_bytes",
    "assignments",
    "bytes_received",
    "blocks_received",
    "rows_received",
    "duplicates_dropped",
    "bytes_stored",
    "bytes_fetched",
    "rows_fetched",
    "bytes_referenced",
    "flush_failures",
    "writes",
    "write_bytes",
    "write_s",
    "reads",
    "read_bytes",
    "read_s",
    "waited_s",
    "pages_used_bytes",
    "copies_bytes",
    "waiting_bytes",
    "granted_bytes",
    "push_streams",
    "fetch_streams",
    "followers",
]
PhaseName = Literal["open", "closing", "finished"]
RoleName = Literal["viewer", "tenant", "admin"]
SeverityName = Literal["debug", "info", "warning", "error"]
LossStateName = Literal["open", "arranged", "failed"]
_DAEMON_STATES: Final[dict[DaemonState, DaemonStateName]] = {
    DaemonState.SERVING: "serving",
    DaemonState.DRAINING: "draining",
    DaemonState.DEAD: "dead",
}
_LOSS_STATES: Final[dict[LossState, LossStateName]] = {
    LossState.OPEN: "open",
    LossState.ARRANGED: "arranged",
    LossState.FAILED: "failed",
}
_ROLES: Final[dict[Role, RoleName]] = {
    Role.VIEWER: "viewer",
    Role.TENANT: "tenant",
    Role.ADMIN: "admin",
}


def role_name(of: Role) -> RoleName:
    """Return what a role is called."""
    return _ROLES[of]


def state_name(of: DaemonState) -> DaemonStateName:
    """Return what the state of a daemon is called."""
    return _DAEMON_STATES[of]


def phase_name(of: ExchangeStatus) -> PhaseName:
    """Return what the state of an exchange is called."""
    if of.closing:
        return "closing"
    return "finished" if of.finished else "open"


def loss_state_name(of: LossState) -> LossStateName:
    """Return what is called what became of a loss."""
    return _LOSS_STATES[of]


class Figures(BaseModel):
    """How much there is. A tenant is told of its own exchanges, groups and applications."""

    exchanges_open: int
    exchanges_closing: int = Field(description="0 for a tenant: whose they were is not kept")
    groups: int
    applications: int
    daemons_serving: int
    daemons_draining: int
    daemons_dead: int = Field(description="those that open exchanges still name")
    memory_bytes: int = Field(description="for rows, of all daemons that live")
    memory_free_bytes: int
    waiting_calls: int = Field(description="calls of writers, readers and drivers that wait")


class Cluster(BaseModel):
    cluster_id: str
    version: str
    address: str = Field(description="of the metadata service, host:port")
    started_s: float = Field(description="when the service began, in seconds of the Unix clock")
    figures: Figures
    last_event: int = Field(description="the sequence of the newest event")


class DaemonFigures(BaseModel):
    """What a daemon has done since it started, and holds now, as it told last. Each is a sample
    of its metrics, by nearly the same name: docs/operating.md."""

    bytes_received: int
    blocks_received: int
    rows_received: int
    duplicates_dropped: int
    bytes_stored: int
    bytes_fetched: int
    rows_fetched: int
    bytes_referenced: int
    flush_failures: int
    writes: int
    write_bytes: int
    write_s: float
    reads: int
    read_bytes: int
    read_s: float
    waited_s: float = Field(description="seconds that frames of writers waited for memory")
    pages_used_bytes: int = Field(description="now, like all that follow")
    copies_bytes: int
    waiting_bytes: int
    granted_bytes: int
    push_streams: int
    fetch_streams: int
    followers: int


class Daemon(BaseModel):
    address: str
    incarnation: Incarnation
    host_id: str
    store_id: str
    state: DaemonStateName
    memory_bytes: int
    memory_free_bytes: int
    assignments: int = Field(description="of open exchanges, that are in force")
    metrics_address: str
    store_failing: bool
    store_hangs: bool
    mechanics: str
    version: str = Field(description="which build it is; empty: it has not told yet")
    figures: DaemonFigures | None = Field(description="null: it has told none yet")


class DaemonPage(BaseModel):
    daemons: list[Daemon]
    next: Next


class Exchange(BaseModel):
    shuffle_id: str
    number: int
    state: PhaseName
    tenant: str = Field(description="empty: nobody's, or not known any more")
    partitions: int
    mappers_committed: int
    rows: int


class ExchangePage(BaseModel):
    exchanges: list[Exchange]
    next: Next


class Band(BaseModel):
    """Consecutive partitions from `first` on."""

    first: int
    count: int
    raw_bytes: int | None = Field(description="null where it was not kept")
    largest_bytes: int


class Sizes(BaseModel):
    """Committed bytes of partitions before compression. Of an exchange of more than 256 partitions
    that has ended, what is null was not kept."""

    bands: list[Band]
    smallest_bytes: int | None
    median_bytes: int | None
    p90_bytes: int | None
    p99_bytes: int | None
    largest_bytes: int
    mean_bytes: float
    skew: float = Field(description="the largest one by the mean; 0 without bytes")


class Partition(BaseModel):
    partition: int
    rows: int
    raw_bytes: int


class Share(BaseModel):
    """What an exchange has at one start of a daemon, in partition ranges."""

    address: str
    incarnation: Incarnation
    store_id: str
    state: DaemonStateName
    primary: int
    replica: int
    sealed: int


class UnusualRange(BaseModel):
    """A range that is sealed, was built anew, or has fewer copies than it should."""

    range_index: int
    first: int
    count: int
    epoch: int
    build: int
    sealed: bool
    copies: int
    waiting_for: str


class Loss(BaseModel):
    """A loss that is not repaired. ranges: the first of `ranges_count`; none: of all."""

    loss_id: int
    ranges: list[int]
    ranges_count: int
    state: LossStateName
    mappers: int
    reason: str
    failure: str


class Failure(BaseModel):
    """A range that has failed for good."""

    range_index: int
    error: str
    reason: str


class ExchangeDetail(Exchange):
    """All there is to know of an exchange. Of one that is closing `waiting_for` is known, and of
    that and one that has finished what was kept of it; the rest is 0 or empty."""

    group_id: str
    application_id: str
    replicas: int
    min_replicas: int
    copies: int = Field(description="that new rows get now, where they get fewest")
    codec: str
    kind: str
    deterministic: bool
    direct_reads: bool
    generation: int
    callback: bool = Field(description="whether its driver has mappers run again")
    lease_s: float
    heard_s: float = Field(description="since its driver was heard of")
    lease_left_s: float
    mappers_opened: int
    group_mappers: int = Field(description="mappers of its group; 0: it is of none")
    created_s: float = Field(description="of the Unix clock; 0: nobody knows")
    closed_s: float = Field(description="of the Unix clock; 0: it is open, or nobody knows")
    cause: str = Field(description="why it was closed")
    rebuilds: int = Field(description="builds of ranges beyond their first ones")
    raw_bytes: int
    stored_bytes: int
    ranges: int
    empty_partitions: int
    largest: list[Partition]
    sizes: Sizes | None
    daemons: list[Share]
    unusual: list[UnusualRange]
    rebuilt_ranges: int = Field(description="of `unusual`, those that were built anew")
    losses: list[Loss]
    losses_count: int
    failures: list[Failure]
    contradicted: list[int] = Field(description="mappers that committed two different things")
    waiting_for: list[str]


class PartitionPage(BaseModel):
    partitions: list[Partition]
    next: Next


class DaemonName(BaseModel):
    address: str
    incarnation: Incarnation


class Assignment(BaseModel):
    range_index: int
    first: int
    count: int
    epoch: int
    build: int
    sealed: bool
    primary: DaemonName
    replicas: list[DaemonName]


class AssignmentPage(BaseModel):
    assignments: list[Assignment]
    next: Next


class Run(BaseModel):
    """All mappers from `first` to `last`."""

    first: int
    last: int


class Commits(BaseModel):
    """How many mappers have committed, and which."""

    number: int
    committed: int
    mappers: list[Run]
    is_cut: bool = Field(description="whether there are more runs than are given")


class Group(BaseModel):
    group_id: str
    tenant: str
    exchanges: int
    open: int
    partitions: int
    replicas: int
    mappers: int
    lease_s: float
    heard_s: float
    lease_left_s: float


class GroupPage(BaseModel):
    groups: list[Group]
    next: Next


class Application(BaseModel):
    application_id: str
    number: int
    tenant: str
    exchanges: int
    lease_s: float
    heard_s: float
    lease_left_s: float


class ApplicationPage(BaseModel):
    applications: list[Application]
    next: Next


class ToldEvent(BaseModel):
    sequence: int
    time_s: float = Field(description="when it was told, in seconds of the Unix clock")
    event: str
    severity: SeverityName
    fields: dict[str, Any] = Field(description="as the log has them: architecture/operations.md")


class EventPage(BaseModel):
    events: list[ToldEvent]
    next: str = Field(description="the cursor to ask by for what follows, also if nothing has yet")


class Empty(BaseModel):
    """A request that says nothing but what its path says."""

    model_config = ConfigDict(extra="forbid")


class Drained(BaseModel):
    address: str


class Undrained(BaseModel):
    address: str
    was_draining: bool = Field(description="whether it drained until now")


class Closed(BaseModel):
    was_open: bool = Field(description="false: it was closed before")


class ForgottenStore(BaseModel):
    """What followed. closed: exchanges that were closing for it alone. ranges: of open exchanges,
    whose rows are lost; doubtful: with rows there of which copies may be left. exchanges: that
    `ranges` are of."""

    closed: int
    ranges: int
    doubtful: int
    exchanges: int


class Token(BaseModel):
    model_config = ConfigDict(extra="forbid")

    token: str = Field(min_length=1, max_length=8192, repr=False)


class Who(BaseModel):
    """Who calls. asks: whether this cluster asks for a token; else everybody may do everything."""

    asks: bool
    name: str
    tenant: str
    role: RoleName
