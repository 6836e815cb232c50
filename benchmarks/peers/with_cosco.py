"""Cosco beside an engine: this checkout's, in the environment of the engine.

Import it before anything of Cosco.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cosco import LocalCluster

_CHECKOUT = Path(__file__).resolve().parents[2]
_PATHS = [str(_CHECKOUT), str(_CHECKOUT / "benchmarks"), str(Path(__file__).parent)]
DAEMONS = 2
#: Page pool of each daemon, as on Cosco's own side.
MEMORY = "256MiB"

sys.path[:0] = [path for path in _PATHS if path not in sys.path]
# The workers of an engine are programs of their own.
os.environ["PYTHONPATH"] = os.pathsep.join(
    filter(None, (*_PATHS, os.environ.get("PYTHONPATH", "")))
)


@contextmanager
def services(scratch: str) -> Iterator[LocalCluster]:
    """Run daemons and a metadata service, with all their files below `scratch`."""
    from cosco import LocalCluster  # noqa: PLC0415  which is there by now

    with LocalCluster(DAEMONS, memory=MEMORY, directory=scratch) as cluster:
        yield cluster


def settings(replicas: int) -> dict[str, object]:
    """What to report of them."""
    return {"daemons": DAEMONS, "daemon_memory": MEMORY, "replicas": replicas}
