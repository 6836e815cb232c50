"""An error is raised in a task and shipped to the driver, by pickle, cloudpickle or as Dask does.

Each is raised by what a user did. A plain pickle brings the error; with tblib, which Dask installs,
it brings what it was raised from and during as well.
"""

from __future__ import annotations

import copyreg
import http.server
import pickle
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cloudpickle
import pyarrow as pa
import pytest
import tblib.pickling_support
from support.exchanges import describe, fetch, numbered, send, until

from cosco import (
    CapacityExceeded,
    ClientClosed,
    CommitTimeout,
    CoscoError,
    CoscoExchange,
    CoscoExchangeGroup,
    CoscoReader,
    CoscoWriter,
    DataCorrupted,
    DataLost,
    ExchangeClosed,
    ExchangeExists,
    ExchangeNotFound,
    GenerationChanged,
    InvalidArgument,
    InvalidRow,
    LocalCluster,
    NotPicklable,
    PartitionOutOfRange,
    RecomputeMismatch,
    SchemaMismatch,
    ServiceUnavailable,
)
from cosco.client.rpc import metadata_client
from cosco.format.block import CODEC_LZ4, decode_content, encode_block, parse_header
from cosco.format.chunk import CHUNK_HEADER_BYTES
from cosco.observe import describe_exchange, fetch_status, read_metrics

WAIT_S = 20.0
MAPPERS = [1, 2]
PARTITIONS = 2


@pytest.fixture(scope="module")
def started() -> Iterator[LocalCluster]:
    """Rows are stored soon, so that they can be damaged."""
    options = ["--segment-bytes", "64KiB"]
    with LocalCluster(2, memory="16MiB", daemon_options=options) as cluster:
        yield cluster


@pytest.fixture(autouse=True)
def quick_first_contact(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata_client, "FIRST_CONTACT_S", 0.2)


# --- how errors travel --------------------------------------------------------------------------


@contextmanager
def with_tblib() -> Iterator[None]:
    """All exceptions are pickled as in a process of Dask."""
    before = copyreg.dispatch_table.copy()
    tblib.pickling_support.install()
    try:
        yield
    finally:
        copyreg.dispatch_table.clear()
        copyreg.dispatch_table.update(before)


def check_alike(found: BaseException, error: BaseException) -> None:
    """Compare two errors, without what each was raised from and during."""
    assert type(found) is type(error)
    assert str(found) == str(error)
    if isinstance(error, CoscoError):
        for name in ("shuffle_id", "mappers", "partition", "retriable", "recompute", "__notes__"):
            assert getattr(found, name, None) == getattr(error, name, None), name


def check_same(found: BaseException | None, error: BaseException | None) -> None:
    """Compare two errors, and what each was raised from and during."""
    if error is None or found is None:
        assert found is error
        return
    check_alike(found, error)
    assert found.__suppress_context__ == error.__suppress_context__
    check_same(found.__cause__, error.__cause__)
    check_same(found.__context__, error.__context__)


def check_travels(error: CoscoError) -> None:
    error.add_note("in task 7")
    for dumps in (pickle.dumps, cloudpickle.dumps):
        check_alike(pickle.loads(dumps(error)), error)
    with with_tblib():
        for dumps in (pickle.dumps, cloudpickle.dumps):
            found = pickle.loads(dumps(error))
            check_same(found, error)
            assert found.__traceback__ is not None


def check_raises(kind: type[CoscoError], use: Callable[[], object]) -> None:
    """Check what `use` raises: alone, and as it is handled by who does something else."""
    with pytest.raises(kind) as caught:
        use()
    assert type(caught.value) is kind
    check_travels(caught.value)
    with pytest.raises(kind) as caught:
        try:
            raise KeyError("a task's own")
        except KeyError:
            use()
    check_travels(caught.value)
    first: BaseException | None = caught.value
    while first is not None and not isinstance(first, KeyError):
        first = first.__context__
    assert first is not None, "what was being handled is forgotten"


# --- what users do ------------------------------------------------------------------------------


def test_an_exchange_that_nobody_made(name: str, metadata: str) -> None:
    check_raises(ExchangeNotFound, lambda: CoscoWriter(name, 0, metadata=metadata))
    check_raises(ExchangeNotFound, lambda: describe_exchange(metadata, name))


def test_an_id_that_is_taken(name: str, metadata: str) -> None:
    with CoscoExchange(name, 1, metadata=metadata):
        check_raises(ExchangeExists, lambda: CoscoExchange(name, 1, metadata=metadata))


def test_an_exchange_that_was_closed(name: str, metadata: str) -> None:
    with CoscoExchange(name, 1, metadata=metadata) as exchange:
        reader = CoscoReader(name, [0], 0, metadata=metadata)
        CoscoExchange.attach(name, metadata=metadata).close()
        check_raises(ExchangeClosed, lambda: CoscoWriter(name, 0, metadata=metadata))
        check_raises(ExchangeClosed, reader.next)
        check_raises(ExchangeClosed, exchange.progress)
        reader.close()


