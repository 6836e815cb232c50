"""`ShufflePlugin`: the scheduler's end of shuffles, which owns their exchanges."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Final

from distributed.diagnostics.plugin import SchedulerPlugin

from cosco import CoscoError, CoscoExchange, __version__
from cosco.dask.dask_tasks import ShuffleSpec, Stored, again
from cosco.dask.exchange_keeper import ExchangeKeeper
from cosco.dask.private_parts_of_dask import StandIns, dumps, loads, takes_graphs
from cosco.dask.state.shuffle_record import (
    BARRIER,
    TRANSFER,
    ShuffleRecord,
    barrier_key,
    is_barrier,
    transfer_key,
)
from cosco.errors import EngineUnavailable

NAME: Final = "cosco"
_LOG: Final = logging.getLogger("cosco.dask")
#: A scheduler that ends waits this long for its exchanges; what is left ends with the lease.
_CLOSE_S: Final = 10.0
#: Threads that calls of Cosco run in. They may wait for minutes while services are away, so they
#: are not those of the event loop itself, which looks up the addresses of hosts in them.
_THREADS: Final = 8
#: The scheduler's loop has this long to arrange runs of lost mappers.
_ARRANGE_S: Final = 60.0


class OpenShuffle:
    """A shuffle that some tasks of the scheduler still need."""

    def __init__(self, spec: ShuffleSpec) -> None:
        """Begin without an exchange."""
        self.record: Final = ShuffleRecord(spec.token, spec.mappers, spec.partitions)
        self.spec: Final = spec
        #: By variant: exchanges that are made, or being made.
        self.exchanges: dict[int, asyncio.Task[CoscoExchange]] = {}
        #: What the barrier returned.
        self.stored: tuple[Stored, ...] = ()


class ShufflePlugin(SchedulerPlugin):
    """Makes an exchange for the first transfer of a shuffle, and ends it when nobody needs it.

    It runs on the scheduler's event loop and never blocks it: calls of Cosco run in threads.
    """

    name = NAME
    idempotent = True

    def __init__(self, is_pinned: bool = False) -> None:
        """Begin without shuffles; one that is pinned stays when no client uses it."""
        self._is_pinned = is_pinned

    async def start(self, scheduler: Any) -> None:
        """See `SchedulerPlugin`."""
        self._scheduler = scheduler
        self._loop = asyncio.get_running_loop()
        self._stand_ins = StandIns(scheduler)
        self._shuffles: dict[str, OpenShuffle] = {}
        self._users: set[str] = set()
        self._keeper = ExchangeKeeper()
        self._background: set[asyncio.Task[None]] = set()
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="cosco-dask")
        self._handlers = {
            "cosco_use": self.use,
            "cosco_leave": self.leave,
            "cosco_open": self.open,
            "cosco_barrier": self.pass_barrier,
            "cosco_progress": self.progress,
        }
        scheduler.handlers.update(self._handlers)

    # --- clients --------------------------------------------------------------------------

    async def use(self, client: str) -> None:
        """Note that a client shuffles through Cosco."""
        self._users.add(client)

    async def leave(self, client: str) -> None:
        """Note that a client does so no longer."""
        self._users.discard(client)
        self._leave_if_unused()

    def remove_client(self, scheduler: Any, client: str) -> None:
        """See `SchedulerPlugin`."""
        self._users.discard(client)
        self._leave_if_unused()

    def _leave_if_unused(self) -> None:
        """Take the plugin off its scheduler when no client and no shuffle needs it."""
        plugins = self._scheduler.plugins
        work = self._shuffles or self._stand_ins.are_there or self._background
        if self._users or work or self._is_pinned or plugins.get(NAME) is not self:
            return
        if takes_graphs(self._scheduler) or any(map(is_barrier, self._scheduler.tasks)):
            return  # a shuffle that has not begun: its client has left since it submitted it
        self._scheduler.remove_plugin(NAME)
        self._threads.shutdown(wait=False)
        for name, handler in self._handlers.items():
            if self._scheduler.handlers.get(name) == handler:
                del self._scheduler.handlers[name]

    def update_graph(self, scheduler: Any, **_: Any) -> None:
        """See `SchedulerPlugin`."""
        if not self._users:
            self._loop.call_soon(self._leave_if_unused)

    # --- calls of tasks -------------------------------------------------------------------

    async def open(
        self, *, spec: bytes, mapper: int, key: Any, worker: str, version: str, schema: bytes | None
    ) -> dict[str, Any]:
        """Give a transfer the exchange for its rows, if a run of it on this worker is wanted.

        Raises: EngineUnavailable for a worker of another version, and what making an exchange
        raises.
        """
        if version != __version__:
            raise EngineUnavailable(
                f"worker {worker} has cosco {version}, the scheduler {__version__}: install the"
                f" same version on both"
            )
        known: ShuffleSpec = loads(spec)
        shuffle = self._shuffle_for(known, key, worker)
        if shuffle is None:
            return {"is_stale": True}
        if schema is None:
            shuffle.record.begin_empty(mapper)
            return {"is_stale": False}
        index = shuffle.record.begin(mapper, loads(schema))
        exchange = await self._exchange(shuffle, index)
        return {
            "is_stale": self._shuffles.get(known.token) is not shuffle,
            "index": index,
            "handle": dumps(exchange.handle()),
        }

    async def pass_barrier(
        self, *, token: str, results: Sequence[int], worker: str
    ) -> dict[str, Any]:
        """Tell a barrier where the rows are, if somebody still wants it."""
        shuffle = self._shuffles.get(token)
        if shuffle is None:
            if self._is_wanted(token):
                raise CoscoError(f"shuffle {token} was ended while it was wanted: compute it again")
            return {"is_stale": True}
        record = shuffle.record
        record.check_results(results)
        stored = []
        for index, variant in enumerate(record.variants):
            if variant.mappers:
                exchange = await self._exchange(shuffle, index)
                mappers = tuple(sorted(variant.mappers))
                everyone = range(record.mappers)
                named = everyone if len(mappers) == len(everyone) else mappers
                stored.append(Stored(exchange.handle(), named, variant.schema))
        shuffle.stored = tuple(stored)
        return {"is_stale": False, "stored": dumps(shuffle.stored)}

    def _is_wanted(self, token: str) -> bool:
        task = self._scheduler.tasks.get(barrier_key(token))
        return task is not None and task.state not in ("erred", "forgotten")

    def _shuffle_for(self, spec: ShuffleSpec, key: Any, worker: str) -> OpenShuffle | None:
        """Return the shuffle of a transfer, or None if this run of it is not wanted."""
        task = self._scheduler.tasks.get(key)
        if task is None or task.state != "processing" or task.processing_on.address != worker:
            return None
        if not self._is_wanted(spec.token):
            return None
        shuffle = self._shuffles.get(spec.token)
        if shuffle is None:
            shuffle = self._shuffles[spec.token] = OpenShuffle(spec)
            self._tell("shuffle-began", shuffle, mappers=spec.mappers, partitions=spec.partitions)
        return shuffle

    async def _exchange(self, shuffle: OpenShuffle, index: int) -> CoscoExchange:
        task = shuffle.exchanges.get(index)
        if task is None:
            task = shuffle.exchanges[index] = asyncio.create_task(self._make(shuffle, index))
        try:
            return await asyncio.shield(task)
        except Exception:
            if shuffle.exchanges.get(index) is task:  # the next transfer tries again
                del shuffle.exchanges[index]
            raise

    async def _make(self, shuffle: OpenShuffle, index: int) -> CoscoExchange:
        schema = shuffle.record.variants[index].schema
        called_back = partial(self._called_back, shuffle)
        exchange: CoscoExchange = await self._in_thread(
            self._keeper.make, shuffle.spec, schema, called_back
        )
        return exchange

    # --- rows that were lost --------------------------------------------------------------

    def _called_back(self, shuffle: OpenShuffle, mappers: list[int], reason: str) -> None:
        """Have lost mappers run again. Called on a thread of the exchange."""
        arranged = asyncio.run_coroutine_threadsafe(
            self._run_again(shuffle, mappers, reason), self._loop
        )
        arranged.result(_ARRANGE_S)

    async def _run_again(self, shuffle: OpenShuffle, mappers: list[int], reason: str) -> None:
        """Make the scheduler want exactly these transfers again.

        The barrier is released, so that unpacks wait for it as they did at first; its stand-in
        waits for the transfers that are owed and for no others. A barrier that nobody waits for
        stays as it is, until an output is wanted again.
        """
        token = shuffle.spec.token
        tasks = self._scheduler.tasks
        keys = [transfer_key(token, mapper) for mapper in mappers]
        if self._shuffles.get(token) is not shuffle or not all(key in tasks for key in keys):
            raise CoscoError(f"shuffle {token} is over", mappers=mappers)
        _LOG.warning("shuffle %s: mappers %s run again: %s", token, mappers, reason)
        self._tell("mappers-run-again", shuffle, mappers=mappers, reason=reason)
        record = shuffle.record
        record.owe(mappers)
        for key in keys:
            self._stand_ins.give_up(key)
        released: dict[Any, str] = {key: "released" for key in keys if tasks[key].state == "memory"}
        if record.is_complete and tasks[barrier_key(token)].state != "released":
            released[barrier_key(token)] = "released"
        self._move(released, f"cosco-lost-{token}")

    def _release(self, shuffle: OpenShuffle, key: Any) -> None:
        """Have a transfer run once more whose run began before its rows were lost."""
        task = self._scheduler.tasks.get(key)
        if task is not None and task.state == "memory":
            self._stand_ins.give_up(key)
            self._move({key: "released"}, f"cosco-lost-{shuffle.spec.token}")

    def _move(self, recommendations: dict[Any, str], stimulus: str) -> None:
        self._scheduler.transitions(recommendations, stimulus_id=stimulus)
        self._scheduler.stimulus_queue_slots_maybe_opened(stimulus_id=stimulus)

    # --- the scheduler's transitions ------------------------------------------------------

    def transition(self, key: Any, start: str, finish: str, *_: Any, **__: Any) -> None:
        """See `SchedulerPlugin`: look at what happens to the tasks of open shuffles."""
        if self._users and not self._shuffles and not self._stand_ins.are_there:
            return
        try:
            if is_barrier(key):
                self._barrier_moved(key, finish)
            elif type(key) is tuple and type(key[0]) is str and key[0].startswith(TRANSFER):
                self._transfer_moved(key, start, finish)
            elif finish == "waiting":
                self._arm_barriers_of(key)
        except Exception:  # noqa: BLE001  distributed would note it, where nobody looks
            _LOG.exception("shuffle of task %r: its move to %s was not followed", key, finish)

    def _barrier_moved(self, key: str, finish: str) -> None:
        token = key.removeprefix(BARRIER)
        shuffle = self._shuffles.get(token)
        if shuffle is None:
            if finish == "forgotten":
                self._loop.call_soon(self._leave_if_unused)
        elif finish in ("forgotten", "erred"):
            self._end(shuffle, finish)
        elif finish == "memory":
            shuffle.record.is_complete = True
            self._stand_ins.take_back(key)
        elif finish == "released" and shuffle.record.is_complete:
            if self._scheduler.tasks[key].waiters:
                self._arm(shuffle)
            else:
                self._stand_ins.take_back(key)

    def _transfer_moved(self, key: Any, start: str, finish: str) -> None:
        shuffle = self._shuffles.get(key[0].removeprefix(TRANSFER))
        if shuffle is None:  # it has ended, and what it wrote is gone
            if finish in ("memory", "released"):
                self._stand_ins.take_back(key)
            return
        record, mapper = shuffle.record, key[1]
        if finish == "memory":
            self._stand_ins.take_back(key)
            if not record.finish(mapper):
                self._loop.call_soon(self._release, shuffle, key)
        elif finish == "released":
            waiters = self._scheduler.tasks[key].waiters
            if waiters and mapper in record.done:  # its worker is gone, its rows are not
                self._stand_ins.put(key, again, record.variant_of(mapper), ())
            else:
                self._stand_ins.take_back(key)

    def _arm_barriers_of(self, key: Any) -> None:
        """See to it that the barrier that a task waits for does not bring the map phase back."""
        for task in self._scheduler.tasks[key].dependencies:
            if task.state == "released" and is_barrier(task.key):
                shuffle = self._shuffles.get(task.key.removeprefix(BARRIER))
                if shuffle is not None and shuffle.record.is_complete:
                    self._arm(shuffle)

    def _arm(self, shuffle: OpenShuffle) -> None:
        """Have the barrier wait for what is owed alone, and then say where the rows are."""
        token = shuffle.spec.token
        owed = [transfer_key(token, mapper) for mapper in sorted(shuffle.record.owed)]
        self._stand_ins.put(barrier_key(token), again, shuffle.stored, owed)

    # --- ending ---------------------------------------------------------------------------

    def _end(self, shuffle: OpenShuffle, why: str) -> None:
        """End what belongs to a shuffle, in the background."""
        token = shuffle.spec.token
        del self._shuffles[token]
        if why == "forgotten":
            self._stand_ins.forget(barrier_key(token))
        else:
            self._stand_ins.take_back(barrier_key(token))
        self._tell("shuffle-ended", shuffle, reason=why)
        for task in shuffle.exchanges.values():
            self._in_background(self._close(shuffle, task))
        self._loop.call_soon(self._settle_transfers, shuffle)

    async def _close(self, shuffle: OpenShuffle, task: asyncio.Task[CoscoExchange]) -> None:
        """End an exchange, also one that is only being made."""
        try:
            exchange = await task
        except Exception as error:  # noqa: BLE001  told to whoever wanted it
            _LOG.debug("there is no exchange to end: %s", error)
            return
        await self._in_thread(self._keeper.end, shuffle.spec, exchange)

    def _settle_transfers(self, shuffle: OpenShuffle) -> None:
        """Give transfers of a shuffle that has ended their own work, and drop those left behind.

        A barrier leaves those behind that it did not wait for when it was forgotten, as it had a
        stand-in. Each is released first, and so has its own dependencies when it is forgotten:
        what it read goes with it.
        """
        token, tasks = shuffle.spec.token, self._scheduler.tasks
        for mapper in range(shuffle.spec.mappers):
            key = transfer_key(token, mapper)
            task = tasks.get(key)
            if task is None:
                self._stand_ins.forget(key)
            elif not task.dependents and not task.who_wants:
                self._move({key: "forgotten"}, f"cosco-ended-{token}")
            elif self._stand_ins.has(key):  # the same graph has been submitted again
                self._move({key: "released"}, f"cosco-ended-{token}")
        self._leave_if_unused()

    def restart(self, scheduler: Any) -> None:
        """See `SchedulerPlugin`: all tasks are gone."""
        for shuffle in list(self._shuffles.values()):
            self._end(shuffle, "restart")

    async def close(self) -> None:
        """See `SchedulerPlugin`: end what is open, as far as it takes little time."""
        self._is_pinned = True  # it goes with its scheduler
        for shuffle in list(self._shuffles.values()):
            self._end(shuffle, "the scheduler closes")
        if self._background:
            await asyncio.wait(set(self._background), timeout=_CLOSE_S)
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._left_background)

    def _left_background(self, task: asyncio.Task[None]) -> None:
        self._background.discard(task)
        self._leave_if_unused()

    def _in_thread(self, call: Callable[..., Any], *arguments: Any) -> asyncio.Future[Any]:
        return self._loop.run_in_executor(self._threads, partial(call, *arguments))

    # --- what is told ---------------------------------------------------------------------

    def _tell(self, action: str, shuffle: OpenShuffle, **more: Any) -> None:
        _LOG.info("%s: %s %s", action, shuffle.spec.token, more)
        self._scheduler.log_event(NAME, {"action": action, "shuffle": shuffle.spec.token, **more})

    async def progress(self) -> list[dict[str, Any]]:
        """Return how far each open shuffle is."""
        found = []
        for token, shuffle in list(self._shuffles.items()):
            if self._shuffles.get(token) is not shuffle:
                continue
            try:
                found.append(await self._progress_of(shuffle))
            except CoscoError:
                if self._shuffles.get(token) is shuffle:
                    raise
                # it has ended since it was asked
        return found

    async def _progress_of(self, shuffle: OpenShuffle) -> dict[str, Any]:
        record = shuffle.record
        rows = raw = stored = 0
        names = []
        for task in list(shuffle.exchanges.values()):
            if task.done() and not task.exception():
                exchange = task.result()
                names.append(exchange.shuffle_id)
                seen = await self._in_thread(exchange.progress)
                rows, raw = rows + seen.rows, raw + seen.bytes_raw
                stored += seen.bytes_stored
        return {
            "shuffle": record.token,
            "exchanges": names,
            "mappers": record.mappers,
            "mappers_done": len(record.done),
            "mappers_owed": sorted(record.owed),
            "partitions": record.partitions,
            "is_complete": record.is_complete,
            "rows": rows,
            "bytes_raw": raw,
            "bytes_stored": stored,
            "called_back": dict(record.called_back),
        }
