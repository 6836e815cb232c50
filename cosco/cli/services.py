"""Running a service in the foreground: readiness line, signals, logging, what systemd is told."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any, Final, Protocol, TypeVar

import click

from cosco.cli.options import Outage
from cosco.errors import ServiceUnavailable
from cosco.process.log_output import FORMATS, LogSettings, logging_to_stderr
from cosco.process.service_manager import ServiceManager, service_manager

log = logging.getLogger(__name__)

LOG_LEVEL_HELP: Final = (
    "least severe messages to write to stderr: debug, info, warning or error; with commas also "
    "LOGGER=LEVEL, for example info,cosco.metadata=debug"
)
LOG_FORMAT_HELP: Final = "how messages are written: text, or json with an object in each line"

_Function = TypeVar("_Function", bound=Callable[..., Any])


class Serve(Protocol):
    """A service: serves until `stop` is set, having told `ready` its host:port.

    Raises CoscoError when it cannot start.
    """

    def __call__(
        self, config: Any, /, *, ready: Callable[[str], None], stop: asyncio.Event
    ) -> Awaitable[None]: ...


class ServeAndDrain(Protocol):
    """A service that begins to drain when `stop` is set, and ends at once at `stop_now`.

    It calls `drained` when it is drained and serves on all the same.
    """

    def __call__(
        self,
        config: Any,
        /,
        *,
        ready: Callable[[str], None],
        stop: asyncio.Event,
        stop_now: asyncio.Event,
        drained: Callable[[], None],
    ) -> Awaitable[None]: ...


def log_options(variable_prefix: str) -> Callable[[_Function], _Function]:
    """Return a decorator that adds `--log-level` and `--log-format`."""

    def decorate(function: _Function) -> _Function:
        function = click.option(
            "--log-format",
            envvar=f"{variable_prefix}LOG_FORMAT",
            show_envvar=True,
            type=click.Choice(FORMATS),
            default="text",
            show_default=True,
            help=LOG_FORMAT_HELP,
        )(function)
        return click.option(
            "--log-level",
            envvar=f"{variable_prefix}LOG_LEVEL",
            show_envvar=True,
            default="info",
            show_default=True,
            help=LOG_LEVEL_HELP,
        )(function)

    return decorate


def run_service(name: str, serve: Serve, config: Any, logs: LogSettings) -> None:
    """Serve until SIGTERM or SIGINT; a second one kills the process at once."""

    async def run(manager: ServiceManager) -> None:
        stop = asyncio.Event()
        _on_signals(stop)
        async with _told(manager, stop):
            await serve(config, ready=partial(_ready, name, manager), stop=stop)

    _run(name, run, logs)


def run_draining_service(name: str, serve: ServeAndDrain, config: Any, logs: LogSettings) -> None:
    """Serve until SIGTERM or SIGINT and the end of the drain that it begins; a second one ends
    the drain, and a third one kills the process at once."""

    async def run(manager: ServiceManager) -> None:
        stop, stop_now = asyncio.Event(), asyncio.Event()
        _on_signals(stop, stop_now)
        async with _told(manager, stop):
            await serve(
                config,
                ready=partial(_ready, name, manager),
                stop=stop,
                stop_now=stop_now,
                drained=partial(say, f"{name} drained"),
            )

    _run(name, run, logs)


def _run(name: str, run: Callable[[ServiceManager], Awaitable[None]], logs: LogSettings) -> None:
    async def main() -> None:
        await run(service_manager())

    try:
        with logging_to_stderr(name, logs):
            asyncio.run(main())
    except ServiceUnavailable as error:
        # Not what it was told is wrong: whoever started it may start it again (systemd does).
        raise Outage(str(error)) from None


@asynccontextmanager
async def _told(manager: ServiceManager, stop: asyncio.Event) -> AsyncIterator[None]:
    """Have the service's manager told that it lives, and when it begins to end."""

    async def tell_end() -> None:
        await stop.wait()
        manager.stopping()

    async def tell_life(every_s: float) -> None:
        while True:  # by the event loop: if that stands still, nobody is told
            manager.alive()
            await asyncio.sleep(every_s)

    tasks = [asyncio.create_task(tell_end(), name="tell-end")]
    if manager.watchdog_s is not None:
        tasks.append(asyncio.create_task(tell_life(manager.watchdog_s), name="tell-life"))
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def say(line: str) -> None:
    """Print a line, if anybody is there to read it."""
    try:
        print(line, flush=True)
    except OSError:  # its terminal, or the program that read it, is gone: no reason to end
        with suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _ready(name: str, manager: ServiceManager, address: str) -> None:
    say(f"{name} ready on {address}")
    manager.ready()


def _on_signals(*events: asyncio.Event) -> None:
    """Set the next event at each signal; what comes after the last one kills."""
    loop = asyncio.get_running_loop()
    signals = (signal.SIGTERM, signal.SIGINT)
    left = list(events)

    def asked() -> None:
        if not left:
            return
        left.pop(0).set()
        if not left:
            for signum in signals:
                loop.remove_signal_handler(signum)
                signal.signal(signum, signal.SIG_DFL)

    for signum in signals:
        loop.add_signal_handler(signum, asked)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # which nohup has set
        hangup = Hangup()

        def hung_up() -> None:
            if hangup.ends():
                asked()

        loop.add_signal_handler(signal.SIGHUP, hung_up)


class Hangup:
    """What a SIGHUP means: that the terminal has closed, or nothing.

    A terminal that closes is an end like Ctrl-C. Without a terminal, SIGHUP is what programs send
    that rotate logs or have options read again, and must not cost a daemon its rows.
    """

    def __init__(self) -> None:
        """Look whether this process has a terminal."""
        self._had_terminal = _has_terminal()

    def ends(self) -> bool:
        """Whether the service is to end as it does on SIGTERM."""
        if self._had_terminal and not _has_terminal():
            self._had_terminal = False  # the next one is no second request to end
            log.warning("the terminal has closed: ending as on SIGTERM")
            return True
        log.info("SIGHUP does nothing: options are read at the start, and the log is stderr")
        return False


def _has_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True
