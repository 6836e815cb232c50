"""Has gRPC keep a process usable when it forks, by a setting that it reads once.

gRPC reads it when it is imported. `import cosco` makes it before that, so that it does not matter
how much later, or by whom, gRPC is imported. What a user has set himself stays.
"""

from __future__ import annotations

import os
import sys
from typing import Any, Final

_VARIABLE: Final = "GRPC_ENABLE_FORK_SUPPORT"
#: What gRPC takes for yes, in lower case.
_YES: Final = frozenset({"1", "t", "true", "y", "yes"})
_refused_threads: Final[list[int]] = []  # the processes in which gRPC was refused one


def turn_on() -> None:
    """Set gRPC's fork support in the environment."""
    os.environ.setdefault(_VARIABLE, "1")


def note_refused_thread() -> None:
    """Note that gRPC could not start a thread, for which it waits in vain at every later fork.

    It counts its threads before they start, and not back (grpcio 1.85, `ForkManagedThread`). After
    five seconds it forks all the same, and its child does not work.
    """
    _refused_threads.append(os.getpid())


def complaint() -> str:
    """Say why forked children of this process cannot use gRPC, and what to do about it.

    Returns: empty if they can, which is known once gRPC was imported.
    """
    if _refused_threads:
        return (
            f"gRPC was refused a thread in process {_refused_threads[0]}: raise its limit of "
            "threads (ulimit -u, the pids of its container) and start it anew, or start processes "
            "with spawn or forkserver"
        )
    setting = os.environ.get(_VARIABLE, "")
    if setting.lower() not in _YES:
        return (
            f"{_VARIABLE} is {setting!r}, which turns gRPC's fork support off: leave it unset, or "
            "start processes with spawn or forkserver"
        )
    # Its own word, as the variable may have been set too late. Not a public name of gRPC's: where
    # there is none, the variable counts.
    cygrpc: Any = sys.modules.get("grpc._cython.cygrpc")
    is_on = getattr(cygrpc, "is_fork_support_enabled", None)
    if is_on is None or is_on():
        return ""
    return (
        "grpc was imported before cosco and without fork support: import cosco first, or set "
        f"{_VARIABLE}=1"
    )
