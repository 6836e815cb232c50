"""All that is used of Ray's private parts: no other file here imports `ray.data._internal`.

Ray plans a shuffle as operators, whose tasks partition blocks and reduce partitions. What they
compute stays Ray's. These operators are Ray's too, but for three things: where a map task's shards
go, where a reduce task gets them from, and who starts those tasks. Methods in which one of these is
a name of Ray's module are run as copies that take another thing by that name (`with_names`); no
module and no class of Ray's is changed. The new operators come into a plan by physical rules, which
Ray lets anybody add.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from itertools import pairwise
from operator import itemgetter
from types import CodeType, FunctionType
from typing import Any, Final, Protocol, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import ray
from ray.data._internal.arrow_ops import transform_pyarrow
from ray.data._internal.execution.execution_callback import ExecutionCallback
from ray.data._internal.execution.interfaces import BlockEntry, PhysicalOperator, RefBundle
from ray.data._internal.execution.operators.base_physical_operator import AllToAllOperator
from ray.data._internal.execution.operators.shuffle_operators.shuffle_map_operator import (
    ShuffleMapOp,
    make_partition_sentinel,
)
from ray.data._internal.execution.operators.shuffle_operators.shuffle_reduce_operator import (
    ShuffleReduceOp,
)
from ray.data._internal.execution.operators.shuffle_operators.shuffle_tasks import (
    _shuffle_map_task,
    _shuffle_reduce_task,
)
from ray.data._internal.execution.operators.shuffle_operators.sort_shuffle_map_operator import (
    SortShuffleMapOp,
)
from ray.data._internal.logical.interfaces import PhysicalPlan, Rule
from ray.data._internal.logical.operators import Aggregate, RandomShuffle, Repartition, Sort
from ray.data._internal.logical.optimizers import get_physical_ruleset
from ray.data._internal.logical.rules import FuseOperators
from ray.data._internal.planner.aggregate import generate_aggregate_fn
from ray.data._internal.planner.exchange.pull_based_shuffle_task_scheduler import (
    PullBasedShuffleTaskScheduler,
)
from ray.data._internal.planner.random_shuffle import generate_random_shuffle_fn
from ray.data._internal.planner.repartition import generate_repartition_fn
from ray.data._internal.planner.sort import generate_sort_fn
from ray.data._internal.remote_fn import cached_remote_fn
from ray.data.block import BlockMetadata
from ray.data.context import DataContext, ShuffleStrategy

from cosco.engine_versions import SUPPORTED
from cosco.errors import EngineUnavailable

__all__ = [
    "DataContext",
    "ExecutionCallback",
    "FuseOperators",
    "PhysicalPlan",
    "Rule",
    "ShuffleStrategy",
    "cached_remote_fn",
    "get_physical_ruleset",
]


class Shuffle(Protocol):
    """What an operator asks of Cosco: one exchange, made when it is needed first."""

    def begin(self, partitions: int) -> None:
        """Say how many partitions there will be."""

    def map(self, mapper: int, options: dict[str, Any], blocks: Any, arguments: Any) -> Any:
        """Start the map task of some blocks.

        Returns: the reference of what it tells, as `partition_blocks` returns it.
        """

    def reduce(self, options: dict[str, Any], arguments: Any) -> Any:
        """Start the reduce task of a partition.

        Returns: the generator of its blocks.
        """

    def slice(
        self, mapper: int, options: dict[str, Any], function: Any, block: Any, arguments: Any
    ) -> Any:
        """Start the map task of one block of an all-to-all exchange.

        Returns: the reference of its metadata.
        """

    def merge(
        self, partition: int, options: dict[str, Any], function: Any, arguments: Any
    ) -> tuple[Any, Any]:
        """Start the reduce task of a partition of an all-to-all exchange.

        Returns: the references of its block and of its metadata.
        """

    def outputs(self, rows: npt.NDArray[np.int64], schemas: Schemas) -> Any:
        """Return what reduce tasks are to be given in the place of shards."""

    def close(self) -> None:
        """End the exchange."""


#: Makes the shuffle of the operator of a name, which runs in this context.
MakeShuffle = Callable[[DataContext, str], Shuffle]


class Schemas:
    """The different schemas of a shuffle's blocks, and which mapper was the first with each."""

    def __init__(self) -> None:
        """Begin without any."""
        self.found: list[tuple[int, Any]] = []

    @property
    def first(self) -> Any:
        """The schema of the first mapper that has columns; None if none has."""
        named = [(mapper, schema) for mapper, schema in self.found if schema and schema.names]
        return min(named, key=itemgetter(0))[1] if named else None

    def add(self, mapper: int, schema: Any) -> None:
        """Take note of a mapper's schema."""
        for place, (first, known) in enumerate(self.found):
            if known is schema or known == schema:
                self.found[place] = (min(first, mapper), known)
                return
        self.found.append((mapper, schema))


