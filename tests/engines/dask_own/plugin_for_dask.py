"""A pytest plugin that gives Dask's own tests a cluster, and another method of shuffling.

Its tests are copied first (`run_dasks_own.py`), with the method's name replaced in them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from dask.dataframe import utils
from dask.dataframe.dask_expr.tests import _util
from distributed import Client, LocalCluster

METHOD = os.environ["DASK_TESTS_METHOD"]
IS_SHORT = bool(os.environ.get("DASK_TESTS_SHORT"))
#: Arguments of tests that say how to shuffle.
_ARGUMENTS = {"shuffle", "shuffle_method"}


def pytest_configure(config: pytest.Config) -> None:
    # Where a test does not say which scheduler it wants, that is the cluster's.
    *others, _ = utils.assert_eq.__defaults__
    utils.assert_eq.__defaults__ = (*others, None)
    # Whether a graph has expressions inside is looked at by forbidding to pickle them, which a
    # cluster has to, as what is looked at computes divisions.
    _util.assert_eq.__kwdefaults__ = {"serialize_graph": False}


@pytest.hookimpl(tryfirst=True)
def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Have a test that is run for every method run for this one."""
    marks = metafunc.definition.own_markers
    for i, mark in enumerate(marks):
        if mark.name == "parametrize" and mark.args[0] in _ARGUMENTS:
            marks[i] = pytest.mark.parametrize(mark.args[0], [METHOD]).mark


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Function]) -> None:
    """In the short form keep one of the arguments of each test: the last, mostly the largest."""
    if IS_SHORT:
        kept = {item.originalname: item for item in items}
        config.hook.pytest_deselected(items=[item for item in items if item not in kept.values()])
        items[:] = kept.values()


@pytest.fixture(scope="session", autouse=True)
def dask_cluster() -> Iterator[None]:
    """A client for tests that do not make their own, of workers that are processes."""
    if os.environ.get("DASK_TESTS_OWN_CLUSTER"):
        yield
    else:
        with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
            with Client(cluster):
                yield
