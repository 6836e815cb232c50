"""Packing in Python, and natively where the native part is there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import pytest

from cosco.client.write.state import packing_parts
from cosco.mechanics import NATIVE

PACKING_WAYS: Final = ["portable"] if NATIVE is None else ["portable", "native"]


@contextmanager
def packing_by(way: str) -> Iterator[None]:
    """Have packers that are made meanwhile be `portable` or `native`."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(packing_parts, "NATIVE", NATIVE if way == "native" else None)
        yield
