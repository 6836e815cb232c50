"""Two tenants on one cluster: what each may do, and what nobody can do to the other."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import threading
from base64 import urlsafe_b64decode
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pyroaring import BitMap
from support.exchanges import until
from support.raw_push import RawPush, channel_to, metric
from support.tenant_cluster import Tenants, make_certificates, running
from support.with_tls import make_token

from cosco import (
    Connection,
    CoscoApplication,
    CoscoExchange,
    CoscoExchangeGroup,
    CoscoReader,
    CoscoWriter,
)
from cosco.admin import close_exchange, list_exchanges, show_exchange
from cosco.errors import AccessDenied, CapacityExceeded, CoscoError, ExchangeClosed, InvalidArgument
from cosco.mechanics import NATIVE
from cosco.metadata.access.token_file import remove_record
from cosco.observe import drain_daemon, fetch_status
from cosco.process.tls.tls_files import CLIENT_VARIABLES
from cosco.protocol import wire
from cosco.protocol.fetch_records import FetchPart, FetchRequest
from cosco.protocol.group_records import CommitResult
from cosco.protocol.peer import Role
from cosco.protocol.wire import mpb

import grpc  # isort: skip  (after cosco, which turns its fork support on)

BOUND_S = 30.0


@pytest.fixture
def certs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return make_certificates(tmp_path / "certs", monkeypatch)


@pytest.fixture
def tenants(certs: Path) -> Iterator[Tenants]:
    with running(certs) as started:
        yield started


def write(name: str, who: Any, mappers: int = 2, rows: int = 400) -> None:
    for mapper in range(mappers):
        with CoscoWriter(name, mapper, metadata=who) as writer:
            for row in range(rows):
                writer.collect(row % 4, b"%d %d" % (mapper, row))


def read(name: str, who: Any, mappers: int = 2) -> int:
    found = 0
    for partition in range(4):
        with CoscoReader(
            name, range(mappers), partition, timeout_s=BOUND_S, metadata=who
        ) as reader:
            found += len(set(reader))
    return found


def peek(name: str, who: Any) -> None:
    with CoscoReader(name, [0], 0, timeout_s=0, metadata=who) as reader:
        reader.next()


def test_what_a_tenant_does_with_his_own(tenants: Tenants) -> None:
    ours = tenants.ours
    with CoscoExchange("a", 4, metadata=ours) as exchange:
        write("a", ours)
        assert read("a", ours) == 800
        assert exchange.progress().mappers_committed == 2
    with CoscoApplication("etl", metadata=ours) as application:
        with application.exchange(4) as exchange:
            write(exchange.shuffle_id, ours)
            assert read(exchange.shuffle_id, ours) == 800
    with CoscoExchangeGroup("g", 2, 2, 2, metadata=ours) as group:
        handle = group.handle()
        for mapper in range(2):
            with handle.writer(0, mapper) as writer:
                writer.collect(1, b"%d" % mapper)
        with handle.reader(0, 1, timeout_s=BOUND_S) as reader:
            assert sorted(reader) == [b"0", b"1"]
        handle.flush()


def test_a_handle_is_all_that_a_task_needs(tenants: Tenants) -> None:
    """A task has no token, and no variable that names one; another handle's it cannot use."""
    with (
        CoscoExchange("a", 4, mappers=2, metadata=tenants.ours) as exchange,
        CoscoExchange("b", 4, mappers=2, metadata=tenants.ours) as other,
    ):
        pickled = pickle.dumps(exchange.handle())
        token = (tenants.certs / "ours.token").read_bytes()
        assert token not in pickled
        program = (
            "import pickle, sys\n"
            "handle = pickle.loads(bytes.fromhex(sys.argv[1]))\n"
            "for mapper in range(2):\n"
            "    with handle.writer(mapper) as writer:\n"
            "        for row in range(400): writer.collect(row % 4, b'%d %d' % (mapper, row))\n"
            "with handle.reader(range(4)) as reader: rows = list(reader)\n"
            "print(len(rows), len(set(rows)))\n"
        )
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", program, pickled.hex()],
            capture_output=True,
            timeout=60,
            check=False,
        )
        assert done.stdout.split() == [b"800", b"800"], done.stderr
        mine = exchange.handle().metadata
        for attempt in (
            lambda: CoscoWriter("b", 0, metadata=mine),
            lambda: peek("b", mine),
            lambda: CoscoExchange("c", 4, metadata=mine),
            lambda: CoscoExchange.attach("a", own=True, metadata=mine),
            lambda: close_exchange(mine, "a"),
            lambda: fetch_status(mine),
        ):
            with pytest.raises(AccessDenied):
                attempt()
        assert other.progress().mappers_committed == 0


