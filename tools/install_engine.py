"""Make the environment of an engine: cosco as it lies here, with the engine and what tests need.

    python tools/install_engine.py dask .engines/dask
    python tools/install_engine.py fuzz .fuzz/venv

The second is that of the fuzz targets of what Python parses. Where the index has nothing of the
engine for this Python that is said in the file `missing` of the environment, and is no failure: its
tests cannot run on this machine. What else goes wrong is one.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
#: What pip says when no version, or no file of one, fits this Python and this machine.
_NOTHING_FITS: Final = re.compile(r"No matching distribution found for ([^\s;]+)")
#: And when it has not reached an index, after which it says the above as well.
_NOT_REACHED: Final = re.compile(
    r"connection broken|HTTPError|SSLError|Could not fetch URL|Network is unreachable"
)
_TAIL_LINES: Final = 8
_FUZZ: Final = "fuzz"
#: Takes a compiler that has libFuzzer, so it is wanted as a wheel or not at all.
_NEVER_BUILT: Final = "atheris"


def what_is_missing(output: str) -> str | None:
    """Return what nothing fits of, by what pip has said; None if something else went wrong."""
    nothing = _NOTHING_FITS.search(output)
    return None if nothing is None or _NOT_REACHED.search(output) else nothing[1]


def extra_of(engine: str) -> tuple[str, str]:
    """Return the extra of cosco that an environment has, and what is told where it cannot be."""
    if engine == _FUZZ:
        return _FUZZ, "what Python parses is not fuzzed"
    return f"test-{engine}", f"{engine} is not tested"


def main(engine: str, folder: Path) -> int:
    """Make it, or say why not.

    Returns: the exit code.
    """
    extra, refusal = extra_of(engine)
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    python = "{}.{}".format(*sys.version_info)
    done = subprocess.run(
        [folder / "bin" / "python", "-m", "pip", "install", "--quiet",
         "--disable-pip-version-check", "--only-binary", _NEVER_BUILT,
         "--editable", f".[{extra}]"],
        cwd=ROOT, check=False, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    if done.returncode == 0:
        return 0
    missing = what_is_missing(done.stdout)
    if missing is not None:
        said = f"{refusal}: no {missing} is to be had for Python {python} here"
        (folder / "missing").write_text(f"{said}\n")
        print(said)
        return 0
    tail = "\n".join(done.stdout.splitlines()[-_TAIL_LINES:])
    print(f"{engine} could not be installed into {folder}:\n{tail}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2])))
