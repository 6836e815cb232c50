"""What the commands of `cosco-bench` have in common."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from cosco.cli.options import SIZE, format_size
from cosco.errors import InvalidArgument

_Function = TypeVar("_Function", bound=Callable[..., Any])

COUNT = click.IntRange(min=1, max=256)
#: A pool of less has no room for a frame of the largest size and what else there must be.
MIN_MEMORY = 16 << 20


class ListType(click.ParamType):  # type: ignore[type-arg]  # generic in newer click only
    """Values with commas between them, in ascending or any order; nothing for none of them."""

    name = "list"

    def __init__(self, of: click.ParamType) -> None:  # type: ignore[type-arg]
        self._of = of

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, tuple):
            return value
        parts = [part.strip() for part in str(value).split(",")]
        return tuple(self._of.convert(part, param, ctx) for part in parts if part)


def partitions_option(
    help_: str = "partitions of the exchange", most: int = 1 << 20
) -> Callable[[_Function], _Function]:
    """`--partitions`."""
    return click.option(
        "--partitions",
        type=click.IntRange(min=1, max=most),
        default=64,
        show_default=True,
        help=help_,
    )


def daemons_option(least: int = 1) -> Callable[[_Function], _Function]:
    """`--daemons`."""
    return click.option(
        "--daemons",
        type=click.IntRange(least, 256),
        default=2,
        show_default=True,
        help="shuffle daemons",
    )


def memory_option(
    help_: str = "page pool of each daemon", least: int = MIN_MEMORY, why: str = ""
) -> Callable[[_Function], _Function]:
    """`--memory`, in bytes, at least `least` of them."""

    def check(_ctx: click.Context, _param: click.Parameter, memory: int) -> int:
        if memory < least:
            raise InvalidArgument(
                f"--memory is {format_size(memory)}, it must be at least {format_size(least)}{why}"
            )
        return memory

    return click.option(
        "--memory", type=SIZE, default="256MiB", show_default=True, callback=check, help=help_
    )


def codec_option(help_: str = "how writers compress blocks") -> Callable[[_Function], _Function]:
    """`--codec`."""
    return click.option(
        "--codec",
        type=click.Choice(["lz4", "none"]),
        default="lz4",
        show_default=True,
        help=help_,
    )


def replicas_option(help_: str = "copies of a row in memory") -> Callable[[_Function], _Function]:
    """`--replicas`, one of 1 and 2."""
    return click.option(
        "--replicas", type=click.IntRange(1, 2), default=1, show_default=True, help=help_
    )


def replicas_list_option(help_: str) -> Callable[[_Function], _Function]:
    """`--replicas`, of which each is run."""
    return click.option(
        "--replicas",
        type=ListType(click.IntRange(1, 2)),
        default="1,2",
        show_default=True,
        help=help_,
    )


def plot_option(help_: str) -> Callable[[_Function], _Function]:
    """`--plot`."""
    return click.option(
        "--plot", "plot_path", type=click.Path(dir_okay=False, writable=True), help=help_
    )


def peers_options(names: Sequence[str], help_: str) -> Callable[[_Function], _Function]:
    """`--peers`, `--timeout-s` and `--environments`, of runs of other systems."""
    options = (
        click.option(
            "--peers",
            type=ListType(click.Choice(names)),
            default=",".join(names),
            show_default=True,
            help=help_,
        ),
        click.option(
            "--timeout-s",
            type=click.FloatRange(min=1),
            default=900.0,
            show_default=True,
            help="a peer that has not ended after so many seconds has failed",
        ),
        click.option(
            "--environments",
            type=click.Path(file_okay=False),
            help="the directory with an environment for each peer; without it that of make peers",
        ),
    )

    def decorated(function: _Function) -> _Function:
        for option in reversed(options):
            function = option(function)
        return function

    return decorated


def directory_option(function: _Function) -> _Function:
    """`--directory`."""
    return click.option(
        "--directory",
        type=click.Path(exists=True, file_okay=False, writable=True),
        callback=lambda _ctx, _param, value: str(Path(value).resolve()) if value else None,
        help="where all files go; a temporary directory without it",
    )(function)


def json_option(function: _Function) -> _Function:
    """`--json`."""
    return click.option(
        "--json",
        "json_path",
        type=click.Path(dir_okay=False, writable=True),
        help="also write the figures to this file",
    )(function)


def require_bench_extra(*modules: str) -> None:
    """Raise InvalidArgument if what benchmarks need, or one of `modules`, is not installed."""
    for module in ("psutil", "rich", *modules):
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise InvalidArgument(
                f"{error.name} is not installed: run pip install 'cosco[bench]'"
            ) from None
