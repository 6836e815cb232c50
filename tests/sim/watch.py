"""What daemons admit and which marks they count, looked at as it happens.

What was dropped or sealed is never admitted as open again. A mark counts once, when every copy
has it, or all its rows are durable. And no build ends unasked of which a copy may be left.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from cosco.format.block import BlockHeader, walk_blocks
from cosco.format.chunk import CHUNK_HEADER_BYTES
from cosco.protocol.keys import AssignmentKey
from cosco.shuffle_service.state.buffers.old_epochs import Going

from .loop import PROCESS
from .programs import ADOPTION_GRACE_S
from .world import current

if TYPE_CHECKING:
    from cosco.metadata.state.exchange.exchange_state import ExchangeState
    from cosco.protocol.mark import Mark
    from cosco.protocol.records import Assignment
    from cosco.shuffle_service.state.buffers.assignments import AssignmentBuffers
    from cosco.shuffle_service.state.buffers.partition_buffer import Chunk
    from cosco.shuffle_service.state.core import DaemonCore

    from .world import World


def watch(world: World, core: DaemonCore) -> None:
    """Look at everything that one daemon admits and counts."""
    dropped: set[int] = set()
    sealed: set[AssignmentKey] = set()
    #: Of the marks that count, by board.
    sums: dict[AssignmentKey, Any] = {}
    admit, seal, drop, count = core.admit, core.seal, core.drop, core.count

    def watched_admit(number: int, assignment: Assignment, *rest: Any) -> None:
        key = AssignmentKey(number, assignment.range_index, assignment.epoch)
        admit(number, assignment, *rest)
        held = core.assignment(key)
        if held is not None and number in dropped:
            world.problem(f"{key} of a dropped exchange was admitted again")
        if held is not None and key in sealed and not held.sealed:
            world.problem(f"{key} was sealed and then admitted as open")

    def watched_seal(keys: Iterable[AssignmentKey]) -> int:
        keys = list(keys)
        sealed.update(keys)
        return seal(keys)

    def watched_drop(number: int) -> None:
        dropped.add(number)
        drop(number)

    def watched_count(held: AssignmentBuffers, mark: Mark) -> bool:
        key = held.key
        world.marks.add((core.incarnation, key, mark.mapper, mark.attempt))
        before = held.board.done() if held.board is not None else ()
        counts = count(held, mark)
        if not counts or held.board is None:
            return counts
        if mark.mapper in before:
            world.problem(f"a second mark of mapper {mark.mapper} counts in {key}")
        sums[key] = sums.get(key, 0) + mark.sums.astype(object)
        expected = (sums[key] % (1 << 64)).astype(np.uint64)
        if any(
            held.board.sums(i) != tuple(expected[:, i].tolist()) for i in range(mark.sums.shape[1])
        ):
            world.problem(f"the sums of the marks of {key} are not theirs")
        if held.replica is not None:
            there = held.replica.incarnation, key, mark.mapper, mark.attempt
            in_memory = (h for h in _in_memory(core, held) if h.mapper == mark.mapper)
            if there not in world.marks and any(h.attempt == mark.attempt for h in in_memory):
                world.problem(f"mapper {mark.mapper} is done in {key}, and its replica lacks rows")
        return counts

    _watch_durable(world, core)
    instance: Any = core
    instance.admit, instance.seal, instance.drop = watched_admit, watched_seal, watched_drop
    instance.count = watched_count
    _watch_old_epochs(world, instance)


def _watch_old_epochs(world: World, core: Any) -> None:
    """Look at which epochs a daemon drops of open exchanges, and that they do not come again."""

    def watched_admit(number: int, assignment: Assignment, *rest: Any) -> None:
        key = AssignmentKey(number, assignment.range_index, assignment.epoch)
        admit(number, assignment, *rest)
        if any(key in one for one in over) and core.assignment(key) is not None:
            world.problem(f"{key} is over and was admitted again")

    def watched_drop_epochs(number: int, before: Mapping[int, int]) -> None:
        held = len(core._assignments)
        _check_drop(world, number, before)
        over.append(Going(number, dict(before)))
        drop_epochs(number, before)
        if len(core._assignments) < held:
            world.count("old epochs dropped from memory")

    over: list[Going] = []
    admit, drop_epochs = core.admit, core.drop_epochs
    core.admit, core.drop_epochs = watched_admit, watched_drop_epochs


def _check_drop(world: World, number: int, before: Mapping[int, int]) -> None:
    """Look at what a daemon is to drop: nothing of any present build, for all that is durable."""
    builds = {key[:2]: row[0] for key, row in world.database.tables["builds"].items()}
    for key, row in world.database.tables["assignments"].items():
        exchange, index, epoch = (int(str(part)) for part in key)
        is_present = row[0] == builds.get((exchange, index), 1)
        if exchange == number and epoch < before.get(index, 0) and is_present:
            world.problem(f"a daemon drops epoch {epoch} of range {index} of a present build")


def check_gone(world: World, exchange: ExchangeState, index: int) -> None:
    """Look at a range whose old builds go now."""
    world.count("old builds dropped")
    pending = exchange.losses._pending
    if pending.get(index) or pending.get(None):
        world.problem(f"old builds of range {index} go, and mappers are to run again for it")
    since = world.loop.now - world.ended_builds.get((exchange.number, index), world.loop.now)
    if since < world.old_build_grace_s:
        world.problem(f"an old build of range {index} goes {since:.1f} s after it has ended")


def _watch_durable(world: World, core: DaemonCore) -> None:
    """See that copies may go of what everybody can find, not of what is on one's flash alone."""
    process = PROCESS.get()
    assert process is not None
    stored = core.replication.stored

    def watched_stored(chunk: Chunk) -> None:
        has_flash = process in world.flashes and not world.is_flash_durable
        if has_flash and chunk.path not in world.slow_disks[process].ever:
            world.problem(f"copies of {chunk.path} may go, and the slow tier lacks it")
        if any(_serial(other) < _serial(chunk) for other in chunk.buffer.waiting):
            world.problem(f"{chunk.path} is durable, and counts before an earlier one is")
        stored(chunk)

    replication: Any = core.replication
    replication.stored = watched_stored


