"""What every store promises, on those that need no server; tests/stores has the others."""

from __future__ import annotations

from pathlib import Path

import pytest

from cosco.dfs import LocalStore, MemoryStore
from cosco.dfs.testing import MakeStore, StoreConformance


class TestMemoryStore(StoreConformance):
    """A store in memory: each is a place of its own."""

    @pytest.fixture
    def make_store(self) -> MakeStore:
        return lambda observer: MemoryStore(observer=observer)


class TestLocalStore(StoreConformance):
    """A directory that is made, with syncs."""

    fsync = True

    @pytest.fixture
    def make_store(self, tmp_path: Path) -> MakeStore:
        return lambda observer: LocalStore(
            "file://", tmp_path / "made" / "store", fsync=self.fsync, threads=2, observer=observer
        )


class TestLocalStoreWithoutSyncs(TestLocalStore):
    """The same without."""

    fsync = False
