"""Command line options out of configuration dataclasses, and how commands end.

An option is a field: its name, its environment variable, its default and its help come from
`cosco.config`, so that the command line cannot say anything else than the code.
"""

from __future__ import annotations

import dataclasses
import os
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any, NoReturn, TypeVar

import click

from cosco import __version__
from cosco.config import (
    METADATA_VARIABLE,
    DaemonConfig,
    MetadataConfig,
    ReachOptions,
    parse_size,
)
from cosco.errors import CoscoError, InvalidArgument

ConfigClass = type[MetadataConfig] | type[DaemonConfig]
_Function = TypeVar("_Function", bound=Callable[..., Any])

_UNITS = (("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10))


def format_size(size: int) -> str:
    """Return `size` as `parse_size` reads it back: 4194304 is `4MiB`."""
    for unit, factor in _UNITS:
        if size and size % factor == 0:
            return f"{size // factor}{unit}"
    return str(size)


class SizeType(click.ParamType):  # type: ignore[type-arg]  # generic in newer click only
    """A number of bytes, given as `256MiB`, `1GB` or `4096`, at least `least`."""

    name = "size"

    def __init__(self, least: int = 0) -> None:
        self._least = least

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            size = value if isinstance(value, int) else parse_size(str(value))
        except InvalidArgument as error:
            self.fail(str(error), param, ctx)
        if size < self._least:
            self.fail(f"{format_size(size)} is less than {format_size(self._least)}", param, ctx)
        return size


class OneOfSeveral(click.ParamType):  # type: ignore[type-arg]  # generic in newer click only
    """Text of an option that may be given more than once; a variable has them all in one."""

    name = "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        return str(value)

    def split_envvar_value(self, rv: str) -> list[str]:
        return [rv]


SIZE = SizeType()
SEVERAL = OneOfSeveral()


def _join(_ctx: click.Context, _param: click.Parameter, values: tuple[str, ...]) -> str:
    """Return what was given more than once as the field has it."""
    return " ".join(values)


@dataclasses.dataclass(frozen=True, slots=True)
class OptionSpec:
    """One option as it is documented."""

    name: str
    variable: str
    type: click.ParamType[Any]
    default: Any
    shown_default: str
    help: str


def option_specs(config_class: ConfigClass) -> list[OptionSpec]:
    """Return the options of a configuration class, its own before those that both have."""
    specs = []
    shared = {field.name for field in dataclasses.fields(ReachOptions)}
    for field in sorted(dataclasses.fields(config_class), key=lambda field: field.name in shared):
        size, several = field.metadata["size"], field.metadata["several"]
        default: Any = field.default
        types: dict[type, click.ParamType[Any]] = {
            bool: click.BOOL,
            int: click.INT,
            float: click.FLOAT,
            str: click.STRING,
        }
        specs.append(
            OptionSpec(
                name="--" + field.name.replace("_", "-"),
                variable=(
                    METADATA_VARIABLE
                    if field.name == "metadata"
                    else config_class.env_prefix + field.name.upper()
                ),
                type=SIZE if size else SEVERAL if several else types[type(default)],
                default=default,
                shown_default=format_size(default) if size else str(default),
                help=field.metadata["help"],
            )
        )
    return specs


def config_options(config_class: ConfigClass) -> Callable[[_Function], _Function]:
    """Return a decorator that gives a click command the options of a configuration class."""

    def decorate(function: _Function) -> _Function:
        for spec in reversed(option_specs(config_class)):
            function = click.option(
                spec.name,
                envvar=spec.variable,
                show_envvar=True,
                type=spec.type,
                is_flag=spec.type is click.BOOL,
                default=[spec.default] if spec.type is SEVERAL else spec.default,
                multiple=spec.type is SEVERAL,
                callback=_join if spec.type is SEVERAL else None,
                show_default=spec.shown_default
                if spec.type in (SIZE, SEVERAL)
                else bool(spec.default),
                help=spec.help,
            )(function)
        return function

    return decorate


def metadata_option(function: _Function) -> _Function:
    """Add `--metadata`, for commands that are clients."""
    spec = next(s for s in option_specs(DaemonConfig) if s.name == "--metadata")
    return click.option(
        spec.name,
        envvar=spec.variable,
        show_envvar=True,
        default=spec.default,
        show_default=True,
        help=spec.help,
    )(function)


def _show_version(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        click.echo(f"{ctx.find_root().info_name} {__version__}")
        ctx.exit()


def version_option(function: _Function) -> _Function:
    """Add `--version`."""
    return click.option(
        "--version",
        is_flag=True,
        expose_value=False,
        is_eager=True,
        callback=_show_version,
        help="Show the version and exit.",
    )(function)


def _terminate(_signum: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + signal.SIGTERM)


class Refused(Exception):
    """What was asked for is not there, or may not be done: a command ends with 1."""


class Outage(Exception):
    """A service ends with 1, as what it needs does not answer: started again later it may serve."""


def run_command(command: click.Command, name: str) -> NoReturn:
    """Run a command and end the process.

    A bad option and any CoscoError end it with exit code 2 and one line on stderr, Refused and
    Outage with 1; an integer that the command returns is its exit code. SIGTERM unwinds the stack,
    so that what was started is stopped.
    """
    signal.signal(signal.SIGTERM, _terminate)
    # gRPC's own log lines say the same as our errors, in terms of its sources.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    try:
        code = command.main(prog_name=name, standalone_mode=False)
    except click.UsageError as error:
        path = error.ctx.command_path if error.ctx else name
        _fail(name, f"{error.format_message().rstrip('.')}; see {path} --help")
    except click.ClickException as error:
        _fail(name, error.format_message())
    except (Refused, Outage) as error:
        _fail(name, str(error), 1)
    except CoscoError as error:
        _fail(name, str(error))
    except (click.Abort, KeyboardInterrupt):
        sys.exit(128 + signal.SIGINT)
    except BrokenPipeError:
        # Whoever read our output has gone: nothing more can be said to them.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    sys.exit(code if isinstance(code, int) else 0)


def _fail(name: str, message: str, code: int = 2) -> NoReturn:
    """End with one line, in which nothing steers a terminal."""
    line = " ".join(message.split())
    shown = "".join(c if c.isprintable() else repr(c)[1:-1] for c in line)
    click.echo(f"{name}: {shown}", err=True)
    sys.exit(code)
