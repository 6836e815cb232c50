from __future__ import annotations

import dataclasses
import re
from typing import Any

import click
import pytest
from click.testing import CliRunner

from cosco.cli.options import (
    SIZE,
    ConfigClass,
    config_options,
    format_size,
    option_specs,
    run_command,
    version_option,
)
from cosco.config import DaemonConfig, MetadataConfig, parse_size
from cosco.errors import ServiceUnavailable

CONFIGS: list[ConfigClass] = [MetadataConfig, DaemonConfig]


def options_given(config_class: ConfigClass, *args: str, **environment: str) -> Any:
    """The configuration that a command line and an environment make."""
    made: list[Any] = []

    @click.command
    @config_options(config_class)
    def command(**options: Any) -> None:
        made.append(config_class(**options))

    result = CliRunner().invoke(command, args, env=environment, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return made[0]


@pytest.mark.parametrize("config_class", CONFIGS)
def test_defaults_are_those_of_the_class(config_class: ConfigClass) -> None:
    assert options_given(config_class) == config_class()


@pytest.mark.parametrize("config_class", CONFIGS)
def test_every_field_from_option_and_environment(config_class: ConfigClass) -> None:
    specs = {spec.name: spec for spec in option_specs(config_class)}
    fields = dataclasses.fields(config_class)
    assert len(specs) == len(fields)
    for field in fields:
        spec = specs["--" + field.name.replace("_", "-")]
        kind: Any = type(field.default)
        text = {str: "x:1", int: "77", float: "7.5", bool: "true"}[kind]
        expected = dataclasses.replace(config_class(), **{field.name: kind(text)})
        given = (spec.name,) if kind is bool else (spec.name, text)
        assert options_given(config_class, *given) == expected
        assert options_given(config_class, **{spec.variable: text}) == expected


def test_the_command_line_wins() -> None:
    made = options_given(DaemonConfig, "--memory", "64MiB", COSCO_SHUFFLED_MEMORY="1GiB")
    assert made.memory == 64 << 20


def test_stores_are_given_one_by_one_or_in_one_variable() -> None:
    urls = ("file:///a b", "file:///c")
    for made in (
        options_given(DaemonConfig, "--store", urls[0], "--store", urls[1]),
        options_given(DaemonConfig, COSCO_SHUFFLED_STORE=" ".join(urls)),
        options_given(DaemonConfig, COSCO_SHUFFLED_STORE=",".join(urls)),
    ):
        assert made.stores == urls
    made = options_given(DaemonConfig, "--store", "file:///d", COSCO_SHUFFLED_STORE=" ".join(urls))
    assert made.stores == ("file:///d",)


def test_metadata_takes_the_variable_of_all_clients() -> None:
    assert options_given(DaemonConfig, COSCO_METADATA="h:1").metadata == "h:1"


@pytest.mark.parametrize("config_class", CONFIGS)
def test_variables_are_distinct(config_class: ConfigClass) -> None:
    variables = [spec.variable for spec in option_specs(config_class)]
    assert len(set(variables)) == len(variables)
    assert all(re.fullmatch(r"COSCO_[A-Z_]+", variable) for variable in variables)


@pytest.mark.parametrize("size", [0, 1, 1000, 1024, 1 << 20, 3 << 30, 5 << 40, (1 << 20) + 1])
def test_sizes_are_shown_as_they_are_read(size: int) -> None:
    assert parse_size(format_size(size)) == size


def exit_of(command: click.Command, *args: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr("sys.argv", ["tool", *args])
    with pytest.raises(SystemExit) as ended:
        run_command(command, "tool")
    return ended.value.code


@click.command
@click.option("--size", type=SIZE, default=1, help="a size")
@click.option("--fail", is_flag=True)
@click.option("--code", type=int)
@version_option
def tool(size: int, fail: bool, code: int | None) -> int | None:
    """A tool."""
    if fail:
        raise ServiceUnavailable(f"no service\nfor {size}")
    return code


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--nope"], "tool: No such option.*--nope.*; see tool --help"),
        (["--size", "3 apples"], "tool: Invalid value for '--size': '3 apples' is no size.*"),
        (["--size"], "tool: Option '--size' requires an argument; see tool --help"),
        (["extra"], r"tool: Got unexpected extra argument \(extra\); see tool --help"),
        (["--fail", "--size", "3"], "tool: no service for 3"),
    ],
)
def test_what_is_wrong_is_one_line_and_code_2(
    args: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert exit_of(tool, *args, monkeypatch=monkeypatch) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(message + "\n", err), err


@pytest.mark.parametrize(("args", "code"), [([], 0), (["--code", "3"], 3), (["--help"], 0)])
def test_exit_codes(args: list[str], code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    assert exit_of(tool, *args, monkeypatch=monkeypatch) == code


def test_version(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_of(tool, "--version", monkeypatch=monkeypatch) == 0
    assert re.fullmatch(r"tool \S.*\n", capsys.readouterr().out)
