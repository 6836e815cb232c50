"""Which epochs of a range are of its present build."""

from __future__ import annotations

import numpy as np
import pytest

from cosco.errors import InvalidArgument
from cosco.metadata.state.exchange import epochs as module
from cosco.metadata.state.exchange.epochs import Epochs
from cosco.metadata.state.records.changes import ChangeLog
from cosco.metadata.state.records.table_rows import Placed
from cosco.protocol.records import Assignment, DaemonRef, pairs_array

PRIMARY = DaemonRef(1, "host:1")
#: By range, the build of each epoch.
BUILDS = [[1], [1, 1, 2, 2], [1, 2, 2, 2, 4]]


@pytest.fixture(params=["one by one", "by arrays"], autouse=True)
def _way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_FEW", 100 if request.param == "one by one" else -1)


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


def written(made: Epochs) -> list[tuple[int, int]]:
    """The epochs that commits have rows in."""
    return [
        (p.assignment.range_index, p.assignment.epoch) for e in made.placed for p in e if p.written
    ]


def test_an_epoch_is_written_once_a_commit_has_rows_in_it() -> None:
    log = ChangeLog()
    made = Epochs(7, [[placed(i, 1, 1)] for i in range(3)], log)
    pairs = pairs_array([(0, 1), (1, 1), (2, 1)])
    some, every = np.array([True, False, True]), np.ones(3, dtype=np.bool_)
    made.note_written(pairs[:1], some)  # the others acknowledged nothing
    assert written(made) == [(0, 1)]
    made.note_written(pairs, some)  # range 1 got a mark alone
    assert written(made) == [(0, 1), (2, 1)]
    assert len(log.pop_all()) == 2
    for _ in range(2):
        made.note_written(pairs, some)
        assert not log  # nothing is written again for the next ones
    made.begin(placed(0, 2, 1))
    log.pop_all()
    made.note_written(pairs_array([(0, 1), (0, 2), (1, 1), (2, 1)]), every)
    assert written(made) == [(0, 1), (0, 2), (1, 1), (2, 1)]
    assert [change.key for change in log.pop_all()] == [(7, 0, 2), (7, 1, 1)]
    made.seal(0)
    assert written(made) == [(0, 1), (0, 2), (1, 1), (2, 1)]


def test_what_was_written_is_restored() -> None:
    before = Placed(Assignment(0, 1, 1, PRIMARY, sealed=True), "store", written=True)
    assert Placed.from_row((0, 1, *before.row())) == before
    log = ChangeLog()
    made = Epochs(7, [[before]], log)
    made.note_written(pairs_array([(0, 1)]), np.ones(1, dtype=np.bool_))
    assert not log
