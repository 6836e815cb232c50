"""Who may write to a daemon, read from it, and call it as a service of the cluster."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from cosco.errors import AccessDenied, CoscoError, ServiceUnavailable
from cosco.protocol.capability import (
    CapabilityKey,
    Checker,
    Permit,
    Rights,
    made,
    service_capability,
)
from cosco.shuffle_service.state.access_check import MAX_REMEMBERED, AccessCheck, ReadingStream
from cosco.shuffle_service.state.tenants.tenant_streams import TenantStreams

SELF, OTHER = 11, 12
OLD, NEW = CapabilityKey(1, b"o" * 32), CapabilityKey(2, b"n" * 32)
FOREIGN = CapabilityKey(1, b"f" * 32)
NOW = 1000.0
BOTH = Rights.READ | Rights.WRITE


def of_daemons(*keys: CapabilityKey) -> list[CapabilityKey]:
    return [key.derived(Checker.DAEMON) for key in keys]


def shown(
    number: int = 5, rights: Rights = BOTH, expires_s: int = 0, key: CapabilityKey = OLD
) -> str:
    return made(key, Permit(number, 1, rights, expires_s))


class Rig:
    def __init__(self, *keys: CapabilityKey) -> None:
        self.refused = 0
        self.access = AccessCheck(SELF, self._count)
        self.access.set_keys(of_daemons(*keys))

    def _count(self) -> None:
        self.refused += 1

    def may(self, rights: Rights, capability: str, number: int = 5) -> bool:
        before = self.refused
        try:
            self.access.check(number, rights, capability, NOW)
        except CoscoError as error:
            assert self.refused == before + 1
            assert not capability or capability not in str(error)
            return False
        assert self.refused == before
        return True

    def is_service(self, capability: str) -> bool:
        before = self.refused
        try:
            self.access.check_service(capability, "this", "daemons", NOW)
        except AccessDenied as error:
            assert self.refused == before + 1
            assert str(error).startswith("this is for daemons alone")
            return False
        return True


@pytest.mark.parametrize("capability", ["", "nonsense", shown(), shown(key=FOREIGN)])
def test_without_keys_nobody_needs_a_capability(capability: str) -> None:
    rig = Rig()
    assert rig.may(Rights.READ, capability)
    assert rig.may(Rights.WRITE, capability)
    assert rig.is_service(capability)
    assert rig.access.proof(OTHER, 0) == ""
    ReadingStream(rig.access).check(5, capability, NOW)


@pytest.mark.parametrize(
    ("capability", "reads", "writes"),
    [
        (shown(), True, True),
        (shown(rights=Rights.READ), True, False),
        (shown(rights=Rights.WRITE), False, True),
        (shown(rights=Rights.OWN), False, False),
        (shown(expires_s=int(NOW) + 1), True, True),
        (shown(expires_s=int(NOW)), False, False),
        (shown(4), False, False),
        (shown(key=NEW), False, False),
        (shown(key=FOREIGN), False, False),
        (shown()[:-1], False, False),
        (service_capability(OLD.derived(Checker.DAEMON), 5), False, False),
        ("cosco-token-x", False, False),
        ("", False, False),
    ],
)
def test_with_keys_everybody_may_what_he_shows(capability: str, reads: bool, writes: bool) -> None:
    rig = Rig(OLD)
    for _ in range(2):
        assert rig.may(Rights.READ, capability) is reads
        assert rig.may(Rights.WRITE, capability) is writes


def test_who_shows_nothing_is_told_that_it_is_needed() -> None:
    with pytest.raises(AccessDenied, match="needed to write to the exchange of the number 5"):
        Rig(OLD).access.check(5, Rights.WRITE, "", NOW)


@pytest.mark.parametrize(
    ("keys", "old", "new"),
    [((OLD,), True, False), ((OLD, NEW), True, True), ((NEW,), False, True)],
)
def test_keys_that_are_replaced(keys: Sequence[CapabilityKey], old: bool, new: bool) -> None:
    rig = Rig(OLD)
    assert rig.may(Rights.READ, shown())
    rig.access.set_keys(of_daemons(*keys))
    assert rig.may(Rights.READ, shown()) is old
    assert rig.may(Rights.READ, shown(key=NEW)) is new


def test_a_service_that_has_no_keys_any_more_asks_for_none() -> None:
    rig = Rig(OLD)
    assert not rig.may(Rights.READ, "")
    rig.access.set_keys([])
    assert rig.may(Rights.READ, "")


@pytest.mark.parametrize("bad", [CapabilityKey(3, b""), CapabilityKey(0, b"x" * 32)])
def test_a_key_that_is_no_secret_lets_nobody_in(bad: CapabilityKey) -> None:
    rig = Rig()
    rig.access.set_keys([bad])
    assert not rig.may(Rights.READ, "")
    assert not rig.may(Rights.READ, made(bad, Permit(5, 1, Rights.READ)))
    assert not rig.is_service("")
    assert rig.access.proof(OTHER, 0) == ""


# --- services -------------------------------------------------------------------------------


def test_daemons_know_each_other() -> None:
    rig, other = Rig(OLD), AccessCheck(OTHER)
    other.set_keys(of_daemons(OLD))
    assert rig.is_service(other.proof(SELF, 0))
    assert not rig.is_service(other.proof(OTHER, 0))  # which somebody there was shown
    assert not rig.is_service("")


@pytest.mark.parametrize("rights", [BOTH, Rights.OWN, Rights.READ | Rights.WRITE | Rights.OWN])
def test_what_clients_have_makes_nobody_a_service(rights: Rights) -> None:
    assert not Rig(OLD).is_service(shown(SELF, rights))


@pytest.mark.parametrize(
    ("ours", "theirs"), [((OLD,), (OLD, NEW)), ((OLD, NEW), (OLD,)), ((NEW,), (OLD, NEW))]
)
def test_daemons_know_each_other_while_keys_are_replaced(
    ours: Sequence[CapabilityKey], theirs: Sequence[CapabilityKey]
) -> None:
    rig, other = Rig(*ours), AccessCheck(OTHER)
    other.set_keys(of_daemons(*theirs))
    assert any(rig.is_service(other.proof(SELF, attempt)) for attempt in range(2))


# --- readers that share a stream ------------------------------------------------------------


def test_an_exchange_is_shown_once_on_a_stream() -> None:
    rig = Rig(OLD)
    stream = ReadingStream(rig.access)
    with pytest.raises(AccessDenied):
        stream.check(5, "", NOW)
    stream.check(5, shown(), NOW)
    stream.check(5, "", NOW)
    for number, capability in ((6, ""), (6, shown()), (6, shown(6, Rights.WRITE))):
        with pytest.raises(AccessDenied):
            stream.check(number, capability, NOW)
    with pytest.raises(AccessDenied):
        ReadingStream(rig.access).check(5, "", NOW)  # another stream is another's


def test_what_was_shown_outlives_its_key_and_not_its_time() -> None:
    rig = Rig(OLD)
    stream = ReadingStream(rig.access)
    stream.check(5, shown(), NOW)
    stream.check(6, shown(6, expires_s=int(NOW) + 10), NOW)
    rig.access.set_keys(of_daemons(NEW))
    stream.check(5, shown(), NOW)
    stream.check(6, "", NOW + 9)
    with pytest.raises(AccessDenied):
        stream.check(6, "", NOW + 10)
    stream.check(6, shown(6, key=NEW), NOW + 10)
    stream.check(6, "", NOW + 20)


def test_little_is_remembered_of_a_stream() -> None:
    rig = Rig(OLD)
    stream = ReadingStream(rig.access)
    of_all = made(OLD, Permit(1, 10 * MAX_REMEMBERED, Rights.READ))
    for number in range(1, MAX_REMEMBERED + 2):
        stream.check(number, of_all, NOW)
    stream.check(2, "", NOW)
    with pytest.raises(AccessDenied):
        stream.check(1, "", NOW)
    stream.check(1, of_all, NOW)


def test_who_asks_strangers_for_nothing_else_lets_in_nobody_without_keys() -> None:
    access = AccessCheck(SELF, lets_in_strangers=True)
    for keys in ((), [CapabilityKey(1, b"short")]):
        access.set_keys(keys)
        for capability in ("", shown()):
            with pytest.raises(AccessDenied, match="--tls-client-auth optional"):
                access.check(5, Rights.READ, capability, NOW)
            with pytest.raises(AccessDenied):
                ReadingStream(access).check(5, capability, NOW)
    access.set_keys(of_daemons(OLD))
    assert access.check(5, BOTH, shown(), NOW) == Permit(5, 1, BOTH)


def test_a_stream_is_the_tenants_who_showed_something_first() -> None:
    access, streams = AccessCheck(SELF), TenantStreams(1)
    access.set_keys(of_daemons(OLD))

    def of_tenant(tenant: int) -> str:
        return made(OLD, Permit(5, 1, Rights.READ, tenant=tenant))

    stream, other = ReadingStream(access, streams), ReadingStream(access, streams)
    with pytest.raises(AccessDenied):
        stream.check(5, "", NOW)
    assert streams.of(7) == 0
    for tenant in (7, 7, 8):
        stream.check(5, of_tenant(tenant), NOW)
    assert (streams.of(7), streams.of(8)) == (1, 0)
    with pytest.raises(ServiceUnavailable, match="--tenant-streams"):
        other.check(5, of_tenant(7), NOW)
    with pytest.raises(ServiceUnavailable):
        other.check(5, "", NOW)  # it has shown that it may
    assert other.is_beyond
    stream.close()
    stream.close()
    assert streams.of(7) == 0
    other.check(5, of_tenant(7), NOW)
    stream.check(5, of_tenant(7), NOW)  # too late to be counted
    other.close()
    assert streams.of(7) == 0


def test_a_stream_that_needs_to_show_nothing_is_nobodys() -> None:
    streams = TenantStreams(1)
    for _ in range(3):
        ReadingStream(AccessCheck(SELF), streams).check(5, "", NOW)
    assert not streams._open


def test_one_stream_more_than_may_be_is_told_what_need_not_wait() -> None:
    access, refused = AccessCheck(SELF), list[int]()
    streams = TenantStreams(1, lambda: refused.append(1))
    access.set_keys(of_daemons(OLD))
    theirs = made(OLD, Permit(5, 1, Rights.READ, tenant=7))
    first, more = ReadingStream(access, streams), ReadingStream(access, streams)
    with pytest.raises(AccessDenied):
        more.check(5, "", NOW, waits=False)
    first.check(5, theirs, NOW, waits=False)
    assert (streams.of(7), first.is_beyond) == (1, False)
    more.check(5, theirs, NOW, waits=False)
    more.check(5, "", NOW, waits=False)
    assert (streams.of(7), more.is_beyond, refused) == (1, True, [])
    with pytest.raises(ServiceUnavailable):
        more.check(5, "", NOW)
    assert len(refused) == 1
    first.close()
    more.check(5, "", NOW, waits=False)  # there is room by now
    assert (streams.of(7), more.is_beyond) == (1, False)
    more.check(5, "", NOW)
    more.close()
    assert streams.of(7) == 0
