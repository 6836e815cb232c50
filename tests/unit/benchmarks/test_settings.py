"""Options out of settings: what commands are told, and what results say of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from cosco_bench.cli import main
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

from cosco.errors import InvalidArgument

RESULTS = Path(__file__).resolve().parents[3] / "benchmarks" / "results"
DEFAULTS = {
    "daemon": DaemonSettings(),
    "growth": GrowthSettings(),
    "io": IoSettings(),
    "latency": LatencySettings(),
    "packing": PackingSettings(),
    "peers": PeersSettings(),
    "throughput": ThroughputSettings(),
}


def given(monkeypatch: pytest.MonkeyPatch, *args: str, **environment: str) -> Settings:
    """What a command line becomes."""
    found: list[Any] = []
    monkeypatch.setattr(main, "run_benchmark", lambda *call: found.append(call))
    done = CliRunner().invoke(main.command, args, env=environment, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    (call,) = found
    assert call[0] == args[0]
    settings: Settings = call[2]
    return settings


@pytest.mark.parametrize("name", DEFAULTS)
def test_a_command_told_nothing_has_the_defaults(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert given(monkeypatch, name) == DEFAULTS[name]


def test_options_become_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    options = ("--sizes", "1MB, 2MB", "--mappers", "", "--memory", "1GiB", "--scale-mappers", "0")
    found = given(
        monkeypatch, "growth", *options, "--directory", str(tmp_path), COSCO_BENCH_GROWTH_RUNS="9"
    )
    assert found == GrowthSettings(
        sizes=(10**6, 2 * 10**6),
        mappers=(),
        memory=1 << 30,
        scale_mappers=0,
        runs=9,
        directory=str(tmp_path.resolve()),
    )


def test_every_command_is_described_with_its_options() -> None:
    for name, settings in DEFAULTS.items():
        shown = CliRunner().invoke(main.command, [name, "--help"], terminal_width=200).output
        assert " ".join((type(settings).__doc__ or "").split())[:40] in shown
        for word in ("--json FILE", "--directory DIRECTORY", "[default:"):
            assert word in shown
        assert ("--plot FILE" in shown) == (name in {"io", "growth"})


@pytest.mark.parametrize("name", DEFAULTS)
def test_settings_of_published_results_have_the_same_names(name: str) -> None:
    published = json.loads((RESULTS / f"{name}.json").read_text())["settings"]
    assert DEFAULTS[name].to_json().keys() - {"metadata"} == published.keys()


def test_a_run_that_makes_no_sense_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="--merge-factor is 1"):
        IoSettings(merge_factor=1).check()
    with pytest.raises(InvalidArgument, match="rows of 100 bytes"):
        IoSettings(bytes=100, mappers=2).check()
    with pytest.raises(InvalidArgument, match="--base-size"):
        GrowthSettings(base_size=99).check()


def test_a_mapper_of_the_sort_shuffle_spills_four_times_unless_told() -> None:
    settings = IoSettings(bytes=1000 * 100, mappers=10)
    assert settings.mapper_rows == [100] * 10
    assert settings.sort_bytes == settings.to_json()["sort_memory"] == 25 * 100
    assert IoSettings(sort_memory=7).sort_bytes == 7
    assert IoSettings(memory=64).memory_levels == [64, 32, 16]
