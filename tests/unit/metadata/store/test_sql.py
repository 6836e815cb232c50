from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from pyroaring import BitMap

from cosco.errors import (
    CapacityExceeded,
    DataCorrupted,
    ExchangeExists,
    InvalidArgument,
    SchemaMismatch,
)
from cosco.metadata.state.groups.open_group import restored_groups
from cosco.metadata.state.records.changes import Change, ChangeLog, Stored
from cosco.metadata.state.restore import restore_exchanges
from cosco.metadata.state.state import TICK_S, MetadataState
from cosco.metadata.store import sql
from cosco.metadata.store.sql import SqlStore
from cosco.protocol.records import (
    AttemptSums,
    CommitRequest,
    DaemonHeartbeat,
    DaemonRegistration,
    ExchangeSpec,
    RowKind,
    pairs_array,
)

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "metadata.db")


@pytest.fixture
def store(path: str) -> Iterator[SqlStore]:
    with closing(SqlStore(path)) as store:
        yield store


def test_a_new_file_is_empty_and_keeps_its_cluster_id(path: str) -> None:
    with closing(SqlStore(path)) as store:
        first = store.load()
    with closing(SqlStore(path)) as store:
        second = store.load()
    assert first == second
    assert len(first.cluster_id) == 16
    assert first.next_number == 1
    assert not any(first.tables.values())


@pytest.mark.parametrize(
    ("fail", "mend", "reason"),
    [
        ("PRAGMA max_page_count = 1", "PRAGMA max_page_count = 1000000", "disk is full"),
        ("PRAGMA query_only = ON", "PRAGMA query_only = OFF", "readonly"),
    ],
)
def test_a_store_that_takes_nothing_for_a_while_applies_nothing_and_goes_on(
    store: SqlStore, fail: str, mend: str, reason: str
) -> None:
    large = bytes(100_000)
    store.write([Change("sums", (1, 0), (large, b"before"))])
    store._connection.execute(fail)
    for _ in range(3):
        with pytest.raises(sqlite3.OperationalError, match=reason):
            store.write(
                [Change("counters", (1,), (1, 1, 0, 0)), Change("sums", (2, 0), (large, b"after"))]
            )
        assert store.load().tables["counters"] == []
        assert store.was_used("a") is False
    store._connection.execute(mend)
    store.write([Change("counters", (1,), (1, 1, 0, 0)), Change("sums", (2, 0), (large, b"after"))])
    assert store.load().tables["counters"] == [(1, 1, 1, 0, 0)]
    assert [row[3] for row in store.load().tables["sums"]] == [b"before", b"after"]


def test_a_batch_that_could_not_be_taken_back_is_taken_back_later(store: SqlStore) -> None:
    store._connection.execute("BEGIN IMMEDIATE")
    store._connection.execute("INSERT INTO counters VALUES (7, 7, 7, 7, 7)")
    store.write([Change("counters", (1,), (1, 1, 0, 0))])
    assert store.load().tables["counters"] == [(1, 1, 1, 0, 0)]


def test_changes_are_applied_in_order(store: SqlStore) -> None:
    store.write(
        [Change("counters", (1,), (1, 1, 0, 0)), Change("mappers", (1, 5), (None, 1, b"", 0))]
    )
    store.write(
        [
            Change("counters", (1,), (2, 7, 4, 0)),
            Change("mappers", (1, 6), (2**64 - 1, 1, b"d", 0)),
            Change("mappers", (2, 5), (3, 2, b"e", 1)),
        ]
    )
    assert store.load().tables["counters"] == [(1, 2, 7, 4, 0)]
    assert store.load().tables["mappers"] == [
        (1, 5, None, 1, b"", 0),
        (1, 6, 2**64 - 1, 1, b"d", 0),
        (2, 5, 3, 2, b"e", 1),
    ]
    store.write([Change("mappers", (1,), None), Change("mappers", (1, 9), (4, 1, b"f", 0))])
    assert store.load().tables["mappers"] == [(1, 9, 4, 1, b"f", 0), (2, 5, 3, 2, b"e", 1)]


