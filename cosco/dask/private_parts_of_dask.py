"""The private parts of dask and distributed that Cosco touches: all of them, and nowhere else.

`check` compares them with what was tried, before any is touched. What each is for:

- `Shuffle._lower` chooses how rows are shuffled: the one place that all operations go through;
- broadcast joins and `Bag.groupby` know methods by their names, and would not know ours;
- `SimpleShuffle` is the base of an expression whose partitions may be chosen;
- a task of the scheduler gets a *stand-in* while its work is known to be done;
- a worker's profiler can stop its process for ever on Python 3.11;
- a client tells what is registered with its preloads that it closes.
"""

from __future__ import annotations

import functools
import gc
import inspect
import sys
import threading
from collections.abc import Callable, Iterable
from typing import Any, Final

import dask
import distributed
from dask._task_spec import Task, TaskRef
from dask.bag import core as bag_core
from dask.dataframe.dask_expr import _collection, _merge, _shuffle
from dask.dataframe.dispatch import from_pyarrow_table_dispatch, to_pyarrow_table_dispatch
from distributed.client import Client
from distributed.diagnostics.plugin import SchedulerPlugin
from distributed.preloading import PreloadManager
from distributed.protocol.pickle import dumps, loads
from distributed.scheduler import Scheduler, SchedulerState, TaskState
from distributed.utils import sync
from distributed.worker import Worker
from pandas.core.arrays.arrow import extension_types as _registers_periods_and_intervals
from pandas.core.dtypes.cast import find_common_type

from cosco.engine_versions import check_versions
from cosco.errors import EngineUnavailable

__all__ = [
    "ExchangeTask", "Patches", "SimpleShuffle", "StandIns", "TaskRef", "ask_scheduler", "check",
    "current_client", "current_key", "dumps", "find_common_type", "from_arrow", "guard_profiler",
    "loads", "on_close", "own_method", "register", "takes_graphs", "to_arrow",
]  # fmt: skip

SimpleShuffle: Final = _shuffle.SimpleShuffle
Shuffle: Final = _shuffle.Shuffle
_METHOD: Final = "cosco"
#: Whose shuffles are like ours in what others decide by a method's name.
_ALIKE: Final = "tasks"

#: What must be there, by where it is: parameters of calls, or None for what is no call.
_EXPECTED: Final[tuple[tuple[Any, str, tuple[str, ...] | None], ...]] = (
    (_shuffle.Shuffle, "_lower", ("self",)),
    (_shuffle.SimpleShuffle, "_layer", ("self",)),
    (_merge.Merge, "is_broadcast_join", None),
    (_merge, "get_default_shuffle_method", ()),
    (_collection, "_get_shuffle_preferring_order", ("shuffle",)),
    (bag_core, "get_default_shuffle_method", ()),
    (_shuffle, "get_default_shuffle_method", ()),
    (Task, "block_fusion", None),
    (Task, "__init__", ("self", "key", "func", "args", "_data_producer", "kwargs")),
    (Scheduler, "transitions", ("self", "recommendations", "stimulus_id")),
    (Scheduler, "stimulus_queue_slots_maybe_opened", ("self", "stimulus_id")),
    (Scheduler, "log_event", ("self", "topic", "msg")),
    (SchedulerState, "validate_key", ("self", "key", "ts")),
    (TaskState, "add_dependency", ("self", "other")),
    (Client, "_close", ("self", "fast")),
    (Client, "_get_versions", ("self", "check", "packages")),
    (PreloadManager, "teardown", ("self",)),
    (Worker, "trigger_profile", ("self",)),
)
_PARAMETERS: Final = (
    "frame", "partitioning_index", "npartitions_out", "ignore_index", "options",
    "original_partitioning_index", "_partitions",
)  # fmt: skip
_TASK_FIELDS: Final = {
    "run_spec", "dependencies", "dependents", "waiters", "who_wants", "processing_on",
}  # fmt: skip


def check() -> None:
    """Look whether dask and distributed are what these parts were tried with.

    Raises: EngineUnavailable, with the versions that are there and those that work.
    """
    check_versions("dask")
    for owner, name, parameters in _EXPECTED:
        found = inspect.getattr_static(owner, name, None)
        if found is None or (parameters is not None and _parameters(found) != parameters):
            raise _unknown(f"{getattr(owner, '__name__', owner)}.{name}")
    if tuple(SimpleShuffle._parameters) != _PARAMETERS:
        raise _unknown("the parameters of SimpleShuffle")
    if not {*TaskState.__slots__} >= _TASK_FIELDS:
        raise _unknown("the fields of a TaskState")
    if "_active_graph_updates" not in Scheduler.__annotations__:
        raise _unknown("how many graphs a Scheduler takes at the moment")


def _parameters(found: Any) -> tuple[str, ...]:
    return tuple(inspect.signature(inspect.unwrap(found)).parameters)


def _unknown(what: str) -> EngineUnavailable:
    return EngineUnavailable(
        f"cosco.dask does not know {what} of dask {dask.__version__} and distributed "
        f"{distributed.__version__}: pip install 'cosco[dask]' gives versions that it knows"
    )


