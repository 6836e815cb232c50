"""Sessions: what a browser shows in the place of a token.

A page cannot put a token into a request for server-sent events, and should not keep one where
scripts can read it. So it gives the token once and has a cookie from then on, which only the
service can turn into the token again. What a token may not do any more its sessions may not either,
as each request is decided by the token.
"""

from __future__ import annotations

import secrets
from collections import Counter, OrderedDict
from dataclasses import dataclass, field
from http.cookies import CookieError, SimpleCookie
from typing import Final

MAX_SESSIONS: Final = 1024
#: Sessions of one token.
MAX_OF_ONE: Final = 16
#: How long a session lasts.
SESSION_S: Final = 8 * 3600.0
_ID_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class _Session:
    credential: str = field(repr=False)
    until: float


class Sessions:
    """The sessions there are, the oldest first. Times are of one clock."""

    def __init__(self, max_sessions: int = MAX_SESSIONS, max_of_one: int = MAX_OF_ONE) -> None:
        self._max_sessions = max_sessions
        self._max_of_one = max_of_one
        self._open: OrderedDict[str, _Session] = OrderedDict()
        self._of: Counter[str] = Counter()

    def __len__(self) -> int:
        """Return how many there are, those included that are over and were not asked for since."""
        return len(self._open)

    def begin(self, credential: str, now: float) -> str:
        """Return the id of a new session, which nobody can guess.

        The oldest one of the same token gives way if that has as many as it may, and else, if there
        are too many, the oldest one of the token that has most.
        """
        self._forget_old(now)
        if self._of[credential] >= self._max_of_one:
            self._end_oldest(credential)
        elif len(self._open) >= self._max_sessions:
            self._end_oldest(self._of.most_common(1)[0][0])
        session_id = secrets.token_urlsafe(_ID_BYTES)
        self._open[session_id] = _Session(credential, now + SESSION_S)
        self._of[credential] += 1
        return session_id

    def credential(self, session_id: str, now: float) -> str:
        """Return the token of a session; empty if there is none, or none any more."""
        session = self._open.get(session_id)
        if session is None:
            return ""
        if session.until <= now:
            self.end(session_id)
            return ""
        return session.credential

    def end(self, session_id: str) -> None:
        """End a session; harmless if there is none."""
        session = self._open.pop(session_id, None)
        if session is not None:
            self._of[session.credential] -= 1
            if not self._of[session.credential]:
                del self._of[session.credential]

    def _forget_old(self, now: float) -> None:
        while self._open:
            session_id, session = next(iter(self._open.items()))
            if session.until > now:
                return
            self.end(session_id)

    def _end_oldest(self, credential: str) -> None:
        self.end(next(i for i, one in self._open.items() if one.credential == credential))


def cookie_name(*, is_secure: bool) -> str:
    """Return what the cookie is called. With TLS a browser takes it from nobody but this host."""
    return "__Host-cosco_session" if is_secure else "cosco_session"


def session_in(cookies: str | None, *, is_secure: bool) -> str:
    """Return the id of the session in a header `Cookie`; empty if there is none."""
    try:
        found = SimpleCookie(cookies or "").get(cookie_name(is_secure=is_secure))
    except CookieError:
        return ""
    return found.value if found is not None else ""


def set_cookie(session_id: str, *, is_secure: bool) -> str:
    """Return the header `Set-Cookie` that begins a session; an empty id ends it."""
    age_s = int(SESSION_S) if session_id else 0
    secure = "; Secure" if is_secure else ""
    return (
        f"{cookie_name(is_secure=is_secure)}={session_id}; Path=/; Max-Age={age_s}; HttpOnly; "
        f"SameSite=Strict{secure}"
    )
