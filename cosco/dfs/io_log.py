"""The IO log: one line for each physical read and write, written by a thread of its own.

A line is `kind start seconds offset length path`, separated by tabs: the kind of an `IOEvent`,
seconds with six decimals on the clock of `time.perf_counter`, bytes, and a path without tabs
and line ends, which begins with `flash:` for the fast one of two tiers. Where it was not one
request, a tab and their number follow. A line `lost N` says that N events before it were not
written, as they came faster than the file took them.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator
from typing import Final, get_args

from cosco.dfs.protocol import IOEvent, IOKind
from cosco.errors import DataCorrupted, InvalidArgument

#: Events that may wait for the thread, at about 200 bytes each; more are counted as lost.
_WAITING_MAX: Final = 1 << 16
#: What paths of the fast one of two tiers begin with.
FLASH_PREFIX: Final = "flash:"
#: How long the last lines may take to be written.
_LAST_LINES_S: Final = 5.0
_KINDS: Final[dict[str, IOKind]] = {kind: kind for kind in get_args(IOKind)}


class IoLog:
    """Appends events to a file, which several processes may share.

    `observe` only puts an event into a list, so an event loop may call it. What comes while
    the thread writes is its next batch. Raises InvalidArgument if the file cannot be opened.
    """

    def __init__(self, path: str) -> None:
        try:
            # Each batch is one append of the system's, so those of processes do not mix.
            self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise InvalidArgument(f"--io-log {path}: {error.strerror}") from error
        self._changed = threading.Condition()
        self._waiting: list[IOEvent] = []
        self._lost = 0
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="cosco-io-log", daemon=True)
        self._thread.start()

    def observe(self, event: IOEvent) -> None:
        """Have an event written soon."""
        with self._changed:
            if len(self._waiting) >= _WAITING_MAX:
                self._lost += 1
                return
            self._waiting.append(event)
            self._changed.notify()

    def close(self) -> None:
        """Write what waits and let go of the file; repeatable.

        A file that hangs is left to its thread, which ends with the process.
        """
        with self._changed:
            if self._closed:
                return
            self._closed = True
            self._changed.notify()
        self._thread.join(_LAST_LINES_S)
        if not self._thread.is_alive():
            os.close(self._fd)

    def _run(self) -> None:
        closed = False
        while not closed:
            with self._changed:
                while not (self._waiting or self._closed):
                    self._changed.wait()
                events, self._waiting = self._waiting, []
                lost, self._lost = self._lost, 0
                closed = self._closed
            text = (f"lost\t{lost}\n" if lost else "") + "".join(map(_line, events))
            if not self._write(text.encode(errors="surrogateescape")):
                with self._changed:
                    self._lost += lost + len(events)

    def _write(self, batch: bytes) -> bool:
        """Write a batch; return False if that cannot be, which must not end the daemon."""
        try:
            while batch:
                batch = batch[os.write(self._fd, batch) :]
        except OSError:
            return False
        return True


def _line(event: IOEvent) -> str:
    requests = "" if event.requests == 1 else f"\t{event.requests}"
    return (
        f"{event.kind}\t{event.start:.6f}\t{event.seconds:.6f}\t{event.offset}\t{event.length}\t"
        f"{event.path}{requests}\n"
    )


def parse_io_log(lines: Iterable[str]) -> Iterator[IOEvent]:
    """Yield the events of a log; raises DataCorrupted where some are lost, and for nonsense."""
    for line in lines:
        kind, *fields = line.rstrip("\n").split("\t")
        if kind == "lost":
            raise DataCorrupted(f"the IO log lacks {fields[0]} events: the disk was too slow")
        try:
            start, seconds, offset, length, path, *more = fields
            [requests] = map(int, more or ["1"])
            event = IOEvent(
                _KINDS[kind],
                path,
                int(offset),
                int(length),
                float(start),
                float(seconds),
                requests,
            )
        except (KeyError, ValueError):
            raise DataCorrupted(f"no line of an IO log: {line[:80]!r}") from None
        yield event
