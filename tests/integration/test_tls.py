"""A cluster with TLS: rows, strangers, and certificates that change under a running exchange."""

from __future__ import annotations

import os
import pickle
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from support.children import fork, join
from support.exchanges import until
from support.raw_push import RawMetadata, request_bytes
from support.with_tls import options

from cosco import (
    Connection,
    CoscoExchange,
    CoscoExchangeGroup,
    CoscoReader,
    CoscoWriter,
    LocalCluster,
)
from cosco.client.rpc import metadata_client
from cosco.errors import InvalidArgument, ServiceUnavailable
from cosco.mechanics import NATIVE
from cosco.metadata.service.guard import DAEMON_METHODS
from cosco.observe import fetch_status
from cosco.process.tls.authority import CA, make_authority, renew
from cosco.process.tls.tls_files import CLIENT_VARIABLES
from cosco.protocol import wire
from cosco.protocol.push.messages import Hello, PushRequest
from cosco.protocol.wire import mpb
from cosco.protocol.wire.bulk import push_reply_from_bytes

import grpc  # isort: skip  (after cosco, which turns its fork support on)

#: Interpreters that choose the transport anew.
pytestmark = pytest.mark.usefixtures("fresh_interpreters")

BOUND_S = 20.0
#: By whom the services' calls are carried; this process's own are by what it has.
WAYS = [pytest.param("native", marks=pytest.mark.skipif(NATIVE is None, reason="x")), "portable"]


@pytest.fixture(autouse=True)
def quick_first_contact(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata_client, "FIRST_CONTACT_S", 1.5)


@pytest.fixture
def certs(tmp_path: Path) -> Path:
    make_authority(tmp_path / "certs", [], 30)
    return tmp_path / "certs"


Be = Callable[[Path | None, str], None]


@pytest.fixture
def be(monkeypatch: pytest.MonkeyPatch) -> Be:
    """Have this process's environment name the files of a role in a directory, or none."""

    def name(directory: Path | None, role: str = "client") -> None:
        files = (CA, f"{role}.pem", f"{role}-key.pem")
        for variable, file in zip(CLIENT_VARIABLES, files, strict=True):
            if directory is None:
                monkeypatch.delenv(variable, raising=False)
            else:
                monkeypatch.setenv(variable, str(directory / file))

    return name


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """By which transport services speak."""
    if request.param == "portable":
        monkeypatch.setenv("COSCO_NATIVE", "off")
    return str(request.param)


@pytest.fixture
def cluster(way: str, certs: Path, be: Be) -> Iterator[LocalCluster]:
    be(certs, "client")
    with LocalCluster(
        2,
        memory="32MiB",
        metadata_options=options(certs, "metadata"),
        daemon_options=options(certs, "daemon"),
    ) as started:
        yield started


def shuffle(name: str, metadata: str, mappers: int = 3, rows: int = 3000) -> None:
    """Write and read rows, and check them."""
    with CoscoExchange(name, 4, metadata=metadata):
        for mapper in range(mappers):
            with CoscoWriter(name, mapper, metadata=metadata) as writer:
                for row in range(rows):
                    writer.collect(row % 4, b"%d %d" % (mapper, row))
        for partition in range(4):
            with CoscoReader(name, range(mappers), partition, metadata=metadata) as reader:
                expected = sorted(
                    b"%d %d" % (mapper, row)
                    for mapper in range(mappers)
                    for row in range(partition, rows, 4)
                )
                assert sorted(reader) == expected


def test_rows_go_with_two_copies(cluster: LocalCluster) -> None:
    shuffle("a", cluster.metadata)
    assert len(fetch_status(cluster.metadata).daemons) == 2


