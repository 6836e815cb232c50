"""Which protocol this build speaks, and which it understands: the number in every hello.

A field that is new to a message needs no new number: who does not know it leaves it out, or does
not look at it. A new meaning does. It comes in two steps, so that builds one apart work together
in either order of upgrades: one build understands the new number besides and still speaks the
old one, and the next speaks it.
"""

from __future__ import annotations

from typing import Final

from cosco.errors import IncompatibleVersion

#: What this build says of itself.
PROTOCOL: Final = 2
#: What peers of this build may speak.
UNDERSTOOD: Final = range(2, 3)
#: What builds spoke that did not say so but in pushes.
_UNTOLD: Final = 2


def check_protocol(said: int, peer: str) -> None:
    """Raise IncompatibleVersion unless this build understands what a peer has said that it speaks.

    said: 0 if it did not say. peer: what it is, as "a daemon".
    """
    spoken = said or _UNTOLD
    if spoken not in UNDERSTOOD:
        older = "that one" if spoken < UNDERSTOOD.start else "this one"
        first, last = UNDERSTOOD[0], UNDERSTOOD[-1]
        known = f"{first}" if first == last else f"{first} to {last}"
        raise IncompatibleVersion(
            f"{peer} speaks protocol {spoken}, this build understands {known}: upgrade {older}, "
            "one minor version at a time"
        )
