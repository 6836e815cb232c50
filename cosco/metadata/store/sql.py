"""The database of the metadata service: SQLite in WAL mode, durable at every commit.

Tables, keys first. Integers from 2^63 on are kept less 2^64, as SQL has signed ones alone; lists
as JSON, sums and bitmaps as blobs. Writes per commit of a mapper are one row of `mappers`
and `counters`, and one of `sums` per range it wrote to and batch.

    meta         key → value: schema_version, cluster_id, attempt_secret in hexadecimal digits
    capability_keys  id → secret, second of the Unix clock when it was made, the last exchange
                 that has a capability by it, null while it is in use
    daemons      incarnation → address, host, store, memory, free, metrics, live, draining
    forgotten_stores  store that is gone for good, and nobody waits for
    exchanges    number → what was asked for, owner, whether it has a callback, generation,
                 row kind, schema, whether readers may read from stores, tenant, second of the
                 Unix clock when it was made, 0 if nobody knows, the span that made it
    counters     number → how many attempts were opened, version, highest loss id, how many of
                 these attempts have their count for an id
    ranges       number, range → first partition, count
    assignments  number, range, epoch → build, primary, its store, replicas, sealed, whether a
                 commit that counts has rows in it
    sums         number, range → rows, raw, stored, digests (4 × count uint64), writers
    mappers      number, mapper → committed attempt, null while there is none, the generation
                 it was committed in, the digest of what its commit said, whether it, or one that
                 is counted again, has said something else later
    builds       number, range → build; of rows that are lost, the rows and raw bytes that
                 there were and that were sent again (each 2 × count uint64)
    resent       number, range, mapper → the attempt that sent a mapper's rows again, the digest
                 of what its commit said
    losses       number, loss → ranges, null for a generation; mappers that are called back,
                 state, reason, why it failed
    pending      number, range → mappers that must run again for it
    failures     number, range → the error it has ended in for good, reason
    tries        number, mapper → attempts of a called-back mapper so far, the latest one
    dropped_builds  number, range → the epoch before which all are gone, with old builds; the
                 sequence of the order that said so
    closing      number → what is shown of it, its daemons, who is waited for, whether it was
                 of a group
    history      number → what is kept of an exchange that has ended, for a while, as JSON
    closed       number → the id, which stays used; none of groups' exchanges
    open_groups  group → what was asked for, owner, whether it has a callback, mappers, tenant,
                 the span that made it
    blocks       group, index of the first exchange → its number, how many, where they began
    applications  number → label, owner, lease, tenant
    application_exchanges  application, number → nothing: the exchange is its own
    numbers_given  what they number → the last one; none is given twice
    used_groups  group, open or closed → how many exchanges it has had, and so which ids are used;
                 the last one's number
"""

from __future__ import annotations

import fcntl
import os
import secrets
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing
from itertools import groupby
from pathlib import Path
from typing import IO, Any, Final, NamedTuple

from cosco.errors import InvalidArgument
from cosco.metadata.state.records.changes import Change, Row, Stored
from cosco.protocol.group_records import group_of

#: Another program that looks at the file, and locks it, is waited for; then the caller is told.
_LOCKED_S: Final = 1.0
SCHEMA_VERSION: Final = "9"


class _Table(NamedTuple):
    """Names of columns, each followed by its type."""

    key: tuple[str, ...]
    columns: tuple[str, ...]

    @property
    def key_names(self) -> list[str]:
        return [column.split()[0] for column in self.key]

    def put(self, name: str) -> str:
        """Return the statement that writes a row.

        One that is there is changed in its place: to replace it would move it to another page.
        """
        marks = ", ".join("?" * len(self.key + self.columns))
        columns = (column.split()[0] for column in self.columns)
        updates = ", ".join(f"{column} = excluded.{column}" for column in columns)
        return (
            f"INSERT INTO {name} VALUES ({marks}) "  # noqa: S608
            f"ON CONFLICT ({', '.join(self.key_names)}) DO "
            + (f"UPDATE SET {updates}" if updates else "NOTHING")
        )


