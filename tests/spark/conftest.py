"""What tests of the plugin for Spark share: a cluster of Cosco, as long as the session.

They have environments of their own (`make spark`), each with another version of Spark.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cosco import LocalCluster


@pytest.fixture(scope="session")
def services() -> Iterator[LocalCluster]:
    """Two daemons; who kills some has a cluster of its own."""
    with LocalCluster(2, memory="256MiB") as cluster:
        yield cluster
