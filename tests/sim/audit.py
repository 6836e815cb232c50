"""What must hold at every moment, and what must be gone in the end, seen from outside.

A page has one owner; what is in use, on its way to a daemon, or remembered stays within the
bounds that its options set; and after the close of an exchange nothing of it is anywhere.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from cosco.metadata.store.sql import _TABLES
from cosco.shuffle_service.state.buffers.mark_boards import _FOLLOWER_BYTES, _cost_bytes

from .network import Call
from .programs import STORE_TIMEOUT_S
from .scenario import MAX_PARTITIONS

if TYPE_CHECKING:
    from cosco.metadata.state.exchange.exchange_state import ExchangeState
    from cosco.shuffle_service.state.buffers.pool import Page
    from cosco.shuffle_service.state.core import DaemonCore

    from .programs import Daemon
    from .world import World

#: How often it may be seen that a write hangs before its daemon, which was paused, notices.
_UNNOTICED_LOOKS = 4
#: What a partition of a frame may need of pages beyond its length.
_PARTITION_BYTES = 8 << 10
#: Of what else than frames a push stream carries: hellos, announcements, releases.
_WORDS_BYTES = 16 << 10


def audit(world: World, daemons: list[Daemon]) -> None:
    """Look at every daemon that runs."""
    for daemon in daemons:
        core = daemon.core
        if core is None:
            continue
        problems = [*_pages(core), *_marks(core), *_bounds(core), *_on_their_way(world, daemon)]
        problems += [*_writes(world, daemon, core), *_tenants(daemon, core)]
        if problems:
            world.problem(f"{daemon.name}: {'; '.join(problems)}")


def _pages(core: DaemonCore) -> Iterator[str]:
    pages: list[Page] = []
    flushing = 0
    for held in core._assignments.values():
        for buffer in held.buffers.values():
            for chunk in buffer.chunks():
                pages += chunk.pages
            if buffer.flushing is not None:
                flushing += buffer.flushing.capacity
    copied = [page for copy in core.copies._held.values() for page in copy.pages]
    pages += copied
    if len({page.offset for page in pages}) != len(pages):
        yield "a page belongs to two"
    # What is written of dropped exchanges is the flusher's alone.
    owned = sum(page.size for page in pages) + core.shares.flushing - flushing
    if owned != core.unstored_bytes:
        yield f"{core.unstored_bytes} bytes of pages are in use, {owned} belong to somebody"
    if sum(page.size for page in copied) != core.shares.copies:
        yield "copies are counted wrong"
    if sum(core.copies._bytes_of.values()) != core.shares.copies:
        yield "copies are counted wrong by primary"
    for replica in core.replication.replicas.values():
        sent = sum(f.header.body_bytes for f in replica._frames.values() if f.was_sent)
        if sent != replica._sent_bytes:
            yield f"{replica._sent_bytes} bytes are counted as sent to a replica, {sent} were"


def _tenants(daemon: Daemon, core: DaemonCore) -> Iterator[str]:
    memory, held = core.tenants, Counter[int]()
    flushing = 0
    for assignment in core._assignments.values():
        for chunk in assignment.in_memory():
            held[assignment.tenant] += chunk.capacity
            flushing += chunk.capacity * (chunk.buffer.flushing is chunk)
    counted = memory.held_bytes
    if sum(counted.values()) != core.unstored_bytes - core.shares.copies:
        yield f"buffers of tenants are counted as {sum(counted.values())} bytes"
    if sum(memory._flushing.values()) != core.shares.flushing:
        yield "what is written of tenants is counted wrong"
    dropped = core.shares.flushing - flushing
    if any(counted.get(tenant, 0) < bytes_ for tenant, bytes_ in held.items()) or (
        not dropped and counted != {tenant: bytes_ for tenant, bytes_ in held.items() if bytes_}
    ):
        yield "buffers are counted as another tenant's"
    if memory._limit is not None and not core.shares.has_copies:
        most = memory._limit + daemon.frame_bytes_max + _PARTITION_BYTES * MAX_PARTITIONS
        if any(bytes_ > most for tenant, bytes_ in counted.items() if tenant):
            yield f"{max(counted.values())} bytes of a tenant's, {most} may be"


def _marks(core: DaemonCore) -> Iterator[str]:
    boards = [held.board for held in core._assignments.values() if held.board is not None]
    if any(board._followers for board in boards if board.ended or board.is_complete):
        yield "readers wait at a board that says no more"
    cost = sum(_cost_bytes(board.mappers, board.partitions) for board in boards)
    if cost + core.mark_boards.followers * _FOLLOWER_BYTES != core.mark_boards.used_bytes:
        yield "boards and those who wait at them are counted wrong"


def _bounds(core: DaemonCore) -> Iterator[str]:
    if core.shares.copies > core.shares.copies_max:
        yield f"{core.shares.copies} bytes of copies, {core.shares.copies_max} may be"
    dedupe, entries = core._dedupe, 0
    for held in core._assignments.values():
        entries += held.dedupe.entries
    if not entries <= dedupe.entries <= dedupe.entries_max:
        yield f"{entries} intervals are remembered, {dedupe.entries} counted"
    kept = core.indexes
    if sum(index.cost_bytes for index in kept._kept.values()) != kept.used_bytes:
        yield "indexes of segments are counted wrong"
    if kept.used_bytes > kept._bytes_max:
        yield f"{kept.used_bytes} bytes of indexes, {kept._bytes_max} may be"
    replication = core.replication
    if sum(replica.cost for replica in replication.replicas.values()) > 2 * replication._frames_max:
        yield f"{len(replication)} forwarded frames"


def _writes(world: World, daemon: Daemon, core: DaemonCore) -> Iterator[str]:
    """A write that takes too long is noticed by a daemon that runs."""
    now, flushes = world.loop.now, core.flushes
    if not flushes.hanging_bytes <= core.shares.flushing:
        yield f"{flushes.hanging_bytes} bytes hang, {core.shares.flushing} are being written"
    if daemon.process is None or not daemon.process.runs or flushes.failing(now):
        world.unnoticed.pop(daemon.name, None)
        return
    late = any(
        flush.began_at is not None and now - flush.began_at > STORE_TIMEOUT_S
        for flush in flushes._under_way
    )
    looks = world.unnoticed[daemon.name] = world.unnoticed.get(daemon.name, 0) + 1 if late else 0
    if looks >= _UNNOTICED_LOOKS:
        yield "a write hangs, and the store counts as well"


def _on_their_way(world: World, daemon: Daemon) -> Iterator[str]:
    """Frames sent to a daemon that it has not read yet must have been granted."""
    server = world.network.servers.get(daemon.address)
    if server is None or daemon.process is None:
        return
    budgets = world.budgets[daemon.process]
    daemons = {d.host for d in daemon.neighbours}
    for budget, is_primaries in ((budgets.writers, False), (budgets.primaries, True)):
        unread = sum(
            call.unread_bytes
            for call in server.calls
            if isinstance(call, Call)
            and call.method.endswith("/Push")
            and (call.client.host in daemons) == is_primaries
        )
        granted = max(budget.budget_bytes, daemon.frame_bytes_max)
        if unread > granted + _WORDS_BYTES:
            yield f"{unread} bytes are on their way, {granted} may be"


def is_overcome(world: World, daemons: list[Daemon]) -> bool:
    """Whether the cluster is as it was before anything failed: every daemon runs, every range
    has its copies, and what sealed epochs left is stored."""
    states = [state for process, state in world.states.items() if process.runs]
    cores = [daemon.core for daemon in daemons]
    if not states or not all(d.is_ready and d.process and d.process.runs for d in daemons):
        return False
    failover = states[-1].failover
    there = {core.incarnation for core in cores if core is not None}
    if failover._moves or failover._thin or failover._fences._errands:
        return False
    if not there.issuperset(failover._current):
        return False
    for core in cores:
        assert core is not None
        for held in core._assignments.values():
            is_stored = not (held.unstored_bytes() or core.waiting.of(held.key))
            if held.sealed and (not is_stored or core.copies.has(held.key)):
                return False
    return True


def old_files(world: World) -> list[str]:
    """The files of builds that have ended, of ranges that are complete in the next one."""
    states = [state for process, state in world.states.items() if process.runs]
    if not states:
        return ["all there was, as there is no metadata service"]
    kept = {
        (number, index): _present_begins(exchange, index)
        for number, exchange in states[-1]._exchanges.open.items()
        for index in range(len(exchange.ranges))
    }
    found = []
    for name, disk in world.disks.items():
        for path in disk.files:
            _, number, folder, _ = path.split("/")
            index, epoch = map(int, folder.split("-"))
            if epoch < kept.get((int(number), index), 0):
                found.append(f"{name}/{path}")
    return found


def _present_begins(exchange: ExchangeState, index: int) -> int:
    """The first epoch of a range's present build; 0 if rows are missing in that."""
    losses, build = exchange.losses, exchange.build(index)
    if index in losses._pending or None in losses._pending or index in losses.verdicts:
        return 0
    epochs = (placed.assignment for placed in exchange.placed[index])
    return min((one.epoch for one in epochs if one.build == build), default=0)