_NUMBER: Final = "number INTEGER"
_RANGE: Final = "range_index INTEGER"
_GROUP: Final = "group_id TEXT"
_TENANT: Final = "tenant TEXT DEFAULT ''"
_TRACE: Final = "trace TEXT DEFAULT ''"
_TABLES: Final = {
    "daemons": _Table(
        ("incarnation INTEGER",),
        ("address TEXT", "host_id TEXT", "store_id TEXT", "memory_bytes INTEGER",
         "free_bytes INTEGER", "metrics_address TEXT", "live INTEGER", "draining INTEGER"),
    ),
    "forgotten_stores": _Table(("store_id TEXT",), ()),
    "exchanges": _Table(
        (_NUMBER,),
        ("shuffle_id TEXT", "partitions INTEGER", "replicas INTEGER", "min_replicas INTEGER",
         "codec TEXT", "deterministic INTEGER", "lease_s REAL", "created_schema BLOB",
         "mappers INTEGER", "owner BLOB", "callback INTEGER", "generation INTEGER",
         "kind INTEGER", "schema BLOB", "direct_reads INTEGER DEFAULT 0", _TENANT,
         "created_s REAL DEFAULT 0", _TRACE),
    ),
    "history": _Table((_NUMBER,), ("kept TEXT",)),
    "capability_keys": _Table(
        ("id INTEGER",), ("secret BLOB", "made_s REAL", "last_number INTEGER")
    ),
    "counters": _Table(
        (_NUMBER,),
        ("attempts INTEGER", "version INTEGER", "losses INTEGER", "plain INTEGER DEFAULT 0"),
    ),
    "ranges": _Table((_NUMBER, _RANGE), ("first INTEGER", "count INTEGER")),
    "assignments": _Table(
        (_NUMBER, _RANGE, "epoch INTEGER"),
        ("build INTEGER", "incarnation INTEGER", "address TEXT", "store_id TEXT",
         "replicas TEXT", "sealed INTEGER", "written INTEGER"),
    ),
    "sums": _Table((_NUMBER, _RANGE), ("sums BLOB", "writers BLOB")),
    "mappers": _Table(
        (_NUMBER, "mapper INTEGER"),
        ("attempt INTEGER", "generation INTEGER", "digest BLOB", "contradicted INTEGER"),
    ),
    "builds": _Table(
        (_NUMBER, _RANGE), ("build INTEGER", "expected BLOB", "regained BLOB")
    ),
    "resent": _Table((_NUMBER, _RANGE, "mapper INTEGER"), ("attempt INTEGER", "digest BLOB")),
    "losses": _Table(
        (_NUMBER, "loss INTEGER"),
        ("ranges BLOB", "mappers BLOB", "state INTEGER", "reason TEXT", "failure TEXT"),
    ),
    "pending": _Table((_NUMBER, _RANGE), ("mappers BLOB",)),
    "failures": _Table((_NUMBER, _RANGE), ("error TEXT", "reason TEXT")),
    "tries": _Table((_NUMBER, "mapper INTEGER"), ("tries INTEGER", "attempt INTEGER")),
    "dropped_builds": _Table((_NUMBER, _RANGE), ("first_kept INTEGER", "sequence INTEGER")),
    "closing": _Table(
        (_NUMBER,),
        ("shuffle_id TEXT", "partitions INTEGER", "mappers_committed INTEGER",
         "rows INTEGER", "holders TEXT", "pending TEXT", "of_group INTEGER"),
    ),
    "closed": _Table((_NUMBER,), ("shuffle_id TEXT",)),
    "open_groups": _Table(
        (_GROUP,),
        ("partitions INTEGER", "replicas INTEGER", "min_replicas INTEGER", "codec TEXT",
         "deterministic INTEGER", "lease_s REAL", "schema BLOB",
         "spec_mappers INTEGER", "owner BLOB", "callback INTEGER", "mappers INTEGER", _TENANT,
         _TRACE),
    ),
    "blocks": _Table(
        (_GROUP, "first INTEGER"), ("number INTEGER", "size INTEGER", "placed TEXT")
    ),
    "applications": _Table((_NUMBER,), ("label TEXT", "owner BLOB", "lease_s REAL", _TENANT)),
    "application_exchanges": _Table(("application INTEGER", _NUMBER), ()),
    "numbers_given": _Table(("what TEXT",), ("last INTEGER",)),
    "used_groups": _Table((_GROUP,), ("exchanges INTEGER", "last_number INTEGER")),
}  # fmt: skip
_PUTS: Final = {name: table.put(name) for name, table in _TABLES.items()}
#: Not loaded: what is closed is looked up one by one.
_UNLOADED: Final = ("closed", "used_groups")
_NAMED: Final = ("exchanges", "closing", "closed")


def _creation(name: str) -> str:
    """Return the statement that makes a table."""
    table = _TABLES[name]
    columns = ", ".join(table.key + table.columns)
    return f"CREATE TABLE {name} ({columns}, PRIMARY KEY ({', '.join(table.key_names)}))"


