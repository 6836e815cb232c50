"""What `python -m tests.fuzz` sends: the same for the same seed, of all methods, and no harm."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from fuzz.messages import METHODS, SHUFFLE_METHODS
from fuzz.names import HONEST, NOBODYS_MAPPERS, Daemon, Exchange, Names, Range, fields, is_harmless
from fuzz.plan import Case, Ending, case
from google.protobuf.message import DecodeError

from cosco.errors import InvalidArgument
from cosco.protocol import wire
from cosco.protocol.records import CommitRequest
from cosco.protocol.wire import mpb, spb

OWN = Exchange(
    2, "fuzz-own-0", b"o" * 16, 8, (Range(0, 0, 4, 1, 0), Range(1, 4, 4, 1, 1)), (1, 2, 3)
)
DAEMONS = Daemon("127.0.0.1:4001", 2**62 + 1, "s1"), Daemon("127.0.0.1:4002", 2**62 + 3, "s2")
NAMES = Names(DAEMONS, (OWN,), ((7, "fuzz-made-7/0"),), (5,), (f"{HONEST}0",))
COUNT = 3000


def sent(seed: int, names: Names = NAMES) -> list[Case]:
    made = (case(seed, index, names) for index in range(COUNT))
    return [one for one in made if one is not None]


def test_a_seed_gives_the_same_calls_and_another_one_others() -> None:
    assert sent(1)[:300] == sent(1)[:300]
    assert sent(1)[:300] != sent(2)[:300]


def test_a_call_depends_on_no_other_one() -> None:
    """So one is made again by its index, in a cluster whose names have other lengths."""
    assert case(1, 700, NAMES) == case(1, 700, NAMES)
    others = replace(NAMES, daemons=(Daemon("127.0.0.1:99", 5, "s"), *DAEMONS[1:]))
    calls = [(case(1, at, NAMES), case(1, at, others)) for at in range(300)]
    same = [a.method == b.method for a, b in calls if a is not None and b is not None]
    assert len(same) > 200
    assert all(same)


def test_all_methods_of_both_services_are_called_in_every_way() -> None:
    """Those of the services' descriptions, so that a new one is called as well."""
    services = (mpb.DESCRIPTOR.services_by_name["Metadata"],
                spb.DESCRIPTOR.services_by_name["Shuffle"])  # fmt: skip
    every = {method.name for service in services for method in service.methods}
    assert set(METHODS) == every
    calls = sent(1)
    assert {call.method for call in calls} == every
    for call in calls:
        is_of_daemon = call.daemon is not None
        assert is_of_daemon == (call.method in SHUFFLE_METHODS)
    assert {call.ending for call in calls} == set(Ending)


def test_messages_parse_and_do_not() -> None:
    parsed = Counter[bool]()
    for call in sent(1):
        for message in call.messages:
            try:
                METHODS[call.method].FromString(message)
                parsed[True] += 1
            except DecodeError:
                parsed[False] += 1
    assert min(parsed.values()) > COUNT // 10


def test_what_would_harm_the_honest_job_by_being_valid_is_not_sent() -> None:
    """Whatever the mutations are: nothing ends it, commits to it, or speaks for its daemons."""
    harming = {"Commit", "CommitBatch", "ReportLoss", "FixRowKind", "CloseGroup", "Heartbeat",
               "DrainDaemon", "ForgetStore", "ReleaseExchanges", "ReportUncommitted"}  # fmt: skip
    real = {value for one in DAEMONS for value in (one.address, one.incarnation, one.store_id)}
    seen = Counter[str]()
    for call in [one for seed in range(3) for one in sent(seed) if one.method in harming]:
        for message in call.messages:
            try:
                found = list(fields(METHODS[call.method].FromString(message)))
            except DecodeError:
                continue
            seen[call.method] += 1
            values = {value for _, value in found}
            assert not values & real
            assert not any(isinstance(v, str) and v.startswith(HONEST) for v in values)
            assert not any(name == "number" and value == 5 for name, value in found)
    assert set(seen) == harming


