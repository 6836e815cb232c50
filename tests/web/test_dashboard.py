"""The dashboard in a real browser: a real cluster works, loses a daemon and drains another."""

from __future__ import annotations

import re
import socket
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import pytest
from playwright.sync_api import Browser, expect
from support.browsing import WAIT_MS, Visitor, visiting
from support.exchanges import fetch, numbered, send, until
from support.http_client import Web, url_of
from support.log_lines import JSON
from support.processes import Services

from cosco import CoscoApplication, CoscoExchange, CoscoExchangeGroup, CoscoWriter

BOUND_S = 20.0
#: In which a page must have what the service has told; how soon it has it is printed.
TOLD_S = 30.0
PARTITIONS = 40


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    options = (*JSON, "--daemon-lease-s", "1")
    with Services(tmp_path_factory.mktemp("dash"), metadata_options=options) as started:
        for _ in range(3):
            started.daemon("--heartbeat-s", "0.2", "--memory", "16MiB")
        yield started


@pytest.fixture
def visitor(browser: Browser, services: Services) -> Iterator[Visitor]:
    with visiting(browser, url_of(services.metadata_service)) as found:
        yield found


def test_a_shuffle_is_seen_as_it_runs(services: Services, visitor: Visitor, name: str) -> None:
    page = visitor.see("")
    received = page.locator(".stat.large").filter(has_text="In").first.locator("dd")
    expect(received).to_have_text("0 B/s")
    expect(page.get_by_text("Open exchanges").locator("xpath=../dd")).to_have_text("0")
    with CoscoExchange(name, PARTITIONS, metadata=services.metadata):
        expect(page.get_by_text("Open exchanges").locator("xpath=../dd")).to_have_text("1")
        for mapper in range(3):
            # Nearly all rows are of one partition.
            send(name, mapper, numbered(mapper, 2000, partitions=1), services.metadata)
            send(name, 3 + mapper, numbered(3 + mapper, 80, partitions=40), services.metadata)
        expect(received).not_to_have_text("0 B/s")
        fetch(name, range(6), 0, services.metadata)
        out = page.locator(".stat.large").filter(has_text="Out").first.locator("dd")
        expect(out).not_to_have_text("0 B/s")
        rows_out = page.locator(".stat").filter(has_text="Rows out").locator("dd")
        expect(rows_out).to_have_text(re.compile(r"^[\d.,]*[1-9]"))
        path = page.locator("figure").first.locator("path.line.one")
        expect(path).to_have_attribute("d", re.compile(r"M.+L.+"))
        chart = page.get_by_role("img", name=re.compile("Rows in and out, the last five minutes"))
        expect(chart).to_have_attribute("aria-label", re.compile(r"In: now .*, at most .*iB/s"))
        expect(page.locator(".events li").first).to_contain_text(name)
        visitor.shot("cluster")

        # A number is made of daemons, those first that have most of it.
        received.get_by_role("link").click()
        expect(page.get_by_role("heading", level=1)).to_have_text("Daemons")
        expect(page.locator("#by")).to_have_value("bytes_received")
        rows = page.locator("tbody tr")
        expect(rows).to_have_count(3)
        totals = rows.locator("td:nth-last-child(3)").all_inner_texts()
        assert any("iB" in text for text in totals), totals
        page.locator("tbody a").first.click()
        expect(page.get_by_role("heading", level=2).first).to_have_text("The daemon")
        expect(page.get_by_text("cosco_bytes_received_total")).to_be_visible()

        page.get_by_role("link", name="Exchanges").click()
        page.get_by_role("link", name=name, exact=True).click()
        expect(page.get_by_text(re.compile("times the mean: skewed"))).to_be_visible()
        bar = page.get_by_role("progressbar", name="Mappers that have committed")
        expect(bar).to_have_attribute("value", "1")
        expect(page.get_by_text("6 of 6 mappers known so far committed")).to_be_visible()
        expect(page.locator(".wide tbody tr").first.locator("th")).to_have_text("0")
        bars = page.locator(".sizes rect")
        expect(bars).to_have_count(PARTITIONS)
        small = float(bars.nth(5).get_attribute("height") or 0)
        log = page.get_by_role("button", name="Logarithmic")
        log.click()
        expect(log).to_have_attribute("aria-pressed", "true")
        assert float(bars.nth(5).get_attribute("height") or 0) > 10 * small
        visitor.shot("exchange")
    expect(page.locator(".chip").first).to_have_text("✓ finished")
    page.get_by_role("link", name="All exchanges").click()
    expect(page.get_by_text("No exchange fits.")).to_be_visible()
    page.get_by_label("State").select_option("finished")
    expect(page.get_by_role("link", name=name, exact=True)).to_be_visible()
    page.get_by_label("Id begins with").fill("another")
    expect(page.get_by_text("No exchange fits.")).to_be_visible()


