"""One store over several directories, of which some err, hang or are full."""

from __future__ import annotations

from pathlib import Path

import pytest

from cosco.dfs.directories.several_stores import SeveralStores, open_directories
from cosco.dfs.testing import MakeStore, StoreConformance


class TestDirectories(StoreConformance):
    @pytest.fixture(params=[1, 3])
    def make_store(self, request: pytest.FixtureRequest, tmp_path: Path) -> MakeStore:
        urls = [(tmp_path / f"d{n}").as_uri() for n in range(request.param)]

        def make(observer: object) -> SeveralStores:
            return open_directories(urls, threads=3, timeout_s=10, observer=observer)

        return make
