"""The records of applications; like those of `cosco.protocol.records`, which this adds to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from cosco.protocol.records import RecomputeCall

#: More than that no number has.
_MAX_DIGITS: Final = len(str(1 << 63))


def application_name(label: str, number: int) -> str:
    """Return the id of an application: its label, and what the service numbers it by."""
    return f"{label}-{number}"


def application_number(application_id: str) -> int | None:
    """Return the number that an id names, if it is like one of `application_name`."""
    label, dash, digits = application_id.rpartition("-")
    if not (label and dash and digits.isdecimal() and digits.isascii()):
        return None
    return int(digits) if digits[0] != "0" and len(digits) <= _MAX_DIGITS else None


@dataclass(frozen=True, slots=True)
class ApplicationCall:
    """A loss of the application's exchange `number`, as it is told to the driver."""

    number: int
    call: RecomputeCall


@dataclass(frozen=True, slots=True)
class ApplicationAnswer:
    """How the callback of a loss ended: why it failed, empty if re-runs are arranged."""

    number: int
    loss_id: int
    failure: str = ""
