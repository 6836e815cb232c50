"""Who somebody is, once a token has said so."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Role(StrEnum):
    """What somebody may do with what is of his tenant; an admin with everything."""

    ADMIN = "admin"
    TENANT = "tenant"
    VIEWER = "viewer"


@dataclass(frozen=True, slots=True)
class Principal:
    """Who calls. name: of the token, for logs. tenant: whose exchanges he makes; 1 to 64 of
    A-Z, a-z, 0-9, `.`, `_`, `-`."""

    name: str
    tenant: str
    role: Role