def test_what_is_of_another_tenant_is_out_of_reach(tenants: Tenants) -> None:
    """Every way in is refused with its reason, and the exchange goes on."""
    ours, theirs = tenants.ours, tenants.theirs
    with CoscoExchange("a", 4, metadata=ours) as exchange:
        write("a", ours)
        number = tenants.info(ours, "a").number
        for attempt in (
            lambda: CoscoWriter("a", 7, metadata=theirs),
            lambda: peek("a", theirs),
            lambda: CoscoExchange.attach("a", metadata=theirs),
            lambda: CoscoExchange.attach("a", own=True, metadata=theirs),
            lambda: close_exchange(theirs, "a"),
            lambda: show_exchange(theirs, "a"),
        ):
            with pytest.raises(AccessDenied, match="is of another tenant"):
                attempt()
        named: list[tuple[str, Any]] = [
            ("PollDriver", mpb.PollDriverRequest(number=number, owner=b"o" * 16)),
            ("Progress", mpb.ProgressRequest(number=number)),
            ("FixRowKind", mpb.FixRowKindRequest(number=number, kind=mpb.ROW_KIND_ARROW)),
            ("RenewAssignments", mpb.RenewAssignmentsRequest(number=number)),
            ("Commit", mpb.CommitRequest(number=number, mapper=0, attempt=1, generation=1)),
            ("AwaitCommits", mpb.AwaitCommitsRequest(number=number)),
            ("ReportLoss", mpb.ReportLossRequest(number=number, generation=1, build=1)),
            ("ReportUncommitted", mpb.ReportUncommittedRequest(number=number)),
        ]
        for method, request in named:
            assert "is of another tenant" in tenants.denied(theirs, method, request), method
        forged = mpb.CommitRequest(number=number, mapper=5, attempt=1 << 63, generation=1)
        reply = tenants.call(theirs, "CommitBatch", mpb.CommitBatchRequest(commits=[forged]))
        [result] = (wire.from_pb(CommitResult, one) for one in reply.results)
        assert not result.won
        assert isinstance(result.error, AccessDenied)
        assert read("a", ours) == 800
        assert exchange.progress().mappers_committed == 2


def test_groups_and_applications_are_of_their_tenant(tenants: Tenants) -> None:
    theirs = tenants.theirs
    with (
        CoscoExchangeGroup("g", 2, 2, 2, metadata=tenants.ours) as group,
        CoscoApplication("etl", metadata=tenants.ours) as application,
        application.exchange(2) as exchange,
    ):
        made = application.application_id if hasattr(application, "application_id") else None
        calls: list[tuple[str, Any]] = [
            ("PollGroup", mpb.PollGroupRequest(group_id="g", owner=b"o" * 16)),
            ("ReleaseExchanges", mpb.ReleaseExchangesRequest(group_id="g")),
            ("CloseGroup", mpb.CloseGroupRequest(group_id="g")),
        ]
        if made is not None:
            calls.append(("PollApplication", mpb.PollApplicationRequest(application_id=made)))
        for method, request in calls:
            assert "is of another tenant" in tenants.denied(theirs, method, request), method
        with pytest.raises(AccessDenied):
            CoscoExchangeGroup("g", 2, 2, 2, metadata=theirs)
        with pytest.raises(AccessDenied):
            CoscoWriter(exchange.shuffle_id, 0, metadata=theirs)
        with group.handle().writer(0, 0) as writer:
            writer.collect(0, b"a row")
        group.handle().flush()


