"""See to it that there is a Chromium for the tests of the dashboard: `make web`.

    python tools/install_chromium.py

One that is on the PATH is used. Else Debian's package is installed, where this may be done; nothing
is downloaded from elsewhere. Where there is none in the end that is said, and is no failure: those
tests cannot run on this machine.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from typing import Final

#: Also of tests/support/browsing.py.
NAMES: Final = ("chromium", "chromium-browser", "google-chrome")
#: Some indexes are large, and some mirrors slow.
_TIMEOUT_S: Final = 600.0
_TAIL_LINES: Final = 4
_REFUSAL: Final = "the dashboard is not tested in a browser"


def found(which: Callable[[str], str | None] = shutil.which) -> str | None:
    """Return the path of a Chromium; None: there is none on the PATH."""
    return next(filter(None, map(which, NAMES)), None)


def why_not(*, is_root: bool, has_apt: bool) -> str | None:
    """Return why none can be installed, and what to do; None: it can."""
    if not has_apt:
        return f"{_REFUSAL}: install Chromium or Chrome so that it is on the PATH"
    if not is_root:
        return f"{_REFUSAL}: install Chromium, on Debian by `apt-get install chromium` as root"
    return None


def install() -> str | None:
    """Install Debian's package; return why that has failed."""
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    commands = (
        ("apt-get", "update", "--quiet"),
        ("apt-get", "install", "--quiet", "--yes", "--no-install-recommends", "chromium"),
    )
    for command in commands:
        done = subprocess.run(
            command, env=environment, timeout=_TIMEOUT_S, check=False, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        if done.returncode:
            tail = "\n".join(done.stdout.splitlines()[-_TAIL_LINES:])
            return f"{_REFUSAL}: {' '.join(command)} failed:\n{tail}"
    return None


def main() -> int:
    """Install one if there is none, or say why not.

    Returns: the exit code.
    """
    if found() is None:
        has_apt = shutil.which("apt-get") is not None
        said = why_not(is_root=os.geteuid() == 0, has_apt=has_apt) or install()
        if said is not None:
            print(said)
    return 0


if __name__ == "__main__":
    sys.exit(main())
