"""Which epochs of a range are of its present build."""

from __future__ import annotations

import numpy as np
import pytest

from cosco.errors import InvalidArgument
from cosco.metadata.state.exchange.epochs import Epochs
from cosco.metadata.state.records.changes import ChangeLog
from cosco.metadata.state.records.table_rows import Placed
from cosco.protocol.records import Assignment, DaemonRef, pairs_array

PRIMARY = DaemonRef(1, "host:1")
#: By range, the build of each epoch.
BUILDS = [[1], [1, 1, 2, 2], [1, 2, 2, 2, 4]]


def placed(index: int, epoch: int, build: int) -> Placed:
    return Placed(Assignment(index, epoch, build, PRIMARY), "store")


def epochs(*, begun: bool) -> Epochs:
    """BUILDS, as they were restored or as they began one by one."""
    known = [[placed(i, e, b) for e, b in enumerate(builds, 1)] for i, builds in enumerate(BUILDS)]
    made = Epochs(7, [e[:1] for e in known] if begun else known, ChangeLog())
    for later in (p for e in known for p in e[1:] if begun):
        made.begin(later)
    return made


@pytest.mark.parametrize("begun", [False, True])
@pytest.mark.parametrize("present", [(1, 2, 4), (2, 2, 5), (1, 3, 4)])
def test_epochs_are_present_that_are_of_the_build_of_their_range(
    begun: bool, present: tuple[int, ...]
) -> None:
    pairs = [(i, e) for i, builds in enumerate(BUILDS) for e in range(1, len(builds) + 1)]
    found = epochs(begun=begun).present(pairs_array(pairs), np.array(present, dtype=np.uint32))
    assert found.tolist() == [BUILDS[i][e - 1] == present[i] for i, e in pairs]


def test_a_commit_may_name_none() -> None:
    assert not len(epochs(begun=True).present(pairs_array([]), np.ones(3, dtype=np.uint32)))


@pytest.mark.parametrize("pair", [(0, 0), (0, 2), (1, 5), (3, 1), (2**32 - 1, 2**32 - 1)])
def test_an_epoch_that_never_was_is_named(pair: tuple[int, int]) -> None:
    with pytest.raises(InvalidArgument, match=f"no epoch {pair[1]} of partition range {pair[0]}"):
        epochs(begun=True).present(pairs_array([(0, 1), pair]), np.ones(3, dtype=np.uint32))
