"""What a running cluster says of itself, by the Status call and the metrics; and drains."""

from __future__ import annotations

import http.client
import time
import urllib.request
from collections.abc import Iterable
from dataclasses import astuple, dataclass
from typing import Any, Final

import grpc
from prometheus_client.parser import text_string_to_metric_families

from cosco.client.access.service_connection import Connection
from cosco.errors import CoscoError, ServiceUnavailable
from cosco.process.grpc_settings import CHANNEL_OPTIONS
from cosco.process.tls.grpc_credentials import new_channel_of
from cosco.process.tls.tls_files import client_files
from cosco.process.wrong_address import guess
from cosco.protocol import wire
from cosco.protocol.html_view import rows, size
from cosco.protocol.peer import CREDENTIAL_HEADER, credential_header
from cosco.protocol.records import DaemonState, DaemonStatus, ExchangeInfo, ExchangeStatus

#: Between two tries, where the service can do nothing now.
_PAUSE_S: Final = 0.2
#: A daemon's page of metrics is a few KiB.
_MAX_METRICS_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class ClusterStatus:
    """The daemons and exchanges a metadata service knows.

    exchanges: the newest, at most 1,000. open, closing: how many there are in all.
    version: which build the service is; empty: of one that does not tell.
    """

    cluster_id: str
    daemons: tuple[DaemonStatus, ...]
    exchanges: tuple[ExchangeStatus, ...]
    open: int = 0
    closing: int = 0
    version: str = ""

    def _repr_html_(self) -> str:
        """Return what a notebook shows: the daemons."""
        title = f"cluster {self.cluster_id}: {self.open} exchanges open, {self.closing} closing"
        head = ("daemon", "state", "memory", "free", "assignments")
        cells = [
            (
                d.ref.address,
                d.state.name.lower(),
                size(d.memory_bytes),
                size(d.free_bytes),
                f"{d.assignments}",
            )
            for d in self.daemons
        ]
        return rows(title, head, cells)


@dataclass(frozen=True, slots=True)
class IoFigures:
    """What daemons took in and what they did to their store since they started; bytes."""

    blocks_received: int = 0
    bytes_received: int = 0
    duplicates_dropped: int = 0
    chunks_stored: int = 0
    bytes_stored: int = 0
    writes: int = 0
    write_bytes: int = 0
    reads: int = 0
    read_bytes: int = 0

    def since(self, earlier: IoFigures) -> IoFigures:
        """Return what was added after `earlier` was read of the same daemons."""
        return IoFigures(
            *(now - then for now, then in zip(astuple(self), astuple(earlier), strict=True))
        )

    @property
    def mean_write_bytes(self) -> float:
        """The mean length of a write; 0 where nothing was written."""
        return self.write_bytes / self.writes if self.writes else 0.0

    @property
    def mean_read_bytes(self) -> float:
        """The mean length of a read; 0 where nothing was read."""
        return self.read_bytes / self.reads if self.reads else 0.0


#: field of IoFigures → sample of a daemon's Prometheus endpoint
_SAMPLES: Final = {
    "blocks_received": "cosco_blocks_received_total",
    "bytes_received": "cosco_bytes_received_total",
    "duplicates_dropped": "cosco_duplicates_dropped_total",
    "chunks_stored": "cosco_chunks_stored_total",
    "bytes_stored": "cosco_bytes_stored_total",
    "writes": "cosco_store_write_bytes_count",
    "write_bytes": "cosco_store_write_bytes_sum",
    "reads": "cosco_store_read_bytes_count",
    "read_bytes": "cosco_store_read_bytes_sum",
}


def fetch_status(
    metadata: Connection | str, timeout_s: float = 10.0, *, figures: bool = False
) -> ClusterStatus:
    """Ask the metadata service at `metadata` (host:port) what there is.

    figures: ask for what daemons have done, too.

    Raises: ServiceUnavailable when it does not answer within `timeout_s`, InvalidArgument for
    what is no address.
    """
    reply = call_metadata(metadata, "Status", wire.mpb.StatusRequest(figures=figures), timeout_s)
    return ClusterStatus(
        cluster_id=reply.cluster_id,
        daemons=tuple(wire.from_pb(DaemonStatus, pb) for pb in reply.daemons),
        exchanges=tuple(wire.from_pb(ExchangeStatus, pb) for pb in reply.exchanges),
        open=reply.open,
        closing=reply.closing,
        version=reply.version,
    )


def describe_exchange(
    metadata: Connection | str, shuffle_id: str, timeout_s: float = 10.0
) -> ExchangeInfo:
    """Return an open exchange as its clients see it.

    Raises: ExchangeNotFound and ExchangeClosed, else as `fetch_status` does.
    """
    request = wire.mpb.DescribeExchangeRequest(shuffle_id=shuffle_id)
    return wire.from_pb(
        ExchangeInfo, call_metadata(metadata, "DescribeExchange", request, timeout_s)
    )


