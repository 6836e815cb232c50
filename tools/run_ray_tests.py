"""Run the tests of Ray, and go on once with the rest if Ray itself has ended the run.

    .engines/ray/bin/python tools/run_ray_tests.py tests/engines/ray

Where a process of Ray's own dies (the raylet, its store of the cluster, an agent), Ray ends the
process of the driver at once: no summary, no traceback, exit code 1. That says nothing of Cosco,
which is no part of those processes, so what they wrote last is shown, and the tests that had not
passed run once more. A test that fails is a failure, and is not run again.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

#: Where tests/engines/ray/conftest.py notes what has passed, and that the run came to its end.
NOTES: Final = "COSCO_RAY_TESTS"
ENDED: Final = "ended"
_TRIES: Final = 2
_LOGS: Final = (
    "raylet.out",
    "raylet.err",
    "gcs_server.out",
    "gcs_server.err",
    "dashboard_agent.log",
)
_TAIL_LINES: Final = 15


def last_words(logs: Path) -> str:
    """Return the ends of the logs of Ray's own processes."""
    told = []
    for name in _LOGS:
        path = logs / name
        if path.is_file():
            lines = path.read_text(errors="replace").splitlines()[-_TAIL_LINES:]
            told += [f"--- the end of {name}", *lines]
    return "\n".join(told)


def main(arguments: list[str]) -> int:
    """Run pytest with `arguments`.

    Returns: its exit code.
    """
    code = 0
    with tempfile.TemporaryDirectory() as folder:
        notes = Path(folder, "passed")
        for left in reversed(range(_TRIES)):
            code = subprocess.run(
                [sys.executable, "-m", "pytest", *arguments],
                env=os.environ | {NOTES: str(notes)},
                check=False,
            ).returncode
            noted = notes.read_text().splitlines() if notes.exists() else []
            if ENDED in noted or not left:
                break
            print(f"\nRay ended the run after {len(noted)} tests, with exit code {code}")
            print(last_words(Path(tempfile.gettempdir(), "ray", "session_latest", "logs")))
            print("the others run once more", flush=True)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
