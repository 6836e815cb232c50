"""Store URLs, and stores of others."""

from __future__ import annotations

import asyncio
import importlib.util
import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType

import pytest

from cosco.dfs import LocalStore, MemoryStore, Observer, Store, open_store, registry
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


@pytest.mark.parametrize(
    "name", ["plain", "me@host", "a b", "100%", "what?", "#1", "é", "new\nline"]
)
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
        ("S3 ://bucket/x", "unknown kind"),
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


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("s3://AKIA:hush@bucket/x", "s3://…"),
        ("s3://hush@bucket", "s3://…"),
        ("s3://[hush@x", "s3://…"),
        ("file://me:hush@host/data", "file://…"),
        ("s3://bucket/x?region=a&endpoint=https://me:hush@host:9000", "s3://…"),
        ("s3://bucket/x?endpoint=https%3A%2F%2Fme:hush%40host", "s3://…"),
        ("s3://bucket/x?secret_access_key=hush", "secret_access_key"),
        ("s3://bucket/x?region=a&AWS_SESSION_TOKEN=hush", "AWS_SESSION_TOKEN"),
        ("az://c/x?account=a&sas=hush", "sas"),
        ("az://c/x?%73ig=hush", "sig"),
        ("my://x?password=hush", "password"),
        ("s3://bucket?key=hush", "key"),
    ],
)
def test_secrets_in_urls_are_refused_and_not_repeated(url: str, shown: str) -> None:
    with pytest.raises(InvalidArgument, match=r"docs/stores\.md") as caught:
        open_store(url)
    assert shown in str(caught.value)
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize("url", ["s3://bucket/x", "gs://bucket", "az://c/x?account=a"])
def test_an_extra_that_is_not_installed_is_named(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("cosco.dfs.objects.object")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "obstore", None)
    with pytest.raises(InvalidArgument, match=r"pip install 'cosco\[s3\]'"):
        open_store(url)


def test_every_factory_is_there() -> None:
    for extra in registry._EXTRAS.values():
        spec = importlib.util.find_spec(extra.module)
        assert spec is not None and spec.origin is not None
        assert f"def {extra.factory}(" in Path(spec.origin).read_text()


# --- stores of others ---------------------------------------------------------------------


class FakePackage(ModuleType):
    """A module that registers a store."""

    @staticmethod
    def factory(url: str, *, threads: int, observer: Observer | None) -> Store:
        """Make a store, which says what it was called with."""
        assert threads == 7
        return MemoryStore(url, observer=observer)


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a package with entry points installed."""
    points = [
        EntryPoint("fake", "fake_package:factory", registry.GROUP),
        EntryPoint("file", "fake_package:factory", registry.GROUP),
        EntryPoint("broken", "fake_package:nothing", registry.GROUP),
        EntryPoint("gone", "no_such_package:factory", registry.GROUP),
    ]

    def found(*, group: str, name: str | None = None) -> list[EntryPoint]:
        assert group == registry.GROUP
        return [point for point in points if name in {None, point.name}]

    monkeypatch.setattr(registry, "entry_points", found)
    monkeypatch.setitem(sys.modules, "fake_package", FakePackage("fake_package"))


@pytest.mark.usefixtures("registered")
def test_stores_of_others_are_found_by_their_scheme(tmp_path: Path) -> None:
    events: list[object] = []
    store = open_store("fake://here?x=1", threads=7, observer=events.append)
    assert isinstance(store, MemoryStore)
    assert store.url == "fake://here?x=1"
    assert isinstance(open_store(tmp_path.as_uri()), LocalStore), "ours cannot be taken"


@pytest.mark.usefixtures("registered")
def test_what_is_supported_names_stores_of_others() -> None:
    with pytest.raises(InvalidArgument, match=r"memory://, s3://.*fake://… or gone://…$"):
        open_store("other://x")
    for name in ("broken", "gone"):
        with pytest.raises(InvalidArgument, match=r"entry point .* cannot be loaded"):
            open_store(f"{name}://x")
