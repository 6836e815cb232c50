"""Running a service in the foreground: readiness line, signals, logging."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Protocol, TypeVar

import click

_LEVELS = ("debug", "info", "warning", "error")
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


def log_level_option(variable_prefix: str) -> Callable[[_Function], _Function]:
    """Return a decorator that adds `--log-level`."""
    return click.option(
        "--log-level",
        envvar=f"{variable_prefix}LOG_LEVEL",
        show_envvar=True,
        type=click.Choice(_LEVELS, case_sensitive=False),
        default="info",
        show_default=True,
        help="least severe messages to write to stderr",
    )


def run_service(name: str, serve: Serve, config: Any, log_level: str) -> None:
    """Serve until SIGTERM or SIGINT; a second one kills the process at once."""
    log_to_stderr(name, log_level)

    async def run() -> None:
        stop = asyncio.Event()
        _on_signals(stop)
        await serve(config, ready=partial(_ready, name), stop=stop)

    asyncio.run(run())


def run_draining_service(name: str, serve: ServeAndDrain, config: Any, log_level: str) -> None:
    """Serve until SIGTERM or SIGINT and the end of the drain that it begins; a second one ends
    the drain, and a third one kills the process at once."""
    log_to_stderr(name, log_level)

    async def run() -> None:
        stop, stop_now = asyncio.Event(), asyncio.Event()
        _on_signals(stop, stop_now)
        await serve(
            config,
            ready=partial(_ready, name),
            stop=stop,
            stop_now=stop_now,
            drained=lambda: print(f"{name} drained", flush=True),
        )

    asyncio.run(run())


def log_to_stderr(name: str, level: str) -> None:
    """Write what this process logs to stderr, from `level` on."""
    logging.basicConfig(
        stream=sys.stderr,
        level=level.upper(),
        format=f"%(asctime)s {name} %(levelname)s %(name)s: %(message)s",
    )


def _ready(name: str, address: str) -> None:
    print(f"{name} ready on {address}", flush=True)


def _on_signals(*events: asyncio.Event) -> None:
    """Set the next event at each signal; what comes after the last one kills."""
    loop = asyncio.get_running_loop()
    signals = (signal.SIGTERM, signal.SIGINT)
    left = list(events)

    def asked() -> None:
        left.pop(0).set()
        if not left:
            for signum in signals:
                loop.remove_signal_handler(signum)
                signal.signal(signum, signal.SIG_DFL)

    for signum in signals:
        loop.add_signal_handler(signum, asked)
