"""Whose is what there is, and what lets a task use it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from support.metadata_cluster import OWNER
from support.stored_cluster import StoredCluster

from cosco.errors import (
    AccessDenied,
    CapacityExceeded,
    ExchangeClosed,
    ExchangeExists,
    ExchangeNotFound,
    InvalidArgument,
)
from cosco.metadata.state.access.exchange_access import Named
from cosco.metadata.state.access.rights import Caller
from cosco.metadata.state.history.history import HistoryBounds
from cosco.protocol.admin_records import ExchangePhase
from cosco.protocol.capability import CapabilityChecker, Checker, Limits, Permit, Rights, tenant_tag
from cosco.protocol.group_records import GroupPart, member_name
from cosco.protocol.peer import Principal, Role
from cosco.protocol.records import ExchangeInfo, ExchangeSpec, StoredBytes

BOTH = Rights.READ | Rights.WRITE
OURS = tenant_tag("ours")


class TenantCluster(StoredCluster):
    """A service that credentials are needed of."""

    tenant_max = 0
    stored_max = 0

    def restart(self, after_s: float = 0.0) -> None:
        super().restart(after_s)
        self.begin()

    def begin(self) -> None:
        self.state.access.begin(
            b"k" * 32,
            0.0,
            self.now,
            tenant_exchanges=self.tenant_max,
            tenant_stored_bytes=self.stored_max,
        )

    def full(self) -> tuple[int, ...]:
        """The tenants of which daemons are to take nothing more."""
        return self.state.access.with_keys(self.beat(1)).full_tenants

    def made(self, shuffle_id: str, tenant: str, application_id: str = "") -> ExchangeInfo:
        spec = ExchangeSpec(shuffle_id, 2, replicas=1)
        return self.state.create_exchange(
            spec, OWNER, self.now, used=False, tenant=tenant, application_id=application_id
        )

    def group(self, group_id: str, tenant: str, first: int = 0) -> GroupPart:
        spec = ExchangeSpec(group_id, 2, replicas=1)
        groups = self.state.groups
        return groups.create(spec, 2, 3, first, OWNER, self.now, callback=False, tenant=tenant)

    def may(self, tenant: str, method: str, named: Named, role: Role = Role.TENANT) -> bool:
        return self.allows(Caller(Principal("ci", tenant, role)), method, named)

    def lets(self, capability: str, method: str, named: Named) -> bool:
        permit = self.state.access.permit(capability, 0.0)
        return self.allows(Caller(permit=permit), method, named)

    def allows(self, caller: Caller, method: str, named: Named) -> bool:
        try:
            self.state.access.check(caller, method, named)
        except AccessDenied:
            return False
        return True

    def permit_of(self, info: ExchangeInfo) -> Permit:
        """As the service understands it, and a daemon that has its keys."""
        daemon = CapabilityChecker(Checker.DAEMON, self.state.access.keys_of_daemons)
        permit = self.state.access.permit(info.capability, 0.0)
        assert daemon.permit(info.capability, 0.0) == permit
        return permit


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[TenantCluster]:
    cluster = TenantCluster(str(tmp_path / "metadata.db"), 1, 2)
    cluster.begin()
    yield cluster
    cluster.store.close()


@pytest.mark.parametrize("restarted", [False, True])
def test_an_exchange_is_of_the_tenant_that_made_it(cluster: TenantCluster, restarted: bool) -> None:
    number = cluster.made("a", "ours").number
    if restarted:
        cluster.persist()
        cluster.restart()
    for named in (Named((number,)), Named(shuffle_id="a")):
        assert cluster.may("ours", "OpenAttempt", named)
        assert not cluster.may("theirs", "OpenAttempt", named)
        assert cluster.may("theirs", "OpenAttempt", named, Role.ADMIN)


@pytest.mark.parametrize("restarted", [False, True])
def test_a_handle_lets_its_exchange_be_used_and_no_other(
    cluster: TenantCluster, restarted: bool
) -> None:
    info, other = cluster.made("a", "ours"), cluster.made("b", "ours")
    if restarted:  # what was given out before stays good
        cluster.persist()
        cluster.restart()
    again = cluster.state.describe_exchange("a", b"", cluster.now, used=True)
    for told in (info, again):
        assert cluster.permit_of(told) == Permit(info.number, 1, BOTH, tenant=OURS)
    assert cluster.lets(info.capability, "Commit", Named((info.number,)))
    assert cluster.lets(info.capability, "OpenAttempt", Named(shuffle_id="a"))
    assert not cluster.lets(info.capability, "Commit", Named((other.number,)))
    assert not cluster.lets(info.capability, "OpenAttempt", Named(shuffle_id="b"))
    assert not cluster.lets(info.capability, "CommitBatch", Named((info.number, other.number)))
    assert not cluster.lets(info.capability, "CloseExchange", Named(shuffle_id="a"))
    taking = Named(shuffle_id="a", takes_over=True)
    assert not cluster.lets(info.capability, "DescribeExchange", taking)
    assert cluster.may("ours", "DescribeExchange", taking)


@pytest.mark.parametrize("restarted", [False, True])
def test_a_group_has_one_capability_for_each_part(cluster: TenantCluster, restarted: bool) -> None:
    part, other = cluster.group("g", "ours"), cluster.group("h", "theirs")
    if restarted:
        cluster.persist()
        cluster.restart()
    first = part.info.number
    assert cluster.permit_of(part.info) == Permit(first, 3, BOTH, tenant=OURS)
    assert cluster.lets(part.info.capability, "CommitBatch", Named((first, first + 2)))
    assert not cluster.lets(part.info.capability, "Commit", Named((other.info.number,)))
    assert cluster.may("ours", "PollGroup", Named(group_id="g"))
    assert not cluster.may("theirs", "PollGroup", Named(group_id="g"))
    assert not cluster.may("theirs", "Commit", Named((first + 1,)))
    member = member_name("g", 1)
    described = cluster.state.describe_exchange(member, b"", cluster.now, used=True)
    assert cluster.permit_of(described).allows(first + 1, BOTH)
    assert cluster.permit_of(described).tenant == OURS
    more = cluster.group("g", "ours", first=3)
    assert cluster.permit_of(more.info) == Permit(more.info.number, 3, BOTH, tenant=OURS)
    again = cluster.group("g", "ours", first=3)
    assert again == replace(more, info=again.info)
    assert cluster.permit_of(again.info) == cluster.permit_of(more.info)


@pytest.mark.parametrize("restarted", [False, True])
def test_an_application_is_of_its_tenant(cluster: TenantCluster, restarted: bool) -> None:
    made = cluster.state.applications.create("etl", OWNER, 60.0, cluster.now, tenant="ours")
    if restarted:
        cluster.persist()
        cluster.restart()
    named = Named(application_id=made)
    for method in ("CreateExchange", "PollApplication", "CloseApplication"):
        assert cluster.may("ours", method, named)
        assert not cluster.may("theirs", method, named)
    assert cluster.may("theirs", "PollApplication", Named(application_id="etl-99"))


def test_who_is_told_of_which_exchanges(cluster: TenantCluster) -> None:
    cluster.made("a", "ours")
    cluster.made("b", "theirs")
    cluster.made("c", "ours")
    cluster.state.close_exchange("c", used=False)
    overview = cluster.state.overview

    def listed(tenant: str | None) -> list[str]:
        page = overview.page(0, "", 0, 10, tenant)
        named = [status.shuffle_id for status in page.exchanges]
        assert [status.shuffle_id for status in cluster.state.overview.status(tenant)[1]] == named
        return named

    assert listed(None) == ["a", "b", "c"]
    assert (listed("ours"), listed("theirs"), listed("nobody")) == (["a"], ["b"], [])


def test_what_is_closing_is_shown_to_admins_alone(cluster: TenantCluster) -> None:
    cluster.made("a", "ours")
    cluster.state.close_exchange("a", used=False)
    named = Named(shuffle_id="a")
    assert not cluster.may("ours", "ShowExchange", named, Role.VIEWER)
    assert cluster.may("ours", "ShowExchange", named, Role.ADMIN)
    assert cluster.may("ours", "CloseExchange", named)  # repeated by its driver, harmless


def test_what_was_made_before_there_were_tenants_is_for_admins(cluster: TenantCluster) -> None:
    cluster.made("a", "")
    assert not cluster.may("ours", "OpenAttempt", Named(shuffle_id="a"))
    assert cluster.may("ours", "OpenAttempt", Named(shuffle_id="a"), Role.ADMIN)


def test_without_credentials_nothing_is_given_out(tmp_path: Path) -> None:
    cluster = TenantCluster(str(tmp_path / "metadata.db"), 1)
    assert cluster.made("a", "").capability == ""
    assert cluster.group("g", "").info.capability == ""
    assert cluster.state.access.keys_of_daemons == ()
    limits = Limits(Rights.READ, 1.0)
    assert cluster.state.access.capability(1, limits, 0.0) == ""
    assert _of_part(cluster, 0, limits) == ""
    cluster.store.close()


def test_who_has_anothers_owner_is_not_given_what_that_one_made(cluster: TenantCluster) -> None:
    cluster.group("g", "ours")
    assert not cluster.may("theirs", "CreateGroup", Named(group_id="g"))
    made = cluster.made("a", "ours")
    assert cluster.made("a", "ours") == made
    with pytest.raises(ExchangeExists):
        cluster.made("a", "theirs")


@pytest.mark.parametrize("restarted", [False, True])
def test_a_tenant_has_no_more_exchanges_than_it_may(
    cluster: TenantCluster, restarted: bool
) -> None:
    cluster.tenant_max = 4
    cluster.begin()
    part = cluster.group("g", "ours")
    cluster.made("a", "ours")
    cluster.persist()
    if restarted:
        cluster.restart()
    with pytest.raises(CapacityExceeded, match="tenant ours has 4 open exchanges and would have 5"):
        cluster.made("b", "ours")
    with pytest.raises(CapacityExceeded, match="would have 7: it may have 4"):
        cluster.group("h", "ours")
    with pytest.raises(CapacityExceeded):
        cluster.group("g", "ours", first=3)
    assert not cluster.persist()
    assert cluster.made("a", "ours")  # what is there is there
    assert cluster.made("other", "theirs")
    cluster.state.close_exchange(member_name("g", 2), used=False)
    assert cluster.made("b", "ours").number > part.info.number
    with pytest.raises(CapacityExceeded):
        cluster.made("c", "ours")


def test_a_tenant_has_no_more_bytes_stored_than_it_may(cluster: TenantCluster) -> None:
    cluster.stored_max = 1000
    cluster.begin()
    part = cluster.group("g", "ours")
    ours, theirs = cluster.made("a", "ours"), cluster.made("b", "theirs")
    cluster.beat(1, stored=(StoredBytes(ours.number, 600), StoredBytes(theirs.number, 900)))
    cluster.beat(2, stored=(StoredBytes(ours.number, 200), StoredBytes(1 << 40, 5000)))
    cluster.beat(2, stored=(StoredBytes(part.info.number, 199),))
    assert cluster.full() == ()
    cluster.state.open_attempt("a", 0, used=False)
    cluster.beat(2, stored=(StoredBytes(part.info.number, 200),))
    assert cluster.full() == (tenant_tag("ours"),)
    wanted = "tenant ours has 1000 bytes stored, and may have 1000 .--tenant-stored-bytes"
    for refused in (
        lambda: cluster.made("c", "ours"),
        lambda: cluster.group("g", "ours", first=3),
        lambda: cluster.state.open_attempt("a", 1, used=False),
    ):
        with pytest.raises(CapacityExceeded, match=wanted):
            refused()
    assert cluster.state.open_attempt("b", 0, used=False)
    assert cluster.made("a", "ours") == ours  # what is there is there
    cluster.state.close_exchange("a", used=False)
    assert cluster.full() == ()
    assert cluster.made("c", "ours")


def test_what_is_stored_is_what_each_start_of_a_daemon_said_last(cluster: TenantCluster) -> None:
    cluster.stored_max = 100
    cluster.begin()
    number = cluster.made("a", "ours").number
    for said, full in ((60, False), (100, True), (99, False), (0, False), (100, True)):
        cluster.beat(1, stored=(StoredBytes(number, said),))
        assert bool(cluster.full()) is full
    cluster.beat(9, stored=(StoredBytes(number, 5000),))  # which is no daemon of this service
    cluster.beat(1, stored=(StoredBytes(number, 0),))
    assert not cluster.full()


def test_what_was_in_a_store_that_is_gone_counts_no_more(cluster: TenantCluster) -> None:
    """Else its rows, which have to be written again, could not be."""

    def full() -> tuple[int, ...]:
        return cluster.state.access.with_keys(cluster.beat(8)).full_tenants

    cluster.stored_max = 150
    cluster.begin()
    cluster.register(7, store="lost")
    for other in (1, 2):
        cluster.kill(other)
    number = cluster.made("a", "ours").number  # of which all is there
    cluster.register(8)
    cluster.beat(7, stored=(StoredBytes(number, 100),))
    cluster.beat(8, stored=(StoredBytes(number, 60),))
    assert full()
    cluster.kill(7)
    cluster.state.forget_store("lost")
    assert not full()
    assert cluster.state.open_attempt("a", 0, used=False)
    cluster.beat(8, stored=(StoredBytes(number, 150),))
    assert full()


def test_nobody_is_full_where_nothing_is_bounded(cluster: TenantCluster) -> None:
    number = cluster.made("a", "ours").number
    cluster.beat(1, stored=(StoredBytes(number, 1 << 60),))
    assert cluster.full() == ()
    assert cluster.made("b", "ours")


def test_what_is_kept_of_an_exchange_is_for_its_tenant(cluster: TenantCluster) -> None:
    cluster.state.members.history.begin(HistoryBounds(5e6, 100.0, 5), cluster.now)
    cluster.made("a", "ours")
    cluster.state.close_exchange("a", used=False)
    named = Named(shuffle_id="a")
    assert cluster.may("ours", "ShowExchange", named, Role.VIEWER)
    assert not cluster.may("theirs", "ShowExchange", named, Role.VIEWER)
    assert cluster.may("theirs", "ShowExchange", named, Role.ADMIN)
    page = cluster.state.overview.page
    for tenant, there in (("ours", 1), ("theirs", 0), (None, 1)):
        assert len(page(ExchangePhase.FINISHED, "", 0, 10, tenant).exchanges) == there


def test_a_number_of_nothing_is_told_at_once(cluster: TenantCluster) -> None:
    """It may be that of an exchange which somebody else makes while the call waits."""
    number = cluster.made("a", "ours").number
    with pytest.raises(ExchangeNotFound):
        cluster.may("theirs", "AwaitCommits", Named((number + 1,)))
    cluster.state.close_exchange("a", used=False)
    with pytest.raises(ExchangeClosed):
        cluster.may("theirs", "AwaitCommits", Named((number,)))


def test_a_handle_of_closed_exchanges_is_good_for_nothing(cluster: TenantCluster) -> None:
    part = cluster.group("g", "ours")
    for index in range(3):
        assert cluster.lets(part.info.capability, "ReportDaemon", Named())
        cluster.state.close_exchange(member_name("g", index), used=False)
    with pytest.raises(ExchangeClosed):
        cluster.lets(part.info.capability, "ReportDaemon", Named())


def test_an_admins_exchange_in_an_application_is_of_its_tenant(cluster: TenantCluster) -> None:
    made = cluster.state.applications.create("etl", OWNER, 300.0, cluster.now, tenant="ours")
    cluster.made("a", "operators", made)
    assert cluster.may("ours", "OpenAttempt", Named(shuffle_id="a"))


def test_what_is_of_no_tenant_is_told_so(cluster: TenantCluster) -> None:
    cluster.made("a", "")
    caller = Caller(Principal("ci", "ours", Role.TENANT))
    with pytest.raises(AccessDenied, match="made before tokens were asked for"):
        cluster.state.access.check(caller, "OpenAttempt", Named(shuffle_id="a"))


@pytest.mark.parametrize("restarted", [False, True])
def test_a_daemon_is_told_whose_an_assignment_is(cluster: TenantCluster, restarted: bool) -> None:
    """As its replica it hears of no writer, whose capability would say it."""
    info, part = cluster.made("a", "ours"), cluster.group("g", "theirs")
    nobodys = cluster.made("b", "")
    if restarted:
        cluster.persist()
        cluster.restart()
    expected = ((info, OURS), (part.info, tenant_tag("theirs")), (nobodys, 0))
    for made, tenant in expected:
        primary = made.assignments[0].primary.incarnation
        found = cluster.state.lookup_assignment(made.number, 0, 1, primary)
        assert found is not None
        assert found.tenant == tenant


@pytest.mark.parametrize("restarted", [False, True])
def test_what_is_made_with_limits_is_good_for_what_they_say(
    cluster: TenantCluster, restarted: bool
) -> None:
    info, part = cluster.made("a", "ours"), cluster.group("g", "ours")
    more = cluster.group("g", "ours", first=3)
    access, of_group = cluster.state.access, partial(_of_part, cluster)
    reading = access.capability(info.number, Limits(Rights.READ), 100.0)
    writing = access.capability(info.number, Limits(Rights.WRITE, 50.0), 100.0)
    of_both = of_group(0, Limits()), of_group(3, Limits(Rights.READ, 5.0))
    if restarted:  # what was given out before stays good
        cluster.persist()
        cluster.restart()
    permit = partial(cluster.state.access.permit, unix_s=149.0)
    assert permit(reading) == Permit(info.number, 1, Rights.READ, tenant=OURS)
    assert permit(writing) == Permit(info.number, 1, Rights.WRITE, 150, OURS)
    assert permit(of_both[0]) == Permit(part.info.number, 3, BOTH, tenant=OURS)
    with pytest.raises(AccessDenied, match="has expired"):
        cluster.state.access.permit(writing, 150.0)
    with pytest.raises(AccessDenied, match="has expired"):
        permit(of_both[1])
    assert cluster.state.access.permit(of_both[1], 104.0).first == more.info.number
    named = Named((info.number,))
    assert cluster.lets(writing, "Commit", named) > cluster.lets(reading, "Commit", named)
    assert cluster.lets(reading, "AwaitCommits", named) > cluster.lets(
        writing, "AwaitCommits", named
    )
    asked = Named(shuffle_id="a", reads=True)
    method = "DescribeExchange"
    assert cluster.lets(reading, method, asked) > cluster.lets(writing, method, asked)
    assert cluster.lets(writing, method, Named(shuffle_id="a"))
    for one in (reading, writing):  # who takes over and reads in one call takes over
        assert not cluster.lets(one, method, asked._replace(takes_over=True))


def _of_part(cluster: TenantCluster, first: int, limits: Limits) -> str:
    access = cluster.state.access
    return access.capability_of_part("g", first, limits, 100.0, used=False)


def test_what_there_is_none_of_is_told(cluster: TenantCluster) -> None:
    number = cluster.made("a", "ours").number
    cluster.group("g", "ours")
    cluster.group("g", "ours", first=3)
    access = cluster.state.access
    for bad in (Limits(Rights(0)), Limits(Rights.OWN), Limits(BOTH, -1.0), Limits(BOTH, math.nan)):
        with pytest.raises(InvalidArgument):
            access.capability(number, bad, 0.0)
        with pytest.raises(InvalidArgument):
            _of_part(cluster, 0, bad)
    with pytest.raises(ExchangeNotFound):
        access.capability(99, Limits(), 0.0)
    for first in (1, 4, 6, 1 << 31):
        with pytest.raises(InvalidArgument, match="no part that begins"):
            _of_part(cluster, first, Limits())
    cluster.state.close_exchange("a", used=False)
    with pytest.raises(ExchangeClosed):
        access.capability(number, Limits(), 0.0)
    for index in range(3):
        cluster.state.close_exchange(member_name("g", index), used=False)
    with pytest.raises(ExchangeClosed, match="from index 0 on are closed"):
        _of_part(cluster, 0, Limits())
    assert _of_part(cluster, 3, Limits())
    cluster.state.groups.close("g", used=True)
    with pytest.raises(ExchangeNotFound):
        access.capability_of_part("g", 3, Limits(), 0.0, used=False)
    with pytest.raises(ExchangeClosed):
        access.capability_of_part("g", 3, Limits(), 0.0, used=True)


def test_one_that_is_made_of_an_old_exchange_outlives_the_keys_between(
    cluster: TenantCluster,
) -> None:
    """Its key is the newest, which goes later than that of the exchange itself."""
    access = cluster.state.access
    number = cluster.made("a", "ours").number
    for turn in range(1, 5):
        for now in (1000.0 * turn, 1000.0 * turn + 10.0):
            access.turn_keys(bytes([turn]) * 32, now, now, period_s=900.0, spread_s=5.0)
        made = access.capability(number, Limits(Rights.READ), 0.0)
        assert access.permit(made, 0.0) == Permit(number, 1, Rights.READ, tenant=OURS)
