"""`cosco-shuffled --processes N`: daemons of one host, each in a process of its own.

A daemon takes rows in on one processor, so a host with many runs several. They share nothing
but the directory of their stores. They have the same host id, so none is a replica of another.
This process relays their lines, tells them to end when it is told, and starts one again that
has died, on the port it had. When this process is gone, in whatever way, the kernel kills them.
"""

from __future__ import annotations

import logging
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, fields, replace
from functools import partial
from socket import socketpair
from typing import Final

from cosco.cli.services import Hangup, say
from cosco.config import DaemonConfig
from cosco.process import with_parent
from cosco.process.host_checks import memory_warnings
from cosco.process.log_output import LogSettings, event_extra, logging_to_stderr
from cosco.process.service_manager import service_manager
from cosco.protocol.events import Event, EventKind

log = logging.getLogger(__name__)

_RETRY_MIN_S: Final = 0.5
_RETRY_MAX_S: Final = 30.0
#: A daemon that ran at least this long is started again soon, whatever was before.
_STEADY_S: Final = 60.0
_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_READ_BYTES: Final = 1 << 16


@dataclass(slots=True)
class Backoff:
    """How long to wait before a process that died is started again."""

    deaths: int = 0

    def died(self, ran_s: float) -> float:
        """Return the seconds to wait, after a process that ran for `ran_s` seconds."""
        if ran_s >= _STEADY_S:
            self.deaths = 0
        wait_s = min(_RETRY_MIN_S * 2.0 ** min(self.deaths, 10), _RETRY_MAX_S)
        self.deaths += 1
        return wait_s


@dataclass(slots=True, eq=False)
class _Child:
    """One daemon, over its starts."""

    index: int
    config: DaemonConfig
    backoff: Backoff = field(default_factory=Backoff)
    process: subprocess.Popen[bytes] | None = None  # that runs
    pidfd: int = -1
    started: float = 0.0
    start_at: float | None = None
    was_ready: bool = False
    partial_line: bytes = b""


