"""The life of a group: what is refused at once, and what is left of the ended: nothing."""

from __future__ import annotations

import copy
import pickle
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa
import pytest
from support.exchanges import numbered, until
from support.groups import (
    InBackground,
    committed,
    flush,
    make,
    open_readers,
    put,
    stored_files,
    take,
    take_all,
    used_bytes,
)
from support.processes import python

from cosco import (
    CapacityExceeded,
    ClientClosed,
    CommitTimeout,
    CoscoExchange,
    CoscoExchangeGroup,
    CoscoReader,
    CoscoWriter,
    ExchangeClosed,
    ExchangeExists,
    ExchangeNotFound,
    GroupHandle,
    InvalidArgument,
    InvalidRow,
    LocalCluster,
    PartitionOutOfRange,
    SchemaMismatch,
    ServiceUnavailable,
)
from cosco.client.groups import group as group_module
from cosco.client.groups.following import FOLLOWING
from cosco.client.rpc.metadata_client import MetadataClient

#: "Gone within seconds": two heartbeats and what a busy machine adds.
GONE_S = 8.0
SCHEMA = pa.schema([("key", pa.int64())])
ROWS = {m: numbered(m, 400, partitions=4, size=1000) for m in range(3)}


@pytest.fixture(scope="module")
def started() -> Iterator[LocalCluster]:
    """Daemons that hear soon of what has ended."""
    with LocalCluster(2, memory="16MiB", daemon_options=["--heartbeat-s", "0.2"]) as cluster:
        yield cluster
        flush(cluster.metadata)


def copied(handle: GroupHandle) -> GroupHandle:
    made: GroupHandle = pickle.loads(pickle.dumps(handle))
    return made


def fill(handle: GroupHandle, i: int) -> None:
    for mapper, pairs in ROWS.items():
        put(handle, i, mapper, pairs)


# --- release --------------------------------------------------------------------------------


def test_what_is_released_goes_and_the_others_stay(
    cluster: LocalCluster, metadata: str, name: str
) -> None:
    with make(name, metadata) as group:
        handle = group.handle()
        elsewhere = copied(handle)
        for i in range(3):
            fill(handle, i)
        waiting = open_readers(handle, 3, range(4))
        blocked = [InBackground(reader.read_table) for reader in waiting]
        under_way = elsewhere.writer(3, 0)
        under_way.collect(0, b"too late")
        until(lambda: used_bytes(metadata) > 0, GONE_S, "rows in memory")
        for i in (0, 1, 3, 3, 0):
            group.release(i)
        for made in (handle, copied(handle), group.handle()):
            for make_one in (made.writer, made.reader):
                with pytest.raises(ExchangeClosed, match=f"{name}/1"):
                    make_one(1, 0)
        for one in blocked:
            with pytest.raises(ExchangeClosed):
                one.result()
        for reader in waiting:
            reader.close()
        # Who has not heard of it learns it when rows are to move.
        for partition in range(4):
            with pytest.raises(ExchangeClosed):
                take(elsewhere, 1, partition)
        with pytest.raises(ExchangeClosed):
            put(elsewhere, 0, 0, ROWS[0])
        with pytest.raises(ExchangeClosed):
            under_way.close()
        with pytest.raises(ExchangeClosed):
            CoscoReader(f"{name}/0", range(3), 0, metadata=metadata)
        assert sum(sum(found.values()) for found in take_all(elsewhere, 2)) == 1200
        handle.flush()
        assert committed(handle, 2) == 3
        group.release(2)
        until(lambda: used_bytes(metadata) == 0, GONE_S, "the end of memory")
        assert not stored_files(cluster)


def test_all_of_a_group_goes_with_it(cluster: LocalCluster, metadata: str, name: str) -> None:
    group = make(name, metadata)
    handle = group.handle()
    elsewhere = copied(handle)
    for i in range(2):
        fill(handle, i)
    reader = open_readers(handle, 2, [0])[0]
    blocked = InBackground(reader.read_table)
    group.close()
    group.close()
    with pytest.raises(ExchangeClosed):
        blocked.result()
    reader.close()
    for make_one in (handle.writer, handle.reader, copied(handle).writer):
        with pytest.raises(ExchangeClosed, match=name):
            make_one(0, 0)
    with pytest.raises(ExchangeClosed):
        take(elsewhere, 1, 0)
    with pytest.raises(ExchangeClosed):
        put(elsewhere, 1, 0, ROWS[0])
    for use in (group.handle, lambda: group.release(0), lambda: group.extend(1)):
        with pytest.raises(ClientClosed):
            use()
    until(lambda: used_bytes(metadata) == 0, GONE_S, "the end of memory")
    assert not stored_files(cluster)
    ids_are_used(name, metadata)
    cluster.metadata_service.restart()
    ids_are_used(name, metadata)


