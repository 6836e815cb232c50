"""Of a flood of warnings one is told, and how many were not."""

from __future__ import annotations

import logging

import pytest

from cosco.process.native_grpc.rare_warnings import TELL_AGAIN_S, RareWarnings


def test_one_of_a_kind_is_told_in_a_while_with_how_many_were_not(
    caplog: pytest.LogCaptureFixture,
) -> None:
    warnings = RareWarnings(logging.getLogger("test"))
    for moment in (0.0, 1.0, TELL_AGAIN_S - 0.1, TELL_AGAIN_S):
        warnings.tell("flood", moment, "by %s", moment)
    warnings.tell("other", 1.0, "%s", "other")
    assert [record.getMessage() for record in caplog.records] == [
        "by 0.0",
        f"by {TELL_AGAIN_S} (and 2 times since this was told last)",
        "other",
    ]
    assert (warnings.untold("flood"), warnings.untold("never")) == (0, 0)
    warnings.tell("flood", TELL_AGAIN_S + 1, "by %s", 1)
    assert warnings.untold("flood") == 1
