"""From the end of an epoch to the next one: seal, fence the survivors, place.

docs/architecture/failures.md, "Sealing an epoch, and the next one", is the order that is kept
here. The caller keeps one part of it: fences are sent, and new epochs told, only once what was
changed before is durable.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Container, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from cosco.errors import InvalidArgument
from cosco.metadata.state.daemons.daemon_table import Daemon, DaemonTable
from cosco.metadata.state.daemons.errands import Fence, Fences
from cosco.metadata.state.daemons.placement import Avoid, host_count, place_next
from cosco.metadata.state.exchange.exchange_state import ExchangeState
from cosco.protocol.events import Event, EventKind
from cosco.protocol.keys import AssignmentKey, RangeEpoch, RangeKey
from cosco.protocol.records import Assignment, DaemonRef, RenewedAssignments

#: Ranges are given the copies that they lack once no daemon has come for QUIET_S, and then
#: RESTORED_PER_TICK of them a tick.
QUIET_S: Final = 3.0
RESTORED_PER_TICK: Final = 16
#: A range moves at most once in this time because somebody insists.
INSIST_S: Final = 5.0
#: A daemon that was out of reach for somebody of a range is avoided this long.
AVOID_S: Final = 30.0


@dataclass(slots=True)
class _Move:
    """A range whose epoch is sealed: the next one begins when none of its survivors is
    `unfenced`."""

    epoch: int
    unfenced: set[int]


@dataclass(frozen=True, slots=True)
class _Shunned:
    avoid: Avoid
    at: float


class Shunning:
    """Ranges that were moved as somebody could not reach a daemon of theirs that lives.

    They avoid that daemon for a while.
    """

    def __init__(self) -> None:
        self._moves: dict[RangeKey, _Shunned] = {}

    def may_move(self, key: RangeKey, now: float) -> bool:
        """Whether a range was not moved so a moment ago."""
        move = self._moves.get(key)
        return move is None or now - move.at >= INSIST_S

    def moved(self, key: RangeKey, avoid: Avoid, now: float) -> None:
        """Note that a range moves, and what it is to avoid."""
        self._moves[key] = _Shunned(avoid, now)

    def avoided(self, key: RangeKey) -> Avoid:
        """Return what a range is to avoid."""
        move = self._moves.get(key)
        return Avoid() if move is None else move.avoid

    def forget(self, key: RangeKey) -> None:
        """Forget a range; harmless if it was not moved."""
        self._moves.pop(key, None)

    def expire(self, now: float, under_way: Container[RangeKey]) -> None:
        """Have ranges go anywhere again, once that was long ago, but those still moving."""
        for key, move in list(self._moves.items()):
            if now - move.at >= AVOID_S and key not in under_way:
                del self._moves[key]


class Failover:
    """The epochs of all open exchanges. The caller decides which are: `exchanges` is its own."""

    def __init__(
        self,
        exchanges: Mapping[int, ExchangeState],
        daemons: DaemonTable,
        now: float,
        tell: Callable[[Event], None] = lambda _: None,
    ) -> None:
        """`tell` has operators told of an event."""
        self._tell = tell
        self._exchanges = exchanges
        self._daemons = daemons
        self._moves: dict[RangeKey, _Move] = {}
        self._fences = Fences()
        #: The ranges whose current epoch is not sealed, by each of its members.
        self._current: dict[int, dict[RangeKey, None]] = {}
        #: The ranges with fewer copies than were asked for.
        self._thin: dict[RangeKey, None] = {}
        self._shunning = Shunning()
        self._begun: list[RangeKey] = []
        self._quiet_at = now + QUIET_S

    # --- exchanges -------------------------------------------------------------------------

    def opened(self, exchange: ExchangeState) -> None:
        """Take up an exchange, new or restored."""
        for epochs in exchange.placed:
            for placed in epochs:
                assignment = placed.assignment
                for ref in assignment.daemons:
                    self._daemons.assign(ref.incarnation, sealed=assignment.sealed)
                if not assignment.sealed:
                    self._enter(exchange, assignment)

    def resume(self) -> None:
        """Go on after a restart, once all exchanges are there."""
        for exchange in self._exchanges.values():
            for index, epochs in enumerate(exchange.placed):
                for placed in epochs:
                    # What was confirmed before the restart is not known any more.
                    if placed.assignment.sealed:
                        self._fence(exchange.number, placed.assignment)
                current = exchange.current(index)
                if current.sealed:
                    self._begin_move(exchange, index)
                elif len(self._survivors(current)) < len(current.daemons):
                    self.seal(exchange, index, "daemon died")

    def closed(self, exchange: ExchangeState) -> None:
        """Forget an exchange, whose daemons may then be forgotten."""
        for index, epochs in enumerate(exchange.placed):
            key = RangeKey(exchange.number, index)
            if not exchange.current(index).sealed:
                self._leave(key, epochs[-1].assignment)
            self._moves.pop(key, None)
            self._shunning.forget(key)
            for placed in epochs:
                for ref in placed.assignment.daemons:
                    self._daemons.release(ref.incarnation, sealed=placed.assignment.sealed)
        self._fences.closed(exchange.number)

    def replicas(self, exchange: ExchangeState) -> int:
        """Return the fewest copies that new rows of any range get; 0 while a range is sealed."""
        return min(
            0 if current.sealed else len(current.daemons) for current in exchange.info().assignments
        )

    # --- ends of epochs --------------------------------------------------------------------

    def seal(self, exchange: ExchangeState, index: int, cause: str | None = None) -> None:
        """End the current epoch of a range; the next one follows. Harmless if it has ended.

        cause: for operators.
        """
        if exchange.current(index).sealed:
            return
        assignment = exchange.current(index)
        self._tell_range(EventKind.RANGES_SEALED, exchange, assignment, cause)
        self._leave(RangeKey(exchange.number, index), assignment)
        for ref in assignment.daemons:
            self._daemons.seal(ref.incarnation)
        exchange.seal(index)
        self._fence(exchange.number, assignment)
        self._begin_move(exchange, index)

    def insist(self, key: AssignmentKey, suspect: int, now: float, *, is_primary: bool) -> None:
        """Move a range away from a daemon that lives and is out of reach for somebody.

        Only if that is still its epoch, there are hosts enough without that daemon, and nobody
        has made the range move in this way for INSIST_S.
        """
        exchange, index = self._exchanges.get(key.number), key.range_index
        if exchange is None or not self._shunning.may_move(key.range_key, now):
            return
        assignment = exchange.assignment(index, key.epoch)  # None if it has ended
        if assignment is None or not assignment.names(suspect):
            return
        if is_primary != (assignment.primary.incarnation == suspect):
            return
        others = [c for c in self._daemons.candidates() if c.incarnation != suspect]
        if host_count(others) < (1 if is_primary else exchange.spec.min_replicas):
            return
        shunned = frozenset((suspect,))
        avoid = Avoid(as_primary=shunned) if is_primary else Avoid(as_any=shunned)
        self._shunning.moved(key.range_key, avoid, now)
        self.seal(exchange, index, "out of reach")

    def replicated_to(self, primary: int, replica: int) -> list[AssignmentKey]:
        """Return the current assignments of a primary that have this replica."""
        found = []
        for number, index in self._current.get(primary, ()):
            assignment = self._exchanges[number].current(index)
            if assignment.primary.incarnation == primary and assignment.names(replica):
                found.append(AssignmentKey(number, index, assignment.epoch))
        return found

    def seal_all_of(self, incarnation: int, cause: str | None = "daemon drains") -> None:
        """Move everything away from a daemon, even if there is nowhere to go."""
        for number, index in list(self._current.get(incarnation, ())):
            self.seal(self._exchanges[number], index, cause)

    def died(self, incarnations: Collection[int]) -> None:
        """Seal what dead daemons had, and wait no more for fences of theirs.

        The table of daemons knows by then that they died.
        """
        for incarnation in incarnations:
            self._fences.died(incarnation)
        for key, move in list(self._moves.items()):
            if not move.unfenced.isdisjoint(incarnations):
                move.unfenced.difference_update(incarnations)
                self._place(key)
        for incarnation in incarnations:
            self.seal_all_of(incarnation, "daemon died")

    # --- daemons come ----------------------------------------------------------------------

    def returned(self, daemon: Daemon) -> None:
        """Fence a daemon that was thought dead, as it has not heard of what was sealed since."""
        for exchange in self._exchanges.values():
            for placed in (placed for epochs in exchange.placed for placed in epochs):
                self._fence_returned(exchange.number, placed.assignment, daemon)

    def arrived(self, now: float) -> None:
        """Place what waits for daemons: there is one more that can take assignments."""
        self._quiet_at = now + QUIET_S
        self._place_all()

    def tick(self, now: float) -> None:
        """Move ranges from daemons that leave, place what waits, restore copies; call it often."""
        self._shunning.expire(now, self._moves)
        for daemon in self._daemons.leaving():
            if daemon.draining:
                self.seal_all_of(daemon.ref.incarnation)
            else:
                self._spare_store(daemon.ref.incarnation)
        self._place_all()
        if self._thin and now >= self._quiet_at:
            self._restore_copies()

    def _spare_store(self, incarnation: int) -> None:
        """Move the ranges whose primary cannot store, where there are hosts enough without it."""
        hosts = host_count(self._daemons.candidates())
        for number, index in list(self._current.get(incarnation, ())):
            exchange = self._exchanges[number]
            primary = exchange.current(index).primary
            if primary.incarnation == incarnation and hosts >= exchange.spec.min_replicas:
                self.seal(exchange, index, "store fails")

    def _restore_copies(self) -> None:
        candidates = self._daemons.candidates()
        left = RESTORED_PER_TICK
        for key in list(self._thin):
            exchange, index = self._exchanges[key.number], key.range_index
            shunned = self._avoid(key).as_any
            hosts = host_count([c for c in candidates if c.incarnation not in shunned])
            if hosts > len(exchange.current(index).daemons):
                self.seal(exchange, index, "copies missing")
                left -= 1
                if not left:
                    return

    # --- fences ----------------------------------------------------------------------------

    @property
    def has_fences(self) -> bool:
        """Whether `pop_fences` has something to give."""
        return bool(self._fences)

    def pop_fences(self) -> list[Fence]:
        """Return the seals to tell daemons of, once what was changed until now is durable."""
        return self._fences.pop_all()

    def fenced(self, incarnation: int, keys: Iterable[AssignmentKey]) -> None:
        """Note that a daemon takes nothing more for these assignments."""
        keys = tuple(keys)
        self._fences.fenced(incarnation, keys)
        for key in keys:
            move = self._moves.get(key.range_key)
            if move is not None and move.epoch == key.epoch and incarnation in move.unfenced:
                move.unfenced.discard(incarnation)
                self._place(key.range_key)

    def fence_failed(self, incarnation: int) -> None:
        """Have a daemon told again that could not be told."""
        self._fences.failed(incarnation)

    def awaits_fence(self, incarnation: int) -> bool:
        """Whether a daemon has yet to confirm a seal, told to it or not."""
        return incarnation in self._fences

    # --- writers ---------------------------------------------------------------------------

    def pop_begun(self) -> list[RangeKey]:
        """Return the ranges that were given their next epoch since the last call."""
        begun, self._begun = self._begun, []
        return begun

    def renewed(self, exchange: ExchangeState, stale: Iterable[RangeEpoch]) -> RenewedAssignments:
        """Return what has followed the epochs `stale`; `alive` if one of them is in force.

        Raises InvalidArgument for a pair that never was.
        """
        newer: list[Assignment] = []
        waiting_for, alive = "", False
        for index, epoch in stale:
            if not 0 <= index < len(exchange.placed):
                raise InvalidArgument(f"there is no partition range {index}")
            assignment = exchange.current(index)
            if not 0 < epoch <= assignment.epoch:
                raise InvalidArgument(f"there is no epoch {epoch} of partition range {index}")
            if assignment.sealed:
                waiting_for = waiting_for or self.waiting_for(exchange, index)
            elif assignment.epoch > epoch:
                newer.append(assignment)
            else:
                alive = True
        return RenewedAssignments(tuple(newer), alive, waiting_for)

    def fencing(self, number: int) -> list[int]:
        """Return the ranges of an exchange whose next epoch waits for daemons to confirm the end of
        the one before."""
        return [
            key.range_index
            for key, move in self._moves.items()
            if key.number == number and move.unfenced
        ]

    def waiting_for(self, exchange: ExchangeState, index: int) -> str:
        """Return, for people, why a range whose epoch is sealed has no next one yet."""
        refs = exchange.current(index).daemons
        unfenced = self._moves[RangeKey(exchange.number, index)].unfenced
        silent = [ref.address for ref in refs if ref.incarnation in unfenced]
        if silent:
            return f"partition range {index} waits for {', '.join(silent)} to confirm its end there"
        needed, hosts = exchange.spec.min_replicas, host_count(self._daemons.candidates())
        why = self._daemons.why_no_candidates() or "start daemons, with other --host-id"
        return (
            f"partition range {index} waits for daemons: min_replicas={needed} needs them on "
            f"{needed} hosts, {hosts} are there; {why}"
        )

    # --- inside ----------------------------------------------------------------------------

    def _tell_range(
        self,
        kind: EventKind,
        exchange: ExchangeState,
        assignment: Assignment,
        cause: str | None = None,
    ) -> None:
        self._tell(
            Event(
                kind=kind,
                daemon=assignment.primary.address,
                exchange=exchange.spec.shuffle_id,
                number=exchange.number,
                range_indexes=(assignment.range_index,),
                epoch=assignment.epoch,
                build=assignment.build,
                replicas=len(assignment.daemons),
                cause=cause,
            )
        )

    def _avoid(self, key: RangeKey) -> Avoid:
        avoid = self._shunning.avoided(key)
        silent = {daemon.ref.incarnation for daemon in self._daemons.silent_ones()}
        return Avoid(avoid.as_primary, avoid.as_any | silent) if silent else avoid

    def _enter(self, exchange: ExchangeState, assignment: Assignment) -> None:
        """Note that an assignment is in force."""
        key = RangeKey(exchange.number, assignment.range_index)
        for ref in assignment.daemons:
            self._current.setdefault(ref.incarnation, {})[key] = None
        if len(assignment.daemons) < exchange.spec.replicas:
            self._thin[key] = None

    def _leave(self, key: RangeKey, assignment: Assignment) -> None:
        """Note that an assignment is not in force any more."""
        self._thin.pop(key, None)
        for ref in assignment.daemons:
            keys = self._current[ref.incarnation]
            del keys[key]
            if not keys:
                del self._current[ref.incarnation]

    def _survivors(self, assignment: Assignment) -> list[DaemonRef]:
        return [r for r in assignment.daemons if self._daemons.live(r.incarnation) is not None]

    def _fence(self, number: int, assignment: Assignment) -> None:
        key = AssignmentKey(number, assignment.range_index, assignment.epoch)
        for ref in self._survivors(assignment):
            self._fences.add(ref, key)

    def _fence_returned(self, number: int, assignment: Assignment, daemon: Daemon) -> None:
        if not assignment.sealed or daemon.ref not in assignment.daemons:
            return
        key = AssignmentKey(number, assignment.range_index, assignment.epoch)
        self._fences.add(daemon.ref, key)
        move = self._moves.get(key.range_key)
        if move is not None and move.epoch == assignment.epoch:
            move.unfenced.add(daemon.ref.incarnation)

    def _begin_move(self, exchange: ExchangeState, index: int) -> None:
        assignment = exchange.current(index)
        survivors = {ref.incarnation for ref in self._survivors(assignment)}
        key = RangeKey(exchange.number, index)
        self._moves[key] = _Move(assignment.epoch, survivors)
        self._place(key)

    def _place_all(self) -> None:
        hosts = host_count(self._daemons.candidates())
        for key in list(self._moves):
            if hosts >= self._exchanges[key.number].spec.min_replicas:
                self._place(key)

    def _place(self, key: RangeKey) -> None:
        """Begin the next epoch of a range, if its survivors are fenced and there are hosts."""
        number, index = key
        exchange, move = self._exchanges[number], self._moves[key]
        if move.unfenced:
            return
        spec = exchange.spec
        chosen = place_next(
            self._daemons.candidates(),
            spec.replicas,
            spec.min_replicas,
            self._avoid(key),
            turn=number + index + move.epoch,
        )
        if chosen is None:
            return
        del self._moves[key]
        primary, *replicas = (self._daemons.get(c.incarnation) for c in (chosen[0], *chosen[1]))
        assignment = exchange.begin_epoch(
            index, primary.ref, tuple(replica.ref for replica in replicas), primary.store_id
        )
        for ref in assignment.daemons:
            self._daemons.assign(ref.incarnation)
        self._enter(exchange, assignment)
        self._begun.append(key)
        self._tell_range(EventKind.RANGES_MOVED, exchange, assignment)
