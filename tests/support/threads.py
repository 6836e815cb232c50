"""Threads of the client in the process of a test, where other tests may have left other threads."""

from __future__ import annotations

import threading

_THREADS = tuple(
    f"cosco-{kind}"
    for kind in ("close", "fetch", "follow", "lease", "leftovers", "push", "recompute")
)
_KEPT = ("cosco-follow", "cosco-push")


def client_threads(*, kept: bool = True) -> list[str]:
    """Return the names of those that there are.

    kept: also of those that are kept for whoever comes next.
    """
    found = [one.name for one in threading.enumerate() if one.name.startswith(_THREADS)]
    return [name for name in found if kept or not name.startswith(_KEPT)]