#: What makes the schema of the version after it of each, for databases of before.
_UPGRADES: Final = {
    "5": (
        "ALTER TABLE exchanges ADD COLUMN direct_reads INTEGER DEFAULT 0",
        _creation("dropped_builds"),
    ),
    "6": (
        *(
            f"ALTER TABLE {table} ADD COLUMN {_TENANT}"
            for table in ("exchanges", "open_groups", "applications")
        ),
        "ALTER TABLE counters ADD COLUMN plain INTEGER DEFAULT 0",
        "UPDATE counters SET plain = attempts",
        _creation("capability_keys"),
        "INSERT INTO meta VALUES ('attempt_secret', lower(hex(randomblob(32))))",
    ),
    "7": (
        "ALTER TABLE exchanges ADD COLUMN created_s REAL DEFAULT 0",
        _creation("history"),
    ),
    "8": tuple(
        f"ALTER TABLE {table} ADD COLUMN {_TRACE}" for table in ("exchanges", "open_groups")
    ),
}


class SqlStore:
    """One open database file, which no other process can open meanwhile.

    For one thread: the one that made it.
    """

    def __init__(self, path: str) -> None:
        """Open or create; raises InvalidArgument when that is not possible."""
        self._lock = _lock(path)
        try:
            _keep_from_others(path)
            self._connection = sqlite3.connect(
                Path(path).absolute(), timeout=_LOCKED_S, isolation_level=None
            )
            try:
                meta = self._prepare(path)
                self._cluster_id = meta["cluster_id"]
                self._attempt_secret = bytes.fromhex(meta["attempt_secret"])
            except BaseException:
                self._connection.close()
                raise
        except sqlite3.Error as error:
            self._lock.close()
            raise InvalidArgument(f"the store {path} cannot be used: {error}") from error
        except BaseException:
            self._lock.close()
            raise

    def load(self) -> Stored:
        """Return everything but what is closed."""
        tables = {}
        for name, table in _TABLES.items():
            if name not in _UNLOADED:
                query = f"SELECT * FROM {name} ORDER BY {', '.join(table.key_names)}"  # noqa: S608
                tables[name] = [tuple(map(_unsigned, row)) for row in self._rows(query)]
        highest = " UNION ALL ".join(f"SELECT max(number) n FROM {table}" for table in _NAMED)  # noqa: S608
        highest += " UNION ALL SELECT max(last_number) FROM used_groups"
        [(number,)] = self._rows(f"SELECT ifnull(max(n), 0) FROM ({highest})")  # noqa: S608
        return Stored(self._cluster_id, number + 1, tables, self._attempt_secret)

    def write(self, changes: Iterable[Change]) -> None:
        """Apply the changes in one transaction that is durable on return.

        Raises sqlite3.Error, and then nothing is applied.
        """
        if self._connection.in_transaction:  # the last one could not be taken back either
            self._connection.execute("ROLLBACK")
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            # Changes come by table.
            for (table, deleted), group in groupby(changes, _deleted_columns):
                if deleted == 1:
                    [name, *_] = _TABLES[table].key_names
                    self._connection.executemany(
                        f"DELETE FROM {table} WHERE {name} BETWEEN ? AND ?",  # noqa: S608
                        _runs(_signed(change.key[0]) for change in group),
                    )
                elif deleted:
                    names = _TABLES[table].key_names[:deleted]
                    where = " AND ".join(f"{name} = ?" for name in names)
                    self._connection.executemany(
                        f"DELETE FROM {table} WHERE {where}",  # noqa: S608
                        (tuple(map(_signed, key)) for _, key, _ in group),
                    )
                else:
                    rows = (
                        tuple(map(_signed, key + row)) for _, key, row in group if row is not None
                    )
                    self._connection.executemany(_PUTS[table], rows)
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise

    def was_used(self, shuffle_id: str) -> bool:
        """Whether an exchange has, or ever had, this id."""
        if self.find_number(shuffle_id) is not None:
            return True
        member = group_of(shuffle_id)
        return member is not None and member[1] < self._group_size(member[0])

    def was_group(self, group_id: str) -> bool:
        """Whether a group has, or ever had, this id."""
        return self._group_size(group_id) > 0

    def used_in_group(self, group_id: str) -> str | None:
        """Return an id ever used that such a group would take for its own."""
        found = " UNION ALL ".join(
            # The digits are the characters from "0" to before ":".
            f"SELECT shuffle_id FROM {table} WHERE shuffle_id >= :first AND shuffle_id < :end"  # noqa: S608
            for table in _NAMED
        )
        rows = self._connection.execute(found, {"first": f"{group_id}/0", "end": f"{group_id}/:"})
        ids: Iterator[str] = (shuffle_id for (shuffle_id,) in rows)
        return next((shuffle_id for shuffle_id in ids if group_of(shuffle_id)), None)

    def _group_size(self, group_id: str) -> int:
        rows = self._rows("SELECT exchanges FROM used_groups WHERE group_id = ?", (group_id,))
        return int(rows[0][0]) if rows else 0

    def find_number(self, shuffle_id: str) -> int | None:
        """Return the number of the exchange that has, or ever had, this id.

        One look at all tables, as an exchange moves between them in one transaction.
        """
        found = " UNION ALL ".join(
            f"SELECT number FROM {table} WHERE shuffle_id = :id"  # noqa: S608
            for table in _NAMED
        )
        rows = self._rows(f"{found} LIMIT 1", {"id": shuffle_id})
        return int(rows[0][0]) if rows else None

    def close(self) -> None:
        """Close the file and let other processes have it."""
        self._connection.close()
        self._lock.close()

    def _rows(self, query: str, arguments: Row | dict[str, str] = ()) -> list[Row]:
        return self._connection.execute(query, arguments).fetchall()

    def _prepare(self, path: str) -> dict[str, str]:
        """Check the schema, or create it.

        Returns: what `meta` says.
        """
        tables = {name for (name,) in self._rows("SELECT name FROM sqlite_master")}
        if not tables:
            self._create()
        elif "meta" not in tables:
            raise InvalidArgument(
                f"the store {path} is the database of another program; name another file"
            )
        meta = self._meta()
        if (version := meta.get("schema_version")) in _UPGRADES:
            _back_up(self._connection, Path(f"{path}.schema-{version}"))
            self._upgrade(str(version))
        elif version != SCHEMA_VERSION:
            raise InvalidArgument(
                f"the store {path} has schema version {version}, this "
                f"cosco-metadata knows {SCHEMA_VERSION}; run the version that wrote it until its "
                "exchanges are closed, then this one with a new file"
            )
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = FULL")
        return self._meta()

    def _meta(self) -> dict[str, str]:
        return {str(key): str(value) for key, value in self._rows("SELECT key, value FROM meta")}

    def _upgrade(self, version: str) -> None:
        """Change the tables of an older version to those of the present one, all or nothing."""
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            while version in _UPGRADES:
                for statement in _UPGRADES[version]:
                    self._connection.execute(statement)
                version = str(int(version) + 1)
            self._connection.execute(
                "UPDATE meta SET value = ? WHERE key = 'schema_version'", (version,)
            )
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise

    def _create(self) -> None:
        self._connection.execute("BEGIN IMMEDIATE")
        self._connection.execute("CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT)")
        for name in _TABLES:
            self._connection.execute(_creation(name))
        for name in _NAMED:
            self._connection.execute(f"CREATE INDEX {name}_by_id ON {name} (shuffle_id)")
        self._connection.executemany(
            "INSERT INTO meta VALUES (?, ?)",
            [
                ("schema_version", SCHEMA_VERSION),
                ("cluster_id", secrets.token_hex(8)),
                ("attempt_secret", secrets.token_hex(32)),
            ],
        )
        self._connection.execute("COMMIT")


