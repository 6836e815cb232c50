"""Running a service in the foreground: readiness line, signals, logging."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from collections.abc import Awaitable, Callable
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


def log_level_option(variable_prefix: str) -> Callable[[_Function], _Function]:
    """`--log-level` of a service."""
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
    logging.basicConfig(
        stream=sys.stderr,
        level=log_level.upper(),
        format=f"%(asctime)s {name} %(levelname)s %(name)s: %(message)s",
    )
    asyncio.run(_serve(name, serve, config))


async def _serve(name: str, serve: Serve, config: Any) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    signals = (signal.SIGTERM, signal.SIGINT)

    def ask_to_stop() -> None:
        stop.set()
        for signum in signals:
            loop.remove_signal_handler(signum)
            signal.signal(signum, signal.SIG_DFL)

    for signum in signals:
        loop.add_signal_handler(signum, ask_to_stop)

    def ready(address: str) -> None:
        print(f"{name} ready on {address}", flush=True)

    await serve(config, ready=ready, stop=stop)
