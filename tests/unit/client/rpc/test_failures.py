"""What a failed call means: to be tried again, or not."""

from __future__ import annotations

import pytest

from cosco.client.rpc.failures import End, failure
from cosco.client.rpc.scope import Unreachable
from cosco.errors import ServiceUnavailable


@pytest.mark.parametrize(
    ("code", "details"),
    [
        ("UNAVAILABLE", "the server ends"),
        ("DEADLINE_EXCEEDED", ""),
        ("RESOURCE_EXHAUSTED", "Concurrent RPC limit exceeded!"),
    ],
)
def test_what_passes_is_tried_again(code: str, details: str) -> None:
    assert isinstance(failure(End(code, details, ()), "Commit at a:1", "x"), Unreachable)


@pytest.mark.parametrize(
    ("code", "details"),
    [
        ("RESOURCE_EXHAUSTED", "a message of 70000000 bytes, the limit is 67108864"),
        ("INVALID_ARGUMENT", "no message of it"),
        ("INTERNAL", ""),
    ],
)
def test_what_does_not_pass_is_told(code: str, details: str) -> None:
    meant = failure(End(code, details, ()), "Commit at a:1", "x")
    assert isinstance(meant, ServiceUnavailable)
    assert not meant.retriable
    assert code in str(meant)
    assert details in str(meant)