def test_daemons_give_nobody_rows_by_their_numbers(tenants: Tenants) -> None:
    """A stranger may guess where rows are; what he has is a capability of his own exchange."""
    with (
        CoscoExchange("a", 4, metadata=tenants.ours),
        CoscoExchange("b", 4, metadata=tenants.theirs),
    ):
        write("a", tenants.ours)
        info, own = tenants.info(tenants.ours, "a"), tenants.info(tenants.theirs, "b")
        assert info.capability
        one = info.assignments[0]
        part = FetchPart(one.range_index, one.epoch, BitMap([0]))
        for capability in ("", own.capability, info.capability[:-4] + "AAAA"):
            request = FetchRequest(info.number, (part,), capability=capability)
            with channel_to(one.primary.address) as channel:
                stream = channel.unary_stream(f"/{wire.SHUFFLE_SERVICE}/Fetch")
                with pytest.raises(grpc.RpcError) as caught:
                    list(stream(wire.fetch_request_to_bytes(request), timeout=10))
            error: Any = caught.value
            assert error.code() is grpc.StatusCode.PERMISSION_DENIED
        assert read("a", tenants.ours) == 800


def test_a_commit_by_anyone_else_is_refused(tenants: Tenants) -> None:
    """Also by one of the same tenant: who commits was told the attempt when it was opened."""
    with CoscoExchange("a", 4, metadata=tenants.ours):
        writer = CoscoWriter("a", 0, metadata=tenants.ours)
        writer.collect(0, b"a row")
        number = tenants.info(tenants.ours, "a").number
        for attempt in (1, 2, 1 << 36, (1 << 36) + 1, (1 << 37) - 1):
            request = mpb.CommitRequest(number=number, mapper=0, attempt=attempt, generation=1)
            with pytest.raises(grpc.RpcError, match="was never opened"):
                tenants.call(tenants.ours, "Commit", request)
        assert writer.close().won
        with CoscoReader("a", [0], 0, metadata=tenants.ours) as reader:
            assert list(reader) == [b"a row"]


def test_roles(tenants: Tenants) -> None:
    daemon = tenants.cluster.daemons[0].address
    with (
        CoscoExchange("a", 4, metadata=tenants.ours),
        CoscoExchange("b", 4, metadata=tenants.theirs),
    ):
        told = {
            name: [one.shuffle_id for one in fetch_status(who).exchanges]
            for name, who in (("ours", tenants.ours), ("viewer", tenants.viewer))
        }
        assert told == {"ours": ["a"], "viewer": ["a"]}
        assert [one.shuffle_id for one in fetch_status(tenants.admin).exchanges] == ["a", "b"]
        assert [one.shuffle_id for one in list_exchanges(tenants.viewer).exchanges] == ["a"]
        assert show_exchange(tenants.viewer, "a").status.shuffle_id == "a"
        attempts: tuple[Callable[[], object], ...] = (
            lambda: CoscoWriter("a", 0, metadata=tenants.viewer),
            lambda: peek("a", tenants.viewer),
            lambda: CoscoExchange("c", 4, metadata=tenants.viewer),
            lambda: close_exchange(tenants.viewer, "a"),
            lambda: show_exchange(tenants.viewer, "b"),
            lambda: drain_daemon(tenants.viewer, daemon),
            lambda: drain_daemon(tenants.ours, daemon),
        )
        for attempt in attempts:
            with pytest.raises(AccessDenied):
                attempt()
        assert close_exchange(tenants.admin, "b")
        drain_daemon(tenants.admin, daemon)


def test_who_has_no_good_token_is_told_and_nothing_is_done(tenants: Tenants) -> None:
    metadata = tenants.cluster.metadata
    with CoscoExchange("a", 4, metadata=tenants.ours) as exchange:
        for bad, says in (
            (Connection(metadata), "needs a token, and none was shown"),
            (Connection(metadata, token="cosco-token-ours.guessed"), "is unknown here"),
            (Connection(metadata, token="cosco-token-nobody.x"), "is unknown here"),
            (Connection(metadata, token="cosco1.AAAA"), "no capability of an exchange"),
            (Connection(metadata, token="eyJhbGciOiJub25lIn0.e30."), "--jwks"),
        ):
            for attempt in (
                lambda bad=bad: CoscoExchange("stranger", 4, metadata=bad),
                lambda bad=bad: CoscoWriter("a", 0, metadata=bad),
                lambda bad=bad: fetch_status(bad),
            ):
                with pytest.raises(AccessDenied, match=says) as caught:
                    attempt()
                assert "guessed" not in str(caught.value)
        assert exchange.progress().mappers_committed == 0
        assert [one.shuffle_id for one in fetch_status(tenants.admin).exchanges] == ["a"]


