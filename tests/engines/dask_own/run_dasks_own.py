"""Run tests that Dask's wheel has, with a cluster, and tell what became of each.

    python tests/engines/dask_own/run_dasks_own.py p2p      # what passes with Dask's own method
    python tests/engines/dask_own/run_dasks_own.py cosco    # and with Cosco

The tests of expressions are made for one process, so `plugin_for_dask.py` gives them a cluster. In
a copy of them "p2p" is replaced by the method's name, and Dask's class of such a shuffle by ours.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Final
from xml.etree import ElementTree as ET

import cosco

ROOT: Final = Path(__file__).resolve().parents[3]
FILES: Final = ("test_distributed.py", "test_shuffle.py", "test_merge.py", "test_groupby.py")
#: Its tests make clusters of their own.
_OWN_CLUSTER: Final = "test_distributed.py"
_TEST_TIMEOUT_S: Final = 120
_CONFIGURATION: Final = {
    "DASK_DISTRIBUTED__CLIENT__PRELOAD": "['cosco.dask.preload']",
    "DASK_DISTRIBUTED__SCHEDULER__PRELOAD": "['cosco.dask.preload']",
}
_REPLACED: Final = (
    ('"p2p"', '"cosco"'),
    (
        "from dask.dataframe.dask_expr._shuffle import P2PShuffle, TaskShuffle",
        (
            "from dask.dataframe.dask_expr._shuffle import TaskShuffle\n"
            "from cosco.dask.dask_expression import CoscoShuffle as P2PShuffle"
        ),
    ),
)


def run(
    method: str, file: str, metadata: str, *, without: Iterable[str] = (), is_short: bool = False
) -> dict[str, str]:
    """Run a file of tests but for those that hang; `metadata` is where Cosco is.

    Returns: by test, without its file, why it failed, or empty if it passed; skipped ones are not
    there. Raises: RuntimeError, if they could not be run.
    """
    spec = find_spec("dask.dataframe.dask_expr.tests")
    assert spec is not None and spec.submodule_search_locations
    source = Path(spec.submodule_search_locations[0]) / file
    with tempfile.TemporaryDirectory() as folder:
        copy, report = Path(folder) / file, Path(folder) / "report.xml"
        text = source.read_text()
        for old, new in _REPLACED if method == "cosco" else ():
            text = text.replace(old, new)
        copy.write_text(text)
        environment = {
            **os.environ,
            "PYTHONPATH": f"{ROOT / 'tests'}:{os.environ.get('PYTHONPATH', ROOT)}",
            # By the environment alone: the tests' clusters drop all other configuration.
            **(_CONFIGURATION if method == "cosco" else {}),
            "DASK_COSCO__METADATA": metadata,
            "DASK_DATAFRAME__SHUFFLE__METHOD": method,
            "DASK_TESTS_METHOD": method,
            "DASK_TESTS_SHORT": "1" if is_short else "",
            "DASK_TESTS_OWN_CLUSTER": "1" if file == _OWN_CLUSTER else "",
        }
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-c", "/dev/null", "--rootdir", folder, "-q",
             "-p", "no:cacheprovider", "-p", "engines.dask_own.plugin_for_dask",
             "-p", "dask.conftest", "--timeout", str(_TEST_TIMEOUT_S),
             "--junit-xml", str(report), *(f"--deselect={file}::{test}" for test in without),
             str(copy)],
            cwd=folder, env=environment, check=False, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        if done.returncode not in {0, 1} or not report.exists():
            raise RuntimeError(f"{file} could not be run:\n{done.stdout[-4000:]}")
        return _outcomes(report)


def _outcomes(report: Path) -> dict[str, str]:
    found = {}
    for case in ET.parse(report).iter("testcase"):
        failures = [*case.iter("failure"), *case.iter("error")]
        if failures or case.find("skipped") is None:
            said = [one.get("message", "") for one in failures]
            found[case.get("name", "")] = said[0] or "failed" if said else ""
    return found


def main(method: str, files: list[str]) -> None:
    """Print what failed, and how long each file took."""
    with cosco.LocalCluster(2, memory="128MiB") as services:
        for file in files or FILES:
            _show(method, file, services.metadata)


def _show(method: str, file: str, metadata: str) -> None:
    began = time.monotonic()
    is_short = bool(os.environ.get("DASK_TESTS_SHORT"))
    outcomes = run(method, file, metadata, is_short=is_short)
    failed = {name: why for name, why in outcomes.items() if why}
    took_s = time.monotonic() - began
    print(f"{file}: {len(outcomes)} tests, {len(failed)} failed, {took_s:.0f} s", flush=True)
    for name, why in failed.items():
        print(f"  {name}: {why.splitlines()[0][:150]}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
