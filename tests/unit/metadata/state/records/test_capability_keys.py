"""Keys of capabilities: one follows another, and what is in use stays good."""

from __future__ import annotations

from typing import Any

import pytest

from cosco.errors import AccessDenied, ExchangeClosed
from cosco.metadata.state.records.capability_keys import MAX_KEYS, CapabilityKeys
from cosco.metadata.state.records.changes import ChangeLog, Row
from cosco.protocol.capability import CapabilityChecker, Checker, Permit, Rights

PERIOD_S, SPREAD_S = 1000.0, 10.0


class Keys:
    """Keys, a clock, and the database that they are in. Exchanges are 1 to `last`, of which those
    from `oldest` on are open."""

    def __init__(self) -> None:
        self.now = 5000.0
        self.rows: dict[Any, Row] = {}
        self.last, self.oldest = 1, 1
        self.start()

    def start(self) -> None:
        self.changes = ChangeLog()
        rows = [(*key, *row) for key, row in sorted(self.rows.items())]
        self.keys = CapabilityKeys(rows, self.changes)
        self.keys.begin(b"first" * 8, self.now, self.now)
        self.persist()

    def turn(self, after_s: float) -> None:
        self.now += after_s
        self.keys.turn(
            f"made at {self.now}".encode(), self.now, self.now, period_s=PERIOD_S,
            spread_s=SPREAD_S, last_number=self.last, oldest_open=self.oldest,
        )  # fmt: skip
        self.persist()

    def persist(self) -> None:
        for _, key, row in self.changes.pop_all():
            if row is None:
                del self.rows[key]
            else:
                self.rows[key] = row

    def is_good(self, capability: str) -> bool:
        """Whether the service takes it; a daemon that has just heard of the keys says the same."""
        daemon = CapabilityChecker(Checker.DAEMON, self.keys.of_daemons)
        said = []
        for check in (self.keys.permit, daemon.permit):
            try:
                check(capability, self.now)
            except ExchangeClosed:
                said.append(False)
            else:
                said.append(True)
        assert said[0] == said[1]
        return said[0]


def test_nobody_needs_a_capability_until_it_is_said() -> None:
    keys = CapabilityKeys((), ChangeLog())
    assert (keys.capability(1, tenant="ours"), keys.of_daemons) == ("", ())
    keys.turn(b"", 0.0, 0.0, period_s=0, spread_s=0, last_number=0, oldest_open=1)
    assert keys.of_daemons == ()


def test_a_new_key_is_not_used_before_daemons_have_it() -> None:
    keys = Keys()
    first = keys.keys.capability(1, tenant="")
    keys.turn(PERIOD_S - 1)
    assert len(keys.keys.of_daemons) == 1
    keys.turn(1)
    assert len(keys.keys.of_daemons) == 2
    assert keys.keys.capability(1, tenant="") == first
    keys.turn(SPREAD_S - 1)
    assert keys.keys.capability(1, tenant="") == first
    keys.turn(1)
    assert keys.keys.capability(1, tenant="") != first
    assert keys.is_good(first)
    assert keys.is_good(keys.keys.capability(1, tenant=""))


def test_a_key_goes_with_the_last_exchange_that_may_have_a_capability_by_it() -> None:
    keys = Keys()
    first = keys.keys.capability(1, tenant="")
    keys.turn(PERIOD_S)
    keys.last = 7
    keys.turn(SPREAD_S)
    keys.last = keys.oldest = 7
    keys.turn(1)
    assert keys.is_good(first)
    keys.last = keys.oldest = 8
    keys.turn(1)
    assert not keys.is_good(first)
    assert list(keys.rows) == [(2,)]
    keys.turn(PERIOD_S)
    assert list(keys.rows) == [(2,), (3,)]  # no id is given twice


def test_a_daemon_knows_the_service_by_a_key_that_it_has() -> None:
    keys = Keys()
    daemon = CapabilityChecker(Checker.DAEMON, keys.keys.of_daemons)
    keys.turn(PERIOD_S)  # this daemon has not heard of the new key yet
    assert daemon.permit(keys.keys.proof(77), keys.now) == Permit(77, 1, Rights.SERVICE)
    with pytest.raises(AccessDenied):
        keys.keys.permit(keys.keys.proof(77), keys.now)
    assert CapabilityKeys((), ChangeLog()).proof(77) == ""


@pytest.mark.parametrize("spreading", [False, True])
def test_a_restart_at_any_moment_forgets_no_key(spreading: bool) -> None:
    keys = Keys()
    first = keys.keys.capability(1, tenant="")
    keys.turn(PERIOD_S)
    if not spreading:
        keys.turn(SPREAD_S)
    before = keys.keys.capability(1, tenant="")
    keys.start()
    assert keys.keys.capability(1, tenant="") == before
    assert keys.is_good(first)
    keys.turn(SPREAD_S)
    assert keys.keys.capability(1, tenant="") != first
    assert keys.is_good(first)


def test_keys_are_bounded_and_none_that_is_needed_goes() -> None:
    keys = Keys()
    first = keys.keys.capability(1, tenant="")
    for _ in range(3 * MAX_KEYS):
        keys.turn(PERIOD_S)
        keys.last += 1
        keys.turn(SPREAD_S)
    assert len(keys.keys.of_daemons) == MAX_KEYS
    assert keys.is_good(first)
    keys.oldest = keys.last + 1
    keys.turn(1)
    assert len(keys.keys.of_daemons) == 1
    assert keys.is_good(keys.keys.capability(keys.last + 1, tenant=""))
