"""What a daemon knows of its lease."""

from __future__ import annotations

import pytest

from cosco.protocol.events import Event
from cosco.protocol.records import DaemonOrders
from cosco.shuffle_service.state.lease_watch import LeaseWatch

LEASE_S = 10.0
ORDERS = DaemonOrders(known=True, cluster_id="c", lease_s=LEASE_S)


class Rig:
    def __init__(self) -> None:
        self.told: list[Event] = []
        self.lease = LeaseWatch(self.told.append)

    def kinds(self) -> list[str]:
        found = [event.kind.label for event in self.told]
        self.told.clear()
        return found


@pytest.fixture
def rig() -> Rig:
    return Rig()


@pytest.fixture
def registered(rig: Rig) -> Rig:
    rig.lease.answered(ORDERS, 100.0, 100.0)
    assert rig.kinds() == ["registered"]
    return rig


def test_before_it_is_registered(rig: Rig) -> None:
    assert "not registered" in rig.lease.doubts(0.0)[0]


def test_answers_that_come_are_not_told(registered: Rig) -> None:
    registered.lease.answered(ORDERS, 101.0, 101.0)
    assert registered.kinds() == []
    assert registered.lease.doubts(101.0 + LEASE_S - 0.1) == []


def test_without_an_answer_it_is_in_doubt_when_the_lease_ends(registered: Rig) -> None:
    assert registered.lease.doubts(100.0 + LEASE_S - 0.1) == []
    assert registered.lease.doubts(100.0 + LEASE_S)


def test_a_lease_counts_from_when_it_was_asked_for(registered: Rig) -> None:
    """As the service had heard of it before it answered, however late that came."""
    registered.lease.answered(ORDERS, 108.0, 103.0)
    assert registered.lease.doubts(103.0 + LEASE_S - 0.1) == []
    assert registered.lease.doubts(103.0 + LEASE_S)
    registered.lease.unanswered("refused", 103.0 + LEASE_S)
    assert registered.kinds() == ["metadata_away", "lease_lost"]


def test_a_service_that_is_away_for_a_moment(registered: Rig) -> None:
    registered.lease.unanswered("refused", 103.0)
    registered.lease.unanswered("refused", 104.0)
    (away,) = registered.told
    assert (away.kind.label, away.reason) == ("metadata_away", "refused")
    registered.told.clear()
    registered.lease.answered(ORDERS, 105.0, 105.0)
    (back,) = registered.told
    assert (back.kind.label, back.seconds) == ("metadata_back", 5.0)


def test_a_service_that_is_away_for_longer_than_the_lease(registered: Rig) -> None:
    for now in (103.0, 109.9, 110.0, 111.0):
        registered.lease.unanswered("refused", now)
    assert registered.kinds() == ["metadata_away", "lease_lost"]
    registered.lease.answered(ORDERS, 112.0, 112.0)
    assert registered.kinds() == ["registered"]
    assert registered.lease.doubts(112.0) == []


def test_a_service_that_does_not_know_the_daemon(registered: Rig) -> None:
    registered.lease.lost("not known")
    (lost,) = registered.told
    assert (lost.kind.label, lost.cause) == ("lease_lost", "not known")
    assert registered.lease.doubts(100.1)