def test_a_revoked_token_is_refused_and_handles_go_on(tenants: Tenants) -> None:
    with CoscoExchange("a", 4, mappers=2, metadata=tenants.ours) as exchange:
        handle = exchange.handle()
        remove_record(tenants.certs / "tokens", "ours")

        def is_refused() -> bool:
            try:
                fetch_status(tenants.ours)
            except AccessDenied:
                return True
            return False

        until(is_refused, BOUND_S, "the end of the token")
        with pytest.raises(AccessDenied, match="was revoked"):
            CoscoWriter("a", 0, metadata=tenants.ours)
        with handle.writer(0) as writer:
            writer.collect(0, b"a row")
        with handle.reader(0, [0]) as reader:
            assert list(reader) == [b"a row"]
        # Its driver renews no lease any more, as its token is none; the next one is taken up.
        make_token(tenants.certs, "next", "ours", Role.TENANT).replace(tenants.certs / "ours.token")
        until(lambda: not is_refused(), BOUND_S, "the new token")
        assert exchange.progress().mappers_committed == 1


def test_a_capability_ends_with_its_exchange(tenants: Tenants) -> None:
    with CoscoExchange("a", 4, mappers=1, metadata=tenants.ours) as exchange:
        handle = exchange.handle()
        with handle.writer(0) as writer:
            writer.collect(0, b"a row")
    with pytest.raises(ExchangeClosed):
        handle.writer(0)
    with pytest.raises(ExchangeClosed), handle.reader(0) as reader:
        reader.next()


def key_id_of(capability: str) -> int:

    return int.from_bytes(urlsafe_b64decode(capability.removeprefix("cosco1."))[:4], "big")


def test_keys_rotate_under_a_running_exchange(certs: Path) -> None:
    """Old handles stay good while keys come and go, for streams that are open and new ones."""
    with running(certs, "--key-rotation-s", "1", "--daemon-lease-s", "1") as tenants:
        ours = tenants.ours
        with CoscoExchange("a", 4, mappers=9, metadata=ours) as exchange:
            handle = exchange.handle()
            first = key_id_of(tenants.info(ours, "a").capability)
            open_one = handle.writer(8)
            seen: set[int] = set()
            mapper = 0

            def has_turned() -> bool:
                nonlocal mapper
                open_one.collect(mapper % 4, b"open %d" % mapper)
                with CoscoExchange(f"other {mapper}", 4, metadata=ours):
                    write(f"other {mapper}", ours, rows=40)
                    assert read(f"other {mapper}", ours) == 80
                    seen.add(key_id_of(tenants.info(ours, f"other {mapper}").capability))
                if mapper < 8:
                    with handle.writer(mapper) as writer:
                        writer.collect(mapper % 4, b"%d" % mapper)
                mapper += 1
                return mapper >= 8 and len(seen) >= 3

            until(has_turned, 60, "two new keys")
            assert min(seen) >= first
            open_one.close()
            with handle.reader(range(4)) as reader:
                assert len(list(reader)) == 8 + mapper
            tenants.cluster.metadata_service.kill()
            tenants.cluster.metadata_service.restart()
            with handle.reader(0) as reader:  # the keys are those of before
                assert list(reader)


def test_a_tenant_has_no_more_exchanges_than_it_may(certs: Path) -> None:
    with running(certs, "--tenant-exchanges", "2") as tenants:
        first = CoscoExchange("a", 4, metadata=tenants.ours)
        with CoscoExchange("b", 4, metadata=tenants.ours):
            with pytest.raises(CapacityExceeded, match="tenant ours has 2 open exchanges"):
                CoscoExchange("c", 4, metadata=tenants.ours)
            with CoscoExchange("d", 4, metadata=tenants.theirs):
                pass
            first.close()
            CoscoExchange("c", 4, metadata=tenants.ours).close()


