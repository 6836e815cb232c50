"""`OperatorShuffle`: the exchange of one operator, where the dataset is run."""

from __future__ import annotations

import functools
import logging
import threading
from collections import deque
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import ray

from cosco import ClientClosed, CoscoExchange, ExchangeHandle
from cosco.engine_exchanges import EngineExchanges
from cosco.ray.context_switch import KEEP_INPUTS, SWITCH, Switch
from cosco.ray.private_parts_of_ray import DataContext, Schemas, cached_remote_fn
from cosco.ray.worker_tasks import (
    Outputs,
    merge_slices,
    reduce_tables,
    write_partitions,
    write_slices,
)

_LOG: Final = logging.getLogger("cosco.ray")
#: How often a callback looks whether the exchange was closed while mappers run again.
_LOOK_S: Final = 0.5
#: How many mappers a line of the log names.
_SHOWN: Final = 20
#: What a run that brings rows back takes none of: reduce tasks that wait for it may hold all.
_NOT_FOR_RERUNS: Final = ("memory", "scheduling_strategy")
#: Those of all datasets that this process runs.
_EXCHANGES: Final = EngineExchanges(lambda: f"ray-{ray.get_runtime_context().get_job_id()}")
#: Makes a remote function, once, with the options that Ray's own tasks of these phases have.
_remote: Final = functools.cache(ray.remote)


class _Handles(NamedTuple):
    """What map tasks have of an exchange, and what reduce tasks have."""

    writing: ExchangeHandle
    reading: ExchangeHandle


@dataclass(frozen=True, slots=True)
class _MapRun:
    """How a map task was started; what it holds of its input stays in Ray's object store."""

    task: Any
    options: dict[str, Any]
    arguments: tuple[Any, ...]

    def start(self, handle: ExchangeHandle, mapper: int) -> Any:
        return self.task.options(**self.options).remote(handle, mapper, *self.arguments)

    def again(self, handle: ExchangeHandle, mapper: int) -> Any:
        options = {name: self.options[name] for name in self.options if name not in _NOT_FOR_RERUNS}
        options["num_cpus"] = 0
        return self.task.options(**options).remote(handle, mapper, *self.arguments)


class OperatorShuffle:
    """An exchange that is made at the first map task of an operator, and ends with it.

    The thread that runs the dataset makes it and starts its tasks, another one may close it
    meanwhile, and callbacks come from a third.
    """

    def __init__(self, context: DataContext, name: str) -> None:
        """Begin without an exchange."""
        self._switch: Final[Switch] = context.get_config(SWITCH)
        keeps = context.get_config(KEEP_INPUTS)
        self._keeps_inputs = self._switch.replicas == 1 if keeps is None else bool(keeps)
        self._codec = "none" if context.shuffle_compression in {None, "none"} else "lz4"
        self._name = name
        self._partitions = 0
        self._exchange: CoscoExchange | None = None
        self._handles: _Handles | None = None
        self._mappers = 0
        self._runs: dict[int, _MapRun] = {}
        self._metadata: dict[int, Any] = {}
        self._outputs: Any = None
        self._lock = threading.Lock()  # of the exchange, and what goes with it
        self._is_closed = threading.Event()

    def begin(self, partitions: int) -> None:
        """Say how many partitions there will be."""
        self._partitions = partitions

    def map(self, mapper: int, options: dict[str, Any], blocks: Any, arguments: Any) -> Any:
        """Start the map task of some blocks."""
        run = _MapRun(_remote(write_partitions), options, (arguments, *blocks))
        return self._start_map(mapper, run)

    def reduce(self, options: dict[str, Any], arguments: Any) -> Any:
        """Start the reduce task of a partition."""
        return _remote(reduce_tables).options(**options).remote(*arguments)

    def slice(
        self, mapper: int, options: dict[str, Any], function: Any, block: Any, arguments: Any
    ) -> Any:
        """Start the map task of one block of an all-to-all exchange."""
        task = cached_remote_fn(write_slices)
        run = _MapRun(task, options, (function, block, *arguments))
        metadata = self._metadata[mapper] = self._start_map(mapper, run)
        return metadata

    def merge(
        self, partition: int, options: dict[str, Any], function: Any, arguments: Any
    ) -> tuple[Any, Any]:
        """Start the reduce task of a partition of an all-to-all exchange."""
        if self._outputs is None:  # Ray waits for all map tasks before
            schemas = Schemas()
            for mapper, metadata in self._metadata.items():
                schemas.add(mapper, ray.get(metadata).schema)
            self._outputs = ray.put(self.outputs(None, schemas))
        task = cached_remote_fn(merge_slices)
        block, metadata = task.options(**options).remote(
            self._outputs, partition, function, *arguments
        )
        return block, metadata

    def outputs(self, rows: npt.NDArray[np.int64] | None, schemas: Schemas) -> Outputs:
        """Return what reduce tasks are to be given in the place of shards."""
        assert self._handles is not None, "a map task was started before"
        return Outputs(self._handles.reading, self._mappers, rows, schemas)

    def close(self) -> None:
        """Have the exchange end. Harmless when it has ended, or was never made."""
        with self._lock:
            self._is_closed.set()
            exchange, self._exchange = self._exchange, None
            self._handles = self._outputs = None
            self._runs.clear()
            self._metadata.clear()
        if exchange is not None:
            _EXCHANGES.end(exchange)

    def _start_map(self, mapper: int, run: _MapRun) -> Any:
        handle = self._open().writing
        self._mappers = max(self._mappers, mapper + 1)
        with self._lock:
            if self._keeps_inputs and not self._is_closed.is_set():
                self._runs[mapper] = run
        return run.start(handle, mapper)

    def _open(self) -> _Handles:
        handles = self._handles
        if handles is not None:
            return handles
        exchange = _EXCHANGES.make(
            self._switch.metadata,
            self._partitions,
            self._run_again if self._keeps_inputs else None,
            replicas=self._switch.replicas,
            codec=self._codec,
        )
        try:
            handles = _Handles(exchange.handle(may="write"), exchange.handle(may="read"))
        except BaseException:
            _EXCHANGES.end(exchange)
            raise
        with self._lock:
            if not self._is_closed.is_set():
                self._exchange, self._handles = exchange, handles
                return handles
        _EXCHANGES.end(exchange)  # whoever runs the dataset has not waited for it
        raise ClientClosed(f"{self._name} was shut down before its first map task")

    def _run_again(self, mappers: list[int], reason: str) -> None:
        """Run map tasks again whose rows were lost, and wait for them.

        Raises: what one of them failed with.
        """
        with self._lock:
            if self._handles is None:
                return
            handle = self._handles.writing
            runs = {mapper: self._runs[mapper] for mapper in mappers}
        shown = ", ".join(map(str, mappers[:_SHOWN])) + (", …" if len(mappers) > _SHOWN else "")
        _LOG.warning("%s: map tasks %s run again: %s", self._name, shown, reason)
        # They take no CPU, so it is not Ray that bounds how many processes run them.
        at_once = max(1, int(ray.cluster_resources().get("CPU", 1)))
        waiting, running = deque(runs.items()), list[Any]()
        try:
            while (waiting or running) and not self._is_closed.is_set():
                while waiting and len(running) < at_once:
                    mapper, run = waiting.popleft()
                    running.append(run.again(handle, mapper))
                done, running = ray.wait(running, timeout=_LOOK_S)
                ray.get(done)
        finally:
            for reference in running:
                ray.cancel(reference)
