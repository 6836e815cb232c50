"""What the commands of `cosco-bench` have in common."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from cosco.errors import InvalidArgument

_Function = TypeVar("_Function", bound=Callable[..., Any])

COUNT = click.IntRange(min=1, max=256)


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