def test_a_connection_names_the_files_for_all_services(
    cluster: LocalCluster, certs: Path, be: Be, tmp_path: Path
) -> None:
    be(None)
    make_authority(tmp_path / "other", [], 30)
    connection, stranger = (
        Connection(
            cluster.metadata,
            ca=directory / CA,
            cert=directory / "client.pem",
            key=directory / "client-key.pem",
        )
        for directory in (certs, tmp_path / "other")
    )
    with CoscoExchange("a", 4, metadata=connection) as exchange:
        handle = pickle.loads(pickle.dumps(exchange.handle()))
        with handle.writer(0) as writer:
            writer.collect(1, b"a row")
        for place in (stranger, cluster.metadata):  # nobody is let in beside who may
            with pytest.raises(ServiceUnavailable):
                CoscoWriter("a", 1, metadata=place)
            with pytest.raises(ServiceUnavailable):
                fetch_status(place, timeout_s=2.0)
        for partitions in (1, [0, 1]):
            with handle.reader(partitions, [0]) as reader:
                assert list(reader) == [b"a row"]
        assert len(fetch_status(connection).daemons) == 2
    with CoscoExchangeGroup("g", 1, 1, 1, metadata=connection) as group:
        of_group = pickle.loads(pickle.dumps(group.handle()))
        with of_group.writer(0, 0) as writer:
            writer.collect(0, b"a row")
        with of_group.reader(0, 0, timeout_s=BOUND_S) as reader:
            assert list(reader) == [b"a row"]
        of_group.flush()


def test_a_daemon_that_dies_loses_nothing(cluster: LocalCluster) -> None:
    metadata = cluster.metadata
    with CoscoExchange("a", 4, metadata=metadata):
        with CoscoWriter("a", 0, metadata=metadata) as writer:
            for row in range(2000):
                writer.collect(row % 4, b"%d" % row)
                if row == 1000:
                    cluster.daemons[0].kill()
        found = []
        for partition in range(4):
            with CoscoReader("a", [0], partition, metadata=metadata) as reader:
                found += list(reader)
        assert sorted(found) == sorted(b"%d" % row for row in range(2000))


#: What the native client says, by who it is and whom it meets: gRPC's server gives no reason.
REASONS = {
    "plain": {
        "native": "what answers there speaks TLS",
        "portable": "it was closed by the peer, before receiving SETTINGS",
    },
    "other authority": {
        "native": "its certificate is not signed by the CA that is trusted here",
        "portable": "its certificate is not signed by the CA that is trusted here",
    },
    "no certificate": {
        "native": "it wants a certificate of this end",
        "portable": "it ended after the handshake of TLS",
    },
}


@pytest.mark.parametrize("who", REASONS)
def test_a_stranger_is_told_why_he_is_not_let_in(
    way: str,
    cluster: LocalCluster,
    certs: Path,
    be: Be,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    who: str,
) -> None:
    if who == "plain":
        be(None, "client")
    elif who == "no certificate":
        for variable in CLIENT_VARIABLES[1:]:
            monkeypatch.delenv(variable)
    else:
        make_authority(tmp_path / "other", [], 30)
        be(tmp_path / "other", "client")
    for address in (cluster.metadata, cluster.daemons[0].address):
        with pytest.raises(ServiceUnavailable) as caught:
            CoscoExchange("stranger", 1, metadata=address)
        assert address in str(caught.value)
        if NATIVE is not None:
            assert REASONS[who][way] in str(caught.value)
    be(certs, "client")
    shuffle("a", cluster.metadata)


def test_who_speaks_tls_to_a_service_without_it_is_told(be: Be, certs: Path) -> None:
    be(None, "client")
    with LocalCluster(2, memory="32MiB") as plain:
        be(certs, "client")
        with pytest.raises(ServiceUnavailable) as caught:
            CoscoExchange("a", 1, metadata=plain.metadata)
        if NATIVE is not None:
            assert "speaks no TLS" in str(caught.value)
        be(None, "client")
        shuffle("a", plain.metadata)


def serial_at(address: str, certs: Path) -> int:
    """Return the number of the certificate that a service shows now."""
    context = ssl.create_default_context(cafile=str(certs / CA))
    context.load_cert_chain(certs / "client.pem", certs / "client-key.pem")
    context.set_alpn_protocols(["h2"])
    host, _, port = address.rpartition(":")
    with (
        socket.create_connection((host, int(port)), timeout=10) as raw,
        context.wrap_socket(raw, server_hostname=host) as wrapped,
    ):
        shown = wrapped.getpeercert(binary_form=True)
    assert shown is not None
    return x509.load_der_x509_certificate(shown).serial_number