# --- Ray's own functions, with names that mean something else ---------------------------------


def with_names(function: Any, **names: Any) -> Any:
    """Return a copy of a function of Ray's in which names of its module mean other things."""
    copy = FunctionType(
        function.__code__,
        {**function.__globals__, **names},
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
    copy.__kwdefaults__ = function.__kwdefaults__
    return copy


class TaskCall:
    """Stands where a remote function of Ray's stood: `call.options(...).remote(...)`."""

    def __init__(self, start: Callable[..., Any], options: dict[str, Any] | None = None) -> None:
        """Have `start(options, *arguments, **keywords)` called instead."""
        self._start = start
        self._options = options or {}

    def options(self, **options: Any) -> TaskCall:
        """Return the same with options."""
        return TaskCall(self._start, options)

    def remote(self, *arguments: Any, **keywords: Any) -> Any:
        """Start the task."""
        return self._start(self._options, *arguments, **keywords)


def _unencoded(table: pa.Table, _options: Any) -> pa.Table:
    return table


def partition_blocks(blocks: tuple[Any, ...], arguments: dict[str, Any]) -> tuple[Any, Any]:
    """Do what Ray's map task does, but for encoding.

    Returns: what it tells (metadata of its input, rows and bytes by partition, the schema of the
    shards), and a table for each partition.
    """
    run = with_names(_shuffle_map_task._function, _encode_partition_ipc=_unencoded)
    told, *tables = run(*blocks, **{**arguments, "compression": None})
    return told, tables


def with_rows_everywhere(told: Any, partitions: int) -> Any:
    """Return what a map task tells, with a row in each partition: nobody takes one for empty."""
    metadata, shards, schema = told
    counted = {p: shards.get(p, (0, 0)) for p in range(partitions)}
    return metadata, {p: (max(1, rows), size) for p, (rows, size) in counted.items()}, schema


def reduce_partition(
    gather: Callable[[list[Any], int], list[pa.Table]], arguments: tuple[Any, ...]
) -> Iterator[Any]:
    """Do what Ray's reduce task does, with tables from `gather(outputs, partition)`.

    Yields: blocks, and the pickled metadata of each.
    """

    def tables(outputs: list[Any], partition: int, _batch: int, _timeout_s: float) -> Any:
        return gather(outputs, partition)

    return cast(
        "Iterator[Any]",
        with_names(_shuffle_reduce_task._function, _gather_input_shards=tables)(*arguments),
    )


def promoted(tables: list[pa.Table]) -> list[pa.Table]:
    """Return tables of different schemas with the types that hold the values of all of them.

    It is what Ray does where such blocks meet in one task.
    """
    whole = transform_pyarrow.concat(tables, promote_types=True, preserve_order=True)
    ends = np.cumsum([0, *(table.num_rows for table in tables)]).tolist()
    return [whole.slice(first, end - first) for first, end in pairwise(ends)]


# --- operators ------------------------------------------------------------------------------------


class _MapThroughCosco(ShuffleMapOp):
    """A map phase whose tasks write their shards to an exchange."""

    _shuffle: Shuffle
    _partition_bundles_emitted: bool  # Ray's

    def shuffle_through(self, shuffle: Shuffle) -> None:
        """Give the operator its shuffle, before it is run."""
        self._shuffle = shuffle
        self._rows = np.zeros(self._num_partitions, np.int64)
        self._schemas = Schemas()
        shuffle.begin(self._num_partitions)

    def _submit_shuffle_map_task(self, *arguments: Any, **keywords: Any) -> None:
        mapper = self._next_shuffle_map_task_idx

        def start(options: dict[str, Any], *blocks: Any, **others: Any) -> list[Any]:
            return [self._shuffle.map(mapper, {**options, "num_returns": 1}, blocks, others)]

        with_names(ShuffleMapOp._submit_shuffle_map_task, _shuffle_map_task=TaskCall(start))(
            self, *arguments, **keywords
        )

    def _handle_map_done(
        self, task_idx: int, partition_refs: list[Any], input_bundles: list[Any]
    ) -> None:
        _, shards, schema = ray.get(self._shuffle_map_tasks[task_idx].get_waitable())
        for partition, (rows, size) in shards.items():
            self._rows[partition] += rows
            self._partition_bytes[partition] += size
        self._schemas.add(task_idx, schema)
        super()._handle_map_done(task_idx, [], input_bundles)

    def _maybe_emit_partition_bundles(self) -> None:
        is_mapping = self._shuffle_map_tasks or self._merge_buffer_refs_by_node
        if self._partition_bundles_emitted or is_mapping or not self._inputs_complete:
            return
        self._partition_bundles_emitted = True
        if not self._next_shuffle_map_task_idx:
            return
        outputs = ray.put(self._shuffle.outputs(self._rows, self._schemas))
        for partition, rows in enumerate(self._rows.tolist()):
            metadata = BlockMetadata(
                num_rows=rows,
                size_bytes=self._partition_bytes.get(partition, 0),
                exec_stats=None,
                input_files=make_partition_sentinel(partition),
            )
            bundle = RefBundle(
                (BlockEntry(ref=outputs, metadata=metadata),),
                schema=self._schemas.first,
                owns_blocks=False,
            )
            self._output_queue.add(bundle)
            self._metrics.on_output_queued(bundle)

    def _do_shutdown(self, force: bool = False) -> None:
        try:
            super()._do_shutdown(force)
        finally:
            self._shuffle.close()


class CoscoShuffleMapOp(_MapThroughCosco):
    """Partitions by a function: of repartition, aggregations and joins."""


class CoscoSortMapOp(_MapThroughCosco, SortShuffleMapOp):
    """Sorts blocks and partitions them by ranges."""


class CoscoShuffleReduceOp(ShuffleReduceOp):
    """A reduce phase whose tasks read partitions of exchanges."""

    def _submit_reduce_task(self, partition_id: int, bundles: list[Any]) -> None:
        # Any of its inputs: who starts a task does not matter to the shuffle.
        shuffle = self.input_dependencies[0]._shuffle

        def start(options: dict[str, Any], *arguments: Any) -> Any:
            return shuffle.reduce(options, arguments)

        with_names(ShuffleReduceOp._submit_reduce_task, _shuffle_reduce_task=TaskCall(start))(
            self, partition_id, bundles
        )


class CoscoAllToAllOperator(AllToAllOperator):
    """Runs a function that shuffles all blocks at once, through an exchange of its own."""

    _shuffle: Shuffle

    def shuffle_through(self, shuffle: Shuffle) -> None:
        """Give the operator its shuffle, before it is run."""
        self._shuffle = shuffle

    def all_inputs_done(self) -> None:
        token = _SHUFFLE.set(self._shuffle)
        try:
            super().all_inputs_done()
        finally:
            _SHUFFLE.reset(token)

    def _do_shutdown(self, force: bool = False) -> None:
        try:
            super()._do_shutdown(force)
        finally:
            self._shuffle.close()


#: The shuffle of the all-to-all operator that is at work in this thread.
_SHUFFLE: Final[ContextVar[Shuffle]] = ContextVar("shuffle of an all-to-all operator")


class _Place:
    """Stands for what one map task made for a partition."""

    def __init__(self, partition: int) -> None:
        self.partition = partition


class CoscoTaskScheduler(PullBasedShuffleTaskScheduler):
    """Starts map and reduce tasks as Ray's scheduler does, which pass blocks through Cosco."""

    def execute(
        self, refs: Any, output_num_blocks: int, task_ctx: Any, *arguments: Any, **keywords: Any
    ) -> Any:
        if keywords.get("_debug_limit_execution_to_num_blocks") is not None:  # maps count twice
            return super().execute(refs, output_num_blocks, task_ctx, *arguments, **keywords)
        shuffle = _SHUFFLE.get()
        shuffle.begin(output_num_blocks)
        spec = self._exchange_spec

        def start_map(options: dict[str, Any], mapper: int, block: Any, *others: Any) -> Any:
            options = {**options, "num_returns": 1}
            metadata = shuffle.slice(mapper, options, spec.map, block, others)
            return [*map(_Place, range(output_num_blocks)), metadata]

        def start_reduce(options: dict[str, Any], *others: Any) -> Any:
            own = [other for other in others if not isinstance(other, _Place)]
            if len(own) == len(others):  # there are no blocks
                return cached_remote_fn(spec.reduce).options(**options).remote(*own)
            return shuffle.merge(others[-1].partition, options, spec.reduce, own)

        calls = {spec.map: TaskCall(start_map), spec.reduce: TaskCall(start_reduce)}
        return with_names(
            PullBasedShuffleTaskScheduler.execute, cached_remote_fn=calls.__getitem__
        )(self, refs, output_num_blocks, task_ctx, *arguments, **keywords)


# --- plans ----------------------------------------------------------------------------------------


def replace_schedulers(plan: PhysicalPlan) -> PhysicalPlan:
    """Have all-to-all operators of a plan start their tasks by `CoscoTaskScheduler`.

    It must come before maps are fused into those operators, which hides their functions.
    """
    for operator in plan.dag.post_order_iter():
        if type(operator) is AllToAllOperator:
            function = _all_to_all_function(operator)
            if function is not None:
                operator._bulk_fn = function
    return plan


def _all_to_all_function(operator: Any) -> Any:
    """Return what such an operator is to run, as Ray's planner makes it; None for its own."""
    if len(operator._logical_operators) != 1:
        return None
    [logical] = operator._logical_operators
    context = operator.data_context
    limit = context.get_config("debug_limit_shuffle_execution_to_num_blocks", None)
    match logical:
        case RandomShuffle():
            arguments = (logical.seed_config, logical.num_outputs, logical.ray_remote_args, limit)
            return _by_our_scheduler(generate_random_shuffle_fn)(context, *arguments)
        case Repartition() if logical.shuffle and not logical.keys:
            return _by_our_scheduler(generate_repartition_fn)(
                logical.num_outputs, True, context, limit
            )
        case Sort():
            return _by_our_scheduler(generate_sort_fn)(logical.sort_key, context, limit)
        case Aggregate():
            return _by_our_scheduler(generate_aggregate_fn)(
                logical.key, logical.aggs, context, limit
            )
        case _:
            return None


def _by_our_scheduler(generate: Any) -> Any:
    return with_names(
        generate,
        PullBasedShuffleTaskScheduler=CoscoTaskScheduler,
        PushBasedShuffleTaskScheduler=CoscoTaskScheduler,
    )


def replace_operators(plan: PhysicalPlan, make: MakeShuffle) -> PhysicalPlan:
    """Return a plan in which Cosco's operators stand in the place of those of shuffles.

    It must come after maps were fused into them, which makes new ones.
    """
    op_map = dict(plan.op_map)
    replaced: dict[Any, Any] = {}
    for operator in list(plan.dag.post_order_iter()):
        inputs = [replaced.get(one, one) for one in operator.input_dependencies]
        new = _replacement(operator, inputs, make)
        if new is None:
            operator._input_dependencies = inputs
            continue
        new.set_logical_operators(*operator._logical_operators)
        new.override_target_max_block_size(operator.target_max_block_size_override)
        replaced[operator] = new
        if operator in op_map:
            op_map[new] = op_map.pop(operator)
    dag = replaced.get(plan.dag, plan.dag)
    operators = list(dag.post_order_iter())
    for operator in operators:
        operator._output_dependencies = []
    for operator in dict.fromkeys(operators):
        operator._wire_output_deps(operator.input_dependencies)
    return PhysicalPlan(dag, op_map, plan.context)


def _replacement(operator: Any, inputs: list[Any], make: MakeShuffle) -> Any:
    """Return what is to stand in the place of an operator, or None."""
    kind, context, new = type(operator), operator.data_context, None
    if kind in {ShuffleMapOp, SortShuffleMapOp}:
        keywords = {
            "num_partitions": operator._num_partitions,
            "map_runtime_env": operator._map_runtime_env,
            "map_cpus": operator._shuffle_map_task_num_cpus,
            "name": f"Cosco{operator.name}",
        }
        if kind is SortShuffleMapOp:
            new = CoscoSortMapOp(inputs[0], context, sort_key=operator._sort_key, **keywords)
        else:
            new = CoscoShuffleMapOp(
                inputs[0],
                context,
                partition_fn=operator._partition_fn,
                block_transformer=operator._block_transformer,
                peak_memory_multiplier=operator._peak_memory_multiplier,
                **keywords,
            )
    elif kind is ShuffleReduceOp and all(isinstance(one, _MapThroughCosco) for one in inputs):
        return _reduce_replacement(operator, inputs)
    elif kind is AllToAllOperator and _is_by_our_scheduler(operator):
        new = CoscoAllToAllOperator(
            operator._bulk_fn,
            inputs[0],
            context,
            num_outputs=operator._num_outputs,
            sub_progress_bar_names=operator._sub_progress_bar_names,
            name=operator.name,
        )
    if new is not None:
        new.shuffle_through(make(context, new.name))
    return new


def _reduce_replacement(operator: Any, inputs: list[Any]) -> CoscoShuffleReduceOp:
    override = operator._fused_output_map_target_max_block_size_override
    return CoscoShuffleReduceOp(
        inputs,
        operator.data_context,
        num_partitions=operator._num_partitions,
        reduce_fn=operator._reduce_fn,
        disallow_block_splitting=operator._disallow_block_splitting,
        reduce_ray_remote_args=operator._reduce_ray_remote_args,
        preserve_partition_order=operator._preserve_partition_order,
        peak_memory_multiplier=operator._peak_memory_multiplier,
        name=f"Cosco{operator.name}",
        should_emit_empty_partitions=operator._emit_empty_partitions,
        fused_output_map_transformer=operator._fused_output_map_transformer,
        fused_output_map_task_kwargs=operator._fused_output_map_task_kwargs,
        fused_output_map_target_max_block_size_override=override,
    )


def _is_by_our_scheduler(operator: Any) -> bool:
    """Whether `replace_schedulers` gave the operator its function; fused maps come before it."""
    [*_, logical] = operator._logical_operators or [None]
    return isinstance(logical, RandomShuffle | Sort | Aggregate) or (
        isinstance(logical, Repartition) and logical.shuffle and not logical.keys
    )


# --- what was tested ------------------------------------------------------------------------------

#: Names that copies of Ray's functions are to take for other things, and must find in them.
_COPIED: Final[tuple[tuple[Any, tuple[str, ...]], ...]] = (
    (_shuffle_map_task._function, ("_encode_partition_ipc",)),
    (_shuffle_reduce_task._function, ("_gather_input_shards",)),
    (ShuffleMapOp._submit_shuffle_map_task, ("_shuffle_map_task",)),
    (ShuffleReduceOp._submit_reduce_task, ("_shuffle_reduce_task",)),
    (PullBasedShuffleTaskScheduler.execute, ("cached_remote_fn",)),
)
#: What is called, or called in the place of another one, with these parameters.
_PARAMETERS: Final[tuple[tuple[Any, str], ...]] = (
    (
        _shuffle_map_task._function,
        "blocks partition_fn num_partitions compression block_transformer",
    ),
    (
        _shuffle_reduce_task._function,
        (
            "shard_refs_by_input partition_id reduce_fn target_max_block_size batch_size"
            " get_timeout_s map_transformer map_task_context data_context"
        ),
    ),
    (
        ShuffleMapOp.__init__,
        (
            "self input_op data_context num_partitions partition_fn block_transformer"
            " map_runtime_env map_cpus peak_memory_multiplier name"
        ),
    ),
    (
        SortShuffleMapOp.__init__,
        "self input_op data_context num_partitions sort_key map_runtime_env map_cpus name",
    ),
    (ShuffleMapOp._handle_map_done, "self task_idx partition_refs input_bundles"),
    (ShuffleMapOp._maybe_emit_partition_bundles, "self"),
    (ShuffleMapOp._do_shutdown, "self force"),
    (
        ShuffleReduceOp.__init__,
        (
            "self input_op data_context num_partitions reduce_fn disallow_block_splitting"
            " reduce_ray_remote_args preserve_partition_order peak_memory_multiplier name"
            " should_emit_empty_partitions fused_output_map_transformer"
            " fused_output_map_task_kwargs fused_output_map_target_max_block_size_override"
        ),
    ),
    (ShuffleReduceOp._submit_reduce_task, "self partition_id bundles"),
    (
        AllToAllOperator.__init__,
        (
            "self bulk_fn input_op data_context target_max_block_size_override num_outputs"
            " sub_progress_bar_names name"
        ),
    ),
    (AllToAllOperator._do_shutdown, "self force"),
    (
        PullBasedShuffleTaskScheduler.execute,
        (
            "self refs output_num_blocks task_ctx map_ray_remote_args reduce_ray_remote_args"
            " _debug_limit_execution_to_num_blocks"
        ),
    ),
    (
        generate_random_shuffle_fn,
        (
            "data_context seed_config num_outputs ray_remote_args"
            " _debug_limit_shuffle_execution_to_num_blocks"
        ),
    ),
    (
        generate_repartition_fn,
        "num_outputs shuffle data_context _debug_limit_shuffle_execution_to_num_blocks",
    ),
    (
        generate_sort_fn,
        "sort_key data_context _debug_limit_shuffle_execution_to_num_blocks",
    ),
    (
        generate_aggregate_fn,
        "key aggs data_context _debug_limit_shuffle_execution_to_num_blocks",
    ),
    (transform_pyarrow.concat, "blocks promote_types preserve_order"),
)
#: Attributes of operators: what gives them a value, and their names.
_ATTRIBUTES: Final[tuple[tuple[Any, str], ...]] = (
    (
        ShuffleMapOp.__init__,
        (
            "_num_partitions _partition_fn _block_transformer _map_runtime_env"
            " _shuffle_map_task_num_cpus _peak_memory_multiplier _next_shuffle_map_task_idx"
            " _shuffle_map_tasks _merge_buffer_refs_by_node _partition_bundles_emitted"
            " _partition_bytes _output_queue"
        ),
    ),
    (SortShuffleMapOp.__init__, "_sort_key"),
    (
        ShuffleReduceOp.__init__,
        (
            "_num_partitions _reduce_fn _disallow_block_splitting _reduce_ray_remote_args"
            " _preserve_partition_order _peak_memory_multiplier _emit_empty_partitions"
            " _fused_output_map_transformer _fused_output_map_task_kwargs"
            " _fused_output_map_target_max_block_size_override"
        ),
    ),
    (AllToAllOperator.__init__, "_bulk_fn _num_outputs _sub_progress_bar_names"),
    (
        PhysicalOperator.__init__,
        (
            "_input_dependencies _output_dependencies _wire_output_deps _inputs_complete"
            " _logical_operators _metrics"
        ),
    ),
)


def differences() -> list[str]:
    """Return what is not as it was in the version that this was written for."""
    found = [
        f"{_name(function)} does not use {name}"
        for function, names in _COPIED
        for name in names
        if name not in _names_in(function.__code__)
    ]
    found += [
        f"{_name(function)} takes {' '.join(inspect.signature(function).parameters)}"
        for function, parameters in _PARAMETERS
        if list(inspect.signature(function).parameters) != parameters.split()
    ]
    found += [
        f"{_name(function)} sets no {name}"
        for function, names in _ATTRIBUTES
        for name in names.split()
        if name not in _names_in(function.__code__)
    ]
    return found


def check_parts() -> None:
    """Look whether Ray has all that is used here, as it was when this was tested.

    Raises: EngineUnavailable.
    """
    if found := differences():
        raise EngineUnavailable(
            f"Ray {ray.__version__} is not as cosco.ray knows it: {'; '.join(found)}."
            f" It works with {SUPPORTED['ray'][0]}: pip install 'cosco[ray]'"
        )


def _names_in(code: CodeType) -> set[str]:
    """Return the names that a function uses, and functions in it."""
    inner = [const for const in code.co_consts if isinstance(const, CodeType)]
    return set(code.co_names).union(*map(_names_in, inner))


def _name(function: Any) -> str:
    return f"{function.__module__.rpartition('.')[2]}.{function.__qualname__}"