def test_another_generation(name: str, metadata: str) -> None:
    with CoscoExchange(name, 1, deterministic=False, metadata=metadata):
        check_raises(
            GenerationChanged, lambda: CoscoReader(name, [], 0, generation=2, metadata=metadata)
        )


def test_bad_arguments(name: str, metadata: str) -> None:
    with CoscoExchange(name, 1, metadata=metadata) as exchange:
        with CoscoWriter(name, 0, metadata=metadata) as writer:
            check_raises(InvalidArgument, lambda: CoscoWriter(name, -1, metadata=metadata))
            check_raises(InvalidArgument, lambda: fetch_status("nonsense"))
            check_raises(InvalidArgument, lambda: writer.collect_batch([0, 0], [b"row"]))
            check_raises(PartitionOutOfRange, lambda: writer.collect(1, b"row"))
            check_raises(PartitionOutOfRange, lambda: writer.collect_batch([7], [b"row"]))
            check_raises(PartitionOutOfRange, lambda: CoscoReader(name, [], 1, metadata=metadata))
            check_raises(InvalidRow, lambda: writer.collect(0, "text"))  # type: ignore[arg-type]
            check_raises(InvalidRow, lambda: writer.collect_batch([0], [7]))
        for live in (exchange, writer):
            check_raises(NotPicklable, lambda: pickle.dumps(live))  # noqa: B023


def test_rows_of_another_schema(name: str, metadata: str) -> None:
    schema = pa.schema([("key", pa.int64())])
    other = pa.record_batch({"key": ["text"]})
    with CoscoExchange(name, 1, schema=schema, metadata=metadata):
        with CoscoWriter(name, 0, metadata=metadata) as writer:
            check_raises(SchemaMismatch, lambda: writer.collect(0, b"row"))
            check_raises(SchemaMismatch, lambda: writer.collect_batch([0], other))
        with CoscoReader(name, [0], 0, metadata=metadata) as reader:
            check_raises(SchemaMismatch, reader.next)
    check_raises(InvalidArgument, lambda: CoscoExchange(f"{name}-2", 1, schema="int64"))  # type: ignore[arg-type]


def test_mappers_that_do_not_commit(name: str, metadata: str) -> None:
    with CoscoExchange(name, 1, metadata=metadata):
        with CoscoReader(name, [7], 0, timeout_s=0, metadata=metadata) as reader:
            check_raises(CommitTimeout, reader.next)
            check_raises(CommitTimeout, reader.read_table)


def test_objects_that_were_closed(name: str, metadata: str) -> None:
    with CoscoExchange(name, 1, metadata=metadata) as exchange:
        writer = CoscoWriter(name, 0, metadata=metadata)
        writer.abort()
        reader = CoscoReader(name, [0], 0, metadata=metadata)
        reader.close()
        check_raises(ClientClosed, lambda: writer.collect(0, b"row"))
        check_raises(ClientClosed, writer.close)
        check_raises(ClientClosed, reader.next)
    check_raises(ClientClosed, exchange.progress)


def test_a_reader_that_another_thread_closes(name: str, metadata: str) -> None:
    with CoscoExchange(name, 1, metadata=metadata):
        reader = CoscoReader(name, [0], 0, metadata=metadata)

        def close_soon() -> None:
            until(lambda: bool(reader._scope._calls), WAIT_S)
            reader.close()

        thread = threading.Thread(target=close_soon)
        thread.start()
        with pytest.raises(ClientClosed) as caught:
            reader.next()
        thread.join()
        check_travels(caught.value)


def test_no_daemon_for_a_copy(name: str) -> None:
    with LocalCluster(1, memory="16MiB") as cluster:
        metadata = cluster.metadata
        check_raises(
            CapacityExceeded, lambda: CoscoExchange(name, 1, min_replicas=2, metadata=metadata)
        )


def test_nobody_answers(name: str) -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{reserved.getsockname()[1]}"
        check_raises(ServiceUnavailable, lambda: CoscoWriter(name, 0, metadata=address))
        check_raises(ServiceUnavailable, lambda: fetch_status(address))
        check_raises(ServiceUnavailable, lambda: read_metrics(address))


def test_another_service_answers(name: str, cluster: LocalCluster) -> None:
    daemon = cluster.daemons[0].address
    for use in (lambda: CoscoWriter(name, 0, metadata=daemon), lambda: fetch_status(daemon)):
        with pytest.raises(CoscoError) as caught:
            use()
        check_travels(caught.value)


def test_metrics_of_a_web_server() -> None:
    class NotFound(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(404)

        def log_message(self, *_: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), NotFound) as server:
        threading.Thread(target=server.serve_forever).start()
        address = f"127.0.0.1:{server.server_port}"
        check_raises(ServiceUnavailable, lambda: read_metrics(address))
        server.shutdown()


