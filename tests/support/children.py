"""What engines that fork have in common: children that must end well, and cases by name.

An engine is a module with cases, each of which runs in a process of its own, as forking is about
everything a process has.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from cosco import ClientClosed

CHILD_TIMEOUT_S = 60
_CASE_TIMEOUT_S = 90
#: gRPC says so in a forked child, once in a few dozen forks, of a descriptor of the parent that it
#: closes there; nothing follows from it.
_OF_THE_PARENT = "epoll_ctl failed: file descriptor was created pre fork"
_TESTS = Path(__file__).parents[1]

Case = Callable[[str], None]


def run_case(engine: str, case: str, metadata: str) -> None:
    """Run one case of an engine, a module of `support`, in a fresh interpreter."""
    with subprocess.Popen(
        [sys.executable, "-W", "error", "-m", f"support.{engine}", case, metadata],
        cwd=_TESTS,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            out, error = process.communicate(timeout=_CASE_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGUSR1)  # it shows where its threads are, see `main`
            with suppress(subprocess.TimeoutExpired):
                process.wait(1)
            process.kill()
            out, error = process.communicate()
    error = "".join(line for line in error.splitlines(True) if _OF_THE_PARENT not in line)
    assert (process.returncode, out, error) == (0, "ok\n", ""), (process.returncode, out, error)


def run_code(code: str, *, warnings: str = "error") -> str:
    """Run a program in a fresh interpreter, which must end well and in time.

    Returns: what it wrote to stderr.
    """
    ended = subprocess.run(
        [sys.executable, "-W", warnings, "-c", textwrap.dedent(code)],
        cwd=_TESTS,
        capture_output=True,
        text=True,
        timeout=_CASE_TIMEOUT_S,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return "".join(line for line in ended.stderr.splitlines(True) if _OF_THE_PARENT not in line)


def main(cases: Mapping[str, Case]) -> None:
    """Be the process of one case: its name and the metadata service are the arguments."""
    faulthandler.register(signal.SIGUSR1)
    name, metadata = sys.argv[1:]
    cases[name](metadata)
    print("ok")


def fork(work: Callable[[], object], *, soft: bool = False) -> int:
    """Start a child that does `work` and then ends; `soft`: by SystemExit, where it is.

    Returns: its pid, for `join`.
    """
    pid = os.fork()
    if not pid:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(CHILD_TIMEOUT_S)
        status = 1
        try:
            work()
            status = 0
        finally:
            if not soft or status:
                os._exit(status)
        sys.exit(0)
    return pid


def join(pid: int) -> None:
    """Wait for a child, which must end well."""
    _, status = os.waitpid(pid, 0)
    assert status == 0, f"a child ended with {status}"


def check_refused(uses: Iterable[Callable[[], object]]) -> None:
    """Check that a forked child is refused each use of what is its parent's."""
    for use in uses:
        try:
            use()
        except ClientClosed as error:
            assert "forked child" in str(error), error
        else:
            raise AssertionError(f"{use} worked")
