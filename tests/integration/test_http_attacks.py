"""What others can do to the HTTP interface, by a service as users start it: nothing.

An attack is a test. Without tokens everybody who reaches the loopback may do everything, but no
page of the web may; with tokens nobody may without one, and each tenant sees its own.
"""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.exchanges import until
from support.http_client import JSON as TYPED
from support.http_client import Reply, Web, raw, rest_of, trusting, url_of
from support.log_lines import JSON
from support.processes import Services, end_of
from support.with_tls import make_token, options

from cosco import Connection, CoscoExchange
from cosco.metadata.access.token_file import remove_record
from cosco.process.tls.authority import CA, make_authority, renew
from cosco.protocol.peer import Role

BOUND_S = 20.0


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    with Services(tmp_path_factory.mktemp("attacks"), metadata_options=JSON) as started:
        started.daemon("--heartbeat-s", "0.2", "--memory", "16MiB")
        yield started


@pytest.fixture(scope="module")
def web(services: Services) -> Web:
    return Web(url_of(services.metadata_service))


@pytest.fixture
def victim(services: Services, name: str) -> Iterator[str]:
    """The path of an exchange that must stay open."""
    with CoscoExchange(name, 2, replicas=1, metadata=services.metadata):
        yield f"exchanges/{name}"


def is_problem(reply: Reply, status: int, *says: str) -> None:
    assert reply.status == status, reply
    assert reply.headers["content-type"] == "application/problem+json"
    problem = reply.json()
    assert problem.keys() == {"title", "status", "detail", "error", "retriable"}
    assert problem["status"] == status
    for text in says:
        assert text in problem["detail"], problem
    assert "Traceback" not in reply.body


# --- pages of others ---------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/api/v1/cluster", "/api/v1/live", "/metrics", "/healthz", "/x"])
def test_a_name_of_somebody_else_leads_nowhere(web: Web, path: str) -> None:
    """DNS rebinding: the browser takes us for its page, and names that in `Host`."""
    port = web.address[1]
    for host in (f"evil.example:{port}", "evil.example", f"localhost.evil.example:{port}"):
        is_problem(web.ask(path, headers={"Host": host}), 421, "--http-host")
    assert web.ask(path, "HEAD", headers={"Host": f"localhost:{port}"}).status in {200, 404}


def test_two_hosts_are_none(web: Web) -> None:
    head = f"GET /api/v1/cluster HTTP/1.1\r\nHost: {web.host}\r\nHost: evil.example\r\n\r\n"
    with raw(web, head.encode()) as connection:
        assert connection.recv(1 << 16).startswith(b"HTTP/1.1 400 ")


def test_of_two_headers_none_is_believed(web: Web, victim: str) -> None:
    """Who is between may read the other one of the two."""
    for name, one, other in (
        ("Origin", "https://evil.example", f"http://{web.host}"),
        ("Content-Type", "text/plain", "application/json"),
    ):
        typed = "" if name == "Content-Type" else "Content-Type: application/json\r\n"
        head = (
            f"POST /api/v1/{victim}/close HTTP/1.1\r\nHost: {web.host}\r\nContent-Length: 2\r\n"
            f"{typed}{name}: {one}\r\n{name}: {other}\r\n\r\n{{}}"
        )
        with raw(web, head.encode()) as connection:
            assert connection.recv(1 << 16).startswith(b"HTTP/1.1 400 "), name
    assert web.get(victim)["state"] == "open"


def test_no_page_of_others_changes_anything(web: Web, victim: str) -> None:
    origins = ("https://evil.example", "null", "http://localhost:3000", "http://127.0.0.1")
    for origin in origins:
        is_problem(web.post(f"{victim}/close", {}, Origin=origin), 403, "may change nothing")
    for site in ("cross-site", "same-site"):
        is_problem(web.post(f"{victim}/close", {}, **{"Sec-Fetch-Site": site}), 403)
        reply = web.ask("/api/v1/cluster", headers={"Sec-Fetch-Site": site})
        is_problem(reply, 403)
    assert web.get(victim)["state"] == "open"
    ours = web.post(f"{victim}/close", {}, Origin=f"http://{web.host}")
    assert ours.json() == {"was_open": True}


