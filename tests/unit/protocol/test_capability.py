"""Capabilities: made by one key, checked by those derived from it, and by nothing else."""

from __future__ import annotations

import math
from base64 import urlsafe_b64decode, urlsafe_b64encode

import pytest

from cosco.errors import AccessDenied, ExchangeClosed, InvalidArgument, ServiceUnavailable
from cosco.protocol.capability import (
    MAX_CHARACTERS,
    MAX_LIVES_S,
    PREFIX,
    CapabilityChecker,
    CapabilityKey,
    Checker,
    Limits,
    Permit,
    Rights,
    made,
    said_by,
    service_capability,
    tenant_tag,
)

KEY = CapabilityKey(7, b"k" * 32)
OTHER = CapabilityKey(7, b"o" * 32)
NEXT = CapabilityKey(8, b"n" * 32)
PERMIT = Permit(5, 3, Rights.READ | Rights.WRITE, tenant=tenant_tag("ours"))
BOTH = pytest.mark.parametrize("checker", Checker)


def checking(checker: Checker, *keys: CapabilityKey) -> CapabilityChecker:
    return CapabilityChecker(checker, [key.derived(checker) for key in keys])


@BOTH
def test_who_has_a_capability_may_what_it_says_and_no_more(checker: Checker) -> None:
    permit = checking(checker, KEY).permit(made(KEY, PERMIT), 0.0)
    assert permit == PERMIT
    assert [number for number in range(10) if permit.allows(number, Rights.READ)] == [5, 6, 7]
    assert permit.allows(5, Rights.READ | Rights.WRITE)
    assert not permit.allows(5, Rights.OWN)
    assert not permit.allows(5, Rights.READ | Rights.OWN)


