"""Builds the native part and installs it, where there is what it takes; else says how to get it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CARGO_LEAST = (1, 85)


def missing() -> str | None:
    """Return what is missing to build it, None if nothing is."""
    cargo = shutil.which("cargo")
    if cargo is None:
        return "cargo is not on the PATH"
    said = subprocess.run([cargo, "--version"], capture_output=True, text=True, check=False).stdout
    found = re.match(r"cargo (\d+)\.(\d+)", said)
    if found is None or tuple(map(int, found.groups())) < CARGO_LEAST:
        return f"cargo 1.85 or later is needed, and this one says {said.strip()!r}"
    if not any(map(shutil.which, (os.environ.get("CC", "cc"), "gcc", "clang"))):
        return "there is no C compiler"
    return None


def main() -> int:
    """Install it into the environment of this Python. The argument is the file that says so."""
    stamp = Path(sys.argv[1])
    why = missing()
    if why is not None:
        print(
            f"the native part is not built, as {why}: everything runs in Python. Install Rust 1.85 "
            "or later and a C compiler (on Debian and Ubuntu the packages rustup and gcc)",
            flush=True,
        )
        return 0
    environment = os.environ | {
        "MATURIN_NO_INSTALL_RUST": "1",  # it would fetch a toolchain from outside the registries
        "CARGO_TARGET_DIR": str(ROOT / "native" / "target"),  # so that the next build is quick
    }
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    done = subprocess.run(
        [*pip, "--no-deps", "--force-reinstall", str(ROOT / "native")], env=environment, check=False
    )
    if done.returncode == 0:
        stamp.touch()
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
