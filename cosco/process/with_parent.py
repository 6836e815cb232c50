"""Run a module as a program that ends when the process that started it does, however that ends.

    python -m cosco.process.with_parent PID MODULE ARGUMENTS…

The new process asks the kernel for this itself. `Popen` with a `preexec_fn` could ask before the
program begins, but it forks the whole process, and one in which gRPC runs does not survive that.
"""

from __future__ import annotations

import ctypes
import os
import runpy
import signal
import sys
from typing import Final

_PR_SET_PDEATHSIG: Final = 1


def end_with(parent: int) -> None:
    """Have the kernel kill this process when `parent`, the process that started it, ends."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it had ended before the kernel was asked
        os._exit(1)


if __name__ == "__main__":
    end_with(int(sys.argv[1]))
    del sys.argv[:2]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
