"""When the service is asked, and when what it said already is enough."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from pyroaring import BitMap

from cosco.client.read import commit_watch as module
from cosco.client.read.commit_watch import CommitWatch
from cosco.client.read.state.read_plan import AwaitCommits
from cosco.client.rpc.scope import Scope
from cosco.protocol.records import CommitWait


@pytest.mark.parametrize("fresh", [True, False])
def test_what_was_said_at_first_is_an_answer_once_and_not_for_long(
    fresh: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FIRST_WAIT_S", 60.0 if fresh else 0.0)
    told_at_first, told_now = CommitWait(None, BitMap([1])), CommitWait(None, BitMap([2]))
    metadata: Any = SimpleNamespace(
        begin_reading=lambda *_: (SimpleNamespace(number=5, generation=1), told_at_first),
        await_commits=lambda *_, **__: told_now,
    )
    watch = CommitWatch(metadata, Scope("a test", "x"), BitMap([1]), 0)
    watch.describe()
    assert watch.wait(AwaitCommits()) is (told_at_first if fresh else told_now)
    assert watch.wait(AwaitCommits()) is told_now
