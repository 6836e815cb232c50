"""What a handle may be used for: what its driver asks for, and what is told to who has it."""

from __future__ import annotations

from typing import Final, Literal

from cosco.client.argument_checks import finite_number
from cosco.errors import AccessDenied, InvalidArgument
from cosco.protocol.api_limits import shown, shown_value
from cosco.protocol.capability import MAX_LIVES_S, Limits, Rights, said_by

#: What `may=` of a handle takes; None: to read and to write.
May = Literal["read", "write"]

_RIGHTS: Final[dict[object, Rights]] = {"read": Rights.READ, "write": Rights.WRITE}
_LIVES: Final = f"a number of seconds, more than 0 and at most {MAX_LIVES_S:,} (30 days)"


def handle_limits(may: object, lives_s: object, shuffle_id: str) -> Limits | None:
    """Return what a handle is to be limited to; None: to nothing.

    Raises: InvalidArgument.
    """
    if may is None and lives_s is None:
        return None
    rights = Rights.READ | Rights.WRITE
    if may is not None:
        if not isinstance(may, str) or may not in _RIGHTS:
            raise InvalidArgument(
                f"may is {shown_value(may)}, it must be 'read', 'write', or None for both",
                shuffle_id=shuffle_id,
            )
        rights = _RIGHTS[may]
    if lives_s is None:
        return Limits(rights)
    seconds = finite_number("lives_s", lives_s, _LIVES, shuffle_id)
    if not 0 < seconds <= MAX_LIVES_S:
        raise InvalidArgument(
            f"lives_s is {shown_value(lives_s)}, it must be {_LIVES}; without it a handle lives as "
            "long as its exchange",
            shuffle_id=shuffle_id,
        )
    return Limits(rights, seconds)


def check_may(capability: str, may: May, shuffle_id: str) -> None:
    """Raise AccessDenied for what a handle does not allow, which the services would refuse later.

    capability: of the handle; empty: it allows everything.
    """
    permit = said_by(capability) if capability else None
    if permit is not None and not permit.rights & _RIGHTS[may]:
        raise AccessDenied(
            f"this handle of {shown(shuffle_id)} does not let you {may}: take one from the driver "
            f"that does, by handle(may={may!r}) or handle()",
            shuffle_id=shuffle_id,
        )
