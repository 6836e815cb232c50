"""Where a token is asked for: who signs in sees what is his, and may click on what he may do."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect
from support.browsing import Visitor, visiting
from support.http_client import url_of
from support.log_lines import JSON
from support.processes import Services
from support.with_tls import make_token, options

from cosco import Connection, CoscoExchange
from cosco.process.tls.authority import CA, make_authority
from cosco.process.tls.tls_files import CLIENT_VARIABLES
from cosco.protocol.peer import Role


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("guarded")
    make_authority(found, [], 30)
    make_token(found, "viewer", "ours", Role.VIEWER)
    make_token(found, "ours", "ours", Role.TENANT)
    make_token(found, "theirs", "theirs", Role.TENANT)
    make_token(found, "admin", "operators", Role.ADMIN)
    return found


@pytest.fixture(scope="module", params=["http", "https"])
def services(request: pytest.FixtureRequest, directory: Path) -> Iterator[Services]:
    """HTTP on the loopback, and HTTPS elsewhere."""
    below = directory / request.param
    below.mkdir()
    elsewhere = ("--http", "0.0.0.0:0", "--tls-client-auth", "optional")
    more = elsewhere if request.param == "https" else ()
    tls = options(directory, "metadata")
    with Services(below, metadata_options=(*JSON, *tls, *more)) as started:
        started.daemon("--heartbeat-s", "0.2", "--memory", "16MiB", *options(directory, "daemon"))
        yield started


@pytest.fixture
def visitor(browser: Browser, services: Services) -> Iterator[Visitor]:
    url = url_of(services.metadata_service).replace("0.0.0.0", "127.0.0.1")
    with visiting(browser, url, ignore_https_errors=True) as found:
        found.answers.add("401")  # nobody is signed in yet
        yield found


def sign_in(visitor: Visitor, token: str) -> None:
    page = visitor.page
    expect(page.get_by_role("heading", level=1)).to_have_text("Sign in")
    page.get_by_label("Token").fill(token)
    page.get_by_role("button", name="Sign in").click()


def test_who_signs_in_sees_what_is_his_and_may_do_what_he_may(
    services: Services,
    visitor: Visitor,
    directory: Path,
    name: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    files = (CA, "client.pem", "client-key.pem")
    for variable, file in zip(CLIENT_VARIABLES, files, strict=True):
        monkeypatch.setenv(variable, str(directory / file))

    def connection(who: str) -> Connection:
        return Connection(services.metadata, token_file=directory / f"{who}.token")

    page = visitor.see("", live=False)
    sign_in(visitor, "nonsense")
    expect(page.get_by_role("alert")).to_contain_text("token")
    assert visitor.context.cookies() == []
    visitor.shot("sign-in")
    with (
        CoscoExchange(f"{name}-ours", 2, replicas=1, metadata=connection("ours")),
        CoscoExchange(f"{name}-theirs", 2, replicas=1, metadata=connection("theirs")),
    ):
        address = services.daemons[0].address
        sign_in(visitor, (directory / "viewer.token").read_text())
        page.locator("#link[data-state=live]").wait_for()
        expect(page.locator("#name")).to_have_text("viewer, viewer of ours")
        [cookie] = visitor.context.cookies()
        assert cookie["httpOnly"] and cookie["sameSite"] == "Strict"
        assert cookie["secure"] == visitor.url.startswith("https")
        visitor.see("exchanges")
        expect(page.get_by_role("link", name=f"{name}-ours", exact=True)).to_be_visible()
        expect(page.get_by_role("link", name=f"{name}-theirs", exact=True)).to_have_count(0)
        visitor.see(f"exchanges/{name}-ours")
        expect(page.get_by_role("heading", name="Progress")).to_be_visible()
        expect(page.get_by_role("button", name="Close")).to_have_count(0)
        visitor.see(f"daemons/{address}")
        expect(page.get_by_role("heading", name="The daemon")).to_be_visible()
        expect(page.get_by_role("button", name="Drain", exact=True)).to_have_count(0)
        visitor.see("events?text=created")
        expect(page.locator(".events")).to_contain_text(f"{name}-ours")
        expect(page.locator(".events")).not_to_contain_text("theirs")

        page.get_by_role("button", name="Sign out").click()
        expect(page.get_by_role("heading", level=1)).to_have_text("Sign in")
        assert visitor.context.cookies() == []
        expect(page.get_by_text(f"{name}-ours")).to_have_count(0)
        sign_in(visitor, (directory / "admin.token").read_text())
        page.locator("#link[data-state=live]").wait_for()
        visitor.see(f"daemons/{address}")
        expect(page.get_by_role("button", name="Drain", exact=True)).to_be_visible()
        visitor.see("exchanges")
        expect(page.get_by_role("link", name=f"{name}-theirs", exact=True)).to_be_visible()
        page.get_by_label("Tenant").fill("ours")
        expect(page.get_by_role("link", name=f"{name}-theirs", exact=True)).to_have_count(0)
        visitor.see(f"exchanges/{name}-theirs")
        expect(page.get_by_role("button", name="Close", exact=True)).to_be_visible()
