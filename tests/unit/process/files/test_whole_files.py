"""Files that are written whole."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from cosco.process.files.whole_files import write_whole


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_new_file_has_its_mode_whatever_the_process_gives_others(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        write_whole(tmp_path / "secret", b"x", 0o600)
    finally:
        os.umask(before)
    assert (tmp_path / "secret").read_bytes() == b"x"
    assert mode_of(tmp_path / "secret") == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["secret"]


def test_a_file_that_is_there_keeps_its_mode_owner_and_place(tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(b"old")
    (tmp_path / "real").chmod(0o640)
    is_root = os.geteuid() == 0
    if is_root:
        os.chown(tmp_path / "real", 1234, 2345)
    (tmp_path / "link").symlink_to("real")
    inode = (tmp_path / "real").stat().st_ino
    write_whole(tmp_path / "link", b"new", 0o600)
    found = (tmp_path / "real").stat()
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == b"new"
    assert mode_of(tmp_path / "real") == 0o640
    assert found.st_ino != inode, "who reads has the one or the other"
    if is_root:
        assert (found.st_uid, found.st_gid) == (1234, 2345)


def test_what_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "folder" / "inner").mkdir(parents=True)
    with pytest.raises(OSError, match="directory"):
        write_whole(tmp_path / "folder", b"x", 0o600)
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]
