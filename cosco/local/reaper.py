"""Clears up after a LocalCluster whose process ended without closing it, by SIGKILL say.

`start` runs it as a script of its own, from the standard library alone so that it is there in
milliseconds, before the first service is. It waits until its parent is another: no pipe would
tell, as forked children of the cluster's process keep its ends open. Then it kills every process
that has the cluster's token in its environment, which also finds one that was being started at
that moment, and removes the directory.

Arguments: the parent's pid, the token's environment entry, and the directories to remove:
one with all that is in it, and perhaps another if that leaves it empty.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

_WATCH_S: Final = 0.2
_ROUND_S: Final = 0.1
#: Rounds without a trace of the cluster after which it is gone.
_QUIET_ROUNDS: Final = 3
_GIVE_UP_S: Final = 30.0


def start(token: str, directory: str, *emptied: str) -> subprocess.Popen[bytes]:
    """Have a reaper watch this process. To end it before that: kill it."""
    return subprocess.Popen(  # noqa: S603 - our own command
        # -I -S: it needs nothing but the standard library, and soon.
        [sys.executable, "-I", "-S", __file__, str(os.getpid()), token, directory, *emptied],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )


def has_token(pid: int, token: str) -> bool:
    """Whether a process was started with the environment entry `token`."""
    try:
        return token.encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:  # it ended, or is another user's
        return False


def kill_marked(token: str) -> bool:
    """Kill all processes that have the token; return whether there were any."""
    marked = [int(p.name) for p in Path("/proc").iterdir() if p.name.isdigit()]
    marked = [pid for pid in marked if has_token(pid, token)]
    for pid in marked:
        with suppress(ProcessLookupError):
            handle = os.pidfd_open(pid)
            try:
                if has_token(pid, token):  # still the same process, now that it is held
                    signal.pidfd_send_signal(handle, signal.SIGKILL)
            finally:
                os.close(handle)
    return bool(marked)


def clear_up(token: str, directory: str) -> None:
    """Kill and remove until nothing is left."""
    deadline = time.monotonic() + _GIVE_UP_S
    quiet = 0
    while quiet < _QUIET_ROUNDS and time.monotonic() < deadline:
        found = kill_marked(token)
        shutil.rmtree(directory, ignore_errors=True)
        quiet = 0 if found or Path(directory).exists() else quiet + 1
        time.sleep(_ROUND_S)


def main(parent: int, token: str, directory: str, *emptied: str) -> None:
    """Wait for the end of process `parent`, then clear up."""
    for signum in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(signum, signal.SIG_IGN)  # the cluster's process decides, nobody else
    while os.getppid() == parent:
        time.sleep(_WATCH_S)
    clear_up(token, directory)
    for folder in emptied:
        with suppress(OSError):
            Path(folder).rmdir()


if __name__ == "__main__":
    main(int(sys.argv[1]), *sys.argv[2:])
