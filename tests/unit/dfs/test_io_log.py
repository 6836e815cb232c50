from __future__ import annotations

import threading
from pathlib import Path

import pytest

from cosco.dfs import IOEvent, io_log
from cosco.dfs.io_log import IoLog, parse_io_log
from cosco.errors import DataCorrupted, InvalidArgument


def event(number: int, path: str = "c/1/0-1/3-00") -> IOEvent:
    kind = "write" if number % 2 else "read"
    return IOEvent(kind, path, number << 32, number, 1.5 + number, 0.25)


def parsed(path: Path) -> list[IOEvent]:
    return list(parse_io_log(path.read_text(errors="surrogateescape").splitlines()))


def test_events_come_back_as_they_were(tmp_path: Path) -> None:
    events = [event(n) for n in range(1000)] + [event(7, "name with space and \udcff")]
    log = IoLog(str(tmp_path / "log"))
    for one in events:
        log.observe(one)
    log.close()
    log.close()
    assert parsed(tmp_path / "log") == events


def test_several_may_share_a_file(tmp_path: Path) -> None:
    logs = [IoLog(str(tmp_path / "log")) for _ in range(3)]
    for number in range(300):
        logs[number % 3].observe(event(number))
    for log in logs:
        log.close()
    assert sorted(parsed(tmp_path / "log"), key=lambda e: e.length) == list(map(event, range(300)))


def test_what_waits_is_bounded_and_a_loss_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(io_log, "_WAITING_MAX", 10)
    held, writing, real = threading.Event(), threading.Event(), io_log.os.write

    def slow(fd: int, data: bytes) -> int:
        writing.set()
        held.wait()
        return real(fd, data)

    monkeypatch.setattr(io_log.os, "write", slow)
    log = IoLog(str(tmp_path / "log"))
    log.observe(event(0))
    writing.wait()
    for number in range(1, 100):
        log.observe(event(number))
    held.set()
    log.close()
    lines = (tmp_path / "log").read_text().splitlines()
    assert len(lines) == 12
    assert "lost\t89" in lines
    with pytest.raises(DataCorrupted, match="89"):
        list(parse_io_log(lines))


def test_a_disk_that_fails_does_not_end_the_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed, real = threading.Event(), io_log.os.write

    def fail_once(fd: int, data: bytes) -> int:
        if not failed.is_set():
            failed.set()
            raise OSError(28, "No space left on device")
        return real(fd, data)

    monkeypatch.setattr(io_log.os, "write", fail_once)
    log = IoLog(str(tmp_path / "log"))
    log.observe(event(0))
    failed.wait()
    log.observe(event(1))
    log.close()
    assert (tmp_path / "log").read_text().splitlines()[0] == "lost\t1"


def test_a_file_that_cannot_be_opened_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="--io-log"):
        IoLog(str(tmp_path / "missing" / "log"))


@pytest.mark.parametrize(
    "line",
    [
        "",
        "read\t1",
        "erase\t1\t1\t1\t1\tf",
        "list\t1\t1\t0\t0\tf\tx",
        "read\t1\t1\t0\t0\tf\t1\t1",
        "read\tx\t1\t1\t1\tf",
    ],
)
def test_nonsense_is_refused(line: str) -> None:
    with pytest.raises(DataCorrupted):
        list(parse_io_log([line]))


def test_requests_of_every_kind_come_back(tmp_path: Path) -> None:
    events = [
        IOEvent("list", "c/", 0, 0, 1.5, 0.25, 3),
        IOEvent("delete", "c/", 0, 0, 1.5, 0.25, 2),
        IOEvent("head", "c/f", 0, 0, 1.5, 0.25),
        IOEvent("write", "c/f", 0, 4096, 1.5, 0.25, 7),
        IOEvent("read", "c/f", 9, 10, 1.5, 0.25),
    ]
    log = IoLog(str(tmp_path / "log"))
    for one in events:
        log.observe(one)
    log.close()
    assert parsed(tmp_path / "log") == events
    lines = (tmp_path / "log").read_text().splitlines()
    assert [len(line.split("\t")) for line in lines] == [7, 7, 6, 7, 6]
