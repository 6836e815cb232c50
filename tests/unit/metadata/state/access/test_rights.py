"""What each call needs, and who is refused."""

from __future__ import annotations

import pytest

from cosco.errors import AccessDenied
from cosco.metadata.service.guard import DAEMON_METHODS
from cosco.metadata.state.access.rights import NEEDS, READING, TAKE_OVER, Caller, Need, Subject
from cosco.protocol import wire
from cosco.protocol.capability import Permit, Rights
from cosco.protocol.peer import Principal, Role
from cosco.protocol.records import ExchangeInfo, ExchangeSpec, RowKind

OURS = Subject(5, "ours", "exchange 'x'")
THEIRS = Subject(6, "theirs", "exchange 'y'")
NOTHING = Subject(0, None, "exchange 'z'")
BOTH = Rights.READ | Rights.WRITE
#: What a task does with a handle, and with no more than that.
WRITERS = {
    "ReportDaemon", "DescribeExchange", "OpenAttempt", "FixRowKind", "RenewAssignments", "Commit",
    "CommitBatch",
}  # fmt: skip
READERS = {
    "ReportDaemon", "DescribeExchange", "Progress", "AwaitCommits", "ReportLoss",
    "ReportUncommitted",
}  # fmt: skip
ADMINS = {"DrainDaemon", "UndrainDaemon", "ForgetStore"}
VIEWERS = {"Status", "ListEvents", "ListExchanges", "ShowExchange", "Progress"}


def with_token(role: Role) -> Caller:
    return Caller(Principal("ci", "ours", role))


def with_rights(rights: Rights) -> Caller:
    return Caller(permit=Permit(5, 1, rights))


def may(caller: Caller, method: str, *subjects: Subject, need: Need | None = None) -> bool:
    try:
        caller.check(method, need or NEEDS[method], subjects)
    except AccessDenied:
        return False
    return True


def test_every_method_needs_something_and_is_for_somebody() -> None:
    assert set(NEEDS) | DAEMON_METHODS == set(wire.METADATA_METHODS)
    assert not set(NEEDS) & DAEMON_METHODS


@pytest.mark.parametrize("method", sorted(NEEDS))
def test_what_each_role_may(method: str) -> None:
    allowed = {role for role in Role if may(with_token(role), method, OURS)}
    expected = {Role.ADMIN}
    if method not in ADMINS:
        expected.add(Role.TENANT)
    if method in VIEWERS:
        expected.add(Role.VIEWER)
    assert allowed == expected


@pytest.mark.parametrize("method", sorted(NEEDS))
def test_what_a_handle_is_good_for(method: str) -> None:
    assert may(with_rights(BOTH), method, OURS) == (method in WRITERS | READERS)
    assert may(with_rights(Rights.WRITE), method, OURS) == (method in WRITERS)
    assert may(with_rights(Rights.READ), method, OURS) == (method in READERS)
    for rights in (Rights(0), Rights.SERVICE):
        assert not may(with_rights(rights), method, OURS)


@pytest.mark.parametrize("method", sorted(set(NEEDS) - ADMINS))
def test_what_is_of_another_tenant_is_out_of_reach(method: str) -> None:
    for subjects in ((THEIRS,), (OURS, THEIRS), (THEIRS, OURS)):
        for role in (Role.TENANT, Role.VIEWER):
            assert not may(with_token(role), method, *subjects)
        assert may(with_token(Role.ADMIN), method, *subjects)
        assert not may(with_rights(BOTH), method, *subjects)


def test_rights_are_apart() -> None:
    reading, writing = with_rights(Rights.READ), with_rights(Rights.WRITE)
    assert may(reading, "AwaitCommits", OURS) > may(writing, "AwaitCommits", OURS)
    assert may(writing, "Commit", OURS) > may(reading, "Commit", OURS)
    assert may(reading, "DescribeExchange", OURS)
    assert may(writing, "DescribeExchange", OURS)
    assert may(reading, "DescribeExchange", OURS, need=READING)
    assert not may(writing, "DescribeExchange", OURS, need=READING)
    for caller in (reading, writing, with_rights(BOTH), with_token(Role.VIEWER)):
        assert not may(caller, "DescribeExchange", OURS, need=TAKE_OVER)
    assert may(with_token(Role.TENANT), "DescribeExchange", OURS, need=TAKE_OVER)


def test_what_is_not_there_is_for_the_call_to_say() -> None:
    for caller in (with_token(Role.TENANT), with_rights(BOTH)):
        assert may(caller, "OpenAttempt", NOTHING)
    assert not may(with_rights(BOTH), "CloseGroup", NOTHING)


def test_a_refusal_says_what_who_and_whose() -> None:
    with pytest.raises(
        AccessDenied, match=r"exchange 'y' is of another tenant; token 'ci', a tenant"
    ):
        with_token(Role.TENANT).check("OpenAttempt", NEEDS["OpenAttempt"], (THEIRS,))
    with pytest.raises(AccessDenied, match="DrainDaemon needs the role admin"):
        with_token(Role.TENANT).check("DrainDaemon", NEEDS["DrainDaemon"], ())
    with pytest.raises(AccessDenied, match="CreateExchange needs a token"):
        with_rights(BOTH).check("CreateExchange", NEEDS["CreateExchange"], ())


def test_whose_exchanges_a_caller_is_told_of() -> None:
    assert [with_token(role).sees for role in Role] == [None, "ours", "ours"]
    assert Caller().sees is None
    assert (Caller().tenant, with_token(Role.TENANT).tenant) == ("", "ours")


def test_who_shows_a_capability_is_told_of_no_other_one() -> None:
    info = ExchangeInfo(
        5, ExchangeSpec("x", 1), 1, RowKind.BYTES, b"", (), (), capability="may everything"
    )
    for caller in (Caller(), with_token(Role.TENANT)):
        assert caller.told(info) == info
        assert caller.capability_for(info) == "may everything"
    for shown in ("may less", ""):
        caller = Caller(permit=Permit(5, 1, Rights.READ), capability=shown)
        assert caller.told(info).capability == caller.capability_for(info) == shown
    assert "may less" not in repr(Caller(permit=Permit(5, 1, Rights.READ), capability="may less"))