def _serial(chunk: Chunk) -> int:
    return int(chunk.path.rpartition("-")[2], 16)


def watch_tiers(table: Any) -> None:
    """Look at everything that goes from flash since it has moved."""

    def next_removal(self: Any, now: float) -> str | None:
        path: str | None = removal(self, now)
        process = PROCESS.get()
        assert process is not None
        world = current()
        if path is not None and path not in world.slow_disks[process].ever:
            world.problem(f"{path} goes from flash, and the slow tier lacks it")
        return path

    removal = table.next_removal
    table.next_removal = next_removal


def check_ends(world: World, exchange: ExchangeState, indexes: Iterable[int]) -> None:
    """Look at ranges whose builds end, though no reader has found that they must."""
    process = PROCESS.get()
    assert process is not None
    state = world.states[process]
    table, forgotten = state.members._daemons, state.members.forgotten
    alive = [daemon for daemon in table._daemons.values() if daemon.live]
    served, taken = {d.store_id for d in alive}, {d.ref.address for d in alive}
    now = world.loop.now

    def may_have_some(incarnation: int) -> bool:
        daemon = table._daemons[incarnation]
        may_come = daemon.store_id not in forgotten and now - daemon.died_at < ADOPTION_GRACE_S
        may_come = may_come and daemon.ref.address not in taken
        return daemon.live or daemon.store_id in served or may_come

    for index in indexes:
        world.count("ranges lost with others")
        written = [
            placed.assignment
            for placed in exchange.placed[index]
            if placed.written and placed.assignment.build == exchange.build(index)
        ]
        gone = [a for a in written if not any(may_have_some(d.incarnation) for d in a.daemons)]
        if not gone:
            world.problem(f"range {index} of exchange {exchange.number} ended, and copies are left")


def _in_memory(core: DaemonCore, held: AssignmentBuffers) -> Iterator[BlockHeader]:
    """The blocks of an assignment that are in no store."""
    for buffer in held.buffers.values():
        for chunk in (buffer.flushing, buffer.open):
            if chunk is not None:
                end = CHUNK_HEADER_BYTES + chunk.body_bytes
                data = b"".join(chunk.memory(core.arena, CHUNK_HEADER_BYTES, end))
                yield from (header for _, header in walk_blocks(memoryview(data)))
