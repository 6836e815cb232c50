"""Bring the build before the present one from the history of the repository: `make versions`.

    python tools/other_version.py FOLDER

Its package goes to FOLDER, for tests/versions. It needs what the present one does, so it runs in
the same environment. Where the history is not there, as in an archive, that is said, and is no
failure: those tests cannot run.
"""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Final

#: The last commit before hellos of all kinds said a protocol, and before the HTTP interface.
COMMIT: Final = "8acfff30f800ab57582e224112d2f1f963a94144"
_ROOT: Final = Path(__file__).parents[1]


def package_of(commit: str, root: Path = _ROOT) -> bytes | None:
    """Return the package as a commit has it, as an archive; None: it is not in the history."""
    try:
        done = subprocess.run(
            ["git", "-C", str(root), "archive", "--format=tar", commit, "cosco"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            check=False,
        )
    except FileNotFoundError:  # no git
        return None
    return done.stdout if done.returncode == 0 else None


def main(folder: Path) -> None:
    """Put it there, unless this very build is there, whole."""
    told = folder / "COMMIT"
    if told.is_file() and told.read_text() == COMMIT:
        return
    shutil.rmtree(folder, ignore_errors=True)
    archive = package_of(COMMIT)
    if archive is None:
        print(
            f"the build before this one is not tested beside it: commit {COMMIT[:12]} is not in "
            "this history; try `git fetch --unshallow`"
        )
        return
    with tarfile.open(fileobj=io.BytesIO(archive)) as packed:
        packed.extractall(folder, filter="data")
    told.write_text(COMMIT)  # last


if __name__ == "__main__":
    main(Path(sys.argv[1]))