def _back_up(connection: sqlite3.Connection, path: Path) -> None:
    """Keep what a database has in a file of its own, for its owner alone, whole or not at all.

    Raises sqlite3.Error, also if the file cannot be written.
    """
    part = path.with_name(f"{path.name}.part")
    try:
        part.unlink(missing_ok=True)
        os.close(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        with closing(sqlite3.connect(part)) as copy:
            connection.backup(copy)
        part.replace(path)
    except OSError as error:
        raise sqlite3.OperationalError(
            f"it is of an older version, and cannot be kept as {path} before that changes: "
            f"{error.strerror}"
        ) from error


def _deleted_columns(change: Change) -> tuple[str, int]:
    """Return its table, and how many columns the key has that it deletes; 0 for a row to put."""
    return change.table, len(change.key) if change.row is None else 0


def _signed(value: Any) -> Any:
    return value - (1 << 64) if isinstance(value, int) and value >= 1 << 63 else value


def _unsigned(value: Any) -> Any:
    return value + (1 << 64) if isinstance(value, int) and value < 0 else value


def _runs(keys: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
    """Return first and last of each run of integers: exchanges of a group end together."""
    first = last = next(keys := iter(keys))
    for key in keys:
        if not (isinstance(last, int) and key == last + 1):
            yield first, last
            first = key
        last = key
    yield first, last


def _keep_from_others(path: str) -> None:
    """Have a database be for its owner alone, as it has keys; its WAL takes the same mode."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            mode = os.fstat(descriptor).st_mode & 0o777
            if mode & 0o077 and os.fstat(descriptor).st_uid == os.geteuid():
                os.fchmod(descriptor, mode & 0o700)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise InvalidArgument(f"the store {path} cannot be used: {error.strerror}") from error


def _lock(path: str) -> IO[bytes]:
    """Hold PATH.lock until it is closed. The empty file stays."""
    try:
        lock = Path(f"{path}.lock").open("ab")  # noqa: SIM115
    except OSError as error:
        raise InvalidArgument(f"the store {path} cannot be written: {error.strerror}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        lock.close()
        raise InvalidArgument(
            f"the store {path} is in use by another metadata service; stop that one first"
        ) from error
    return lock
