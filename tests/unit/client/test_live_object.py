"""What the public classes share: they stay in their process, and leave nothing behind."""

from __future__ import annotations

import copy
import pickle

import pytest

from cosco.client.live_object import LiveObject
from cosco.client.rpc.scope import inherit_scopes
from cosco.client.rpc.transport import _channels
from cosco.errors import InvalidArgument, NotPicklable

NOWHERE = "127.0.0.1:1"


class Thing(LiveObject):
    """Counts how often it was closed."""

    def __init__(self, *, fails: bool = False, timeout_s: float = 1.0) -> None:
        self.closed = 0
        self._connect("x", NOWHERE, timeout_s)
        with self._opening():
            if fails:
                raise KeyError

    def close(self) -> None:
        self.closed += 1
        self._metadata.close()


def test_it_cannot_be_pickled_nor_copied() -> None:
    with Thing() as thing:
        for attempt in (pickle.dumps, copy.copy, copy.deepcopy):
            with pytest.raises(NotPicklable, match="a Thing cannot be pickled"):
                attempt(thing)


def test_what_cannot_be_opened_leaves_no_connection() -> None:
    with pytest.raises(KeyError):
        Thing(fails=True)
    assert NOWHERE not in _channels._table


def test_leaving_its_block_closes_it_but_not_in_a_forked_child() -> None:
    with Thing() as thing:
        pass
    assert thing.closed == 1
    with Thing() as thing:
        inherit_scopes()  # as if this were a child
    assert thing.closed == 0
    thing.close()


def test_its_timeout_is_checked() -> None:
    with pytest.raises(InvalidArgument, match="service_timeout_s"):
        Thing(timeout_s=-1.0)