class Supervisor:
    """Runs daemons until all have ended; `run` once."""

    def __init__(
        self, name: str, module: str, configs: Sequence[DaemonConfig], logs: LogSettings
    ) -> None:
        """Run the program `module` for each of `configs`; `name` is that of the command."""
        self._name = name
        self._command = [
            *(sys.executable, "-P", "-m", with_parent.__name__, str(os.getpid()), module)
        ]
        self._logs = logs
        self._manager = service_manager()
        self._hangup = Hangup()
        self._children = [_Child(index, config) for index, config in enumerate(configs)]
        self._selector = selectors.DefaultSelector()
        self._ending = False
        self._code = 0

    def run(self) -> int:
        """Run the daemons to their end.

        Returns: the exit code, 0 or that of the first daemon that ended with another.
        """
        logs = logging_to_stderr(self._name, self._logs)
        with logs, closing(self._selector), self._signals_woken():
            for warning in memory_warnings(sum(child.config.memory for child in self._children)):
                log.warning("%s", warning)
            # The first one alone: what keeps it from starting is said once.
            self._start(self._children[0])
            while any(c.process or c.start_at is not None for c in self._children):
                if self._manager.watchdog_s is not None:
                    self._manager.alive()
                for key, _ in self._selector.select(self._pause_s()):
                    if self._selector.get_map().get(key.fileobj) is key:  # not over since
                        key.data()
                now = time.monotonic()
                for child in self._children:
                    if child.start_at is not None and child.start_at <= now:
                        self._start(child)
        return self._code

    def _pause_s(self) -> float | None:
        now = time.monotonic()
        pauses = [child.start_at - now for child in self._children if child.start_at is not None]
        if self._manager.watchdog_s is not None:
            pauses.append(self._manager.watchdog_s)
        return max(0.0, min(pauses)) if pauses else None

    # --- signals --------------------------------------------------------------------------

    @contextmanager
    def _signals_woken(self) -> Iterator[None]:
        """Have signals wake the selector and be sent on, one after another."""
        ours, theirs = socketpair()
        ours.setblocking(False)
        theirs.setblocking(False)

        def asked() -> None:
            for signum in ours.recv(_READ_BYTES):
                if signum != signal.SIGHUP or self._hangup.ends():
                    self._end()

        self._selector.register(ours, selectors.EVENT_READ, asked)
        before_fd = signal.set_wakeup_fd(theirs.fileno())
        before = {signum: signal.getsignal(signum) for signum in _SIGNALS}
        for signum, handler in before.items():
            if signum != signal.SIGHUP or handler is not signal.SIG_IGN:  # which nohup has set
                signal.signal(signum, lambda *_: None)
        try:
            yield
        finally:
            for signum, handler in before.items():
                signal.signal(signum, handler)
            signal.set_wakeup_fd(before_fd)
            ours.close()
            theirs.close()

    def _end(self) -> None:
        """Tell the daemons what this process was told: each knows what to do at which time."""
        self._ending = True
        self._manager.stopping()
        for child in self._children:
            child.start_at = None
            if child.process is not None:
                child.process.terminate()

    # --- processes ------------------------------------------------------------------------

    def _start(self, child: _Child) -> None:
        child.start_at = None
        process = child.process = subprocess.Popen(  # noqa: S603 - our own command
            [*self._command, *self._arguments(child.config)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            process_group=0,  # Ctrl-C is for this process to send on
        )
        child.started = time.monotonic()
        child.pidfd = os.pidfd_open(process.pid)
        self._selector.register(child.pidfd, selectors.EVENT_READ, partial(self._ended, child))
        assert process.stdout is not None
        self._selector.register(
            process.stdout,
            selectors.EVENT_READ,
            partial(self._relay, child, process.stdout.fileno()),
        )

    def _arguments(self, config: DaemonConfig) -> list[str]:
        options = []
        for one in fields(config):
            name, value = f"--{one.name.replace('_', '-')}", getattr(config, one.name)
            if not isinstance(value, bool):
                options.append(f"{name}={value}")
            elif value:
                options.append(name)
        logs = self._logs
        return [*options, f"--log-level={logs.levels}", f"--log-format={logs.format}"]

    def _relay(self, child: _Child, fd: int) -> None:
        """Pass on whole lines of a daemon, and learn from them where it serves."""
        data = os.read(fd, _READ_BYTES)
        if not data:
            self._selector.unregister(fd)
            return
        *lines, child.partial_line = (child.partial_line + data).split(b"\n")
        for line in lines:
            say(line.decode(errors="backslashreplace"))
            ready = f"{self._name} ready on ".encode()
            if line.startswith(ready):
                self._serves(child, line.removeprefix(ready).decode())

    def _serves(self, child: _Child, address: str) -> None:
        if child.was_ready:
            return
        child.was_ready = True
        if all(one.was_ready for one in self._children):
            self._manager.ready()
        if not child.config.advertise:  # what it says is where it listens
            child.config = replace(child.config, listen=address)
        if child is self._children[0] and not self._ending:
            for other in self._children[1:]:
                self._start(other)

    def _ended(self, child: _Child) -> None:
        process = child.process
        assert process is not None
        assert process.stdout is not None
        fd = process.stdout.fileno()
        while fd in self._selector.get_map():  # what it said at the very end
            self._relay(child, fd)
        self._selector.unregister(child.pidfd)
        os.close(child.pidfd)
        process.stdout.close()
        child.process, child.partial_line = None, b""
        code = process.wait()
        is_told = self._ending or code == 0  # by us, or by the metadata service: it has drained
        if is_told or not child.was_ready:
            self._code = self._code or (code if code >= 0 else 128 - code)
            if not is_told:  # it could not start, and has said why: neither can the rest
                self._end()
        else:
            wait_s = child.backoff.died(time.monotonic() - child.started)
            child.start_at = time.monotonic() + wait_s
            event = Event(
                kind=EventKind.PROCESS_ENDED,
                daemon=child.config.advertise or child.config.listen,
                process=process.pid,
                code=code,
                seconds=wait_s,
                reason="it is started again in this time",
            )
            level, fields = event.kind.severity, event.shown()
            log.log(level, "%s", event.kind.label, extra=event_extra(fields))