@BOTH
def test_every_bit_that_is_changed_voids_it(checker: Checker) -> None:
    content = urlsafe_b64decode(made(KEY, PERMIT).removeprefix(PREFIX))
    other_sum = range(33 + 32 * (1 - checker.value), 65 + 32 * (1 - checker.value))
    for at in range(8 * len(content)):
        if at // 8 in other_sum:
            continue
        changed = bytearray(content)
        changed[at // 8] ^= 1 << at % 8
        with pytest.raises((AccessDenied, ExchangeClosed, ServiceUnavailable)):
            checking(checker, KEY).permit(PREFIX + urlsafe_b64encode(changed).decode(), 0.0)


@BOTH
def test_one_of_another_cluster_is_none(checker: Checker) -> None:
    with pytest.raises(AccessDenied, match="was not made by the metadata service"):
        checking(checker, OTHER).permit(made(KEY, PERMIT), 0.0)
    with pytest.raises(AccessDenied, match="made by another cluster"):
        checking(checker).permit(made(KEY, PERMIT), 0.0)


@BOTH
def test_a_key_that_has_gone_went_with_its_exchanges(checker: Checker) -> None:
    with pytest.raises(ExchangeClosed):
        checking(checker, NEXT).permit(made(KEY, PERMIT), 0.0)


def test_a_daemon_that_has_not_heard_of_a_key_does_not_say_that_one_may_not() -> None:
    with pytest.raises(ServiceUnavailable) as caught:
        checking(Checker.DAEMON, KEY).permit(made(NEXT, PERMIT), 0.0)
    assert caught.value.retriable
    with pytest.raises(AccessDenied):  # it makes the keys itself
        checking(Checker.METADATA, KEY).permit(made(NEXT, PERMIT), 0.0)


def test_what_a_daemon_knows_makes_no_capability_for_the_metadata_service() -> None:
    stolen = KEY.derived(Checker.DAEMON)
    for forging in (stolen, stolen.derived(Checker.METADATA), stolen.derived(Checker.DAEMON)):
        with pytest.raises(AccessDenied):
            checking(Checker.METADATA, KEY).permit(made(forging, PERMIT), 0.0)


@BOTH
def test_keys_change_while_capabilities_are_in_use(checker: Checker) -> None:
    """As long as an old key is among them, what it made is good, and then no more."""
    checked = checking(checker, KEY)
    old, new = made(KEY, PERMIT), made(NEXT, PERMIT)
    assert checked.permit(old, 0.0) == PERMIT
    checked.set_keys([KEY.derived(checker), NEXT.derived(checker)])
    assert [checked.permit(one, 0.0) for one in (old, new)] == [PERMIT, PERMIT]
    checked.set_keys([NEXT.derived(checker)])
    assert checked.permit(new, 0.0) == PERMIT
    with pytest.raises(ExchangeClosed):
        checked.permit(old, 0.0)


@BOTH
def test_one_that_expires_is_void_from_then_on_also_if_it_was_good_before(checker: Checker) -> None:
    checked = checking(checker, KEY)
    capability = made(KEY, Permit(1, 1, Rights.READ, expires_s=1000))
    assert checked.permit(capability, 999.9).expires_s == 1000
    for now_s in (1000.0, 5000.0):
        with pytest.raises(AccessDenied, match="has expired"):
            checked.permit(capability, now_s)


@pytest.mark.parametrize(
    "text",
    [
        *("", PREFIX, "Bearer x", "cosco1.\u20ac", PREFIX + "A" * 10_000, PREFIX + "=" * 100),
        *(made(KEY, PERMIT)[:-4], made(KEY, PERMIT) + "AAAA", made(KEY, PERMIT) + "\n"),
        made(KEY, PERMIT).replace(PREFIX, "cosco2."),
    ],
)
def test_what_is_no_capability_is_told_so_and_not_shown(text: str) -> None:
    with pytest.raises(AccessDenied, match="no capability of an exchange") as told:
        checking(Checker.METADATA, KEY).permit(text, 0.0)
    assert not text or text not in str(told.value)


def test_the_longest_fits() -> None:
    longest = Permit(2**64 - 1, 2**32 - 1, Rights(7), 2**64 - 1, 2**64 - 1)
    text = made(CapabilityKey(2**32 - 1, b"k" * 32), longest)
    assert len(text) <= MAX_CHARACTERS
    checker = CapabilityChecker(Checker.DAEMON)
    assert not checker.has_keys
    checker.set_keys([CapabilityKey(2**32 - 1, b"k" * 32).derived(Checker.DAEMON)])
    assert checker.has_keys
    assert checker.permit(text, 0.0) == longest


def test_tags_tell_tenants_apart_and_none_has_that_of_nobody() -> None:
    tags = [tenant_tag(f"tenant {n}") for n in range(10_000)]
    assert len(set(tags)) == len(tags)
    assert all(0 < tag < 2**64 for tag in tags)
    assert tenant_tag("") == 0
    assert tenant_tag("ours") == 0xAF359AFE482DDEDF  # daemons and services of all versions agree


def test_a_key_does_not_show_its_secret() -> None:
    assert "kkk" not in repr(KEY)


def test_what_a_daemon_makes_is_nothing_to_the_metadata_service() -> None:
    shown = service_capability(KEY.derived(Checker.DAEMON), 77)
    assert checking(Checker.DAEMON, KEY).permit(shown, 0.0) == Permit(77, 1, Rights.SERVICE)
    for key in (KEY, CapabilityKey(KEY.id, bytes(32))):
        with pytest.raises(AccessDenied, match="was not made by the metadata service"):
            checking(Checker.METADATA, key).permit(shown, 0.0)
    with pytest.raises(AccessDenied):
        checking(Checker.DAEMON, OTHER).permit(shown, 0.0)


@pytest.mark.parametrize(
    ("lives_s", "expires_s"),
    [(0.0, 0), (0.1, 101), (1.0, 102), (60.5, 161), (MAX_LIVES_S, 2592101)],
)
def test_what_is_limited_in_time_lives_no_shorter_than_was_said(
    lives_s: float, expires_s: int
) -> None:
    limits = Limits(Rights.READ, lives_s)
    limits.check()
    permit = limits.permit(5, 3, 100.25, 7)
    assert permit == Permit(5, 3, Rights.READ, expires_s, 7)
    if lives_s:
        assert not permit.is_void(100.25 + lives_s - 1e-6)
        assert permit.is_void(100.25 + lives_s + 1.0)


@pytest.mark.parametrize(
    "limits",
    [
        Limits(Rights(0)),
        Limits(Rights.OWN),
        Limits(Rights.READ | Rights.OWN),
        Limits(Rights.SERVICE),
        Limits(Rights.READ, -0.1),
        Limits(Rights.READ, MAX_LIVES_S + 0.1),
        Limits(Rights.READ, math.inf),
        Limits(Rights.READ, -math.inf),
        Limits(Rights.READ, math.nan),
    ],
)
def test_what_is_made_for_nobody(limits: Limits) -> None:
    with pytest.raises(InvalidArgument):
        limits.check()


def test_who_has_one_sees_what_it_says() -> None:
    assert said_by(made(KEY, PERMIT)) == PERMIT
    assert said_by(made(KEY, Permit(1, 2, Rights.WRITE, 99))) == Permit(1, 2, Rights.WRITE, 99)
    assert said_by("") is said_by("cosco1.AAAA") is said_by("a token") is None