def test_certificates_change_under_a_running_exchange(cluster: LocalCluster, certs: Path) -> None:
    metadata = cluster.metadata
    addresses = (metadata, *(daemon.address for daemon in cluster.daemons))
    with CoscoExchange("a", 4, metadata=metadata):
        writer = CoscoWriter("a", 0, metadata=metadata)
        for row in range(1000):
            writer.collect(row % 4, b"%d" % row)
        for round_ in range(2):
            before = [serial_at(address, certs) for address in addresses]
            renew(certs, [], 30)
            until(
                lambda before=before: (
                    not {serial_at(one, certs) for one in addresses} & set(before)
                ),
                BOUND_S,
                "the new certificates",
            )
            for row in range(1000):
                writer.collect(row % 4, b"%d" % (1000 + 1000 * round_ + row))
            shuffle(f"other {round_}", metadata)
        writer.close()
        found = []
        for partition in range(4):
            with CoscoReader("a", [0], partition, metadata=metadata) as reader:
                found += list(reader)
        assert sorted(found) == sorted(b"%d" % row for row in range(3000))
        assert not [d for d in fetch_status(metadata).daemons if d.state.name != "SERVING"]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (["--tls-cert", "{certs}/daemon.pem"], "--tls-key and --tls-ca is not"),
        (
            [
                *("--tls-ca", "{certs}/ca.pem", "--tls-cert", "{certs}/daemon.pem"),
                *("--tls-key", "{certs}/client-key.pem"),
            ],
            "are no certificate and its key",
        ),
        (["--tls-client-auth", "never"], "must be require or optional"),
    ],
)
def test_options_that_make_no_sense_are_told(
    certs: Path, be: Be, given: list[str], says: str
) -> None:
    with pytest.raises((InvalidArgument, ServiceUnavailable), match=says):
        LocalCluster(1, memory="32MiB", metadata_options=[g.format(certs=certs) for g in given])


