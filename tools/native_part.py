"""Builds the native part, installs it, checks it, packs it: where there is what that takes.

Where something is missing, one line says what; nothing but the wheel needs it.

    native_part.py install STAMP   into the environment of this Python; touches STAMP if it was
    native_part.py check           format, lints and tests of the Rust code
    native_part.py wheel DIR       a wheel that auditwheel accepts
    native_part.py ready           whether it can be built; says what is missing
    native_part.py breaks DIR      into DIR alone, so that tests can break it on purpose
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NATIVE = ROOT / "native"
FUZZ = NATIVE / "fuzz"
CARGO_LEAST = (1, 85)
CARGO = ("--quiet", "--locked")
_HOW_TO = (
    "Install Rust 1.85 or later and a C compiler (on Debian and Ubuntu the packages rustup and gcc)"
)
ENVIRONMENT = os.environ | {
    "MATURIN_NO_INSTALL_RUST": "1",  # it would fetch a toolchain from outside the registries
    "CARGO_TARGET_DIR": str(NATIVE / "target"),  # so that the next build is quick
}


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


def has_cpp_compiler() -> bool:
    """Whether there is a C++ compiler, which libFuzzer is built with."""
    return any(map(shutil.which, (os.environ.get("CXX", "c++"), "g++", "clang++")))


def install(stamp: Path) -> int:
    """Install it into the environment of this Python."""
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    code = _run(*pip, "--no-deps", "--force-reinstall", str(NATIVE))
    if code == 0:
        stamp.touch()
    return code


def breaks(directory: Path) -> int:
    """Install into `directory` what can be broken: for `PYTHONPATH`."""
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    build = [*pip, "--no-deps", "--upgrade", "--target", str(directory)]
    return _run(*build, "--config-settings", "build-args=--features breaks", str(NATIVE))


def check() -> int:
    """Run what keeps the Rust code in order: the formatter, clippy, the tests of the crates."""
    denied = ("--", "-D", "warnings")
    fuzz = ("--manifest-path", str(FUZZ / "Cargo.toml"))  # a workspace of its own
    commands: list[tuple[str, tuple[str, ...]]] = [
        ("fmt", ("fmt", "--check")),
        ("fmt", ("fmt", "--check", *fuzz)),
        ("clippy", ("clippy", *CARGO, "--all-targets", "--features", "breaks", *denied)),
        ("test", ("test", *CARGO, "--lib", "--tests")),
    ]
    if has_cpp_compiler():
        commands.append(("clippy", ("clippy", *CARGO, *fuzz, "--all-targets", *denied)))
    for tool, command in commands:
        if tool != "test" and not _cargo_has(tool):
            print(f"cargo {tool} is not installed, and not run", flush=True)
        elif code := _run("cargo", *command):
            return code
    return 0


def wheel(directory: Path) -> int:
    """Build a wheel into `directory` by the maturin beside this Python, and have it looked at."""
    tools = Path(sys.executable).parent
    build = [tools / "maturin", "build", "--quiet", "--release", "--locked"]
    before = set(directory.glob("cosco_native-*.whl"))
    for old in before:
        old.unlink()
    code = _run(*map(str, build), "--auditwheel", "check", "--out", str(directory))
    if code:
        return code
    (made,) = directory.glob("cosco_native-*.whl")
    return _run(str(tools / "auditwheel"), "show", str(made))


def _cargo_has(tool: str) -> bool:
    return (
        subprocess.run(["cargo", tool, "--version"], capture_output=True, check=False).returncode
        == 0
    )


def _run(*command: str) -> int:
    return subprocess.run(command, cwd=NATIVE, env=ENVIRONMENT, check=False).returncode


def refused(command: str, why: str) -> int:
    """Say why a command does nothing."""
    if command == "install":
        print(f"the native part is not built, as {why}: everything runs in Python. {_HOW_TO}")
    elif command == "check":
        print(f"the Rust code is not checked, as {why}")
    else:
        print(f"nothing is built, as {why}. {_HOW_TO}", file=sys.stderr)
        return 1
    return 0


def main() -> int:
    """Do what the arguments say."""
    of_path = {"wheel": wheel, "breaks": breaks, "install": install}
    match sys.argv[1:]:
        case ["check" | "ready"] | ["install" | "wheel" | "breaks", _] if why := missing():
            return refused(sys.argv[1], why)
        case ["ready"]:
            return 0
        case ["check"]:
            return check()
        case ["install" | "wheel" | "breaks" as command, path]:
            return of_path[command](Path(path).absolute())
    print(__doc__, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
