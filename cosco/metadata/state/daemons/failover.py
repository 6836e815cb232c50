"""From the end of an epoch to the next one: seal, fence the survivors, place.

docs/architecture/failures.md, "Sealing an epoch, and the next one", is the order that is kept
here. The caller keeps one part of it: fences are sent, and new epochs told, only once what was
changed before is durable.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from cosco.errors import InvalidArgument
from cosco.metadata.state.daemons.daemon_table import Daemon, DaemonTable
from cosco.metadata.state.daemons.fences import AssignmentKey, Fence, Fences
from cosco.metadata.state.daemons.placement import Avoid, host_count, place_next
from cosco.metadata.state.daemons.shunning import RangeKey, Shunning
from cosco.metadata.state.exchange.exchange_state import ExchangeState
from cosco.protocol.records import Assignment, DaemonRef, RenewedAssignments

#: Ranges are given the copies that they lack so long after the last daemon came, so many a tick.
SETTLE_S: Final = 3.0
RESTORED_PER_TICK: Final = 16


@dataclass(slots=True)
class _Move:
    """A range whose epoch is sealed: the next one begins when `fences` have answered."""

    epoch: int
    fences: set[int]


class Failover:
    """The epochs of all open exchanges. `exchanges` is the caller's, and read only."""

    def __init__(
        self, exchanges: Mapping[int, ExchangeState], daemons: DaemonTable, now: float
    ) -> None:
        self._exchanges = exchanges
        self._daemons = daemons
        self._moves: dict[RangeKey, _Move] = {}
        self._fences = Fences()
        #: The ranges whose current epoch is not sealed, by each of its members.
        self._current: dict[int, dict[RangeKey, None]] = {}
        #: Those with fewer copies than were asked for.
        self._thin: dict[RangeKey, None] = {}
        self._shunning = Shunning()
        self._begun: list[RangeKey] = []
        self._settled_at = now + SETTLE_S

    # --- exchanges -------------------------------------------------------------------------

    def opened(self, exchange: ExchangeState) -> None:
        """An exchange is there, new or restored."""
        for epochs in exchange.placed:
            for placed in epochs:
                assignment = placed.assignment
                for ref in members(assignment):
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
                if self._sealed(exchange, index):
                    self._begin_move(exchange, index)
                elif any(
                    self._daemons.live(ref.incarnation) is None
                    for ref in members(epochs[-1].assignment)
                ):
                    self.seal(exchange, index)

    def closed(self, exchange: ExchangeState) -> None:
        """An exchange ends, whose daemons may be forgotten."""
        for index, epochs in enumerate(exchange.placed):
            key = exchange.number, index
            if not self._sealed(exchange, index):
                self._leave(key, epochs[-1].assignment)
            self._moves.pop(key, None)
            self._shunning.forget(key)
            for placed in epochs:
                for ref in members(placed.assignment):
                    self._daemons.release(ref.incarnation, sealed=placed.assignment.sealed)
        self._fences.closed(exchange.number)

    def replicas(self, exchange: ExchangeState) -> int:
        """The copies that new rows get, of the range that gets fewest; 0 while one waits."""
        return min(
            0 if epochs[-1].assignment.sealed else 1 + len(epochs[-1].assignment.replicas)
            for epochs in exchange.placed
        )

    # --- ends of epochs --------------------------------------------------------------------

    def seal(self, exchange: ExchangeState, index: int) -> None:
        """End the current epoch of a range; the next one follows. Harmless if it has ended."""
        if self._sealed(exchange, index):
            return
        assignment = exchange.placed[index][-1].assignment
        self._leave((exchange.number, index), assignment)
        for ref in members(assignment):
            self._daemons.seal(ref.incarnation)
        exchange.seal(index)
        self._fence(exchange.number, assignment)
        self._begin_move(exchange, index)

    def insist(self, key: AssignmentKey, suspect: int, now: float, *, is_primary: bool) -> None:
        """Move a range away from a daemon that lives and is out of reach for somebody.

        Only if that is still its epoch, there is another daemon to go to, and it was not
        moved so a moment ago.
        """
        number, index, epoch = key
        exchange = self._exchanges.get(number)
        if exchange is None or index >= len(exchange.placed):
            return
        if not self._shunning.may_move((number, index), now):
            return
        assignment = exchange.placed[index][-1].assignment
        refs = (assignment.primary,) if is_primary else assignment.replicas
        if (
            assignment.epoch != epoch
            or assignment.sealed
            or suspect not in {ref.incarnation for ref in refs}
        ):
            return
        others = [c for c in self._daemons.candidates() if c.incarnation != suspect]
        if host_count(others) < (1 if is_primary else exchange.spec.min_replicas):
            return
        shunned = frozenset((suspect,))
        avoid = Avoid(as_primary=shunned) if is_primary else Avoid(as_any=shunned)
        self._shunning.moved((number, index), avoid, now)
        self.seal(exchange, index)

    def replicated_to(self, primary: int, replica: int) -> list[AssignmentKey]:
        """The current assignments of a primary that have this replica."""
        found = []
        for number, index in self._current.get(primary, ()):
            assignment = self._exchanges[number].placed[index][-1].assignment
            if assignment.primary.incarnation == primary and replica in {
                ref.incarnation for ref in assignment.replicas
            }:
                found.append((number, index, assignment.epoch))
        return found

    def drain(self, incarnation: int) -> None:
        """Move everything away from a daemon, even if there is nowhere to go."""
        for number, index in list(self._current.get(incarnation, ())):
            self.seal(self._exchanges[number], index)

    def died(self, incarnations: Collection[int]) -> None:
        """These daemons are dead; the table of daemons knows it."""
        for incarnation in incarnations:
            self._fences.died(incarnation)
        for key, move in list(self._moves.items()):
            if not move.fences.isdisjoint(incarnations):
                move.fences.difference_update(incarnations)
                self._place(key)
        for incarnation in incarnations:
            self.drain(incarnation)

    # --- daemons come ----------------------------------------------------------------------

    def returned(self, daemon: Daemon) -> None:
        """A daemon that was thought dead lives, and has not heard of what was sealed since."""
        for exchange in self._exchanges.values():
            for placed in (placed for epochs in exchange.placed for placed in epochs):
                self._fence_returned(exchange.number, placed.assignment, daemon)

    def arrived(self, now: float) -> None:
        """There is a daemon more that can take assignments."""
        self._settled_at = now + SETTLE_S
        self._place_all()

    def tick(self, now: float) -> None:
        """Move what could not be moved before; to be called now and then."""
        self._shunning.expire(now, self._moves)
        for daemon in self._daemons.leaving():
            if daemon.draining:
                self.drain(daemon.ref.incarnation)
            else:
                self._spare_store(daemon.ref.incarnation)
        self._place_all()
        if self._thin and now >= self._settled_at:
            self._restore_copies()

    def _spare_store(self, incarnation: int) -> None:
        """Have another store take what is to be stored, where there is another."""
        hosts = host_count(self._daemons.candidates())
        for number, index in list(self._current.get(incarnation, ())):
            exchange = self._exchanges[number]
            primary = exchange.placed[index][-1].assignment.primary
            if primary.incarnation == incarnation and hosts >= exchange.spec.min_replicas:
                self.seal(exchange, index)

    def _restore_copies(self) -> None:
        candidates = self._daemons.candidates()
        left = RESTORED_PER_TICK
        for number, index in list(self._thin):
            exchange = self._exchanges[number]
            shunned = self._avoid((number, index)).as_any
            hosts = host_count([c for c in candidates if c.incarnation not in shunned])
            copies = 1 + len(exchange.placed[index][-1].assignment.replicas)
            if hosts > copies:
                self.seal(exchange, index)
                left -= 1
                if not left:
                    return

    # --- fences ----------------------------------------------------------------------------

    @property
    def has_fences(self) -> bool:
        """Whether `take_fences` has something to give."""
        return bool(self._fences)

    def take_fences(self) -> list[Fence]:
        """Seals to tell daemons of, when what was changed until now is durable."""
        return self._fences.take()

    def fenced(self, incarnation: int, keys: Iterable[AssignmentKey]) -> None:
        """A daemon takes nothing more for these assignments."""
        keys = tuple(keys)
        self._fences.fenced(incarnation, keys)
        for number, index, epoch in keys:
            move = self._moves.get((number, index))
            if move is not None and move.epoch == epoch and incarnation in move.fences:
                move.fences.discard(incarnation)
                self._place((number, index))

    def fence_failed(self, incarnation: int) -> None:
        """A daemon could not be told; it is to be tried again."""
        self._fences.failed(incarnation)

    def awaits_fence(self, incarnation: int) -> bool:
        """Whether a daemon has not confirmed everything that it was told of, or will be."""
        return self._fences.pending(incarnation)

    # --- writers ---------------------------------------------------------------------------

    def take_begun(self) -> list[RangeKey]:
        """The ranges that were given their next epoch since the last call."""
        begun, self._begun = self._begun, []
        return begun

    def renewed(
        self, exchange: ExchangeState, stale: Iterable[tuple[int, int]]
    ) -> RenewedAssignments:
        """What has followed the (range, epoch) pairs; `alive` if one of them is in force.

        Raises InvalidArgument for a pair that never was.
        """
        newer: list[Assignment] = []
        waiting_for, alive = "", False
        for index, epoch in stale:
            if not 0 <= index < len(exchange.placed):
                raise InvalidArgument(f"there is no partition range {index}")
            assignment = exchange.placed[index][-1].assignment
            if not 0 < epoch <= assignment.epoch:
                raise InvalidArgument(f"there is no epoch {epoch} of partition range {index}")
            if assignment.sealed:
                waiting_for = waiting_for or self._waiting_for(exchange, index)
            elif assignment.epoch > epoch:
                newer.append(assignment)
            else:
                alive = True
        return RenewedAssignments(tuple(newer), alive, waiting_for)

    def fencing(self, number: int) -> list[int]:
        """The ranges of an exchange whose next epoch begins when daemons have confirmed the end
        of the one before, as far as is known."""
        return [key[1] for key, move in self._moves.items() if key[0] == number and move.fences]

    def _waiting_for(self, exchange: ExchangeState, index: int) -> str:
        refs = members(exchange.placed[index][-1].assignment)
        fences = self._moves[exchange.number, index].fences
        silent = [ref.address for ref in refs if ref.incarnation in fences]
        if silent:
            return f"partition range {index} waits for {', '.join(silent)} to confirm its end there"
        needed, hosts = exchange.spec.min_replicas, host_count(self._daemons.candidates())
        why = self._daemons.why_no_candidates() or "start daemons, with other --host-id"
        return (
            f"partition range {index} waits for daemons: min_replicas={needed} needs them on "
            f"{needed} hosts, {hosts} are there; {why}"
        )

    # --- inside ----------------------------------------------------------------------------

    @staticmethod
    def _sealed(exchange: ExchangeState, index: int) -> bool:
        return exchange.placed[index][-1].assignment.sealed

    def _avoid(self, key: RangeKey) -> Avoid:
        avoid = self._shunning.avoided(key)
        silent = {daemon.ref.incarnation for daemon in self._daemons.silent_ones()}
        return Avoid(avoid.as_primary, avoid.as_any | silent) if silent else avoid

    def _enter(self, exchange: ExchangeState, assignment: Assignment) -> None:
        """An assignment is in force."""
        key = exchange.number, assignment.range_index
        for ref in members(assignment):
            self._current.setdefault(ref.incarnation, {})[key] = None
        if 1 + len(assignment.replicas) < exchange.spec.replicas:
            self._thin[key] = None

    def _leave(self, key: RangeKey, assignment: Assignment) -> None:
        """An assignment is not in force any more."""
        self._thin.pop(key, None)
        for ref in members(assignment):
            keys = self._current[ref.incarnation]
            del keys[key]
            if not keys:
                del self._current[ref.incarnation]

    def _fence(self, number: int, assignment: Assignment) -> None:
        for ref in members(assignment):
            if self._daemons.live(ref.incarnation) is not None:
                self._fences.add(ref, (number, assignment.range_index, assignment.epoch))

    def _fence_returned(self, number: int, assignment: Assignment, daemon: Daemon) -> None:
        if not assignment.sealed or daemon.ref not in members(assignment):
            return
        self._fences.add(daemon.ref, (number, assignment.range_index, assignment.epoch))
        move = self._moves.get((number, assignment.range_index))
        if move is not None and move.epoch == assignment.epoch:
            move.fences.add(daemon.ref.incarnation)

    def _begin_move(self, exchange: ExchangeState, index: int) -> None:
        assignment = exchange.placed[index][-1].assignment
        survivors = {
            ref.incarnation
            for ref in members(assignment)
            if self._daemons.live(ref.incarnation) is not None
        }
        self._moves[exchange.number, index] = _Move(assignment.epoch, survivors)
        self._place((exchange.number, index))

    def _place_all(self) -> None:
        hosts = host_count(self._daemons.candidates())
        for key in list(self._moves):
            if hosts >= self._exchanges[key[0]].spec.min_replicas:
                self._place(key)

    def _place(self, key: RangeKey) -> None:
        """Begin the next epoch of a range, if its survivors are fenced and there are hosts."""
        number, index = key
        exchange, move = self._exchanges[number], self._moves[key]
        if move.fences:
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
        for ref in members(assignment):
            self._daemons.assign(ref.incarnation)
        self._enter(exchange, assignment)
        self._begun.append(key)


def members(assignment: Assignment) -> tuple[DaemonRef, ...]:
    """The daemons of an assignment, its primary first."""
    return assignment.primary, *assignment.replicas