def ids_are_used(name: str, metadata: str) -> None:
    for create in (
        lambda: make(name, metadata),
        lambda: CoscoExchange(f"{name}/0", 1, metadata=metadata),
        lambda: CoscoExchange(f"{name}/3", 1, metadata=metadata),
    ):
        with pytest.raises(ExchangeExists):
            create()
    for attach in (
        lambda: CoscoExchange.attach(f"{name}/1", metadata=metadata),
        lambda: CoscoWriter(f"{name}/1", 0, metadata=metadata),
    ):
        with pytest.raises(ExchangeClosed):
            attach()


DRIVER = """
    import pickle, sys
    from cosco import CoscoExchangeGroup

    metadata, name = sys.argv[1:]
    group = CoscoExchangeGroup(name, 4, 3, 3, metadata=metadata, lease_s=1.0)
    print(pickle.dumps(group.handle()).hex(), flush=True)
    sys.stdin.readline()
"""


def test_a_group_goes_after_its_driver_was_killed(
    cluster: LocalCluster, metadata: str, name: str
) -> None:
    code = f"import sys; print('started', flush=True)\n{DRIVER.replace('    ', '')}"
    with python(code, metadata, name) as driver:
        assert driver.stdout is not None
        handle: GroupHandle = pickle.loads(bytes.fromhex(driver.stdout.readline()))
        fill(handle, 0)
        reader = open_readers(handle, 1, [0])[0]
        blocked = InBackground(reader.read_table)
        assert not blocked.is_done(1.5)  # its lease is renewed
        driver.send_signal(signal.SIGKILL)
        with pytest.raises(ExchangeClosed):
            blocked.result(GONE_S + 2)
        reader.close()
        until(lambda: used_bytes(metadata) == 0, GONE_S, "the end of memory")
        with pytest.raises(ExchangeClosed):
            take(handle, 0, 0)
        assert not stored_files(cluster)


# --- extend ---------------------------------------------------------------------------------


def test_a_large_group_is_made_of_blocks(
    metadata: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group_module, "MAX_PART_SIZE", 3)
    with CoscoExchangeGroup(name, 2, 7, 1, replicas=1, metadata=metadata) as group:
        group.extend(4)
        handle = group.handle()
        assert (group.size, [part.size for part in handle.parts]) == (11, [3, 3, 1, 3, 1])
        for i in (0, 2, 3, 6, 10):
            with handle.writer(i, 0) as writer:
                writer.collect(1, b"%d" % i)
            with handle.reader(i, 1) as reader:
                assert list(reader) == [b"%d" % i]


def test_a_group_that_is_made_in_part_is_closed(
    metadata: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group_module, "MAX_PART_SIZE", 1)
    create = MetadataClient.create_group

    def create_first(client: MetadataClient, *args: Any, **options: Any) -> Any:
        if options["first"]:
            raise CapacityExceeded("no daemons any more")
        return create(client, *args, **options)

    monkeypatch.setattr(MetadataClient, "create_group", create_first)
    with pytest.raises(CapacityExceeded):
        CoscoExchangeGroup(name, 2, 2, 1, replicas=1, metadata=metadata)
    with pytest.raises(ExchangeClosed):
        CoscoExchange.attach(f"{name}/0", metadata=metadata)


def test_a_group_grows(metadata: str, name: str) -> None:
    with make(name, metadata, size=2) as group:
        old = group.handle()
        fill(old, 0)
        group.extend(3)
        new = group.handle()
        assert (old.size, new.size, group.size) == (2, 5, 5)
        for i in (1, 2, 4):
            fill(new, i)
        for i in (0, 1, 2, 4):
            assert sum(sum(found.values()) for found in take_all(new, i)) == 1200
        with pytest.raises(InvalidArgument, match="extend"):
            old.writer(2, 0)
        group.release(0)
        group.release(1)
        group.extend(1)
        newest = group.handle()
        fill(newest, 5)
        fill(newest, 3)
        with pytest.raises(ExchangeClosed):
            newest.reader(1, 0)
        assert sum(take(newest, 5, 0).values()) == 300
        newest.flush()
        assert committed(newest, 5) == 3


