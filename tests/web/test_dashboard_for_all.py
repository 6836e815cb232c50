"""The dashboard for whoever looks at it: axe finds nothing that keeps anybody out, on a phone and
on a wide screen, light and dark."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, expect
from support.browsing import NARROW, WIDE, visiting
from support.exchanges import numbered, send, until
from support.http_client import Web, url_of
from support.log_lines import JSON
from support.processes import Services

from cosco import CoscoApplication, CoscoExchange, CoscoExchangeGroup

EXCHANGE = "clicks/by country/of a whole year, and as long an id as somebody thinks of"
GRAVE = {"serious", "critical"}


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    options = (*JSON, "--daemon-lease-s", "1")
    with Services(tmp_path_factory.mktemp("all"), metadata_options=options) as started:
        for _ in range(3):
            started.daemon("--heartbeat-s", "0.2", "--memory", "16MiB")
        metadata = started.metadata
        with (
            CoscoExchangeGroup("batches", 4, 3, 2, replicas=1, metadata=metadata),
            CoscoApplication("nightly-etl", metadata=metadata),
            CoscoExchange(EXCHANGE, 60, replicas=2, metadata=metadata),
        ):
            send(EXCHANGE, 0, numbered(0, 3000, partitions=60), started.metadata)
            send(EXCHANGE, 1, numbered(1, 600, partitions=2), started.metadata)
            started.daemons[2].kill()
            web = Web(url_of(started.metadata_service))
            dead = "daemons?state=dead"
            until(lambda: bool(web.get(dead)["daemons"]), 20.0, "the death of a daemon")
            yield started


@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["wide", "narrow"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_grave_and_nothing_is_cut_off(
    services: Services, browser: Browser, scheme: str, size: tuple[int, int]
) -> None:
    address = services.daemons[0].address
    views = {
        "cluster": "",
        "daemons": "daemons?by=bytes_received",
        "daemon": f"daemons/{address}",
        "exchanges": "exchanges",
        "exchange": f"exchanges/{EXCHANGE.replace('/', '%2F')}",
        "groups": "groups",
        "events": "events",
    }
    options = {"color_scheme": scheme, "size": size, "reduced_motion": "reduce"}
    with visiting(browser, url_of(services.metadata_service), **options) as visitor:
        for name, view in views.items():
            page = visitor.see(view)
            expect(page.locator("main a").first).to_be_visible()
            page.locator("main .card, main tbody tr, main .events li").first.wait_for()
            if name == "exchange":
                page.locator(".sizes rect").first.wait_for()
            found = Axe().run(page).response["violations"]
            grave = [(one["id"], one["help"], [node["target"] for node in one["nodes"]])
                     for one in found if one["impact"] in GRAVE]  # fmt: skip
            assert grave == [], name
            assert page.evaluate("document.documentElement.scrollWidth") <= size[0], name
            assert page.locator("h1").count() == 1, name
            visitor.shot(f"{name}-{scheme}-{size[0]}")
        page = visitor.see("")
        page.get_by_role("button", name="What “In” means").click()
        expect(page.locator("#note")).to_be_visible()
        found = Axe().run(page).response["violations"]
        assert [one["id"] for one in found if one["impact"] in GRAVE] == []


def test_nothing_moves_for_who_wants_no_motion(services: Services, browser: Browser) -> None:
    url = url_of(services.metadata_service)
    for wish, is_still in (("reduce", True), ("no-preference", False)):
        with visiting(browser, url, reduced_motion=wish) as visitor:
            page = visitor.see("")
            duration = "getComputedStyle(document.querySelector('.piece')).transitionProperty"
            assert (page.evaluate(duration) == "none") == is_still