@pytest.mark.parametrize(
    "sent",
    ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", None],
)
def test_no_form_changes_anything(web: Web, victim: str, sent: str | None) -> None:
    headers = {} if sent is None else {"Content-Type": sent}
    is_problem(web.ask(f"/api/v1/{victim}/close", "POST", b"{}", headers), 415, "application/json")
    assert web.get(victim)["state"] == "open"


def test_nobody_is_told_that_others_may_read_it(web: Web) -> None:
    for path in ("/api/v1/cluster", "/metrics", "/api", "/nothing", "/api/v1/exchanges?limit=x"):
        headers = web.ask(path, headers={"Origin": "https://evil.example"}).headers
        assert not any(name.startswith("access-control") for name in headers)
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert headers["cache-control"] == "no-store"
        assert "server" not in headers


# --- nonsense, and too much --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("exchanges?cursor=zz", 400),
        ("exchanges?cursor=" + "a" * 5000, 400),
        ("groups?cursor=ZXhjaGFuZ2VzOjE", 400),
        ("exchanges?limit=0", 400),
        ("exchanges?limit=501", 400),
        ("exchanges?limit=nan", 400),
        ("exchanges?state=gone", 400),
        ("exchanges?prefix=" + "a" * 2000, 400),
        ("exchanges/" + "a" * 1025, 400),
        ("exchanges/%ff", 400),
        ("exchanges/x/commits?wait=nan", 400),
        ("exchanges/x/commits?wait=1e9", 400),
        ("exchanges/x/commits?after=-1", 400),
        ("exchanges/a%00b", 404),
        ("exchanges/../cluster", 404),
        ("exchanges/%2e%2e%2fcluster", 404),
        ("nothing", 404),
        ("cluster/", 404),
    ],
)
def test_what_makes_no_sense_is_told(web: Web, path: str, status: int) -> None:
    is_problem(web.ask(f"/api/v1/{path}"), status)


def test_methods_that_are_not_there(web: Web) -> None:
    for method in ("PUT", "PATCH", "OPTIONS", "TRACE", "NONSENSE"):
        reply = web.ask("/api/v1/cluster", method, headers=TYPED)
        is_problem(reply, 405)
        assert reply.headers["allow"] == "GET"


@pytest.mark.parametrize(
    "body", ['{"a": 1}', "[]", "1", "{", '"x"', "\x00", '{"token": "\\ud800"}', "[" * 30000]
)
def test_bodies_that_are_none(web: Web, victim: str, body: str) -> None:
    for path in (f"{victim}/close", "session"):
        is_problem(web.ask(f"/api/v1/{path}", "POST", body, TYPED), 400)
    assert web.get(victim)["state"] == "open"


def test_too_long_is_refused_before_it_has_come(web: Web) -> None:
    is_problem(web.ask("/api/v1/session", "POST", b" " * 70_000, TYPED), 413, "65536")
    head = f"POST /api/v1/session HTTP/1.1\r\nHost: {web.host}\r\n"
    endless = "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    with raw(web, (head + endless).encode()) as connection:
        chunk = b"4000\r\n" + b" " * 0x4000 + b"\r\n"
        for _ in range(5):
            connection.sendall(chunk)
        assert connection.recv(1 << 16).startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize(
    "head",
    [
        "GET /" + "a" * 40_000 + " HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\n" + "".join(f"X-{i}: {'y' * 100}\r\n" for i in range(400)) + "\r\n",
        "GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
        "GET\r\n\r\n",
        "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        "GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
    ],
)
def test_what_is_no_request_ends_the_connection(web: Web, head: str) -> None:
    with raw(web) as connection:
        with contextlib.suppress(OSError):
            connection.sendall(head.encode("latin-1") + b"\r\n\r\n")
        said = rest_of(connection)
    assert not said or said.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 421 ")), said
    assert web.get("cluster")


