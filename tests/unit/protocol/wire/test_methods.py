"""Hellos to the metadata service say a protocol, and are refused by it."""

from __future__ import annotations

import pytest

from cosco.errors import IncompatibleVersion
from cosco.protocol import wire
from cosco.protocol.version import PROTOCOL, UNDERSTOOD
from cosco.protocol.wire import mpb

HELLOS = [
    "RegisterDaemon",
    "CreateExchange",
    "DescribeExchange",
    "OpenAttempt",
    "CreateGroup",
    "CreateApplication",
    "Status",
]


@pytest.mark.parametrize("method", HELLOS)
def test_a_hello_says_what_this_build_speaks(method: str) -> None:
    request_type, _ = wire.METADATA_METHODS[method]
    request = request_type()
    wire.say_protocol(method, request)
    assert request.protocol == PROTOCOL
    assert wire.request_parser(method)(request.SerializeToString()) == request


@pytest.mark.parametrize("method", HELLOS)
def test_one_that_is_not_understood_is_refused(method: str) -> None:
    request_type, _ = wire.METADATA_METHODS[method]
    told = request_type(protocol=UNDERSTOOD.stop).SerializeToString()
    who = "a daemon" if method == "RegisterDaemon" else "a client"
    with pytest.raises(IncompatibleVersion, match=f"{who} speaks protocol {UNDERSTOOD.stop}"):
        wire.request_parser(method)(told)


def test_what_begins_nothing_says_nothing() -> None:
    request = mpb.CommitRequest(number=7)
    assert wire.say_protocol("Commit", request) is request
    assert request == mpb.CommitRequest(number=7)
    assert wire.request_parser("Commit")(request.SerializeToString()) == request