@pytest.mark.parametrize(
    ("method", "message", "may"),
    [
        ("CloseExchange", mpb.CloseExchangeRequest(shuffle_id=f"{HONEST}0"), False),
        ("CloseExchange", mpb.CloseExchangeRequest(shuffle_id=f"{HONEST}0", owner=b"x"), True),
        ("CloseExchange", mpb.CloseExchangeRequest(shuffle_id="fuzz-1"), True),
        ("CloseGroup", mpb.CloseGroupRequest(group_id=f"{HONEST}group-1"), False),
        ("Progress", mpb.ProgressRequest(number=5), True),
        ("Commit", mpb.CommitRequest(number=5), False),
        ("Commit", mpb.CommitRequest(number=6), True),
        ("CommitBatch", mpb.CommitBatchRequest(commits=[{"number": 6}, {"number": 5}]), False),
        ("DescribeExchange", mpb.DescribeExchangeRequest(shuffle_id=f"{HONEST}0"), True),
        ("DescribeExchange",
         mpb.DescribeExchangeRequest(shuffle_id=f"{HONEST}0", owner=b"x"), False),
        ("Heartbeat", mpb.HeartbeatRequest(incarnation=2**62 + 1), False),
        ("Heartbeat", mpb.HeartbeatRequest(incarnation=3), True),
        ("DrainDaemon", mpb.DrainDaemonRequest(daemon="127.0.0.1:4001"), False),
        ("UndrainDaemon", mpb.UndrainDaemonRequest(daemon="127.0.0.1:4001"), True),
        ("UndrainDaemon", mpb.UndrainDaemonRequest(daemon="127.0.0.1:9"), False),
        ("UndrainDaemon", mpb.UndrainDaemonRequest(daemon="nobody"), True),
        ("ForgetStore", mpb.ForgetStoreRequest(store_id="s2"), False),
        ("RegisterDaemon", mpb.RegisterDaemonRequest(address="127.0.0.1:9"), False),
        ("RegisterDaemon",
         mpb.RegisterDaemonRequest(address="127.0.0.1:9", draining=True), True),
        ("RegisterDaemon",
         mpb.RegisterDaemonRequest(address="27.0.0.1:9", draining=True), False),
        ("ReportDaemon", mpb.ReportDaemonRequest(daemon={"address": "example.org:80"}), False),
        ("ReportDaemon",
         mpb.ReportDaemonRequest(daemon={"incarnation": 2**62 + 1}, insist=True), False),
        ("Seal", spb.SealRequest(incarnation=2**62 + 1, keys=[{"number": 5}]), False),
        ("Seal", spb.SealRequest(incarnation=2**62 + 1, keys=[{"number": 2}]), True),
        ("Push", spb.PushRequest(hello={"number": 5, "mapper": 1}), False),
        ("Push", spb.PushRequest(hello={"number": 5, "mapper": NOBODYS_MAPPERS}), True),
        ("Push", spb.PushRequest(hello={"primary": 2**62 + 3}), False),
    ],
)  # fmt: skip
def test_what_may_be_sent(method: str, message: object, may: bool) -> None:
    assert isinstance(message, METHODS[method])
    data = message.SerializeToString()
    assert is_harmless(method, METHODS[method], data, NAMES) == may


def test_a_method_that_is_new_may_name_nothing_of_the_honest_job() -> None:
    kind = mpb.ProgressRequest
    data = kind(number=5).SerializeToString()
    assert not is_harmless("OfTomorrow", kind, data, NAMES)
    assert is_harmless("OfTomorrow", kind, kind(number=6).SerializeToString(), NAMES)


def test_commits_have_sums_that_go_together() -> None:
    """Of those that were not changed: the service can take them."""
    taken = 0
    for call in sent(1):
        if call.method == "Commit" and call.messages:
            try:
                request = mpb.CommitRequest.FromString(call.messages[0])
                taken += bool(wire.from_pb(CommitRequest, request).sums.rows.size)
            except (DecodeError, InvalidArgument):
                continue
    assert taken > 20