# --- tasks, and what runs them ------------------------------------------------------------


class ExchangeTask(Task):
    """A task that is found by its key, and so must not be joined with its neighbours."""

    __slots__ = ()

    @property
    def block_fusion(self) -> bool:
        """See `Task`."""
        return True


def ask_scheduler(call: str, **arguments: Any) -> dict[str, Any]:
    """Have the scheduler of the worker that this task runs on answer a call.

    Raises: what the scheduler raised, EngineUnavailable where it does not know the call, and a
    RuntimeError outside of a worker.
    """
    try:
        worker = distributed.get_worker()
    except ValueError:
        raise RuntimeError(
            "shuffle_method='cosco' needs Dask's distributed scheduler: compute with a Client"
        ) from None
    guard_profiler()
    method = getattr(worker.scheduler, call)
    answer: dict[str, Any] | None = sync(worker.loop, method, worker=worker.address, **arguments)
    if answer is None:  # what a scheduler sends back that has no such handler
        raise EngineUnavailable(
            f"the scheduler {worker.scheduler.address} does not shuffle through Cosco any more: "
            "call cosco.dask.enable(client) and compute again"
        )
    return answer


def current_key() -> Any:
    """Return the key of the task that this thread runs."""
    return distributed.get_worker().get_current_task()


#: Where looking at what threads do may never end; see `guard_profiler`.
_MAY_HANG: Final = sys.version_info[:2] == (3, 11)
_PROFILING: Final = threading.Lock()


def guard_profiler() -> None:
    """Have the worker of this task profile its threads without collecting garbage, on Python 3.11.

    There `sys._current_frames` holds a lock of the interpreter while it makes objects. A collection
    of garbage at that moment needs the same lock for a `threading.local`, and waits for another
    thread that needs it to end: the process stops for ever (CPython issue 106883, mended in
    3.12). Calls of gRPC leave both behind. Dask has the profiler of its servers off on 3.11 for
    this (distributed issue 8616), but not that of its workers.
    """
    profiler = distributed.get_worker().periodic_callbacks.get("profile")
    if _MAY_HANG and profiler is not None and not isinstance(profiler.callback, _Uncollected):
        profiler.callback = _Uncollected(profiler.callback)


class _Uncollected:
    """A call during which no garbage is collected."""

    def __init__(self, call: Callable[[], object]) -> None:
        self._call = call

    def __call__(self) -> None:
        with _PROFILING:  # another worker of this process must not turn it on again meanwhile
            is_on = gc.isenabled()
            gc.disable()
            try:
                self._call()
            finally:
                if is_on:
                    gc.enable()


# --- frames -------------------------------------------------------------------------------

to_arrow: Final = to_pyarrow_table_dispatch
from_arrow: Final = from_pyarrow_table_dispatch
assert _registers_periods_and_intervals  # with Arrow: workers import it nowhere else


# --- the client's process -----------------------------------------------------------------


def current_client() -> Client | None:
    """Return the client that a computation of this thread goes to, if there is one."""
    try:
        return distributed.default_client()
    except ValueError:
        return None


def own_method() -> str:
    """Return the method that Dask takes by itself where nothing is configured."""
    return "disk" if current_client() is None else "p2p"


def on_close(client: Client, end: Callable[[], None]) -> Callable[[], None]:
    """Have `end` called when a client closes.

    Returns: what takes it back.
    """
    preloads = client.preloads._preloads
    entry = _AtClose(end)
    preloads.append(entry)

    def take_back() -> None:
        if entry in preloads:
            preloads.remove(entry)

    return take_back


async def register(client: Client, plugin: SchedulerPlugin) -> None:
    """Have the scheduler of a client run a plugin, unless it has one of this name."""
    await client.scheduler.register_scheduler_plugin(
        plugin=dumps(plugin), name=plugin.name, idempotent=True
    )


class _AtClose:
    """What `Client.preloads` holds: the client tears them down first when it closes."""

    name = "cosco.dask"

    def __init__(self, end: Callable[[], None]) -> None:
        self._end = end

    async def start(self) -> None:
        """See `distributed.preloading.Preload`."""

    async def teardown(self) -> None:
        """See `distributed.preloading.Preload`."""
        self._end()


class Patches:
    """What of Dask is replaced in this process while some client shuffles through Cosco."""

    def __init__(self, lower: Callable[[Any], Any | None], is_ours: Callable[[], bool]) -> None:
        """Replace nothing yet.

        lower: returns an expression of ours for a Shuffle, or None for Dask's own. is_ours: says
        whether a shuffle that is made now would be ours.
        """
        self._lower = lower
        self._is_ours = is_ours
        self._before: list[tuple[Any, str, Any]] = []

    @property
    def are_in(self) -> bool:
        """Whether they are in place."""
        return bool(self._before)

    def put_in(self) -> None:
        """Replace them, once."""
        if self._before:
            return
        self._replace(Shuffle, "_lower", _lowering(Shuffle._lower, self._lower))
        join = _merge.Merge.is_broadcast_join
        mine = functools.cached_property(_broadcasting(join.func))
        mine.__set_name__(_merge.Merge, "is_broadcast_join")
        self._replace(_merge.Merge, "is_broadcast_join", mine)
        default = bag_core.get_default_shuffle_method
        self._replace(bag_core, "get_default_shuffle_method", _for_bags(default))
        prefer = _collection._get_shuffle_preferring_order
        name = "_get_shuffle_preferring_order"
        self._replace(_collection, name, _preferring(prefer, self._is_ours))

    def take_out(self) -> None:
        """Put back what was there, also where others have replaced it since."""
        while self._before:
            owner, name, before = self._before.pop()
            setattr(owner, name, before)

    def _replace(self, owner: Any, name: str, new: Any) -> None:
        self._before.append((owner, name, inspect.getattr_static(owner, name)))
        setattr(owner, name, new)


