"""What pip says about an engine that this machine cannot have."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

TOOL = Path(__file__).resolve().parents[3] / "tools" / "install_engine.py"
NO_WHEEL = """
ERROR: Could not find a version that satisfies the requirement ray[data]<2.61,>=2.60.0 (from cosco)
ERROR: No matching distribution found for ray[data]<2.61,>=2.60.0; extra == "ray"
"""
NO_INDEX = f"""
WARNING: Retrying (Retry(total=4)) after connection broken by 'NewConnectionError'
{NO_WHEEL}
"""


@pytest.mark.parametrize(
    ("output", "missing"),
    [
        (NO_WHEEL, "ray[data]<2.61,>=2.60.0"),
        (NO_INDEX, None),
        ("ERROR: Failed building wheel for ray", None),
    ],
)
def test_only_what_the_index_has_not_got_is_missing(output: str, missing: str | None) -> None:
    spec = importlib.util.spec_from_file_location("install_engine", TOOL)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.what_is_missing(output) == missing
