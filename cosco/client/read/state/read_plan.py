"""What a reader does next: whom it asks, when it asks anew, and when it calls rows lost.

`ReadPlan` decides and does nothing itself: `step` says what to do now, and whoever does it
tells how it went. Of each source the first daemon that answers well is believed, unless rows
are missing then: a second pass asks every daemon of every source. A daemon out of reach is
reported and waited for, until it answers or the metadata service does not name it any more.
What is missing after all that is a loss, and the plan begins anew with the next build.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from pyroaring import BitMap

from cosco.client.read.state.direct_stores import DirectStores
from cosco.protocol.keys import RangeEpoch
from cosco.protocol.records import CommitWait, DaemonRef, LossCause, ReadSnapshot, Source

#: A fetch without progress for this time counts as out of reach; twice as long for the same
#: daemon each time, as it may only be slow.
STALL_S: Final = 5.0
_MAX_STALLS: Final = 6
#: One wait at the service for commits; a longer one is made of several.
POLL_S: Final = 20.0
#: The pause between two polls that were answered early.
_POLL_PAUSE_S: Final = 0.05
#: The pause between two rounds of asking daemons that are out of reach; doubled up to the longest.
_MIN_PAUSE_S: Final = 0.05
_MAX_PAUSE_S: Final = 1.0
#: A daemon that is alive for the service, and out of reach here for this time, is insisted on.
INSIST_AFTER_S: Final = 3.0
#: While others are out of reach those that answered are asked again after this time, then after
#: twice as long: they serve files that somebody may have written meanwhile.
_REASK_AFTER_S: Final = 4.0

#: The build of a snapshot made of marks (`cosco.protocol.mark`); no range has it. What is committed
#: goes on with it if that is of the same attempts and sums, else reading begins anew.
MARKS_BUILD: Final = 0
#: Commits follow marks sooner than this, unless the process is gone.
_COMMITS_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class AwaitCommits:
    """Pause, then ask the metadata service, which may wait `wait_s`; then call `told`.

    `outage_s` bounds how long the service itself is waited for; None: as usual.
    """

    pause_s: float = 0.0
    wait_s: float = 0.0
    outage_s: float | None = None


@dataclass(frozen=True, slots=True)
class Begin:
    """Forget all blocks and rows there are, begin a merge of `snapshot`; then call `begun`."""

    snapshot: ReadSnapshot


@dataclass(frozen=True, slots=True)
class Fetch:
    """Ask `daemon` for what it has of `source`, and if `files`, for what others stored of it.

    Then call `answered`, `closed` or `unreachable`; none of them if it is to be done again.
    `stall_s` without progress make it unreachable. `whole`: no block may come as its header alone.
    `direct`: what is stored may be read from the store; where that fails, call `not_direct`.
    """

    source: Source
    daemon: DaemonRef
    files: bool
    stall_s: float
    whole: bool = False
    direct: bool = False


@dataclass(frozen=True, slots=True)
class ReportDaemon:
    """Tell the metadata service that `daemon` is out of reach; then call `reported`."""

    daemon: DaemonRef
    insist: bool


@dataclass(frozen=True, slots=True)
class ReportLoss:
    """Tell the metadata service that rows of this build are lost; then call `loss_reported`."""

    generation: int
    build: int
    cause: LossCause
    reason: str


@dataclass(frozen=True, slots=True)
class Done:
    """Every row was there."""


class Failure(Enum):
    """Why a read ends without every row."""

    TIMEOUT = auto()  # mappers did not commit, or not run again, in time
    UNREACHABLE = auto()  # a daemon stayed out of reach for too long
    LOST = auto()  # the service has the build that was reported as lost go on
    BROKEN_OFF = auto()  # the build ended after rows of it were given to the caller


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Raise. `missing` and `recompute` are of the service's last answer, for TIMEOUT."""

    why: Failure
    reason: str = ""
    missing: BitMap | None = None
    recompute: bool = False


Step = AwaitCommits | Begin | Fetch | ReportDaemon | ReportLoss | Done | GiveUp


class _Phase(Enum):
    WAITING = auto()  # for a snapshot
    BEGINNING = auto()  # with one
    READING = auto()