def test_a_daemon_is_drained_by_a_click_and_a_yes(
    services: Services, visitor: Visitor, name: str, tmp_path: Path
) -> None:
    web = Web(url_of(services.metadata_service))
    # With a store of its own it stays until nobody needs it.
    options = ("--heartbeat-s", "0.2", "--memory", "16MiB")
    address = services.daemon(*options, store=f"file://{tmp_path}/own").address
    exchange = CoscoExchange(name, 16, replicas=1, metadata=services.metadata)
    send(name, 0, numbered(0, 320, partitions=16), services.metadata)

    def states() -> list[str]:
        return [d["state"] for d in web.get(f"daemons?prefix={address}")["daemons"]]

    page = visitor.see(f"daemons/{address}")
    page.get_by_role("button", name="Drain").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_role("heading")).to_have_text(f"Drain {address}?")
    expect(dialog.get_by_role("button", name="Cancel")).to_be_focused()
    visitor.shot("dialog")
    dialog.get_by_role("button", name="Cancel").click()
    expect(dialog).to_have_count(0)
    assert states() == ["serving"]
    page.get_by_role("button", name="Drain").click()
    page.get_by_role("dialog").get_by_role("button", name="Drain").click()
    expect(page.locator("#notice")).to_have_text(f"{address} drains.")
    expect(page.locator(".chip").first).to_have_text("◐ draining")
    assert states() == ["draining"]
    page.get_by_role("button", name="Undrain").click()
    page.get_by_role("dialog").get_by_role("button", name="Undrain").click()
    expect(page.locator(".chip").first).to_have_text("● serving")
    assert states() == ["serving"]
    exchange.close()


def test_an_exchange_is_closed_by_a_click_and_a_yes(
    services: Services, visitor: Visitor, name: str
) -> None:
    odd = f"{name}/<img src=x onerror=alert(1)>?#%"
    exchange = CoscoExchange(odd, 2, replicas=1, metadata=services.metadata)
    page = visitor.see("exchanges")
    page.get_by_role("link", name=odd, exact=True).click()
    expect(page.get_by_role("heading", level=1)).to_have_text(odd)
    assert page.locator("img").count() == 0
    page.get_by_role("button", name="Close").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text(odd)
    dialog.get_by_role("button", name="Close the exchange").click()
    expect(page.locator("#notice")).to_have_text(f"{odd} is closed.")
    expect(page.locator(".chip").first).to_have_text("✓ finished")
    visitor.see("events")
    expect(page.locator(".events li", has_text="Exchange closed").first).to_contain_text(odd)
    assert page.locator("img").count() == 0
    exchange.close()


def test_what_keeps_exchanges_together_is_listed(
    services: Services, visitor: Visitor, name: str
) -> None:
    """A group, whose exchanges are a click away, and an application; they go as they end."""
    odd = f"{name}/<img src=x onerror=alert(1)>?&#%"
    group = CoscoExchangeGroup(odd, 4, 3, 2, replicas=1, metadata=services.metadata)
    page = visitor.see("groups")
    groups, applications = page.locator("table").all()
    row = groups.locator("tbody tr", has_text=odd)
    expect(row.locator("td").first).to_have_text("3")
    assert row.locator("td").all_text_contents()[1:4] == ["3", "4", "2"]
    expect(applications).to_contain_text("There are no applications.")
    assert page.locator("img").count() == 0
    with CoscoApplication(f"{name}-etl", metadata=services.metadata) as application:
        with application.exchange(2, replicas=1):
            row = applications.locator("tbody tr", has_text=f"{name}-etl")
            expect(row.locator("td").first).to_have_text("1")
    expect(applications).to_contain_text("There are no applications.")

    group.release(0)
    expect(groups.locator("tbody tr", has_text=odd).locator("td").first).to_have_text("2")
    groups.get_by_role("link", name=odd, exact=True).click()
    expect(page.locator("#prefix")).to_have_value(f"{odd}/")
    expect(page.locator("tbody tr").first).to_contain_text(f"{odd}/1")
    expect(page.locator("tbody tr")).to_have_count(2)
    group.close()
    visitor.see("groups")
    expect(page.locator("table").first).to_contain_text("There are no groups.")


