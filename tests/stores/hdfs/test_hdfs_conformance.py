"""What every store promises, on a real HDFS."""

from __future__ import annotations

import pytest
from stores.hdfs.minicluster import MiniCluster

from cosco.dfs import open_store
from cosco.dfs.testing import MakeStore, StoreConformance


class TestHdfs(StoreConformance):
    @pytest.fixture
    def make_store(self, hdfs: MiniCluster) -> MakeStore:
        url = f"{hdfs.address}{hdfs.new_folder()}/a store?replication=1"
        return lambda observer: open_store(url, threads=3, observer=observer)