def test_files_that_the_environment_names_wrongly_are_told_at_once(
    be: Be, certs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    be(certs, "client")
    monkeypatch.setenv(CLIENT_VARIABLES[0], os.devnull)
    with pytest.raises(InvalidArgument, match="no file of PEM"):
        CoscoExchange("a", 1, metadata="127.0.0.1:1")


def test_a_forked_child_leaves_connections_to_its_parent_and_makes_its_own(
    cluster: LocalCluster,
) -> None:
    """A word of the child's would break the order of the parent's records."""
    metadata = cluster.metadata
    with CoscoExchange("a", 4, metadata=metadata):
        writer = CoscoWriter("a", 0, metadata=metadata, buffer_bytes=64 << 10)
        for row in range(3000):
            writer.collect(row % 4, b"%d" % row * 10)
            if row in {1000, 2000}:
                join(fork(lambda row=row: shuffle(f"of a child {row}", metadata, rows=400)))
        writer.close()
        found = []
        for partition in range(4):
            with CoscoReader("a", [0], partition, metadata=metadata) as reader:
                found += list(reader)
        assert sorted(found) == sorted(b"%d" % row * 10 for row in range(3000))


# --- what only services may do --------------------------------------------------------------


@contextmanager
def calling(address: str, certs: Path, role: str) -> Iterator[grpc.Channel]:
    """A channel by the certificate of a role."""
    credentials = grpc.ssl_channel_credentials(
        (certs / CA).read_bytes(),
        (certs / f"{role}-key.pem").read_bytes(),
        (certs / f"{role}.pem").read_bytes(),
    )
    with grpc.secure_channel(address, credentials) as channel:
        yield channel


def refused(channel: grpc.Channel, path: str, request: bytes) -> str:
    with pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary(path)(request, timeout=10)
    error: Any = caught.value
    assert error.code() is grpc.StatusCode.PERMISSION_DENIED, error
    return str(error.details())


def test_who_is_no_daemon_may_not_do_what_daemons_do(cluster: LocalCluster, certs: Path) -> None:
    """A false daemon would attract exchanges; one that speaks for another would have it dead."""
    before = {one.ref for one in fetch_status(cluster.metadata).daemons}
    for role in ("client", "metadata"):
        with calling(cluster.metadata, certs, role) as channel:
            for method in sorted(DAEMON_METHODS):
                said = refused(channel, f"/{wire.METADATA_SERVICE}/{method}", b"")
                assert said.startswith(f"{method} is for daemons alone")
                assert "daemon.cosco.internal" in said
                assert f"{role}.cosco.internal" in said
    assert {one.ref for one in fetch_status(cluster.metadata).daemons} == before


def test_who_is_not_the_metadata_service_may_not_seal_nor_probe(
    cluster: LocalCluster, certs: Path
) -> None:
    for role in ("client", "daemon"):
        with calling(cluster.daemons[0].address, certs, role) as channel:
            for method in ("Probe", "Seal"):
                said = refused(channel, f"/{wire.SHUFFLE_SERVICE}/{method}", b"")
                assert said.startswith(f"{method} is for the metadata service alone")
    shuffle("a", cluster.metadata)


def test_who_is_no_daemon_forwards_nothing(cluster: LocalCluster, certs: Path) -> None:
    """A stranger's stream of copies would cut off the real one, and release what it keeps."""
    hello = request_bytes(PushRequest(hello=Hello(0, 0, 0, 1, primary=7)))
    replies = []
    for role in ("client", "daemon"):
        with calling(cluster.daemons[0].address, certs, role) as channel:
            stream = channel.stream_stream(f"/{wire.SHUFFLE_SERVICE}/Push")
            replies.append(
                [push_reply_from_bytes(one) for one in stream(iter([hello]), timeout=10)]
            )
    refusals = [[one.reason for reply in said for one in reply.refused] for said in replies]
    assert len(refusals[0]) == 1
    assert "forward frames as a primary is for daemons alone" in refusals[0][0]
    assert not [reason for reason in refusals[1] if "alone" in reason]
    shuffle("a", cluster.metadata)


def test_a_daemon_with_the_certificate_of_a_client_does_not_start(certs: Path, be: Be) -> None:
    be(certs, "client")
    with pytest.raises(ServiceUnavailable, match="RegisterDaemon is for daemons alone"):
        LocalCluster(
            1,
            memory="32MiB",
            metadata_options=options(certs, "metadata"),
            daemon_options=options(certs, "client"),
        )


def test_a_cluster_without_tls_is_not_made_for_clients_with_it(certs: Path, be: Be) -> None:
    be(certs, "client")
    with pytest.raises(InvalidArgument, match="COSCO_TLS_CA is set, so clients speak TLS"):
        LocalCluster(1)


def test_a_daemon_that_does_not_listen_to_the_metadata_service_is_told_of(
    certs: Path, be: Be
) -> None:
    """It counts as silent, and the log says why."""
    be(certs, "client")
    with LocalCluster(
        1,
        memory="32MiB",
        metadata_options=options(certs, "metadata"),
        daemon_options=[*options(certs, "daemon"), "--metadata-san", "somebody.else"],
    ) as started:
        [daemon] = fetch_status(started.metadata).daemons
        service = RawMetadata(started.metadata)
        report = mpb.ReportDaemonRequest(daemon=wire.to_pb(daemon.ref))

        def log() -> str:
            return (started.directory / "metadata.log").read_text()

        def is_told() -> bool:
            """It has a second to answer, which a busy machine may need to connect."""
            service.call("ReportDaemon", report)
            return "cannot be asked who is there, and counts as silent" in log()

        until(is_told, BOUND_S, "the refusal")
        service.close()
        said = log()
    assert "is for the metadata service alone" in said
    assert "somebody.else" in said


def test_names_of_an_authority_of_ones_own(certs: Path, be: Be) -> None:
    """What the certificates have is what services are told."""
    be(certs, "client")
    names = ["--daemon-san", "localhost", "--metadata-san", "127.0.0.1"]
    with LocalCluster(
        2,
        memory="32MiB",
        metadata_options=[*options(certs, "metadata"), *names],
        daemon_options=[*options(certs, "daemon"), *names],
    ) as started:
        shuffle("a", started.metadata)