def test_a_death_is_told(services: Services, visitor: Visitor) -> None:
    web = Web(url_of(services.metadata_service))
    daemon = services.daemon("--heartbeat-s", "0.2", "--memory", "16MiB")
    page = visitor.see("events")
    page.get_by_label("With the text").fill(daemon.address)
    # What was told before the page was there is shown, too.
    expect(page.locator(".events li")).to_contain_text("Daemon registered")
    page.get_by_label("At least").select_option("warning")
    expect(page.get_by_text("No event fits.")).to_be_visible()
    daemon.kill()
    line = page.locator(".events li", has_text="Daemon died")
    line.wait_for(timeout=1000 * TOLD_S)
    seen_s = time.time()
    expect(line).to_contain_text(daemon.address)
    expect(line).to_contain_text("lease")
    [died] = [
        event
        for event in web.get("events?severity=warning&limit=500")["events"]
        if (event["event"], event["fields"]["daemon"]) == ("daemon_died", daemon.address)
    ]
    told_s = seen_s - died["time_s"]
    print(f"a death is seen {told_s:.2f} s after it was told")
    assert told_s < TOLD_S


def test_who_waits_for_whom_after_a_loss(browser: Browser, tmp_path: Path, name: str) -> None:
    """Rows are gone with the only daemon that had them; the driver takes its time to say who runs
    again, and then the mapper does."""
    called, may_go_on = Event(), Event()

    def again(_: list[int], __: str) -> None:
        called.set()
        may_go_on.wait(BOUND_S)

    options = (*JSON, "--daemon-lease-s", "1", "--adoption-grace-s", "0")
    with Services(tmp_path, metadata_options=options) as started:
        metadata, beats = started.metadata, ("--heartbeat-s", "0.2", "--memory", "16MiB")
        started.daemon(*beats, store=f"file://{tmp_path}/own")
        rows = numbered(0, 80, partitions=4)
        with (
            CoscoExchange(name, 4, again, replicas=1, metadata=metadata),
            ThreadPoolExecutor(1) as readers,
            visiting(browser, url_of(started.metadata_service)) as visitor,
        ):
            page = visitor.see(f"exchanges/{name}")
            waits = page.get_by_role("region", name="Who waits for whom").locator("li")
            expect(waits).to_have_text("Nobody waits for anybody.")
            with CoscoWriter(name, 0, metadata=metadata) as writer:
                for partition, row in rows:
                    writer.collect(partition, row)
                expect(waits).to_have_text("Readers wait for 1 mapper to commit.")
                writer.close()
            expect(waits).to_have_text("Nobody waits for anybody.")
            started.daemons[0].kill()
            expect(waits.first).to_contain_text("wait for its next epoch", timeout=WAIT_MS)
            started.daemon(*beats)
            # Readers find out that rows are gone.
            read = readers.submit(fetch, name, [0], 0, metadata)
            assert called.wait(BOUND_S)
            said = "1 mapper called back (loss 1: "
            expect(waits.first).to_contain_text(said, timeout=WAIT_MS)
            expect(waits.first).to_contain_text("its driver has been called and has not answered")
            visitor.shot("loss")
            may_go_on.set()
            expect(waits.first).to_contain_text("its driver has them run again")
            send(name, 0, rows, metadata)
            assert read.result(BOUND_S) == Counter(row for partition, row in rows if not partition)
            expect(waits).to_have_text("Nobody waits for anybody.")
            unusual = page.get_by_role("region", name="Unusual ranges").locator("tbody tr")
            expect(unusual.first).to_contain_text("built 2 times")
            page.get_by_role("link", name="Events").click()
            page.get_by_label("With the text").fill("rebuilt")
            expect(page.locator(".events li").first).to_contain_text(name)