#: Tables that keep what was used, and daemons; what is closing is looked at by itself.
_STAYING = {
    "daemons", "closing", "closed", "used_groups", "forgotten_stores", "numbers_given", "history",
}  # fmt: skip
#: And how many rows may stay of others: the key in use, and the one that follows it.
_STAYING_ROWS = {"capability_keys": 2}


def left(world: World, daemons: list[Daemon]) -> list[str]:
    """What is left of closed exchanges."""
    found = [f"{name}/{path}" for name, disk in world.disks.items() for path in disk.files]
    tables = world.database.tables
    found += [
        f"{len(rows)} rows of {name}"
        for name, rows in tables.items()
        if len(rows) > _STAYING_ROWS.get(name, 0) and name not in _STAYING
    ]
    pending = [column.split()[0] for column in _TABLES["closing"].columns].index("pending")
    for row in tables["closing"].values():
        waited_for = {str(party) for party in json.loads(str(row[pending]))}
        if waiting := waited_for - (world.lost_stores - world.forgotten_stores):
            found.append(f"a closing exchange that waits for {sorted(waiting)}")
    for daemon in daemons:
        if daemon.core is not None:
            found += [f"{what} in {daemon.name}" for what in _left_in(daemon.core)]
            assert daemon.process is not None
            if in_flight := world.budgets[daemon.process].in_flight_bytes:
                found.append(f"{in_flight} granted bytes in {daemon.name}")
    for process, state in world.states.items():
        if process.runs:
            found += [f"{what} in {process}" for what in _left_in_state(state)]
    return found