def test_a_tenant_has_no_more_bytes_stored_than_it_may(certs: Path) -> None:
    """Who has as much is refused before and while he writes, and nobody else is."""
    quick = ("--heartbeat-s", "0.1")
    with running(certs, "--tenant-stored-bytes", "12MiB", daemon_options=quick) as tenants:
        rows = [os.urandom(1 << 20) for _ in range(8)]
        wanted = r"tenant ours has \d+ bytes stored, and may have"
        with CoscoExchange("full", 4, replicas=1, metadata=tenants.ours) as full:
            writer = full.handle().writer(0, buffer_bytes=1 << 20)
            with pytest.raises(CapacityExceeded, match="as many bytes stored as it may"):
                for _ in range(1000):  # what daemons hold in memory is not stored yet
                    writer.collect_batch([0, 1, 2, 3] * 2, rows)
            with pytest.raises(CapacityExceeded, match=wanted):
                CoscoExchange("another", 4, metadata=tenants.ours)
            with pytest.raises(CapacityExceeded, match=wanted):
                full.handle().writer(1).close()
            with CoscoExchange("theirs", 4, replicas=1, metadata=tenants.theirs) as theirs:
                with theirs.handle().writer(0) as other:
                    other.collect_batch([0, 1, 2, 3] * 2, rows)
                with theirs.handle().reader(0, [0]) as reader:
                    assert sorted(reader) == sorted([rows[0], rows[4]])
        # Closed exchanges count no more.
        CoscoExchange("later", 4, replicas=1, metadata=tenants.ours).close()


