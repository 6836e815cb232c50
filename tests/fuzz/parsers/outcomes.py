"""How parsers may end, and that two which do the same end alike."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from cosco.errors import CoscoError


class Outcome(NamedTuple):
    """What a call returned, or why it refused what it was given."""

    value: Any = None
    refusal: str = ""


def outcome(
    refusals: type[CoscoError] | tuple[type[CoscoError], ...],
    call: Callable[..., Any],
    *arguments: Any,
) -> Outcome:
    """Return how a call ended, where it may raise `refusals`; whatever else it raises goes on."""
    try:
        return Outcome(call(*arguments))
    except refusals as error:
        return Outcome(refusal=f"{type(error).__name__}: {error}")


def must(holds: bool, what: str) -> None:
    """Raise AssertionError unless something holds, also where assertions are left out."""
    if not holds:
        raise AssertionError(what)


def must_agree(one: object, other: object, what: str) -> None:
    """Raise AssertionError unless both are the same; `what` says of what they are."""
    if one != other:
        raise AssertionError(f"{what}: {one!r} and {other!r}")
