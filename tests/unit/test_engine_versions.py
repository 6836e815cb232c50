"""An engine that is not there, or not of a version that was tried, is said plainly."""

from __future__ import annotations

import importlib
import importlib.metadata
import pickle
import sys

import pytest

import cosco
from cosco import EngineUnavailable, engine_versions
from cosco.engine_versions import SUPPORTED, Supported, check_version, check_versions, needed


@pytest.mark.parametrize(
    ("version", "has"),
    [
        ("2026.8.0", True),
        ("2026.8", True),
        ("2026.12.3", True),
        ("2026.8.0+local", True),
        ("2026.7.9", False),
        ("2027.1.0", False),
        ("2027.0.0rc1", False),
        ("2027", False),
        ("unknown", False),
    ],
)
def test_versions_are_compared_as_numbers(version: str, has: bool) -> None:
    assert Supported("dask", "2026.8.0", "2027").has(version) is has


@pytest.mark.parametrize("engine", SUPPORTED)
def test_a_missing_engine_is_said_with_its_extra(
    engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for supported in SUPPORTED[engine]:
        monkeypatch.setitem(sys.modules, supported.distribution, None)
    monkeypatch.setattr(importlib.metadata, "version", _not_installed)
    for module in [name for name in sys.modules if name.startswith(f"cosco.{engine}")]:
        monkeypatch.delitem(sys.modules, module)
    with pytest.raises(EngineUnavailable, match="not installed: pip install") as caught:
        importlib.import_module(f"cosco.{engine}").enable(
            None
        )  # Ray, which is slow, is imported then
    assert f"'cosco[{engine}]'" in str(caught.value)
    assert isinstance(caught.value, ImportError)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_what_moved_within_an_engine_is_said_with_its_version(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "2026.9.0")
    monkeypatch.setitem(SUPPORTED, "dask", SUPPORTED["dask"][:2])
    with pytest.raises(EngineUnavailable, match=r"what dask 2026\.9\.0 has not got"):
        with needed("dask"):
            raise ImportError("cannot import name 'Shuffle'", name="dask.dataframe.dask_expr")


def test_a_module_that_others_lack_is_left_as_it_is() -> None:
    with pytest.raises(ModuleNotFoundError, match="no_such") as caught:
        with needed("dask"):
            importlib.import_module("no_such")
    assert not isinstance(caught.value, EngineUnavailable)


def test_another_version_is_said_with_those_that_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "2.99.0")
    with pytest.raises(EngineUnavailable, match=r"ray 2\.99\.0, which is here") as caught:
        check_versions("ray")
    assert str(SUPPORTED["ray"][0]) in str(caught.value)


def test_a_version_elsewhere_is_said_with_its_place() -> None:
    check_version("ray", "ray", SUPPORTED["ray"][0].lowest)
    with pytest.raises(EngineUnavailable, match="which is on worker w-3: it works with"):
        check_version("ray", "ray", "1.0", "on worker w-3")


def test_the_error_is_public() -> None:
    assert cosco.EngineUnavailable is engine_versions.EngineUnavailable


def _not_installed(name: str) -> str:
    raise importlib.metadata.PackageNotFoundError(name)
