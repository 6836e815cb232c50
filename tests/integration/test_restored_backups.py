"""The database of the metadata service is lost, and a backup of it is brought back."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

from support.exchanges import until

from cosco import CoscoExchange, CoscoReader, CoscoWriter, LocalCluster
from cosco.observe import describe_exchange

#: A driver that ends without a word, so that its exchange is open as the database is lost.
DRIVER = """
import os, sys
from cosco import CoscoExchange, CoscoWriter
exchange = CoscoExchange("lost", 2, replicas=1, metadata=sys.argv[1])
with CoscoWriter("lost", 0, metadata=sys.argv[1]) as writer:
    writer.collect(0, b"lost")
os._exit(0)
"""


def test_numbers_of_after_a_backup_are_not_given_again(tmp_path: Path) -> None:
    """Files by these numbers are in stores: rows of two exchanges would be one another's."""
    with LocalCluster(1, memory="16MiB", directory=tmp_path) as cluster:
        metadata = cluster.metadata
        [database] = tmp_path.rglob("metadata.db")
        CoscoExchange("before", 2, replicas=1, metadata=metadata).close()
        backup = tmp_path / "backup.db"
        with closing(sqlite3.connect(database)) as source, closing(sqlite3.connect(backup)) as copy:
            source.backup(copy)
        subprocess.run([sys.executable, "-c", DRIVER, metadata], check=True, timeout=60)
        number = describe_exchange(metadata, "lost").number
        cluster.daemons[0].stop()  # so that its rows are in the store
        cluster.metadata_service.kill()
        for rest in ("-wal", "-shm"):
            Path(f"{database}{rest}").unlink(missing_ok=True)
        shutil.copy(backup, database)
        cluster.metadata_service.restart()
        cluster.daemons[0].restart()
        with CoscoExchange("after", 2, replicas=1, metadata=metadata):
            assert describe_exchange(metadata, "after").number > number
            with CoscoWriter("after", 0, metadata=metadata) as writer:
                writer.collect(0, b"after")
            with CoscoReader("after", [0], 0, metadata=metadata) as reader:
                assert list(reader) == [b"after"]
        # What was made since the backup is nobody's any more, and goes.
        until(lambda: not list(tmp_path.rglob(f"*/{number}")), 60, "the end of its files")