def test_runs_of_numbers_are_deleted_and_no_others(store: SqlStore) -> None:
    tables = [Change("counters", (n,), (n, 1, 0, 0)) for n in range(12)]
    mapper = Change("mappers", (3, 5), (1, 1, b"", 0))
    store.write([*tables, Change("used_groups", ("a",), (1, 1)), mapper])
    deleted = [2, 3, 4, 6, 9, 10, 1, 1]
    changes = [Change("counters", (n,), None) for n in deleted]
    store.write(
        [*changes, Change("used_groups", ("a",), None), Change("counters", (3,), (8, 8, 8, 0))]
    )
    left = [row[0] for row in store.load().tables["counters"]]
    assert left == [0, 3, 5, 7, 8, 11]
    assert store._rows("SELECT * FROM used_groups") == []


def test_ids_of_groups_are_found(store: SqlStore) -> None:
    names = ["g/x", "g/01", "g/7", "h/7\x00", "h", "i/", "\x00/3"]
    store.write([Change("closed", (n,), (name,)) for n, name in enumerate(names, 1)])
    store.write([Change("used_groups", ("j\x00",), (5, 40))])
    assert [store.used_in_group(i) for i in ("g", "h", "i", "\x00", "G")] == [
        "g/7", None, None, "\x00/3", None,
    ]  # fmt: skip
    assert [store.was_used(f"j\x00/{n}") for n in ("0", "4", "5", "04", "")] == [
        True, True, False, False, False,
    ]  # fmt: skip
    assert (store.was_group("j\x00"), store.was_group("j")) == (True, False)
    assert store.load().next_number == 41


def test_a_failed_batch_leaves_nothing(store: SqlStore) -> None:
    with pytest.raises(sqlite3.Error):
        store.write([Change("counters", (1,), (1, 1, 0, 0)), Change("counters", (2,), (1, 2))])
    assert store.load().tables["counters"] == []
    store.write([Change("counters", (1,), (1, 1, 0, 0))])
    assert store.load().tables["counters"] == [(1, 1, 1, 0, 0)]


def test_ids_are_found_wherever_they_are(store: SqlStore) -> None:
    assert store.find_number("a") is None
    store.write([Change("closing", (3,), ("a", 1, 0, 0, "[]", "[]", 0))])
    assert store.find_number("a") == 3
    store.write([Change("closing", (3,), None), Change("closed", (3,), ("a",))])
    assert store.find_number("a") == 3
    assert store.find_number("A") is None
    assert store.load().next_number == 4


def test_any_text_can_be_an_id(store: SqlStore) -> None:
    for number, shuffle_id in enumerate(("'; DROP TABLE closed", "a\x00b", "a", "é\U0001f600"), 1):
        store.write([Change("closed", (number,), (shuffle_id,))])
    assert store.find_number("a\x00b") == 2
    assert store.find_number("a") == 3
    assert store.find_number("é\U0001f600") == 4


def test_writes_are_durable_at_commit(store: SqlStore) -> None:
    assert store._rows("PRAGMA journal_mode") == [("wal",)]
    assert store._rows("PRAGMA synchronous") == [(2,)]


def test_a_second_service_on_the_file_is_refused(path: str) -> None:
    with closing(SqlStore(path)):
        with pytest.raises(InvalidArgument, match="is in use by another metadata service"):
            SqlStore(path)
        script = (
            "import sys; from cosco.metadata.store.sql import SqlStore\n"
            "try: SqlStore(sys.argv[1])\n"
            "except ValueError as error: print(error)"
        )
        done = subprocess.run(
            [sys.executable, "-c", script, path], capture_output=True, text=True, check=True
        )
        assert "is in use" in done.stdout
    SqlStore(path).close()


