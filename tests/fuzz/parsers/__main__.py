"""Fuzzes what Python parses of others' bytes, guided by which branches an input comes to.

    python -m tests.fuzz.parsers --seconds 60 --seed 7 [TARGET …]
    python -m tests.fuzz.parsers --again TARGET FILE

Each target has its share of the seconds, in a process of its own, in which Atheris, which needs an
environment of its own (`make fuzzers`), counts branches of `cosco` and of Python's `http`. An input
that fails stays in `.fuzz/`. Where there is no Atheris one line says so, and that is no failure.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import importlib
import importlib.util
import io
import logging
import os
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

#: More than this beside what it begins with is too much for an input of 8 KiB.
_MORE_BYTES: Final = 1 << 30
_AGAIN: Final = "--again"


def main(arguments: Sequence[str]) -> int:
    """Do what the arguments say. Returns 1 if a target failed."""
    if arguments[:1] == [_AGAIN] and len(arguments) == 3:
        return _again(arguments[1], Path(arguments[2]))
    if importlib.util.find_spec("atheris") is None:
        print(f"what Python parses is not fuzzed, as there is no Atheris in {sys.prefix}")
        return 0
    fuzzer: Any = importlib.import_module("atheris")
    with (
        contextlib.redirect_stderr(io.StringIO()),
        fuzzer.instrument_imports(include=["cosco", "http"]),
    ):
        from tools import fuzz

        from .seeds import SEEDS
        from .targets import TARGETS
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.parsers")
    parser.add_argument("--seconds", type=int, default=60, help="of all together")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("names", nargs="*", choices=[[], *TARGETS], metavar="TARGET")
    options = parser.parse_args(arguments)
    names = options.names or list(TARGETS)

    def forked(command: Sequence[str], timeout_s: float) -> subprocess.CompletedProcess[bytes]:
        return _forked(fuzzer, TARGETS[command[0]], command, timeout_s)

    well = []
    for name in names:
        again = [sys.executable, "-m", "tests.fuzz.parsers", _AGAIN, name]
        target = fuzz.Target(f"python-{name}", [name], again, SEEDS[name]())
        each_s = fuzz.share_s(options.seconds, len(names))
        well.append(fuzz.run(target, fuzz.KEPT, each_s, options.seed, forked))
    return 0 if all(well) else 1


def _forked(
    fuzzer: Any, check: Any, command: Sequence[str], timeout_s: float
) -> subprocess.CompletedProcess[bytes]:
    """Fuzz in a child of this process, which has imported all that there is already.

    Returns: how it ended, and all that it printed; -SIGKILL if it had to be ended.
    """
    sys.stdout.flush()
    with tempfile.TemporaryFile() as output:
        child = os.fork()
        if not child:
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)
            _fuzz(fuzzer, check, command)
        late = threading.Timer(timeout_s, os.kill, (child, signal.SIGKILL))
        late.start()
        _, status = os.waitpid(child, 0)
        late.cancel()
        output.seek(0)
        code = os.waitstatus_to_exitcode(status)
        return subprocess.CompletedProcess(list(command), code, output.read())


def _fuzz(fuzzer: Any, check: Any, command: Sequence[str]) -> None:
    """Give a target what libFuzzer makes, until its time is over; the process ends with it."""
    try:
        logging.disable()
        _bound_memory()
        fuzzer.Setup(list(command), check)
        fuzzer.Fuzz()
    except Exception:  # noqa: BLE001  whatever it is, the parent tells it
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        # What has failed is kept by a handler of libFuzzer, which an exit in C calls; one in Python
        # would first go back through what the parent was doing.
        ctypes.CDLL(None).exit(1)


def _bound_memory() -> None:
    """Have whatever takes much more memory than there is now raise MemoryError.

    So is found what is reserved and not used yet, which the memory of a process does not tell.
    """
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + _MORE_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _again(name: str, path: Path) -> int:
    """Give a target an input that is kept; it needs no Atheris. Raises what the target raises."""
    from .targets import TARGETS

    logging.disable()
    _bound_memory()
    TARGETS[name](path.read_bytes())
    print(f"{name} takes {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
