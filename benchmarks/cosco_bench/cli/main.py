"""`cosco-bench`: each command runs one benchmark, shows its figures and saves them."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import fields
from functools import reduce
from pathlib import Path
from typing import Any, Final

import click

from cosco.cli.options import run_command, version_option
from cosco.errors import InvalidArgument
from cosco_bench.settings import (
    DaemonSettings,
    GrowthSettings,
    IoSettings,
    LatencySettings,
    PackingSettings,
    PeersSettings,
    Settings,
    ThroughputSettings,
)

NAME = "cosco-bench"

#: By command: what it can be told, the module whose `measure` runs it, what it can draw.
_BENCHMARKS: Final[dict[str, tuple[type[Settings], str, str]]] = {
    "throughput": (ThroughputSettings, "throughput.throughput", ""),
    "io": (IoSettings, "io.io_report", "IO sizes, and service time against memory"),
    "packing": (PackingSettings, "packing.packing_run", ""),
    "daemon": (DaemonSettings, "daemon.daemon_run", ""),
    "latency": (LatencySettings, "latency.latency", ""),
    "growth": (GrowthSettings, "growth.growth", "the curves"),
    "peers": (PeersSettings, "peers.peers", ""),
}


@click.group(no_args_is_help=False, context_settings={"auto_envvar_prefix": "COSCO_BENCH"})
@version_option
def command() -> None:
    """Measure cosco on this machine."""


def _options(settings_class: type[Settings], drawn: str) -> list[Callable[..., Any]]:
    """Return what gives a command its options, in their order."""
    options = []
    # What all have comes last.
    for one in sorted(fields(settings_class), key=lambda one: one.name == "directory"):
        default, shown = one.default, one.metadata["shown"] or True
        if isinstance(default, tuple) and shown is True:
            shown = ",".join(map(str, default)) or False
        options.append(
            click.option(
                f"--{one.name.replace('_', '-')}",
                one.name,
                type=one.metadata["type"],
                is_flag=True if default is False else None,
                default=default,
                show_default=shown,
                help=one.metadata["help"],
            )
        )
    file = click.Path(dir_okay=False, writable=True)
    options.append(
        click.option("--json", "json_path", type=file, help="also write the figures to this file")
    )
    if drawn:
        text = f"also draw {drawn} to this file, SVG or PNG by its ending"
        options.append(click.option("--plot", "plot_path", type=file, help=text))
    return options


def _add(name: str, settings_class: type[Settings], module: str, drawn: str) -> None:
    def run(json_path: str | None, plot_path: str | None = None, **options: Any) -> int:
        return run_benchmark(name, module, settings_class(**options), json_path, plot_path)

    run.__doc__ = settings_class.__doc__
    options = reversed(_options(settings_class, drawn))
    command.command(name)(reduce(lambda function, option: option(function), options, run))


for _name, _of in _BENCHMARKS.items():
    _add(_name, *_of)


def run_benchmark(
    name: str, module: str, settings: Settings, json_path: str | None, plot_path: str | None
) -> int:
    """Measure, show, draw and save. What can be refused is, before anything starts.

    Returns: the exit code.
    """
    require_bench_extra(*(["matplotlib"] if plot_path else []))
    from cosco_bench.harness.bench_report import Bars, check_target, document, save, show

    settings.check()
    check_target("--json", json_path)
    check_target("--plot", plot_path)
    measure = importlib.import_module(f"cosco_bench.{module}").measure
    with Bars() as bars:
        report = measure(settings, bars)
    show(report)
    if plot_path is not None:
        report.draw(Path(plot_path))
    save(json_path, document(name, report.figures, settings.to_json()))
    return 1 if report.failed else 0


def require_bench_extra(*modules: str) -> None:
    """Raise InvalidArgument if what benchmarks need, or one of `modules`, is not installed."""
    for module in ("psutil", "rich", *modules):
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise InvalidArgument(
                f"{error.name} is not installed: run pip install 'cosco[bench]'"
            ) from None


def main() -> None:
    """Run the console script."""
    run_command(command, NAME)


if __name__ == "__main__":
    main()
