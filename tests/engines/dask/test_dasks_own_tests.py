"""What of Dask's own tests passes with P2P, passes with Cosco; exceptions.toml names the others."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from engines.dask_own.run_dasks_own import FILES, run
from support.engine_runs import IS_SOAK

from cosco import LocalCluster

EXCEPTIONS: list[dict[str, Any]] = tomllib.loads(
    (Path(__file__).resolve().parents[1] / "dask_own" / "exceptions.toml").read_text()
)["exception"]


def excepted(file: str, **only: Any) -> set[str]:
    """The functions of a file that do not pass, whatever their arguments."""
    mine = [one for one in EXCEPTIONS if one["file"] == file]
    fitting = [one for one in mine if only.items() <= one.items()]
    return {test for one in fitting for test in one["tests"]}


@pytest.mark.timeout(1800 if IS_SOAK else 400)
@pytest.mark.parametrize("file", FILES if IS_SOAK else FILES[:2])
def test_all_but_the_exceptions_pass(services: LocalCluster, file: str) -> None:
    """In the short form two files, each test with one of its arguments; in the long one all."""
    hanging = excepted(file, hangs=True)
    outcomes = run("cosco", file, services.metadata, without=hanging, is_short=not IS_SOAK)
    failed = {name: why for name, why in outcomes.items() if why}
    functions = {name.partition("[")[0] for name in failed}
    new = {
        name: why for name, why in failed.items() if name.partition("[")[0] not in excepted(file)
    }
    assert not new, "\n".join(f"{name}: {why.splitlines()[0]}" for name, why in new.items())
    assert functions == excepted(file) - hanging, "what passes is no exception any more"
    assert len(outcomes) >= 15  # not all skipped, or another layout of the files


@pytest.mark.skipif(not IS_SOAK, reason="tells of Dask, not of Cosco: make soak-engines runs it")
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("file", FILES)
def test_what_p2p_does_not_pass_is_said(file: str) -> None:
    outcomes = run("p2p", file, "", without=excepted(file, hangs=True))
    failed = {name.partition("[")[0] for name, why in outcomes.items() if why}
    assert excepted(file, with_p2p="fails", hangs=False) <= failed
