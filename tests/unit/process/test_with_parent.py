"""A program that ends when the process that started it is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
from support.commands import environment

from cosco.process import with_parent

#: Starts a module with arguments of its own, and waits to be killed.
PARENT = f"""
import os, subprocess, sys
subprocess.Popen([
    sys.executable, "-m", {with_parent.__name__!r}, str(os.getpid()), "this_module", "a", "b c"
]).wait()
"""
MODULE = """
import os, sys, time
print(os.getpid(), __name__, sys.argv[1:], flush=True)
time.sleep(60)
"""


def test_a_module_runs_as_a_program_and_dies_with_its_parent(tmp_path: Path) -> None:
    (tmp_path / "this_module.py").write_text(MODULE)
    with subprocess.Popen(
        [sys.executable, "-c", PARENT],
        stdout=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env=environment(),
    ) as parent:
        assert parent.stdout is not None
        pid, name, arguments = parent.stdout.readline().split(maxsplit=2)
        child = psutil.Process(int(pid))
        assert (name, arguments) == ("__main__", "['a', 'b c']\n")
        parent.send_signal(signal.SIGKILL)
        psutil.wait_procs([child], timeout=10)
        assert not child.is_running()


def test_it_ends_at_once_if_its_parent_is_another_already() -> None:
    command = [sys.executable, "-m", with_parent.__name__, str(os.getppid()), "this"]
    assert subprocess.run(command, check=False, env=environment()).returncode == 1
