"""The order in which tenants are served: fair by bytes, in turn within a tenant, nobody starved."""

from __future__ import annotations

import random
from collections import Counter, deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cosco.protocol.push.fair_order import FairOrder

LONGEST = 100
Item = tuple[str, int, int]  # tenant, which of his, bytes


class Line:
    """A `FairOrder` of items that are served one by one, and what became of them."""

    def __init__(self) -> None:
        self.order: FairOrder[str, Item] = FairOrder()
        self.made: Counter[str] = Counter()
        self.bytes: Counter[str] = Counter()

    def add(self, tenant: str, cost: int) -> Item:
        item = tenant, self.made[tenant], cost
        self.made[tenant] += 1
        self.order.add(tenant, item)
        return item

    def serve(self) -> Item:
        item = self.order.first()
        assert item is not None
        self.order.served(item[2])
        self.bytes[item[0]] += item[2]
        return item

    def tenants(self, count: int) -> str:
        return "".join(self.serve()[0] for _ in range(count))


def test_one_tenant_alone_is_served_as_he_comes() -> None:
    line = Line()
    items = [line.add("a", cost) for cost in (90, 1, 50, 2)]
    assert [line.serve() for _ in items] == items
    assert line.order.is_empty
    assert line.order.first() is None


def test_tenants_are_served_the_same_bytes_however_many_wait() -> None:
    line = Line()
    for _ in range(50):
        line.add("many", 10)
    for _ in range(5):
        line.add("few", 10)
    assert line.tenants(10) == "manyfew" * 5
    for _ in range(4):
        line.add("long", 40)
    served = [line.serve() for _ in range(9)]
    assert sum(cost for who, _, cost in served if who == "long") == 80
    assert sum(cost for who, _, cost in served if who == "many") == 70


def test_who_comes_back_each_time_he_was_served_gains_nothing_by_it() -> None:
    line = Line()
    for _ in range(60):
        line.add("waits", 10)
    line.add("comes", 10)
    for _ in range(40):
        if line.serve()[0] == "comes":
            line.add("comes", 10)
    assert line.bytes["comes"] == line.bytes["waits"] == 200


def test_who_was_away_has_saved_up_nothing() -> None:
    line = Line()
    for _ in range(90):
        line.add("busy", 10)
    line.tenants(40)
    for _ in range(40):
        line.add("late", 10)
    line.bytes.clear()
    line.tenants(20)
    assert line.bytes == {"busy": 100, "late": 100}


def test_who_is_next_stays_next_whoever_comes() -> None:
    line = Line()
    line.add("a", 1)
    line.serve()
    first = line.add("a", 100)
    for n in range(20):
        line.add(f"small {n}", 1)
        assert line.order.first() == first


def test_a_line_that_is_passed_over_holds_up_nobody_and_has_saved_up_nothing() -> None:
    line = Line()
    for tenant in ("held", "free"):
        for _ in range(30):
            line.add(tenant, 10)
    line.order.pass_over_line()
    assert list(line.order.lines_out) == ["held"]
    assert line.order.is_out("held")
    assert not line.order.is_out("free")
    last = line.add("held", 10)
    assert line.tenants(10) == "free" * 10
    line.order.remove("held", last)
    assert line.order.is_out("held")
    line.order.come_back()
    assert not list(line.order.lines_out)
    assert line.tenants(6) in ("freeheld" * 3, "heldfree" * 3)
    items = [line.serve() for _ in range(44)]
    assert [n for who, n, _ in items if who == "held"] == list(range(3, 30))


def test_one_that_is_passed_over_has_its_place_again() -> None:
    line = Line()
    one, two, three = (line.add("a", 10) for _ in range(3))
    line.order.pass_over()
    line.order.pass_over()
    assert line.serve() == three
    assert line.order.first() is None
    assert not line.order.is_empty
    line.order.come_back()
    assert [line.serve(), line.serve()] == [one, two]


def test_one_that_stays_goes_to_the_end_of_its_line() -> None:
    line = Line()
    first, second = line.add("a", 10), line.add("a", 10)
    line.order.served(10, stays=True)
    assert [line.serve(), line.serve()] == [second, first]


def test_what_is_kept_of_those_who_left_goes() -> None:
    line = Line()
    for _ in range(20_000):
        line.add("waits", 50)
    for n in range(10_000):
        line.order.remove(f"gone {n}", line.add(f"gone {n}", 50))
        line.add(f"short {n}", 2)
        line.tenants(2)
        assert len(line.order._ends) < 40
        assert len(line.order._heap) == len(line.order._lines) == 1
    while not line.order.is_empty:
        line.serve()
    assert not line.order._ends


@pytest.mark.parametrize("seed", range(40))
def test_whatever_comes_and_goes_everybody_is_served_in_turn_and_fairly(seed: int) -> None:
    """Two who wait all the time are served the same, but for one longest item of each."""
    rng = random.Random(seed)
    print(f"seed {seed}")
    line, waiting = Line(), {who: deque[Item]() for who in "abcde"}
    out: set[str] = set()
    since: dict[tuple[str, str], int] = {}  # two that wait both: by how much they differed then
    for _ in range(3000):
        match rng.choice(("add", "add", "serve", "serve", "leave", "pass", "back")):
            case "add":
                who = rng.choice("aaabcde")
                waiting[who].append(line.add(who, rng.choice((1, 5, rng.randint(1, LONGEST)))))
            case "serve" if line.order.first() is not None:
                item = line.serve()
                assert item == waiting[item[0]].popleft()
                assert item[0] not in out
            case "leave":
                who = rng.choice("abcde")
                if waiting[who]:
                    item = rng.choice(waiting[who])
                    waiting[who].remove(item)
                    line.order.remove(who, item)
            case "pass" if (item := line.order.first()) is not None:
                line.order.pass_over_line()
                out.add(item[0])
            case "back" if rng.random() < 0.5:
                line.order.come_back()
                out.clear()
        out &= {who for who, items in waiting.items() if items}
        assert set(line.order.lines_out) == out
        both = [who for who, items in waiting.items() if items and who not in out]
        assert (line.order.first() is None) == (not both)
        pairs = {(a, b) for a in both for b in both if a < b}
        since = {(a, b): since.get((a, b), line.bytes[a] - line.bytes[b]) for a, b in sorted(pairs)}
        for (a, b), before in since.items():
            assert abs(line.bytes[a] - line.bytes[b] - before) <= 2 * LONGEST


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, LONGEST)), max_size=60))
def test_all_are_served_once_and_each_tenant_in_his_order(asked: list[tuple[str, int]]) -> None:
    line = Line()
    items = [line.add(who, cost) for who, cost in asked]
    served = [line.serve() for _ in items]
    assert sorted(served) == sorted(items)
    for who in "abc":
        assert [one for one in served if one[0] == who] == [one for one in items if one[0] == who]