def test_slow_and_idle_clients_keep_nobody_out(web: Web) -> None:
    """More connections than there may be, of which none says anything; requests go on at once."""
    idle = [raw(web, b"GET / HTTP/1.1\r\n" * (at % 2)) for at in range(300)]
    try:
        for _ in range(5):
            begun = time.monotonic()
            assert web.get("cluster")
            assert time.monotonic() - begun < 2
        rest_of(idle[0])  # the oldest had to go
    finally:
        for connection in idle:
            connection.close()


def test_half_a_request_ends_nobody_who_listens(web: Web, services: Services, name: str) -> None:
    """Who has sent a part of one goes before whose request is whole, though he came later."""
    head = (
        f"POST /api/v1/session HTTP/1.1\r\nHost: {web.host}\r\nContent-Type: application/json\r\n"
        "Content-Length: 2\r\nExpect: 100-continue\r\n\r\n"
    ).encode()
    half = []
    with web.live() as events:
        assert next(events)[0] == "snapshot"
        try:
            for _ in range(300):
                half.append(raw(web, head))
                assert half[-1].recv(1 << 10).startswith(b"HTTP/1.1 100 "), "it is under way"
                half[-1].sendall(b"{")
            with CoscoExchange(name, 2, replicas=1, metadata=services.metadata):
                told = (data["fields"] for kind, data in events if kind == "event")
                assert any(fields.get("exchange") == name for fields in told), "it has ended"
            rest_of(half[0])  # the oldest had to go
        finally:
            for connection in half:
                connection.close()


def taking_nothing(web: Web) -> socket.socket:
    """A client that asks for much, and reads nothing of it."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.connect(web.address)
    client.settimeout(BOUND_S)
    request = f"GET /openapi.json HTTP/1.1\r\nHost: {web.host}\r\n\r\n".encode()
    client.sendall(request * 2000)
    return client


def is_left(client: socket.socket) -> bool:
    """Whether the other side has gone, which is heard of without reading."""
    try:
        client.send(b"\r\n")
    except OSError:
        return True
    return False


@pytest.mark.slow
def test_slow_clients_are_left(web: Web) -> None:
    """Of a head, of a body, and of who takes no answer: each has 10 s."""
    head = (
        f"POST /api/v1/session HTTP/1.1\r\nHost: {web.host}\r\nContent-Type: application/json\r\n"
    )
    clients = {
        "says nothing": b"",
        "half a head": b"GET / HTTP/1.1\r\nHost:",
        "half a body": (head + "Content-Length: 100\r\n\r\n{").encode(),
    }
    begun = time.monotonic()
    connections = {what: raw(web, sent) for what, sent in clients.items()}
    deaf = taking_nothing(web)
    said = {}

    def drip(connection: socket.socket) -> None:
        try:
            while True:
                connection.sendall(b"x")
                time.sleep(0.5)
        except OSError:
            pass

    dripping = threading.Thread(target=drip, args=(connections["half a head"],), daemon=True)
    dripping.start()
    for what, connection in connections.items():
        connection.settimeout(30)
        with connection:
            said[what] = rest_of(connection)
    assert 9 < time.monotonic() - begun < 20
    assert said["half a body"].startswith(b"HTTP/1.1 408 ")
    dripping.join(BOUND_S)
    with deaf:
        until(lambda: is_left(deaf), BOUND_S, "the end of who takes no answer")


def test_listeners_are_bounded_and_come_back(web: Web) -> None:
    ask = f"GET /api/v1/live HTTP/1.1\r\nHost: {web.host}\r\n\r\n".encode()
    listening = [raw(web, ask) for _ in range(60)]
    try:
        answers = [one.recv(1 << 12).split(b"\r\n")[0] for one in listening]
        assert answers.count(b"HTTP/1.1 200 OK") == 48
        assert answers.count(b"HTTP/1.1 503 Service Unavailable") == 12
    finally:
        for one in listening:
            one.close()
    until(lambda: web.ask("/api/v1/live", "HEAD").status == 200, BOUND_S, "room")


# --- tokens ------------------------------------------------------------------------------------


class Cluster:
    def __init__(self, directory: Path, services: Services) -> None:
        self.directory = directory
        self.services = services
        self.url = url_of(services.metadata_service)
        self.tls = trusting(directory / CA, directory / "client.pem", directory / "client-key.pem")

    def token(self, name: str) -> str:
        return (self.directory / f"{name}.token").read_text()

    def web(self, name: str = "", cookie: str = "") -> Web:
        return Web(self.url, self.token(name) if name else "", cookie=cookie, tls=self.tls)

    def exchange(self, name: str, who: str) -> CoscoExchange:
        files = {"ca": CA, "cert": "client.pem", "key": "client-key.pem"}
        connection = Connection(
            self.services.metadata,
            token_file=self.directory / f"{who}.token",
            **{option: self.directory / file for option, file in files.items()},
        )
        return CoscoExchange(name, 2, replicas=1, metadata=connection)


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A service whose HTTP is HTTPS, for all addresses of this machine."""
    directory = tmp_path_factory.mktemp("guarded")
    make_authority(directory, [], 30)
    for name, tenant, role in (
        ("ours", "ours", Role.TENANT),
        ("theirs", "theirs", Role.TENANT),
        ("viewer", "ours", Role.VIEWER),
        ("leaves", "ours", Role.VIEWER),
        ("admin", "operators", Role.ADMIN),
    ):
        make_token(directory, name, tenant, role)
    https = ("--http", "0.0.0.0:0")
    with Services(
        directory, metadata_options=(*JSON, *options(directory, "metadata"), *https)
    ) as started:
        started.daemon("--heartbeat-s", "0.2", "--memory", "16MiB", *options(directory, "daemon"))
        yield Cluster(directory, started)


