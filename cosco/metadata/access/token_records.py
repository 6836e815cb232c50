"""Tokens that `cosco token create` makes, and the lines that a file of them has.

A line is an object of JSON for one token: its name, tenant, role, when it was made, until when it
is good, and the SHA-256 of it. Empty lines, and those that begin with `#`, say nothing.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import hmac
import json
import re
import secrets
from dataclasses import dataclass, field
from typing import Any, Final

from cosco.errors import InvalidArgument
from cosco.protocol.peer import Principal, Role

#: What a token begins with: `cosco-token-NAME.SECRET`.
PREFIX: Final = "cosco-token-"
#: The characters that names of tokens and tenants have.
NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
NAME_RULE: Final = "1 to 64 of A-Z, a-z, 0-9, `.`, `_` and `-`"
_SECRET_BYTES: Final = 32
_FIELDS: Final = frozenset({"name", "tenant", "role", "created", "expires", "sha256"})
#: What stands for 0 as a time.
_NEVER: Final = None
#: The year 10000 of the Unix clock, which cannot be shown.
_TIME_END_S: Final = 253_402_300_800


@dataclass(frozen=True, slots=True)
class TokenRecord:
    """What is kept of a token, from which nobody can make it.

    created_s, expires_s: of the Unix clock; expires_s 0: it does not expire.
    """

    principal: Principal
    created_s: int
    expires_s: int
    sha256: bytes = field(repr=False)

    def is_of(self, token: str) -> bool:
        """Whether this is the record of a token; takes the same time for all that is wrong."""
        return hmac.compare_digest(self.sha256, _hash(token))

    def has_expired(self, now_s: float) -> bool:
        """Whether the token is good no longer."""
        return bool(self.expires_s) and now_s >= self.expires_s

    def line(self) -> str:
        """Return the line of a file that says all this."""
        fields = {
            "name": self.principal.name,
            "tenant": self.principal.tenant,
            "role": self.principal.role.value,
            "created": shown_time(self.created_s),
            "expires": shown_time(self.expires_s) if self.expires_s else _NEVER,
            "sha256": self.sha256.hex(),
        }
        return json.dumps(fields)


def new_token(principal: Principal, created_s: int, expires_s: int) -> tuple[str, TokenRecord]:
    """Return a new random token, and the record of it.

    Raises: InvalidArgument if the name or the tenant is none.
    """
    _check_name("tenant", principal.tenant)
    _check_name("name", principal.name)
    token = f"{PREFIX}{principal.name}.{secrets.token_urlsafe(_SECRET_BYTES)}"
    return token, TokenRecord(principal, created_s, expires_s, _hash(token))


def name_in(token: str) -> str:
    """Return which name a token says it has; empty if it is none of these tokens."""
    name, dot, _ = token.removeprefix(PREFIX).rpartition(".")
    return name if dot and token.startswith(PREFIX) else ""


def parse_records(content: bytes) -> dict[str, TokenRecord]:
    """Return the records of a file's content, by their names.

    Raises: InvalidArgument, with the number of the line, if one is none; also if there is no line
    at all, as a file has while others write it.
    """
    try:
        lines = content.decode().splitlines()
    except UnicodeDecodeError:
        raise InvalidArgument("it is not text") from None
    if not lines:
        raise InvalidArgument("it is empty; `cosco token create` makes one")
    records: dict[str, TokenRecord] = {}
    for number, line in enumerate(lines, 1):
        if name_of_line(line) is None:
            continue
        try:
            record = _parsed(line)
        except (ValueError, TypeError, RecursionError) as error:
            said = str(error) if isinstance(error, InvalidArgument) else "it is no record"
            raise InvalidArgument(f"line {number}: {said}") from None
        if record.principal.name in records:
            raise InvalidArgument(f"line {number}: {record.principal.name} is there twice")
        records[record.principal.name] = record
    return records


def name_of_line(line: str) -> str | None:
    """Return the name in a line of a record, empty if it has none; None for any other line."""
    if not line.strip() or line.lstrip().startswith("#"):
        return None
    try:
        name = json.loads(line)["name"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return ""
    return name if isinstance(name, str) else ""


def shown_time(time_s: int) -> str:
    """Return a time of the Unix clock as people read it: 2027-01-31T12:00:00Z."""
    return dt.datetime.fromtimestamp(time_s, dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _parsed(line: str) -> TokenRecord:
    fields: Any = json.loads(line)
    if not isinstance(fields, dict) or fields.keys() != _FIELDS:
        raise InvalidArgument(f"a record has {', '.join(sorted(_FIELDS))}, and nothing else")
    for name in ("name", "tenant"):
        _check_name(name, fields[name])
    if fields["role"] not in set(Role):
        raise InvalidArgument(f"role is to be one of {', '.join(Role)}")
    sha256 = bytes.fromhex(fields["sha256"])
    if len(sha256) != hashlib.sha256().digest_size:
        raise InvalidArgument("sha256 has not 64 hexadecimal digits")
    return TokenRecord(
        Principal(fields["name"], fields["tenant"], Role(fields["role"])),
        _time("created", fields["created"]),
        0 if fields["expires"] is _NEVER else _time("expires", fields["expires"]),
        sha256,
    )


def _time(name: str, text: str) -> int:
    try:
        time = dt.datetime.fromisoformat(text)
        time_s = int(time.timestamp()) if time.tzinfo is not None else 0
    except (ValueError, OverflowError):
        time_s = 0
    if not 1 <= time_s < _TIME_END_S:
        raise InvalidArgument(f"{name} is no time like 2027-01-31T12:00:00Z")
    return time_s


def _check_name(what: str, name: object) -> None:
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise InvalidArgument(f"the {what} is to be {NAME_RULE}")


def _hash(token: str) -> bytes:
    # A hash that is quick is enough, and so is one without salt: these are not passwords that
    # people choose. Each token has 256 random bits, so nobody can try them all, nor make a list
    # beforehand, and no two are alike.
    return hashlib.sha256(token.encode(errors="surrogatepass")).digest()
