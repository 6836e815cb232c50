"""Lines of the log: for people and machines, and never more lines than messages."""

from __future__ import annotations

import io
import json
import logging
import os
import re
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest

from cosco.errors import InvalidArgument
from cosco.process import log_output
from cosco.process.log_output import (
    LogSettings,
    event_extra,
    logging_to_stderr,
    parse_levels,
    quoted,
)

#: A name that forges a line, moves the cursor, and ends a quotation.
HOSTILE = 'x\n2026-01-01T00:00:00.000Z svc[1] INFO forged: a=1\r\x1b[2J"\u2028\x85'

Written = Callable[..., list[str]]


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> Written:
    """What some work writes to stderr, as lines."""

    def write(work: Callable[[], object], levels: str = "info", format: str = "text") -> list[str]:
        stream = io.StringIO()
        monkeypatch.setattr(sys, "stderr", stream)
        names = [*parse_levels(levels), "cosco", "grpc", "asyncio"]
        before = {name: logging.getLogger(name).level for name in names}
        try:
            with logging_to_stderr("svc", LogSettings(levels, format)):
                work()
        finally:
            for name, level in before.items():
                logging.getLogger(name).setLevel(level)
        return stream.getvalue().split("\n")[:-1]

    return write


def tell(**fields: Any) -> None:
    logging.getLogger("cosco.metadata.events").info("%s", "e", extra=event_extra(fields))


def test_an_event_as_text(written: Written) -> None:
    (line,) = written(lambda: tell(event="daemon_died", daemon="h:1", cause="no answer", ranges=3))
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z svc\[\d+\] INFO cosco\.metadata\.events: "
        r'event=daemon_died daemon=h:1 cause="no answer" ranges=3',
        line,
    )


def test_an_event_as_json(written: Written) -> None:
    (line,) = written(lambda: tell(event="daemon_died", ranges=3), format="json")
    shown = json.loads(line)
    assert re.fullmatch(r"[\d-]{10}T[\d:]{8}\.\d{3}Z", shown.pop("time"))
    assert shown == {
        "level": "info",
        "service": "svc",
        "pid": os.getpid(),
        "logger": "cosco.metadata.events",
        "event": "daemon_died",
        "ranges": 3,
    }


@pytest.mark.parametrize("format", log_output.FORMATS)
def test_nothing_from_outside_begins_a_line_or_moves_the_cursor(
    format: str, written: Written
) -> None:
    def work() -> None:
        tell(event="exchange_created", exchange=HOSTILE)
        logging.getLogger("cosco.x").warning("of %s", HOSTILE)

    lines = written(work, format=format)
    assert len(lines) == 2
    for line in lines:
        assert line.isprintable()
        assert len(line.splitlines()) == 1
    if format == "json":
        assert json.loads(lines[0])["exchange"] == HOSTILE
        assert json.loads(lines[1])["message"] == f"of {HOSTILE}"


@pytest.mark.parametrize("format", log_output.FORMATS)
def test_a_traceback_cannot_forge_a_line(format: str, written: Written) -> None:
    def work() -> None:
        try:
            raise ValueError(HOSTILE)
        except ValueError:
            logging.getLogger("cosco.x").exception("failed")

    first, *rest = written(work, format=format)
    if format == "json":
        assert not rest
        assert "ValueError" in json.loads(first)["traceback"]
    else:
        assert first.endswith("failed")
        assert rest and all(line.startswith("  | ") and line.isprintable() for line in rest)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("plain:1", "plain:1"),
        ("", '""'),
        ("a b", '"a b"'),
        ("a=b", '"a=b"'),
        ('a"b', r'"a\"b"'),
        ("a\\b", r'"a\\b"'),
        ("größe", "größe"),
        ("a\nb", r'"a\nb"'),
        ("\ud800", r'"\ud800"'),
        (1.5, "1.5"),
        (True, "true"),
    ],
)
def test_values_are_quoted_where_they_must_be(value: object, shown: str) -> None:
    assert quoted(value) == shown


# --- levels ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "levels"),
    [
        ("info", {"cosco": "info"}),
        ("WARNING", {"cosco": "warning"}),
        ("", {"cosco": "info"}),
        ("cosco.metadata=debug", {"cosco": "info", "cosco.metadata": "debug"}),
        (" error , grpc=debug,", {"cosco": "error", "grpc": "debug"}),
    ],
)
def test_levels(text: str, levels: dict[str, str]) -> None:
    assert parse_levels(text) == levels


@pytest.mark.parametrize("text", ["loud", "info,cosco=", "=debug", "a b=info", "x=info=debug"])
def test_what_is_no_level_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument, match="--log-level"):
        parse_levels(text)


def speak() -> None:
    for name in ("cosco.metadata.server", "cosco.dfs", "grpc", "asyncio"):
        for level in (logging.DEBUG, logging.INFO, logging.WARNING):
            logging.getLogger(name).log(level, "%s", logging.getLevelName(level))


@pytest.mark.parametrize(
    ("levels", "heard"),
    [
        ("info", {"cosco.metadata.server": 2, "cosco.dfs": 2, "grpc": 1, "asyncio": 1}),
        ("debug", {"cosco.metadata.server": 3, "cosco.dfs": 3, "grpc": 1, "asyncio": 1}),
        ("error", {}),
        (
            "warning,cosco.metadata=debug,grpc=info",
            {"cosco.metadata.server": 3, "cosco.dfs": 1, "grpc": 2, "asyncio": 1},
        ),
    ],
)
def test_each_logger_has_its_level_and_others_are_asked_for_by_name(
    levels: str, heard: dict[str, int], written: Written
) -> None:
    found: dict[str, int] = {}
    for line in written(speak, levels=levels, format="json"):
        name = json.loads(line)["logger"]
        found[name] = found.get(name, 0) + 1
    assert found == heard


# --- a log that is not read --------------------------------------------------------------------


def test_a_pipe_that_nobody_reads_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = os.pipe()
    logger = logging.getLogger("cosco.pipe")
    monkeypatch.setattr(log_output, "MAX_WAITING", 50)
    with os.fdopen(theirs, "w") as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        read: list[bytes] = []
        with logging_to_stderr("svc", LogSettings()):
            for n in range(2000):  # a pipe takes 64 KiB
                logger.info("%d %s", n, "x" * 100)

            def read_all() -> None:
                while data := os.read(ours, 1 << 16):
                    read.append(data)

            reader = threading.Thread(target=read_all)
            reader.start()
    reader.join(10)
    os.close(ours)
    lines = b"".join(read).decode().splitlines()
    assert 50 < len(lines) < 1000
    left_out = sum(int(n) for line in lines for n in re.findall(r"(\d+) messages were", line))
    assert left_out == 2000 - sum(" x" in line for line in lines)