ROUTES = (
    "cluster", "daemons", "exchanges", "groups", "applications", "events", "session", "live",
    "exchanges/x", "exchanges/x/partitions", "exchanges/x/assignments", "exchanges/x/commits",
)  # fmt: skip


def test_without_a_token_there_is_nothing(guarded: Cluster) -> None:
    for who in (guarded.web(), Web(guarded.url, "cosco-token-x.y", tls=guarded.tls)):
        for path in ROUTES:
            reply = who.ask(f"/api/v1/{path}")
            is_problem(reply, 401)
            assert reply.headers["www-authenticate"].startswith("Bearer")
        for path in ("exchanges/x/close", "daemons/x:1/drain", "stores/x/forget"):
            is_problem(who.post(path, {}), 401)
        is_problem(who.ask("/metrics"), 401)
        assert who.ask("/healthz").status == who.ask("/readyz").status == 200


def test_without_a_certificate_nobody_is_heard(guarded: Cluster) -> None:
    stranger = Web(guarded.url, tls=trusting(guarded.directory / CA))
    with pytest.raises((ssl.SSLError, ConnectionError)):
        stranger.ask("/healthz")
    plain = Web(guarded.url)
    with pytest.raises((ConnectionError, OSError, ValueError)):
        plain.ask("/healthz")


def test_a_new_certificate_is_taken_up(guarded: Cluster) -> None:
    def shown() -> bytes | None:
        with socket.create_connection(guarded.web().address, BOUND_S) as plain:
            with guarded.tls.wrap_socket(plain, server_hostname="127.0.0.1") as connection:
                return connection.getpeercert(binary_form=True)

    before = shown()
    renew(guarded.directory, [], 30)
    until(lambda: shown() != before, BOUND_S, "the new one")
    assert guarded.web("viewer").get("cluster")


def test_handshakes_that_never_end_keep_nobody_out(guarded: Cluster) -> None:
    web = guarded.web("viewer")
    idle = [raw(web) for _ in range(300)]
    try:
        begun = time.monotonic()
        assert web.get("cluster")
        assert time.monotonic() - begun < 5
        rest_of(idle[0])  # the oldest had to go
    finally:
        for connection in idle:
            connection.close()