def test_a_group(name: str, metadata: str) -> None:
    with CoscoExchangeGroup(name, 1, 2, 1, metadata=metadata) as group:
        handle = group.handle()
        check_raises(InvalidArgument, lambda: handle.writer(7, 0))
        group.release(1)
        check_raises(ExchangeClosed, lambda: group.handle().reader(1, 0))
        with handle.reader(0, 0, timeout_s=0) as reader:
            check_raises(CommitTimeout, reader.next)


def test_a_daemon_is_killed_under_a_writer(name: str, cluster: LocalCluster) -> None:
    metadata = cluster.metadata
    with CoscoExchange(name, 1, metadata=metadata):
        writer = CoscoWriter(name, 0, service_timeout_s=0.5, metadata=metadata)
        writer.collect(0, b"row")
        for daemon in cluster.daemons:
            daemon.kill()
        try:
            with pytest.raises(CoscoError) as caught:
                writer.close()
            check_travels(caught.value)
        finally:
            for daemon in cluster.daemons:
                daemon.restart()


def test_the_service_is_killed_under_everybody(name: str, cluster: LocalCluster) -> None:
    metadata = cluster.metadata
    options: dict[str, Any] = {"service_timeout_s": 0.2, "metadata": metadata}
    group = CoscoExchangeGroup(name, 1, 1, 1, **options)
    exchange = CoscoExchange(f"{name}-2", 1, **options)
    cluster.metadata_service.kill()
    try:
        check_raises(ServiceUnavailable, exchange.progress)
        check_raises(ServiceUnavailable, lambda: group.extend(1))
        check_raises(ServiceUnavailable, exchange.close)
        check_raises(ServiceUnavailable, group.close)
    finally:
        cluster.metadata_service.restart()
    until(lambda: closes(exchange) and closes(group), WAIT_S)


def closes(live: CoscoExchange | CoscoExchangeGroup) -> bool:
    try:
        live.close()
    except ServiceUnavailable:  # the connection is not there yet
        return False
    return True


def test_a_cluster_that_does_not_start() -> None:
    check_raises(ServiceUnavailable, lambda: LocalCluster(1, metadata_options=["--nonsense"]))
    check_raises(InvalidArgument, lambda: LocalCluster(0))


# --- rows that are gone -------------------------------------------------------------------------


def damage(cluster: LocalCluster, name: str, how: Callable[[Path], None]) -> None:
    """Damage every stored file of an exchange, once all partitions have one."""
    number = describe(name, cluster.metadata).number

    def files() -> list[Path]:
        found = cluster.directory.glob(f"store/*/{number}/*/*")
        return [file for file in found if file.stat().st_size]

    until(lambda: len(files()) >= PARTITIONS, WAIT_S, "storing")
    for file in files():
        how(file)


def flip(file: Path) -> None:
    with file.open("r+b") as opened:
        opened.seek(CHUNK_HEADER_BYTES + 200)
        [byte] = opened.read(1)
        opened.seek(CHUNK_HEADER_BYTES + 200)
        opened.write(bytes([byte ^ 4]))


@pytest.mark.parametrize("how", [Path.unlink, flip])
def test_rows_that_are_lost(how: Callable[[Path], None], name: str, cluster: LocalCluster) -> None:
    metadata = cluster.metadata
    with CoscoExchange(name, PARTITIONS, codec="none", metadata=metadata):
        for mapper in MAPPERS:
            send(name, mapper, numbered(mapper, 300, partitions=PARTITIONS), metadata)
        damage(cluster, name, how)
        check_raises(DataLost, lambda: fetch(name, MAPPERS, 0, metadata))


def test_a_rerun_with_other_rows(name: str, cluster: LocalCluster) -> None:
    metadata = cluster.metadata

    def again(mappers: list[int], reason: str) -> None:
        for mapper in mappers:
            send(name, mapper, numbered(mapper, 200, partitions=PARTITIONS), metadata)

    with CoscoExchange(name, PARTITIONS, again, codec="none", metadata=metadata):
        for mapper in MAPPERS:
            send(name, mapper, numbered(mapper, 300, partitions=PARTITIONS), metadata)
        damage(cluster, name, Path.unlink)
        check_raises(RecomputeMismatch, lambda: fetch(name, MAPPERS, 0, metadata))


def test_bytes_that_are_damaged() -> None:
    data, _, _ = encode_block(
        exchange=1, partition=0, mapper=0, attempt=1, first_row=0, rows=1,
        content=b"a row that is long enough" * 100, codec=CODEC_LZ4,
    )  # fmt: skip
    header = parse_header(data)
    check_raises(DataCorrupted, lambda: decode_content(header, b"nonsense"))
    check_raises(DataCorrupted, lambda: parse_header(data[:10]))
