"""Who is refused for the protocol that he speaks, and what he is told."""

from __future__ import annotations

import pytest

from cosco.errors import IncompatibleVersion
from cosco.protocol import version
from cosco.protocol.version import PROTOCOL, UNDERSTOOD, check_protocol


def test_this_build_understands_itself_and_what_does_not_say() -> None:
    assert PROTOCOL in UNDERSTOOD
    check_protocol(PROTOCOL, "a daemon")
    check_protocol(0, "a daemon")


@pytest.mark.parametrize(
    ("understood", "said", "told"),
    [
        (range(2, 3), 1, "a daemon speaks protocol 1, this build understands 2: upgrade that one"),
        (range(2, 3), 3, "a daemon speaks protocol 3, this build understands 2: upgrade this one"),
        (range(2, 4), 4, "protocol 4, this build understands 2 to 3: upgrade this one"),
        (range(3, 5), 0, "protocol 2, this build understands 3 to 4: upgrade that one"),
        (range(2, 3), 2**32 - 1, "protocol 4294967295"),
    ],
)
def test_who_is_too_far_is_told_which_one_to_upgrade(
    understood: range, said: int, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(version, "UNDERSTOOD", understood)
    with pytest.raises(IncompatibleVersion, match=told) as caught:
        check_protocol(said, "a daemon")
    assert not caught.value.retriable


@pytest.mark.parametrize("said", [2, 3])
def test_a_build_between_two_understands_both(said: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(version, "UNDERSTOOD", range(2, 4))
    check_protocol(said, "a client")
