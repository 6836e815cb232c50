"""As whom a dataset calls: whoever runs it has the token, and tasks go without."""

from __future__ import annotations

import ray.data
from support.metadata_proxy import metadata_proxy
from support.ray_datasets import none_is_left

import cosco.ray
from cosco import Connection

TOKEN = "cosco-token-of-a-test"
CAPABILITY = "cosco1.of-a-test"


def test_tasks_show_what_their_handle_carries(metadata: str) -> None:
    with metadata_proxy(metadata, CAPABILITY) as proxy:
        cosco.ray.enable(Connection(proxy.address, token=TOKEN), replicas=1)
        shuffled = ray.data.range(100, override_num_blocks=3).repartition(4, keys=["id"])
        assert sorted(row["id"] for row in shuffled.take_all()) == list(range(100))
        none_is_left(metadata)
    for method in ("CreateExchange", "MakeCapability"):
        assert set(proxy.shown[method]) == {TOKEN}, method
    for method in ("OpenAttempt", "Commit"):
        assert set(proxy.shown[method]) == {f"{CAPABILITY}-write"}, method
    assert set(proxy.shown["DescribeExchange"]) == {f"{CAPABILITY}-read"}