def drain_daemon(metadata: Connection | str, daemon: str, timeout_s: float = 10.0) -> None:
    """Have the metadata service at `metadata` move everything away from `daemon` (host:port).

    Raises: InvalidArgument when no such daemon lives, else as `fetch_status` does.
    """
    call_metadata(metadata, "DrainDaemon", wire.mpb.DrainDaemonRequest(daemon=daemon), timeout_s)


def call_metadata(metadata: Connection | str, method: str, request: Any, timeout_s: float) -> Any:
    """Make one call, again and again while the service says that it can do nothing now.

    Raises: what it said, InvalidArgument for what is no address, and for files of the connection
    that cannot be used.
    """
    connection = metadata if isinstance(metadata, Connection) else Connection(metadata)
    wire.say_protocol(method, request)
    deadline = time.monotonic() + timeout_s
    why: CoscoError | None = None
    while True:
        left_s = deadline - time.monotonic()
        try:
            return _try_call(connection, method, request, left_s)
        except _Told as told:
            why = told.error
        except ServiceUnavailable as error:
            why = why or error  # what the service said before says more than its silence
            break
        if not why.retriable or not isinstance(why, ServiceUnavailable) or left_s <= _PAUSE_S:
            break
        time.sleep(_PAUSE_S)
    raise why


class _Told(Exception):
    """The service answered, with an error."""

    def __init__(self, error: CoscoError) -> None:
        super().__init__(str(error))
        self.error = error


def _try_call(connection: Connection, method: str, request: Any, timeout_s: float) -> Any:
    request_type, reply_type = wire.METADATA_METHODS[method]
    options: dict[str, Any] = {"timeout": timeout_s}
    if (credential := connection.credential()) is not None:
        header = credential_header(credential())
        options["metadata"] = ((CREDENTIAL_HEADER, header),)
    with _channel(connection) as channel:
        call = channel.unary_unary(
            f"/{wire.METADATA_SERVICE}/{method}",
            request_serializer=request_type.SerializeToString,
            response_deserializer=reply_type.FromString,
        )
        try:
            return call(request, **options)
        except grpc.RpcError as error:
            failure = _failure(error, connection.address)
    raise failure  # not above: it would carry gRPC's own along, which cannot be pickled


def _channel(connection: Connection) -> Any:
    files = client_files(names=connection.tls)
    content = None if files is None else files.current()
    return new_channel_of(grpc, connection.address, content, CHANNEL_OPTIONS)


def _failure(error: grpc.RpcError, metadata: str) -> _Told | ServiceUnavailable:
    """Return what a failed call means."""
    meant = dict(getattr(error, "trailing_metadata", tuple)() or ()).get(wire.ERROR_KEY)
    if meant is not None:
        return _Told(wire.error_from_bytes(meant))
    code = getattr(error, "code", None)  # the base class has none, what calls raise does
    name = str(code().name) if callable(code) else type(error).__name__
    details = getattr(error, "details", str)() or ""
    reason = f"{name}: {meaning}" if (meaning := guess(details)) else name
    return ServiceUnavailable(
        f"the metadata service at {metadata} does not answer ({reason}): "
        "check that cosco-metadata runs there, or name it with --metadata"
    )


def read_metrics(address: str, timeout_s: float = 10.0) -> dict[str, float]:
    """Return the samples of a Prometheus endpoint, added up over their labels.

    Raises: ServiceUnavailable.
    """
    # A daemon is never behind the proxy of the environment.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"http://{address}/metrics", timeout=timeout_s) as reply:
            return _totals(reply.read(_MAX_METRICS_BYTES).decode())
    except (OSError, http.client.HTTPException, ValueError) as error:  # ValueError: other text
        failure = str(error)  # alone: an error of HTTP holds its connection, and cannot be pickled
    raise ServiceUnavailable(f"no metrics from the daemon at {address}: {failure}")


def _totals(text: str) -> dict[str, float]:
    totals: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            totals[sample.name] = totals.get(sample.name, 0.0) + sample.value
    return totals


def io_figures(daemons: Iterable[DaemonStatus]) -> IoFigures:
    """Return the figures of all living daemons together.

    A daemon that serves no metrics adds nothing.

    Raises: ServiceUnavailable.
    """
    totals = dict.fromkeys(_SAMPLES, 0)
    for daemon in daemons:
        if daemon.state is DaemonState.DEAD or not daemon.metrics_address:
            continue
        samples = read_metrics(daemon.metrics_address)
        for name, sample in _SAMPLES.items():
            totals[name] += int(samples.get(sample, 0.0))
    return IoFigures(**totals)