def test_on_the_loopback_it_is_plain_and_asks_for_tokens_too(
    tmp_path: Path, guarded: Cluster
) -> None:
    secure = options(guarded.directory, "metadata")
    with Services(tmp_path, metadata_options=(*JSON, *secure)) as started:
        url = url_of(started.metadata_service)
        assert url.startswith("http://127.0.0.1:")
        is_problem(Web(url).ask("/api/v1/cluster"), 401)
        assert "cosco_exchanges" in Web(url).ask("/metrics").body, "as it always was"
        assert Web(url, guarded.token("viewer")).get("cluster")
        begun = Web(url).post("session", {"token": guarded.token("viewer")})
        assert "Secure" not in begun.headers["set-cookie"], "a browser would not send it"
        cookie = begun.headers["set-cookie"].partition(";")[0]
        assert Web(url, cookie=cookie).get("session")["name"] == "viewer"


def test_each_tenant_sees_its_own(guarded: Cluster, name: str) -> None:
    with guarded.exchange(f"{name}-o", "ours"), guarded.exchange(f"{name}-t", "theirs"):
        for who, sees in (
            ("viewer", {f"{name}-o"}),
            ("ours", {f"{name}-o"}),
            ("theirs", {f"{name}-t"}),
            ("admin", {f"{name}-o", f"{name}-t"}),
        ):
            web = guarded.web(who)
            listed = {e["shuffle_id"] for e in web.pages("exchanges?limit=1", "exchanges")}
            assert {one for one in listed if one.startswith(name)} == sees, who
            told = {e["fields"].get("exchange") for e in web.get("events?limit=500")["events"]}
            assert {one for one in told if one and one.startswith(name)} == sees, who
            for one in (f"{name}-o", f"{name}-t"):
                for below in ("", "/partitions", "/assignments", "/commits"):
                    reply = web.ask(f"/api/v1/exchanges/{one}{below}")
                    assert reply.status == (200 if one in sees else 403), (who, one, below)
            with web.live() as events:
                figures = next(events)[1]["figures"]
            assert figures["exchanges_open"] == len(sees), who
        viewer = guarded.web("viewer")
        is_problem(viewer.ask("/api/v1/exchanges?tenant=theirs"), 403, "ours alone")
        assert viewer.get("exchanges?tenant=ours")["exchanges"]
        assert len(guarded.web("admin").get("exchanges?tenant=theirs")["exchanges"]) == 1


def test_each_tenant_sees_its_own_that_have_finished(guarded: Cluster, name: str) -> None:
    for who in ("ours", "theirs"):
        with guarded.exchange(f"{name}-{who}", who):
            pass
    ours, theirs = f"exchanges/{name}-ours", f"exchanges/{name}-theirs"
    viewer, admin = guarded.web("viewer"), guarded.web("admin")
    for one in (ours, theirs):
        until(lambda one=one: admin.get(one)["state"] == "finished", BOUND_S, "its end")
    assert (viewer.get(ours)["tenant"], admin.get(theirs)["tenant"]) == ("ours", "theirs")
    assert viewer.ask(f"/api/v1/{theirs}").status == 403
    listed = f"exchanges?state=finished&prefix={name}"
    for web, sees in ((viewer, ["ours"]), (admin, ["ours", "theirs"])):
        found = web.get(listed)["exchanges"]
        assert [(one["shuffle_id"], one["tenant"]) for one in found] == [
            (f"{name}-{who}", who) for who in sees
        ]


def test_who_may_change_what(guarded: Cluster, name: str) -> None:
    daemon = guarded.services.daemons[0].address
    with guarded.exchange(name, "ours"):
        for who in ("viewer", "theirs"):
            is_problem(guarded.web(who).post(f"exchanges/{name}/close", {}), 403)
        for who in ("viewer", "ours", "theirs"):
            is_problem(guarded.web(who).post(f"daemons/{daemon}/drain", {}), 403, "role admin")
            is_problem(guarded.web(who).post("daemons/nobody:1/drain", {}), 403, "role admin")
            is_problem(guarded.web(who).post("stores/x/forget", {}), 403, "role admin")
        assert guarded.web("viewer").get(f"exchanges/{name}")["state"] == "open"
        assert guarded.web("ours").post(f"exchanges/{name}/close", {}).json()["was_open"]
    assert guarded.web("admin").post("daemons/nobody:1/drain", {}).status == 404


