"""Which directories are one store."""

from __future__ import annotations

import itertools
import re

import pytest

from cosco.dfs.directories.state.set_membership import (
    MakeMember,
    MarkComplete,
    Membership,
    Ready,
    Refuse,
    Seen,
    next_step,
)

NAMES = ("/a", "/b", "/c")
BLANK = Seen()
GONE = Seen(problem="Input/output error")


def member(number: int, *, of: str = "1" * 32, complete: bool = True) -> Seen:
    return Seen(membership=Membership(of, number, 3, NAMES), is_complete=complete)


def carried_out(seen: dict[str, Seen], step: MakeMember | MarkComplete) -> None:
    if isinstance(step, MakeMember):
        assert seen[step.directory].is_blank, "an identity is never replaced"
        seen[step.directory] = Seen(membership=step.membership)
    else:
        for name in step.directories:
            seen[name] = Seen(membership=seen[name].membership, is_complete=True)


@pytest.mark.parametrize("order", list(itertools.permutations(NAMES)))
def test_a_set_is_made_step_by_step(order: tuple[str, ...]) -> None:
    """Whoever goes on after each step, with an id of its own and another order, agrees."""
    seen = dict.fromkeys(order, BLANK)
    for turn in range(10):
        names = order if turn % 2 else NAMES
        step = next_step({name: seen[name] for name in names}, f"{turn:032x}")
        if isinstance(step, Ready):
            break
        assert not isinstance(step, Refuse)
        carried_out(seen, step)
    assert step == Ready(f"{0:032x}")
    memberships = {name: one.membership for name, one in seen.items()}
    assert {name: m.member for name, m in memberships.items() if m} == {"/a": 0, "/b": 1, "/c": 2}


COMPLETE = {"/a": member(0), "/b": member(1), "/c": member(2)}


@pytest.mark.parametrize(
    ("seen", "may_miss", "missing"),
    [
        (COMPLETE, 0, {}),
        ({"/x": member(2), "/y": member(0), "/z": member(1)}, 0, {}),
        ({**COMPLETE, "/b": GONE}, 1, {"/b": "Input/output error"}),
        ({**COMPLETE, "/b": BLANK}, 1, {"/b": "it has no identity of this store: is its"}),
        ({"/a": member(0), "/c": member(2)}, 1, {}),
        ({"/c": member(2), "/b": GONE}, 2, {"/b": "Input"}),
    ],
)
def test_what_can_be_used(seen: dict[str, Seen], may_miss: int, missing: dict[str, str]) -> None:
    step = next_step(seen, "f" * 32, may_miss)
    assert isinstance(step, Ready)
    assert step.store_id == "1" * 32
    assert {name: reason[: len(missing[name])] for name, reason in step.missing.items()} == missing
    assert step.gone == 3 - sum(one.membership is not None for one in seen.values())


@pytest.mark.parametrize(
    ("seen", "may_miss", "reason"),
    [
        ({"/a": BLANK, "/b": GONE}, 1, "'/b': Input/output error"),
        ({**COMPLETE, "/b": GONE}, 0, r"'/b' \(Input/output error\).*--store-missing 1"),
        ({**COMPLETE, "/b": BLANK}, 0, r"'/b' \(it has no identity.*mounted"),
        ({"/a": member(0), "/c": member(2)}, 0, r"not given \(at first '/b'\).*--store-missing 1"),
        ({"/c": member(2)}, 1, r"2 of the 3.*'/a' or '/b'"),
        ({**COMPLETE, "/b": member(1, of="2" * 32)}, 2, "'/a' and '/b' belong to different"),
        ({**COMPLETE, "/b": member(0)}, 2, "'/a' and '/b' are both member 0"),
        ({**COMPLETE, "/d": BLANK}, 2, "4 directories are given.* has 3"),
        ({**COMPLETE, "/b": Seen(single="is a store by itself")}, 2, "'/b' is a store by itself"),
        ({"/a": member(0, complete=False), "/b": BLANK}, 2, r"has 3 directories, and \['/c'\]"),
        ({**dict.fromkeys(NAMES, BLANK), "/a": member(0, complete=False), "/b": GONE}, 2, "'/b'"),
        ({"/a": member(0), "/b": Seen(joins=True)}, 2, "'/b' is to join.* 2 of its"),
        ({**COMPLETE, "/d": Seen(joins=True)}, 0, "4 directories"),
    ],
)
def test_what_is_refused(seen: dict[str, Seen], may_miss: int, reason: str) -> None:
    step = next_step(seen, "f" * 32, may_miss)
    assert isinstance(step, Refuse)
    assert "\n" not in step.reason
    assert re.search(reason, step.reason), step.reason


def test_a_new_disk_takes_the_place_of_one_that_is_gone() -> None:
    seen = {**COMPLETE, "/b": Seen(joins=True)}
    step = next_step(seen, "f" * 32)
    assert step == MakeMember("/b", Membership("1" * 32, 1, 3, NAMES))
    carried_out(seen, step)
    step = next_step(seen, "f" * 32)
    assert step == MarkComplete(("/b",))
    carried_out(seen, step)
    assert next_step(seen, "f" * 32) == Ready("1" * 32)


@pytest.mark.parametrize("marked", range(1, 4))
def test_whoever_died_while_it_marked_is_followed(marked: int) -> None:
    seen = {name: member(n, complete=n < marked) for n, name in enumerate(NAMES)}
    step = next_step(seen, "f" * 32)
    assert step == (MarkComplete(NAMES[marked:]) if marked < 3 else Ready("1" * 32))
