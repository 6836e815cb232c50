"""The file of tokens: read by the metadata service, changed by `cosco token`."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from cosco.errors import AccessDenied, InvalidArgument
from cosco.metadata.access.token_records import (
    TokenRecord,
    name_in,
    name_of_line,
    parse_records,
)
from cosco.process.files.watched_file import WatchedFile
from cosco.process.files.whole_files import read_at_most, reason, write_whole
from cosco.protocol.peer import Principal

_KIND: Final = "file of tokens"
_HEAD: Final = "# Tokens of cosco, one a line, by `cosco token`: without the line it is refused.\n"


class TokenFile:
    """Which tokens are good, by a file that may change. Asking it reads nothing."""

    def __init__(self, path: str, now_s: Callable[[], float] = time.time) -> None:
        """Read the file. now_s: the Unix clock.

        Raises: InvalidArgument if it cannot be read, or is no such file.
        """
        if not Path(path).exists():
            raise InvalidArgument(
                f"--tokens {path} does not exist: cosco token create --tokens {path} makes it"
            )
        self._file = WatchedFile(path, parse_records, _KIND)
        self._now_s = now_s

    def known(self, token: str) -> Principal | None:
        """Return whom a token stands for; None: it is refused."""
        record = self._record(token)
        if record is None or record.has_expired(self._now_s()):
            return None
        return record.principal

    async def principal(self, token: str) -> Principal:
        """Return whom a token stands for; raises AccessDenied."""
        record = self._record(token)
        if record is None:
            raise AccessDenied(
                "the token is unknown here, or was revoked: an operator makes one with "
                "`cosco token create`"
            )
        if record.has_expired(self._now_s()):
            raise AccessDenied(
                f"the token {record.principal.name} has expired: an operator makes a new one with "
                "`cosco token create`"
            )
        return record.principal

    async def watch(self) -> None:
        """Take up what changes, until this is cancelled."""
        await self._file.watch()

    def _record(self, token: str) -> TokenRecord | None:
        record = self._file.content.get(name_in(token))
        return record if record is not None and record.is_of(token) else None


def read_records(path: Path) -> dict[str, TokenRecord]:
    """Return what a file has, by names; raises InvalidArgument if it cannot be read or is none."""
    return WatchedFile(str(path), parse_records, _KIND).content


def add_record(path: Path, record: TokenRecord) -> None:
    """Add a token to a file, which is made if it is missing, for its owner alone.

    Raises: InvalidArgument if there is one of that name, or the file cannot be read or written.
    """
    name = record.principal.name
    with _changing(path) as resolved:
        if resolved.exists():
            if name in read_records(resolved):
                raise InvalidArgument(
                    f"{path} has a token {name} already: take another name, or revoke that one"
                )
            before = _text(resolved)
        else:
            before = _HEAD
        _write(resolved, before.rstrip("\n") + "\n" + record.line() + "\n")


def remove_record(path: Path, name: str) -> None:
    """Take a token out of a file.

    Raises: InvalidArgument if it has none of that name, or cannot be read or written.
    """
    with _changing(path) as resolved:
        if name not in read_records(resolved):
            raise InvalidArgument(f"{path} has no token of that name: `cosco token list` shows all")
        lines = [line for line in _text(resolved).splitlines() if name_of_line(line) != name]
        # Without a line at all the file would count as broken.
        _write(resolved, "\n".join(lines or [_HEAD.rstrip("\n")]) + "\n")


@contextmanager
def _changing(path: Path) -> Iterator[Path]:
    """Keep others from changing a file of tokens; gives its path without links.

    The lock is a file beside it: the file itself is another one after each change.
    """
    try:
        resolved = path.resolve()
        lock = resolved.with_name(f".{resolved.name}.lock")
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            if os.geteuid() == 0 and resolved.exists():
                # Root may have made the lock; whose file it is must be able to take it, too.
                owner = resolved.stat()
                os.fchown(descriptor, owner.st_uid, owner.st_gid)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield resolved
        finally:
            os.close(descriptor)
    except OSError as error:
        raise InvalidArgument(f"{path} cannot be changed: {reason(error)}") from None


def _text(path: Path) -> str:
    return read_at_most(str(path), path.stat().st_size).decode()


def _write(path: Path, text: str) -> None:
    content = text.encode()
    parse_records(content)
    write_whole(path, content, 0o600)