def test_what_a_handle_carries_sees_nothing(guarded: Cluster, name: str) -> None:
    with guarded.exchange(name, "ours") as exchange:
        connection = exchange.handle().metadata
        credential = connection.credential()
        assert credential is not None
        task = Web(guarded.url, credential(), tls=guarded.tls)
        for path in ("cluster", "exchanges", f"exchanges/{name}", "events", "live", "session"):
            is_problem(task.ask(f"/api/v1/{path}"), 403)
        is_problem(guarded.web().post("session", {"token": credential()}), 401)


def cookie_of(reply: Reply) -> str:
    assert reply.status == 200, reply
    cookie, *attributes = reply.headers["set-cookie"].split("; ")
    assert {"HttpOnly", "SameSite=Strict", "Secure", "Path=/"} <= set(attributes)
    return cookie


def test_a_session_is_what_its_token_is(guarded: Cluster) -> None:
    begun = guarded.web().post("session", {"token": guarded.token("viewer")})
    cookie = cookie_of(begun)
    assert guarded.token("viewer") not in begun.body + str(begun.headers)
    assert begun.json() == {"asks": True, "name": "viewer", "tenant": "ours", "role": "viewer"}
    page = guarded.web(cookie=cookie)
    assert page.get("session") == begun.json()
    with page.live() as events:
        assert next(events)[0] == "snapshot"
    is_problem(page.post("stores/x/forget", {}), 403, "role admin")
    origin = {"Origin": "https://evil.example"}
    is_problem(page.ask("/api/v1/session", "DELETE", headers=origin), 403)
    assert page.get("session")
    assert page.ask("/api/v1/session", "DELETE").status == 204
    is_problem(page.ask("/api/v1/session"), 401)
    for guess in ("__Host-cosco_session=", f"{cookie}x", "__Host-cosco_session=" + "a" * 43):
        is_problem(guarded.web(cookie=guess).ask("/api/v1/cluster"), 401)
    for token in ("cosco-token-viewer.x", "x y", "\n", "x"):
        is_problem(guarded.web().post("session", {"token": token}), 401)


def test_a_token_that_is_revoked_ends_its_sessions(guarded: Cluster) -> None:
    page = guarded.web(cookie=cookie_of(guarded.web().post(
        "session", {"token": guarded.token("leaves")})))  # fmt: skip
    with page.live() as events:
        assert next(events)[0] == "snapshot"
        remove_record(guarded.directory / "tokens", "leaves")
        kinds = [kind for kind, _ in events]
    assert kinds[-1] == "end"
    is_problem(page.ask("/api/v1/cluster"), 401, "revoked")


def test_who_has_a_bad_token_is_not_helped_by_a_good_session(guarded: Cluster) -> None:
    cookie = cookie_of(guarded.web().post("session", {"token": guarded.token("viewer")}))
    for header in ("Bearer x", "Basic eDp5", "", "Bearer"):
        reply = guarded.web(cookie=cookie).ask("/api/v1/cluster", headers={"Authorization": header})
        is_problem(reply, 401)


def test_metrics_are_for_who_has_any_token(guarded: Cluster) -> None:
    assert "cosco_exchanges" in guarded.web("viewer").ask("/metrics").body


def test_no_secret_is_told(guarded: Cluster) -> None:
    guarded.web().post("session", {"token": guarded.token("viewer")})
    guarded.web("admin").get("events?limit=500&severity=debug")
    log = guarded.services.metadata_service.log.read_text()
    for name in ("viewer", "admin", "ours"):
        assert guarded.token(name).rpartition(".")[2] not in log
    assert "exception" not in json.dumps(log).lower()


# --- starting ----------------------------------------------------------------------------------


def test_who_would_let_in_everybody_does_not_start(tmp_path: Path) -> None:
    store = ("--store", f"sqlite:///{tmp_path}/x.db", "--listen", "127.0.0.1:0")
    code, lines = end_of("cosco.cli.metadata", *store, "--http", "0.0.0.0:0", log=tmp_path / "log")
    assert (code, len(lines)) == (2, 1)
    assert "--http 0.0.0.0:0 would let in everybody" in lines[0]
