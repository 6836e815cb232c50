"""Keeps forked children from waiting for ever for a lock of Arrow's memory pool.

Arrow's default pool, mimalloc, has locks and no handler for forks: of a lock that another thread of
the parent held, the child has a copy that nobody gives back. The C library's pool can do with
forks, and takes its place in children. Arrow's C++ code uses its own default here and there,
whatever Python has set: the way of a row does without those calls, but for messages of schemas. A
thread that has used the pool before makes them without a lock.
"""

from __future__ import annotations

import os
import sys
from typing import Any, Final

#: What does not survive a fork. Arrow's third pool, jemalloc, has handlers of its own.
_UNSAFE: Final = "mimalloc"


def leave_in_children() -> None:
    """Have every forked child of this process use the pool of the C library."""
    os.register_at_fork(before=touch, after_in_child=leave)


def touch() -> None:
    """Have the pool set up for this thread, if Arrow is loaded."""
    arrow: Any = sys.modules.get("pyarrow")
    if hasattr(arrow, "schema"):  # or another thread is about to import it
        arrow.schema([]).serialize()


def leave() -> None:
    """Use the pool of the C library from now on, if Arrow is loaded."""
    arrow: Any = sys.modules.get("pyarrow")
    if not hasattr(arrow, "set_memory_pool"):
        return
    if arrow.default_memory_pool().backend_name == _UNSAFE:
        arrow.set_memory_pool(arrow.system_memory_pool())