@dataclass(slots=True)
class _Trouble:
    """A daemon that could not be reached, since its last answer."""

    since: float
    reason: str
    report: bool = True  # False: it did answer, it cannot serve now
    reported: bool = False  # in this round
    alive: bool | None = None  # as the service said in the end


class ReadPlan:
    """The steps of one reader of one partition, over all builds of its range.

    Times are of any clock that never goes back. Memory: a few entries per daemon.
    """

    def __init__(
        self,
        *,
        timeout_s: float | None,
        service_timeout_s: float,
        troubled: set[DaemonRef] | None = None,
        direct: DirectStores | None = None,
    ) -> None:
        """Begin by waiting.

        timeout_s: bounds each wait for commits or a rebuild; None: nothing does.
        service_timeout_s: bounds the wait for a daemon that is out of reach.
        troubled: daemons that are asked last; those that do not answer are added.
        direct: which stores may be read from; None: none.
        """
        self._direct = direct
        self._timeout_s = timeout_s
        self._service_timeout_s = service_timeout_s
        #: Whether rows were given to the caller: then nothing can begin anew.
        self.has_given = False
        #: What is read now, or was read last.
        self.snapshot: ReadSnapshot | None = None
        self._phase = _Phase.WAITING
        self._wait_began: float | None = None
        self._last_wait: CommitWait | None = None
        self._is_lost = False  # the build of `snapshot` was reported
        self._end: GiveUp | None = None
        self._troubles: dict[DaemonRef, _Trouble] = {}
        self._troubled: set[DaemonRef] = set() if troubled is None else troubled
        self._stalls: dict[DaemonRef, int] = {}
        self._forget()

    def _forget(self) -> None:
        """Begin the first pass of a snapshot."""
        self._sources: tuple[Source, ...] = self.snapshot.sources if self.snapshot else ()
        self._is_second_pass = False
        self._answered_well: set[RangeEpoch] = set()
        self._answered: set[tuple[RangeEpoch, DaemonRef]] = set()
        self._down: set[DaemonRef] = set()  # in this round
        self._bad = ""  # a reason, once anything was bad in this pass
        self._must_renew = True  # before a loss is reported
        self._is_closed = False  # a daemon said that the exchange is, or the source is over
        self._pause_s = _MIN_PAUSE_S
        self._reask_gap_s = _REASK_AFTER_S
        self._reask_at: float | None = None
        self._not_direct: set[RangeEpoch] = set()  # daemons are to send all of these

    # --- what to do -------------------------------------------------------------------------

    def step(self, now: float, *, is_complete: bool = False) -> Step:
        """Return what to do now. `is_complete`: the merge of this build has every row."""
        if self._end is not None:
            return self._end
        if self._phase is _Phase.WAITING:
            return self._wait_step(now)
        assert self.snapshot is not None  # as in every phase but WAITING
        if self._phase is _Phase.BEGINNING:
            return Begin(self.snapshot)
        return Done() if is_complete else self._reading_step(self.snapshot, now)

    def _reading_step(self, snapshot: ReadSnapshot, now: float) -> Step:
        if self._is_closed:
            return self._renewal()  # which raises, if the exchange is closed
        if (fetch := self._next_fetch(now)) is not None:
            return fetch
        if awaited := [d for s in self._open_sources() for d in s.daemons if d in self._down]:
            return self._trouble_step(awaited, now)
        if not self._is_second_pass:
            self._is_second_pass = True
            self._answered.clear()
            self._bad = ""
            return self._reading_step(snapshot, now)
        return self._renewal() if self._must_renew else self._loss_step(snapshot)

    def _renewal(self, pause_s: float = 0.0) -> AwaitCommits:
        """Ask what the service says now of what is read."""
        assert self.snapshot is not None  # as it is read
        return AwaitCommits(pause_s, _COMMITS_S if self.snapshot.build == MARKS_BUILD else 0.0)

    def _wait_step(self, now: float) -> Step:
        if self._is_lost and self.has_given:
            return AwaitCommits()  # for the error that it raises, if any
        if self._wait_began is None:
            self._wait_began = now
        pause_s = 0.0 if self._last_wait is None else _POLL_PAUSE_S
        if self._timeout_s is None:
            return AwaitCommits(pause_s, POLL_S)
        left_s = max(0.0, self._wait_began + self._timeout_s - now)
        if self._last_wait is not None and not left_s:
            wait = self._last_wait
            return GiveUp(
                Failure.TIMEOUT,
                f"in {self._timeout_s:g} s",
                missing=wait.missing,
                recompute=wait.recompute,
            )
        return AwaitCommits(
            min(pause_s, left_s), min(POLL_S, left_s), min(left_s, self._service_timeout_s)
        )

    def _next_fetch(self, now: float) -> Fetch | None:
        for source in self._open_sources():
            for daemon in by_trouble(source, self._troubled):
                if daemon in self._down or (_key(source), daemon) in self._answered:
                    continue
                return Fetch(
                    source,
                    daemon,
                    files=self._is_second_pass or asks_for_files(source, daemon),
                    stall_s=STALL_S * 2 ** self._stalls.get(daemon, 0),
                    whole=self._is_second_pass,
                    direct=self._is_direct(source, daemon, now),
                )
        return None

    def _is_direct(self, source: Source, daemon: DaemonRef, now: float) -> bool:
        """Whether what is stored of a source may be read from the store.

        Never in a second pass: that a row is lost is said by daemons alone.
        """
        if self._direct is None or self._is_second_pass or _key(source) in self._not_direct:
            return False
        return self._direct.allows(source.store_of(daemon), now)

    def _open_sources(self) -> list[Source]:
        """Return the sources of which a daemon is to be asked yet in this pass, if there is one."""
        if self._is_second_pass:
            return list(self._sources)
        return [source for source in self._sources if _key(source) not in self._answered_well]

    def _trouble_step(self, awaited: list[DaemonRef], now: float) -> Step:
        for daemon in awaited:
            trouble = self._troubles[daemon]
            if trouble.report and not trouble.reported and trouble.alive is not False:
                is_long = now - trouble.since >= INSIST_AFTER_S
                return ReportDaemon(daemon, insist=trouble.alive is True and is_long)
        for daemon in awaited:
            trouble = self._troubles[daemon]
            if now - trouble.since >= self._service_timeout_s:
                return GiveUp(Failure.UNREACHABLE, trouble.reason)
        return self._renewal(self._pause_s)

    def _loss_step(self, snapshot: ReadSnapshot) -> Step:
        nobody = next((source for source in self._sources if not source.daemons), None)
        if self._bad:
            reason = self._bad
        elif nobody is not None:
            reason = f"no daemon alive has epoch {nobody.epoch} of range {nobody.range_index}"
        else:
            reason = "every copy was read"
        is_gone = bool(self._bad) or nobody is not None
        cause = LossCause.GONE if is_gone else LossCause.MISSING
        return ReportLoss(snapshot.generation, snapshot.build, cause, reason)

    # --- how it went ------------------------------------------------------------------------

    def told(self, wait: CommitWait, now: float) -> None:
        """Note what the metadata service answered to AwaitCommits."""
        snapshot = wait.snapshot
        if self.has_given and (self._is_lost or snapshot is None):
            self._end = GiveUp(Failure.BROKEN_OFF)
        elif snapshot is None:
            if self._phase is not _Phase.WAITING:
                self._await()
            self._last_wait = wait
        elif self.snapshot is None or not _goes_on(self.snapshot, snapshot):
            if self.has_given:
                self._end = GiveUp(Failure.BROKEN_OFF)
                return
            self.snapshot = snapshot
            self._is_lost = False
            self._phase = _Phase.BEGINNING
            self._forget()
        elif self._is_lost:
            self._end = GiveUp(Failure.LOST)
        else:
            self.snapshot = snapshot
            self._phase = _Phase.READING
            self._renew(snapshot.sources, now)

    def begun(self) -> None:
        """Note that there is a merge for the snapshot of Begin."""
        self._phase = _Phase.READING

    def gave(self) -> None:
        """Note that rows were given to the caller."""
        self.has_given = True

    def answered(self, fetch: Fetch, bad: str = "") -> None:
        """Note that the daemon gave all it has. `bad` tells what was bad in it, if anything."""
        self._answered.add((_key(fetch.source), fetch.daemon))
        self._troubles.pop(fetch.daemon, None)
        self._troubled.discard(fetch.daemon)
        self._pause_s = _MIN_PAUSE_S
        self._must_renew = True
        if bad:
            self._bad = self._bad or bad
        else:
            self._answered_well.add(_key(fetch.source))

    def not_direct(self, fetch: Fetch) -> None:
        """Note that not all of it could be read from the store: the daemon is to send it."""
        self._not_direct.add(_key(fetch.source))

    def closed(self, fetch: Fetch) -> None:
        """Note that the daemon has dropped the exchange, as that is closed, or this epoch of it, as
        its build has ended: the metadata service knows."""
        self._is_closed = True
        self.answered(fetch, f"{fetch.daemon.address} dropped it")

    def unreachable(
        self, fetch: Fetch, now: float, reason: str, *, stalled: bool = False, busy: bool = False
    ) -> None:
        """Note that the daemon did not answer to the end.

        stalled: nothing came for too long. busy: it did answer, that it cannot serve now.
        """
        daemon = fetch.daemon
        trouble = self._troubles.setdefault(daemon, _Trouble(now, reason))
        trouble.reason, trouble.report = reason, not busy
        self._down.add(daemon)
        self._troubled.add(daemon)
        if stalled:
            self._stalls[daemon] = min(self._stalls.get(daemon, 0) + 1, _MAX_STALLS)

    def reported(self, daemon: DaemonRef, *, alive: bool) -> None:
        """Note that the metadata service took the report, and what it said."""
        trouble = self._troubles[daemon]
        trouble.reported, trouble.alive = True, alive

    def loss_reported(self) -> None:
        """Note that the metadata service took the report."""
        self._is_lost = True
        self._await()

    def _await(self) -> None:
        self._phase = _Phase.WAITING
        self._wait_began = self._last_wait = None

    def _renew(self, sources: tuple[Source, ...], now: float) -> None:
        """Begin another round, with what the service says now of the same build's sources."""
        before = {_key(source): source for source in self._sources}
        for source in sources:
            old = before.get(_key(source))
            if self._is_second_pass and old is not None and source.sealed and not old.sealed:
                # Whoever was asked before may have seen less than was stored for the seal.
                self._answered -= {(_key(source), daemon) for daemon in source.daemons}
        self._sources = sources
        self._must_renew = self._is_closed = False
        if not self._down:
            return
        self._down.clear()
        for trouble in self._troubles.values():
            trouble.reported = False
        self._pause_s = min(2 * self._pause_s, _MAX_PAUSE_S)
        if self._reask_at is None:
            self._reask_at = now + self._reask_gap_s
        elif self._is_second_pass and now >= self._reask_at:
            self._answered.clear()
            self._reask_gap_s *= 2
            self._reask_at = now + self._reask_gap_s


def by_trouble(source: Source, troubled: set[DaemonRef]) -> list[DaemonRef]:
    """Return the daemons of a source as they are asked, those in trouble last."""
    return sorted(source.daemons, key=troubled.__contains__)


def asks_for_files(source: Source, daemon: DaemonRef) -> bool:
    """Whether a daemon is asked for what others stored of a source when it is asked first."""
    return source.sealed or daemon != source.daemons[0]


def _key(source: Source) -> RangeEpoch:
    return RangeEpoch(source.range_index, source.epoch)


def _goes_on(old: ReadSnapshot, new: ReadSnapshot) -> bool:
    """Whether a merge of `old` is one of `new` as well."""
    if old.build != MARKS_BUILD or new.build == MARKS_BUILD:
        return (old.generation, old.build) == (new.generation, new.build)
    sums = [(one.generation, one.rows, one.raw_bytes, one.digest) for one in (old, new)]
    attempts = dict(zip(old.mappers.tolist(), old.attempts.tolist(), strict=True))
    named = zip(new.mappers.tolist(), new.attempts.tolist(), strict=True)
    # Marks also tell of mappers that wrote nothing here.
    return sums[0] == sums[1] and all(attempts.get(mapper) == one for mapper, one in named)
