"""What a handle is limited to, and what is told to who wants more of it."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import numpy as np
import pytest

from cosco.client.handle_rights import check_may, handle_limits
from cosco.errors import AccessDenied, InvalidArgument
from cosco.protocol.capability import MAX_LIVES_S, CapabilityKey, Limits, Permit, Rights, made

BOTH = Rights.READ | Rights.WRITE


@pytest.mark.parametrize(
    ("may", "lives_s", "limits"),
    [
        (None, None, None),
        ("read", None, Limits(Rights.READ)),
        ("write", 3, Limits(Rights.WRITE, 3.0)),
        (None, 0.5, Limits(BOTH, 0.5)),
        (None, np.float32(2.0), Limits(BOTH, 2.0)),
        (None, Decimal(MAX_LIVES_S), Limits(BOTH, MAX_LIVES_S)),
    ],
)
def test_what_is_asked_for(may: Any, lives_s: Any, limits: Limits | None) -> None:
    assert handle_limits(may, lives_s, "x") == limits
    if limits is not None:
        limits.check()


@pytest.mark.parametrize(
    ("may", "lives_s", "names"),
    [
        *((may, None, "may is") for may in ("own", "", "READ", "readwrite", 1, True, [], b"read")),
        *(
            (None, lives_s, "lives_s is")
            for lives_s in (0, -1, 1e-400, float("nan"), float("inf"), MAX_LIVES_S + 1, "1", True)
        ),
    ],
)
def test_what_cannot_be_asked_for(may: Any, lives_s: Any, names: str) -> None:
    with pytest.raises(InvalidArgument, match=names) as caught:
        handle_limits(may, lives_s, "x")
    assert caught.value.shuffle_id == "x"


def test_who_may_not_is_told_what_to_take() -> None:
    key = CapabilityKey(1, b"k" * 32)
    reading, writing, both, owning = (
        made(key, Permit(1, 1, rights, 1))
        for rights in (Rights.READ, Rights.WRITE, BOTH, Rights.OWN)
    )
    for capability in (reading, both, "", "of another service"):
        check_may(capability, "read", "x")
    for capability in (writing, both, "", "of another service"):
        check_may(capability, "write", "x")
    with pytest.raises(AccessDenied, match=r"handle of 'x' .* you write: .*handle\(may='write'\)"):
        check_may(reading, "write", "x")
    for capability in (writing, owning):
        with pytest.raises(AccessDenied, match="does not let you read"):
            check_may(capability, "read", "x")
