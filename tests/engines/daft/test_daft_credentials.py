"""As whom a frame of Daft calls: the token makes its exchange, and tasks go without."""

from __future__ import annotations

import daft
from support.metadata_proxy import metadata_proxy

import cosco.daft
from cosco import Connection

TOKEN = "cosco-token-of-a-test"
CAPABILITY = "cosco1.of-a-test"


def test_tasks_show_what_their_handle_carries(metadata: str) -> None:
    with metadata_proxy(metadata, CAPABILITY) as proxy:
        connection = Connection(proxy.address, token=TOKEN)
        numbers = daft.from_pydict({"key": list(range(100))})
        frame = cosco.daft.repartition(numbers, 4, "key", metadata=connection, replicas=1)
        assert sorted(frame.to_pydict()["key"]) == list(range(100))
        for method in ("CreateExchange", "MakeCapability"):
            assert set(proxy.shown[method]) == {TOKEN}, method
        for method in ("OpenAttempt", "Commit"):
            assert set(proxy.shown[method]) == {f"{CAPABILITY}-write"}, method
        assert set(proxy.shown["DescribeExchange"]) == {f"{CAPABILITY}-read"}
        del frame
        cosco.daft.repartitioning.EXCHANGES.end_all()
