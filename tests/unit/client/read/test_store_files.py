"""Files are read only below the directory of the store that was named, and only segments."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from support.segments import path_of, segment

from cosco.client.read.state.direct_chunk import DirectFailed, DirectFile
from cosco.client.read.store_files import StoreFiles
from cosco.format.chunk import ALIGNMENT
from cosco.format.segment import FOOTER_BYTES, SegmentId
from cosco.protocol.fetch_records import Reference

ID = SegmentId(7, 3, 2, 11, 1)
STORE = "5" * 32
DATA = segment(ID, [(4, b"a" * 10_000), (6, b"b" * 100)])
PATH = path_of(ID, 4, 6)
CRC = int.from_bytes(DATA[-FOOTER_BYTES:][4:8], "little")


class Store:
    """A directory with the identity of a store and one segment."""

    def __init__(self, root: Path, store_id: str = STORE) -> None:
        self.root = root
        self.file = root / PATH
        self.file.parent.mkdir(parents=True)
        self.file.write_bytes(DATA)
        self.identity = root / "cosco-store.json"
        self.identity.write_text(json.dumps({"format": 1, "store_id": store_id}))
        self.url = self.file.as_uri()
        self.files = StoreFiles()

    def read(
        self, offset: int = 0, length: int = ALIGNMENT, store_id: str = STORE, **changes: object
    ) -> bytes:
        reference = replace(Reference(self.url, PATH, len(DATA), CRC), **changes)  # type: ignore[arg-type]
        return bytes(self.files.read(store_id, DirectFile(reference, ID), offset, length))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "a b" / "stôre")


@pytest.mark.parametrize("pages", [(0, 1), (0, 3), (1, 2), (2, 1)])
def test_what_is_there_is_read(store: Store, pages: tuple[int, int]) -> None:
    first, count = (n * ALIGNMENT for n in pages)
    assert store.read(first, count) == DATA[first : first + count]


def test_a_directory_whose_name_is_no_text(tmp_path: Path) -> None:
    name = os.fsdecode(b"\xff\xfe")
    assert Store(tmp_path / name).read() == DATA[:ALIGNMENT]


def test_behind_its_end_there_is_nothing(store: Store) -> None:
    assert store.read(len(DATA) - ALIGNMENT, 4 * ALIGNMENT) == DATA[-ALIGNMENT:]


def test_a_file_that_is_gone(store: Store) -> None:
    store.file.unlink()
    with pytest.raises(FileNotFoundError):
        store.read()


def test_a_host_without_the_directory(store: Store) -> None:
    store.root.rename(store.root.with_name("elsewhere"))
    with pytest.raises(FileNotFoundError):
        store.read()


@pytest.mark.parametrize(
    "identity",
    [
        json.dumps({"format": 1, "store_id": "6" * 32}),
        json.dumps({"format": 2, "members": 2, "store_id": STORE}),
        "{}",
        "",
        "no json",
        json.dumps({"format": 1, "store_id": STORE}).rjust(5000),
    ],
)
def test_the_directory_of_another_store(store: Store, identity: str) -> None:
    store.identity.write_text(identity)
    with pytest.raises(DirectFailed, match="of another store"):
        store.read()


def test_a_directory_that_is_no_store(store: Store) -> None:
    store.identity.unlink()
    with pytest.raises(FileNotFoundError):
        store.read()


def test_an_identity_that_is_a_link_or_no_file(store: Store, tmp_path: Path) -> None:
    other = Store(tmp_path / "other")
    store.identity.unlink()
    store.identity.symlink_to(other.identity)
    with pytest.raises(OSError, match="symbolic links"):
        store.read()
    store.identity.unlink()
    os.mkfifo(store.identity)
    with pytest.raises(DirectFailed, match="of another store"):
        store.read()


@pytest.mark.parametrize("level", range(4))
def test_nothing_is_read_through_a_link(store: Store, tmp_path: Path, level: int) -> None:
    """Whoever can write to the store could lead out of it."""
    linked = store.root.joinpath(*Path(PATH).parts[: level + 1])
    target = tmp_path / "elsewhere"
    linked.rename(target)
    linked.symlink_to(target)
    assert store.file.read_bytes() == DATA
    with pytest.raises(OSError, match=r"symbolic links|Not a directory"):
        store.read()


def test_what_is_no_file_is_not_waited_for(store: Store) -> None:
    store.file.unlink()
    os.mkfifo(store.file)
    with pytest.raises(DirectFailed, match="another length"):
        store.read()
    store.file.unlink()
    store.file.mkdir()
    with pytest.raises((DirectFailed, IsADirectoryError)):
        store.read()


@pytest.mark.parametrize("length", [0, 100, len(DATA) - ALIGNMENT, len(DATA) + ALIGNMENT])
def test_a_file_of_another_length(store: Store, length: int) -> None:
    os.truncate(store.file, length)
    with pytest.raises(DirectFailed, match="another length than was named"):
        store.read()


@pytest.mark.parametrize(
    "other",
    [
        segment(replace(ID, serial=2), [(4, b"a" * 10_000), (6, b"b" * 100)]),
        segment(replace(ID, exchange=8), [(4, b"a" * 10_000), (6, b"b" * 100)]),
        segment(ID, [(4, b"a" * 10_000), (6, b"b" * 101)]),
        bytes(len(DATA)),
    ],
    ids=["serial", "exchange", "chunks", "zeros"],
)
def test_a_file_with_another_index(store: Store, other: bytes) -> None:
    assert len(other) == len(DATA)
    store.file.write_bytes(other)
    with pytest.raises(DirectFailed, match=r"segment|index"):
        store.read()


def test_a_file_that_took_the_place_of_another_is_looked_at_anew(store: Store) -> None:
    store.read()
    new = store.file.with_name("new")
    new.write_bytes(bytes(len(DATA)))
    new.replace(store.file)
    with pytest.raises(DirectFailed, match="without an index"):
        store.read()


def test_urls_that_are_not_followed(store: Store) -> None:
    absolute = str(store.file)
    for url in (
        absolute,
        "FILE2" + store.url,
        f"ftp://host{absolute}",
        f"data:,{absolute}",
        f"file://host{absolute}",
        store.url + "?x=1",
        store.url + "#x",
        "file:" + PATH,
        "file:/" + PATH,
        f"file://{store.root}/../{store.root.name}/{PATH}",
        f"file://{store.root}//{PATH}",
        f"file://{store.root}/./{PATH}",
        f"file://{store.root}%00/{PATH}",
        "file:///" + PATH[:-1],
        f"file://{store.root}/{PATH}x",
        "http://[::1" + absolute,
        "http:///" + PATH,
        "http://user:secret@127.0.0.1:1/" + PATH,
        "http://127.0.0.1:99999/" + PATH,
    ):
        with pytest.raises((DirectFailed, FileNotFoundError)) as failed:
            store.read(url=url)
        assert "secret" not in str(failed.value)


@pytest.mark.parametrize("scheme", ["file", "http", "https"])
def test_the_url_of_another_file(store: Store, scheme: str) -> None:
    other = store.file.with_name("x" * len(store.file.name))
    other.write_bytes(DATA)
    with pytest.raises(DirectFailed, match="the URL of another file was given"):
        store.read(url=other.as_uri().replace("file://", f"{scheme}://"))


def test_no_descriptor_is_left(store: Store) -> None:
    def opened() -> int:
        return sum(1 for _ in Path("/proc/self/fd").iterdir())

    before = opened()
    store.read()
    store.identity.write_text("{}")
    for _ in range(3):
        with pytest.raises(DirectFailed):
            store.read()
    store.file.unlink()
    for _ in range(3):
        with pytest.raises(DirectFailed):
            store.read()
    assert opened() == before