def _lowering(before: Callable[[Any], Any], lower: Callable[[Any], Any | None]) -> Any:
    @functools.wraps(before)
    def _lower(self: Any) -> Any:
        method = self.method or _shuffle.get_default_shuffle_method()
        if method != _METHOD:
            return before(self)
        ours = lower(self)
        if ours is not None:
            return ours
        return before(self.substitute_parameters({"method": own_method()}))

    return _lower


def _broadcasting(before: Callable[[Any], bool]) -> Callable[[Any], bool]:
    def is_broadcast_join(self: Any) -> bool:
        if (self.shuffle_method or _merge.get_default_shuffle_method()) != _METHOD:
            return before(self)
        return before(self.substitute_parameters({"shuffle_method": _ALIKE}))

    return is_broadcast_join


def _preferring(
    before: Callable[[str | None], str], is_ours: Callable[[], bool]
) -> Callable[[str | None], str]:
    def _get_shuffle_preferring_order(shuffle: str | None) -> str:
        method = before(shuffle)
        if shuffle is None and method == _METHOD and not is_ours():
            # Dask's own choice: a shuffle on disk would not keep the order.
            return "tasks" if own_method() == "disk" else own_method()
        return method

    return _get_shuffle_preferring_order


def _for_bags(before: Callable[[], str]) -> Callable[[], str]:
    def get_default_shuffle_method() -> str:
        method = before()
        return _ALIKE if method == _METHOD else method

    return get_default_shuffle_method


# --- the scheduler's tasks ----------------------------------------------------------------


def takes_graphs(scheduler: Scheduler) -> bool:
    """Whether a scheduler is making tasks of what clients have submitted."""
    under_way: int = scheduler._active_graph_updates
    return under_way > 0


class _StandIn(ExchangeTask):
    """The work of a task that has a stand-in."""

    __slots__ = ()


class StandIns:
    """Tasks of a scheduler that have another work to do for a while, by their keys.

    A task whose result went with a worker is computed again by the scheduler, and before it all
    that it depends on. Where what it did is known to be done, it gets a stand-in instead: the same
    key, other work, other dependencies. Everything else is left to the scheduler's transitions.
    """

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._own: dict[Any, tuple[Any, list[TaskState]]] = {}

    @property
    def are_there(self) -> bool:
        """Whether some task has one."""
        return bool(self._own)

    def has(self, key: Any) -> bool:
        """Whether a task has one."""
        return key in self._own

    def put(self, key: Any, work: Callable[..., Any], value: Any, after: Iterable[Any]) -> None:
        """Have a task return `work(value)` when it runs next, once the tasks `after` are done."""
        task = self._scheduler.tasks[key]
        if key not in self._own:
            self._own[key] = task.run_spec, list(task.dependencies)
        refs = [TaskRef(other) for other in after]
        self._join(task, [self._scheduler.tasks[other] for other in after])
        task.run_spec = _StandIn(key, work, value, *refs)

    def take_back(self, key: Any) -> None:
        """Give a task its own work again, if it has a stand-in.

        It keeps the stand-in where what it depends on was dropped meanwhile, as nobody else needed
        it: what it did is as true as before.
        """
        own = self._own.pop(key, None)
        task = self._scheduler.tasks.get(key)
        if own is None or task is None:
            return
        run_spec, dependencies = own
        if all(self._scheduler.tasks.get(other.key) is other for other in dependencies):
            task.run_spec = run_spec
            self._join(task, dependencies)

    def give_up(self, key: Any) -> None:
        """Have the scheduler drop a task, and what waits for it, that cannot do its work again.

        It does so when the task is released next. Does nothing for one that has its own work, or
        can have it again.
        """
        task = self._scheduler.tasks.get(key)
        if task is not None and key not in self._own and isinstance(task.run_spec, _StandIn):
            task.has_lost_dependencies = True

    def forget(self, key: Any) -> None:
        """Drop what is remembered of a task that is gone."""
        self._own.pop(key, None)

    def _join(self, task: TaskState, dependencies: list[TaskState]) -> None:
        for other in set(task.dependencies) - set(dependencies):
            other.dependents.discard(task)
            if other.waiters:
                other.waiters.discard(task)
        task.dependencies.clear()
        for other in dependencies:
            task.add_dependency(other)
