"""Handles as pickles, which are for processes of one build: a job's driver and its tasks.

What else passes between processes are messages, which builds one minor version apart understand. A
pickle names classes and their fields, so one of another build is refused, rather than half filled.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from cosco.errors import IncompatibleVersion


def shape_of(*kinds: Any) -> int:
    """Return a number that is another one where a field of these dataclasses is."""
    named = [(kind.__name__, [field.name for field in fields(kind)]) for kind in kinds]
    return zlib.crc32(repr(named).encode())


def values_of(state: Sequence[Any], shape: int) -> Sequence[Any]:
    """Return what follows the shape in what a handle was pickled as.

    Raises: IncompatibleVersion for the handle of another build.
    """
    if not state or state[0] != shape or isinstance(state[0], bool):
        raise IncompatibleVersion(
            "this handle was pickled by another build of Cosco: run a driver and its tasks with one"
        )
    return state[1:]
