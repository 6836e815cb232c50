"""Where the token of a client comes from: what was given, a file, or what is called for it.

Who reads a log, an error or a pickle must not learn it: none of them ever has any part of a token.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from cosco.errors import AccessDenied, InvalidArgument
from cosco.process.files.watched_file import WatchedFile
from cosco.protocol.peer import MAX_CREDENTIAL_CHARACTERS, is_credential

#: The environment of a client: the file of its token.
TOKEN_FILE_VARIABLE: Final = "COSCO_TOKEN_FILE"  # noqa: S105  a name
#: How often it is looked at most whether a file has changed.
LOOK_S: Final = 1.0
#: How long a token is used that came of a call.
CALL_S: Final = 3.0
#: Files that a process remembers.
_MAX_KNOWN: Final = 64

#: Returns the credential of the next call; it raises AccessDenied where there is none to be had.
Credential = Callable[[], str]


def checked_token(token: object, what: str) -> str:
    """Return a token without the blanks around it. what: says whose it is, in an error.

    Raises: InvalidArgument.
    """
    text = token.strip() if isinstance(token, str) else ""
    if not is_credential(text):
        raise InvalidArgument(
            f"{what} is no token: it must be 1 to {MAX_CREDENTIAL_CHARACTERS} printable characters "
            "of ASCII, without blanks"
        )
    return text


class GivenCredential:
    """A token or a capability that was given as a text, which its `repr` does not show."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def __call__(self) -> str:
        return self._text


class TokenFile:
    """A token in a file, which is read again when that changes. Used by any thread."""

    def __init__(self, path: str, clock: Callable[[], float] = time.monotonic) -> None:
        """Read the file. Raises: InvalidArgument if that cannot be done, or it has no token."""
        self._file: Final = WatchedFile(path, _parsed, "token file")
        self._clock: Final = clock
        self._looking = threading.Lock()  # never waited for: a forked child may find it taken
        self._looked_at = clock()

    def current(self) -> str:
        """Return the token that the file has, or had when it was sound; it is looked at again if
        that was LOOK_S ago."""
        if self._clock() - self._looked_at >= LOOK_S and self._looking.acquire(blocking=False):
            try:
                self._looked_at = self._clock()
                self._file.look()
            finally:
                self._looking.release()
        return self._file.content

    def in_child(self) -> None:
        """Let a forked process look by itself, whatever a thread of the parent did."""
        self._looking = threading.Lock()


class _TokenFiles:
    """The token files of this process, by their paths."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, TokenFile] = OrderedDict()

    def of(self, path: str) -> TokenFile:
        # Without a lock, which a forked child might find taken.
        known = self._known.get(path)
        if known is None:
            known = self._known.setdefault(path, TokenFile(path))
            if len(self._known) > _MAX_KNOWN:
                with suppress(KeyError):  # another thread was faster
                    self._known.popitem(last=False)
        return known

    def in_child(self) -> None:
        for file in list(self._known.values()):
            file.in_child()


TOKEN_FILES: Final = _TokenFiles()
os.register_at_fork(after_in_child=TOKEN_FILES.in_child)


class CalledToken:
    """A token that is asked for by a call, on the thread that needs it, and used for CALL_S."""

    def __init__(
        self, function: Callable[[], str], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._function: Final = function
        self._clock: Final = clock
        # Who asks has it; others wait, as each call may cost somebody a token. One that may be
        # taken twice, for a signal handler that comes amid the call.
        self._asking = threading.RLock()
        self._last: tuple[float, str] | None = None  # until when, and which
        _CALLED.add(self)

    def __call__(self) -> str:
        """Return the token. Raises: AccessDenied if there is none to be had, with the cause."""
        last = self._last
        if last is None or self._clock() >= last[0]:
            with self._asking:
                last = self._last
                if last is None or self._clock() >= last[0]:
                    last = self._last = (self._clock() + CALL_S, self._asked())
        return last[1]

    def in_child(self) -> None:
        """Let a forked process ask by itself, whatever a thread of the parent did."""
        self._asking = threading.RLock()

    def _asked(self) -> str:
        try:
            token = self._function()
        except Exception as error:
            # What it says may be anything, a token too: the cause says it to who looks there.
            raise AccessDenied(
                f"the token of this client cannot be had: token() raised {type(error).__name__}"
            ) from error
        try:
            return checked_token(token, "what token() returned")
        except InvalidArgument as error:
            raise AccessDenied(str(error)) from None


_CALLED: Final[weakref.WeakSet[CalledToken]] = weakref.WeakSet()


def _in_child() -> None:
    for one in list(_CALLED):
        one.in_child()


os.register_at_fork(after_in_child=_in_child)


def _parsed(content: bytes) -> str:
    return checked_token(content.decode("latin-1"), "what it has")
