"""The dashboard of a large cluster: 10,000 open exchanges and 1,000 daemons."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest
from playwright.sync_api import Browser, expect
from support.browsing import Visitor, visiting
from support.exchanges import until
from support.http_client import Web

ROOT = Path(__file__).resolve().parents[2]
#: Bounds that any machine keeps, whatever else it does; what it took is printed.
FIRST_PICTURE_MS = 20_000
HELD_MS = 500
TRIES = 5


class Many:
    """The service, and what it prints."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdin is not None and process.stdout is not None
        self._stdin: IO[str] = process.stdin
        self._stdout: IO[str] = process.stdout
        self.url, _ = self._stdout.readline().split()
        assert self.url.startswith("http://"), self.url
        # An answer leaves once all that came before it is durable.
        until(self._is_durable, 60.0, "an answer")
        self.held()

    def _is_durable(self) -> bool:
        try:
            return Web(self.url).ask("/api/v1/cluster").status == 200
        except TimeoutError:
            return False

    def held(self) -> tuple[float, str]:
        """For how many ms what has held up the event loop since the last time."""
        self._stdin.write("\n")
        self._stdin.flush()
        held_ms, _, what = self._stdout.readline().strip().partition(" ")
        return float(held_ms), what


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Many]:
    process = subprocess.Popen(
        [sys.executable, ROOT / "tests/web/many_things.py", tmp_path_factory.mktemp("many")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    with process:
        yield Many(process)
        process.stdin.close()  # type: ignore[union-attr]


@pytest.fixture
def visitor(browser: Browser, many: Many) -> Iterator[Visitor]:
    with visiting(browser, many.url) as found:
        yield found


def test_the_first_picture_is_there(visitor: Visitor) -> None:
    taken = []
    for _ in range(TRIES):
        visitor.page.goto("about:blank")
        visitor.page.goto(visitor.url)
        page = visitor.page
        page.locator(".stat dd").get_by_text("1,000", exact=True).wait_for(timeout=FIRST_PICTURE_MS)
        page.locator("path.line.one[d^=M]").first.wait_for(
            state="attached", timeout=FIRST_PICTURE_MS
        )
        page.locator(".daemons li").nth(7).wait_for(timeout=FIRST_PICTURE_MS)
        taken.append(page.evaluate("performance.now()"))
    print(f"first picture after {', '.join(f'{one:.0f}' for one in taken)} ms")
    visitor.shot("many")
    assert min(taken) < FIRST_PICTURE_MS


def test_lists_go_on_by_pages_and_have_no_more_rows_than_one(visitor: Visitor) -> None:
    page = visitor.see("exchanges")
    rows = page.locator("tbody tr")
    expect(rows).to_have_count(50)
    expect(rows.first).to_contain_text("job-000/stage-00")
    page.get_by_role("button", name="Next").click()
    expect(rows.first).to_contain_text("job-000/stage-50")
    page.get_by_role("button", name="Back").click()
    expect(rows.first).to_contain_text("job-000/stage-00")
    page.get_by_label("Id begins with").fill("job-099/stage-9")
    expect(rows).to_have_count(10)
    expect(page.get_by_role("button", name="Next")).to_be_disabled()

    visitor.see("daemons?by=write_bytes")
    expect(page.locator("#by")).to_have_value("write_bytes")
    expect(rows).to_have_count(25)
    expect(rows.first).to_contain_text("host-1000")  # which writes most
    expect(rows.first.locator("td.number").first).to_contain_text("iB/s")
    page.get_by_role("button", name="Next").click()
    expect(rows.first).to_contain_text("host-0975")
    page.get_by_label("Address begins with").fill("rack-07-host-0087")
    expect(rows).to_have_count(1)
    page.locator("tbody a").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("rack-07-host-0087.example:7071")
    expect(page.get_by_text("cosco_bytes_received_total")).to_be_visible()


def test_nobody_is_held_up_by_those_who_look(browser: Browser, many: Many) -> None:
    many.held()
    with visiting(browser, many.url) as one, visiting(browser, many.url) as other:
        one.see("daemons?by=waited_s")
        other.see("")
        web = Web(many.url)
        for view in ("exchanges", "daemons", "events", ""):
            one.see(view)
            one.page.wait_for_timeout(1500)  # so often everything is asked for again
        for path in ("daemons?limit=500&order=writes", "exchanges?limit=500", "cluster"):
            web.get(path)
    held_ms, what = many.held()
    print(f"held up for {held_ms} ms by {what}")
    assert held_ms < HELD_MS, what
