"""What `enable` and `disable` change, and what they give back."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import dask
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
from dask.bag import core as bag_core
from dask.dataframe.dask_expr import _collection, _merge, _shuffle
from distributed import Client, Future, LocalCluster
from support.dask_jobs import at_the_gate, nothing_left
from support.exchanges import until

import cosco.dask
from cosco import EngineUnavailable, InvalidArgument
from cosco.dask import private_parts_of_dask
from cosco.dask.dask_expression import CoscoShuffle
from cosco.dask.shuffle_plugin import NAME
from cosco.dask.switch import check_same_versions

CONFIG = "dataframe.shuffle.method"
FRAME = pd.DataFrame({"key": np.arange(40) % 7, "x": np.arange(40)})
ASKED = {
    "cosco": {"dask": "2026.8.0", "distributed": "2026.8.0", "cosco": "1.0"},
}


def parts() -> list[object]:
    """All of Dask that is patched."""
    return [
        _shuffle.Shuffle.__dict__["_lower"],
        _merge.Merge.__dict__["is_broadcast_join"],
        bag_core.get_default_shuffle_method,
        _collection._get_shuffle_preferring_order,
        dask.config.get(CONFIG, None),
    ]


@pytest.fixture(autouse=True)
def all_given_back() -> Iterator[None]:
    before = parts()
    yield
    assert parts() == before


def is_ours(method: str | None = None) -> bool:
    """Whether a shuffle that is made now goes through Cosco."""
    shuffled = dd.from_pandas(FRAME, npartitions=3).shuffle("key", shuffle_method=method)
    return bool(list(shuffled.optimize(fuse=False).expr.find_operations(CoscoShuffle)))


def has_plugin(client: Client) -> bool:
    return client.run_on_scheduler(lambda dask_scheduler: NAME in dask_scheduler.plugins)


def test_one_line_switches_and_another_one_back(bare_client: Client, metadata: str) -> None:
    assert not is_ours()
    cosco.dask.enable(bare_client, metadata)
    assert is_ours()
    assert has_plugin(bare_client)
    with dask.config.set({CONFIG: "p2p"}):
        assert not is_ours()
    assert not is_ours("tasks")
    cosco.dask.disable(bare_client)
    assert not is_ours()
    assert not has_plugin(bare_client)
    cosco.dask.disable(bare_client)


def test_without_default_one_operation_chooses_it(bare_client: Client, metadata: str) -> None:
    cosco.dask.enable(bare_client, metadata, default=False)
    assert not is_ours()
    assert is_ours("cosco")
    got = dd.from_pandas(FRAME, npartitions=3).shuffle("key", shuffle_method="cosco").compute()
    pd.testing.assert_frame_equal(got.sort_index(), FRAME)
    cosco.dask.disable(bare_client)
    with pytest.raises(ValueError, match="cosco not supported"):
        is_ours("cosco")


def test_a_client_that_closes_gives_back_what_was_there(
    workers: LocalCluster, metadata: str
) -> None:
    with Client(workers) as client:
        cosco.dask.enable(client, metadata)
        dd.from_pandas(FRAME, npartitions=3).shuffle("key").compute()
    assert dask.config.get(CONFIG, None) is None
    nothing_left(metadata)


def test_enabled_twice_is_enabled_once(bare_client: Client, metadata: str) -> None:
    cosco.dask.enable(bare_client, metadata)
    cosco.dask.enable(bare_client, metadata, replicas=1, default=False)
    assert not is_ours()
    assert is_ours("cosco")
    cosco.dask.enable(bare_client, metadata)
    assert is_ours()
    cosco.dask.disable(bare_client)


def submitted_and_disabled(client: Client, metadata: str, folder: Path) -> Future:
    """A shuffle whose client is switched back before its first transfer; its source is held."""
    source = dd.from_map(
        at_the_gate, range(3), folder=str(folder), free=0, meta={"key": "i8", "x": "i8"}
    )
    cosco.dask.enable(client, metadata)
    future = client.compute(source.shuffle("key", npartitions=2))
    until(lambda: bool(list(folder.iterdir())), 20.0, "the first task")
    cosco.dask.disable(client)
    return future


def test_what_was_submitted_before_is_computed(
    bare_client: Client, metadata: str, tmp_path: Path
) -> None:
    """Also where the first task of the shuffle runs long after its client was switched back."""
    future = submitted_and_disabled(bare_client, metadata, tmp_path)
    assert has_plugin(bare_client)
    (tmp_path / "gate").touch()
    assert len(future.result(timeout=60)) == 300
    future.release()
    until(lambda: not has_plugin(bare_client), 20.0, "the end of the plugin")
    nothing_left(metadata)


def test_a_graph_that_is_cancelled_before_its_shuffle_begins_keeps_no_plugin(
    bare_client: Client, metadata: str, tmp_path: Path
) -> None:
    future = submitted_and_disabled(bare_client, metadata, tmp_path)
    future.cancel()
    until(lambda: not has_plugin(bare_client), 20.0, "the end of the plugin")
    (tmp_path / "gate").touch()


def test_a_scheduler_without_the_plugin_is_named(bare_client: Client, metadata: str) -> None:
    cosco.dask.enable(bare_client, metadata)
    shuffled = dd.from_pandas(FRAME, npartitions=3).shuffle("key").optimize()
    cosco.dask.disable(bare_client)
    with pytest.raises(EngineUnavailable, match="does not shuffle through Cosco any more"):
        bare_client.compute(shuffled).result(timeout=60)


def test_a_default_that_was_set_meanwhile_is_left_alone(bare_client: Client, metadata: str) -> None:
    with dask.config.set({CONFIG: "tasks"}):
        cosco.dask.enable(bare_client, metadata)
        assert is_ours()
        cosco.dask.disable(bare_client)
        assert dask.config.get(CONFIG) == "tasks"
        cosco.dask.enable(bare_client, metadata)
        dask.config.set({CONFIG: "p2p"})
        cosco.dask.disable(bare_client)
        assert dask.config.get(CONFIG) == "p2p"


def test_two_clients_of_one_process_are_switched_each_by_itself(
    bare_client: Client, metadata: str
) -> None:
    cosco.dask.enable(bare_client, metadata)
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=":0") as others,
        Client(others) as other,
    ):
        assert not is_ours(), "the client that computes now was not enabled"
        got = dd.from_pandas(FRAME, npartitions=3).shuffle("key").compute()
        pd.testing.assert_frame_equal(got.sort_index(), FRAME)
        cosco.dask.enable(other, metadata, default=False)
        assert is_ours(), "by the default of the first"
        got = dd.from_pandas(FRAME, npartitions=3).shuffle("key").compute()
        pd.testing.assert_frame_equal(got.sort_index(), FRAME)
    assert is_ours()
    cosco.dask.disable(bare_client)


def test_two_clients_of_one_scheduler_share_its_plugin(
    workers: LocalCluster, bare_client: Client, metadata: str
) -> None:
    cosco.dask.enable(bare_client, metadata)
    with Client(workers, set_as_default=False) as other:
        cosco.dask.enable(other, metadata)
        cosco.dask.disable(bare_client)
        assert has_plugin(other)
    assert not has_plugin(bare_client)


def test_without_a_client_dask_does_as_it_would(bare_client: Client, metadata: str) -> None:
    cosco.dask.enable(bare_client, metadata)
    with dask.config.set(scheduler="threads"):
        private_parts_of_dask.current_client()
    code = """if True:
        import dask, dask.dataframe as dd, pandas as pd
        import cosco.dask
        frame = pd.DataFrame({"key": [1, 2, 1, 2] * 5, "x": range(20)})
        whole = dd.from_pandas(frame, npartitions=4)
        assert whole.shuffle("key").compute().sort_index().equals(frame)
        first = whole.drop_duplicates("key", split_out=2).compute()
        assert sorted(first.x) == [0, 1], first
    """
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(sys.path),
        "DASK_DATAFRAME__SHUFFLE__METHOD": "cosco",
    }
    subprocess.run([sys.executable, "-c", code], check=True, timeout=100, env=environment)
    cosco.dask.disable(bare_client)


@pytest.mark.parametrize("replicas", [0, -1, 1.5, True, "2"])
def test_replicas_that_are_no_count_are_refused(
    bare_client: Client, metadata: str, replicas: object
) -> None:
    with pytest.raises(InvalidArgument, match="replicas"):
        cosco.dask.enable(bare_client, metadata, replicas=replicas)
    assert not is_ours()


def test_other_versions_on_a_worker_are_refused_by_name() -> None:
    mine = {"packages": {"cosco": "1.0", "dask": "2026.8.0", "distributed": "2026.8.0"}}
    older = {"packages": mine["packages"] | {"cosco": None, "dask": "2026.7.1"}}
    found = {"client": mine, "scheduler": mine, "workers": {"tcp://10.0.0.1:1": mine}}
    check_same_versions(found)
    found["workers"]["tcp://10.0.0.2:1"] = older
    with pytest.raises(EngineUnavailable) as raised:
        check_same_versions(found)
    for text in ("tcp://10.0.0.2:1", "dask 2026.7.1", "cosco not at all", "2026.8.0"):
        assert text in str(raised.value)


@pytest.mark.parametrize("name", ["_lower", "is_broadcast_join"])
def test_parts_of_dask_that_changed_are_refused_by_name(
    bare_client: Client, metadata: str, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    owner = _shuffle.Shuffle if name == "_lower" else _merge.Merge
    with monkeypatch.context() as patch:
        if name == "_lower":
            patch.setattr(owner, name, lambda self, other: None)
        else:
            patch.delattr(owner, name)
        with pytest.raises(EngineUnavailable, match=rf"{owner.__name__}\.{name} of dask 2026"):
            cosco.dask.enable(bare_client, metadata)
    assert not is_ours()