def test_what_a_number_means_is_told_by_keyboard(visitor: Visitor) -> None:
    page = visitor.see("")
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_be_focused()
    page.keyboard.press("Tab")
    tip = page.get_by_role("button", name="What “Open exchanges” means")
    expect(tip).to_be_focused()
    note = page.locator("#note")
    page.keyboard.press("Enter")
    expect(note).to_be_visible()
    expect(note).to_contain_text('cosco_exchanges{state="open"}')
    expect(tip).to_have_attribute("aria-describedby", "note")
    page.keyboard.press("Escape")
    expect(note).to_be_hidden()
    expect(tip).to_be_focused()
    page.keyboard.press("Enter")
    expect(note).to_be_visible()
    page.keyboard.press("Tab")
    expect(note).to_be_hidden()
    page.keyboard.press("Enter")  # the number itself
    expect(page.get_by_role("heading", level=1)).to_have_text("Exchanges")
    expect(page.get_by_role("heading", level=1)).to_be_focused()
    expect(page.locator("nav a[aria-current=page]")).to_have_text("Exchanges")
    page.go_back()
    expect(page.get_by_role("heading", level=1)).to_have_text("Cluster")


def test_the_pointer_shows_what_a_number_means(visitor: Visitor) -> None:
    page = visitor.see("")
    note = page.locator("#note")
    page.get_by_role("button", name="What “Write amplification” means").hover()
    expect(note).to_contain_text("cosco_store_write_bytes_sum / cosco_bytes_received_total")
    note.hover()
    expect(note).to_be_visible()
    page.get_by_role("button", name="What “Rows out” means").hover()
    expect(note).to_contain_text("cosco_rows_fetched_total")
    page.locator("h1").hover()
    expect(note).to_be_hidden()
    tip = page.get_by_role("button", name="What “Writers waited” means")
    tip.click()
    expect(note).to_contain_text("cosco_writers_waited_seconds_total")
    page.locator("h1").hover()
    expect(note).to_be_visible()
    page.locator("h1").click()
    expect(note).to_be_hidden()


def test_a_chart_has_its_values_as_a_table(visitor: Visitor) -> None:
    page = visitor.see("")
    page.locator("summary").first.click()
    table = page.locator("details table").first
    expect(table.get_by_role("columnheader")).to_have_text(["When", "In", "Out"])
    expect(table.get_by_role("rowheader").first).to_have_text("now")


def test_a_service_that_was_away_is_there_again(browser: Browser, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        http = f"127.0.0.1:{free.getsockname()[1]}"
    options = (*JSON, "--http", http)
    with Services(tmp_path, metadata_options=options) as started:
        service = started.metadata_service
        with visiting(browser, f"http://{http}") as visitor:
            page = visitor.see("")
            visitor.answers.add("0")
            service.kill()
            expect(page.locator("#link")).to_have_text("Away")
            expect(page.locator("#notice")).to_contain_text("does not answer")
            expect(page.locator("#notice")).to_contain_text("asked again in 2 s")
            # Chromium says so of each try.
            visitor.said.clear()
            service.start()
            page.locator("#link[data-state=live]").wait_for(timeout=20_000)
            expect(page.locator("#notice")).to_have_text("")
            visitor.said[:] = [one for one in visitor.said if "ERR_" not in one]


def test_files_are_asked_for_again_only_when_they_have_changed(services: Services) -> None:
    web = Web(url_of(services.metadata_service))
    page = web.ask("/")
    assert (page.status, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy
    found = re.findall(r'(?:src|href)="(/page/[^"]+)"', page.body)
    root = Path(__file__).resolve().parents[2] / "cosco/metadata/http/page"
    files = {f"/page/{one.relative_to(root)}" for one in root.rglob("*.*")}
    assert set(found) == files - {"/page/index.html"}, "index.html names all that is needed"
    for path in ("/", *found):
        first = web.ask(path)
        assert first.headers["cache-control"] == "no-cache"
        again = web.ask(path, headers={"If-None-Match": first.headers["etag"]})
        assert (again.status, again.body) == (304, "")
        assert web.ask(path, headers={"If-None-Match": '"other"'}).body == first.body
    assert web.ask("/page/../models.py").status in {400, 404}
    assert web.ask("/page/none.js").status == 404
    until(lambda: web.ask("/api/v1/cluster").headers["cache-control"] == "no-store", BOUND_S)
