"""Types of Arrow that not every version of pyarrow has which we take."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pyarrow as pa
import pytest

CANONICAL = ("uuid", "json_", "bool8", "opaque")
needs_canonical = pytest.mark.skipif(
    not all(hasattr(pa, name) for name in CANONICAL), reason="this pyarrow has no such types"
)


def canonical(name: str, *arguments: Any) -> Iterable[pa.DataType]:
    """The type that pyarrow makes by this name, if it does."""
    return [getattr(pa, name)(*arguments)] if hasattr(pa, name) else []


def _casts_views() -> bool:
    try:
        pa.array(["a"], pa.string_view()).cast(pa.large_string())
    except pa.ArrowNotImplementedError:
        return False
    return True


#: What this version of pyarrow can do with views is enough to shuffle them.
TAKES_VIEWS = _casts_views()
needs_views = pytest.mark.skipif(not TAKES_VIEWS, reason="this pyarrow does not cast views")
