"""A store where reading directly failed is left alone for a while, which is news once."""

from __future__ import annotations

import pytest

from cosco.client.read.state import direct_stores
from cosco.client.read.state.direct_stores import PAUSE_S, DirectStores


def test_a_failure_pauses_its_store_alone() -> None:
    stores = DirectStores()
    assert stores.allows("a", 0.0)
    assert stores.failed("a", 10.0)
    assert not stores.allows("a", 10.0)
    assert not stores.allows("a", 10.0 + PAUSE_S - 0.1)
    assert stores.allows("b", 10.0)
    assert stores.allows("a", 10.0 + PAUSE_S)


def test_it_is_news_once_in_a_pause() -> None:
    stores = DirectStores()
    assert stores.failed("a", 10.0)
    assert not stores.failed("a", 11.0)
    assert not stores.allows("a", 10.0 + PAUSE_S)  # it begins anew with each failure
    assert stores.failed("a", 11.0 + PAUSE_S)


def test_a_store_that_nobody_has_named_is_never_read_from() -> None:
    assert not DirectStores().allows("", 0.0)


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(direct_stores, "_MAX_STORES", 3)
    stores = DirectStores()
    for name in "abcd":
        stores.failed(name, 0.0)
    assert [stores.allows(name, 1.0) for name in "abcd"] == [True, False, False, False]
