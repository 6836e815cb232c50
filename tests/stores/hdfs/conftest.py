"""What the tests on HDFS share: one HDFS for all of them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from stores.hdfs.minicluster import MiniCluster, why_missing


@pytest.fixture(scope="session")
def hdfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MiniCluster]:
    """Give a HDFS with two datanodes, both of which run; a test leaves it as it was."""
    if reason := why_missing():
        pytest.skip(reason)
    cluster = MiniCluster(tmp_path_factory.mktemp("hdfs") / "cluster")
    yield cluster
    cluster.stop()