@pytest.mark.skipif(NATIVE is None, reason="grpcio asks everybody for a certificate, or nobody")
def test_clients_without_certificates_show_a_token(
    certs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    optional = ("--tls-client-auth", "optional")
    with running(certs, *optional, daemon_options=optional) as tenants:
        for variable in CLIENT_VARIABLES[1:]:
            monkeypatch.delenv(variable)
        with CoscoExchange("a", 4, metadata=tenants.ours):
            write("a", tenants.ours)
            assert read("a", tenants.ours) == 800
            with pytest.raises(AccessDenied, match="none was shown"):
                fetch_status(Connection(tenants.cluster.metadata))


@pytest.mark.skipif(NATIVE is None, reason="grpcio asks everybody for a certificate, or nobody")
def test_a_daemon_that_asks_for_nothing_at_all_lets_in_nobody(certs: Path) -> None:
    (certs / "tokens").unlink()
    with running(certs, daemon_options=("--tls-client-auth", "optional")) as tenants:
        metadata = tenants.cluster.metadata
        with CoscoExchange("a", 4, metadata=metadata):
            writer = CoscoWriter("a", 0, metadata=metadata)
            writer.collect(0, b"a row")
            with pytest.raises(AccessDenied, match="--tls-client-auth optional"):
                writer.close()


def test_no_secret_is_in_logs_status_nor_the_list_of_processes(tenants: Tenants) -> None:
    secrets = {path.read_text().rpartition(".")[2] for path in tenants.certs.glob("*.token")}
    with CoscoExchange("a", 4, mappers=2, metadata=tenants.ours) as exchange:
        write("a", tenants.ours)
        capability = tenants.info(tenants.ours, "a").capability
        secrets.add(capability[-40:])
        with pytest.raises(AccessDenied):
            CoscoWriter("a", 0, metadata=tenants.theirs)
        with pytest.raises(AccessDenied):
            CoscoExchange("x", 4, metadata=Connection(tenants.cluster.metadata))
        shown = [repr(exchange.handle()), repr(tenants.ours), repr(exchange), str(tenants.ours)]
        told = json.dumps(
            [repr(fetch_status(tenants.admin)), repr(show_exchange(tenants.admin, "a"))]
        )
        directory = tenants.cluster.directory
        logs = [path.read_text(errors="replace") for path in directory.rglob("*.log")]
        commands = [
            path.read_text(errors="replace")
            for path in Path("/proc").glob("[0-9]*/cmdline")
            if path.exists()
        ]
        assert len(logs) == 3
        for secret in secrets:
            assert len(secret) > 20
            for text in (*shown, told, *logs, *commands):
                assert secret not in text


def test_calls_of_strangers_harm_no_running_exchange(tenants: Tenants) -> None:
    """Floods of calls that are refused, while rows go."""
    stop = threading.Event()
    refused = 0

    def flood() -> None:
        nonlocal refused
        with channel_to(tenants.cluster.metadata) as channel:
            stub = channel.unary_unary(f"/{wire.METADATA_SERVICE}/CreateExchange")
            request = mpb.CreateExchangeRequest(owner=b"o" * 16).SerializeToString()
            while not stop.is_set():
                shown = [("authorization", "Bearer cosco-token-ours.wrong")]
                with pytest.raises(grpc.RpcError):
                    stub(request, timeout=10, metadata=shown)
                refused += 1

    threads = [threading.Thread(target=flood) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        for turn in range(3):
            with CoscoExchange(f"a{turn}", 4, metadata=tenants.ours):
                write(f"a{turn}", tenants.ours)
                assert read(f"a{turn}", tenants.ours) == 800
        until(lambda: refused > 200, BOUND_S, "refused calls")
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    counted = (tenants.cluster.directory / "metadata.log").read_text()
    assert "Traceback" not in counted


def test_tokens_that_cannot_be_used_are_told_at_the_start(certs: Path) -> None:
    (certs / "tokens").write_text("nonsense\n")
    with pytest.raises((InvalidArgument, CoscoError), match="line 1"), running(certs):
        pass


def test_commits_that_come_after_the_end_of_a_group_hold_up_no_others(tenants: Tenants) -> None:
    """Its handle is good for nothing any more, and that is no failure of who flushes."""
    for turn in range(3):
        with CoscoExchangeGroup(f"over {turn}", 2, 1, 1, metadata=tenants.ours) as group:
            over = group.handle()
            with over.writer(0, 0) as writer:
                writer.collect(0, b"a row")
        with CoscoExchangeGroup(f"next {turn}", 2, 1, 1, metadata=tenants.ours) as group:
            handle = group.handle()
            with handle.writer(0, 0) as writer:
                writer.collect(0, b"a row")
            handle.flush()
            over.flush()
            name = f"next {turn}/0"
            assert show_exchange(tenants.ours, name).status.mappers_committed == 1


def too_many_streams(tenants: Tenants) -> float:
    """How many streams daemons have refused as their tenant had all he may."""
    status = fetch_status(tenants.admin)
    addresses = [daemon.metrics_address for daemon in status.daemons]
    return sum(metric(one, "cosco_refused_total", bound="tenant_streams") for one in addresses)


def test_a_tenant_has_no_more_streams_than_he_may_and_others_have_theirs(certs: Path) -> None:
    """Who is refused tries again, and goes on once one of his tenant has ended."""
    with running(certs, daemon_options=("--tenant-streams", "1")) as tenants:
        with (
            CoscoExchange("a", 4, replicas=1, metadata=tenants.ours),
            CoscoExchange("b", 4, replicas=1, metadata=tenants.theirs),
        ):
            hog = RawPush.to(tenants.info(tenants.ours, "a"), mapper=9)
            hog.announce(1000)
            assert hog.reply().granted == 1  # so it is open, and counted

            def leave_once_somebody_was_refused() -> None:
                until(lambda: too_many_streams(tenants) > 0, BOUND_S)
                hog.close()

            leaving = threading.Thread(target=leave_once_somebody_was_refused)
            write("b", tenants.theirs)
            assert too_many_streams(tenants) == 0
            leaving.start()
            write("a", tenants.ours)
            leaving.join()
            assert read("a", tenants.ours) == read("b", tenants.theirs) == 800


@pytest.mark.parametrize("share", ["0.2", "0.0001"])
def test_a_tenant_has_no_more_memory_than_he_may_and_others_have_theirs(
    certs: Path, share: str
) -> None:
    """Both write at once, much more than there is memory, however little of it is one tenant's."""
    with running(certs, daemon_options=("--tenant-memory-share", share)) as tenants:
        both = {"a": tenants.ours, "b": tenants.theirs}
        exchanges = [
            CoscoExchange(name, 4, codec="none", metadata=who) for name, who in both.items()
        ]
        rows = [bytes([n % 251]) * 40_000 for n in range(1000)]

        def write_much(name: str, who: Connection) -> None:
            with CoscoWriter(name, 0, metadata=who) as writer:
                for n, row in enumerate(rows):
                    writer.collect(n % 4, row)

        threads = [threading.Thread(target=write_much, args=one) for one in both.items()]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for name, who in both.items():
            with CoscoReader(name, [0], 1, metadata=who) as reader:
                assert sorted(reader) == sorted(rows[1::4])
        for exchange in exchanges:
            exchange.close()