def test_a_file_that_is_no_database(path: str) -> None:
    Path(path).write_bytes(b"certainly not SQLite" * 100)
    for _ in range(2):  # and the lock is given back
        with pytest.raises(InvalidArgument, match="cannot be used: file is not a database"):
            SqlStore(path)
    assert Path(path).read_bytes() == b"certainly not SQLite" * 100


def test_the_database_of_another_program(path: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE theirs (x)")
    with pytest.raises(InvalidArgument, match="database of another program"):
        SqlStore(path)


@pytest.mark.parametrize("version", [1, 99])
def test_a_schema_of_another_version(path: str, version: int) -> None:
    SqlStore(path).close()
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE meta SET value = ? WHERE key = 'schema_version'", (version,))
    message = rf"schema version {version}, this cosco-metadata knows 9; run the version that"
    with pytest.raises(InvalidArgument, match=message):
        SqlStore(path)


#: The table as it was before exchanges had direct reads.
_EXCHANGES_OF_5 = """
    CREATE TABLE exchanges (number INTEGER, shuffle_id TEXT, partitions INTEGER, replicas INTEGER,
    min_replicas INTEGER, codec TEXT, deterministic INTEGER, lease_s REAL, created_schema BLOB,
    mappers INTEGER, owner BLOB, callback INTEGER, generation INTEGER, kind INTEGER, schema BLOB,
    PRIMARY KEY (number))
"""


def as_of_version_6(connection: sqlite3.Connection) -> None:
    """Take away what came after it, but of the table of exchanges."""
    connection.execute("DROP TABLE history")
    connection.execute("DROP TABLE capability_keys")
    connection.execute("ALTER TABLE counters DROP COLUMN plain")
    connection.execute("ALTER TABLE open_groups DROP COLUMN tenant")
    connection.execute("ALTER TABLE open_groups DROP COLUMN trace")
    connection.execute("ALTER TABLE applications DROP COLUMN tenant")
    connection.execute("DELETE FROM meta WHERE key = 'attempt_secret'")


def as_of_version_5(path: str) -> None:
    """Make a database what the version before wrote, with one exchange."""
    SqlStore(path).close()
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("DROP TABLE dropped_builds")
        connection.execute("DROP TABLE exchanges")
        connection.execute(_EXCHANGES_OF_5)
        as_of_version_6(connection)
        connection.execute("CREATE INDEX exchanges_by_id ON exchanges (shuffle_id)")
        connection.execute(
            "INSERT INTO exchanges VALUES (7, 'old', 3, 2, 1, 'lz4', 1, 60.0, x'', 0, x'01', 1, 1, "
            "0, x'')"
        )
        connection.execute("INSERT INTO counters VALUES (7, 3, 1, 0)")
        connection.execute("INSERT INTO mappers VALUES (7, 1, NULL, 1, x'', 0)")
        connection.execute("UPDATE meta SET value = '5' WHERE key = 'schema_version'")


def test_a_database_of_the_version_before_is_taken_over(path: str) -> None:
    as_of_version_5(path)
    secrets = set[bytes]()
    for _ in range(2):
        with closing(SqlStore(path)) as store:
            stored = store.load()
            secrets.add(stored.attempt_secret)
            exchanges = restore_exchanges(stored.tables, ChangeLog(), stored.attempt_secret)
            assert store.find_number("old") == 7
        attempts = exchanges[7].attempts
        assert [attempts.was_opened(1, attempt) for attempt in range(5)] == [0, 1, 1, 1, 0]
        mapper, attempt = attempts.open(1)
        assert attempts.was_opened(mapper, attempt)
        assert attempt > 1 << 32
        assert (exchanges[7].tenant, exchanges[7].created_s) == ("", 0.0)
        assert exchanges[7].spec == ExchangeSpec("old", 3, lease_s=60.0)
        assert (exchanges[7].owner, exchanges[7].generation) == (b"\1", 1)
    [secret] = secrets
    assert len(secret) == 32


def test_exchanges_and_groups_of_before_have_no_trace_and_later_ones_do(path: str) -> None:
    with closing(SqlStore(path)) as store:
        state = state_with_a_daemon(store)
        create(state, ExchangeSpec("old", 3, replicas=1, trace=TRACE))
        make_group(state, ExchangeSpec("old-group", 3, replicas=1, trace=TRACE))
        store.write(state.pop_changes())
    with closing(sqlite3.connect(path)) as connection, connection:
        for table in ("exchanges", "open_groups"):
            connection.execute(f"ALTER TABLE {table} DROP COLUMN trace")
        connection.execute("UPDATE meta SET value = '8' WHERE key = 'schema_version'")
    for known in ({"old": "", "old-group": ""}, {"new": TRACE, "new-group": TRACE}):
        with closing(SqlStore(path)) as store:
            stored = store.load()
            exchanges = restore_exchanges(stored.tables, ChangeLog(), stored.attempt_secret)
            specs = [one.spec for one in exchanges.values()]
            specs += [group.spec for group in restored_groups(stored.tables).values()]
            found = {spec.shuffle_id: spec.trace for spec in specs}
            assert found.items() >= known.items()
            if "new" not in found:
                state = state_with_a_daemon(store)
                create(state, ExchangeSpec("new", 3, replicas=1, trace=TRACE))
                make_group(state, ExchangeSpec("new-group", 3, replicas=1, trace=TRACE))
                store.write(state.pop_changes())


def state_with_a_daemon(store: SqlStore) -> MetadataState:
    state = MetadataState(store.load(), daemon_lease_s=5.0, ranges_per_daemon=4, now=0.0)
    state.register(DaemonRegistration(1, "a:1", "h", "s", 1 << 30, 1 << 30), 0.0)
    return state


def create(state: MetadataState, spec: ExchangeSpec) -> int:
    return state.create_exchange(spec, owner_of("x"), 0.0, used=False).number


def make_group(state: MetadataState, spec: ExchangeSpec) -> None:
    state.groups.create(spec, 1, 1, 0, owner_of("x"), 0.0, callback=False, used=False, taken=None)


def test_what_was_there_is_kept_beside_before_an_upgrade(path: str) -> None:
    as_of_version_5(path)
    SqlStore(path).close()
    kept = Path(f"{path}.schema-5")
    with closing(sqlite3.connect(kept)) as connection:
        [(version,)] = connection.execute("SELECT value FROM meta WHERE key = 'schema_version'")
        [(name,)] = connection.execute("SELECT shuffle_id FROM exchanges")
    assert (version, name) == ("5", "old")
    assert kept.stat().st_mode & 0o777 == 0o600
    # To go back is to put it in the place of the other one.
    for rest in ("-wal", "-shm"):
        Path(path + rest).unlink(missing_ok=True)
    kept.replace(path)
    with closing(SqlStore(path)) as store:
        assert store.find_number("old") == 7


def test_an_upgrade_that_has_no_room_for_what_was_there_is_not_made(path: str) -> None:
    as_of_version_5(path)
    Path(f"{path}.schema-5.part").mkdir()  # nothing can be written there
    with pytest.raises(InvalidArgument, match="cannot be used"):
        SqlStore(path)
    with closing(sqlite3.connect(path)) as connection:
        [(version,)] = connection.execute("SELECT value FROM meta WHERE key = 'schema_version'")
    assert version == "5"


@pytest.mark.parametrize("direct_reads", [False, True])
@pytest.mark.parametrize("trace", ["", TRACE])
def test_an_exchange_keeps_what_was_asked_for(path: str, direct_reads: bool, trace: str) -> None:
    spec = ExchangeSpec("x", 3, replicas=1, direct_reads=direct_reads, trace=trace)
    with closing(SqlStore(path)) as store:
        state = state_with_a_daemon(store)
        number = create(state, spec)
        store.write(state.pop_changes())
    with closing(SqlStore(path)) as store:
        assert restore_exchanges(store.load().tables, ChangeLog())[number].spec == spec


def test_an_upgrade_that_fails_leaves_what_was_there(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_of_version_5(path)
    with monkeypatch.context() as patched:
        good = sql._UPGRADES["5"]
        patched.setitem(sql._UPGRADES, "5", (*good, "ALTER TABLE nothing ADD COLUMN x"))
        with pytest.raises(InvalidArgument, match="cannot be used"):
            SqlStore(path)
    with closing(sqlite3.connect(path)) as connection:
        [(version,)] = connection.execute("SELECT value FROM meta WHERE key = 'schema_version'")
        columns = connection.execute("SELECT * FROM exchanges").description
    assert version == "5"
    assert "direct_reads" not in [name for name, *_ in columns]
    SqlStore(path).close()


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="cannot be written: No such file or directory"):
        SqlStore(str(tmp_path / "missing" / "metadata.db"))
    with pytest.raises(InvalidArgument, match="cannot be used"):
        SqlStore(str(tmp_path))


# --- a restart at any moment answers the same ---------------------------------------------

IDS = ("a", "b", "c")
PARTITIONS = 5
BIG = (1 << 64) - 2
LEASE_S = 5.0


def owner_of(shuffle_id: str) -> bytes:
    return shuffle_id.encode() * 16


class Restarts(RuleBasedStateMachine):
    """Random calls of a state whose database is loaded again now and then."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.TemporaryDirectory()
        self.path = str(Path(self.directory.name) / "metadata.db")
        self.store = SqlStore(self.path)
        self.now = 0.0
        self.state = self.state_of(self.store.load())
        self.attempts: dict[int, list[tuple[int, int]]] = {}

    def teardown(self) -> None:
        self.store.close()
        self.directory.cleanup()

    def state_of(self, stored: Stored) -> MetadataState:
        return MetadataState(
            stored,
            daemon_lease_s=LEASE_S,
            ranges_per_daemon=2,
            adoption_grace_s=0.0,  # which a restart begins anew
            now=self.now,
        )

    def used(self, shuffle_id: str) -> bool:
        self.store.write(self.state.pop_changes())
        known = self.state.knows(shuffle_id)
        return not known and self.store.find_number(shuffle_id) is not None

    def infos(self) -> list[Any]:
        _, exchanges = self.state.overview.status()
        return [
            self.state.describe_exchange(e.shuffle_id, b"", self.now, used=False)
            for e in exchanges
            if not e.closing
        ]

    @initialize()
    def start_daemons(self) -> None:
        self.register_all()

    @rule()
    def register_all(self) -> None:
        for incarnation in (1, BIG, 3):
            self.register(incarnation, "shared", [])

    @rule(
        incarnation=st.sampled_from([1, BIG, 3, 4, 5]),
        store=st.sampled_from(["shared", "own"]),
        exchanges=st.lists(st.integers(0, 9)),
    )
    def register(self, incarnation: int, store: str, exchanges: list[int]) -> None:
        # 4 and 5 are later starts at the addresses of others
        address, host = f"h:{incarnation % 4}", f"host-{incarnation % 4}"
        registration = DaemonRegistration(
            incarnation, address, host, store, 1 << 30, 1 << 20, exchanges=tuple(exchanges)
        )
        with suppress(InvalidArgument):  # it registered with the other store before
            self.state.register(registration, self.now)

    @rule(incarnation=st.sampled_from([1, BIG, 3, 4]), obedient=st.booleans())
    def beat(self, incarnation: int, obedient: bool) -> None:
        orders = self.state.heartbeat(DaemonHeartbeat(incarnation, 1 << 20), self.now)
        if obedient:
            self.state.heartbeat(DaemonHeartbeat(incarnation, 1 << 20, orders.drop), self.now)

    @rule(shuffle_id=st.sampled_from(IDS), replicas=st.integers(1, 2), schema=st.booleans())
    def create(self, shuffle_id: str, replicas: int, schema: bool) -> None:
        spec = ExchangeSpec(
            shuffle_id,
            PARTITIONS,
            replicas,
            schema=b"schema" if schema else b"",
            lease_s=20.0,
            direct_reads=schema,
            trace=TRACE if schema else "",
        )
        used = self.used(shuffle_id)
        known = self.state.knows(shuffle_id)
        owner = owner_of(shuffle_id)
        if used:
            with pytest.raises(ExchangeExists):
                self.state.create_exchange(spec, owner, self.now, used=True)
            return
        with suppress(CapacityExceeded, *([ExchangeExists] if known else [])):
            info = self.state.create_exchange(spec, owner, self.now, used=False)
            assert info.spec == spec

    @precondition(lambda self: self.infos())
    @rule(data=st.data(), mapper=st.none() | st.integers(0, 5))
    def open_attempt(self, data: st.DataObject, mapper: int | None) -> None:
        info = data.draw(st.sampled_from(self.infos()))
        opened = self.state.open_attempt(info.spec.shuffle_id, mapper, used=False)
        attempts = self.attempts.setdefault(info.number, [])
        assert all(opened.attempt > attempt for _, attempt in attempts)
        attempts.append((opened.mapper, opened.attempt))

    @precondition(lambda self: any(self.attempts.get(i.number) for i in self.infos()))
    @rule(data=st.data(), rows=st.dictionaries(st.integers(0, PARTITIONS - 1), st.integers(1, 9)))
    def commit(self, data: st.DataObject, rows: dict[int, int]) -> None:
        infos = [info for info in self.infos() if self.attempts.get(info.number)]
        info = data.draw(st.sampled_from(infos))
        mapper, attempt = data.draw(st.sampled_from(self.attempts[info.number]))
        counts = np.array([rows[p] for p in sorted(rows)], dtype=np.uint64)
        digests = counts * np.uint64(0xF000000000000001)
        sums = AttemptSums(
            np.array(sorted(rows), dtype=np.uint32), counts, counts * 2, counts * 3, digests
        )
        acknowledged = pairs_array([(r.index, 1) for r in info.ranges])
        request = CommitRequest(info.number, mapper, attempt, 1, acknowledged, sums)
        assert self.answer_to(request) == self.answer_to(request)

    def answer_to(self, request: CommitRequest) -> bool | str:
        """Whether it won, or what is said to an attempt that says another thing than before."""
        try:
            return self.state.commit(request)
        except DataCorrupted as error:
            return str(error)

    @precondition(lambda self: self.infos())
    @rule(data=st.data(), arrow=st.booleans())
    def fix_row_kind(self, data: st.DataObject, arrow: bool) -> None:
        info = data.draw(st.sampled_from(self.infos()))
        kind, schema = (RowKind.ARROW, info.schema or b"schema") if arrow else (RowKind.BYTES, b"")
        if info.kind in (RowKind.UNDECIDED, kind):
            self.state.fix_row_kind(info.number, kind, schema)
        else:
            with pytest.raises(SchemaMismatch):
                self.state.fix_row_kind(info.number, kind, schema)

    @precondition(lambda self: any(info.kind is RowKind.ARROW for info in self.infos()))
    @rule(data=st.data(), late=st.booleans())
    def refine_schema(self, data: st.DataObject, late: bool) -> None:
        infos = [info for info in self.infos() if info.kind is RowKind.ARROW]
        info = data.draw(st.sampled_from(infos))
        seen, finer = info.schema, info.schema + b"+"
        refined = self.state.fix_row_kind(info.number, RowKind.ARROW, finer, b"" if late else seen)
        assert refined.schema == (seen if late else finer)

    @precondition(lambda self: self.infos())
    @rule(data=st.data())
    def take_over(self, data: st.DataObject) -> None:
        info = data.draw(st.sampled_from(self.infos()))
        self.state.describe_exchange(info.spec.shuffle_id, bytes(16), self.now, used=False)

    @rule(shuffle_id=st.sampled_from(IDS))
    def close(self, shuffle_id: str) -> None:
        used = self.used(shuffle_id)
        if used or self.state.knows(shuffle_id):
            self.state.close_exchange(shuffle_id, used=used)

    @rule(ticks=st.integers(1, 15))
    def sleep(self, ticks: int) -> None:
        for _ in range(ticks):
            self.now += TICK_S
            self.state.tick(self.now)

    @rule(reached=st.booleans())
    def fence(self, reached: bool) -> None:
        fences = self.state.failover.pop_fences()
        self.write()
        for fence in fences:
            if reached:
                self.state.failover.fenced(fence.daemon.incarnation, fence.keys)
            else:
                self.state.members.fence_failed(fence.daemon.incarnation)

    @rule()
    def write(self) -> None:
        self.store.write(self.state.pop_changes())

    @rule()
    def restart(self) -> None:
        self.store.write(self.state.pop_changes())
        self.store.close()
        self.store = SqlStore(self.path)
        before, self.state = self.state, self.state_of(self.store.load())
        assert self.answers(self.state) == self.answers(before)

    def answers(self, state: MetadataState) -> list[Any]:
        """Whatever can be asked, in a form that compares."""
        given: list[Any] = [state.cluster_id, state.overview.status()]
        given += [
            state.heartbeat(DaemonHeartbeat(incarnation, 1 << 20), self.now)
            for incarnation in (1, BIG, 3, 4, 5)
        ]
        for status in state.overview.status()[1]:
            if status.closing:
                continue
            number = status.number
            info = state.describe_exchange(status.shuffle_id, b"", self.now, used=False)
            progress = state.progress(number)
            given += [info, progress.bytes_stored, progress.partition_rows.tolist()]
            for mapper in range(6):
                try:
                    wait = state.await_commits(number, BitMap([mapper]), 0, 1, self.now)
                    given.append(wait.missing)
                except DataCorrupted as error:
                    given.append(str(error))
            for partition in range(PARTITIONS):
                snapshot = state.await_commits(number, BitMap(), partition, 1, self.now).snapshot
                assert snapshot is not None
                given += [snapshot.version, snapshot.rows, snapshot.raw_bytes, snapshot.digest]
                given += [snapshot.mappers.tolist(), snapshot.attempts.tolist(), snapshot.sources]
            for owner in (bytes(16), owner_of(status.shuffle_id)):
                try:
                    given.append(state.poll_driver(number, owner, self.now))
                except InvalidArgument as error:
                    given.append(str(error))
            opened = state.open_attempt(status.shuffle_id, None, used=False)
            given.append(opened)
            if state is self.state:
                self.attempts.setdefault(number, []).append((opened.mapper, opened.attempt))
        return given


TestRestarts = Restarts.TestCase
TestRestarts.settings = settings(max_examples=50, stateful_step_count=40, deadline=None)


@pytest.mark.parametrize("before", [None, 0o644, 0o660])
def test_a_database_is_for_its_owner_alone(tmp_path: Path, before: int | None) -> None:
    """It has keys: who reads them may do everything."""
    path = tmp_path / "metadata.db"
    mask = os.umask(0o022)
    try:
        if before is not None:
            SqlStore(str(path)).close()
            path.chmod(before)
        with closing(SqlStore(str(path))) as store:
            store.write([Change("counters", (1,), (1, 1, 0, 0))])
            found = {one.name: one.stat().st_mode & 0o077 for one in tmp_path.iterdir()}
    finally:
        os.umask(mask)
    assert set(found) == {f"metadata.db{end}" for end in ("", "-wal", "-shm", ".lock")}
    assert [mode for name, mode in found.items() if not name.endswith(".lock")] == [0, 0, 0]
