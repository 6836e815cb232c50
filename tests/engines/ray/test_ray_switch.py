"""`enable` and `disable`: what they change, what they give back, and where it reaches."""

from __future__ import annotations

import functools
import operator
import subprocess
import sys
from typing import Any

import pytest
import ray
import ray.data
from ray.data._internal.logical.optimizers import get_physical_ruleset
from ray.data.context import ShuffleStrategy
from support.ray_datasets import ExchangesMade, none_is_left

import cosco.ray
from cosco import EngineUnavailable, InvalidArgument
from cosco.ray import private_parts_of_ray as parts

DataContext = ray.data.DataContext

ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])


def settings(context: DataContext) -> dict[str, Any]:
    """All that a context says, as text."""
    return {name: repr(value) for name, value in vars(context).items()}


def dataset() -> ray.data.Dataset:
    return ray.data.range(100, override_num_blocks=2).repartition(2, keys=["id"])


def rows(dataset: ray.data.Dataset) -> int:
    """Run it: to count may need no shuffle."""
    return len(dataset.take_all())


def test_disable_gives_back_what_was_there(context: DataContext) -> None:
    context.use_disk_based_hash_shuffle = True
    context.shuffle_strategy = ShuffleStrategy.HASH_SHUFFLE
    before, rules = settings(context), list(get_physical_ruleset())
    cosco.ray.enable("somewhere:7070")
    assert settings(context) != before
    assert context.shuffle_strategy == ShuffleStrategy.SHUFFLE_V2
    cosco.ray.disable()
    assert settings(context) == before
    assert list(get_physical_ruleset()) == rules
    cosco.ray.disable()
    assert settings(context) == before


def test_enable_twice_and_after_disable(context: DataContext) -> None:
    before = settings(context)
    cosco.ray.enable("first:7070", replicas=1)
    once = settings(context)
    cosco.ray.enable("second:7070", replicas=2)
    assert settings(context) != once
    cosco.ray.enable("first:7070", replicas=1)
    assert settings(context) == once
    cosco.ray.disable()
    cosco.ray.enable("first:7070", replicas=1)
    assert settings(context) == once
    cosco.ray.disable()
    assert settings(context) == before


def test_a_copy_is_switched_off_by_itself(context: DataContext) -> None:
    before = settings(context)
    cosco.ray.enable("somewhere:7070")
    on = settings(context)
    copy = context.copy()
    with DataContext.current(copy):
        cosco.ray.disable()
    assert settings(copy) == before
    assert settings(context) == on


def test_arguments_are_checked(context: DataContext) -> None:
    before = settings(context)
    for replicas in (0, -1, 3, True, "2", None):
        with pytest.raises(
            InvalidArgument, match=r"replicas is .*, it must be (1 to 2|an integer)"
        ):
            cosco.ray.enable("somewhere:7070", replicas=replicas)  # type: ignore[arg-type]
    for address in ("no port", "somewhere:99999", 7070):
        with pytest.raises(InvalidArgument, match="metadata"):
            cosco.ray.enable(address)  # type: ignore[arg-type]
    assert settings(context) == before


def test_without_an_address_the_environment_counts(
    metadata: str, exchanges_made: ExchangesMade, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COSCO_METADATA", metadata)
    cosco.ray.enable()
    monkeypatch.delenv("COSCO_METADATA")
    assert rows(dataset()) == 100
    assert exchanges_made() == 1


def test_a_dataset_keeps_the_settings_it_was_made_with(
    metadata: str, exchanges_made: ExchangesMade
) -> None:
    """As it does all settings of a DataContext."""
    earlier = dataset()
    cosco.ray.enable(metadata)
    through = dataset()
    cosco.ray.disable()
    assert rows(earlier) == rows(dataset()) == 100
    assert exchanges_made() == 0
    assert rows(through) == 100
    assert exchanges_made() == 1


def test_streaming_split(metadata: str, exchanges_made: ExchangesMade) -> None:
    """Its dataset is run by an actor, in a process where nobody called `enable`."""
    cosco.ray.enable(metadata)
    splits = dataset().streaming_split(2, equal=True)

    @ray.remote(num_cpus=0)
    def consume(split: Any) -> list[int]:
        return [int(i) for batch in split.iter_batches() for i in batch["id"]]

    for _ in range(2):  # epochs
        found = ray.get([consume.remote(split) for split in splits])
        assert sorted(functools.reduce(operator.iadd, found, [])) == list(range(100))
        assert exchanges_made() == 1
    none_is_left(metadata)


def test_datasets_that_tasks_run(metadata: str, exchanges_made: ExchangesMade) -> None:
    cosco.ray.enable(metadata)

    @ray.remote(num_cpus=0)
    def run(given: ray.data.Dataset) -> int:
        return rows(given)

    assert ray.get(run.remote(dataset())) == 100
    assert exchanges_made() == 1
    none_is_left(metadata)


def test_datasets_that_are_made_in_a_task_of_a_dataset(
    metadata: str, exchanges_made: ExchangesMade
) -> None:
    cosco.ray.enable(metadata)

    def inside(batch: dict[str, Any]) -> dict[str, Any]:
        DataContext.get_current().print_on_execution_start = False
        return {"n": [rows(dataset())] * len(batch["id"])}

    outer = ray.data.range(1).map_batches(inside, num_cpus=0)
    assert outer.take_all() == [{"n": 100}]
    assert exchanges_made() == 1


SETUP_HOOK = """
import ray, ray.data, sys
everywhere = {
    "worker_process_setup_hook": "cosco.ray.enable",
    "env_vars": {"COSCO_METADATA": sys.argv[1]},
}
ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, runtime_env=everywhere)

@ray.remote(num_cpus=0)
def make():
    return ray.data.range(100).repartition(2, keys=["id"]).take_all()

print("rows", len(ray.get(make.remote())))
"""


def test_every_process_of_a_job(metadata: str, exchanges_made: ExchangesMade) -> None:
    """By Ray's setup hook, for tasks that make datasets of their own."""
    ran = subprocess.run(
        [sys.executable, "-c", SETUP_HOOK, metadata],
        capture_output=True,
        text=True,
        timeout=110,
        check=True,
    )
    assert "rows 100" in ran.stdout
    assert exchanges_made() == 1


def test_another_ray_is_refused(context: DataContext, monkeypatch: pytest.MonkeyPatch) -> None:
    before = settings(context)

    def other(self: Any, partition_id: int) -> None: ...

    assert not parts.differences()
    monkeypatch.setattr(
        parts, "_PARAMETERS", ((other, "self partition_id bundles"), *parts._PARAMETERS)
    )
    with pytest.raises(EngineUnavailable, match=rf"Ray {ray.__version__} .* takes self partition_"):
        cosco.ray.enable("somewhere:7070")
    assert settings(context) == before


def test_a_task_that_plans_nothing_imports_no_client(context: DataContext) -> None:
    """Each task of a dataset has its context, and most of them shuffle nothing."""
    cosco.ray.enable("somewhere:7070")
    carried = ray.cloudpickle.dumps(context)
    code = f"""if True:
        import pickle, sys
        pickle.loads({carried!r})
        clients = ("cosco.client.driver", "cosco.client.read", "cosco.client.write")
        print([name for name in sys.modules if name.startswith(clients)])
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