def _left_in(core: DaemonCore) -> Iterator[str]:
    counted = {
        "bytes of pages": core.unstored_bytes,
        "bytes of tenants": sum(core.tenants.held_bytes.values()),
        "bytes of tenants being written": sum(core.tenants._flushing.values()),
        "assignments": core.assignments,
        "copies": len(core.copies),
        "waiting bytes": core.copies.waiting_bytes + core.page_queue.waiting_bytes,
        "forwarded frames": len(core.replication),
        "intervals": core._dedupe.entries,
        "buffers to flush": len(core.flushes),
        "bytes of boards and followers": core.mark_boards.used_bytes,
        "answers for alike exchanges": len(core.alike),
        "look-ups": len(core.alike._under_way),
        "ranges with old epochs": len(core.old_epochs),
    }
    return (f"{count} {what}" for what, count in counted.items() if count)


def _left_in_state(state: Any) -> Iterator[str]:
    failover = state.failover
    counted = {
        "exchanges": len(state._exchanges.open),
        "applications": len(state.applications),
        "moves": len(failover._moves),
        "current epochs": len(failover._current),
        "thin ranges": len(failover._thin),
        "insisted ranges": len(failover._shunning._moves),
        "fences": len(failover._fences._errands),
        "groups": len(state.groups._groups),
        "exchanges of groups": len(state.groups._of),
        "exchanges of applications": len(state.applications._of),
        "exchanges with old builds": len(state._old_builds),
    }
    return (f"{count} {what}" for what, count in counted.items() if count)