def test_a_long_outage_holds_up_neither_release_nor_close(
    cluster: LocalCluster, metadata: str, name: str
) -> None:
    with make(name, metadata) as group:
        cluster.metadata_service.kill()
        try:
            extending = InBackground(lambda: group.extend(1))
            assert not extending.is_done(0.1)
            releasing = InBackground(lambda: group.release(0))
            assert releasing.is_done(5)
            releasing.result()
        finally:
            cluster.metadata_service.restart()
        extending.result()
        assert group.size == 5
        with pytest.raises(ExchangeClosed):
            group.handle().writer(0, 0)


# --- what is refused ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "given",
    [
        {"size": 0},
        {"size": -1},
        {"size": 10_001},
        {"size": 1.5},
        {"size": "3"},
        {"size": None},
        {"size": True},
        {"mappers": 0},
        {"mappers": -1},
        {"mappers": (1 << 16) + 1},
        {"mappers": 2.0},
        {"mappers": [0, 1]},
        {"partitions": 0},
        {"partitions": "4"},
        {"replicas": 0},
        {"codec": "zip"},
        {"lease_s": -1},
        {"callback": 7},
        {"schema": "key: int64"},
    ],
    ids=str,
)
def test_a_group_that_cannot_be_is_refused_at_once(
    metadata: str, name: str, given: dict[str, Any]
) -> None:
    with pytest.raises(InvalidArgument):
        make(name, metadata, **given)


@pytest.mark.parametrize("group_id", ["", "x" * 5000, None, 7])
def test_a_bad_group_id_is_refused_at_once(metadata: str, group_id: Any) -> None:
    with pytest.raises(InvalidArgument):
        make(group_id, metadata)


def test_without_a_service_a_group_fails_in_seconds() -> None:
    with pytest.raises(ServiceUnavailable):
        make("nowhere", "127.0.0.1:1", service_timeout_s=0.1)


def test_ids_that_are_in_use_are_refused(metadata: str, name: str) -> None:
    with make(name, metadata), CoscoExchange(f"{name}-b/1", 1, metadata=metadata):
        for create in (
            lambda: make(name, metadata),
            lambda: make(f"{name}-b", metadata),
            lambda: CoscoExchange(f"{name}/0", 1, metadata=metadata),
            lambda: CoscoExchange(f"{name}/77", 1, metadata=metadata),  # it may get there
        ):
            with pytest.raises(ExchangeExists):
                create()
        with pytest.raises(ExchangeNotFound):
            CoscoExchange.attach(f"{name}/77", metadata=metadata)
        with pytest.raises(InvalidArgument):
            CoscoExchange.attach(f"{name}/0", own=True, metadata=metadata)


@pytest.fixture(scope="module")
def group(started: LocalCluster) -> Iterator[CoscoExchangeGroup]:
    with make("refusing", started.metadata) as made:
        yield made


@pytest.fixture(scope="module")
def arrow_group(started: LocalCluster) -> Iterator[CoscoExchangeGroup]:
    with make("refusing-arrow", started.metadata, schema=SCHEMA) as made:
        yield made


BATCH = pa.record_batch([[1, 2]], schema=SCHEMA)
OTHER = pa.record_batch([["a", "b"]], names=["key"])


def a_writer(handle: GroupHandle, use: Callable[[CoscoWriter], object]) -> None:
    with handle.writer(0, 0) as writer:
        use(writer)


def a_reader(handle: GroupHandle, use: Callable[[CoscoReader], object]) -> None:
    with handle.reader(0, 0) as reader:
        use(reader)


Refused = tuple[str, type[Exception], Callable[[CoscoExchangeGroup, GroupHandle], object]]
BAD_USES: list[Refused] = [
    ("release below", InvalidArgument, lambda g, _: g.release(-1)),
    ("release above", InvalidArgument, lambda g, _: g.release(4)),
    ("release none", InvalidArgument, lambda g, _: g.release(None)),  # type: ignore[arg-type]
    ("release true", InvalidArgument, lambda g, _: g.release(True)),
    ("extend 0", InvalidArgument, lambda g, _: g.extend(0)),
    ("extend -1", InvalidArgument, lambda g, _: g.extend(-1)),
    ("extend too far", InvalidArgument, lambda g, _: g.extend(10_001)),
    ("extend text", InvalidArgument, lambda g, _: g.extend("2")),  # type: ignore[arg-type]
    ("writer index", InvalidArgument, lambda _, h: h.writer(4, 0)),
    ("reader index", InvalidArgument, lambda _, h: h.reader(-1, 0)),
    ("mapper", InvalidArgument, lambda _, h: h.writer(0, 3)),
    ("partition", PartitionOutOfRange, lambda _, h: h.reader(0, 4)),
    ("partition below", PartitionOutOfRange, lambda _, h: h.reader(0, -1)),
    ("partition text", InvalidArgument, lambda _, h: h.reader(0, "0")),  # type: ignore[arg-type]
    ("buffer", InvalidArgument, lambda _, h: h.writer(0, 0, buffer_bytes=1)),
    ("row's partition", PartitionOutOfRange, lambda _, h: a_writer(h, lambda w: w.collect(4, b""))),
    ("row", InvalidRow, lambda _, h: a_writer(h, lambda w: w.collect(0, "a"))),  # type: ignore[arg-type]
    ("batch", SchemaMismatch, lambda _, h: a_writer(h, lambda w: w.collect_batch([0, 1], BATCH))),
    ("pickled group", InvalidArgument, lambda g, _: pickle.dumps(g)),
    ("copied group", InvalidArgument, lambda g, _: copy.copy(g)),
    ("pickled writer", InvalidArgument, lambda _, h: a_writer(h, pickle.dumps)),
    ("pickled reader", InvalidArgument, lambda _, h: a_reader(h, pickle.dumps)),
    ("row first", InvalidArgument, lambda _, h: a_reader(h, lambda r: r.row())),
]


