"""Store URLs."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from cosco.dfs import LocalStore, MemoryStore, open_store
from cosco.errors import InvalidArgument


async def open_and_close(url: str) -> str:
    store = open_store(url)
    assert store.url == url
    await store.open()
    await store.close()
    return store.store_id


def test_kinds_and_durability(tmp_path: Path) -> None:
    local, memory = open_store(tmp_path.as_uri()), open_store("memory://")
    assert isinstance(local, LocalStore)
    assert local.durable
    assert isinstance(memory, MemoryStore)
    assert not memory.durable
    assert list(tmp_path.iterdir()) == [], "nothing happens before open()"


def test_every_memory_store_is_another() -> None:
    assert asyncio.run(open_and_close("memory://")) != asyncio.run(open_and_close("memory://"))


@pytest.mark.parametrize("name", ["plain", "a b", "100%", "what?", "#1", "é", "new\nline"])
def test_directories_of_any_name(tmp_path: Path, name: str) -> None:
    directory = tmp_path / name
    store_id = asyncio.run(open_and_close(directory.as_uri()))
    assert (directory / "cosco-store.json").is_file()
    assert asyncio.run(open_and_close(f"{directory.as_uri()}?fsync=false")) == store_id
    assert asyncio.run(open_and_close(f"{directory.as_uri()}/?fsync=true")) == store_id


def test_a_percent_sign_may_stand_for_itself(tmp_path: Path) -> None:
    asyncio.run(open_and_close(f"file://{tmp_path}/100%"))
    assert (tmp_path / "100%").is_dir()


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("", "unknown kind"),
        ("/data", "unknown kind"),
        ("s3://bucket/x", "unknown kind"),
        ("sqlite:///x", "unknown kind"),
        ("file://data", "no absolute directory"),
        ("file://host/data", "no absolute directory"),
        ("file:data", "no absolute directory"),
        ("file://", "no absolute directory"),
        ("file:///", "no absolute directory"),
        ("file:///a%00b", "no absolute directory"),
        ("file:///data?fsync=maybe", "unknown parameter"),
        ("file:///data?fsync=", "unknown parameter"),
        ("file:///data?sync=false", "unknown parameter"),
        ("file:///data?fsync=false&x=1", "unknown parameter"),
        ("file:///data#x", "unknown parameter"),
        ("file:///data?fsync", "no URL"),
        ("file://[x/data", "no URL"),
        ("memory://x", "after memory://"),
        ("memory:///x", "after memory://"),
        ("memory://?fsync=false", "after memory://"),
        ("other\n://x", "unknown kind"),
    ],
)
def test_urls_that_are_refused(url: str, reason: str) -> None:
    with pytest.raises(InvalidArgument, match=reason) as caught:
        open_store(url)
    message = str(caught.value)
    assert repr(url) in message
    assert "file:///DIR" in message
    assert "\n" not in message
