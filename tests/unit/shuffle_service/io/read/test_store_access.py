"""URLs of files: made when they are needed, given again for a while, and never waited for twice."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from cosco.dfs import LocalStore, MemoryStore
from cosco.shuffle_service.io.read import store_access
from cosco.shuffle_service.io.read.store_access import StoreAccess


class SigningStore(MemoryStore):
    """Gives numbered URLs, or what `answer` says."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple[str, float]] = []
        self.answer: Any = None

    async def access(self, path: str, expires_s: float) -> str | None:
        self.asked.append((path, expires_s))
        if isinstance(self.answer, Exception):
            raise self.answer
        if self.answer is not None:
            return str(self.answer) or None
        return f"https://store/{path}?{len(self.asked)}"


class Rig:
    def __init__(self) -> None:
        self.now = 100.0
        self.store = SigningStore()
        self.access = StoreAccess(self.store, expires_s=90.0, now=lambda: self.now)

    def url(self, path: str) -> str | None:
        return asyncio.run(self.access.url(path))


def test_a_url_is_given_again_while_most_of_its_time_is_left() -> None:
    rig = Rig()
    first = rig.url("a")
    assert first == "https://store/a?1"
    rig.now += 29.0
    assert rig.url("a") == first
    rig.now += 1.0
    assert rig.url("a") == "https://store/a?2"
    assert rig.store.asked == [("a", 90.0)] * 2


def test_so_many_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_access, "_KEPT", 2)
    rig = Rig()
    for path in ("a", "b", "c", "c", "b", "a"):
        rig.url(path)
    assert [path for path, _ in rig.store.asked] == ["a", "b", "c", "a"]


def test_a_store_that_cannot_sign_is_left_alone_for_a_while(
    caplog: pytest.LogCaptureFixture,
) -> None:
    rig = Rig()
    rig.store.answer = PermissionError(13, "no key to sign with")
    with caplog.at_level(logging.WARNING):
        assert [rig.url(path) for path in "abc"] == [None] * 3
    assert len(rig.store.asked) == len(caplog.records) == 1
    assert "no key to sign with" in caplog.text
    rig.now += 30.0
    rig.store.answer = None
    assert rig.url("a") == "https://store/a?2"


@pytest.mark.parametrize("answer", ["", "https://store/" + "x" * 9000])
def test_what_cannot_be_used_is_none(answer: str) -> None:
    rig = Rig()
    rig.store.answer = answer
    assert rig.url("a") is None
    assert rig.url("a") is None
    assert len(rig.store.asked) == 1 or answer == ""


def test_stores_without_access_have_no_urls(tmp_path: Any) -> None:
    assert asyncio.run(StoreAccess(MemoryStore()).url("a")) is None
    local = LocalStore("file:///x", tmp_path / "a b")
    url = asyncio.run(StoreAccess(local).url("c/7/0-1/x"))
    assert url == (tmp_path / "a b" / "c/7/0-1/x").as_uri()