@pytest.mark.parametrize(
    ("error", "use"), [case[1:] for case in BAD_USES], ids=[case[0] for case in BAD_USES]
)
def test_bad_uses_are_refused_at_once(
    group: CoscoExchangeGroup,
    error: type[Exception],
    use: Callable[[CoscoExchangeGroup, GroupHandle], object],
) -> None:
    with pytest.raises(error):
        use(group, group.handle())


def test_rows_of_another_kind_are_refused_at_once(arrow_group: CoscoExchangeGroup) -> None:
    handle = arrow_group.handle()
    for rows in ([b"a", b"b"], OTHER):
        with pytest.raises(SchemaMismatch), handle.writer(0, 0) as writer:
            writer.collect_batch([0, 1], rows)
    with pytest.raises(SchemaMismatch), handle.writer(0, 0) as writer:
        writer.collect(0, b"bytes")
    with pytest.raises(ClientClosed):
        writer.close()
    for mapper in range(3):
        with handle.writer(1, mapper) as writer:
            with pytest.raises(SchemaMismatch):
                writer.collect_batch([0, 1], OTHER)
            writer.collect_batch([0, 1], BATCH)  # it goes on
    with handle.reader(1, 0, timeout_s=0) as reader:
        with pytest.raises(SchemaMismatch):
            list(reader)
    with handle.reader(1, 1, timeout_s=0) as reader:
        assert reader.read_table().to_pylist() == [{"key": 2}] * 3


def test_ended_writers_and_readers_say_so(group: CoscoExchangeGroup) -> None:
    handle = group.handle()
    with handle.writer(1, 0) as writer:
        writer.collect(0, b"a")
    assert writer.close() == writer.close()
    with pytest.raises(ClientClosed):
        writer.collect(0, b"b")
    reader = handle.reader(1, 0)
    reader.close()
    reader.close()
    for use in (reader.next, reader.read_table, lambda: list(reader)):
        with pytest.raises(ClientClosed):
            use()


@pytest.mark.parametrize("timeout_s", [None, 60.0])
def test_a_closed_reader_wakes_who_waits(
    group: CoscoExchangeGroup, timeout_s: float | None
) -> None:
    readers = open_readers(group.handle(), 2, range(4), timeout_s)
    waiting = [InBackground(reader.read_table) for reader in readers]
    closing = threading.Timer(0.1, lambda: [reader.close() for reader in readers])
    closing.start()
    for one in waiting:
        with pytest.raises(ClientClosed):
            one.result(5)
    closing.join()


def test_nobody_waits_for_a_closed_reader(group: CoscoExchangeGroup) -> None:
    handle = group.handle()
    for reader in open_readers(handle, 0, range(4)):
        reader.close()
    streams = list(FOLLOWING._streams.values())
    waiting = [waiter for stream in streams for waiter in list(stream._waiters.values())]
    number = handle.info(0).number  # others may not have been collected yet
    assert not [waiter for waiter in waiting if waiter.follow().number == number]


@pytest.mark.parametrize("timeout_s", [0, 0.2])
def test_a_reader_without_time_names_who_is_missing(
    group: CoscoExchangeGroup, timeout_s: float
) -> None:
    handle = group.handle()
    put(handle, 3, 1, [(0, b"a")])
    with handle.reader(3, 0, timeout_s=timeout_s) as reader, pytest.raises(CommitTimeout) as caught:
        reader.next()
    assert list(caught.value.mappers) == [0, 2]
    assert (caught.value.shuffle_id, caught.value.partition) == ("refusing/3", 0)
