"""Tries the wheels as who has no compiler gets them: a new environment, nothing else, the demo.

try_wheels.py DIR    the wheel of the native part in DIR, and one of cosco that is made here
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PIP = ("-m", "pip", "--quiet", "--disable-pip-version-check")


def try_wheels(native: Path, directory: Path) -> str | None:
    """Install both wheels in `directory`, and run the demo there. Returns what is wrong."""
    subprocess.run(
        [sys.executable, *PIP, "wheel", "--no-deps", "--wheel-dir", directory, ROOT], check=True
    )
    (pure,) = directory.glob("cosco-*.whl")
    if not pure.name.endswith("-py3-none-any.whl"):
        return f"{pure.name} is not for every machine"
    venv = directory / "venv"
    subprocess.run([sys.executable, "-m", "venv", venv], check=True)
    nothing = directory / "bin"  # no compiler is found, nor anything else
    nothing.mkdir()
    environment = {k: v for k, v in os.environ.items() if k.startswith(("PIP_", "SSL_"))}
    environment |= {"PATH": str(nothing), "HOME": str(directory)}

    def python(*arguments: object) -> str:
        command = [str(venv / "bin" / "python"), *map(str, arguments)]
        return subprocess.run(
            command, cwd=directory, env=environment, check=True, stdout=subprocess.PIPE, text=True
        ).stdout

    python(*PIP, "install", f"{pure}[demo]", native)
    mechanics = python("-c", "import cosco.mechanics as m; print(m.NATIVE is not None)")
    if mechanics.strip() != "True":
        return "the wheel of the native part is not used"
    print(python(venv / "bin" / "cosco", "demo"))  # which fails unless its result is right
    return None


def main() -> int:
    """Do what the arguments say."""
    (built,) = sys.argv[1:]
    (native,) = Path(built).glob("cosco_native-*.whl")
    with tempfile.TemporaryDirectory(prefix="cosco-wheels-") as directory:
        wrong = try_wheels(native.absolute(), Path(directory))
    if wrong is not None:
        print(wrong, file=sys.stderr)
    return wrong is not None


if __name__ == "__main__":
    sys.exit(main())
