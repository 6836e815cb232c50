"""A browser of this machine that looks at the dashboard."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, sync_playwright

#: Where `make test-web` looks for one, in this order: tools/install_chromium.py.
NAMES = ("chromium", "chromium-browser", "google-chrome")
MISSING = "there is no Chromium on the PATH: tools/install_chromium.py says how to get it"
WAIT_MS = 10_000
WIDE, NARROW = (1280, 900), (320, 720)
#: What Chromium says of every answer that is an error, which a page cannot keep it from.
_OF_AN_ANSWER = re.compile(r"Failed to load resource: .* (\d+)")
#: Pictures of what the tests see are kept here, if it is set.
SHOTS = os.environ.get("COSCO_SHOTS", "")


@contextmanager
def chromium() -> Iterator[Browser]:
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.skip(MISSING)
    # The sandbox of Chromium refuses to be started by root.
    more = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=more)
        try:
            yield browser
        finally:
            browser.close()


class Visitor:
    """Somebody with a page of his own, which must say nothing in its console.

    answers: the statuses of answers that he makes the service give, as 401.
    """

    def __init__(self, browser: Browser, url: str, **options: Any) -> None:
        size = options.pop("size", WIDE)
        viewport = {"width": size[0], "height": size[1]}
        self.context: BrowserContext = browser.new_context(viewport=viewport, **options)
        self.page: Page = self.context.new_page()
        self.page.set_default_timeout(WAIT_MS)
        self.url = url
        self.said: list[str] = []
        self.answers: set[str] = set()
        self.page.on("console", self._hear)
        self.page.on("pageerror", lambda error: self.said.append(str(error)))

    def _hear(self, message: ConsoleMessage) -> None:
        found = _OF_AN_ANSWER.search(message.text)
        if message.type in {"error", "warning"} and not (found and found[1] in self.answers):
            self.said.append(f"{message.type}: {message.text}")

    def see(self, view: str, *, live: bool = True) -> Page:
        """Go to a view, and wait until it is live."""
        self.page.goto(f"{self.url}/#/{view}")
        if live:
            self.page.locator("#link[data-state=live]").wait_for()
        return self.page

    def shot(self, name: str) -> None:
        if SHOTS:
            Path(SHOTS).mkdir(parents=True, exist_ok=True)
            self.page.screenshot(path=f"{SHOTS}/{name}.png", full_page=True)

    def close(self) -> None:
        self.context.close()
        assert not self.said, self.said


@contextmanager
def visiting(browser: Browser, url: str, **options: Any) -> Iterator[Visitor]:
    visitor = Visitor(browser, url, **options)
    try:
        yield visitor
    except BaseException:
        visitor.shot("failed")
        visitor.context.close()
        raise
    visitor.close()
