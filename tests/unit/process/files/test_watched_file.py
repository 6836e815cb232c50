"""A file that is taken up when it changes."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from pathlib import Path

import pytest

from cosco.errors import InvalidArgument
from cosco.process.files import watched_file
from cosco.process.files.watched_file import WatchedFile


def parse_number(content: bytes) -> int:
    if not content.isdigit():
        raise InvalidArgument("it has no number")
    return int(content)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "number").write_bytes(b"1")
    return tmp_path / "number"


@pytest.fixture
def file(path: Path) -> WatchedFile[int]:
    return WatchedFile(str(path), parse_number, "number file")


def swap(path: Path, content: bytes) -> None:
    other = path.with_suffix(".new")
    other.write_bytes(content)
    other.replace(path)


def test_what_changes_is_taken_up(file: WatchedFile[int], path: Path) -> None:
    assert not file.look()
    swap(path, b"2")
    assert file.content == 1, "nothing is read until it is looked"
    assert file.look()
    assert file.content == 2
    assert not file.look()


def test_what_is_broken_or_gone_changes_nothing_and_is_told_once(
    file: WatchedFile[int], path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        for broken in (b"x", b"", b"y" * (5 << 20)):
            swap(path, broken)
            assert not any(file.look() for _ in range(3))
        path.unlink()
        assert not any(file.look() for _ in range(3))
    said = [record.getMessage() for record in caplog.records]
    assert file.content == 1
    assert len(said) == 3, said
    assert said[0].endswith(f"{str(path)!r} is no number file: it has no number")
    assert "is longer than any number file" in said[1]
    assert "cannot be read: no such file or directory" in said[2]
    swap(path, b"3")
    assert file.look()
    assert file.content == 3


def test_what_goes_wrong_again_is_told_again(
    file: WatchedFile[int], path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for content in (b"x", b"4", b"x"):
        swap(path, content)
        file.look()
    assert len([one for one in caplog.records if one.levelno == logging.WARNING]) == 2


@pytest.mark.parametrize(
    ("content", "says"),
    [(None, "cannot be read"), (b"x", "is no number file: it has no number")],
)
def test_a_file_that_cannot_be_used_is_refused_at_once(
    tmp_path: Path, content: bytes | None, says: str
) -> None:
    if content is not None:
        (tmp_path / "other").write_bytes(content)
    with pytest.raises(InvalidArgument, match=says):
        WatchedFile(str(tmp_path / "other"), parse_number, "number file")


def test_it_is_looked_again_and_again(
    file: WatchedFile[int], path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watched_file, "LOOK_S", 0.001)

    async def run() -> None:
        watching = asyncio.create_task(file.watch())
        for number in (b"5", b"x", b"6"):
            swap(path, number)
            while number.isdigit() and file.content != int(number):  # noqa: ASYNC110
                await asyncio.sleep(0.001)
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching

    asyncio.run(asyncio.wait_for(run(), 30))
    assert file.content == 6
