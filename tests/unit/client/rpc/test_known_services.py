"""What a process remembers of addresses, and how much of it."""

from __future__ import annotations

import os

from cosco.client.rpc.known_services import MAX_ADDRESSES, KnownServices

HERE = "127.0.0.1:7070"


def test_what_answered_is_met_until_it_is_ended() -> None:
    services = KnownServices()
    assert not services.has_met(HERE)
    services.meet(HERE)
    assert services.has_met(HERE)
    services.end(HERE)
    assert services.has_ended(HERE)
    assert not services.has_met(HERE)


def test_another_service_at_the_address_of_an_ended_one_is_met_anew() -> None:
    services = KnownServices()
    services.end(HERE)
    services.meet(HERE)
    assert services.has_met(HERE)
    assert not services.has_ended(HERE)
    services.end(HERE)
    services.begin(HERE)  # it may be there again, and has not answered
    assert not services.has_met(HERE)
    assert not services.has_ended(HERE)


def test_one_that_others_vouch_for_is_met_unless_it_was_ended_here() -> None:
    services = KnownServices()
    services.vouch_for(HERE)
    assert services.has_met(HERE)
    services.end(HERE)
    services.vouch_for(HERE)
    assert not services.has_met(HERE)
    assert services.has_ended(HERE)


def test_the_last_addresses_are_remembered() -> None:
    services = KnownServices()
    for port in range(MAX_ADDRESSES + 2):
        services.meet(f"h:{port}")
        services.end(f"g:{port}")
    for port, is_known in ((0, False), (1, False), (2, True), (MAX_ADDRESSES + 1, True)):
        assert services.has_met(f"h:{port}") is is_known
        assert services.has_ended(f"g:{port}") is is_known


def test_a_forked_child_knows_what_its_parent_knew() -> None:
    services = KnownServices()
    services.meet(HERE)
    pid = os.fork()
    if not pid:
        os._exit(0 if services.has_met(HERE) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
