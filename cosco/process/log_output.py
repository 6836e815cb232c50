"""How a service writes its log: to stderr, a line for each message, as text or as JSON.

Nothing that comes from outside can begin a line of its own, or move a terminal's cursor. The event
loop only puts messages into a bounded queue: a thread writes them, so that a pipe that nobody reads
holds nothing up. What finds no room is counted, and the log says so.
"""

from __future__ import annotations

import json
import logging
import queue
import re
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, TextIO

from cosco.errors import InvalidArgument
from cosco.protocol.api_limits import printable

LEVELS: Final = ("debug", "info", "warning", "error")
FORMATS: Final = ("text", "json")
#: Messages that wait to be written, at some hundred bytes each.
MAX_WAITING: Final = 10_000
#: The messages that are still waiting at the end get this long.
_END_S: Final = 2.0

_LOGGER_NAME: Final = re.compile(r"[A-Za-z_]\w*(\.\w+)*")
#: A value that needs no quotes in `key=value`.
_PLAIN: Final = re.compile(r"[^\s\"=\\]+")
_OURS: Final = "cosco"


@dataclass(frozen=True, slots=True)
class LogSettings:
    """What is written, and how.

    levels: as `parse_levels` takes it. format: one of FORMATS.
    """

    levels: str = "info"
    format: str = "text"

    def validate(self) -> None:
        """Raise InvalidArgument for what makes no sense."""
        parse_levels(self.levels)
        if self.format not in FORMATS:
            raise InvalidArgument(f"--log-format is {self.format!r}: it is text or json")


def parse_levels(text: str) -> dict[str, str]:
    """Return the level of each logger that `info,cosco.metadata=debug` names; raises
    InvalidArgument.

    A level without a name is that of the service itself, the logger `cosco`. What others log,
    such as gRPC and asyncio, is written from warnings on unless it is asked for by name.
    """
    levels = {_OURS: "info"}
    for piece in filter(None, (p.strip() for p in text.split(","))):
        name, has_name, level = piece.rpartition("=")
        name, level = (name.strip() if has_name else _OURS), level.strip().lower()
        if level not in LEVELS or not _LOGGER_NAME.fullmatch(name):
            raise InvalidArgument(
                f"--log-level {text!r}: {piece!r} is neither a level ({', '.join(LEVELS)}) nor "
                "LOGGER=LEVEL; write for example info,cosco.metadata=debug"
            )
        levels[name] = level
    return levels


@contextmanager
def logging_to_stderr(service: str, settings: LogSettings) -> Iterator[None]:
    """Write what this process logs to stderr for as long as the context lasts.

    service: its name in each line. Raises InvalidArgument.
    """
    settings.validate()
    levels = parse_levels(settings.levels)
    make = JsonLines if settings.format == "json" else TextLines
    output = _Output(sys.stderr, make(service))
    root = logging.getLogger()
    before = root.level
    # Others' warnings, and their errors only where ours are the only thing that is wanted.
    root.setLevel("ERROR" if levels[_OURS] == "error" else "WARNING")
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level.upper())
    root.addHandler(output)
    try:
        yield
    finally:
        root.removeHandler(output)
        root.setLevel(before)
        output.close()


class _Output(logging.Handler):
    """Hands messages to a thread that writes them; it never waits for anything."""

    def __init__(self, stream: TextIO, formatter: logging.Formatter) -> None:
        super().__init__()
        self.setFormatter(formatter)
        self._stream = stream
        self._waiting: queue.Queue[str | None] = queue.Queue(MAX_WAITING)
        self._left_out = 0
        self._thread = threading.Thread(target=self._write_all, name="cosco-log", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._waiting.put_nowait(self.format(record) + "\n")
        except queue.Full:
            self._left_out += 1
        except Exception:  # noqa: BLE001 - as of every handler: a message must not end a service
            self.handleError(record)

    def close(self) -> None:
        """Write what waits, but do not wait for ever for somebody to read it."""
        try:
            self._waiting.put(None, timeout=_END_S)
        except queue.Full:
            return
        self._thread.join(_END_S)
        super().close()

    def _write_all(self) -> None:
        line: str | None = ""
        while line is not None:
            line = self._waiting.get()
            text = line or ""
            if self._left_out and self._waiting.empty():
                left_out, self._left_out = self._left_out, 0
                text += self._said(left_out)
            # Where nobody reads it any more, or never will, it is as good as read.
            with suppress(OSError, ValueError):
                self._stream.write(text)
                self._stream.flush()

    def _said(self, left_out: int) -> str:
        text = "%d messages were left out: the log was not read as fast as they came"
        record = logging.LogRecord(
            _OURS, logging.WARNING, __file__, 0, text, (left_out,), None, "close"
        )
        return self.format(record) + "\n"


class _Lines(logging.Formatter):
    """What both formats have in common."""

    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def fields(self, record: logging.LogRecord) -> Mapping[str, Any]:
        """Return the fields of an event, or the message of anything else."""
        event: Mapping[str, Any] | None = getattr(record, "event", None)
        return event if event is not None else {"message": record.getMessage()}

    def traceback(self, record: logging.LogRecord) -> str:
        """Return how it came to an exception, as lines, if there was one."""
        return self.formatException(record.exc_info) if record.exc_info else ""


class TextLines(_Lines):
    """`2026-01-31T12:00:00.000Z cosco-metadata[7] INFO cosco.metadata: event=daemon_died …`

    Lines of a traceback begin with a bar.
    """

    def format(self, record: logging.LogRecord) -> str:
        level, name = record.levelname, record.name
        head = f"{_when(record)} {self._service}[{record.process}] {level} {name}: "
        fields = self.fields(record)
        message = fields.get("message")
        if message is not None:
            text = printable(message)
        else:
            text = " ".join(f"{key}={quoted(value)}" for key, value in fields.items())
        trace = "".join(f"\n  | {printable(line)}" for line in self.traceback(record).splitlines())
        return head + text + trace


class JsonLines(_Lines):
    """One object a line: time, level, service, pid, logger, and then the fields, or `message`."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": _when(record),
            "level": record.levelname.lower(),
            "service": self._service,
            "pid": record.process,
            "logger": record.name,
            **self.fields(record),
        }
        if trace := self.traceback(record):
            line["traceback"] = trace
        # Escapes all but ASCII: also line ends of Unicode, and halves of surrogate pairs.
        return json.dumps(line, default=str)


def event_extra(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the `extra` of a logging call whose message is an event with these fields."""
    return {"event": fields}


def quoted(value: object) -> str:
    """Return a value of `key=value`: in quotes, with escapes as JSON has them, where needed."""
    if isinstance(value, bool):
        return str(value).lower()
    text = str(value)
    if _PLAIN.fullmatch(text) and text.isprintable():
        return text
    return json.dumps(text, ensure_ascii=not text.isprintable())


def _when(record: logging.LogRecord) -> str:
    moment = datetime.fromtimestamp(record.created, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03}Z"
