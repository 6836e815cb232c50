from __future__ import annotations

from cosco.metadata.state.records.leases import Leases


def test_a_lease_runs_out_after_its_period() -> None:
    leases: Leases[str] = Leases()
    leases.renew("short", 1.0, now=10.0)
    leases.renew("long", 5.0, now=10.0)
    assert leases.expire(10.9) == []
    assert leases.expire(11.0) == ["short"]
    assert leases.expire(11.0) == []
    assert leases.expire(15.0) == ["long"]


def test_renewing_begins_a_full_period() -> None:
    leases: Leases[str] = Leases()
    leases.renew("a", 2.0, now=0.0)
    leases.renew("a", 2.0, now=1.5)
    assert leases.expire(3.0) == []
    assert leases.expire(3.5) == ["a"]


def test_a_forgotten_lease_does_not_run_out() -> None:
    leases: Leases[str] = Leases()
    leases.renew("a", 2.0, now=0.0)
    leases.forget("a")
    leases.forget("unknown")
    assert leases.expire(100.0) == []


def test_restart_gives_everyone_a_full_period() -> None:
    leases: Leases[str] = Leases()
    leases.renew("a", 2.0, now=0.0)
    leases.restart(100.0)
    assert leases.expire(101.9) == []
    assert leases.expire(102.0) == ["a"]


def test_restart_passes_over_those_with_longer_periods() -> None:
    leases: Leases[str] = Leases()
    leases.renew("a", 2.0, now=0.0)
    leases.renew("b", 4.0, now=0.0)
    leases.restart(1.0, 2.0)
    assert leases.expire(2.9) == []
    assert leases.expire(4.0) == ["a", "b"]
