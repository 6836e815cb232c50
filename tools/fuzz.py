"""Builds the fuzz targets of the native part, and runs each for its share of some seconds.

    python -m tools.fuzz --seconds 60 --seed 7 [TARGET …]

A target is a file of `native/fuzz/src/bin`. Coverage is LLVM's, which stable Rust can be told to
put in; the address sanitizer takes a nightly one, and is not there. An input that fails stays in
`.fuzz/`. Where no Rust or no C++ compiler is, one line says so, and that is no failure.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from tools import native_part
from tools.fuzz_corpus import seeds

TARGET_DIR: Final = native_part.NATIVE / "target" / "fuzz"
KEPT: Final = native_part.ROOT / ".fuzz"
#: What puts counters into the code: of edges, and of what is compared.
COVERAGE: Final = (
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Ccodegen-units=1",
)
LIMITS: Final = ("-max_len=8192", "-timeout=20", "-rss_limit_mb=1024")
#: Beyond its share: to begin, and to end what is under way.
_MORE_S: Final = 60


class Target(NamedTuple):
    """A program of libFuzzer, and what it begins with.

    again: the command that takes an input which has failed, and nothing else.
    """

    name: str
    command: Sequence[str]
    again: Sequence[str]
    seeds: Sequence[bytes]


class Report(NamedTuple):
    """What a target tells at its end: runs, and edges and comparisons that they came by."""

    runs: int
    coverage: int


def missing() -> str | None:
    """Return what is missing to build the targets, None if nothing is."""
    if why := native_part.missing():
        return why
    if not native_part.has_cpp_compiler():
        return "there is no C++ compiler, which libFuzzer is built with"
    return None


def targets() -> list[str]:
    """Return the names of all targets."""
    return sorted(path.stem for path in (native_part.FUZZ / "src" / "bin").glob("*.rs"))


def native_target(binary: Path) -> Target:
    """Return the target that a program of the native part is."""
    command = [str(binary)]
    return Target(binary.name, command, command, seeds(binary.name))


def share_s(seconds: int, count: int) -> int:
    """Return how long each of `count` targets may take: whole seconds, as they count them."""
    return max(1, seconds // count)


def report(output: str) -> Report:
    """Return what the output of a target tells; zeros where it has ended too soon for that."""
    runs = re.findall(r"^#(\d+)\t", output, re.MULTILINE)
    coverage = re.findall(r" cov: (\d+) ", output)
    return Report(int(runs[-1]) if runs else 0, int(coverage[-1]) if coverage else 0)


def build() -> Path | None:
    """Build the targets. Returns where they are; None if that failed, as the compiler has told."""
    said = subprocess.run(["rustc", "-vV"], capture_output=True, text=True, check=True).stdout
    # A target that is named keeps the flags away from what runs while it is built.
    host = next(line.split()[1] for line in said.splitlines() if line.startswith("host:"))
    environment = native_part.ENVIRONMENT | {
        "CARGO_TARGET_DIR": str(TARGET_DIR),
        "RUSTFLAGS": " ".join(COVERAGE),
    }
    command = ["cargo", "build", *native_part.CARGO, "--release", "--target", host]
    if subprocess.run(command, cwd=native_part.FUZZ, env=environment, check=False).returncode:
        return None
    return TARGET_DIR / host / "release"


def _executed(command: Sequence[str], timeout_s: float) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        timeout=timeout_s, check=False,
    )  # fmt: skip


def run(
    target: Target,
    kept: Path,
    seconds: int,
    seed: int,
    execute: Callable[[Sequence[str], float], subprocess.CompletedProcess[bytes]] = _executed,
) -> bool:
    """Run a target, and tell of it in a line. Returns whether all was well.

    kept: where an input stays that failed, under a name that begins with that of the target.
    execute: carries a command out, which is killed if it takes longer than a number of seconds.
    """
    kept.mkdir(exist_ok=True)
    before = set(kept.iterdir())
    with tempfile.TemporaryDirectory(prefix="cosco-fuzz-") as corpus:
        for number, data in enumerate(target.seeds):
            Path(corpus, f"seed-{number}").write_bytes(data)
        options = [f"-artifact_prefix={kept}/{target.name}-", f"-max_total_time={seconds}"]
        command = [*target.command, corpus, *options, f"-seed={seed}", *LIMITS]
        try:
            ended = execute(command, seconds + _MORE_S)
        except subprocess.TimeoutExpired:
            print(f"{target.name}: it did not end, with seed {seed}", flush=True)
            return False
    output = ended.stdout.decode(errors="replace")
    found = report(output)
    line = f"{target.name:20}{found.runs:>11} runs{found.coverage:>7} covered{seconds:>5} s"
    if ended.returncode == 0:
        print(line, flush=True)
        return True
    print(f"{line}  FAILED\n{output[-4000:]}", flush=True)
    for path in sorted(set(kept.iterdir()) - before):
        print(f"again with: {' '.join(target.again)} {path}", flush=True)
    return False


def main(arguments: Sequence[str]) -> int:
    """Do what the arguments say. Returns 1 if a target failed."""
    known = targets()
    parser = argparse.ArgumentParser(prog="python -m tools.fuzz")
    parser.add_argument("--seconds", type=int, default=60, help="of all together; 0 builds alone")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("names", nargs="*", choices=[[], *known], metavar="TARGET")
    options = parser.parse_args(arguments)
    if why := missing():
        print(f"nothing is fuzzed, as {why}")
        return 0
    folder = build()
    if folder is None:
        return 1
    if options.seconds <= 0:
        return 0
    names = options.names or known
    each_s = share_s(options.seconds, len(names))
    well = [run(native_target(folder / name), KEPT, each_s, options.seed) for name in names]
    return 0 if all(well) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
