"""Events: what a service tells its operators of what it decided.

An `Event` is plain and never changes. What decides adds it to its `EventLog`, a bounded list; the
loop around it takes what has gathered and hands it on, to the log of the process and to whoever
else wants it. docs/architecture/operations.md has all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields, replace
from enum import Enum, IntEnum
from typing import Any, Final

#: Events that wait to be taken; what comes beyond that is counted, by kind.
MAX_EVENTS: Final = 4096


class Severity(IntEnum):
    """How much an operator has to care, in the terms of Python's logging."""

    DEBUG = 10
    INFO = 20
    WARNING = 30
    ERROR = 40


class EventKind(Enum):
    """What happened; the value is its name, and how severe it is."""

    # Both services.
    SERVICE_STARTED = "service_started", Severity.INFO
    SERVICE_STOPPING = "service_stopping", Severity.INFO
    SERVICE_STOPPED = "service_stopped", Severity.INFO
    EVENTS_LEFT_OUT = "events_left_out", Severity.INFO

    # The first of several processes, of the others.
    PROCESS_ENDED = "process_ended", Severity.WARNING

    # The metadata service, of daemons.
    DAEMON_REGISTERED = "daemon_registered", Severity.INFO
    DAEMON_RETURNED = "daemon_returned", Severity.WARNING
    REGISTRATION_REFUSED = "registration_refused", Severity.WARNING
    STORE_ADOPTED = "store_adopted", Severity.INFO
    STORE_FORGOTTEN = "store_forgotten", Severity.WARNING
    FORGOTTEN_STORE_RETURNED = "forgotten_store_returned", Severity.WARNING
    DAEMON_SILENT = "daemon_silent", Severity.WARNING
    DAEMON_HEARD = "daemon_heard", Severity.INFO
    DAEMON_DIED = "daemon_died", Severity.WARNING
    DAEMON_DRAINS = "daemon_drains", Severity.INFO
    DAEMON_UNDRAINED = "daemon_undrained", Severity.INFO
    DAEMON_RELEASED = "daemon_released", Severity.INFO
    DAEMON_LEFT = "daemon_left", Severity.INFO
    DAEMON_STORE_FAILING = "daemon_store_failing", Severity.WARNING
    DAEMON_STORE_RECOVERED = "daemon_store_recovered", Severity.INFO

    # The metadata service, of itself.
    LEASES_RESTARTED = "leases_restarted", Severity.WARNING
    DATABASE_FAILING = "database_failing", Severity.ERROR
    DATABASE_RECOVERED = "database_recovered", Severity.INFO

    # The metadata service, of exchanges, groups and applications.
    EXCHANGE_CREATED = "exchange_created", Severity.INFO
    EXCHANGE_TAKEN_OVER = "exchange_taken_over", Severity.INFO
    EXCHANGE_CLOSED = "exchange_closed", Severity.INFO
    EXCHANGE_REMOVED = "exchange_removed", Severity.DEBUG
    GROUP_CREATED = "group_created", Severity.INFO
    GROUP_EXTENDED = "group_extended", Severity.DEBUG
    GROUP_CLOSED = "group_closed", Severity.INFO
    APPLICATION_CREATED = "application_created", Severity.INFO
    APPLICATION_CLOSED = "application_closed", Severity.INFO
    RANGES_SEALED = "ranges_sealed", Severity.INFO
    RANGES_MOVED = "ranges_moved", Severity.INFO
    ROWS_LOST = "rows_lost", Severity.WARNING
    MAPPERS_CALLED_BACK = "mappers_called_back", Severity.WARNING
    RECOMPUTE_ARRANGED = "recompute_arranged", Severity.INFO
    RECOMPUTE_FAILED = "recompute_failed", Severity.ERROR
    REBUILT = "rebuilt", Severity.INFO
    OLD_BUILDS_DROPPED = "old_builds_dropped", Severity.INFO
    COMMIT_CONTRADICTED = "commit_contradicted", Severity.ERROR
    RANGE_CONDEMNED = "range_condemned", Severity.ERROR
    GENERATION_BEGAN = "generation_began", Severity.WARNING
    DATA_LOST = "data_lost", Severity.ERROR

    # A daemon, of itself.
    STORE_WAS_FORGOTTEN = "store_was_forgotten", Severity.WARNING
    REGISTERED = "registered", Severity.INFO
    METADATA_AWAY = "metadata_away", Severity.WARNING
    METADATA_BACK = "metadata_back", Severity.INFO
    LEASE_LOST = "lease_lost", Severity.WARNING
    DRAIN_BEGAN = "drain_began", Severity.INFO
    DRAINED = "drained", Severity.INFO
    DRAIN_CANCELLED = "drain_cancelled", Severity.INFO
    STORE_FAILING = "store_failing", Severity.WARNING
    STORE_RECOVERED = "store_recovered", Severity.INFO
    STORE_HANGS = "store_hangs", Severity.WARNING
    STORE_ANSWERS = "store_answers", Severity.INFO
    DIRECTORY_OUT = "directory_out", Severity.WARNING
    DIRECTORY_BACK = "directory_back", Severity.INFO
    FLASH_OUT = "flash_out", Severity.WARNING
    FLASH_BACK = "flash_back", Severity.INFO
    FLASH_DAMAGED = "flash_damaged", Severity.WARNING
    MOVES_FAILING = "moves_failing", Severity.WARNING
    MOVES_RECOVERED = "moves_recovered", Severity.INFO
    EPOCHS_FENCED = "epochs_fenced", Severity.INFO
    EXCHANGE_DROPPED = "exchange_dropped", Severity.INFO
    EPOCHS_DROPPED = "epochs_dropped", Severity.INFO

    @property
    def label(self) -> str:
        """Return its name as it is written."""
        return self.value[0]

    @property
    def severity(self) -> Severity:
        return self.value[1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One thing that happened. A field that does not apply is None.

    range_indexes: the partition ranges that it is about.
    times: how often it happened, where one event stands for several that are alike.
    """

    kind: EventKind
    daemon: str | None = None  # host:port
    incarnation: int | None = None
    host_id: str | None = None
    store: str | None = None
    address: str | None = None
    metrics: str | None = None
    http: str | None = None  # the URL of its HTTP interface
    version: str | None = None
    mechanics: str | None = None  # native or portable, and why
    cluster: str | None = None
    tenant: str | None = None  # whose what follows is; None where nobody needs a token
    exchange: str | None = None  # the caller's id
    number: int | None = None
    group: str | None = None
    application: str | None = None
    partitions: int | None = None
    range_indexes: tuple[int, ...] | None = None
    epoch: int | None = None
    build: int | None = None
    generation: int | None = None
    replicas: int | None = None
    mappers: int | None = None
    rows: int | None = None
    ranges: int | None = None
    exchanges: int | None = None
    bytes: int | None = None
    seconds: float | None = None
    process: int | None = None
    code: int | None = None  # of its exit; below 0: of the signal that killed it
    cause: str | None = None
    reason: str | None = None
    times: int = 1

    @property
    def count(self) -> int:
        """Return how many events it stands for: of other ranges, or the same once more."""
        return self.times + max(len(self.range_indexes or ()) - 1, 0)

    def shown(self) -> dict[str, Any]:
        """Return the fields that apply, by name, in their order; a list of ranges as text."""
        found: dict[str, Any] = {"event": self.kind.label}
        for name in _FIELDS:
            value = getattr(self, name)
            if name == "range_indexes" and value is not None:
                found["range"], found["ranges"] = shown_ranges(value), len(value)
            elif value is not None:
                found[name] = value
        if self.times != 1:
            found["times"] = self.times
        return found


_FIELDS: Final = tuple(f.name for f in fields(Event) if f.name not in {"kind", "times"})
#: Pieces like `3` and `7-9` that are shown of a list of ranges.
_MAX_PIECES: Final = 8


def shown_ranges(indexes: Iterable[int]) -> str:
    """Return `0-3,7` for 0, 1, 2, 3 and 7; what does not fit ends in `…`."""
    pieces: list[list[int]] = []
    for index in sorted(indexes):
        if pieces and index == pieces[-1][1] + 1:
            pieces[-1][1] = index
        else:
            pieces.append([index, index])
    texts = [f"{a}" if a == b else f"{a}-{b}" for a, b in pieces[:_MAX_PIECES]]
    return ",".join(texts) + (",…" if len(pieces) > _MAX_PIECES else "")


@dataclass(slots=True)
class _Gathered:
    """An event that waits, and what was joined to it."""

    event: Event
    ranges: dict[int, None]
    times: int

    def join(self, event: Event) -> None:
        """Have this stand for `event` as well."""
        before = len(self.ranges)
        self.ranges.update(dict.fromkeys(event.range_indexes or ()))
        if not before or len(self.ranges) == before:
            self.times += event.times

    def whole(self) -> Event:
        """Return the one event."""
        event = self.event
        if self.times != event.times:
            event = replace(event, times=self.times)
        if len(self.ranges) > 1:  # whose epochs and builds may differ
            event = replace(event, range_indexes=tuple(self.ranges), epoch=None, build=None)
        return event


class EventLog:
    """The events that nobody has taken yet, in their order.

    Of one exchange, daemon and cause, what waits is one event: ranges are joined, and times added
    up, so that a daemon's death is not a line for each range. The list is bounded.
    """

    def __init__(self, max_events: int = MAX_EVENTS) -> None:
        self._max_events = max_events
        self._gathered: dict[object, _Gathered] = {}
        self._left_out: dict[EventKind, int] = {}
        #: Called when there is something to take.
        self.on_add: Callable[[], None] = lambda: None

    def __bool__(self) -> bool:
        """Whether `pop_all` has something to give."""
        return bool(self._gathered or self._left_out)

    def add(self, event: Event) -> None:
        """Add an event, or join it to the one that it is like."""
        key = (
            event.kind, event.number, event.group, event.application, event.daemon,
            event.incarnation, event.cause, event.reason,
        )  # fmt: skip
        before = self._gathered.get(key)
        if before is not None:
            before.join(event)
        elif len(self._gathered) < self._max_events:
            ranges = dict.fromkeys(event.range_indexes or ())
            self._gathered[key] = _Gathered(event, ranges, event.times)
        else:
            self._left_out[event.kind] = self._left_out.get(event.kind, 0) + event.times
        self.on_add()

    def pop_all(self) -> list[Event]:
        """Return what gathered since the last call, and what there was no room for."""
        found = [gathered.whole() for gathered in self._gathered.values()]
        found += (left_out(kind, times) for kind, times in self._left_out.items())
        self._gathered, self._left_out = {}, {}
        return found


def left_out(kind: EventKind, times: int) -> Event:
    """Return what says that events of a kind are not told one by one."""
    return Event(kind=EventKind.EVENTS_LEFT_OUT, cause=kind.label, times=times)
