"""The files by which a flash knows whose it is: one daemon's at a time, and of one slow tier.

`cosco-store.json` is a JSON object in ASCII: `format` (3), `flash_id`, and `then`, the id of the
store that its segments move on to. It is made by the first daemon that finds the directory
without. `cosco-store.lock` is empty, and locked by the daemon that uses the directory, for as
long as its process lives.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import uuid
from pathlib import Path
from typing import Final

from cosco.dfs.identity import (
    FLASH_FORMAT,
    IDENTITY_FILE,
    create_exclusively,
    parsed_object,
)
from cosco.dfs.paths import RESERVED
from cosco.errors import InvalidArgument

_LOCK: Final = RESERVED + "lock"
_MAX_BYTES: Final = 4096


class FlashClaim:
    """Takes a directory for one daemon, from `take` to `release`."""

    def __init__(self) -> None:
        #: The id of the slow tier, once that is open.
        self.then_id = ""
        self._fd = -1

    def take(self, folder: Path) -> str:
        """Return the id of a flash, which is this daemon's from now on.

        Raises InvalidArgument if another daemon has it, or it is no flash of this store; OSError.
        """
        self._lock(folder)
        try:
            return self._identify(folder)
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        """Let others take it; repeatable."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _lock(self, folder: Path) -> None:
        fd = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(fd)
            if error.errno not in (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES):
                raise
            raise InvalidArgument(
                f"flash {str(folder)!r} is another daemon's, which runs: give each a directory of "
                "its own"
            ) from None
        self._fd = fd

    def _identify(self, folder: Path) -> str:
        path = folder / IDENTITY_FILE
        if not path.exists():
            identity = {"format": FLASH_FORMAT, "flash_id": uuid.uuid4().hex, "then": self.then_id}
            create_exclusively(path, json.dumps(identity) + "\n")
        with path.open("rb") as file:
            found = parsed_object(file.read(_MAX_BYTES))
        flash_id, then_id = found.get("flash_id"), found.get("then")
        if found.get("format") != FLASH_FORMAT or not isinstance(flash_id, str):
            raise InvalidArgument(
                f"flash {str(folder)!r} is a store by itself, or {IDENTITY_FILE} in it is damaged: "
                "give a directory that is empty"
            )
        if then_id != self.then_id:
            raise InvalidArgument(
                f"flash {str(folder)!r} has segments of the store {then_id}, and `then` is "
                f"{self.then_id}: start it once with the former to have them moved, or empty it"
            )
        return flash_id
