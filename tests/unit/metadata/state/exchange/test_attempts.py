"""Attempt ids: the service makes them, and nobody else can."""

from __future__ import annotations

import random

import pytest

from cosco.errors import CapacityExceeded
from cosco.metadata.state.exchange import attempts as module
from cosco.metadata.state.exchange.attempts import Attempts
from cosco.metadata.state.records.changes import ChangeLog
from cosco.protocol.records import FIRST_OWN_ATTEMPT

SECRET = b"s" * 32


def attempts(number: int = 5, secret: bytes = SECRET) -> Attempts:
    return Attempts(number, ChangeLog(), secret=secret)


def test_an_attempt_that_was_opened_is_known_by_its_id_and_its_mapper() -> None:
    opened = attempts()
    given = [opened.open(mapper) for mapper in (3, 3, 9, None)]
    assert [mapper for mapper, _ in given] == [3, 3, 9, 0]
    ids = [attempt for _, attempt in given]
    assert ids == sorted(set(ids))
    assert all(0 < attempt < FIRST_OWN_ATTEMPT for attempt in ids)
    for mapper, attempt in given:
        known = [other for other in (0, 3, 9) if opened.was_opened(other, attempt)]
        assert known == [mapper]


def test_ids_cannot_be_told_from_others() -> None:
    """Not from those before, those of another exchange, or of another service."""
    first = attempts().open(1)[1]
    assert first != attempts(number=6).open(1)[1]
    assert first != attempts(secret=b"t" * 32).open(1)[1]
    opened = attempts()
    one, two = (opened.open(1)[1] for _ in range(2))
    assert one & (1 << 36) - 1 != two & (1 << 36) - 1


@pytest.mark.parametrize("seed", [1, 2])
def test_who_guesses_is_refused(seed: int) -> None:
    opened = attempts()
    _, real = opened.open(1)
    numbers = random.Random(seed)
    near = {real ^ 1 << bit for bit in range(64)}
    guesses = near | {numbers.randrange(FIRST_OWN_ATTEMPT) for _ in range(10_000)} | set(range(100))
    assert not [guess for guess in guesses - {real} if opened.was_opened(1, guess)], seed


def test_ids_of_before_there_was_a_secret_are_good_and_no_later_ones() -> None:
    opened = attempts()
    opened.opened.add(1)
    opened.count = opened.plain = 3
    assert [opened.was_opened(1, attempt) for attempt in range(6)] == [
        False,
        *[True] * 3,
        *[False] * 2,
    ]
    assert not opened.was_opened(2, 1)
    mapper, attempt = opened.open(1)
    assert opened.was_opened(mapper, attempt)
    assert not opened.was_opened(mapper, 4)


def test_there_is_an_end_before_ids_reach_those_of_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = attempts()
    opened.count = module._MAX_COUNT - 1
    assert opened.open(1)[1] < FIRST_OWN_ATTEMPT
    with pytest.raises(CapacityExceeded, match="134217727 attempts"):
        opened.open(1)
