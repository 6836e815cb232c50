"""A metadata state whose database is a real one."""

from __future__ import annotations

from support.metadata_cluster import Cluster

from cosco.metadata.state.records.changes import Change
from cosco.metadata.store.sql import SqlStore


class StoredCluster(Cluster):
    """Daemons, and a database that is opened again at a restart."""

    def __init__(self, path: str, *daemons: int) -> None:
        self.path = path
        self.store = SqlStore(path)
        super().__init__(*daemons)

    def persist(self) -> list[Change]:
        changes = self.state.pop_changes()
        self.store.write(changes)
        return changes

    def restart(self, after_s: float = 0.0) -> None:
        """Go on with what was persisted, and nothing else."""
        self.now += after_s
        self.store.close()
        self.store = SqlStore(self.path)
        self.state = self._start(self.store.load())

    def used(self, shuffle_id: str) -> bool:
        self.persist()
        return not self.state.knows(shuffle_id) and self.store.was_used(shuffle_id)
