"""Waits until nothing is left of an exchange."""

from __future__ import annotations

import time
from typing import Final

from cosco.errors import ServiceUnavailable
from cosco.observe import fetch_status

_TIMEOUT_S: Final = 120.0
_POLL_S: Final = 0.02


def wait_until_deleted(metadata: str, shuffle_id: str) -> None:
    """Until a closed exchange's files are gone, whose deletion would be on the next one's clock.

    Raises ServiceUnavailable after two minutes.
    """
    deadline = time.monotonic() + _TIMEOUT_S
    while any(e.shuffle_id == shuffle_id for e in fetch_status(metadata).exchanges):
        if time.monotonic() > deadline:
            raise ServiceUnavailable(
                f"the files of {shuffle_id} are still there after {_TIMEOUT_S:g} s"
            )
        time.sleep(_POLL_S)  # nobody is told when a closed exchange is gone
