"""What moves next, and what goes from flash, by tables of what happened and when."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest

from cosco.dfs.tiers.state.tier_table import (
    FILES_MAX,
    GRACE_S,
    HIGH_SHARE,
    LOW_SHARE,
    MOVES_BYTES_MAX,
    MOVES_MAX,
    RETRY_MAX_S,
    RETRY_MIN_S,
    Move,
    TierOptions,
    TierTable,
)

AGE_S = 300.0
FOLDER = "c/1/0-1/"


def table(**options: Any) -> TierTable:
    return TierTable(TierOptions(**{"age_s": AGE_S, **options}))


def put(made: TierTable, *names: str, length: int = 100, now: float = 0.0) -> None:
    for name in names:
        made.put(FOLDER + name, length, now)


def next_name(made: TierTable, now: float) -> tuple[str, str] | None:
    move = made.next_move(now)
    return (move.path.removeprefix(FOLDER), move.reason) if move is not None else None


def moving(made: TierTable, now: float) -> Move:
    move = made.next_move(now)
    assert move is not None
    return move


def test_what_is_young_stays() -> None:
    made = table()
    put(made, "a")
    assert made.next_move(AGE_S - 1) is None
    assert made.wait_s(1.0) == AGE_S - 1
    assert next_name(made, AGE_S) == ("a", "age")


def test_the_oldest_moves_first() -> None:
    made = table()
    put(made, "b", now=1.0)
    put(made, "a", now=2.0)
    assert next_name(made, 1.0 + AGE_S) == ("b", "age")
    assert next_name(made, 1.0 + AGE_S) is None
    assert next_name(made, 2.0 + AGE_S) == ("a", "age")


def test_what_somebody_waits_for_moves_at_once_and_before_others() -> None:
    made = table()
    put(made, "old", now=-AGE_S)
    put(made, "new", now=0.0)
    made.hurry(FOLDER + "new")
    assert next_name(made, 0.0) == ("new", "waited")
    assert next_name(made, 0.0) == ("old", "age")


def test_a_folder_is_hurried_and_no_other() -> None:
    made = table()
    made.put("c/1/0-1/a", 1, 0.0)
    made.put("c/1/0-10/b", 1, 0.0)
    made.hurry("c/1/0-1/")
    assert moving(made, 0.0).path == "c/1/0-1/a"
    assert made.next_move(0.0) is None


def test_what_an_earlier_start_left_moves_at_once() -> None:
    made = table()
    made.found(FOLDER + "a", 100, 0.0)
    assert next_name(made, 0.0) == ("a", "left")


def test_all_moves_when_the_daemon_drains_and_stays_when_that_is_taken_back() -> None:
    made = table()
    put(made, "a", "b")
    made.moves_all = True
    put(made, "c")
    assert [next_name(made, 0.0), next_name(made, 0.0)] == [("c", "all"), ("a", "all")]
    made.moves_all = False
    assert made.next_move(0.0) is None


def test_a_flash_that_fills_makes_room_from_the_high_mark_to_the_low_one() -> None:
    made = table(flash_bytes=1000)
    names = [f"{n}" for n in range(8)]
    put(made, *names)
    assert made.figures.flash_bytes == HIGH_SHARE * 1000
    assert made.next_move(0.0) is None
    put(made, "8")
    found = []
    while (move := made.next_move(0.0)) is not None:
        found.append(move.path.removeprefix(FOLDER))
        assert move.reason == "room"
        made.moved(move, 0.0)
    assert found == ["0", "1", "2"], "down to the low mark"
    assert LOW_SHARE * 1000 >= 900 - 300
    removed = []
    while (path := made.next_removal(0.0)) is not None:  # at once, but for what fits
        removed.append(path)
        made.removed(path)
    assert removed == [FOLDER + "0"]


def test_flash_takes_what_it_may_have() -> None:
    made = table(flash_bytes=1000)
    put(made, "a", length=900)
    assert made.takes(100)
    assert not made.takes(101)
    made.measured(50)  # the disk has less
    assert made.takes(50)
    assert not made.takes(51)


def test_files_that_are_known_are_bounded() -> None:
    made = table()
    for n in range(FILES_MAX):
        made.put(f"{FOLDER}{n}", 1, 0.0)
    assert not made.takes(1)


def test_moves_under_way_are_bounded_in_number_and_bytes() -> None:
    made = table()
    names = [f"{n}" for n in range(MOVES_MAX + 1)]
    put(made, *names, now=-AGE_S)
    first = moving(made, 0.0)
    for _ in range(MOVES_MAX - 1):
        moving(made, 0.0)
    assert made.next_move(0.0) is None
    assert made.wait_s(0.0) == math.inf, "the end of a move wakes, and no clock"
    made.moved(first, 0.0)
    assert made.next_move(0.0) is not None
    large = table()
    put(large, "a", "b", length=MOVES_BYTES_MAX // 2 + 1, now=-AGE_S)
    assert large.next_move(0.0) is not None
    assert large.next_move(0.0) is None
    put(large, "c", length=MOVES_BYTES_MAX * 2, now=-AGE_S)


def test_a_file_that_is_longer_than_the_bound_moves_alone() -> None:
    made = table()
    put(made, "a", length=2 * MOVES_BYTES_MAX, now=-AGE_S)
    put(made, "b", now=-AGE_S)
    assert next_name(made, 0.0) == ("a", "age")
    assert made.next_move(0.0) is None


def test_it_counts_as_moved_when_the_put_has_returned() -> None:
    made = table()
    put(made, "a")
    made.hurry(FOLDER + "a")
    move = moving(made, 0.0)
    assert not made.has_moved(FOLDER + "a")
    assert made.figures.pending_bytes == 100
    assert made.next_removal(1e9) is None
    assert made.moved(move, 5.0)
    assert made.has_moved(FOLDER + "a")
    assert made.figures.pending_bytes == 0
    assert made.next_removal(5.0) is None, "reads may be under way"
    assert made.removal_wait_s(6.0) == AGE_S - 6.0
    assert made.next_removal(AGE_S - 1) is None, "it is young, and there is room"
    assert made.next_removal(AGE_S) == FOLDER + "a"
    made.removed(FOLDER + "a")
    assert not made.has(FOLDER + "a")
    assert made.figures.flash_bytes == 0


def test_what_is_old_when_it_moves_stays_for_reads_that_are_under_way() -> None:
    made = table()
    put(made, "new", "old")
    made.hurry(FOLDER + "new")
    made.moved(moving(made, 0.0), 0.0)
    put(made, "other", now=200.0)
    made.hurry(FOLDER + "other")
    made.moved(moving(made, 200.0), 200.0)
    made.moved(moving(made, AGE_S), AGE_S + 1)
    assert made.next_removal(AGE_S + 1) == FOLDER + "new"
    made.removed(FOLDER + "new")
    assert made.removal_wait_s(AGE_S + 1) == GRACE_S
    assert made.next_removal(AGE_S + 1 + GRACE_S) == FOLDER + "old", "before one that is younger"
    made.removed(FOLDER + "old")
    assert made.next_removal(200.0 + AGE_S) == FOLDER + "other"


def test_a_slow_tier_that_fails_is_tried_again_with_growing_pauses() -> None:
    made = table()
    put(made, "a", "b", now=-AGE_S)
    now, pauses = 0.0, []
    for _ in range(12):
        move = moving(made, now)
        assert move.path == FOLDER + "a"
        made.move_failed(move, "full", now)
        assert made.next_move(now) is None
        pauses.append(made.wait_s(now))
        now += pauses[-1]
    assert pauses[:3] == pytest.approx([RETRY_MIN_S, 2 * RETRY_MIN_S, 4 * RETRY_MIN_S])
    assert pauses[-1] == pytest.approx(RETRY_MAX_S)
    assert made.failure == "full"
    assert made.trouble is None, "nobody waits"
    made.hurry(FOLDER)
    trouble = made.trouble
    assert trouble is not None
    assert (trouble.since, trouble.reason, trouble.hangs) == (0.0, "full", False)
    move = moving(made, now)
    assert made.next_move(now) is None, "one at a time until it works"
    made.moved(move, now)
    assert made.trouble is None
    assert made.failure is None
    assert made.next_move(now) is not None


def test_a_move_that_hangs_is_trouble_until_it_ends_and_is_not_repeated() -> None:
    made = table()
    put(made, "a", "b")
    made.hurry(FOLDER)
    hung, other = moving(made, 0.0), moving(made, 0.0)
    made.hangs(hung, "it hangs", 7.0)
    assert made.moved(other, 8.0)
    put(made, "c")
    made.hurry(FOLDER + "c")
    trouble = made.trouble
    assert trouble is not None
    assert (trouble.since, trouble.hangs) == (7.0, True)
    assert made.next_move(9.0) is None
    assert made.moved(hung, 10.0)
    assert made.trouble is None
    assert next_name(made, 10.0) == ("c", "waited")


def test_a_file_that_flash_does_not_give_does_not_hold_up_others() -> None:
    made = table()
    put(made, "a", "b", now=-AGE_S)
    made.read_failed(moving(made, 0.0), 0.0)
    assert next_name(made, 0.0) == ("b", "age")
    assert made.next_move(0.0) is None
    assert made.wait_s(0.0) == pytest.approx(RETRY_MIN_S)
    assert next_name(made, RETRY_MIN_S) == ("a", "age")


def test_what_is_damaged_stays_and_never_moves() -> None:
    made = table()
    put(made, "a")
    made.hurry(FOLDER + "a")
    assert made.damaged(moving(made, 0.0))
    made.hurry(FOLDER)
    assert made.next_move(1e9) is None
    assert made.has(FOLDER + "a")
    assert (made.figures.damaged, made.figures.pending_bytes) == (1, 0)
    made.drop(FOLDER)
    assert made.dropped(FOLDER) == (0, 0)
    assert made.figures.damaged == 0


def test_what_is_dropped_moves_no_more() -> None:
    made = table()
    put(made, "a", "b", "c", now=-AGE_S)
    move = moving(made, 0.0)
    assert made.drop("c/1/") == [move]
    assert not made.is_wanted(move)
    assert made.next_move(1e9) is None
    made.hurry(FOLDER)
    assert made.next_move(1e9) is None
    assert not made.moved(move, 0.0), "nobody is told"
    assert made.dropped("c/1/") == (2, 200), "but for the one that came there"
    assert made.figures.flash_bytes == made.figures.files == made.figures.pending_bytes == 0


def test_folders_and_files_are_listed_by_prefix() -> None:
    made = table()
    for path in ("f", "a/f", "a/b/c/1", "a/b/c/2", "a/b/d/1", "a/bc/1", "a/b/c/d/e/f"):
        made.put(path, 1, 0.0)
    assert sorted(path for path, _ in made.under("a/b")) == [
        "a/b/c/1", "a/b/c/2", "a/b/c/d/e/f", "a/b/d/1", "a/bc/1",
    ]  # fmt: skip
    assert len(list(made.under(""))) == 7
    assert [path for path, _ in made.under("a/b/c/")] == ["a/b/c/1", "a/b/c/2", "a/b/c/d/e/f"]
    assert [path for path, _ in made.under("a/b/c/2")] == ["a/b/c/2"]
    assert [path for path, _ in made.under("f")] == ["f"]
    assert made.folders("") == {"a"}
    assert made.folders("a/") == {"b", "bc"}
    assert made.folders("a/b/") == {"c", "d"}


class RandomTable:
    """A table to which things happen, and what must be true of it."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.table = table(flash_bytes=3000, age_s=20.0)
        self.now = 0.0
        self.flash: dict[str, int] = {}
        self.moved: set[str] = set()
        self.moves: list[Move] = []
        self.puts = 0

    def put(self) -> None:
        if self.table.takes(100):
            self.puts += 1
            path = f"c/{self.rng.randrange(3)}/0-1/{self.puts}"
            self.table.put(path, 100, self.now)
            self.flash[path] = 100

    def begin(self) -> None:
        if (move := self.table.next_move(self.now)) is not None:
            assert move.path in self.flash
            assert move.path not in self.moved | {one.path for one in self.moves}
            self.moves.append(move)

    def end(self) -> None:
        if self.moves:
            move = self.moves.pop(self.rng.randrange(len(self.moves)))
            if self.rng.random() < 0.3:
                self.table.move_failed(move, "x", self.now)
            elif self.rng.random() < 0.2:
                self.table.read_failed(move, self.now)
            elif self.table.moved(move, self.now):
                self.moved.add(move.path)

    def remove(self) -> None:
        if (gone := self.table.next_removal(self.now)) is not None:
            assert gone in self.moved
            self.table.removed(gone)
            del self.flash[gone]
            self.moved.discard(gone)

    def drop(self) -> None:
        if self.rng.random() < 0.3:
            prefix = f"c/{self.rng.randrange(3)}/"
            for move in self.table.drop(prefix):
                self.moves.remove(move)
                assert not self.table.moved(move, self.now)
            self.table.dropped(prefix)
            for one in [one for one in self.flash if one.startswith(prefix)]:
                del self.flash[one]
                self.moved.discard(one)

    def hurry(self) -> None:
        self.table.hurry(self.rng.choice([*self.flash, "c/1/"]))

    def step(self) -> None:
        self.now += self.rng.random()
        happens = (self.put, self.begin, self.end, self.put, self.begin, self.end)
        self.rng.choice((*happens, self.remove, self.drop, self.hurry))()

    def check(self) -> None:
        assert {path for path, _ in self.table.under("")} == set(self.flash)
        figures = self.table.figures
        assert figures.flash_bytes == sum(self.flash.values())
        pending = [n for path, n in self.flash.items() if path not in self.moved]
        assert figures.pending_bytes == sum(pending)
        assert all(self.table.has_moved(one) == (one in self.moved) for one in self.flash)

    def settle(self) -> None:
        """Let time go by while nothing fails."""
        for _ in range(300):
            self.now += 1.0
            while (move := self.table.next_move(self.now)) is not None:
                self.table.moved(move, self.now)
            for move in self.moves:
                self.table.moved(move, self.now)
            self.moves.clear()
            while (gone := self.table.next_removal(self.now)) is not None:
                self.table.removed(gone)


@pytest.mark.parametrize("seed", range(40))
def test_whatever_happens_the_account_is_right(seed: int) -> None:
    """A file moves once, in one move at a time; nothing goes before it has moved."""
    print(f"seed {seed}")
    made = RandomTable(seed)
    for _ in range(400):
        made.step()
        made.check()
    made.settle()
    assert made.table.figures.flash_bytes == 0
