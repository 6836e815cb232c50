"""Which Chromium is used, and what is said where none can be had."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[3]


def tool() -> ModuleType:
    path = ROOT / "tools" / "install_chromium.py"
    spec = importlib.util.spec_from_file_location("install_chromium", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_one_that_is_on_the_path_is_used() -> None:
    module = tool()
    there = {"google-chrome": "/opt/chrome", "chromium-browser": "/usr/bin/chromium-browser"}
    assert module.found(there.get) == "/usr/bin/chromium-browser"
    assert module.found({}.get) is None


def test_where_none_can_be_installed_it_is_said_how_to_get_one() -> None:
    module = tool()
    assert "apt-get install chromium" in module.why_not(is_root=False, has_apt=True)
    assert "on the PATH" in module.why_not(is_root=True, has_apt=False)
    assert module.why_not(is_root=True, has_apt=True) is None


def test_tests_look_for_the_same_names() -> None:
    text = (ROOT / "tests/support/browsing.py").read_text()
    [names] = re.findall(r"^NAMES = \((.*)\)$", text, re.MULTILINE)
    assert tuple(re.findall(r'"([^"]+)"', names)) == tool().NAMES
