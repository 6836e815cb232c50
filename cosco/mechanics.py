"""Whether the native part does the mechanics of the row path: chosen here, once a process.

`cosco` does all of it in Python, and decides nothing elsewhere. Where the distribution
`cosco-native` is installed, it checks, copies and packs bytes instead: the same bytes, faster. See
docs/architecture/native.md.
"""

from __future__ import annotations

import os
from types import ModuleType
from typing import Final

#: The number of the native part's calls: it goes up when one is added or changes.
_INTERFACE: Final = 13
#: `off`: do without the native part, though it is installed.
ENVIRONMENT: Final = "COSCO_NATIVE"


def _chosen() -> tuple[ModuleType | None, str]:
    """Return the native part, if it is to be used, and what operators are told."""
    if os.environ.get(ENVIRONMENT, "") == "off":
        return None, f"portable ({ENVIRONMENT} is off)"
    try:
        import cosco_native  # noqa: PLC0415  it need not be there
    except ModuleNotFoundError:
        return None, "portable (cosco-native is not installed)"
    except ImportError as error:  # as for a C library that is older than this machine's
        return None, f"portable (cosco-native does not load: {error})"
    if cosco_native.INTERFACE != _INTERFACE:
        return None, f"portable (cosco-native {cosco_native.VERSION} is of another version)"
    return cosco_native, f"native {cosco_native.VERSION}"


#: The module of the native part; None: everything is done in Python.
#: DESCRIPTION: which of both, and why, in a few words.
NATIVE, DESCRIPTION = _chosen()
