"""A file whose content is used for long, and read again when it changes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final, Generic, TypeVar

from cosco.errors import InvalidArgument
from cosco.process.files.whole_files import Seen, look_at, read_at_most

log = logging.getLogger(__name__)

T = TypeVar("T")
#: How often it is to be looked whether a file has changed.
LOOK_S: Final = 1.0
_MAX_BYTES: Final = 4 << 20


class WatchedFile(Generic[T]):
    """What a file says. One thread looks at a time, and any may ask for `content`."""

    def __init__(self, path: str, parse: Callable[[bytes], T], what: str) -> None:
        """Read the file.

        parse: makes of its bytes what they say, and raises InvalidArgument, in which the path is
        not, if they say nothing. what: the kind of file, for the log.

        Raises: InvalidArgument if it cannot be read, is too long, or says nothing.
        """
        self._path: Final = path
        self._parse: Final = parse
        self._what: Final = what
        #: What has been said of a change that cannot be taken up.
        self._doubt = ""
        self._seen: Seen = look_at(path)
        self._content = self._read()

    @property
    def content(self) -> T:
        """What the file said when it was read last and was sound; nothing is read."""
        return self._content

    def look(self) -> bool:
        """Read the file again if it has changed; one that is broken or gone changes nothing.

        Returns: whether something new is taken up.
        """
        try:
            now = look_at(self._path)
            if now == self._seen:
                self._doubt = ""
                return False
            content = self._read()
            if look_at(self._path) != now:  # it goes on changing
                return False
        except InvalidArgument as error:
            if str(error) != self._doubt:
                self._doubt = str(error)
                log.warning("the %s in use stays as it was: %s", self._what, error)
            return False
        self._seen, self._content, self._doubt = now, content, ""
        log.info("a new %s is taken up: %s", self._what, self._path)
        return True

    async def watch(self) -> None:
        """Look again and again, in a thread, until this is cancelled."""
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                await asyncio.to_thread(self.look)
            except RuntimeError as error:  # the host has no more threads for now
                log.warning("it cannot be looked whether %s has changed: %s", self._path, error)

    def _read(self) -> T:
        content = read_at_most(self._path, _MAX_BYTES + 1)
        if len(content) > _MAX_BYTES:
            raise InvalidArgument(f"{self._path!r} is longer than any {self._what}")
        try:
            return self._parse(content)
        except InvalidArgument as error:
            raise InvalidArgument(f"{self._path!r} is no {self._what}: {error}") from None

    def __repr__(self) -> str:
        return f"WatchedFile({self._path!r})"
